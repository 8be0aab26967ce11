from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from appliance.errors import DrempelError
from appliance.evaluation.error_rates import (
    BINS,
    HISTOGRAM_EDGES,
    ScoresError,
    ScoreSet,
    attempt_fmr_bounds,
    equal_error_rate,
    fmr_at,
    fnmr_at,
    histogram_of,
    impostors_at,
    just_above,
    passing,
    threshold_for,
)
from tests.evaluation.score_sets import as_cosine, normal, tiny

COSINES = st.floats(-1, 1, width=32)
FEW = st.lists(st.sampled_from([-1, -0.5, 0, 0.25, 0.5, 1]) | COSINES, min_size=1, max_size=30)
FMRS = st.floats(0.001, 0.999)


def test_rates_counted_by_hand() -> None:
    scores = tiny([0.1, 0.3, 0.3, 0.5], [0.2, 0.3, 0.4, 0.6, 0.8])
    three = float(np.float32(0.3))
    assert scores.impostors == 4
    # At a score itself the comparison passes.
    assert fmr_at(scores, three) == (0.75, True)
    assert fmr_at(scores, just_above(np.float32(0.3))) == (0.25, True)
    assert fnmr_at(scores, three) == 0.2
    assert fnmr_at(scores, just_above(np.float32(0.3))) == 0.4
    assert fmr_at(scores, -1) == (1, True)
    assert fmr_at(scores, 1) == (0, True)
    assert fnmr_at(scores, 1) == 1


@pytest.mark.parametrize(
    ("fmr", "highest_refused"), [(0.2, 0.5), (0.25, 0.3), (0.5, 0.3), (0.74, 0.3), (0.75, 0.1), (0.99, 0.1)]
)
def test_thresholds_found_by_hand(fmr: float, highest_refused: float) -> None:
    # Two scores are tied at 0.3: they pass together or not at all.
    scores = tiny([0.1, 0.3, 0.3, 0.5], [0.9])
    assert threshold_for(scores, fmr) == (just_above(np.float32(highest_refused)), True)


@pytest.mark.parametrize(
    ("impostor", "genuine", "eer"),
    [
        ([0.1, 0.2], [0.3, 0.4], 0.0),  # apart
        ([0.3, 0.4], [0.1, 0.2], 1.0),  # the wrong way round
        ([0.5], [0.5], 0.5),  # tied: on the line from (FMR 1, FNMR 0) to (0, 1)
        ([0.5] * 7, [0.5] * 3, 0.5),
        ([0.1, 0.2, 0.3, 0.6], [0.4, 0.5, 0.7, 0.8], 0.25),  # 0.6 passes and 0.4 fails
        ([0.1, 0.2, 0.3, 0.9], [0.4, 0.5], 0.25),  # FNMR steps from 0 to 0.5 where FMR is 0.25
        ([0.1, 0.5, 0.6], [0.4, 0.7, 0.8, 0.9], 0.25),  # FMR steps from 2/3 over 1/3 to 0 where FNMR is 0.25
        ([0.1, 0.5], [0.5, 0.9], 1 / 4),  # tied at 0.5, from (0.5, 0) to (0, 0.5)
    ],
)
def test_equal_error_rates_found_by_hand(impostor: list[float], genuine: list[float], eer: float) -> None:
    found = equal_error_rate(tiny(impostor, genuine))
    assert found.exact
    assert found.eer == pytest.approx(eer, abs=1e-12)


def test_one_impostor_and_one_genuine_attempt() -> None:
    scores = tiny([0.2], [0.7])
    assert threshold_for(scores, 0.5) == (just_above(np.float32(0.2)), True)
    assert fmr_at(scores, threshold_for(scores, 0.01)[0]) == (0, True)
    assert fnmr_at(scores, 0.5) == 0


def test_without_genuine_attempts_or_impostors_there_is_no_figure() -> None:
    with pytest.raises(ScoresError, match="no genuine attempt"):
        fnmr_at(tiny([0.1], []), 0.5)
    with pytest.raises(ScoresError, match="no genuine attempt"):
        equal_error_rate(tiny([0.1], []))
    alone = tiny([], [0.5])
    for ask in (
        lambda: fmr_at(alone, 0.5),
        lambda: threshold_for(alone, 0.1),
        lambda: equal_error_rate(alone),
    ):
        with pytest.raises(ScoresError, match="no impostor comparison"):
            ask()


@pytest.mark.parametrize("fmr", [0, 1, -0.1, float("nan")])
def test_an_fmr_is_a_share(fmr: float) -> None:
    with pytest.raises(ScoresError, match="not above 0 and below 1"):
        threshold_for(tiny([0.1], [0.5]), fmr)


def test_two_normal_distributions_give_the_rates_of_the_formulae() -> None:
    apart = 3.0
    scores = normal(np.random.default_rng(1), 300, apart=apart, attempts=100, probes=4)
    assert scores.impostors == 300 * 299 * 4
    assert len(scores.genuine) == 30_000
    # Of independent scores; four standard errors of a share of 30,000, and of the threshold's own share.
    eer = norm.cdf(-apart / 2)
    error = np.sqrt(eer * (1 - eer) * (1 / 30_000 + 1 / scores.impostors))
    assert equal_error_rate(scores).eer == pytest.approx(eer, abs=4 * error)
    assert equal_error_rate(scores).threshold == pytest.approx(float(as_cosine(apart / 2)), abs=0.01)
    for fmr in (1e-1, 1e-2, 1e-3, 1e-4):
        known = norm.isf(fmr)
        fnmr = norm.cdf(known - apart)
        # An error of FMR shifts the threshold, and FNMR with it: as the densities there are to each other.
        slope = norm.pdf(known - apart) / norm.pdf(known)
        error = np.sqrt(fnmr * (1 - fnmr) / 30_000 + slope**2 * fmr / scores.impostors)
        threshold, exact = threshold_for(scores, fmr)
        assert exact
        assert fnmr_at(scores, threshold) == pytest.approx(fnmr, abs=4 * error)


def test_the_det_of_two_normal_distributions_is_straight_with_slope_minus_one() -> None:
    apart = 3.0
    scores = normal(np.random.default_rng(2), 300, apart=apart, attempts=100, probes=4)
    fmr = np.logspace(-3, -0.7, 24)
    fnmr = [fnmr_at(scores, threshold_for(scores, each)[0]) for each in fmr]
    slope, height = np.polyfit(norm.ppf(fmr), norm.ppf(fnmr), 1)
    # A point's error in probit axes is at most 0.05 (1e-3 of 358,800 impostors, 0.01 of 30,000 genuine).
    assert slope == pytest.approx(-1, abs=0.05)
    assert height == pytest.approx(-apart, abs=0.1)
    np.testing.assert_allclose(norm.ppf(fnmr), slope * norm.ppf(fmr) + height, atol=0.06)


@given(FEW, FEW, COSINES, COSINES)
def test_fmr_falls_and_fnmr_rises_with_the_threshold(
    impostor: list[float], genuine: list[float], one: float, other: float
) -> None:
    scores = tiny(impostor, genuine)
    low, high = sorted((one, other))
    assert fmr_at(scores, low)[0] >= fmr_at(scores, high)[0]
    assert fnmr_at(scores, low) <= fnmr_at(scores, high)


@given(FEW, FMRS)
def test_a_threshold_is_the_least_that_keeps_the_fmr(impostor: list[float], fmr: float) -> None:
    scores = tiny(impostor, [0.5])
    threshold, exact = threshold_for(scores, fmr)
    assert exact
    assert fmr_at(scores, threshold)[0] <= fmr
    # The float32 below it is a score, and as a threshold it would let too many pass.
    lower = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
    assert lower in scores.tail
    assert fmr_at(scores, lower)[0] > fmr


@given(FEW, FEW)
def test_the_eer_is_no_better_than_the_better_and_no_worse_than_the_worse_of_both_rates(
    impostor: list[float], genuine: list[float]
) -> None:
    scores = tiny(impostor, genuine)
    eer = equal_error_rate(scores).eer
    for score in {*impostor, *genuine}:
        fmr, fnmr = fmr_at(scores, score)[0], fnmr_at(scores, score)
        assert min(fmr, fnmr) - 1e-12 <= eer <= max(fmr, fnmr) + 1e-12


@given(st.floats(0.0001, 0.9999), st.integers(1, 10**9))
def test_as_many_pass_as_the_share_allows(fmr: float, impostors: int) -> None:
    most = passing(fmr, impostors)
    assert most / impostors <= fmr < (most + 1) / impostors


def test_as_many_pass_as_the_share_allows_where_the_product_is_rounded_down() -> None:
    assert int(0.29 * 100) == 28
    assert passing(0.29, 100) == 29


@given(st.lists(COSINES | st.sampled_from([float(each) for each in HISTOGRAM_EDGES[::100]]), max_size=50))
def test_the_histogram_agrees_with_its_edges(values: list[float]) -> None:
    scores = np.array(values, np.float32)
    counts = histogram_of(scores)
    for edge in (0, 1, 500, 1000, 1001, 1999):
        assert counts[edge:].sum() == (scores >= HISTOGRAM_EDGES[edge]).sum()


def test_a_cosine_that_rounding_put_beyond_one_is_in_the_last_bin() -> None:
    counts = histogram_of(np.array([1.0000001, -1.0000001, 1, -1], np.float32))
    assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)


def cut(scores: ScoreSet, keep: int) -> ScoreSet:
    return replace(
        scores,
        tail=scores.tail[:keep],
        tail_template=scores.tail_template[:keep],
        tail_probe=scores.tail_probe[:keep],
    )


def test_below_the_tail_the_histogram_stands_in_and_is_said_to() -> None:
    rng = np.random.default_rng(4)
    whole = normal(rng, 60, apart=2.5)
    short = cut(whole, 200)
    assert whole.complete
    assert not short.complete
    # Within the tail nothing changes.
    for fmr in (1e-3, 1e-2):
        assert threshold_for(short, fmr) == threshold_for(whole, fmr)
        threshold = threshold_for(short, fmr)[0]
        assert fmr_at(short, threshold) == fmr_at(whole, threshold)
    # Below it a rate is never too low, and by no more than what lies within a bin.
    for threshold in (-0.3, 0.0, 0.05, 0.1234):
        rate, exact = fmr_at(short, threshold)
        assert not exact
        assert fmr_at(whole, threshold)[0] <= rate <= fmr_at(whole, threshold - 2 / BINS)[0]
    for fmr in (0.05, 0.3, 0.9):
        threshold, exact = threshold_for(short, fmr)
        assert not exact
        assert threshold_for(whole, fmr)[0] <= threshold <= threshold_for(whole, fmr)[0] + 2 / BINS
        assert fmr_at(whole, threshold)[0] <= fmr
    found = equal_error_rate(short)
    assert not found.exact
    assert equal_error_rate(whole).eer <= found.eer <= equal_error_rate(whole).eer + 0.005


def test_at_the_last_score_of_a_tail_others_tied_with_it_may_be_missing() -> None:
    scores = tiny([0.5, 0.3, 0.3, 0.3], [0.5], keep=2)
    last = float(scores.tail[-1])
    assert impostors_at(scores, last) == (4, False)
    assert impostors_at(scores, just_above(scores.tail[-1])) == (1, True)


def test_a_threshold_below_a_tail_within_the_top_bin_is_above_all_that_may_not_pass() -> None:
    scores = tiny([1.0, 1.0, 0.9995, 0.9995], [0.5], keep=1)
    threshold, exact = threshold_for(scores, 0.3)
    assert not exact
    assert impostors_at(scores, threshold) == (0, True)


def test_a_threshold_is_compared_as_the_door_compares_it() -> None:
    # The float32 nearest to 0.7 lies below it, and a score of that must not pass.
    scores = tiny([0.7], [0.7])
    assert float(np.float32(0.7)) < 0.7
    assert fmr_at(scores, 0.7) == (0, True)
    assert fnmr_at(scores, 0.7) == 1


def test_the_fmr_of_an_attempt_lies_between_that_of_one_frame_and_of_all() -> None:
    low, high = attempt_fmr_bounds(1e-4, 3)
    assert low == 1e-4
    assert high == pytest.approx(3e-4)
    assert attempt_fmr_bounds(0.5, 3) == (0.5, 1)
    assert attempt_fmr_bounds(0, 1) == (0, 0)
    low, high = attempt_fmr_bounds(0.01, 3)
    assert low < 1 - (1 - 0.01) ** 3 < high
    for fmr, frames in ((-0.1, 3), (1.1, 3), (0.1, 0), (float("nan"), 1)):
        with pytest.raises(ScoresError, match="give a share"):
            attempt_fmr_bounds(fmr, frames)


def changed(**values: object) -> Callable[[ScoreSet], ScoreSet]:
    return lambda scores: replace(scores, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (changed(genuine=np.array([0.5], np.int32)), "genuine must be one row of floats"),
        (changed(genuine=np.full((1, 1), 0.5, np.float32)), "genuine must be one row of floats"),
        (changed(genuine_person=np.zeros(1, np.float32)), "genuine_person must be one row of integers"),
        (changed(genuine=np.array([np.nan], np.float32)), "genuine holds a score that is not a number"),
        (changed(tail=np.array([np.inf, 0.2], np.float32)), "tail holds a score that is not a number"),
        (changed(tail=np.array([0.2, 0.4], np.float32)), "must fall"),
        (changed(genuine=np.array([0.5, 0.6], np.float32)), "name one for each"),
        (changed(tail=np.array([0.4], np.float32)), "needs the person"),
        (changed(genuine_person=np.array([3], np.int32)), "genuine_person names somebody beyond"),
        (changed(tail_probe=np.array([1, -1], np.int32)), "tail_probe names somebody beyond"),
        (changed(tail_probe=np.array([0, 1], np.int32)), "own template"),
        (changed(templates_of=np.array([1, 0])), "count the same people"),
        (changed(templates_of=np.array([2, 0, 0])), "a full cross makes 4"),
        (changed(attempts_of=np.array([0, -1, 3])), "below zero"),
        (changed(histogram=np.zeros(10, np.int64)), "must have 2000 bins"),
        (changed(tail=np.zeros(0, np.float32), tail_template=np.zeros(0, np.int32),
                 tail_probe=np.zeros(0, np.int32)), "a tail of 0 out of 2"),
        (changed(tail=np.array([.4, .3, .2], np.float32), tail_template=np.zeros(3, np.int32),
                 tail_probe=np.ones(3, np.int32)), "a tail of 3 out of 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(spoil: Callable[[ScoreSet], ScoreSet], what: str) -> None:
    scores = tiny([0.4, 0.2], [0.5])
    with pytest.raises(ScoresError, match=what) as refused:
        spoil(scores)
    assert isinstance(refused.value, DrempelError)
    assert isinstance(refused.value, ValueError)
