"""How often a claim may be tried: the limits on guessing of design §3. They bind recognition, never badges.

- *Waits*. Three failures in a row are free; after the third 30 s pass before the next attempt, doubling with
  every further failure to 15 min. A success ends the wait.
- *The year's budget*. An attempt by somebody else passes with the attempt's FMR, so of n attempts one passes
  with n FMR at most (union bound). With risk / FMR of them in a year, the chance that somebody guesses past
  a claim stays below the risk, as a mean over claims (as sure as the measured FMR is). Failures are counted,
  a success never takes one back, and when the budget is spent the claim is refused until the person is
  enrolled anew.

Why nobody gets more than that:

- An attempt is *charged*, durably, before its first comparison: pulling the plug uncounts nothing, and on a
  full disk nothing is compared. It is refunded if it matched, or if no face came to be compared.
- A wait runs on CLOCK_BOOTTIME, which no change of the clock moves. After a reboot it begins anew in full,
  from the boot on: what passed before cannot be proved.
- A *wrong PIN* makes waits like every failure, but takes nothing from the year. It compares no face, so it is
  no attempt that could pass; who guesses at a face needs the right PIN first, and each of those attempts
  counts. Else 75 wrong PINs, which take a day, would lock a person out for good.
- The year goes by the clock's age (see `clock`), which never runs faster than the true time. It is cut into
  thirteen periods of 28 days and 2 hours; the current one and the thirteen before it count. So a failure
  counts for 365 days at least, and for 394 at most if the device is never off.

Whose claim it is stands nowhere: a row's key is HMAC-SHA256(index key, "claim" ‖ handle). A claim that is
unknown, or whose secret is wrong, compares no face, so there is nothing to limit; it goes through the same
statements and as many writes, but under a key of its own and into at most 256 rows, of which the longest
unused goes first. So nobody makes another person wait without that person's token or card. In tier 3 it takes
only the number: who knows it can make its owner wait by wrong PINs, up to 15 min each time, and no longer.
"""

import hmac
import math
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.errors import ConfigurationError
from appliance.vault.clock import Clock, Database

FREE_FAILURES = 3
FIRST_WAIT = 30
LONGEST_WAIT = 900
"""Seconds."""
PERIOD = 28 * 86_400 + 2 * 3_600
"""Seconds of a thirteenth of the year, rounded up: 13 of them are 365 days and 2 hours."""
PERIODS = 13
STRANGERS = 256
"""Rows of claims that are none."""

TABLES = """
CREATE TABLE failure (
    claim BLOB NOT NULL CHECK (length(claim) = 32),
    period INTEGER NOT NULL,
    count INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (claim, period)
) WITHOUT ROWID, STRICT;
CREATE TABLE wait (
    claim BLOB PRIMARY KEY CHECK (length(claim) = 32),
    failures INTEGER NOT NULL,
    boot TEXT NOT NULL,
    since_boot INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    stranger INTEGER NOT NULL,
    turn INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX wait_by_turn ON wait (stranger, turn);
"""
"""`failures` in a row, the last charged `since_boot` ms in `boot`; `spent`: the budget was; `turn`: a counter
of charges, so that there is something to write in both tables each time (SQLite leaves a page that would stay
as it is), and that the longest unused stranger is known."""

_OUTLASTED = f"SELECT claim FROM wait WHERE stranger = 1 ORDER BY turn DESC LIMIT -1 OFFSET {STRANGERS}"  # noqa: S608


def budget_of(risk: float, fmr: float) -> int:
    """How many failures in a year a claim may have.

    Args:
        risk: with which somebody may guess past a claim in a year, above 0 and below 1.
        fmr: false match rate of a whole attempt, above 0 and below 1.

    Raises:
        ConfigurationError: not even one attempt stays below the risk.
    """
    # A quotient such as 0.01 / 1e-5 must not lose its last attempt to rounding.
    budget = math.floor(risk / fmr * (1 + 1e-9))
    if budget < 1:
        raise ConfigurationError(
            f"one attempt at an FMR of {fmr:g} passes a guessing_risk of {risk:g}: choose a lower fmr"
        )
    return budget


def claim_key(index_key: bytes | bytearray, handle: bytes) -> bytes:
    """The key (32 bytes) of a handle's rows in `failure` and `wait`."""
    return hmac.digest(index_key, b"claim" + handle, "sha256")


def forget(db: sqlite3.Connection, index_key: bytes | bytearray, handles: Iterable[bytes]) -> None:
    """Remove what is counted of erased records, within the transaction that erases them."""
    keys = [(claim_key(index_key, handle),) for handle in handles]
    db.executemany("DELETE FROM failure WHERE claim = ?", keys)
    db.executemany("DELETE FROM wait WHERE claim = ?", keys)


def wait_after(failures: int) -> int:
    """Seconds to wait after so many failures in a row."""
    if failures < FREE_FAILURES:
        return 0
    return min(FIRST_WAIT << min(failures - FREE_FAILURES, 10), LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of a claim."""

    failures: int = 0
    boot: str = ""
    since_boot: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class _Charge:
    """The last charge, and the state before it."""

    key: bytes
    period: int
    before: _State


class Limits:
    """The limits of all claims; for one attempt at a time, and for every thread."""

    def __init__(self, store: Database, index_key: bytes | bytearray, clock: Clock, budget: int) -> None:
        """Begin, with what the tables hold.

        Args:
            store: with `TABLES`.
            index_key: 32 secret bytes; looked at, and wiped by whoever owns it.
            clock: of the same store.
            budget: failures in a year, see `budget_of`.
        """
        self._store = store
        self._index_key = index_key
        self._clock = clock
        self._budget = budget
        self._lock = threading.Lock()
        self._charged: _Charge | None = None
        with store.transaction() as db:
            (self._turn,) = db.execute("SELECT coalesce(max(turn), 0) FROM wait").fetchone()

    def may_try(self, handle: bytes) -> bool:
        """Whether a claim may be tried now; only a look, `charge` decides.

        Raises:
            StoreError: the database cannot be read.
        """
        key, now, period = claim_key(self._index_key, handle), self._milliseconds(), self._period()
        with self._store.transaction() as db:
            return self._allowed(*_read(db, key, period), now)

    def charge(self, handle: bytes, *, known: bool = True, counted: bool = True) -> bool:
        """Count an attempt as failed, durably, before its first comparison.

        What is not counted of the year was no attempt at a face, so it cannot be taken back either.

        Args:
            handle: of the claim.
            known: there is such a record, and its secret was right. Else nothing is to be compared, whatever
                the answer; the work is the same.
            counted: whether it takes from the year's budget; a wrong PIN, which compares no face, does not.

        Returns:
            Whether the claim may be tried. If not, nothing was counted.

        Raises:
            StoreError: it could not be counted: compare nothing.
        """
        key = (
            claim_key(self._index_key, handle)
            if known
            else hmac.digest(self._index_key, b"stranger" + handle, "sha256")
        )
        now, period = self._milliseconds(), self._period()
        with self._lock:
            with self._store.transaction() as db:
                state, failed = _read(db, key, period)
                allowed = self._allowed(state, failed, now)
                # Of a stranger one period is enough, so that 256 rows are 256 rows.
                db.execute(
                    "DELETE FROM failure WHERE claim = ? AND period < ?",
                    (key, period - PERIODS if known else period),
                )
                db.execute(
                    "INSERT INTO failure (claim, period, count, turn) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET count = count + excluded.count, turn = excluded.turn",
                    (key, period, int(allowed and counted), self._turn + 1),
                )
                after = _State(
                    failures=state.failures + 1,
                    boot=self._clock.boot,
                    since_boot=now,
                    spent=int(failed + counted >= self._budget),
                )
                self._write(db, key, after if allowed else state, stranger=not known)
                db.execute(f"DELETE FROM failure WHERE claim IN ({_OUTLASTED})")  # noqa: S608 - a constant
                db.execute(f"DELETE FROM wait WHERE claim IN ({_OUTLASTED})")  # noqa: S608 - a constant
            self._charged = _Charge(key, period, state) if allowed and known and counted else None
        return allowed

    def refund(self, handle: bytes) -> None:
        """Take the last charge back, since no face was compared: all is as if it had not been.

        Whatever was not charged last is not refunded.

        Raises:
            StoreError: it could not be; the charge stands.
        """
        self._take_back(handle, succeeded=False)

    def succeeded(self, handle: bytes) -> None:
        """Take the last charge back, since it matched, and end the wait; the year's failures stay.

        Raises:
            StoreError: it could not be; the charge stands.
        """
        self._take_back(handle, succeeded=True)

    def _take_back(self, handle: bytes, *, succeeded: bool) -> None:
        key = claim_key(self._index_key, handle)
        with self._lock:
            charged, self._charged = self._charged, None
            if charged is None or charged.key != key:
                return
            before = _State(spent=charged.before.spent) if succeeded else charged.before
            with self._store.transaction() as db:
                db.execute(
                    "UPDATE failure SET count = count - 1 WHERE claim = ? AND period = ? AND count > 0",
                    (key, charged.period),
                )
                # Only where there is a row: an erasure may have removed it since, and it must not come back.
                self._turn += 1
                db.execute(
                    "UPDATE wait SET failures = ?, boot = ?, since_boot = ?, spent = ?, turn = ? "
                    "WHERE claim = ?",
                    (before.failures, before.boot, before.since_boot, before.spent, self._turn, key),
                )

    def _write(self, db: sqlite3.Connection, key: bytes, state: _State, *, stranger: bool) -> None:
        self._turn += 1
        db.execute(
            "INSERT OR REPLACE INTO wait (claim, failures, boot, since_boot, spent, stranger, turn) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, state.failures, state.boot, state.since_boot, state.spent, int(stranger), self._turn),
        )

    def _allowed(self, state: _State, failed: int, now: int) -> bool:
        if state.spent or failed >= self._budget:
            return False
        # Of another boot all that is known is that it was before this one.
        passed = now - state.since_boot if state.boot == self._clock.boot else now
        return passed >= 1000 * wait_after(state.failures)

    def _milliseconds(self) -> int:
        return int(1000 * self._clock.since_boot)

    def _period(self) -> int:
        return self._clock.age // PERIOD


def _read(db: sqlite3.Connection, key: bytes, period: int) -> tuple[_State, int]:
    """The state of a claim, and its failures in the last thirteen periods and this one."""
    row = db.execute("SELECT failures, boot, since_boot, spent FROM wait WHERE claim = ?", (key,)).fetchone()
    (failed,) = db.execute(
        "SELECT coalesce(sum(count), 0) FROM failure WHERE claim = ? AND period >= ?", (key, period - PERIODS)
    ).fetchone()
    return _State(*row) if row else _State(), failed
