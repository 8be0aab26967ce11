"""Error rates of a set of comparison scores, as ISO/IEC 19795-1:2021 defines them: FMR, FNMR, EER and DET.

A comparison passes where its score is at or above the threshold, as at the door. These are the plain
figures; `intervals` and `operating_points` say how sure they are, and `impostor_tail` gathers the scores.

Impostor comparisons are a full cross, each template against every attempt of every *other* person. That
makes hundreds of millions of scores of a few thousand people, of which the rates need only the largest: a
`ScoreSet` keeps those one by one with their people, and all of them as a histogram.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.errors import DrempelError

Scores = npt.NDArray[np.float32]
People = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

BINS = 2000
"""Bins of the histogram of impostor scores: a thousandth of a cosine each."""

HISTOGRAM_EDGES: Shares = np.linspace(-1, 1, BINS + 1)
"""(2001,) from -1 to 1. A bin holds its lower edge; the last holds 1 as well."""

ROUNDING = 1e-4
"""How far beyond -1..1 a cosine in float32 may land; what lies further out is no cosine."""


class ScoresError(DrempelError, ValueError):
    """The scores, or what is asked of them, are not what an error rate can be made of."""


@dataclass(frozen=True, slots=True)
class ScoreSet:
    """The scores of one evaluation over `people` people, who are named by an index from 0.

    Attributes:
        genuine: f32 (g,), scores of genuine attempts.
        genuine_person: i32 (g,), whose they are.
        tail: f32 (t,), the t largest impostor scores, falling.
        tail_template: i32 (t,), whose template each of them was compared with.
        tail_probe: i32 (t,), who stood before it.
        templates_of: i64 (people,), templates of each person.
        attempts_of: i64 (people,), impostor attempts of each person at *each* template of another.
        histogram: i64 (2000,), of all impostor scores over `HISTOGRAM_EDGES`.

    Raises:
        ScoresError: shapes, kinds or counts do not fit each other.
    """

    genuine: Scores
    genuine_person: People
    tail: Scores
    tail_template: People
    tail_probe: People
    templates_of: Counts
    attempts_of: Counts
    histogram: Counts

    def __post_init__(self) -> None:
        self._check_kinds()
        self._check_people()
        self._check_counts()

    @property
    def people(self) -> int:
        """All people, with or without genuine attempts."""
        return len(self.templates_of)

    @property
    def impostors(self) -> int:
        """Impostor comparisons: each template with the attempts of all others."""
        others = int(self.attempts_of.sum()) - self.attempts_of
        return int((self.templates_of * others).sum())

    @property
    def complete(self) -> bool:
        """Whether the tail holds every impostor score."""
        return len(self.tail) == self.impostors

    def _check_kinds(self) -> None:
        for name, kind in (
            ("genuine", "f"),
            ("tail", "f"),
            ("genuine_person", "i"),
            ("tail_template", "i"),
            ("tail_probe", "i"),
            ("templates_of", "i"),
            ("attempts_of", "i"),
            ("histogram", "i"),
        ):
            values: npt.NDArray[np.generic] = getattr(self, name)
            if values.ndim != 1 or values.dtype.kind != kind:
                what = "floats" if kind == "f" else "integers"
                raise ScoresError(f"{name} must be one row of {what}, not {values.dtype} {values.shape}")
        for name in ("genuine", "tail"):
            check_scores(getattr(self, name), name)

    def _check_people(self) -> None:
        if len(self.genuine) != len(self.genuine_person):
            raise ScoresError(
                f"{len(self.genuine)} genuine scores of {len(self.genuine_person)} people: name one for each"
            )
        if not len(self.tail) == len(self.tail_template) == len(self.tail_probe):
            raise ScoresError("each score of the tail needs the person of its template and of its probe")
        if len(self.templates_of) != len(self.attempts_of):
            raise ScoresError("templates_of and attempts_of must count the same people")
        for name in ("genuine_person", "tail_template", "tail_probe"):
            who: People = getattr(self, name)
            if ((who < 0) | (who >= self.people)).any():
                raise ScoresError(f"{name} names somebody beyond the {self.people} people")
        if (self.tail_template == self.tail_probe).any():
            raise ScoresError("the tail compares somebody with the own template: no impostor")

    def _check_counts(self) -> None:
        if len(self.histogram) != BINS:
            raise ScoresError(f"the histogram must have {BINS} bins, not {len(self.histogram)}")
        if any((counts < 0).any() for counts in (self.templates_of, self.attempts_of, self.histogram)):
            raise ScoresError("a count is below zero")
        if (np.diff(self.tail) > 0).any():
            raise ScoresError("the tail must fall: sort it, the largest score first")
        if int(self.histogram.sum()) != self.impostors:
            raise ScoresError(
                f"the histogram holds {int(self.histogram.sum())} impostor scores, and a full cross makes "
                f"{self.impostors}: compare each template with every attempt of every other person"
            )
        if not min(1, self.impostors) <= len(self.tail) <= self.impostors:
            raise ScoresError(f"a tail of {len(self.tail)} out of {self.impostors} impostor scores")


@dataclass(frozen=True, slots=True)
class EqualErrorRate:
    """Where FMR and FNMR are the same.

    Attributes:
        eer: fraction.
        threshold: the genuine score at which the curves cross.
        exact: False where the tail does not reach so far down and the histogram stood in.
    """

    eer: float
    threshold: float
    exact: bool


def check_scores(scores: npt.NDArray[np.floating], name: str) -> None:
    """Raise ScoresError unless all are cosines: finite, from -1 to 1 (NaN fails both comparisons)."""
    if not ((scores >= -1 - ROUNDING) & (scores <= 1 + ROUNDING)).all():
        raise ScoresError(f"{name} holds a score that is not a number from -1 to 1")


def histogram_of(scores: npt.NDArray[np.floating]) -> Counts:
    """Counts (2000,) over `HISTOGRAM_EDGES`; what rounding put beyond the ends is in the end bins.

    The bin is computed and then checked against its edges, so that a count from an edge upwards is exactly
    that of the scores at or above the edge.
    """
    exact = scores.astype(np.float64)
    bins = np.clip(((exact + 1) * (BINS / 2)).astype(np.int64), 0, BINS - 1)
    bins -= (exact < HISTOGRAM_EDGES[bins]) & (bins > 0)
    bins += (exact >= HISTOGRAM_EDGES[bins + 1]) & (bins < BINS - 1)
    return np.bincount(bins, minlength=BINS).astype(np.int64)


def fnmr_at(scores: ScoreSet, threshold: float) -> float:
    """The share of genuine attempts below the threshold.

    Raises:
        ScoresError: there are no genuine attempts.
    """
    if not len(scores.genuine):
        raise ScoresError("no genuine attempt: somebody needs more photographs than one template takes")
    # In float64: a Python float would be rounded to float32 before comparing, and with it the verdict.
    return float((scores.genuine < np.float64(threshold)).mean())


def fmr_at(scores: ScoreSet, threshold: float) -> tuple[float, bool]:
    """The share of impostor scores at or above the threshold, and whether it is exact.

    Below the tail it is the share from the next lower edge of the histogram upwards: never too low, and too
    high by no more than one bin.

    Raises:
        ScoresError: there are no impostor comparisons.
    """
    count, exact = impostors_at(scores, threshold)
    return count / _impostors(scores), exact


def impostors_at(scores: ScoreSet, threshold: float) -> tuple[int, bool]:
    """How many impostor scores are at or above the threshold, and whether that is exact; see `fmr_at`."""
    at, _, exact = counts_at(scores, np.array([threshold]))
    return int(at[0]), bool(exact[0])


def counts_at(
    scores: ScoreSet, values: npt.NDArray[np.floating]
) -> tuple[Counts, Counts, npt.NDArray[np.bool_]]:
    """How many impostor scores are at or above each value, how many above it, and whether that is exact.

    Where the tail was cut off, scores equal to its last may be missing from it: it is exact above that.
    """
    rising = scores.tail[::-1].astype(np.float64)
    sought = values.astype(np.float64)
    at = len(rising) - np.searchsorted(rising, sought, side="left")
    above = len(rising) - np.searchsorted(rising, sought, side="right")
    exact = np.ones(len(sought), np.bool_)
    if not scores.complete:
        exact = sought > rising[0]
        from_edge = np.append(np.cumsum(scores.histogram[::-1])[::-1], 0)
        edge = np.clip(np.searchsorted(HISTOGRAM_EDGES, sought, side="right") - 1, 0, BINS)
        at, above = np.where(exact, at, from_edge[edge]), np.where(exact, above, from_edge[edge])
    return at.astype(np.int64), above.astype(np.int64), exact


def passing(fmr: float, impostors: int) -> int:
    """The most impostor scores that may pass: the largest k for which k / impostors <= fmr, as floats."""
    k = int(fmr * impostors)
    while k < impostors and (k + 1) / impostors <= fmr:
        k += 1
    while k and k / impostors > fmr:
        k -= 1
    return k


def threshold_for(scores: ScoreSet, fmr: float) -> tuple[float, bool]:
    """The least threshold at which the share of impostor scores at or above it does not exceed `fmr`.

    Least among the float32: the next one above the highest score that may not pass. Where the tail does not
    reach so far down it is an edge of the histogram, at which the share is still exactly known, but which
    need not be the least by up to one bin.

    Args:
        scores: with impostors.
        fmr: above 0 and below 1.

    Returns:
        The threshold, and whether it is the least.

    Raises:
        ScoresError: the FMR is not a share, or there are no impostor comparisons.
    """
    if not 0 < fmr < 1:
        raise ScoresError(f"an FMR of {fmr:g} is not above 0 and below 1")
    most = passing(fmr, _impostors(scores))
    if most < len(scores.tail):
        return just_above(scores.tail[most]), True
    from_edge = np.append(np.cumsum(scores.histogram[::-1])[::-1], 0)
    edge = int((from_edge > most).sum())
    lowest = just_above(scores.tail[-1])
    return (min(float(HISTOGRAM_EDGES[edge]), lowest) if edge < BINS else lowest), False


def just_above(score: np.float32) -> float:
    """The least threshold that this score does not pass."""
    return float(np.nextafter(np.float32(score), np.float32(np.inf)))


def equal_error_rate(scores: ScoreSet) -> EqualErrorRate:
    """The EER: FMR and FNMR as steps over the threshold, joined by straight lines where they cross.

    Raises:
        ScoresError: there are no genuine attempts, or no impostor comparisons.
    """
    fnmr_at(scores, 0)
    impostors = _impostors(scores)
    rising = np.sort(scores.genuine)
    values, first = np.unique(rising, return_index=True)
    ranks = np.append(first, len(rising))
    at, above, exact = counts_at(scores, values)
    eer, crossing = crossing_of(
        ranks[:-1] / len(rising), ranks[1:] / len(rising), at / impostors, above / impostors
    )
    return EqualErrorRate(eer, float(values[crossing]), bool(exact[crossing]))


def crossing_of(below: Shares, up_to: Shares, at: Shares, above: Shares) -> tuple[float, int]:
    """The EER of two curves that are known at, and just above, each distinct genuine score, rising.

    Between two genuine scores FNMR stands still while FMR falls; at one of them FNMR rises, and FMR falls
    with it if an impostor score is tied to it. So these points are all corners of the two curves.

    Args:
        below: (m,) FNMR at each genuine score as threshold: the share below it.
        up_to: (m,) FNMR just above it.
        at: (m,) FMR at it.
        above: (m,) FMR just above it.

    Returns:
        The EER, and the index of the genuine score at which the curves cross.
    """
    fnmr = np.concatenate(([0.0], np.column_stack((below, up_to)).ravel()))
    fmr = np.concatenate(([1.0], np.column_stack((at, above)).ravel()))
    apart = fnmr - fmr
    # Above all genuine scores FNMR is 1, so there is such a corner, and the first corner is not one.
    after = int(np.argmax(apart >= 0))
    along = -apart[after - 1] / (apart[after] - apart[after - 1])
    eer = fnmr[after - 1] + along * (fnmr[after] - fnmr[after - 1])
    return float(eer), (after - 1) // 2


def attempt_fmr_bounds(frame_fmr: float, frames: int) -> tuple[float, float]:
    """Between what the FMR of an attempt lies, which passes if any of its frames does.

    For where photographs do not allow measuring it: frames of one attempt are milliseconds apart and far
    more alike than photographs of different days. At best they are the same frame, and the attempt passes
    as often as one frame; at worst no two ever pass together, and it passes as often as all of them taken
    together (Boole's inequality). Independent frames would lie just below the latter.

    Args:
        frame_fmr: FMR of a single frame, from 0 to 1.
        frames: at least 1.

    Returns:
        The least and the greatest FMR of the attempt.

    Raises:
        ScoresError: not a rate, or no frame.
    """
    if not 0 <= frame_fmr <= 1 or frames < 1:
        raise ScoresError(
            f"an FMR of {frame_fmr:g} over {frames} frame(s): give a share, and a frame or more"
        )
    return frame_fmr, min(1.0, frames * frame_fmr)


def _impostors(scores: ScoreSet) -> int:
    if not scores.impostors:
        raise ScoresError("no impostor comparison: it takes the photographs of two people or more")
    return scores.impostors
