"""What the scores say of the rates that count: FNMR at FMR, the EER and the DET, each with its interval.

A threshold is found on the same people as the rate, so its own uncertainty belongs to the interval: in each
replicate of the bootstrap over people (see `intervals`) the threshold is found anew. Only the highest
impostor scores can hold it, so only those are weighed, and the weight of all follows from the counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appliance.evaluation.error_rates import (
    Counts,
    ScoreSet,
    Shares,
    counts_at,
    crossing_of,
    equal_error_rate,
    fnmr_at,
    passing,
    threshold_for,
)
from appliance.evaluation.intervals import (
    REPLICATES,
    SEED,
    Members,
    Method,
    effective_people,
    impostor_weight,
    resampled,
    settled,
    thinned,
)

RATES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)

LEAST_IMPOSTORS = 10
"""Impostor scores above a threshold, from which on its FMR is stated. With ten independent ones the true FMR
is within a factor of four (exact Poisson interval 4.8-18.4); with fewer it is soon known to no better than an
order of magnitude."""

LEAST_PAIRS = 4
"""Pairs of people among whom those must be: the scores of one pair of look-alikes are one event, however many
photographs there are. With four events the Poisson interval, 1.1-10.2, is still within an order of magnitude;
with three it is not."""

WEIGHED = 5
"""Impostor scores that are weighed, in multiples of those above the plain threshold: no replicate has to look
further down."""

WEIGHED_AT_LEAST = 1000

DET_STEPS = 8
"""Points of the DET for each power of ten."""

DET_UP_TO = 0.5


@dataclass(frozen=True, slots=True)
class FnmrAtFmr:
    """FNMR at the threshold for an FMR.

    Attributes:
        fmr: the one asked for.
        threshold: the least at which the share of impostors does not exceed it.
        fnmr: fraction, with its interval of 95 % over people, the threshold found anew each time.
        low: see fnmr.
        high: see fnmr.
        errors: genuine attempts below the threshold.
        impostors_above: impostor scores at or above it.
        pairs_above: pairs of people they are of; None where the tail does not reach so far down.
        people: who made genuine attempts.
        method: how the interval was found.
    """

    fmr: float
    threshold: float
    fnmr: float
    low: float
    high: float
    errors: int
    impostors_above: int
    pairs_above: int | None
    people: int
    method: Method


@dataclass(frozen=True, slots=True)
class Stated:
    """What the data allow to state, and of each other FMR the sentence why not."""

    stated: dict[float, FnmrAtFmr]
    left_out: dict[float, str]


@dataclass(frozen=True, slots=True)
class EerWithInterval:
    """The EER with its interval of 95 % over people; `exact` as in `EqualErrorRate`."""

    eer: float
    low: float
    high: float
    threshold: float
    exact: bool
    people: int
    method: Method


def fnmr_at_fmr(
    scores: ScoreSet, rates: Sequence[float] = RATES, *, replicates: int = REPLICATES, seed: int = SEED
) -> Stated:
    """FNMR at each FMR that the data allow to state.

    Args:
        scores: of one evaluation.
        rates: FMRs, each above 0 and below 1.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ScoresError: there are no genuine attempts or no impostors, or an FMR is not a share.
    """
    fnmr_at(scores, 0)
    points = _points(scores, rates)
    left_out = {point.fmr: why for point in points if (why := point.why_not(scores.impostors)) is not None}
    asked = [point for point in points if point.fmr not in left_out]
    stated: dict[float, FnmrAtFmr] = {}
    if asked:
        found = Replicated(scores, [point.fmr for point in asked]).fnmr(replicates, seed)
        stated = {point.fmr: _stated(scores, point, found[:, n]) for n, point in enumerate(asked)}
    return Stated(stated, left_out)


def eer_over_people(scores: ScoreSet, *, replicates: int = REPLICATES, seed: int = SEED) -> EerWithInterval:
    """The EER with its interval.

    Where genuine and impostor scores do not overlap (EER 0), the bound is that of an FNMR without errors.

    Raises:
        ScoresError: there are no genuine attempts or no impostors.
    """
    plain = equal_error_rate(scores)
    below = scores.genuine < np.float64(plain.threshold)
    values = Replicated(scores, [max(plain.eer, 1 / scores.impostors)]).eer(replicates, seed)
    low, high, method = _interval(scores, plain.eer, below, values)
    return EerWithInterval(
        plain.eer, low, high, plain.threshold, plain.exact, len(np.unique(scores.genuine_person)), method
    )


def det(scores: ScoreSet, *, replicates: int = REPLICATES, seed: int = SEED) -> list[FnmrAtFmr]:
    """The DET from the least FMR that the data allow up to 0.5, in even steps of its logarithm.

    The interval is that of FNMR at each FMR by itself, not of the curve as a whole. Where the tail does not
    reach down to a threshold, it is held fast: over so many impostors it hardly moves.

    Raises:
        ScoresError: there are no genuine attempts or no impostors.
    """
    least = LEAST_IMPOSTORS / max(scores.impostors, 1)
    decades = np.log10(DET_UP_TO / least) if least < DET_UP_TO else 0
    steps = np.linspace(np.log10(least), np.log10(DET_UP_TO), int(np.ceil(decades * DET_STEPS)) + 1)
    # The first is made of the very count that its own rule asks for, and must not fall short by rounding.
    rates = [min(DET_UP_TO, float(rate)) for rate in np.unique(10**steps * (1 + 1e-9))]
    return list(fnmr_at_fmr(scores, rates, replicates=replicates, seed=seed).stated.values())


class Replicated:
    """The scores under the weights of resampled people.

    Args:
        scores: with genuine attempts and impostors.
        rates: FMRs whose thresholds are sought, or about where the EER lies.
    """

    def __init__(self, scores: ScoreSet, rates: Sequence[float]) -> None:
        self._scores = scores
        self._rates = rates
        wanted = int(WEIGHED * max(rates) * scores.impostors) + WEIGHED_AT_LEAST
        few = thinned(min(wanted, len(scores.tail)))
        self._template = scores.tail_template[few.index]
        self._probe = scores.tail_probe[few.index]
        self._stands_for = few.stands_for
        order = np.argsort(scores.genuine, kind="stable")
        self._genuine = scores.genuine[order]
        self._genuine_person = scores.genuine_person[order]
        self._falling = scores.tail[few.index]
        # The threshold lies just above a score of the tail: rank of the genuine scores that fail with it.
        self._failing = np.searchsorted(self._genuine, self._falling, side="right")
        self._fixed = self._fixed_ranks()

    def fnmr(self, replicates: int, seed: int) -> Shares:
        """FNMR (replicates, rates), the thresholds found anew; NaN where nobody is compared."""
        weights = resampled(self._scores.people, replicates, seed)
        return np.array([self.fnmr_under(each) for each in weights])

    def eer(self, replicates: int, seed: int) -> Shares:
        """EER (replicates,); NaN where nobody is compared."""
        self._corners()
        weights = resampled(self._scores.people, replicates, seed)
        return np.array([self.eer_under(each) for each in weights])

    def fnmr_under(self, weights: Counts) -> Shares:
        """FNMR (rates,) with people (people,) weighed so; NaN where nobody is compared."""
        failed, impostors, whole = self._weigh(weights)
        if not failed[-1] or not whole:
            return np.full(len(self._rates), np.nan)
        most = [passing(fmr, whole) for fmr in self._rates]
        first = np.minimum(np.searchsorted(impostors, most, side="right"), len(impostors) - 1)
        ranks = np.where(self._fixed < 0, self._failing[first], self._fixed)
        rates: Shares = failed[ranks] / failed[-1]
        return rates

    def eer_under(self, weights: Counts) -> float:
        """The EER with people (people,) weighed so; NaN where nobody is compared."""
        failed, impostors, whole = self._weigh(weights)
        if not failed[-1] or not whole:
            return float("nan")
        summed = np.append(0, impostors) / whole
        at = np.where(self._weighed, summed[self._at], self._plain_at)
        above = np.where(self._weighed, summed[self._above], self._plain_above)
        ranks = self._ranks
        return crossing_of(failed[ranks[:-1]] / failed[-1], failed[ranks[1:]] / failed[-1], at, above)[0]

    def _weigh(self, weights: Counts) -> tuple[Counts, Counts, int]:
        """Genuine weight up to each rank, impostor weight down the tail, and that of all impostors."""
        failed = np.append(0, np.cumsum(weights[self._genuine_person]))
        pairs = weights[self._template] * weights[self._probe] * self._stands_for
        whole = impostor_weight(weights, self._scores.templates_of, self._scores.attempts_of)
        return failed, np.cumsum(pairs), whole

    def _fixed_ranks(self) -> Counts:
        """(rates,) of genuine scores below a threshold that the tail is too short to find anew, else -1."""
        ranks = np.full(len(self._rates), -1)
        if self._scores.complete:
            return ranks
        for n, fmr in enumerate(self._rates):
            if int(fmr * self._scores.impostors * 1.5) >= len(self._scores.tail):
                threshold = np.float64(threshold_for(self._scores, fmr)[0])
                ranks[n] = np.searchsorted(self._genuine.astype(np.float64), threshold, side="left")
        return ranks

    def _corners(self) -> None:
        """Where the distinct genuine scores lie among the impostors; see `crossing_of`."""
        values, first = np.unique(self._genuine, return_index=True)
        self._ranks = np.append(first, len(self._genuine))
        rising = self._falling[::-1]
        self._at = len(rising) - np.searchsorted(rising, values, side="left")
        self._above = len(rising) - np.searchsorted(rising, values, side="right")
        # Further down FMR is taken as it is: too far from the EER to matter, or beyond the tail.
        at, above, _ = counts_at(self._scores, values)
        self._plain_at, self._plain_above = at / self._scores.impostors, above / self._scores.impostors
        whole = len(self._scores.tail) == len(self._falling) and self._scores.complete
        self._weighed = np.ones(len(values), np.bool_) if whole else values > rising[0]


@dataclass(frozen=True, slots=True)
class _Point:
    """An FMR, its threshold, and what lies above it; `pairs` is None where the tail does not reach."""

    fmr: float
    threshold: float
    above: int
    pairs: int | None

    def why_not(self, impostors: int) -> str | None:
        """The sentence why nothing can be stated at this FMR, or None."""
        if self.above < LEAST_IMPOSTORS:
            lie = "lies" if self.above == 1 else "lie"
            return (
                f"of {impostors:,} impostor scores {self.above} {lie} above the threshold for FMR "
                f"{self.fmr:g}, and fewer than {LEAST_IMPOSTORS} do not tell it from another"
            )
        if self.pairs is not None and self.pairs < LEAST_PAIRS:
            return (
                f"the {self.above} impostor scores above the threshold for FMR {self.fmr:g} are of "
                f"{self.pairs} pair(s) of people, and fewer than {LEAST_PAIRS} do not tell it from another"
            )
        return None


def _points(scores: ScoreSet, rates: Sequence[float]) -> list[_Point]:
    found = [threshold_for(scores, fmr) for fmr in rates]
    above = counts_at(scores, np.array([threshold for threshold, _ in found]))[0]
    one, other = scores.tail_template.astype(np.int64), scores.tail_probe.astype(np.int64)
    pair = np.minimum(one, other) * scores.people + np.maximum(one, other)
    first_seen = np.sort(np.unique(pair, return_index=True)[1])
    pairs = np.searchsorted(first_seen, above)
    return [
        _Point(fmr, threshold, int(count), int(of) if known else None)
        for fmr, (threshold, known), count, of in zip(rates, found, above, pairs, strict=True)
    ]


def _stated(scores: ScoreSet, point: _Point, replicates: Shares) -> FnmrAtFmr:
    below = scores.genuine < np.float64(point.threshold)
    fnmr = float(below.mean())
    low, high, method = _interval(scores, fnmr, below, replicates)
    return FnmrAtFmr(
        fmr=point.fmr,
        threshold=point.threshold,
        fnmr=fnmr,
        low=low,
        high=high,
        errors=int(below.sum()),
        impostors_above=point.above,
        pairs_above=point.pairs,
        people=len(np.unique(scores.genuine_person)),
        method=method,
    )


def _interval(
    scores: ScoreSet, rate: float, below: Members, replicates: Shares
) -> tuple[float, float, Method]:
    """The interval of FNMR, or of the EER, where the attempts `below` fail."""
    erring, succeeding, people = (
        len(np.unique(scores.genuine_person[who])) for who in (below, ~below, np.ones_like(below))
    )
    effective = effective_people(np.bincount(scores.genuine_person))
    return settled(rate, replicates, erring=erring, succeeding=succeeding, people=people, effective=effective)
