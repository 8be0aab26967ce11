"""What happened at the door, as admin may hear of it: kinds and moments, and nobody's name or number.

Admin asks for what came after the last event it knows. Door keeps the last few hundred in memory, numbered
from its start; another instance means that door began anew, and its numbers with it.
"""

import enum
from dataclasses import dataclass

from appliance.link.framing import Message
from appliance.link.sockets import Malformed

INSTANCE = 8
"""Bytes that tell one run of door from the next."""
MOST_EVENTS = 100
"""Events in one answer."""


class DoorEventKind(enum.IntEnum):
    """What can happen. A passage is counted without identity: not even a badge's id is said."""

    STARTED = 0x01
    PRESSED = 0x02
    NOT_RECOGNISED = 0x03
    """An attempt ended without a match, for whatever reason, or a press where recognition is off."""
    CAPTURED = 0x04
    """A press in an enrolment window."""
    UNLOCKED = 0x05
    """By whichever of the two ways: with few people enrolled, the way would be a name."""
    LOCKED = 0x07
    BADGE_REFUSED = 0x08
    BADGE_ADDED = 0x09
    BADGE_REMOVED = 0x0A
    READER_UP = 0x0B
    READER_DOWN = 0x0C
    FAILED = 0x0D
    """Something at the door does not work as it should: see its journal."""


@dataclass(frozen=True, slots=True)
class AskEvents(Message):
    """What came after number `after` of the run `instance`; at most `limit` events."""

    instance: bytes
    after: int
    limit: int
    TYPE = 0x44
    LAYOUT = f"!{INSTANCE}sIB"

    def __post_init__(self) -> None:
        if len(self.instance) != INSTANCE or not 1 <= self.limit <= MOST_EVENTS:
            raise Malformed(f"{INSTANCE} bytes, and 1 to {MOST_EVENTS} events")


@dataclass(frozen=True, slots=True)
class DoorEvent(Message):
    """One event: its number in this run (from 1), what it was, and when (seconds since 1970, UTC).

    Of what people do the time is told to the quarter of an hour: passages are counted, not followed.
    """

    number: int
    kind: DoorEventKind
    at: int
    TYPE = 0x54
    LAYOUT = "!IBI"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", DoorEventKind(self.kind))


@dataclass(frozen=True, slots=True)
class EndOfEvents(Message):
    """The end of the answer: which run this is, and whether events were missed that nobody keeps any more."""

    instance: bytes
    missed: int
    TYPE = 0x55
    LAYOUT = f"!{INSTANCE}sB"

    def __post_init__(self) -> None:
        if len(self.instance) != INSTANCE or self.missed not in {0, 1}:
            raise Malformed(f"{INSTANCE} bytes, and a flag of 0 or 1")
