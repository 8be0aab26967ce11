from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from appliance.evaluation import intervals
from appliance.evaluation.error_rates import ScoresError, ScoreSet, equal_error_rate, fnmr_at, threshold_for
from appliance.evaluation.intervals import clopper_pearson
from appliance.evaluation.operating_points import (
    LEAST_IMPOSTORS,
    Replicated,
    det,
    eer_over_people,
    fnmr_at_fmr,
)
from tests.evaluation.score_sets import as_cosine, cross, normal, tiny

FEW = st.lists(
    st.sampled_from([-1, -0.5, 0, 0.25, 0.5, 1]) | st.floats(-1, 1, width=32), min_size=1, max_size=30
)


@given(FEW, FEW, st.floats(0.001, 0.999))
def test_weights_of_one_give_the_plain_figures(
    impostor: list[float], genuine: list[float], fmr: float
) -> None:
    scores = tiny(impostor, genuine)
    ones = np.ones(scores.people, np.int64)
    one_by_one = Replicated(scores, [fmr])
    one_by_one._corners()
    assert one_by_one.fnmr_under(ones)[0] == fnmr_at(scores, threshold_for(scores, fmr)[0])
    assert one_by_one.eer_under(ones) == pytest.approx(equal_error_rate(scores).eer, abs=1e-12)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.floats(0.01, 0.9), st.integers(0, 99))
def test_weights_are_as_good_as_people_who_are_there_so_often(
    weights: list[int], fmr: float, seed: int
) -> None:
    """Each comparison written down as often as the product of its people's weights, and nothing weighed."""
    scores = normal(np.random.default_rng(seed), 6, apart=1, attempts=3)
    drawn = np.array(weights)
    times = drawn[scores.tail_template] * drawn[scores.tail_probe]
    genuine_times = drawn[scores.genuine_person]
    asked = Replicated(scores, [fmr])
    asked._corners()
    if not times.sum() or not genuine_times.sum():
        assert np.isnan(asked.fnmr_under(drawn)).all()
        assert np.isnan(asked.eer_under(drawn))
        return
    written = tiny(np.repeat(scores.tail, times).tolist(), np.repeat(scores.genuine, genuine_times).tolist())
    assert asked.fnmr_under(drawn)[0] == pytest.approx(fnmr_at(written, threshold_for(written, fmr)[0]))
    assert asked.eer_under(drawn) == pytest.approx(equal_error_rate(written).eer)


def test_two_normal_distributions_are_within_the_intervals_of_the_formulae() -> None:
    scores = normal(np.random.default_rng(1), 200, apart=4, attempts=20)
    found = fnmr_at_fmr(scores)
    # 79,600 impostors: ten of them lie above the threshold for 1e-3 and not above that for 1e-4.
    assert list(found.stated) == [1e-2, 1e-3]
    assert list(found.left_out) == [1e-4, 1e-5, 1e-6]
    for fmr, each in found.stated.items():
        truth = norm.cdf(norm.isf(fmr) - 4)
        assert each.low <= truth <= each.high
        assert each.fnmr == fnmr_at(scores, each.threshold)
        assert each.fnmr == each.errors / 4000
        assert each.threshold == threshold_for(scores, fmr)[0]
        assert each.impostors_above == int(fmr * scores.impostors)
        assert each.people == 200
        assert each.method == "bootstrap"
    eer = eer_over_people(scores)
    assert eer.low <= norm.cdf(-2) <= eer.high
    assert eer.low < eer.eer < eer.high
    assert eer.eer == equal_error_rate(scores).eer


def test_the_same_seed_gives_the_same_figures_and_another_other_ends() -> None:
    scores = normal(np.random.default_rng(2), 60, apart=3)
    assert fnmr_at_fmr(scores, [0.01]) == fnmr_at_fmr(scores, [0.01])
    assert fnmr_at_fmr(scores, [0.01]) != fnmr_at_fmr(scores, [0.01], seed=8)
    assert eer_over_people(scores) == eer_over_people(scores)


def test_an_fmr_is_stated_only_with_enough_impostors_above_its_threshold() -> None:
    scores = normal(np.random.default_rng(3), 30, apart=3)
    enough = LEAST_IMPOSTORS / scores.impostors
    found = fnmr_at_fmr(scores, [enough * 1.0001, enough * 0.9999])
    assert [each.impostors_above for each in found.stated.values()] == [LEAST_IMPOSTORS]
    assert list(found.left_out) == [enough * 0.9999]
    (why,) = found.left_out.values()
    assert why.startswith("of 1,740 impostor scores 9 lie above the threshold for FMR")


def test_an_fmr_that_look_alikes_decide_is_left_out() -> None:
    # Twelve scores above all others, of three pairs: each of two templates before two attempts.
    alike = {0: 1, 1: 0, 2: 3, 3: 2, 4: 5, 5: 4}
    scores = cross(
        lambda person, others: np.where(others == alike.get(person, -1), 0.9, 0.1 + 0.001 * others),
        [0.95] * 20,
        list(range(20)),
        [1] * 20,
        [2] * 20,
    )
    found = fnmr_at_fmr(scores, [12 / scores.impostors])
    assert not found.stated
    assert "are of 3 pair(s) of people" in found.left_out[12 / scores.impostors]
    # With two more, who resemble each other as well, there are four pairs.
    alike |= {6: 7, 7: 6}
    more = cross(
        lambda person, others: np.where(others == alike.get(person, -1), 0.9, 0.1 + 0.001 * others),
        [0.95] * 20,
        list(range(20)),
        [1] * 20,
        [2] * 20,
    )
    (stated,) = fnmr_at_fmr(more, [16 / more.impostors]).stated.values()
    assert (stated.impostors_above, stated.pairs_above) == (16, 4)


def test_genuine_and_impostor_scores_apart_give_no_error_and_its_exact_bound() -> None:
    rng = np.random.default_rng(4)
    scores = cross(
        lambda _, others: rng.uniform(-0.5, 0.3, len(others)),
        rng.uniform(0.5, 0.9, 200),
        np.repeat(np.arange(40), 5),
        [1] * 40,
        [3] * 40,
    )
    bound = 1 - 0.025 ** (1 / 40)
    found = fnmr_at_fmr(scores, [1e-2]).stated[1e-2]
    assert (found.fnmr, found.low, found.errors, found.people) == (0, 0, 0, 40)
    assert found.high == pytest.approx(bound)
    assert found.method == "exact over people"
    eer = eer_over_people(scores)
    assert (eer.eer, eer.low, eer.method) == (0, 0, "exact over people")
    assert eer.high == pytest.approx(bound)


def test_all_scores_alike_pass_together_or_not_at_all() -> None:
    scores = cross(
        lambda _, others: np.full(len(others), 0.4), [0.4] * 30, list(range(30)), [1] * 30, [2] * 30
    )
    # The threshold that keeps any FMR below one is above them all.
    found = fnmr_at_fmr(scores, [0.5])
    assert found.left_out[0.5].startswith("of 1,740 impostor scores 0 lie above")
    assert equal_error_rate(scores).eer == 0.5
    assert det(scores) == []


def test_without_genuine_attempts_nothing_is_stated() -> None:
    with pytest.raises(ScoresError, match="no genuine attempt"):
        fnmr_at_fmr(tiny([0.1, 0.2], []), [0.1])
    with pytest.raises(ScoresError, match="no impostor comparison"):
        fnmr_at_fmr(tiny([], [0.5]), [0.1])
    with pytest.raises(ScoresError, match="no impostor comparison"):
        det(tiny([], [0.5]))


def cut(scores: ScoreSet, keep: int) -> ScoreSet:
    return replace(
        scores,
        tail=scores.tail[:keep],
        tail_template=scores.tail_template[:keep],
        tail_probe=scores.tail_probe[:keep],
    )


def test_a_tail_gives_what_keeping_everything_gives() -> None:
    whole = normal(np.random.default_rng(5), 80, apart=3.5, genuine_effect=0.5, impostor_effect=0.3)
    short = normal(
        np.random.default_rng(5), 80, apart=3.5, genuine_effect=0.5, impostor_effect=0.3, keep=5000
    )
    assert whole.complete
    assert len(whole.tail) == 12_640
    assert len(short.tail) == 5000
    rates = (5e-2, 1e-2, 1e-3)
    assert fnmr_at_fmr(short, rates) == fnmr_at_fmr(whole, rates)
    assert eer_over_people(short) == eer_over_people(whole)
    for mine, theirs in zip(det(short), det(whole), strict=True):
        if mine.fmr * 12_640 * 1.5 < 5000:
            assert mine == theirs


def test_where_the_tail_does_not_reach_the_threshold_is_held() -> None:
    whole = normal(np.random.default_rng(6), 60, apart=1.5, genuine_effect=0.5)
    short = cut(whole, 300)
    known, held = (fnmr_at_fmr(each, [0.3]).stated[0.3] for each in (whole, short))
    assert known.pairs_above is not None
    assert held.pairs_above is None
    assert held.fnmr == fnmr_at(short, held.threshold)
    assert held.fnmr == pytest.approx(known.fnmr, abs=0.01)
    assert (held.low, held.high) == pytest.approx((known.low, known.high), abs=0.03)
    # The EER lies below the tail as well: FMR is held, FNMR resampled.
    eer, plain = eer_over_people(short), eer_over_people(whole)
    assert not eer.exact
    assert eer.low < eer.eer < eer.high
    # FMR of 7,080 comparisons at a fixed threshold adds little to what few people's FNMR leaves open.
    assert (eer.eer, eer.low, eer.high) == pytest.approx((plain.eer, plain.low, plain.high), abs=0.02)


def test_the_det_runs_from_the_least_fmr_that_the_data_allow_to_a_half() -> None:
    scores = normal(np.random.default_rng(7), 100, apart=3, genuine_effect=0.5)
    points = det(scores, replicates=200)
    assert points[0].impostors_above == LEAST_IMPOSTORS
    assert points[-1].fmr == 0.5
    assert np.ptp(np.diff(np.log10([each.fmr for each in points]))) < 1e-6
    for lower, higher in pairwise(points):
        assert lower.threshold >= higher.threshold
        assert lower.fnmr >= higher.fnmr
    assert all(each.low <= each.fnmr <= each.high for each in points)
    same = fnmr_at_fmr(scores, [points[9].fmr], replicates=200).stated[points[9].fmr]
    assert same.fnmr == points[9].fnmr


def test_thinning_hardly_moves_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = normal(np.random.default_rng(8), 200, apart=2, genuine_effect=0.5, impostor_effect=0.3)
    whole, eer = fnmr_at_fmr(scores, [0.1]).stated[0.1], eer_over_people(scores)
    monkeypatch.setattr(intervals, "RESAMPLED_ONE_BY_ONE", 4000)
    few, thin = fnmr_at_fmr(scores, [0.1]).stated[0.1], eer_over_people(scores)
    assert few.fnmr == whole.fnmr
    assert (few.low, few.high) != (whole.low, whole.high)
    for (low, high), known in (((few.low, few.high), whole), ((thin.low, thin.high), eer)):
        assert (low, high) == pytest.approx((known.low, known.high), abs=(known.high - known.low) / 10)


def test_intervals_hold_the_truth_though_the_threshold_is_found_on_the_same_people() -> None:
    """Two hundred small data sets whose people differ in both kinds of score."""
    rng = np.random.default_rng(9)
    apart, effect, fmr = 4.0, 0.8, 1e-2
    spread = np.sqrt(1 + effect**2)
    fnmr = norm.cdf((norm.isf(fmr) - apart) / spread)
    eer = norm.cdf(-apart / (1 + spread))
    held, naive, eer_held = 0, 0, 0
    for seed in range(200):
        scores = normal(rng, 50, apart=apart, genuine_effect=effect, impostor_effect=0.35)
        found = fnmr_at_fmr(scores, [fmr], replicates=200, seed=seed).stated[fmr]
        held += found.low <= fnmr <= found.high
        low, high = clopper_pearson(found.errors, len(scores.genuine))
        naive += low <= fnmr <= high
        around = eer_over_people(scores, replicates=200, seed=seed)
        eer_held += around.low <= eer <= around.high
    assert held / 200 >= 0.88
    assert eer_held / 200 >= 0.88
    assert naive / 200 <= 0.8


def test_the_eer_of_two_spreads_is_where_their_tails_are_alike() -> None:
    scores = normal(np.random.default_rng(10), 400, apart=3, attempts=20, genuine_effect=1)
    assert eer_over_people(scores, replicates=200).eer == pytest.approx(
        norm.cdf(-3 / (1 + np.sqrt(2))), abs=0.02
    )
    assert equal_error_rate(scores).threshold == pytest.approx(
        float(as_cosine(3 / (1 + np.sqrt(2)))), abs=0.02
    )
