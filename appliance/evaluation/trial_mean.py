"""Does the figure hold on people from whom nothing was learnt? The mean, and the threshold, cross-fitted.

A pack's mean is that of half of the people on whom its rates are stated. Here each comparison is made anew
under a mean in which neither of its two people is, on the same templates and attempts, and what changes is
stated with the interval of 95 % over people, who are resampled alike for both.

- *Halves*, those of the calibration: each under the mean of the other, so impostors are of one's own half.
- *Thirds*: all comparisons, each under the mean of the people who are in the third of neither of the two.
- *Threshold too*: mean and threshold are those of one half, and the rates at it those of the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.evaluation.calibration import in_mean, mean_of
from appliance.evaluation.comparisons import Draw, Indices, draw
from appliance.evaluation.error_rates import Counts, Scores, Shares, passing
from appliance.evaluation.intervals import OUTSIDE, Members, impostor_weight
from appliance.evaluation.operating_points import LEAST_IMPOSTORS
from appliance.evaluation.trial_looks import PLAIN, Looks
from appliance.evaluation.trial_scores import SEEDS, Difference, Space, difference, weights_of
from appliance.evaluation.trial_variants import TEMPLATE, Vectors
from appliance.vault.comparison import make_template

RATES = (1e-4, 1e-5)
REPLICATES = 1000
WEIGHED = 20_000
"""Of the highest impostor scores: ten times those above the weakest threshold."""
THIRDS = 3
FEW = " (few)"

MeanFor = Callable[[int, int], Vectors | None]
"""The mean for a template of one part and an attempt of another; None where they are not compared."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The scores of one draw, of which not all impostors need be compared with all.

    Attributes:
        genuine: (g,), rising.
        genuine_person: (g,), whose.
        tail: (t,), the highest impostor scores, falling.
        tail_template: (t,), whose template.
        tail_probe: (t,), who stood before it.
        templates_of: (people,).
        attempts_of: (people,).
        crosses: parts (people,) within each of which all impostors were compared, and nothing between them.
    """

    genuine: Scores
    genuine_person: Indices
    tail: Scores
    tail_template: Indices
    tail_probe: Indices
    templates_of: Counts
    attempts_of: Counts
    crosses: Sequence[Members]

    def impostors(self, weights: Counts) -> int:
        """The weight of all impostor comparisons."""
        return sum(
            impostor_weight(weights * part, self.templates_of, self.attempts_of) for part in self.crosses
        )

    def threshold(self, weights: Counts, fmr: float) -> float:
        """The highest score that may not pass: what passes is above it."""
        reached = np.cumsum(weights[self.tail_template] * weights[self.tail_probe])
        at = np.searchsorted(reached, passing(fmr, self.impostors(weights)), side="right")
        return float(self.tail[min(int(at), len(self.tail) - 1)])

    def errors(self, weights: Counts, threshold: float) -> tuple[int, int]:
        """The weights of the genuine attempts that do not pass, and of the impostors that do."""
        failing = weights[self.genuine_person[: np.searchsorted(self.genuine, threshold, side="right")]]
        above = self.tail > threshold
        return int(failing.sum()), int(
            (weights[self.tail_template[above]] * weights[self.tail_probe[above]]).sum()
        )

    def fnmr(self, weights: Counts, fmr: float) -> float:
        """At the threshold that these very scores have for it; NaN where nobody is compared."""
        of = int(weights[self.genuine_person].sum())
        if not of or not self.impostors(weights):
            return float("nan")
        return self.errors(weights, self.threshold(weights, fmr))[0] / of


def scored(
    vectors: Vectors, owner: Indices, drawn: Draw, parts: Indices, mean: MeanFor, crosses: Sequence[Members]
) -> Compared:
    """Scores of a draw of single frames, each under the mean for its two people.

    Args:
        vectors: embeddings (n, d).
        owner: whose each is, (n,).
        drawn: templates, and attempts of one frame.
        parts: (people,), which part each person is of, from 0.
        mean: of two parts.
        crosses: see `Compared`.
    """
    made = np.stack([make_template(list(vectors[each.template])) for each in drawn.enrolled])
    whose = np.array([each.person for each in drawn.enrolled])
    attempts = drawn.attempts[:, 0]
    genuine: list[Scores] = []
    genuine_person: list[Indices] = []
    found: list[tuple[Scores, Indices, Indices]] = []
    for one, other in np.ndindex((int(parts.max()) + 1,) * 2):
        shift = mean(one, other)
        if shift is None:
            continue
        space = Space(shift, None)
        rows = np.flatnonzero(parts[drawn.standing] == other)
        mine = np.flatnonzero(parts[whose] == one)
        enrolled = space.directions(made[mine])
        scores = np.clip(enrolled @ space.directions(vectors[attempts[rows]]).T, -1, 1)
        template, probe = np.nonzero(whose[mine][:, None] != drawn.standing[rows][None])
        found.append(_highest(scores[template, probe], whose[mine][template], drawn.standing[rows][probe]))
        for number, direction in zip(mine if one == other else (), enrolled, strict=one == other):
            own = drawn.enrolled[number].genuine[:, 0]
            genuine.append(space.directions(vectors[own]) @ direction)
            genuine_person.append(owner[own])
    scores_of, person = np.concatenate(genuine).astype(np.float32), np.concatenate(genuine_person)
    order = np.argsort(scores_of, kind="stable")
    tail = _highest(*(np.concatenate(each) for each in zip(*found, strict=True)))
    counts = [np.bincount(each, minlength=len(parts)) for each in (whose, drawn.standing)]
    return Compared(scores_of[order], person[order], *tail, counts[0], counts[1], crosses)


def _highest(scores: Scores, template: Indices, probe: Indices) -> tuple[Scores, Indices, Indices]:
    first = np.argsort(-scores, kind="stable")[:WEIGHED]
    return scores[first], template[first], probe[first]


@dataclass(frozen=True, slots=True)
class Crossed:
    """What one way of taking the mean gives on some comparisons.

    Attributes:
        comparisons: halves or thirds.
        mean: whose it is.
        rates: FNMR (weights, rates), under the weights of `weights_of`.
    """

    comparisons: str
    mean: str
    rates: Shares


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the tables hold.

    Attributes:
        crossed: the first of each kind of comparisons is what the others are held against.
        strict: FNMR and FMR (weights, 2, rates) of each half at mean and threshold of the other.
        genuine: attempts of the first draw.
        impostors: its impostor comparisons, by kind.
        people: who made genuine attempts.
        mean_people: in the halves.
    """

    crossed: list[Crossed]
    strict: Shares
    genuine: int
    impostors: dict[str, int]
    people: int
    mean_people: tuple[int, int]


def cross_fit(
    looks: Looks,
    owner: Indices,
    people: Sequence[str],
    shipped: Vectors,
    *,
    seeds: Sequence[int] = SEEDS,
    replicates: int = REPLICATES,
) -> Outcome:
    """FNMR under the pack's mean, under means in which neither of two people is, and without any.

    Args:
        looks: of all photographs.
        owner: whose each is, (n,).
        people: their names.
        shipped: the pack's mean (d,).
        seeds: of the draws.
        replicates: of the bootstrap.

    Raises:
        NobodyToCompare: nobody has enough photographs with a face.
    """
    vectors = looks.of(PLAIN)
    draws = [draw(owner, len(people), template_size=TEMPLATE, frames=1, seed=seed) for seed in seeds]
    everybody = np.ones(len(people), np.bool_)
    weights = list(weights_of(everybody, replicates))
    none = np.zeros_like(shipped)

    def mean(members: Members) -> Vectors:
        return mean_of(vectors, owner, members).vector

    half = np.array([int(not in_mean(name)) for name in people])
    halves = [half == 0, half == 1]
    of_half = [mean(each) for each in halves]
    # Another order than that of names, which the halves do not follow either.
    third = np.random.default_rng(SEEDS[0]).permutation(len(people)) % THIRDS
    of_rest = {
        (one, other): mean((third != one) & (third != other)) for one, other in np.ndindex((THIRDS, THIRDS))
    }
    within = "within halves"
    ways: list[tuple[str, str, Indices, MeanFor, list[Members]]] = [
        (within, "the pack's, of the first half", half, _same(shipped), halves),
        (
            within,
            "of the other half",
            half,
            lambda one, other: of_half[1 - one] if one == other else None,
            halves,
        ),
        (
            within,
            "of their own half",
            half,
            lambda one, other: of_half[one] if one == other else None,
            halves,
        ),
        (within, "none", half, _same(none), halves),
        ("all", "the pack's, of the first half", third, lambda _one, _other: shipped, [everybody]),
        ("all", "of people in neither's third", third, lambda one, other: of_rest[one, other], [everybody]),
        ("all", "none", third, lambda _one, _other: none, [everybody]),
    ]
    crossed, impostors, genuine = [], {}, 0
    for comparisons, whose, parts, way, crosses in ways:
        sets = [scored(vectors, owner, drawn, parts, way, crosses) for drawn in draws]
        rates = [
            [np.mean([each.fnmr(weighed, fmr) for each in sets]) for fmr in RATES] for weighed in weights
        ]
        crossed.append(Crossed(comparisons, whose, np.array(rates)))
        impostors[comparisons] = sets[0].impostors(weights[0])
        genuine = len(sets[0].genuine)
    strict = _strict(vectors, owner, draws, half, of_half, weights)
    counted = [mean_of(vectors, owner, each).people for each in halves]
    tried = np.unique(np.concatenate([each.genuine_person for each in sets]))
    return Outcome(crossed, strict, genuine, impostors, len(tried), (counted[0], counted[1]))


def _same(mean: Vectors) -> MeanFor:
    return lambda one, other: mean if one == other else None


def _strict(
    vectors: Vectors,
    owner: Indices,
    draws: Sequence[Draw],
    half: Indices,
    of_half: Sequence[Vectors],
    weights: Sequence[Counts],
) -> Shares:
    """FNMR and FMR of each half at mean and threshold of the other, pooled, (weights, 2, rates)."""

    def only(drawn: Draw, tested: int, learnt: int) -> Compared:
        shift = of_half[learnt]
        return scored(
            vectors,
            owner,
            drawn,
            half,
            lambda one, other: shift if one == other == tested else None,
            [half == tested],
        )

    pairs = [
        (only(drawn, learnt, learnt), only(drawn, 1 - learnt, learnt)) for drawn in draws for learnt in (0, 1)
    ]
    found = np.full((len(weights), 2, len(RATES)), np.nan)
    for number, weighed in enumerate(weights):
        for column, fmr in enumerate(RATES):
            errors = np.array(
                [tested.errors(weighed, learnt.threshold(weighed, fmr)) for learnt, tested in pairs]
            )
            of = [(weighed[each.genuine_person].sum(), each.impostors(weighed)) for _, each in pairs]
            found[number, :, column] = errors.sum(axis=0) / np.maximum(np.sum(of, axis=0), 1)
    return found


def table(outcome: Outcome) -> str:
    """Markdown: FNMR in per cent, and the difference to the pack's mean."""
    heads = ["comparisons", "mean"]
    for fmr in RATES:
        heads += [f"FNMR at FMR {_short(fmr)}", "less that with the pack's"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    plain = {each.comparisons: each for each in reversed(outcome.crossed) if "pack" in each.mean}
    for each in outcome.crossed:
        cells = [f"{each.comparisons} ({outcome.impostors[each.comparisons]:,} impostors)", each.mean]
        for column in range(len(RATES)):
            apart = difference(plain[each.comparisons].rates[:, column], each.rates[:, column])
            few = passing(RATES[column], outcome.impostors[each.comparisons]) < LEAST_IMPOSTORS
            cells += [
                _rate(each.rates[:, column]) + (FEW if few else ""),
                "" if each is plain[each.comparisons] else _apart(apart),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| mean and threshold of the other half, named FMR | FNMR | FMR |", "|---|---|---|"]
    for column, fmr in enumerate(RATES):
        rate = outcome.strict[:, :, column]
        lines.append(f"| {_short(fmr)} | {_rate(rate[:, 0])} | {_exact(rate[:, 1])} |")
    counts = f"{outcome.mean_people[0]:,} and {outcome.mean_people[1]:,} people"
    made = f"{outcome.genuine:,} genuine attempts in a draw, by {outcome.people} people; halves of {counts}."
    read = (
        "Per cent; intervals of 95 % over people (percentiles), the threshold found anew in each replicate."
    )
    note = f"{FEW.strip()}: decided by fewer than {LEAST_IMPOSTORS} impostor scores, too few for a report."
    return "\n".join([*lines, "", f"{made} {read}", note])


def _span(rates: Shares) -> tuple[float, float]:
    low, high = np.nanquantile(rates[1:], (OUTSIDE / 2, 1 - OUTSIDE / 2))
    return float(low), float(high)


def _rate(rates: Shares) -> str:
    low, high = _span(rates)
    return f"{100 * rates[0]:.2f} ({100 * low:.2f}-{100 * high:.2f})"


def _exact(rates: Shares) -> str:
    low, high = _span(rates)
    return f"{rates[0]:.1e} ({low:.1e} to {high:.1e})"


def _apart(found: Difference) -> str:
    return f"{100 * (found.after - found.before):+.3f} ({100 * found.low:+.3f} to {100 * found.high:+.3f})"


def _short(fmr: float) -> str:
    return f"{fmr:.0e}".replace("e-0", "e-")
