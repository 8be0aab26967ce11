"""The last events of this door, in memory, for admin to ask about: see `appliance.link.events`."""

import secrets
import threading
import time
from collections import deque

from appliance.journal import Detail, Event
from appliance.link.events import INSTANCE, AskEvents, DoorEvent, DoorEventKind, EndOfEvents

KEPT = 500
"""Events that are kept: a busy hour."""
MAX_NUMBER = 2**32 - 1

_KINDS = {
    Event.STARTED: DoorEventKind.STARTED,
    Event.PRESSED: DoorEventKind.PRESSED,
    Event.UNLOCKED: DoorEventKind.UNLOCKED,
    Event.LOCKED: DoorEventKind.LOCKED,
    Event.BADGE_REFUSED: DoorEventKind.BADGE_REFUSED,
    Event.BADGE_ADDED: DoorEventKind.BADGE_ADDED,
    Event.BADGE_REMOVED: DoorEventKind.BADGE_REMOVED,
    Event.READER_UP: DoorEventKind.READER_UP,
    Event.READER_DOWN: DoorEventKind.READER_DOWN,
    Event.FAILED: DoorEventKind.FAILED,
}
_ENDED = {
    "NO_MATCH": DoorEventKind.NOT_RECOGNISED,
    "UNAVAILABLE": DoorEventKind.NOT_RECOGNISED,
    "CAPTURED": DoorEventKind.CAPTURED,
}


_PASSAGES = {
    DoorEventKind.PRESSED,
    DoorEventKind.NOT_RECOGNISED,
    DoorEventKind.CAPTURED,
    DoorEventKind.UNLOCKED,
    DoorEventKind.LOCKED,
    DoorEventKind.BADGE_REFUSED,
}
"""What people do at the door."""
QUARTER = 15 * 60
"""Seconds to which the time of a passage is told."""


class Recent:
    """The last `KEPT` events; safe to use from several threads, and nothing here blocks."""

    def __init__(self) -> None:
        self.instance = secrets.token_bytes(INSTANCE)
        self._lock = threading.Lock()
        self._number = 0
        self._events: deque[DoorEvent] = deque(maxlen=KEPT)

    def add(self, event: Event, details: dict[str, Detail]) -> None:
        """Keep an event of the journal, where it is one that admin may hear of."""
        kind = _kind(event, details)
        if kind is None:
            return
        with self._lock:
            self._number = min(self._number + 1, MAX_NUMBER)
            self._events.append(DoorEvent(self._number, kind, _moment(kind)))

    def answer(self, asked: AskEvents) -> list[DoorEvent | EndOfEvents]:
        """The events that were asked for, the oldest first, and the end."""
        with self._lock:
            kept = list(self._events)
        after = asked.after if asked.instance == self.instance else 0
        first = kept[0].number if kept else 1
        # Another run's events are gone, however many there were; so are those that newer ones pushed out.
        began_anew = asked.instance not in {self.instance, bytes(INSTANCE)}
        missed = began_anew or (asked.instance == self.instance and after + 1 < first)
        found = [event for event in kept if event.number > after][: asked.limit]
        return [*found, EndOfEvents(self.instance, int(missed))]


def _kind(event: Event, details: dict[str, Detail]) -> DoorEventKind | None:
    if event is Event.ATTEMPT_ENDED:
        # A match is told by the unlocking, and so is the badge that overtook an attempt.
        return _ENDED.get(getattr(details.get("outcome"), "name", ""))
    return _KINDS.get(event)


def _moment(kind: DoorEventKind) -> int:
    now = min(int(time.time()), MAX_NUMBER)
    return now - now % QUARTER if kind in _PASSAGES else now
