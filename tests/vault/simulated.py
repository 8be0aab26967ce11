"""A disk that fills up, records with an end, and a device on both."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.evaluation.guessing_simulation import Memory, SimulatedTime
from appliance.vault.clock import Clock
from appliance.vault.limits import Limits
from appliance.vault.store import StoreError

INDEX_KEY = bytes(range(32))

RECORDS = """
CREATE TABLE record (
    handle BLOB PRIMARY KEY, rights BLOB NULL, expires_at INTEGER NULL, over_since INTEGER NULL
) WITHOUT ROWID, STRICT;
"""


class Disk(Memory):
    """A database in memory whose disk may be full: then nothing that was to be written is there."""

    def __init__(self) -> None:
        super().__init__()
        self._db.executescript(RECORDS)
        self.full = False
        self.statements: list[str] = []

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        before = self._db.total_changes
        try:
            with super().transaction() as db:
                yield db
                if self.full and db.total_changes != before:
                    raise sqlite3.OperationalError("database or disk is full")
        except sqlite3.Error as error:
            raise StoreError(f"vault.db cannot be written: {error}") from error

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Nothing can be written meanwhile."""
        self.full = True
        try:
            yield
        finally:
            self.full = False

    def trace(self) -> None:
        """Write down every statement from now on."""
        self._db.set_trace_callback(self.statements.append)

    def all(self, statement: str) -> list[tuple[object, ...]]:
        return self._db.execute(statement).fetchall()


class Appliance:
    """Clock and limits on a disk, at a simulated time."""

    def __init__(self, budget: int = 100) -> None:
        self.time = SimulatedTime()
        self.disk = Disk()
        self.budget = budget
        self.start()

    def start(self) -> None:
        """Begin anew: what was in memory only is lost."""
        self.clock = Clock(self.disk, self.time.sources())
        self.limits = Limits(self.disk, INDEX_KEY, self.clock, self.budget)

    @property
    def true_now(self) -> int:
        """The true time, Unix seconds."""
        return int(self.time.sources().wall() - self.time.wrong)
