"""Rates and counts as people read them. A rate is a fraction; what it becomes is text."""

import math
import unicodedata

_HIDDEN = frozenset(
    "\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)
"""Characters that turn the line around or hide: a name could pose as another with them."""


def percent(rate: float | None) -> str:
    """`0.0054` as `0.54 %`: two significant digits, two decimals from 1 %, one from 10 %."""
    return "not known" if rate is None else f"{_digits(rate * 100)} %"


def stated(rate: float) -> str:
    """A rate that somebody chose, such as 1e-4, without zeros at its end: `0.01 %`."""
    return f"{_digits(rate * 100).rstrip('0').rstrip('.') if rate * 100 < 10 else f'{rate * 100:g}'} %"


def span(low: float | None, high: float | None) -> str:
    """An interval of rates: `0.31 to 0.82 %`."""
    if low is None or high is None:
        return "not known"
    return f"{_digits(low * 100)} to {_digits(high * 100)} %"


def signed(difference: float) -> str:
    """A difference of rates in percentage points: `1.65`."""
    return _digits(difference * 100).replace("-", "\u2212")


def points(low: float, high: float) -> str:
    """An interval of a difference of rates, in percentage points: `-0.2 to 1.4`."""
    return f"{signed(low)} to {signed(high)}"


def one_in(rate: float) -> str:
    """`1e-4` as `1 in 10,000`."""
    return f"1 in {round(1 / rate):,}"


def count(number: int) -> str:
    """`2286810` as `2,286,810`."""
    return f"{number:,}"


def of_many(rate: float, many: int) -> str:
    """How many of so many: `3.4`, `fewer than 0.1`, `83`, `1,240`."""
    number = rate * many
    if number == 0:
        return "0"
    if number < 0.1:
        return "fewer than 0.1"
    if number < 9.95:
        return f"{number:.1f}".removesuffix(".0")
    return f"{number:,.0f}"


def people(number: int) -> str:
    """`1 person`, `147 people`."""
    return "1 person" if number == 1 else f"{number:,} people"


def name(text: str) -> str:
    r"""A name from outside, with what would hide or turn the line around written out: `\u202e`."""
    return "".join(
        f"\\u{ord(each):04x}" if each in _HIDDEN or unicodedata.category(each) == "Cc" else each
        for each in text
    )


def shortened(text: str, most: int = 80) -> str:
    """A long name without its middle, so that its beginning and its end can still be compared."""
    return text if len(text) <= most else f"{text[: most // 2]}\u2026{text[-(most // 2 - 1) :]}"


def most_with_no_error(people_seen: int, level: float = 0.95) -> float:
    """The largest share of people that no error among so many leaves open ("rule of three": about 3 / n).

    Args:
        people_seen: how many, independent of each other.
        level: of confidence.
    """
    return 1.0 if people_seen < 1 else float(1 - (1 - level) ** (1 / people_seen))


def _digits(number: float) -> str:
    if number == 0:
        return "0"
    size = abs(number)
    if size >= 9.995:
        return f"{number:.1f}".removesuffix(".0") if size >= 99.95 else f"{number:.1f}"
    if size >= 0.995:
        return f"{number:.2f}"
    return f"{number:.{1 - math.floor(math.log10(size))}f}"
