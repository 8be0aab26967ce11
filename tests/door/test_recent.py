"""The door's last events: what admin may hear of, in order, and honest about what is gone."""

import secrets

import pytest

from appliance.door import recent as module
from appliance.door.controller import Outcome, Reason
from appliance.door.recent import Recent
from appliance.journal import Event
from appliance.link.events import INSTANCE, AskEvents, DoorEvent, DoorEventKind, EndOfEvents


def ask(recent: Recent, after: int, *, instance: bytes | None = None, limit: int = 100) -> list[DoorEvent]:
    *events, end = recent.answer(AskEvents(instance or recent.instance, after, limit))
    assert isinstance(end, EndOfEvents)
    assert end.instance == recent.instance
    return [event for event in events if isinstance(event, DoorEvent)]


def missed(recent: Recent, after: int, *, instance: bytes | None = None) -> bool:
    end = recent.answer(AskEvents(instance or recent.instance, after, 100))[-1]
    assert isinstance(end, EndOfEvents)
    return bool(end.missed)


def test_a_day_is_told_in_its_order_and_without_identity() -> None:
    recent = Recent()
    recent.add(Event.STARTED, {})
    recent.add(Event.READER_UP, {"reader": 1})
    recent.add(Event.PRESSED, {})
    recent.add(Event.ATTEMPT_ENDED, {"outcome": Outcome.NO_MATCH})
    recent.add(Event.UNLOCKED, {"reason": Reason.BADGE})
    recent.add(Event.LOCKED, {})
    recent.add(Event.ATTEMPT_ENDED, {"outcome": Outcome.MATCH})
    recent.add(Event.UNLOCKED, {"reason": Reason.FACE})
    recent.add(Event.WRONG_PEER, {})
    recent.add(Event.ATTEMPT_ENDED, {"outcome": Outcome.CAPTURED})
    assert [event.kind for event in ask(recent, 0)] == [
        DoorEventKind.STARTED,
        DoorEventKind.READER_UP,
        DoorEventKind.PRESSED,
        DoorEventKind.NOT_RECOGNISED,
        DoorEventKind.UNLOCKED,
        DoorEventKind.LOCKED,
        DoorEventKind.UNLOCKED,
        DoorEventKind.CAPTURED,
    ]
    assert [event.number for event in ask(recent, 5)] == [6, 7, 8]
    assert [event.number for event in ask(recent, 0, limit=2)] == [1, 2]
    assert not missed(recent, 0)


def test_what_newer_events_pushed_out_is_said_to_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    recent = Recent()
    for _ in range(5):
        recent.add(Event.PRESSED, {})
    assert [event.number for event in ask(recent, 0)] == [3, 4, 5]
    assert missed(recent, 1)
    assert not missed(recent, 2)
    assert not missed(recent, 5)


def test_a_door_that_began_anew_tells_all_of_its_new_run_and_says_so() -> None:
    recent = Recent()
    recent.add(Event.STARTED, {})
    before = secrets.token_bytes(INSTANCE)
    assert [event.number for event in ask(recent, 400, instance=before)] == [1]
    assert missed(recent, 400, instance=before)
    assert not missed(recent, 0, instance=bytes(INSTANCE)), "who knows of no run has missed none"


def test_of_passages_the_time_is_told_to_the_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.door.recent.time.time", lambda: 1795593600 + 8 * 60 + 59.5)
    recent = Recent()
    recent.add(Event.UNLOCKED, {"reason": Reason.FACE})
    recent.add(Event.READER_DOWN, {"reader": 1})
    passage, outage = ask(recent, 0)
    assert passage.at == 1795593600
    assert outage.at == 1795593600 + 8 * 60 + 59


def test_the_way_in_is_not_told() -> None:
    recent = Recent()
    for reason in Reason:
        recent.add(Event.UNLOCKED, {"reason": reason})
    assert len({event.kind for event in ask(recent, 0)}) == 1
    recent.add(Event.ATTEMPT_ENDED, {"outcome": Outcome.UNAVAILABLE})
    assert ask(recent, 2)[0].kind is DoorEventKind.NOT_RECOGNISED
