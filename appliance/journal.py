"""The journal: what a zone did, line by line, each bound to the one before it.

One file per zone, one line of JSON per event. Each line carries the SHA-256 of the line before it, so
that `verify` finds a line that was altered, removed or re-ordered while lines after it were kept. There is
no key in it: to alter the last line, to cut the tail or to write the whole chain anew takes no more than
write access, and nobody finds it who did not note a head (`Head`) elsewhere before. With one, `verify`
finds whatever was done to the lines up to it.

A zone's events are a closed enumeration, and their details are numbers and closed words: a name, a secret,
a template or a picture has no way in. What strangers can bring about is written once a minute at most.
"""

import contextlib
import enum
import hashlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import DrempelError

GENESIS = "0" * 64
"""What the first line names as the hash before it."""
MAX_LINE = 1024
"""Bytes; a longer line is none of ours."""
STRANGERS_TIME = 60.0
"""Seconds between two lines of one event that strangers can bring about, see `Tally`."""


class JournalError(DrempelError, OSError):
    """The journal cannot be written or read; the zone goes on and says so."""


class JournalBroken(DrempelError, ValueError):
    """A line does not follow from the one before it, or a head that was noted is not on the chain."""


class Event(enum.StrEnum):
    """Everything that is ever written down. Who it was is not among it."""

    STARTED = "started"
    STOPPED = "stopped"
    FAILED = "failed"
    TORN_LINE_REMOVED = "torn line removed"
    WRONG_PEER = "wrong peer"
    HOSTILE_MESSAGE = "hostile message"
    LINES_LOST = "lines lost"
    # door
    PRESSED = "pressed"
    ATTEMPT_ENDED = "attempt ended"
    UNLOCKED = "unlocked"
    LOCKED = "locked"
    BADGE_REFUSED = "badge refused"
    BADGE_ADDED = "badge added"
    BADGE_REMOVED = "badge removed"
    READER_UP = "reader up"
    READER_DOWN = "reader down"
    # lens
    CAMERA_OPENED = "camera opened"
    CAMERA_CLOSED = "camera closed"
    # vault
    WINDOW_OPENED = "window opened"
    WINDOW_CLOSED = "window closed"
    ENROLLED = "enrolled"
    ERASED = "erased"
    EXPIRED = "expired"
    KEYS_ROTATED = "keys rotated"
    CLOCK_TRUSTED = "clock trusted"
    DECOMMISSIONED = "decommissioned"
    # admin
    PERSON_ADDED = "person added"
    CONSENT_GIVEN = "consent given"
    CONSENT_WITHDRAWN = "consent withdrawn"
    PERSON_ERASED = "person erased"
    TOKEN_GIVEN = "token given"  # noqa: S105 - the name of an event
    ACCOUNT_ADDED = "account added"
    ACCOUNT_REVOKED = "account revoked"
    RESTORED = "restored"
    WRONG_TOKEN = "wrong token"  # noqa: S105 - the name of an event


STRANGERS = frozenset({Event.WRONG_PEER, Event.HOSTILE_MESSAGE, Event.WRONG_TOKEN})
"""What another user of this machine, or another zone gone bad, brings about as often as it likes."""


Detail = int | float | bool | enum.Enum
"""A number, a flag or a word of a closed enumeration: free text has no way into the journal."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a journal stands: the number of lines, and the hash of the last."""

    lines: int
    digest: str


class Tally:
    """Counts the events of strangers, and says when it is time for a line with the number of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[Event, int] = {}
        self._last: dict[Event, float] = {}

    def add(self, event: Event) -> int:
        """One more of `event`: how many there were since its last line, or 0 where no line is due yet."""
        with self._lock:
            self._since[event] = self._since.get(event, 0) + 1
            now = time.monotonic()
            if event in self._last and now - self._last[event] < STRANGERS_TIME:
                return 0
            self._last[event] = now
            return self._since.pop(event)

    def rest(self) -> dict[Event, int]:
        """What was counted and is in no line yet; it is counted from nought afterwards."""
        with self._lock:
            since, self._since = self._since, {}
            return since


class Journal:
    """A zone's journal, open for appending; safe to use from several threads."""

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        """Open or begin the journal at `path`.

        A last line that a power cut tore is removed, and its removal is written down.

        Args:
            path: the file; its folder must exist.
            sync: whether each line is on the disk before `write` returns.

        Raises:
            JournalError: it cannot be opened.
            JournalBroken: its last whole line is no line of a journal.
        """
        self._lock = threading.Lock()
        self._sync = sync
        self._strangers = Tally()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            torn = self._remove_torn_line()
            self.head = self._find_head()
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be opened: {error.strerror or error}") from error
        if torn:
            self.write(Event.TORN_LINE_REMOVED, bytes=torn)

    def write(self, event: Event, /, **details: Detail) -> None:
        """Append one event with its details.

        Raises:
            JournalError: the disk is full or gone. Nothing half-written stays behind.
            TypeError: a detail is text: only numbers, flags and enumerations may be written.
        """
        entry: dict[str, Any] = {}
        for key, value in details.items():
            if isinstance(value, enum.Enum):
                entry[key] = value.name.lower()
            elif isinstance(value, bool | int | float):
                entry[key] = value
            else:
                raise TypeError(f"the journal takes numbers and enumerations, no {type(value).__name__}")
        with self._lock:
            line = _line(self.head, event.value, entry)
            size = None
            try:
                size = os.fstat(self._file).st_size
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(28, "the disk is full")
                if self._sync:
                    os.fdatasync(self._file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    if size is not None:
                        os.ftruncate(self._file, size)
                raise JournalError(f"the journal cannot be written: {error.strerror or error}") from error
            self.head = Head(self.head.lines + 1, hashlib.sha256(line).hexdigest())

    def note(self, event: Event, /, **details: Detail) -> None:
        """As `write`, for acts that a full disk must not stop: it is said on standard error instead.

        An event of strangers becomes one line a minute at most, with `count`, the number of them since its
        last line.
        """
        if event in STRANGERS:
            count = self._strangers.add(event)
            if not count:
                return
            details["count"] = count
        try:
            self.write(event, **details)
        except JournalError as error:
            print(f"{event.value}: {error}", file=sys.stderr)

    def close(self) -> None:
        """Write what was counted and is in no line yet, and close the file; a second time does nothing."""
        for event, count in self._strangers.rest().items():
            with contextlib.suppress(JournalError):
                self.write(event, count=count)
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _remove_torn_line(self) -> int:
        torn = 0
        # More than once where a power cut left a long tail of zeros.
        while size := os.fstat(self._file).st_size:
            tail = os.pread(self._file, MAX_LINE, max(0, size - MAX_LINE))
            part = len(tail) - (tail.rfind(b"\n") + 1)
            if not part:
                break
            os.ftruncate(self._file, size - part)
            torn += part
        return torn

    def _find_head(self) -> Head:
        size = os.fstat(self._file).st_size
        if size == 0:
            return Head(0, GENESIS)
        tail = os.pread(self._file, 2 * MAX_LINE, max(0, size - 2 * MAX_LINE))
        last = tail[tail.rfind(b"\n", 0, len(tail) - 1) + 1 :]
        try:
            number = json.loads(last)["n"]
            if not isinstance(number, int):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            raise JournalBroken(
                "the last line of the journal is no journal line: keep the file for inquiry, "
                "move it away, and start again"
            ) from error
        return Head(number, hashlib.sha256(last).hexdigest())


def verify(path: Path, head: Head | None = None) -> Head:
    """Read the journal at `path` from its first line to its last, and give where it stands.

    Args:
        path: the file.
        head: where it stood before, as noted elsewhere. Without one, an altered last line, a cut tail and a
            chain that was written anew from its first line are not found.

    Raises:
        JournalBroken: a line was altered, removed or re-ordered, and the message gives its number; or the
            journal never stood at `head`.
        JournalError: the file cannot be read.
    """
    noted = head
    head = Head(0, GENESIS)
    passed = noted in {None, head}
    try:
        with path.open("rb") as file:
            for line in file:
                expected = head.lines + 1
                try:
                    entry = json.loads(line)
                    sound = line.endswith(b"\n") and entry["n"] == expected and entry["before"] == head.digest
                except (ValueError, KeyError, TypeError):
                    sound = False
                if not sound:
                    raise JournalBroken(f"{path}: line {expected} does not follow from the line before it")
                head = Head(expected, hashlib.sha256(line).hexdigest())
                passed = passed or head == noted
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be read: {error.strerror or error}") from error
    if noted is not None and not passed:
        raise JournalBroken(
            f"{path}: of its {head.lines} lines none leads to the head that was noted at line {noted.lines}: "
            "its tail was cut, its last line altered, or all of it written anew"
        )
    return head


def _line(head: Head, event: str, details: dict[str, Any]) -> bytes:
    entry = {
        "n": head.lines + 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": event,
        **({"details": details} if details else {}),
        "before": head.digest,
    }
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
