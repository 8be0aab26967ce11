"""The report as one page of HTML that needs nothing beside it: no script, font or picture."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from appliance.evaluation.report import words
from appliance.evaluation.report.model import Groups, PackPoint, Report

_HERE = Path(__file__).parent
USUAL_FMR = 1e-4
"""The FMR that settings name unless an installer chooses another; the page's first sentence is of it."""
_REFUSED_OF, _ACCEPTED_OF = 1_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Plainly:
    """What a threshold means, as numbers of attempts in words.

    Attributes:
        named: the FMR that names it.
        fixed: it is the pack's own; else it was set on these data.
        refused, refused_span: of 1,000 attempts by the right person.
        accepted, accepted_span: of 1,000,000 attempts by somebody else; no interval where it was set on them.
    """

    named: float
    fixed: bool
    threshold: float
    refused: str
    refused_span: str
    accepted: str
    accepted_span: str | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One interval in the picture of the groups; shares of the width from 0 to 100."""

    at: float
    low: float
    high: float


def render(report: Report, plots: Mapping[str, str]) -> str:
    """The page.

    Args:
        report: what it tells.
        plots: SVG for within a page, by name; these are ours and go in as they are.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["removeprefix"] = str.removeprefix
    for each in ("count", "name", "one_in", "people", "shortened", "signed"):
        environment.filters[each] = getattr(words, each)
    environment.filters["percent"] = lambda rate: _together(words.percent(rate))
    environment.filters["stated"] = lambda rate: _together(words.stated(rate))
    return environment.get_template("page.html.j2").render(
        report=report,
        plots=plots,  # drawn by us, no text from outside: the template takes them, and the style, as they are
        css=(_HERE / "page.css").read_text(encoding="utf-8"),
        plainly=plainly(report),
        span=lambda low, high: _together(words.span(low, high)),
        points=words.points,
        most=words.most_with_no_error(report.genuine_people, report.level),
        level=_together(f"{report.level * 100:g} %"),
        scale=scale,
        bar=bar,
        value=value,
        refused_of=_REFUSED_OF,
        accepted_of=_ACCEPTED_OF,
    )


def plainly(report: Report) -> list[Plainly]:
    """What each threshold means; first that of the usual setting, or the one nearest to it.

    The pack's thresholds, since those stand at the door; where it has none for such attempts, those that were
    set on these data.
    """
    if report.at_pack_thresholds:
        said = [_of_pack(each) for each in report.at_pack_thresholds]
    else:
        said = [
            Plainly(
                float(fmr),
                fixed=False,
                threshold=each.threshold,
                refused=words.of_many(each.fnmr, _REFUSED_OF),
                refused_span=_between(each.low, each.high, _REFUSED_OF),
                accepted=words.of_many(float(fmr), _ACCEPTED_OF),
                accepted_span=None,
            )
            for fmr, each in report.fnmr_at_fmr.items()
        ]
    return sorted(said, key=lambda each: (round(abs(math.log10(each.named / USUAL_FMR)), 6), each.named))


def _of_pack(point: PackPoint) -> Plainly:
    return Plainly(
        point.named_fmr,
        fixed=True,
        threshold=point.threshold,
        refused=words.of_many(point.fnmr.rate, _REFUSED_OF),
        refused_span=_between(point.fnmr.low, point.fnmr.high, _REFUSED_OF),
        accepted=words.of_many(point.fmr.rate, _ACCEPTED_OF),
        accepted_span=_between(point.fmr.low, point.fmr.high, _ACCEPTED_OF),
    )


def _together(text: str) -> str:
    """A figure whose sign for per cent does not begin a line of its own."""
    return text.replace(" %", "\u00a0%")


def _between(low: float, high: float, many: int) -> str:
    return f"{words.of_many(low, many)} to {words.of_many(high, many)}"


def scale(groups: Groups, kind: str) -> float:
    """The rate at the right end of a picture of groups, a round one.

    Args:
        groups: of one attribute.
        kind: `fnmr` or `fmr`.
    """
    highest = max(
        (getattr(row, f"{kind}_high") or getattr(row, kind) or 0.0 for row in groups.rows), default=0
    )
    return _round_up(highest) if highest > 0 else 0.01


def bar(low: float | None, rate: float | None, high: float | None, end: float) -> Bar | None:
    """Where an interval lies on a scale from 0 to `end`; None where there is no rate."""
    if rate is None:
        return None
    low, high = rate if low is None else low, rate if high is None else high
    return Bar(*(round(100 * min(each / end, 1), 2) for each in (rate, low, high)))


def value(given: float | str | None) -> str:
    """A single figure of a list of pairs, whatever it is."""
    if given is None:
        return "not known"
    if isinstance(given, str):
        return words.name(given)
    return f"{given:,}" if isinstance(given, int) else f"{given:.4g}"


def _round_up(rate: float) -> float:
    size: float = 10.0 ** math.floor(math.log10(rate))
    steps: Iterable[float] = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return min(1.0, next(step for step in steps if step * size >= rate * (1 - 1e-9)) * size)
