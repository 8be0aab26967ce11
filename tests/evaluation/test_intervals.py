import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from appliance.evaluation import intervals
from appliance.evaluation.error_rates import ScoresError, fmr_at, threshold_for
from appliance.evaluation.intervals import (
    clopper_pearson,
    effective_people,
    fmr_over_people,
    fnmr_over_people,
    impostor_weight,
    resampled,
    settled,
    share_over_people,
    thinned,
)
from tests.evaluation.score_sets import as_cosine, cross, normal, tiny

SMALL = st.lists(st.integers(0, 4), min_size=2, max_size=8)


@given(st.integers(1, 200), st.data())
def test_the_exact_interval_ends_where_the_binomial_tails_are_a_fortieth(
    trials: int, data: st.DataObject
) -> None:
    errors = data.draw(st.integers(0, trials))
    low, high = clopper_pearson(errors, trials)
    assert 0 <= low <= errors / trials <= high <= 1
    if errors:
        assert binom.sf(errors - 1, trials, low) == pytest.approx(0.025, rel=1e-6)
    if errors < trials:
        assert binom.cdf(errors, trials, high) == pytest.approx(0.025, rel=1e-6)


def test_exact_intervals_known_by_heart() -> None:
    assert clopper_pearson(0, 30) == pytest.approx((0, 1 - 0.025 ** (1 / 30)))
    assert clopper_pearson(30, 30) == pytest.approx((0.025 ** (1 / 30), 1))
    for errors, trials in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ScoresError, match="make no share"):
            clopper_pearson(errors, trials)


def test_as_many_are_drawn_as_there_are_people_and_a_seed_repeats_the_draw() -> None:
    draws = list(resampled(50, 20, seed=3))
    assert all(each.shape == (50,) and each.sum() == 50 for each in draws)
    assert not np.array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws, list(resampled(50, 20, seed=3)))
    assert not np.array_equal(draws, list(resampled(50, 20, seed=4)))


@given(SMALL, st.data())
def test_the_weight_of_all_impostors_is_that_of_a_count_one_by_one(
    templates: list[int], data: st.DataObject
) -> None:
    people = len(templates)
    numbers = st.lists(st.integers(0, 4), min_size=people, max_size=people)
    attempts, weights = data.draw(numbers), data.draw(numbers)
    counted = sum(
        templates[one] * attempts[other] * weights[one] * weights[other]
        for one in range(people)
        for other in range(people)
        if one != other
    )
    assert impostor_weight(*(np.array(each) for each in (weights, templates, attempts))) == counted


def test_without_an_error_the_bound_is_exact_over_people_not_attempts() -> None:
    found = share_over_people(np.zeros(40, int), np.full(40, 25))
    assert found.rate == found.low == found.count == 0
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert (found.of, found.people, found.method) == (1000, 40, "exact over people")


def test_one_person_who_errs_is_not_resampled() -> None:
    errors = np.zeros(40, int)
    errors[3] = 10
    found = share_over_people(errors, np.full(40, 25))
    assert (found.rate, found.method) == (0.01, "exact over people")
    # Of replicates without that person nothing would be seen to go wrong, so low is 0.
    assert (found.low, found.high) == (0, clopper_pearson(1, 40)[1])


def test_where_all_or_nearly_all_fail_the_interval_is_exact_too() -> None:
    trials = np.full(40, 25)
    found = share_over_people(trials, trials)
    assert (found.rate, found.high, found.method) == (1, 1, "exact over people")
    assert found.low == pytest.approx(0.025 ** (1 / 40))
    errors = trials.copy()
    errors[0] = 5
    found = share_over_people(errors, trials)
    assert (found.low, found.high) == (clopper_pearson(39, 40)[0], 1)


@given(st.data(), st.integers(1, 40))
def test_an_interval_holds_the_rate_whatever_each_person_tried(data: st.DataObject, people: int) -> None:
    trials = data.draw(st.lists(st.integers(1, 90), min_size=people, max_size=people))
    errors = [data.draw(st.integers(0, each) | st.sampled_from([0, each])) for each in trials]
    found = share_over_people(np.array(errors), np.array(trials), replicates=20)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.rate == sum(errors) / sum(trials)
    assert found.high > 0
    assert found.low < 1


def test_who_made_no_attempt_takes_no_part() -> None:
    errors, trials = np.array([1, 0, 2, 0]), np.array([4, 4, 4, 0])
    found = share_over_people(errors, trials)
    assert found == share_over_people(errors[:3], trials[:3])
    assert found.people == 3


def test_shares_that_are_none_are_refused() -> None:
    for errors, trials in (([2], [1]), ([-1], [1]), ([1], [1, 1])):
        with pytest.raises(ScoresError, match="no more errors than attempts"):
            share_over_people(np.array(errors), np.array(trials))
    with pytest.raises(ScoresError, match="nobody made an attempt"):
        share_over_people(np.array([0]), np.array([0]))


def test_replicates_that_hold_nothing_are_left_out() -> None:
    values = np.array([np.nan, 0.2, 0.4, np.nan, 0.6])
    low, high, method = settled(0.4, values, erring=50, succeeding=100, people=100)
    assert (low, high) == pytest.approx((0.21, 0.59))
    assert method == "bootstrap"
    with pytest.raises(ScoresError, match="people are too few"):
        settled(0.4, np.full(3, np.nan), erring=50, succeeding=100, people=100)


def test_a_bootstrap_of_few_who_err_is_no_narrower_than_how_many_they_might_be() -> None:
    low, high, method = settled(0.01, np.full(100, 0.01), erring=4, succeeding=100, people=100)
    exact = clopper_pearson(4, 100)
    assert (low, high) == pytest.approx((exact[0] / 4, exact[1] / 4))
    assert method == "bootstrap"


def test_rates_at_a_threshold_are_the_plain_ones_and_within_their_intervals() -> None:
    scores = normal(np.random.default_rng(1), 50, apart=3, genuine_effect=0.8, impostor_effect=0.3)
    threshold = float(as_cosine(2))
    fmr, fnmr = fmr_over_people(scores, threshold), fnmr_over_people(scores, threshold)
    assert fmr.rate == fmr_at(scores, threshold)[0] == fmr.count / scores.impostors
    assert (fmr.of, fmr.people, fmr.method) == (50 * 49 * 2, 50, "bootstrap")
    assert (fnmr.of, fnmr.people, fnmr.method) == (400, 50, "bootstrap")
    assert fnmr.count == (scores.genuine < threshold).sum()
    for each in (fmr, fnmr):
        assert 0 < each.low < each.rate < each.high < 1
    assert fmr == fmr_over_people(scores, threshold)
    assert fmr != fmr_over_people(scores, threshold, seed=8)


def test_the_replicates_of_fmr_weigh_a_comparison_by_both_its_people(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = normal(np.random.default_rng(2), 8, apart=3)
    threshold = float(scores.tail[30])
    drawn = np.array([2, 0, 1, 1, 3, 0, 0, 1])
    monkeypatch.setattr(intervals, "resampled", lambda *_: iter([drawn]))
    seen = []

    def settled_as_seen(
        _: float, values: npt.NDArray[np.float64], **_people: int
    ) -> tuple[float, float, str]:
        seen.append(values)
        return 0, 1, "bootstrap"

    monkeypatch.setattr(intervals, "settled", settled_as_seen)
    fmr_over_people(scores, threshold, replicates=1)
    expected = sum(
        drawn[one] * drawn[other]
        for one, other, score in zip(scores.tail_template, scores.tail_probe, scores.tail, strict=True)
        if score >= threshold
    )
    whole = sum(
        drawn[one] * drawn[other] for one, other in zip(scores.tail_template, scores.tail_probe, strict=True)
    )
    np.testing.assert_allclose(seen, [[expected / whole]])


def test_no_false_match_among_people_is_bounded_by_the_fewer_of_templates_and_probes() -> None:
    # Twelve templates before the attempts of forty others: twelve comparisons share neither person.
    scores = cross(
        lambda _, others: np.full(len(others), 0.1),
        [0.9],
        [0],
        [1] * 12 + [0] * 40,
        [0] * 12 + [3] * 40,
    )
    found = fmr_over_people(scores, 0.5)
    assert (found.rate, found.of, found.people) == (0, 12 * 40 * 3, 12)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 12))
    assert found.method == "exact over people"
    assert fmr_over_people(scores, 0.1).low == pytest.approx(0.025 ** (1 / 12))


def test_false_matches_of_one_template_are_not_resampled() -> None:
    scores = tiny([0.8, 0.8, 0.8, 0.1, 0.1], [0.9])
    found = fmr_over_people(scores, 0.5)
    assert (found.count, found.method, found.people) == (3, "exact over people", 1)


def test_fmr_below_the_tail_is_stated_with_the_exact_interval() -> None:
    scores = normal(np.random.default_rng(3), 40, apart=3, keep=100)
    found = fmr_over_people(scores, 0.0)
    assert found.method == "exact over people"
    assert found.rate == fmr_at(scores, 0.0)[0]
    assert (found.low, found.high) == clopper_pearson(round(found.rate * 40), 40)
    with pytest.raises(ScoresError, match="below the tail"):
        fmr_over_people(scores, 0.0, np.arange(40) < 20)


def test_comparisons_among_members_are_those_of_a_set_without_the_others() -> None:
    everybody = normal(np.random.default_rng(4), 40, apart=3, impostor_effect=0.4)
    members = np.arange(40) % 3 == 0
    chosen = np.flatnonzero(members)
    inside = members[everybody.tail_template] & members[everybody.tail_probe]
    threshold = float(as_cosine(1.5))
    found = fmr_over_people(everybody, threshold, members)
    assert found.of == len(chosen) * (len(chosen) - 1) * 2 == inside.sum()
    assert found.count == (everybody.tail[inside] >= threshold).sum()
    mine = np.isin(everybody.genuine_person, chosen)
    genuine = fnmr_over_people(everybody, threshold, members)
    assert (genuine.of, genuine.people) == (8 * len(chosen), len(chosen))
    assert genuine.count == (everybody.genuine[mine] < threshold).sum()
    with pytest.raises(ScoresError, match="no impostor comparison among these"):
        fmr_over_people(everybody, threshold, np.arange(40) == 3)


def test_a_thinned_tail_adds_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLED_ONE_BY_ONE", 10)
    for scores in (0, 1, 10, 11, 19, 20, 21, 25, 99, 1000):
        few = thinned(scores)
        assert few.stands_for.sum() == scores
        assert len(few.index) <= 20
        # Down to each of them, they stand for all there are.
        np.testing.assert_array_equal(np.cumsum(few.stands_for), few.index + 1)


def test_thinning_hardly_moves_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = normal(np.random.default_rng(5), 200, apart=3, impostor_effect=0.4)
    threshold = threshold_for(scores, 0.2)[0]
    whole = fmr_over_people(scores, threshold)
    monkeypatch.setattr(intervals, "RESAMPLED_ONE_BY_ONE", 4000)
    few = fmr_over_people(scores, threshold)
    assert few.rate == whole.rate
    assert few != whole
    tenth = (whole.high - whole.low) / 10
    assert (few.low, few.high) == pytest.approx((whole.low, whole.high), abs=tenth)


def test_intervals_over_people_hold_the_truth_and_intervals_over_comparisons_do_not() -> None:
    """Two hundred small data sets whose people differ: the truth is known, and mostly within the interval."""
    rng = np.random.default_rng(6)
    threshold, apart, effect = norm.isf(0.01), 4.0, 1.0
    truths = (0.01, norm.cdf((threshold - apart) / np.sqrt(1 + effect**2)))
    held, naive = np.zeros(2), np.zeros(2)
    for seed in range(200):
        scores = normal(rng, 50, apart=apart, genuine_effect=effect, impostor_effect=0.35)
        at = float(as_cosine(threshold))
        for n, (rate_of, truth) in enumerate(zip((fmr_over_people, fnmr_over_people), truths, strict=True)):
            found = rate_of(scores, at, replicates=200, seed=seed)
            held[n] += found.low <= truth <= found.high
            low, high = clopper_pearson(found.count, found.of)
            naive[n] += low <= truth <= high
    assert (held / 200 >= 0.88).all(), held / 200
    assert (naive / 200 <= 0.8).all(), naive / 200


def test_people_who_make_most_of_the_attempts_count_for_fewer_people() -> None:
    """Kish's effective number: 1 for one who makes them all, n where all make equally many."""
    assert effective_people(np.array([7, 7, 7, 0])) == pytest.approx(3)
    assert effective_people(np.array([100, 1, 1])) == pytest.approx(102**2 / 10002)


def test_with_very_unequal_attempts_the_interval_of_a_rate_holds_the_truth() -> None:
    """A seventh of the people make half of the attempts, as in collections from the press."""
    rng = np.random.default_rng(3)
    trials = np.concatenate([np.full(21, 97), np.full(58, 30), np.full(68, 3)])
    held = 0
    for _ in range(120):
        bad = rng.random(len(trials)) < 0.05
        errors = np.where(bad, rng.binomial(trials, 0.3), 0)
        rate = share_over_people(errors, trials, replicates=200)
        held += rate.low <= 0.05 * 0.3 <= rate.high
    assert held >= 0.9 * 120
