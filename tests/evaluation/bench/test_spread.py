import math

import pytest

from appliance.evaluation.bench.spread import Interval, Spread, ratios


def test_the_spread_of_known_numbers() -> None:
    spread = Spread.of([float(number) for number in range(101)])
    assert (spread.p5, spread.median, spread.p95, spread.n) == (5, 50, 95, 101)


@pytest.mark.parametrize(
    ("n", "k"), [(6, 1), (8, 1), (9, 2), (20, 6), (30, 10), (50, 18), (100, 40), (1000, 469), (4000, 1938)]
)
def test_the_interval_lies_between_the_order_statistics_of_the_tables(n: int, k: int) -> None:
    """Tables of the sign test give these ranks, such as 6 and 15 for n = 20."""
    interval = Interval.of([float(number) for number in range(1, n + 1)])
    assert (interval.low, interval.high) == (k, n + 1 - k)
    outside = sum(math.comb(n, each) for each in range(k))
    assert outside * 40 <= 2**n < (outside + math.comb(n, k)) * 40


def test_with_too_few_values_the_outermost_are_given() -> None:
    interval = Interval.of([3.0, 1.0, 2.0])
    assert (interval.low, interval.median, interval.high) == (1, 2, 3)


def test_a_ratio_is_taken_round_by_round() -> None:
    """A neighbour that triples all times of half of the rounds moves no ratio."""
    below = [1.0, 3.0] * 20
    ratio = ratios([16 * each for each in below], below)
    assert (ratio.low, ratio.median, ratio.high, ratio.n) == (16, 16, 16, 40)
    assert ratio.inverse().median == 1 / 16


def test_the_inverse_of_an_interval_turns_its_ends() -> None:
    inverse = Interval(2.0, 1.0, 4.0, 9).inverse()
    assert (inverse.low, inverse.median, inverse.high) == (0.25, 0.5, 1)


def test_rounds_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])
