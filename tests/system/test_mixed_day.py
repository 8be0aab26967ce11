"""A mixed day with a handful of kills, or with hundreds; and that such a day can go wrong, and says so.

The three hundred kills of each zone are `scripts/mixed-day`. `pytest -s` shows what was done and killed.
"""

import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest

from appliance.process import ZONES, Zone
from tests.system.day.desk import Badge
from tests.system.day.ledger import Standing, Thing
from tests.system.day.world import World
from tests.system.mixed_day import Day, Outcome, live, live_side_by_side, merged, outlived
from tests.system.openings import Cause, Stretch


def tell(text: str) -> None:
    print(text, file=sys.stderr)


@pytest.mark.models
@pytest.mark.timeout(240)
def test_a_handful_of_kills_loses_nothing_and_opens_nothing() -> None:
    outcome = live(1, 3, tell, pace=1.5)
    tell(outcome.report())
    assert outcome.wrong == []
    assert outcome.kills == Counter(dict.fromkeys(ZONES, 3))
    assert outcome.acknowledged
    assert outcome.numbers["cards that had to open"]


@pytest.mark.models
@pytest.mark.full
@pytest.mark.timeout(1800)
def test_fifteen_kills_of_each_zone_lose_nothing_and_open_nothing() -> None:
    outcome = live_side_by_side(1, 15, 2, tell)
    tell(outcome.report())
    assert outcome.wrong == []
    assert outcome.kills == Counter(dict.fromkeys(ZONES, 15))
    assert outcome.numbers["enrolments proved by opening"]
    assert outcome.done["erase person"]
    assert all(
        outcome.numbers[f"cards that opened while {zone} was dead or starting"]
        for zone in ("lens", "vault", "admin")
    )


@pytest.mark.models
@pytest.mark.timeout(240)
def test_a_day_that_goes_wrong_says_so(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path
) -> None:
    """No kill here: the harm is done by hand, or the ledger is made to expect what is not so."""
    with World(tmp_path / "state", test_models, portrait_paths).running() as world:
        day = Day(world, 3, 0, 1.0, tell)
        assert day.run().wrong == []
        while not day.desk.tokens:
            day.desk.step()
        with sqlite3.connect(world.state / "vault" / "vault.db") as db:
            db.execute("DELETE FROM record")
        db.close()
        day.look(everything=False)
        assert any(text.startswith("template") for text in day.outcome.lost)
        assert "0 records of vault have no owner, 1 owners no record" in day.outcome.other

        house = day.visitors.house
        assert house is not None
        never = Badge(Thing("badge", "never issued"), house.number ^ 1)
        day.ledger.note(never.thing, Standing.PRESENT, 0.0)
        day.visitors.house = never
        while not any(card.must for card in day.visitors.cards):
            day.visitors.one()
        day.ledger.note(house.thing, Standing.ABSENT, 0.0)
        day.visitors.house = house
        day.visitors.present(house.number)
        day.judge_relay()
    assert len(day.outcome.refused) == 1, "a valid card that did not open"
    assert len(day.outcome.wrongly_opened) == 1, "a card that was taken away, and opened"
    assert day.outcome.report().endswith("1 wrongly opened, 0 left open, 1 badges refused")


def test_a_relay_that_outlives_its_door_is_left_open() -> None:
    opened = [Stretch(10.0, 10.5), Stretch(20.0, 21.0)]
    assert outlived(opened, [5.0, 10.4, 15.0]) == []
    assert outlived(opened, [20.1]) == ["the relay was high until 21.000, and door had died at 20.100"]


def test_an_unlock_that_merged_into_an_open_door_is_found_in_the_life_of_that_door() -> None:
    opened = [Stretch(10.0, 10.6), Stretch(50.0, 50.5)]
    causes = [Cause("card", 9.9, 11.4), Cause("card", 49.9, 51.4)]
    assert merged([(5.0, 1), (40.0, 1)], opened, causes) == []
    assert merged([(5.0, 0), (40.0, 2)], opened, causes), "one that was not written does not hide another"


def test_days_are_taken_together() -> None:
    first: Counter[Zone] = Counter({"door": 2})
    second: Counter[Zone] = Counter({"door": 1, "lens": 1})
    whole = Outcome(1, kills=first, lost=["one"])
    whole.add(Outcome(2, kills=second, acknowledged=3, lost=["two"], other=["three"]))
    assert whole.wrong == ["one", "two", "three"]
    assert whole.report().endswith(
        "4 kills (door 3, lens 1, vault 0, admin 0), 3 acknowledged, 2 lost, 0 wrongly opened, 0 left open, "
        "0 badges refused"
    )


def test_an_outcome_comes_back_from_json_as_it_was() -> None:
    kills: Counter[Zone] = Counter({"door": 2})
    outcome = Outcome(1, kills=kills, acknowledged=4, lost=["one"], done=Counter({"enrol": 3}))
    assert Outcome.from_json(outcome.to_json()) == outcome
