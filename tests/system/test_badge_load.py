"""No card is missed while recognition runs, hangs and crashes; `pytest -s` shows the times.

The thousand cards are `scripts/badge-under-load`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from appliance.link.messages import DoorMode, DoorState
from appliance.simulation.board import BoardError, Change
from tests.system.badge_load import CONDITIONS, Cards, Row, measure, plan, table
from tests.system.house import House, open_house


@pytest.mark.models
@pytest.mark.parametrize(
    "cards",
    [
        pytest.param(10, marks=pytest.mark.timeout(180)),
        pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
    ],
)
def test_every_card_opens_whatever_recognition_does(
    cards: int, test_models: Path, portrait_paths: dict[str, Path]
) -> None:
    with open_house(test_models, portrait_paths, plan(test_models)) as house:
        house.enrol()
        rows = [measure(house, condition, cards, 1, lambda _: None) for condition in CONDITIONS]
    print(f"\n{table(rows)}", file=sys.stderr)
    for row in rows:
        assert row.cards == cards
        assert row.ok, table([row])
    assert all(row.presses and row.looks for row in rows[1:]), "there was load"
    assert next(row for row in rows if row.condition == "runs").embedded > 0, "faces were embedded"
    assert all(row.disturbances for row in rows[2:]), "and trouble"


def test_a_missed_card_a_rise_without_reason_and_a_door_left_open_are_told() -> None:
    assert Row("idle", cards=3).ok
    assert Row("idle", cards=3, starved=1, untimed=1).ok
    assert not Row("idle", cards=200, starved=2, untimed=1).ok, "so many prove nothing"
    assert Row("idle", cards=1000, starved=5, untimed=5).ok
    for row in (Row("runs", missed=1), Row("runs", unexplained=1), Row("runs", left_open=1)):
        assert not row.ok
    assert "2 RISES WITHOUT A REASON" in table([Row("hangs", unexplained=2)])


AT = 100.0
RELAY = 22


class Told:
    """A board and a reader of which the history is made up."""

    def __init__(self, changes: Iterable[tuple[float, int]], stalls: Iterable[float]) -> None:
        self._changes = [Change(at, RELAY, state, released=False) for at, state in changes]
        self._stalls = stalls

    def state(self, _pin: int) -> int:
        return 0

    def history(self, _pin: int) -> list[Change]:
        return self._changes

    def wait_for(self, _pin: int, state: int, _timeout: float, since: float) -> Change:
        for change in self._changes:
            if change.state == state and change.at >= since:
                return change
        raise BoardError("it did not")

    def stalled(self, since: float, until: float) -> bool:
        return any(since <= at <= until for at in self._stalls)


def held_up(
    monkeypatch: pytest.MonkeyPatch,
    counts: Iterable[tuple[int, int]],
    changes: Iterable[tuple[float, int]] = (),
    stalls: Iterable[float] = (),
    cards: Iterable[float] = (AT,),
) -> tuple[Row, Cards]:
    """What came of one card; `counts` are door's, of badges and faces, before and after each holding up."""
    told, times = Told(changes, stalls), iter(cards)
    settings = SimpleNamespace(socket=lambda _: None)
    door = SimpleNamespace(board=told, reader=told, settings=settings)
    house = cast("House", SimpleNamespace(relay=RELAY, door=door, badge=lambda: next(times)))
    states = iter([DoorState(DoorMode.LOCKED, 1, 1, 1, 1, badges, faces) for badges, faces in counts])
    row = Row("runs")
    holder = Cards(house, row, print)
    monkeypatch.setattr(holder, "_ask", lambda: next(states))
    monkeypatch.setattr(holder, "_tell_of", lambda _: None)
    holder.hold_up()
    return row, holder


def test_a_card_that_door_counted_and_whose_relay_did_not_rise_was_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert held_up(monkeypatch, [(0, 0), (1, 0)])[0].missed == 1
    assert held_up(monkeypatch, [(0, 0), (1, 1)])[0].missed == 1, "a face was counted, and nothing moved"


def test_a_card_that_came_while_the_door_was_open_for_a_face_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row, holder = held_up(monkeypatch, [(0, 0), (1, 1)], [(AT - 0.01, 1), (AT + 0.5, 0)])
    assert (row.missed, row.untimed, holder.times) == (0, 1, [])


def test_a_face_that_was_counted_before_the_card_and_whose_rise_came_after_is_no_missed_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row, holder = held_up(monkeypatch, [(0, 1), (1, 1)], [(AT - 0.001, 1), (AT + 0.535, 0)])
    assert (row.missed, row.untimed, holder.times) == (0, 1, [])


def test_only_a_reader_that_stood_still_when_the_card_came_excuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row, _ = held_up(monkeypatch, [(0, 0), (0, 0)], stalls=[AT + 2])
    assert (row.missed, row.starved) == (1, 0)


def test_a_card_that_is_held_up_again_is_timed_from_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [(AT + 6.5, 1), (AT + 7, 0)]
    row, holder = held_up(monkeypatch, [(0, 0), (0, 0), (0, 0), (1, 0)], [*changes], [AT + 0.1], [AT, AT + 6])
    # The first wait has the rise of the second in its made-up history; door's count tells them apart.
    assert (row.missed, row.starved, holder.times) == (0, 1, [6.5])
