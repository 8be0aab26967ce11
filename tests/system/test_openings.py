"""The judge of the long runs, before made-up histories: it must be able to say that something is wrong."""

import math

from appliance.simulation.board import Change
from tests.system.openings import Cause, Stretch, stretches, too_long, too_many, unexplained, unspent

RELAY = 22


def high(*times: tuple[float, float]) -> list[Stretch]:
    return [Stretch(up, down) for up, down in times]


def test_stretches_are_read_from_the_line_and_one_that_does_not_end_is_infinite() -> None:
    changes = [Change(at, RELAY, state, released=False) for at, state in ((0, 0), (1, 1), (2, 0), (3, 1))]
    assert stretches(changes) == high((1, 2), (3, math.inf))


def test_a_rise_needs_a_cause_of_its_own() -> None:
    card = Cause("card", 1.0, 4.0)
    assert unexplained(high((1.1, 1.6)), [card]) == []
    assert unexplained(high((0.9, 1.4)), [card]) == high((0.9, 1.4)), "before the card"
    assert unexplained(high((4.1, 4.6)), [card]) == high((4.1, 4.6)), "long after it"
    assert unexplained(high((1.1, 1.6), (2.1, 2.6)), [card]) == high((2.1, 2.6)), "twice for one card"
    assert unexplained(high((1.1, 1.6)), []) == high((1.1, 1.6)), "for nothing"


def test_causes_are_shared_out_so_that_every_rise_that_can_be_explained_is() -> None:
    wide, narrow = Cause("press", 0.0, 6.0), Cause("card", 1.0, 2.0)
    assert unexplained(high((1.1, 1.6), (5.0, 5.5)), [wide, narrow]) == []


def test_a_relay_that_is_left_high_is_found() -> None:
    card = Cause("card", 1.0, 4.0)
    assert too_long(high((1.1, 1.6)), [card], 0.5) == []
    assert too_long(high((1.1, 3.0)), [card], 0.5) == high((1.1, 3.0))
    assert too_long(high((1.1, math.inf)), [card], 0.5) == high((1.1, math.inf))
    again = [card, Cause("card", 1.5, 4.5)]
    assert too_long(high((1.1, 3.2)), again, 0.5) == high((1.1, 3.2))
    assert too_long(high((1.1, 2.3)), again, 0.5) == [], "two cards, twice the time"


def test_a_relay_held_for_a_second_unlock_time_without_a_second_cause_is_found() -> None:
    card = Cause("card", 1.0, 2.5)
    assert too_long(high((1.1, 2.0)), [card], 0.5) == high((1.1, 2.0))
    earlier = Cause("card", 0.2, 1.7)
    both = high((0.3, 0.8), (1.1, 2.0))
    assert too_long(both, [earlier, card], 0.5) == both[1:], "the earlier card was spent already"


def test_a_cause_lengthens_one_stretch_only() -> None:
    causes = [Cause("card", 1.0, 1.05), Cause("card", 2.4, 2.45), Cause("match", 1.0, 3.0)]
    opened = high((1.02, 2.0), (2.42, 3.4))
    assert too_long(opened, causes, 0.5) == opened[1:]


def test_an_unlock_that_merged_into_an_open_door_shows_in_the_count_of_door() -> None:
    card = Cause("card", 1.0, 2.5)
    assert too_many(1, high((1.1, 1.6)), [card]) == 0
    assert too_many(2, high((1.1, 1.8)), [card]) == 1
    assert too_many(2, high((1.1, 1.8)), [card, Cause("match", 0.5, 1.9)]) == 0, "a face as well"
    assert too_many(0, high((1.1, 1.3)), [card]) == 0, "killed before it wrote so"


def test_causes_that_were_not_spent_are_told() -> None:
    spent, left = Cause("card", 1.0, 2.5), Cause("match", 3.0, 5.0)
    assert unspent(high((1.1, 1.6)), [left, spent]) == [left]
