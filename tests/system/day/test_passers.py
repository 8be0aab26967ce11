"""What is said of a card: served, refused, or fallen into door's own death."""

import random
from typing import cast

from tests.system.day.desk import Desk
from tests.system.day.ledger import Ledger
from tests.system.day.passers import SERVED, Card, Visitors
from tests.system.day.world import World
from tests.system.openings import Stretch, unexplained


class Deaths:
    """A world of which only door's absences are known."""

    def __init__(self, *absences: tuple[float, float]) -> None:
        self._absences = absences

    def away(self, since: float, until: float) -> float | None:
        return max((back for gone, back in self._absences if gone <= until and back >= since), default=None)


def visitors(*absences: tuple[float, float]) -> Visitors:
    world = cast("World", Deaths(*absences))
    return Visitors(world, Ledger(), cast("Desk", None), random.Random(1), 1.0)


def test_a_valid_card_that_did_not_open_was_refused() -> None:
    some = visitors()
    card = Card(10.0, must=True, may=True, dead=("vault",))
    some.cards = [card, Card(11.0, must=False, may=True, dead=())]
    assert some.refused([Stretch(20.0, 20.5)])[0] == [card]


def test_a_card_is_served_with_other_zones_dead_and_counted_for_them() -> None:
    some = visitors()
    some.cards = [Card(10.0, must=True, may=True, dead=("vault", "lens"))]
    missed, fell, served = some.refused([Stretch(10.05, 10.55)])
    assert (missed, fell) == ([], 0)
    assert served == {"vault": 1, "lens": 1}


def test_a_card_that_fell_into_the_death_of_door_may_open_when_it_is_back_and_not_much_later() -> None:
    some = visitors((9.0, 15.0))
    some.cards = [Card(10.0, must=True, may=True, dead=("door",))]
    assert some.refused([])[:2] == ([], 1)
    assert unexplained([Stretch(15.2, 15.7)], some.causes()) == []
    late = [Stretch(15.0 + SERVED + 0.1, 19.0)]
    assert unexplained(late, some.causes()) == late


def test_an_opening_for_somebody_else_serves_no_card() -> None:
    some = visitors()
    one, other = (Card(at, must=True, may=True, dead=()) for at in (10.0, 10.2))
    some.cards = [one, other]
    assert some.refused([Stretch(10.1, 10.6)])[0] == [other], "one stretch, one card"
    counted = Card(10.0, must=True, may=True, dead=(), entered=False)
    some.cards = [counted]
    assert some.refused([Stretch(10.1, 10.6)])[0] == [counted], "a face opened, door counted no badge"


def test_a_death_of_door_long_after_the_card_excuses_nothing() -> None:
    some = visitors((11.0, 15.0))
    card = Card(10.0, must=True, may=True, dead=())
    some.cards = [card]
    assert some.refused([])[:2] == ([card], 0)


def test_a_lost_card_leaves_no_free_rise_for_long() -> None:
    some = visitors()
    some.cards = [Card(10.0, must=True, may=True, dead=())]
    assert unexplained([Stretch(11.8, 12.3)], some.causes()) == [Stretch(11.8, 12.3)]


def test_the_next_card_after_the_return_of_door_must_open() -> None:
    some = visitors((9.0, 12.0))
    card = Card(12.1, must=True, may=True, dead=())
    some.cards = [card]
    assert some.refused([])[0] == [card]


def test_a_card_that_may_not_open_explains_no_rise() -> None:
    some = visitors()
    some.cards = [Card(10.0, must=False, may=False, dead=())]
    assert unexplained([Stretch(10.05, 10.55)], some.causes()) == [Stretch(10.05, 10.55)]
