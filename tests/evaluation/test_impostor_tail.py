import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.evaluation.error_rates import ScoresError, histogram_of
from appliance.evaluation.impostor_tail import ImpostorTail


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=12),
    st.integers(1, 9),
)
def test_the_largest_scores_are_kept_with_their_people(rows: list[list[float]], keep: int) -> None:
    # Template `n` of person 0..2 before two attempts of each of two others.
    tail = ImpostorTail(keep)
    everything = []
    templates = np.zeros(3, np.int64)
    for number, row in enumerate(rows):
        person = number % 3
        others = np.repeat([each for each in range(3) if each != person], 2)
        templates[person] += 1
        tail.add(np.array(row), person, others)
        everything += [(-score, person, int(other)) for score, other in zip(row, others, strict=True)]
    scores = tail.score_set(np.zeros(0), np.zeros(0, np.int64), templates, np.full(3, 2))
    everything.sort()
    expected = everything[:keep]
    assert tail.added == scores.impostors == len(everything)
    np.testing.assert_array_equal(scores.tail, [-score for score, _, _ in expected])
    np.testing.assert_array_equal(
        scores.histogram, histogram_of(np.array([-score for score, _, _ in everything], np.float32))
    )
    # Of those tied with the last, some are dropped, no matter which; all above it are known by their people.
    known = [each for each in expected if each[0] < expected[-1][0]]
    held = list(zip(scores.tail_template.tolist(), scores.tail_probe.tolist(), strict=True))
    assert held[: len(known)] == [(person, other) for _, person, other in known]


def test_the_order_of_adding_makes_no_difference() -> None:
    # Scores of one decimal: nearly all are tied with others.
    rng = np.random.default_rng(1)
    rows = [(person, rng.integers(-9, 9, 29) / 10) for person in range(30)]
    found = []
    for order in (rows, rows[::-1]):
        tail = ImpostorTail(2000)
        for person, row in order:
            tail.add(row, person, np.delete(np.arange(30), person))
        found.append(tail.score_set(np.zeros(0), np.zeros(0, int), np.ones(30, int), np.ones(30, int)))
    for name in ("tail", "tail_template", "tail_probe", "histogram"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


def test_no_more_than_twice_the_tail_is_held_whatever_is_added() -> None:
    tail = ImpostorTail(50)
    rng = np.random.default_rng(2)
    scores = rng.uniform(-1, 1, 1000)
    tail.add(scores, 0, np.arange(1, 1001))
    assert tail._held <= 100
    assert len(tail._scores) == 100
    first = np.arange(1001) == 0
    found = tail.score_set(np.zeros(0), np.zeros(0, int), first.astype(int), (~first).astype(int))
    np.testing.assert_array_equal(found.tail, np.sort(scores.astype(np.float32))[::-1][:50])
    np.testing.assert_array_equal(scores.astype(np.float32)[found.tail_probe - 1], found.tail)


@pytest.mark.parametrize(
    ("scores", "probes", "what"),
    [
        ([0.1, np.nan], [1, 2], "not a number from -1 to 1"),
        ([0.1, np.inf], [1, 2], "not a number from -1 to 1"),
        ([0.1, 1.5], [1, 2], "not a number from -1 to 1"),
        ([0.1, 0.2], [1, 0], "own template"),
        ([0.1, 0.2], [1], "give a row"),
    ],
)
def test_what_is_no_impostor_score_is_refused_and_leaves_nothing_behind(
    scores: list[float], probes: list[int], what: str
) -> None:
    tail = ImpostorTail(10)
    with pytest.raises(ScoresError, match=what):
        tail.add(np.array(scores), 0, np.array(probes))
    assert tail.added == 0
    assert tail._held == 0


def test_an_incomplete_cross_is_refused() -> None:
    tail = ImpostorTail(10)
    tail.add(np.array([0.1]), 0, np.array([1]))
    with pytest.raises(ScoresError, match="holds 1 impostor scores, and a full cross makes 2"):
        tail.score_set(np.zeros(0), np.zeros(0, int), np.array([1, 0, 0]), np.array([0, 1, 1]))


def test_a_tail_keeps_something() -> None:
    with pytest.raises(ScoresError, match="keep one or more"):
        ImpostorTail(0)
