"""Calls that may be made again: an idempotency key names what the first of them made.

The key is written down in the transaction that makes the thing, so that after a crash the same call either
finds what it made or makes it now, and never makes it twice. Of the call nothing else is kept: what is asked
the second time is compared with the thing itself.
"""

import enum
import hashlib
import sqlite3
import time
from dataclasses import dataclass

from appliance.admin.registry.database import Registry
from appliance.errors import DrempelError

KEPT = 24 * 3600
"""Seconds after which a key is forgotten."""


class Kind(enum.StrEnum):
    """What a call makes."""

    PERSON = "person"
    CONSENT = "consent"
    BADGE = "badge"
    ENROLMENT = "enrolment"


class KeyReused(DrempelError, ValueError):
    """The key belongs to another call."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another call: choose a new one for each new call")


class NotAgain(DrempelError, ValueError):
    """A call with this key is being served at this moment, or what it made was removed since."""


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key of one account (0 for whom the kernel vouches), for what it makes."""

    account: int
    key: str
    kind: Kind

    def made(self, db: sqlite3.Connection) -> str | None:
        """The id of what a call with this key made, within a transaction; None where there was none.

        Raises:
            KeyReused: it made something of another kind.
            NotAgain: whom it was made for was erased since.
        """
        row = db.execute(
            "SELECT kind, resource, person FROM made WHERE account = ? AND key = ? AND made_at > ?",
            (self.account, self._digest, _now() - KEPT),
        ).fetchone()
        if row is None:
            return None
        kind, resource, person = row
        if kind != self.kind:
            raise KeyReused
        if person is None:
            raise NotAgain("what this call made was erased since: use a new Idempotency-Key to make it again")
        return str(resource)

    def remember(self, db: sqlite3.Connection, resource: str, person: str) -> None:
        """Write down what is being made, within the transaction that makes it."""
        db.execute(
            "INSERT OR REPLACE INTO made (account, key, kind, resource, person, made_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (self.account, self._digest, self.kind.value, resource, person, _now()),
        )

    @property
    def _digest(self) -> bytes:
        """What is written down of the key, which its maker may have made of a name."""
        return hashlib.sha256(self.key.encode()).digest()


def forget_old(registry: Registry) -> None:
    """Forget the keys whose day is over."""
    with registry.transaction() as db:
        db.execute("DELETE FROM made WHERE made_at <= ?", (_now() - KEPT,))


def _now() -> int:
    return int(time.time())
