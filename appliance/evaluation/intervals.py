"""How sure a rate is, where people and not comparisons were sampled.

Scores that share a person are alike: one person whom the camera dislikes makes a hundred false non-matches,
two look-alikes a hundred false matches. An interval that takes comparisons for independent is far too narrow.
So people are resampled, with all that is theirs:

- a rate of attempts that belong to one person each (FNMR, FTA, FTE): the bootstrap over people, which for a
  rate is the "subsets bootstrap" of Bolle, Ratha and Pankanti, "Error analysis of pattern recognition
  systems: the subsets bootstrap", *Computer Vision and Image Understanding* 93 (2004) 1-33;
- a rate of comparisons between two people (FMR): both are resampled, and a comparison counts as often as the
  product of its two people's weights (Poh, Martin and Bengio, "Performance generalization in biometric
  authentication using joint user-specific and sample bootstraps", *IEEE TPAMI* 29 (2007) 492-498; Owen, "The
  pigeonhole bootstrap", *Annals of Applied Statistics* 1 (2007) 386-411). This errs on
  the side of caution: what is peculiar to two people, and to neither of them alone, enters the variance three
  times. Simulated, intervals are 1.05 times as wide as they should be where people decide, and up to 1.9
  times where their pairing does.

Intervals are the percentiles of the replicates, 95 %. Two things mend what percentiles get wrong where few
people err, as they do with a good model; both take people for trials of Clopper and Pearson's exact interval
(*Biometrika* 26 (1934) 404-413):

- Where nobody errs, or one person only, there is nothing to resample. The exact interval of how many people
  err takes its place, as if one error were all that a person did.
- Where some err, percentiles understate how many more there might be. The interval is never narrower than the
  exact one of how many people err, each with the mean share of errors. (Simulated, five of a hundred people
  erring: percentiles alone hold the truth 86 times in a hundred, so widened 93 times.)

People who make more of the attempts decide more of a rate: the exact intervals are of their effective number,
see `effective_people`. (Simulated with 1 to 100 attempts a person, half of them by a seventh of the people:
without it, intervals hold the truth 85 to 89 times in a hundred, with it 93 to 95.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from appliance.evaluation.error_rates import (
    Counts,
    ScoresError,
    ScoreSet,
    Shares,
    impostors_at,
)

Method = Literal["bootstrap", "exact over people"]
Members = npt.NDArray[np.bool_]

REPLICATES = 1000
"""Of the bootstrap: the 25 outermost on either side are cut off."""

SEED = 7

LEAST_ERRING = 2
"""People who err, from which on they are resampled: with one, a replicate either has him or shows nothing."""

OUTSIDE = 0.05
"""An interval misses the truth once in twenty times."""

RESAMPLED_ONE_BY_ONE = 200_000
"""Impostor scores whose weights are added up one by one; of more than these only every so many-th is."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate with its interval of 95 %.

    Attributes:
        rate: fraction, `count` / `of`.
        low: the interval's ends; the rate is never outside.
        high: the same.
        count: errors.
        of: attempts or comparisons.
        people: how many are behind it; of comparisons, on the side where there are fewer.
        method: how the interval was found.
    """

    rate: float
    low: float
    high: float
    count: int
    of: int
    people: int
    method: Method


@dataclass(frozen=True, slots=True)
class Thinned:
    """The highest impostor scores, of which those further down stand for several.

    Attributes:
        index: i64 (k,), positions in the tail, rising.
        stands_for: i64 (k,), how many scores each of them stands for.
    """

    index: Counts
    stands_for: Counts


def clopper_pearson(errors: float, trials: float, outside: float = OUTSIDE) -> tuple[float, float]:
    """The exact binomial interval, each side of it missing with half of `outside`.

    Args:
        errors: 0..trials.
        trials: independent ones, at least 1.
        outside: how often the truth may be outside.

    Returns:
        Low and high.

    Raises:
        ScoresError: the numbers do not make a share.
    """
    if not 0 <= errors <= trials or trials < 1:
        raise ScoresError(f"{errors} errors in {trials} trials make no share")
    low = 0.0 if errors == 0 else float(betaincinv(errors, trials - errors + 1, outside / 2))
    high = 1.0 if errors == trials else float(betaincinv(errors + 1, trials - errors, 1 - outside / 2))
    return low, high


def resampled(people: int, replicates: int, seed: int) -> Iterator[Counts]:
    """Weights (people,) of each replicate: how often each person is drawn, in as many draws as people."""
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(rng.integers(0, people, people), minlength=people)


def impostor_weight(weights: Counts, templates_of: Counts, attempts_of: Counts) -> int:
    """The weight of all impostor comparisons: each counts the product of its two people's weights."""
    attempts = attempts_of * weights
    return int((templates_of * weights * (attempts.sum() - attempts)).sum())


def share_over_people(
    errors_of: npt.NDArray[np.integer],
    trials_of: npt.NDArray[np.integer],
    *,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Rate:
    """The share of attempts that err (FNMR at a fixed threshold, FTA, FTE), with its interval over people.

    Args:
        errors_of: (people,) of each person.
        trials_of: (people,) of each person; who has none takes no part.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ScoresError: nobody has an attempt, or somebody more errors than attempts.
    """
    if errors_of.shape != trials_of.shape or (errors_of < 0).any() or (errors_of > trials_of).any():
        raise ScoresError("each person needs attempts, and no more errors than attempts")
    tried = trials_of > 0
    errors, trials = errors_of[tried].astype(np.int64), trials_of[tried].astype(np.int64)
    people, count, of = len(trials), int(errors.sum()), int(trials.sum())
    if not people:
        raise ScoresError("nobody made an attempt: a share of nothing is no figure")
    values = np.array(
        [
            (weights * errors).sum() / (weights * trials).sum()
            for weights in resampled(people, replicates, seed)
        ]
    )
    erring, succeeding = int((errors > 0).sum()), int((errors < trials).sum())
    low, high, method = settled(
        count / of,
        values,
        erring=erring,
        succeeding=succeeding,
        people=people,
        effective=effective_people(trials),
    )
    return Rate(count / of, low, high, count, of, people, method)


def fnmr_over_people(
    scores: ScoreSet,
    threshold: float,
    members: Members | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Rate:
    """FNMR at a fixed threshold, of all or of some people, with its interval.

    Args:
        scores: with genuine attempts.
        threshold: a score at or above it passes.
        members: (people,), whose attempts count; those of all if None.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ScoresError: none of them made a genuine attempt.
    """
    below = scores.genuine < np.float64(threshold)
    errors = np.bincount(scores.genuine_person[below], minlength=scores.people)
    trials = np.bincount(scores.genuine_person, minlength=scores.people)
    if members is not None:
        errors, trials = errors * members, trials * members
    return share_over_people(errors, trials, replicates=replicates, seed=seed)


def fmr_over_people(
    scores: ScoreSet,
    threshold: float,
    members: Members | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Rate:
    """FMR at a fixed threshold, of comparisons among all or among some people, with its interval.

    For the exact interval, the people are those on the side where there are fewer: as many comparisons there
    are that share no template person and no probe person. Where the tail does not reach down to the
    threshold, who is behind the errors is unknown, and it stands for all: wider than need be.

    Args:
        scores: with impostors.
        threshold: a score at or above it passes.
        members: (people,); a comparison counts if both its people are members. Everybody's if None.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ScoresError: there are no such comparisons, or they are of a few people and the tail does not reach
            down to the threshold, so that they cannot be counted.
    """
    part = np.ones(scores.people, np.bool_) if members is None else members
    part = part & (scores.templates_of + scores.attempts_of > 0)
    templates_of, attempts_of = scores.templates_of[part], scores.attempts_of[part]
    of = impostor_weight(np.ones(len(templates_of), np.int64), templates_of, attempts_of)
    if not of:
        raise ScoresError("no impostor comparison among these people")
    people = min(int((templates_of > 0).sum()), int((attempts_of > 0).sum()))
    passed, known = impostors_at(scores, threshold)
    if not known:
        if members is not None:
            raise ScoresError(
                f"the threshold {threshold:.4f} is below the tail of impostor scores: keep more"
            )
        return _fmr_below_tail(passed, of, people)
    among = np.flatnonzero(part[scores.tail_template[:passed]] & part[scores.tail_probe[:passed]])
    count = len(among)
    erring = min(len(np.unique(who[among])) for who in (scores.tail_template, scores.tail_probe))
    position = np.cumsum(part) - 1
    few = thinned(count)
    template = position[scores.tail_template[among[few.index]]]
    probe = position[scores.tail_probe[among[few.index]]]
    values = np.full(replicates, np.nan)
    for n, weights in enumerate(resampled(len(templates_of), replicates, seed)):
        whole = impostor_weight(weights, templates_of, attempts_of)
        if whole:
            values[n] = (weights[template] * weights[probe] * few.stands_for).sum() / whole
    low, high, method = settled(
        count / of, values, erring=erring, succeeding=people if count < of else 0, people=people
    )
    return Rate(count / of, low, high, count, of, people, method)


def effective_people(attempts_of: npt.NDArray[np.integer]) -> float:
    """How many people with equally many attempts would tell as much as these do (Kish's effective size).

    Kish, *Survey Sampling* (1965): (sum of weights)^2 / (sum of their squares). Who makes a hundred of the
    attempts decides a rate as a hundred others do.

    Args:
        attempts_of: (people,) of each person, not all 0.
    """
    attempts = attempts_of.astype(np.float64)
    return float(attempts.sum() ** 2 / (attempts**2).sum())


def settled(
    rate: float,
    values: Shares,
    *,
    erring: int,
    succeeding: int,
    people: int,
    effective: float | None = None,
) -> tuple[float, float, Method]:
    """The interval of a rate from the replicates of its bootstrap, mended as the head of this module says.

    Args:
        rate: the figure itself, which the interval holds in any case.
        values: of the replicates; those that hold no comparison at all are NaN and left out.
        erring: people with an error.
        succeeding: people with an attempt that did not err.
        people: all of them, at least 1.
        effective: how many they count for, see `effective_people`; as many as they are if None.

    Returns:
        Low, high, and how they were found.

    Raises:
        ScoresError: no replicate holds any comparison.
    """
    found = values[~np.isnan(values)]
    if not len(found):
        raise ScoresError("no replicate of the bootstrap holds a comparison: the people are too few")
    few = erring < LEAST_ERRING or succeeding < LEAST_ERRING
    counted = erring if erring < LEAST_ERRING or not few else people - succeeding
    count = people if effective is None else effective
    if few:
        exact = np.array(clopper_pearson(min(counted, count), count))
    else:
        exact = np.array(clopper_pearson(counted * count / people, count))
        exact = np.minimum(exact * rate * people / counted, 1)
    low, high = np.quantile(found, (OUTSIDE / 2, 1 - OUTSIDE / 2))
    method: Method = "exact over people" if few else "bootstrap"
    return float(min(low, exact[0], rate)), float(max(high, exact[1], rate)), method


def thinned(scores: int) -> Thinned:
    """The highest so many of the tail: one by one at first, and of the rest every m-th to stand for m.

    People are resampled, so a sum over a million scores varies by some per cent from replicate to replicate;
    that every m-th stands for m others blurs it by some per mille, and spares most of the time.
    """
    spared = scores - RESAMPLED_ONE_BY_ONE
    if spared <= 0:
        return Thinned(np.arange(scores), np.ones(scores, np.int64))
    each = -(-spared // RESAMPLED_ONE_BY_ONE)
    # Each block is stood for by its last, so that a sum down to one of them is that of all.
    last = np.minimum(np.arange(RESAMPLED_ONE_BY_ONE + each, scores + each, each), scores)
    stands_for = np.diff(last, prepend=RESAMPLED_ONE_BY_ONE)
    return Thinned(
        np.append(np.arange(RESAMPLED_ONE_BY_ONE), last - 1),
        np.append(np.ones(RESAMPLED_ONE_BY_ONE, np.int64), stands_for),
    )


def _fmr_below_tail(passed: int, of: int, people: int) -> Rate:
    rate = passed / of
    low, high = clopper_pearson(min(people, round(rate * people)), people)
    return Rate(rate, min(low, rate), max(high, rate), passed, of, people, "exact over people")
