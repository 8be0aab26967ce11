"""`vault.db`: one row per record, and the row is the permission: no row, no match.

A row holds sealed parts and what they are bound to; nothing in it says whose it is.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.database import DatabaseUnusable, open_database
from appliance.errors import DrempelError
from appliance.vault.protection import VERSION, Sealed

SCHEMA = 1
_TABLES = """
CREATE TABLE record (
    handle BLOB PRIMARY KEY CHECK (length(handle) = 16),
    version INTEGER NOT NULL,
    tier INTEGER NOT NULL,
    pack BLOB NOT NULL CHECK (length(pack) = 32),
    half BLOB NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE epoch (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), number INTEGER NOT NULL) STRICT;
"""


class StoreError(DrempelError, OSError):
    """The database cannot be read or written; nothing in it was changed, and badges go on."""


class HandleTaken(DrempelError, ValueError):
    """There is a record with this handle already."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: handle (16 bytes), tier, pack identity (32 bytes), the sealed parts, and their format."""

    handle: bytes
    tier: int
    pack: bytes
    sealed: Sealed
    version: int = VERSION


class Store:
    """The database of records; safe to use from several threads.

    `records_read` counts the rows that were ever read, so that a test can show that an attempt reads one.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, or begin it.

        Raises:
            StoreError: damaged, or made by a newer Drempel.
        """
        self._lock = threading.Lock()
        self.records_read = 0
        # One connection under one lock; every statement commits for itself, but for those of `add_all`.
        try:
            self._db = open_database(path, SCHEMA, _TABLES)
        except DatabaseUnusable as error:
            raise StoreError(str(error)) from error

    def read(self, handle: bytes) -> Record | None:
        """The one record with this handle, if there is one.

        Raises:
            StoreError: the database is damaged or gone.
        """
        row = self._one("SELECT version, tier, pack, half, body FROM record WHERE handle = ?", (handle,))
        if row is None:
            return None
        self.records_read += 1
        version, tier, pack, half, body = row
        return Record(handle, tier, pack, Sealed(half, body), version)

    def exists(self, handle: bytes) -> bool:
        """Whether there is a record with this handle; nothing of it is read."""
        return self._one("SELECT 1 FROM record WHERE handle = ?", (handle,)) is not None

    def add(self, record: Record) -> None:
        """Store a new record, durably.

        Raises:
            HandleTaken: there is one with this handle already.
            StoreError: it could not be stored.
        """
        self.add_all([record])

    def add_all(self, records: Iterable[Record]) -> None:
        """Store new records, durably: all of them, or none.

        Raises:
            HandleTaken: there is one with such a handle already.
            StoreError: they could not be stored.
        """
        rows = (
            (each.handle, each.version, each.tier, each.pack, each.sealed.half, each.sealed.body)
            for each in records
        )
        try:
            self._write_all(
                "INSERT INTO record (handle, version, tier, pack, half, body) VALUES (?, ?, ?, ?, ?, ?)", rows
            )
        except sqlite3.IntegrityError as error:
            raise HandleTaken("a record with this handle is stored already: choose a new handle") from error

    def erase(self, handle: bytes) -> bool:
        """Remove a record, also from the write-ahead log; True when there was one.

        Raises:
            StoreError: it could not be removed, or a reader kept the log from being emptied; try again.
        """
        removed = self._write("DELETE FROM record WHERE handle = ?", (handle,))
        row = self._one("PRAGMA wal_checkpoint(TRUNCATE)", ())
        if row is None or row[0] != 0:
            raise StoreError("the erased record may still stand in the write-ahead log: erase it again")
        return removed > 0

    def count(self) -> int:
        """How many records there are."""
        row = self._one("SELECT count(*) FROM record", ())
        return int(row[0]) if row else 0

    def epoch(self) -> int | None:
        """The number of the epoch whose key opens the device halves; None before the first."""
        row = self._one("SELECT number FROM epoch", ())
        return int(row[0]) if row else None

    def begin_epoch(self, number: int) -> None:
        """Write down the first epoch."""
        self._write("INSERT INTO epoch (only_row, number) VALUES (1, ?)", (number,))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _one(self, statement: str, values: tuple[bytes | int, ...]) -> tuple[Any, ...] | None:
        with self._lock:
            try:
                row: tuple[Any, ...] | None = self._db.execute(statement, values).fetchone()
            except sqlite3.Error as error:
                raise StoreError(f"vault.db cannot be read: {error}") from error
        return row

    def _write(self, statement: str, values: tuple[bytes | int, ...]) -> int:
        with self._lock, _writing():
            return self._db.execute(statement, values).rowcount

    def _write_all(self, statement: str, rows: Iterable[tuple[bytes | int, ...]]) -> None:
        # Taken before the lock: whoever makes the rows may need this store, and may fail.
        ready = list(rows)
        with self._lock, _writing():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(statement, ready)
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _writing() -> Iterator[None]:
    """What SQLite says of a write that failed, as an error of ours."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise StoreError(f"vault.db cannot be written: {error}; free some space and try again") from error
