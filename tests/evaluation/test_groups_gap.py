import numpy as np
import pytest

from appliance.evaluation.error_rates import ScoresError, ScoreSet
from appliance.evaluation.groups_gap import LEAST_PEOPLE, groups_at
from appliance.evaluation.intervals import fmr_over_people, fnmr_over_people
from tests.evaluation.score_sets import as_cosine, cross, normal

THRESHOLD = float(as_cosine(2))


def unequal(people: int, shift: float, seed: int = 1) -> ScoreSet:
    """The latter half of the people has genuine scores that are lower by `shift`."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), 10)
    return cross(
        lambda _, others: as_cosine(rng.normal(0, 1, len(others))),
        as_cosine(rng.normal(4, 1, len(person)) - shift * (person >= people // 2)),
        person,
        [1] * people,
        [2] * people,
    )


def halves(people: int) -> list[str | None]:
    return ["first" if each < people // 2 else "second" for each in range(people)]


def test_each_group_is_judged_at_the_common_threshold_and_fmr_within_it() -> None:
    scores = unequal(120, 1)
    found = groups_at(scores, halves(120), THRESHOLD)
    assert found.threshold == THRESHOLD
    assert [row.group for row in found.rows] == ["first", "second"]
    for row, members in zip(found.rows, (np.arange(120) < 60, np.arange(120) >= 60), strict=True):
        assert row.people == 60
        assert row.fnmr == fnmr_over_people(scores, THRESHOLD, members)
        assert row.fmr == fmr_over_people(scores, THRESHOLD, members)
        assert row.fmr is not None
        assert row.fmr.of == 60 * 59 * 2
    assert found.left_out == {}


def test_a_gap_that_is_there_is_told_from_one_that_is_not() -> None:
    found = groups_at(unequal(120, 1), halves(120), THRESHOLD)
    first, second = (row.fnmr for row in found.rows)
    assert first is not None
    assert second is not None
    assert found.fnmr_gap is not None
    assert (found.fnmr_gap.worst, found.fnmr_gap.best) == ("second", "first")
    assert found.fnmr_gap.difference == second.rate - first.rate
    assert found.fnmr_gap.ratio == second.rate / first.rate
    assert 0 < found.fnmr_gap.low < found.fnmr_gap.difference < found.fnmr_gap.high
    # The impostors are all alike.
    assert found.fmr_gap is not None
    assert found.fmr_gap.low < 0 < found.fmr_gap.high


def test_picking_the_extremes_of_many_groups_seldom_makes_a_gap() -> None:
    gaps = 0
    for seed in range(60):
        scores = normal(np.random.default_rng(seed), 6 * 32, apart=3, probes=1, genuine_effect=0.8)
        found = groups_at(scores, ["abcdef"[each % 6] for each in range(192)], THRESHOLD, replicates=200)
        assert found.fnmr_gap is not None
        gaps += found.fnmr_gap.low > 0
    # One in twenty would be three; the rates of six groups differ by chance in each of the sixty.
    assert gaps <= 6


def test_a_small_group_is_shown_and_takes_no_part() -> None:
    labels: list[str | None] = ["large" if each < 60 else "other" for each in range(120)]
    labels[-LEAST_PEOPLE + 1 :] = ["few"] * (LEAST_PEOPLE - 1)
    found = groups_at(unequal(120, 3), labels, THRESHOLD)
    assert [(row.group, row.people) for row in found.rows] == [("few", 29), ("large", 60), ("other", 31)]
    assert found.rows[0].fnmr is not None
    assert found.fnmr_gap is not None
    assert {found.fnmr_gap.worst, found.fnmr_gap.best} == {"large", "other"}
    assert set(found.left_out) == {"few"}
    assert "29 people, and fewer than 30 take no part" in found.left_out["few"]


def test_people_without_a_label_are_shown_last_and_take_no_part() -> None:
    labels = halves(120)
    labels[:25] = [None] * 25
    found = groups_at(unequal(120, 1), labels, THRESHOLD)
    assert [(row.group, row.people) for row in found.rows] == [("first", 35), ("second", 60), (None, 25)]
    assert found.left_out == {}
    alone = groups_at(unequal(120, 1), [None] * 120, THRESHOLD)
    assert (alone.fnmr_gap, alone.fmr_gap, len(alone.rows)) == (None, None, 1)


def test_a_best_group_without_an_error_can_still_err() -> None:
    found = groups_at(unequal(80, 1.5), halves(80), float(as_cosine(0)))
    first, second = (row.fnmr for row in found.rows)
    assert first is not None
    assert second is not None
    assert (first.rate, first.method) == (0, "exact over people")
    assert found.fnmr_gap is not None
    assert found.fnmr_gap.ratio is None
    # A bootstrap of the difference would take the first group's rate for certain.
    assert found.fnmr_gap.low < second.low - first.rate


def test_groups_that_are_all_alike_have_a_gap_of_nothing_between_two_of_them() -> None:
    found = groups_at(unequal(80, 0), halves(80), -1)
    assert found.fnmr_gap is not None
    assert found.fnmr_gap.worst != found.fnmr_gap.best
    assert found.fnmr_gap.difference == 0
    assert found.fnmr_gap.low < 0 < found.fnmr_gap.high


def test_a_group_without_genuine_attempts_or_impostors_has_no_such_rate() -> None:
    labels = halves(80)
    labels[0] = "alone"
    scores = unequal(80, 0)
    kept = scores.genuine_person != 0
    without = ScoreSet(
        scores.genuine[kept],
        scores.genuine_person[kept],
        scores.tail,
        scores.tail_template,
        scores.tail_probe,
        scores.templates_of,
        scores.attempts_of,
        scores.histogram,
    )
    found = groups_at(without, labels, THRESHOLD)
    assert (found.rows[0].group, found.rows[0].fnmr, found.rows[0].fmr) == ("alone", None, None)
    assert found.left_out["alone"].startswith("FNMR: no genuine attempts; FMR: no impostor comparisons")


def test_a_threshold_below_the_tail_leaves_fmr_within_groups_unknown() -> None:
    found = groups_at(normal(np.random.default_rng(1), 80, apart=4, keep=50), halves(80), 0.0)
    assert all(row.fmr is None and row.fnmr is not None for row in found.rows)
    assert found.fmr_gap is None
    assert "no impostor comparisons that can be counted" in found.left_out["first"]


def test_there_is_one_label_for_each_person() -> None:
    with pytest.raises(ScoresError, match="3 labels for 80 people"):
        groups_at(unequal(80, 0), ["a", "b", None], THRESHOLD)
