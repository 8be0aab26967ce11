"""The judge of the long runs, before made-up histories: it must be able to say that something is wrong."""

import math

from appliance.simulation.board import Change
from tests.system.openings import Cause, Stretch, stretches, too_long, unexplained

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
    assert too_long(high((1.1, 2.0)), again, 0.5) == [], "two cards, twice the time"
