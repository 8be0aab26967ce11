import numpy as np
import pytest

from appliance.evaluation.calibration import mean_of_half
from appliance.evaluation.comparisons import compare, draw, owners
from appliance.evaluation.error_rates import threshold_for
from appliance.evaluation.trial_looks import PLAIN, Looks
from appliance.evaluation.trial_mean import RATES, Outcome, cross_fit, scored, table
from tests.evaluation.people import made_up, seen

SEED = 7
DATA, SEEN = made_up([12] * 120, noise=1.8)
OWNER = owners(DATA)
EVERYBODY = np.ones(len(DATA.people), np.bool_)
NOBODY_APART = np.zeros(len(DATA.people), np.int64)


def looks() -> Looks:
    vectors = SEEN.vectors
    return Looks(
        (PLAIN,),
        np.arange(len(vectors)),
        vectors[None],
        np.ones(len(vectors), np.float32),
        np.zeros(1, np.int64),
    )


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return cross_fit(
        looks(), OWNER, DATA.people, mean_of_half(DATA, SEEN).vector, seeds=[SEED], replicates=20
    )


def test_under_one_mean_the_scores_are_those_of_an_evaluation() -> None:
    mean = mean_of_half(DATA, SEEN).vector
    drawn = draw(OWNER, len(DATA.people), template_size=5, frames=1, seed=SEED)
    found = scored(SEEN.vectors, OWNER, drawn, NOBODY_APART, lambda _one, _other: mean, [EVERYBODY])
    expected = compare(DATA, seen(SEEN.vectors), mean, template_size=5, frames=1, seed=SEED).scores
    np.testing.assert_allclose(found.genuine, np.sort(expected.genuine), atol=1e-5)
    np.testing.assert_allclose(found.tail[:1000], expected.tail[:1000], atol=1e-5)
    weights = EVERYBODY.astype(np.int64)
    assert found.impostors(weights) == expected.impostors
    for fmr in (1e-2, 1e-3):
        threshold = threshold_for(expected, fmr)[0]
        assert found.threshold(weights, fmr) == pytest.approx(threshold, abs=1e-5)
        assert found.fnmr(weights, fmr) == pytest.approx((expected.genuine < threshold).mean(), abs=2e-3)


def test_within_halves_the_pack_s_mean_is_that_of_their_own_for_one_and_of_the_other_for_the_other(
    outcome: Outcome,
) -> None:
    kinds = [(each.comparisons, each.mean) for each in outcome.crossed]
    assert len(set(kinds)) == len(kinds) == 7
    assert outcome.impostors["within halves"] < outcome.impostors["all"] / 1.8
    assert sum(outcome.mean_people) == outcome.people == len(DATA.people)


def test_a_mean_of_half_of_these_people_changes_next_to_nothing(outcome: Outcome) -> None:
    for each in outcome.crossed:
        assert each.rates.shape == (21, len(RATES))
        assert np.isfinite(each.rates).all()
    plain, other = outcome.crossed[0].rates, outcome.crossed[1].rates
    assert abs(plain[0] - other[0]).max() < 0.05


def test_at_the_threshold_of_the_other_half_fmr_is_near_the_one_named(outcome: Outcome) -> None:
    fnmr, fmr = outcome.strict[0]
    assert (fnmr > 0).all()
    assert RATES[0] / 5 < fmr[0] < RATES[0] * 5


def test_a_score_in_which_a_mean_is_missing_is_left_out() -> None:
    halves = np.arange(len(DATA.people)) % 2
    none = np.zeros(SEEN.vectors.shape[1], np.float32)
    drawn = draw(OWNER, len(DATA.people), template_size=5, frames=1, seed=SEED)
    found = scored(
        SEEN.vectors,
        OWNER,
        drawn,
        halves,
        lambda one, other: none if one == other == 1 else None,
        [halves == 1],
    )
    assert set(halves[found.genuine_person]) == set(halves[found.tail_probe]) == {1}
    assert set(halves[found.tail_template]) == {1}


def test_nobody_weighed_has_no_rate() -> None:
    none = np.zeros(SEEN.vectors.shape[1], np.float32)
    drawn = draw(OWNER, len(DATA.people), template_size=5, frames=1, seed=SEED)
    found = scored(SEEN.vectors, OWNER, drawn, NOBODY_APART, lambda _one, _other: none, [EVERYBODY])
    assert np.isnan(found.fnmr(0 * NOBODY_APART, 1e-3))


def test_the_table_names_every_mean_and_both_rates(outcome: Outcome) -> None:
    said = table(outcome)
    for each in outcome.crossed:
        assert each.mean in said
    assert "FNMR at FMR 1e-4" in said
    assert "| 1e-5 | " in said
    assert f"{outcome.genuine:,} genuine attempts" in said
