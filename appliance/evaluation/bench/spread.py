"""Medians and how sure they are, without assuming a distribution: times on a shared machine have none."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

ONE_IN = 40
"""An interval misses the true median once in so many times on either side: it covers 95 %."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of n values, and their 5th and 95th percentile, in the unit of the values."""

    median: float
    p5: float
    p95: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        low, middle, high = (float(each) for each in np.percentile(values, (5, 50, 95)))
        return cls(middle, low, high, len(values))

    def as_json(self) -> dict[str, float]:
        """For `--json`, to four significant decimals of a millisecond."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Interval:
    """A median of n values, and the interval that holds the true one at least 95 times in a hundred."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of order statistics (David and Nagaraja, *Order Statistics*, 2003, section 7.1).

        Between the k-th smallest and the k-th largest of n values lies the true median, unless fewer than
        k fell on one side of it, which is a matter of n fair coins. With fewer than six values even the
        outermost two are not that sure; they are given all the same.
        """
        ordered = sorted(values)
        n = len(ordered)
        k = max(1, _rank(n))
        return cls(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k]), n)

    def inverse(self) -> "Interval":
        """The interval of the inverse values, of a quantity above zero."""
        return Interval(1 / self.median, 1 / self.high, 1 / self.low, self.n)

    def as_json(self) -> dict[str, float]:
        """For `--json`."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def _rank(n: int) -> int:
    """The largest k for which the k-th smallest of n lies above the median no more often than `ONE_IN`."""
    below, ways = 0, 1
    for k in range(n):
        below += ways
        if below * ONE_IN > 2**n:
            return k
        ways = ways * (n - k) // (k + 1)  # n choose k + 1
    return 0


def ratios(above: Sequence[float], below: Sequence[float]) -> Interval:
    """The ratio of two series that were measured round by round, as the median of the rounds' own ratios."""
    return Interval.of([one / other for one, other in zip(above, below, strict=True)])
