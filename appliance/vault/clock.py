"""What vault knows of the time: the wall clock where it can be trusted, and how long it has lived at least.

A door controller may have no battery behind its clock, and no network: after a power cut the clock says
1970, or what it said months ago. If vault believed that, whoever expired would come back to life. So it
keeps the latest time that it ever trusted, the *mark*, in vault.db, and trusts the wall clock only if

- it is not before the mark, but for five minutes: time servers step a clock back by seconds; and
- it is not far ahead of the mark and of what has passed since: by a day at most while the device has been
  on, by 60 days where it was off in between, since nobody can tell for how long. A wrong date far ahead
  would let everybody expire, and the mark would hold the true time for the past afterwards. If the kernel
  says that the clock is synchronised (adjtimex(2), STA_UNSYNC clear), by 400 days: more than any pause of a
  device in use, and a time server's answers are seldom signed.

What it cannot tell: a clock without a battery that goes on where it stopped, after the device was off for a
while, is late and looks right, until it is synchronised. Who expired meanwhile is not known to have.

Untrusted time is no error. Who has weekly hours uses the badge. Whose validity or record ends after the mark
is recognised as ever, since to lock everybody with an end out after each power cut would harm more: so who
ended while the time was untrusted gets in until it is trusted. Who ended before the mark does not.

The mark is never taken back by itself, nor by a time server. An administrator who looked at the clock can say
that it is right (`confirm`, `drempel trust-clock`): that sets the mark to it, forward or back.

The *age* is a second clock, that nobody can put forward: the seconds that have passed since the first start,
at least, from CLOCK_BOOTTIME alone. Within a boot it goes on through restarts; a later boot adds what passed
since that boot; what passed while the device was off, nobody can prove, and it does not count. It never runs
faster than the true time, so what must last (a year's count of failures, a day before an expired record is
erased) lasts by it. Both are written at most every ten minutes, when vault stops, and when something is
first found to be over (`past`).

From both comes what is *proved*: the time that was confirmed last (at first, the first that was trusted), and
the age that passed since. Every jump ahead that was believed, on the kernel's word or because the device was
off, lets the mark run ahead of that for good. What cannot be undone rests on it (see `expiry`).
"""

import ctypes
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from appliance.errors import DrempelError

DAY = 86_400
BACK = 300
"""Seconds by which the wall clock may be before the mark."""
AHEAD_ON = DAY
"""Seconds by which it may be ahead of what has passed, where the device has been on."""
AHEAD_OFF = 60 * DAY
"""The same where it was off in between."""
AHEAD_SYNCHRONISED = 400 * DAY
"""The same where the kernel says that it is synchronised."""
AHEAD_FIRST = 3650 * DAY
"""Seconds by which the first time of all may be ahead of `EARLIEST`."""
EARLIEST = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp())
"""The mark before the first: no clock is right that is before this program."""
WRITTEN_EVERY = 600
"""Seconds between two writes."""

TABLES = """
CREATE TABLE clock (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    mark INTEGER NOT NULL,
    mark_age INTEGER NOT NULL,
    mark_boot TEXT NOT NULL,
    confirmed INTEGER NOT NULL,
    confirmed_age INTEGER NOT NULL,
    age INTEGER NOT NULL,
    boot TEXT NOT NULL,
    since_boot INTEGER NOT NULL
) STRICT;
"""
"""`mark` in Unix seconds, at age `mark_age` in boot `mark_boot`; `confirmed` likewise; the age, as of
`since_boot` in `boot`."""
_COLUMNS = "mark, mark_age, mark_boot, confirmed, confirmed_age, age, boot, since_boot"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


class NotTheTime(DrempelError, ValueError):
    """The clock was to be confirmed, and cannot be right."""


class Database(Protocol):
    """What this room needs of the store."""

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction, durable at its end or without any effect; errors as StoreError, an OSError."""


def kernel_synchronised() -> bool:
    """Whether the kernel holds its clock for synchronised: adjtimex(2), which with modes 0 only looks."""
    # struct timex is 208 bytes on every 64-bit Linux, less on others: modes is its first int, and status is
    # an int behind modes, offset, freq, maxerror and esterror, which are longs (modes is padded to one).
    timex = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    place = 5 * ctypes.sizeof(ctypes.c_long)
    status = int.from_bytes(timex.raw[place : place + 4], sys.byteorder)
    return state >= 0 and state != _TIME_ERROR and not status & _STA_UNSYNC


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the time comes from; a simulation and the tests give others.

    Attributes:
        wall: Unix seconds.
        since_boot: seconds since this boot, sleep included, that no change of the wall clock moves.
        boot: the id of this boot.
        synchronised: whether the kernel holds the wall clock for synchronised.
    """

    wall: Callable[[], float] = time.time
    since_boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    boot: Callable[[], str] = lambda: _BOOT_ID.read_text(encoding="ascii").strip()
    synchronised: Callable[[], bool] = kernel_synchronised


@dataclass(frozen=True, slots=True)
class _Kept:
    """The row of the table."""

    mark: int
    mark_age: int
    mark_boot: str
    confirmed: int
    confirmed_age: int
    age: int
    boot: str
    since_boot: int


class Clock:
    """The time, for every thread of vault; ask nothing of it within a transaction of the store."""

    def __init__(self, store: Database, sources: Sources | None = None) -> None:
        """Take up what was kept.

        Raises:
            StoreError: the database cannot be read or written.
        """
        self._store = store
        self._sources = sources or Sources()
        self._lock = threading.RLock()
        self.boot = self._sources.boot()
        self._trouble = ""
        self._unwritable = False
        with store.transaction() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM clock").fetchone()  # noqa: S608 - a constant
        # What is in the database; `_now` below is what will be.
        # The age begins with a whole second, so that rounding never puts it ahead.
        first = _Kept(EARLIEST, 0, "", EARLIEST, 0, 0, self.boot, self._since_boot() + 1)
        self._written = _Kept(*row) if row else first
        self._now = self._written

    @property
    def since_boot(self) -> float:
        """Seconds since this boot; see `boot`, its id."""
        return self._sources.since_boot()

    @property
    def age(self) -> int:
        """Seconds that have passed since the first start, at least; in one process never less than before."""
        now, kept = self._since_boot(), self._written
        return kept.age + (max(0, now - kept.since_boot) if kept.boot == self.boot else now)

    @property
    def latest(self) -> int:
        """The latest time, Unix seconds, that was ever trusted: it is not earlier than that now."""
        self.moment()
        return self._now.mark

    @property
    def proved(self) -> int:
        """What the time, Unix seconds, is at least, by what was confirmed and what has passed since."""
        now = self._now
        return now.confirmed + self.age - now.confirmed_age

    def moment(self) -> int | None:
        """The time, Unix seconds; None where the wall clock cannot be trusted.

        It is never earlier than before, but for `confirm`.
        """
        with self._lock:
            wall, age = int(self._sources.wall()), self.age
            trouble = self._trouble_with(wall, age)
            self._tell(trouble)
            if not trouble:
                now, mark = self._now, max(self._now.mark, wall)
                if not now.mark_boot:
                    # The first of all: nobody is enrolled yet whom it could harm.
                    now = replace(now, confirmed=mark, confirmed_age=age)
                self._now = replace(now, mark=mark, mark_age=age, mark_boot=self.boot)
            if age - self._written.age >= WRITTEN_EVERY:
                self._try_to_keep()
            return None if trouble else self._now.mark

    def past(self, moment: int) -> bool:
        """Whether a time, Unix seconds, is over; once it was said to be, only `confirm` takes it back.

        Raises:
            StoreError: it is over, but that cannot be kept, and might be forgotten.
        """
        if moment > self.latest:
            return False
        if moment > self._written.mark:
            self.keep()
        return True

    def keep(self) -> None:
        """Write mark and age down now, such as when vault stops.

        Raises:
            StoreError: the database cannot be written.
        """
        with self._lock:
            self._write(self._now)

    def confirm(self) -> int:
        """Take the wall clock for right, forward or back: an administrator looked at it.

        What was noted of records that are over begins anew (see `expiry`), so that none is erased because of
        the time before.

        Returns:
            The time, Unix seconds, that is trusted now; durably.

        Raises:
            NotTheTime: the wall clock is before this program; nothing changed.
            StoreError: the database cannot be written; nothing changed.
        """
        with self._lock:
            wall, age = int(self._sources.wall()), self.age
            if wall < EARLIEST:
                raise NotTheTime(
                    f"the clock says {_words(wall)}, which cannot be: set it first (timedatectl)"
                )
            right = replace(
                self._now,
                mark=wall,
                mark_age=age,
                mark_boot=self.boot,
                confirmed=wall,
                confirmed_age=age,
            )
            self._write(right, "UPDATE record SET over_since = NULL WHERE over_since IS NOT NULL")
            self._tell("")
            return wall

    def _write(self, state: _Kept, *also: str) -> None:
        kept = replace(state, age=self.age, boot=self.boot, since_boot=self._since_boot())
        with self._store.transaction() as db:
            db.execute(
                f"INSERT OR REPLACE INTO clock (only_row, {_COLUMNS}) "  # noqa: S608 - a constant
                "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
                astuple(kept),
            )
            for statement in also:
                db.execute(statement)
        self._written = self._now = kept

    def _since_boot(self) -> int:
        return int(self._sources.since_boot())

    def _trouble_with(self, wall: int, age: int) -> str:
        """Why the wall clock cannot be trusted; empty where it can."""
        kept = self._now
        if wall < kept.mark - BACK:
            return f"is before {_words(kept.mark)}, which has been already"
        ahead = wall - (kept.mark + age - kept.mark_age)
        allowed = AHEAD_ON if kept.mark_boot == self.boot else AHEAD_OFF if kept.mark_boot else AHEAD_FIRST
        if ahead > allowed and self._sources.synchronised():
            allowed = max(allowed, AHEAD_SYNCHRONISED)
        return "" if ahead <= allowed else f"is {ahead // DAY} days ahead of what it should be"

    def _tell(self, trouble: str) -> None:
        """Say once that the time is untrusted, and once that it is trusted again."""
        if trouble and not self._trouble:
            print(
                f"drempel vault: the clock {trouble}; until it is trusted, who has weekly hours uses the "
                f"badge, and who ended since {_words(self._now.mark)} gets in: set it, let it synchronise "
                "(timedatectl), or, if it is right, run drempel trust-clock",
                file=sys.stderr,
            )
        elif self._trouble and not trouble:
            print("drempel vault: the clock is trusted again", file=sys.stderr)
        self._trouble = trouble

    def _try_to_keep(self) -> None:
        """Write, and go on where that fails: the time is known, and whatever rests on it writes by itself."""
        try:
            self.keep()
        except OSError as error:
            if not self._unwritable:
                print(f"drempel vault: the time cannot be kept: {error}", file=sys.stderr)
            self._unwritable = True
        else:
            self._unwritable = False


def _words(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
