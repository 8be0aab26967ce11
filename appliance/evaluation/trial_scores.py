"""Variants to differences: the same draws, the same resampled people, both thresholds found anew."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.evaluation.calibration import mean_of
from appliance.evaluation.comparisons import Draw, Indices, NobodyToCompare, draw
from appliance.evaluation.error_rates import ScoreSet, Shares, passing
from appliance.evaluation.impostor_tail import ImpostorTail
from appliance.evaluation.intervals import OUTSIDE, SEED, Members, impostor_weight, resampled
from appliance.evaluation.operating_points import LEAST_IMPOSTORS, Replicated
from appliance.evaluation.trial_looks import PLAIN, Looks
from appliance.evaluation.trial_variants import Trial, Variant, Vectors
from appliance.vault.comparison import make_template
from appliance.vault.quantisation import quantise, restore
from appliance.vault.rotation import Rotation

SEEDS = (7, 8, 9)
REPLICATES = 500
"""Of the bootstrap."""
KEPT = 100_000
"""Impostor scores kept of each draw: several times as many as the weakest FMR asks for."""
SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.9)


def on_tune(people: Sequence[str]) -> Members:
    """(people,), who is on TUNE; the others are STATE."""
    # Salted: the data set may itself have been halved by a plain hash, and the mean is by another salt.
    return np.array(
        [hashlib.sha256(f"drempel trials {name}".encode()).digest()[0] % 2 == 0 for name in people]
    )


def whitening(vectors: Vectors, owner: Indices, members: Members, shrinkage: float) -> Vectors:
    """(d, d), that makes what differs within a person alike in all directions.

    The inverse root of the within-class covariance, shrunk towards a multiple of the identity (Ledoit and
    Wolf, *Journal of Multivariate Analysis* 88 (2004) 365-411): (1 - s) S + s tr(S) / d I.

    Args:
        vectors: embeddings (n, d).
        owner: whose each is, (n,).
        members: (people,), on whom it is learnt; each counts by the root of their photographs at most.
        shrinkage: s, above 0 to 1.
    """
    within = np.zeros((vectors.shape[1],) * 2)
    for person in np.flatnonzero(members):
        mine = vectors[owner == person].astype(np.float64)
        if len(mine) > 1:
            mine -= mine.mean(axis=0)
            within += mine.T @ mine / np.sqrt(len(mine))
    scale = np.trace(within) / len(within)
    if scale <= 0:
        return np.eye(len(within), dtype=np.float32)
    values, axes = np.linalg.eigh((1 - shrinkage) * within / scale + shrinkage * np.eye(len(within)))
    root: Vectors = ((axes / np.sqrt(values)) @ axes.T).astype(np.float32)
    return root


@dataclass(frozen=True, slots=True)
class Space:
    """Where embeddings are compared: after the mean (d,), and turned by a matrix (d, d) if there is one."""

    mean: Vectors
    matrix: Vectors | None

    def directions(self, vectors: Vectors) -> Vectors:
        """(n, d) of length 1, whose products are the cosines that vault's `score` gives."""
        moved: Vectors = vectors - self.mean
        if self.matrix is not None:
            moved = moved @ self.matrix
        moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return moved


@dataclass(slots=True)
class Scorer:
    """Scores of variants; photographs are rows of the looks.

    Attributes:
        looks: of all photographs.
        owner: whose each is, (n,).
        tune: (people,), who is on TUNE.
        shrinkage: of the whitening, once it was chosen.
    """

    looks: Looks
    owner: Indices
    tune: Members
    shrinkage: float | None = None

    def __post_init__(self) -> None:
        if not self.tune[self.owner].any():
            raise NobodyToCompare("nobody on TUNE has a face: give more people")

    def draws(self, trial: Trial) -> list[Draw]:
        """One of each seed."""
        sizes = {"template_size": trial.template_size, "frames": trial.frames}
        return [draw(self.owner, len(self.tune), **sizes, seed=seed) for seed in SEEDS]

    def scores(self, variant: Variant, draws: Sequence[Draw]) -> list[ScoreSet]:
        """All scores of each draw."""
        matrix = None
        if variant.whitened:
            self.shrinkage = self.shrinkage or self._shrinkage(draws[:1])
            matrix = self._whitening(self.tune, self.shrinkage)
        return self.scores_with(variant, draws, matrix)

    def scores_with(self, variant: Variant, draws: Sequence[Draw], matrix: Vectors | None) -> list[ScoreSet]:
        """The same, `matrix` (d, d) applied to the embeddings after the mean."""
        enrolled, seen = self.looks.of(*variant.template), self.looks.of(*variant.probe)
        # Each side has a mean of its own, as a vault could hold it.
        spaces = [self._space(each, matrix, subtract=variant.mean) for each in (enrolled, seen)]
        return [self._score(variant, drawn, enrolled, seen, *spaces) for drawn in draws]

    def _space(self, vectors: Vectors, matrix: Vectors | None, *, subtract: bool) -> Space:
        mean = mean_of(vectors, self.owner, self.tune).vector
        return Space(mean if subtract else np.zeros_like(mean), matrix)

    def _score(
        self,
        variant: Variant,
        drawn: Draw,
        enrolled: Vectors,
        seen: Vectors,
        at_enrolment: Space,
        door: Space,
    ) -> ScoreSet:
        def used(rows: Indices) -> Indices:
            return rows[variant.pick(enrolled[rows], self.looks.quality[rows])]

        made = [make_template(list(enrolled[used(each.template)])) for each in drawn.enrolled]
        if not sum(len(each.genuine) for each in drawn.enrolled):
            raise NobodyToCompare("nobody has enough photographs for a template and an attempt")
        templates = at_enrolment.directions(np.stack(made))
        if variant.bits is not None:
            templates = np.stack([through_token(each, variant.bits, n) for n, each in enumerate(templates)])

        cosines = np.clip(templates @ door.directions(seen).T, -1, 1)
        # Of attempts as a whole, where it is their frames' mean that is compared.
        decide = variant.decide
        crowd = door.directions(_pooled(seen, drawn.attempts)) if decide is None else templates[:0]
        tail, genuine = ImpostorTail(KEPT), []
        for number, each in enumerate(drawn.enrolled):
            others = drawn.standing != each.person
            if decide is None:
                own = door.directions(_pooled(seen, each.genuine)) @ templates[number]
                theirs = crowd[others] @ templates[number]
            else:
                own = decide(cosines[number][each.genuine])
                theirs = decide(cosines[number][drawn.attempts[others]])
            genuine.append(own)
            tail.add(theirs, each.person, drawn.standing[others])
        whose = np.repeat([each.person for each in drawn.enrolled], [len(own) for own in genuine])
        people = len(self.tune)
        templates_of = np.bincount([each.person for each in drawn.enrolled], minlength=people)
        attempts_of = np.bincount(drawn.standing, minlength=people)
        return tail.score_set(np.concatenate(genuine), whose, templates_of, attempts_of)

    def _whitening(self, members: Members, shrinkage: float) -> Vectors:
        return whitening(self.looks.of(PLAIN), self.owner, members, shrinkage)

    def _shrinkage(self, draws: Sequence[Draw]) -> float:
        """The one with the least FNMR at FMR 1e-3 on a quarter of the people, learnt on another, and back."""
        odd = self.tune & (np.arange(len(self.tune)) % 2 == 1)
        quarters = (odd, self.tune & ~odd)

        def fnmr(shrinkage: float) -> float:
            found = []
            for learn, check in (quarters, quarters[::-1]):
                matrix = self._whitening(learn, shrinkage)
                sets = self.scores_with(Variant(PLAIN), draws, matrix)
                found.append(rates_under(sets, (1e-3,), [check.astype(np.int64)])[0, 0])
            return float(np.mean(found))

        return min(SHRINKAGES, key=fnmr)


def through_token(direction: Vectors, bits: int, number: int) -> Vectors:
    """A centred template (d,) of length 1, as vault has it back from a token: rotated, quantised, restored.

    It is turned back here, once, rather than every probe with it: a rotation leaves all cosines as they are.

    Args:
        direction: the template.
        bits: a coordinate, 8 or 4.
        number: of the template; each has a key of its own.
    """
    none = np.zeros_like(direction)
    key = bytearray(hashlib.sha256(f"drempel trials {number}".encode()).digest())
    rotation = Rotation(key, len(direction))
    held = restore(quantise(rotation.rotate(direction, none), bits), bits)
    axes = np.stack([rotation.rotate(axis, none) for axis in np.eye(len(direction), dtype=np.float32)])
    back: Vectors = (axes @ held / np.linalg.norm(held)).astype(np.float32)
    return back


def _pooled(seen: Vectors, attempts: Indices) -> Vectors:
    """(n, d), the mean embedding of each attempt's frames (n, M), of length 1."""
    summed: Vectors = seen[attempts].sum(axis=1)
    summed /= np.linalg.norm(summed, axis=1, keepdims=True)
    return summed


def weights_of(members: Members, replicates: int = REPLICATES) -> Iterator[Indices]:
    """Weights (people,): first everybody of the members once, then each replicate."""
    yield members.astype(np.int64)
    who = np.flatnonzero(members)
    for drawn in resampled(len(who), replicates, SEED):
        weights = np.zeros(len(members), np.int64)
        weights[who] = drawn
        yield weights


def rates_under(sets: Sequence[ScoreSet], rates: Sequence[float], weights: Sequence[Indices]) -> Shares:
    """FNMR (weights, rates), the mean over the draws, thresholds found anew under each weighing."""
    held = [Replicated(scores, rates) for scores in sets]
    return np.array([np.mean([each.fnmr_under(weighed) for each in held], axis=0) for weighed in weights])


@dataclass(frozen=True, slots=True)
class Difference:
    """FNMR before and after, and the interval of 95 % of after minus before."""

    before: float
    after: float
    low: float
    high: float


def difference(before: Shares, after: Shares) -> Difference:
    """Of two columns of `rates_under`, under the same weights."""
    apart = (after - before)[1:]
    apart = apart[~np.isnan(apart)]
    low, high = np.quantile(apart, (OUTSIDE / 2, 1 - OUTSIDE / 2)) if len(apart) else (math.nan, math.nan)
    return Difference(float(before[0]), float(after[0]), float(low), float(high))


def decided(scores: ScoreSet, members: Members, fmr: float) -> bool:
    """Whether impostors among the members are enough for this FMR."""
    whole = impostor_weight(members.astype(np.int64), scores.templates_of, scores.attempts_of)
    return passing(fmr, whole) >= LEAST_IMPOSTORS


def genuine_people(sets: Sequence[ScoreSet], members: Members) -> int:
    """Members with genuine attempts in any of the draws."""
    who = np.unique(np.concatenate([scores.genuine_person for scores in sets]))
    return int(members[who].sum())
