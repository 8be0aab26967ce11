"""Error rates group by group at one threshold for all, and how far apart the worst and the best group are.

FMR is that among impostors *within* a group: a stranger of the same sex, age or origin is the one who is
most easily mistaken, and rates across groups would hide it (Grother, Ngan and Hanaoka, *Face Recognition
Vendor Test (FRVT) Part 3: Demographic Effects*, NIST IR 8280, 2019).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from appliance.evaluation.error_rates import ScoresError, ScoreSet
from appliance.evaluation.intervals import (
    OUTSIDE,
    REPLICATES,
    SEED,
    Members,
    Rate,
    fmr_over_people,
    fnmr_over_people,
)

LEAST_PEOPLE = 30
"""People behind a group's rate, from which on it takes part in the gap: with fewer, even no error at all
leaves more than a tenth of them open (Clopper-Pearson 0-11.6 %)."""


@dataclass(frozen=True, slots=True)
class GroupRates:
    """One group at the common threshold.

    Attributes:
        group: its label; None is of those of whom nothing is stated.
        people: of them in the data.
        fnmr: None where they made no genuine attempt.
        fmr: within the group; None where it has no impostor comparison, or the tail does not reach.
    """

    group: str | None
    people: int
    fnmr: Rate | None
    fmr: Rate | None


@dataclass(frozen=True, slots=True)
class Gap:
    """The worst group's rate against the best one's.

    Attributes:
        worst: the group with the highest rate.
        best: the group with the lowest.
        difference: of their rates.
        low: of an interval of 95 % that holds for all pairs of groups at once: where it is above 0, the gap
            is not owed to having picked the two that are furthest apart.
        high: the same.
        ratio: of their rates; None where the best group has no error.
    """

    worst: str
    best: str
    difference: float
    low: float
    high: float
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of one attribute.

    Attributes:
        threshold: common to all.
        rows: in the order of their labels, those without one last.
        fnmr_gap: None where fewer than two groups take part.
        fmr_gap: the same.
        left_out: of each label that takes no part in a gap, the sentence why.
    """

    threshold: float
    rows: list[GroupRates]
    fnmr_gap: Gap | None
    fmr_gap: Gap | None
    left_out: dict[str, str]


def groups_at(
    scores: ScoreSet,
    labels: Sequence[str | None],
    threshold: float,
    *,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Groups:
    """The rates of each group, and the gap between them.

    Args:
        scores: of one evaluation.
        labels: of each person, None where nothing is stated.
        threshold: the common one.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ScoresError: not one label for each person.
    """
    if len(labels) != scores.people:
        raise ScoresError(
            f"{len(labels)} labels for {scores.people} people: give one for each, or none stated"
        )
    rows = []
    for label in [*sorted({label for label in labels if label is not None}), None]:
        members = np.array([each == label for each in labels], np.bool_)
        if members.any():
            rows.append(_row(scores, label, members, threshold, replicates, seed))
    left_out: dict[str, str] = {}
    for row in rows:
        if row.group is not None and (why := _why_not(row)):
            left_out[row.group] = why
    return Groups(
        threshold, rows, _gap(rows, lambda row: row.fnmr), _gap(rows, lambda row: row.fmr), left_out
    )


def _row(
    scores: ScoreSet, label: str | None, members: Members, threshold: float, replicates: int, seed: int
) -> GroupRates:
    genuine = np.bincount(scores.genuine_person, minlength=scores.people)
    taking_part = members & (scores.templates_of + scores.attempts_of + genuine > 0)
    fnmr = fmr = None
    if genuine[members].any():
        fnmr = fnmr_over_people(scores, threshold, members, replicates=replicates, seed=seed)
    if _has_impostors(scores, members) and (scores.complete or threshold > scores.tail[-1]):
        fmr = fmr_over_people(scores, threshold, members, replicates=replicates, seed=seed)
    return GroupRates(label, int(taking_part.sum()), fnmr, fmr)


def _has_impostors(scores: ScoreSet, members: Members) -> bool:
    attempts = scores.attempts_of * members
    return bool((scores.templates_of * members * (attempts.sum() - attempts)).any())


def _why_not(row: GroupRates) -> str:
    reasons = []
    for name, rate, what in (
        ("FNMR", row.fnmr, "genuine attempts"),
        ("FMR", row.fmr, "impostor comparisons that can be counted"),
    ):
        if rate is None:
            reasons.append(f"{name}: no {what}")
        elif rate.people < LEAST_PEOPLE:
            reasons.append(
                f"{name}: {rate.people} people, and fewer than {LEAST_PEOPLE} take no part in a gap"
            )
    return "; ".join(reasons)


def _gap(rows: Sequence[GroupRates], rate_of: Callable[[GroupRates], Rate | None]) -> Gap | None:
    """The gap between groups of enough people.

    The people of two groups are others, so at a common threshold their rates are independent, and the
    interval of the difference follows from the two bootstrap (or exact) intervals: the square-and-add method
    of Zou and Donner, "Construction of confidence limits about effect measures", *Statistics in Medicine* 27
    (2008) 1693-1702. Unlike a bootstrap of the difference itself it does not take a group without an error
    for one that cannot err. It is widened as Bonferroni would for all pairs of groups at once.
    """
    taking_part = [
        (rate, row.group)
        for row in rows
        if row.group is not None and (rate := rate_of(row)) is not None and rate.people >= LEAST_PEOPLE
    ]
    if len(taking_part) < 2:
        return None
    worst, worst_group = max(taking_part, key=lambda each: each[0].rate)
    # Of groups that are all alike, the best is not the worst.
    best, best_group = min(reversed(taking_part), key=lambda each: each[0].rate)
    difference = worst.rate - best.rate
    pairs = len(taking_part) * (len(taking_part) - 1) / 2
    wider = float(ndtri(1 - OUTSIDE / 2 / pairs) / ndtri(1 - OUTSIDE / 2))
    down = wider * np.hypot(worst.rate - worst.low, best.high - best.rate)
    up = wider * np.hypot(worst.high - worst.rate, best.rate - best.low)
    return Gap(
        worst=worst_group,
        best=best_group,
        difference=difference,
        low=max(-1.0, float(difference - down)),
        high=min(1.0, float(difference + up)),
        ratio=worst.rate / best.rate if best.rate > 0 else None,
    )
