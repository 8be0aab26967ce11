"""Sets of scores for the tests: whole crosses of people, given one by one or from known distributions."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from appliance.evaluation.error_rates import ScoreSet
from appliance.evaluation.impostor_tail import ImpostorTail

Values = npt.NDArray[np.float64]


def as_cosine(value: Values | float) -> Values:
    """A strictly rising map of normal variates into (-1, 1): rates do not change under it."""
    return np.tanh(np.asarray(value) / 8)


def cross(
    impostor: Callable[[int, npt.NDArray[np.int64]], Values],
    genuine: Sequence[float] | Values,
    genuine_person: Sequence[int] | npt.NDArray[np.int64],
    templates_of: Sequence[int],
    attempts_of: Sequence[int],
    keep: int = 1_000_000,
) -> ScoreSet:
    """A full cross, the scores of one template with the probes' people given by `impostor`."""
    tail = ImpostorTail(keep)
    probes = np.repeat(np.arange(len(attempts_of)), attempts_of)
    for person, templates in enumerate(templates_of):
        for _ in range(templates):
            others = probes[probes != person]
            tail.add(impostor(person, others), person, others)
    return tail.score_set(
        np.asarray(genuine, np.float64),
        np.asarray(genuine_person, np.int64),
        np.asarray(templates_of),
        np.asarray(attempts_of),
    )


def tiny(impostor: Sequence[float], genuine: Sequence[float], keep: int = 1_000_000) -> ScoreSet:
    """One person's template before as many others as there are impostor scores; genuine ones are hers."""
    return cross(
        lambda _, others: np.array([impostor[each - 1] for each in others]),
        genuine,
        [0] * len(genuine),
        [1] + [0] * len(impostor),
        [0] + [1] * len(impostor),
        keep,
    )


def normal(
    rng: np.random.Generator,
    people: int,
    *,
    apart: float,
    attempts: int = 8,
    probes: int = 2,
    genuine_effect: float = 0,
    impostor_effect: float = 0,
    keep: int = 1_000_000,
) -> ScoreSet:
    """Genuine N(apart, 1 + genuine_effect²), impostor N(0, 1), mapped; part of it is the person's own."""
    own = rng.normal(0, genuine_effect, people) if genuine_effect else np.zeros(people)
    other = rng.normal(0, impostor_effect, people) if impostor_effect else np.zeros(people)
    rest = np.sqrt(1 - 2 * impostor_effect**2)
    return cross(
        lambda person, others: as_cosine(rng.normal(0, rest, len(others)) + other[person] + other[others]),
        as_cosine(rng.normal(apart, 1, (people, attempts)) + own[:, None]).ravel(),
        np.repeat(np.arange(people), attempts),
        [1] * people,
        [probes] * people,
        keep,
    )
