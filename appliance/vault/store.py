"""`vault.db`: one row per record, and the row is the permission: no row, no match.

A row holds sealed parts and what they are bound to; nothing in it says whose it is. The device halves stand
in a table of their own, and so do the bodies: a change of epoch rewrites every half, 108 bytes each, and
must not drag 2 KB of body along.
"""

import sqlite3
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from appliance.database import DatabaseUnusable, open_database, what_to_do
from appliance.errors import DrempelError
from appliance.rights import ALWAYS
from appliance.vault import clock, limits
from appliance.vault.protection import VERSION, Sealed
from appliance.vault.soundness import Soundness

SCHEMA = 2
NEVER = 2**40
"""An end that no clock of ours reaches, seconds since 1970."""
DAMAGED = "move it away and enrol everyone anew; badges go on"
"""What to do about a damaged file: no backup holds vault.db."""
_RECORDS = """
CREATE TABLE record (
    handle BLOB PRIMARY KEY CHECK (length(handle) = 16),
    version INTEGER NOT NULL,
    tier INTEGER NOT NULL CHECK (tier BETWEEN 1 AND 3),
    pack BLOB NOT NULL CHECK (length(pack) = 32),
    lookup BLOB UNIQUE CHECK (length(lookup) = 32),
    rights BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    over_since INTEGER
) WITHOUT ROWID, STRICT;
CREATE TABLE half (
    handle BLOB PRIMARY KEY REFERENCES record ON DELETE CASCADE,
    half BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE body (
    handle BLOB PRIMARY KEY REFERENCES record ON DELETE CASCADE,
    body BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE epoch (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    number INTEGER NOT NULL,
    rotated_at INTEGER NOT NULL DEFAULT 0
) STRICT;
"""
_TABLES = _RECORDS + limits.TABLES + clock.TABLES
"""The guessing limits and the clock write their own tables, in the same file and the same transactions."""
_UPGRADES = {
    # Records of version 1 hold an unrotated template, which nobody can convert without the person's secret.
    # No release ever wrote one. They go, and with them their epoch: `epoch.key` is destroyed at the start.
    1: "DROP TABLE record; DROP TABLE epoch;" + _TABLES
}
_COLUMNS = (
    "record.handle, tier, pack, half, body, version, lookup, rights, expires_at "
    "FROM record LEFT JOIN half USING (handle) LEFT JOIN body USING (handle)"
)
_SLICE = 2000
"""Records that are read, or halves that are wrapped anew, at a time; some 5 MB with their bodies."""


class StoreError(DrempelError, OSError):
    """The database cannot be read or written; nothing in it was changed, and badges go on."""


class HandleTaken(DrempelError, ValueError):
    """There is a record with this handle already."""


class LookupTaken(HandleTaken):
    """There is a record with this card or number already."""


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One row.

    handle: 16 bytes. tier: 1 to 3. pack: the pack's identity, 32 bytes. sealed: its sealed parts; in tier 1
    the body is empty, since the person has it. version: of their format. lookup: what a card or a number
    finds it by, 32 bytes. rights: when its person may enter, as `appliance.rights` encodes it. expires_at:
    seconds since 1970. The half is bound to these three, see `protection.terms_of`.
    """

    handle: bytes
    tier: int
    pack: bytes
    sealed: Sealed
    version: int = VERSION
    lookup: bytes | None = None
    rights: bytes = ALWAYS
    expires_at: int = NEVER


class Half(NamedTuple):
    """A device half, sealed, and what it is bound to; the fields are those of `Record`."""

    handle: bytes
    tier: int
    pack: bytes
    half: bytes
    version: int
    lookup: bytes | None
    rights: bytes
    expires_at: int


class Store:
    """The database of records; safe to use from several threads.

    `records_read` counts the rows that were ever read, so that a test can show that an attempt reads one.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, or begin it.

        Raises:
            StoreError: damaged, made by a newer Drempel, or on a disk that is full or read-only.
        """
        # Reentrant, so that a transaction may ask this store for what it needs.
        self._lock = threading.RLock()
        self.records_read = 0
        self._soundness = Soundness(path)
        try:
            self._db = open_database(
                path, SCHEMA, _TABLES, _UPGRADES, damaged=DAMAGED, before_upgrade=_say_who_goes
            )
        except DatabaseUnusable as error:
            raise StoreError(str(error)) from error

    def read(self, handle: bytes) -> Record | None:
        """The one record with this handle, if there is one.

        Raises:
            StoreError: the database is damaged or gone.
        """
        return self._record(f"SELECT {_COLUMNS} WHERE record.handle = ?", handle)

    def read_by_lookup(self, lookup: bytes) -> Record | None:
        """The one record that a card or a number (32 bytes) finds, if there is one.

        Raises:
            StoreError: the database is damaged or gone.
        """
        return self._record(f"SELECT {_COLUMNS} WHERE lookup = ?", lookup)

    def each(self) -> Iterator[list[Record]]:
        """Every record, in slices and in the order of the handles; for `check` alone.

        Between two slices others may write: a record of then is in a later slice as it is then.

        Raises:
            StoreError: the database is damaged or gone.
        """
        last = b""
        while True:
            with self._reading():
                rows = self._db.execute(
                    f"SELECT {_COLUMNS} WHERE record.handle > ? ORDER BY record.handle LIMIT ?",
                    (last, _SLICE),
                ).fetchall()
            if not rows:
                return
            self.records_read += len(rows)
            yield [_record(row) for row in rows]
            last = rows[-1][0]

    def exists(self, handle: bytes) -> bool:
        """Whether there is a record with this handle; nothing of it is read."""
        return self._one("SELECT 1 FROM record WHERE handle = ?", handle) is not None

    def add(
        self,
        record: Record,
        instead_of: bytes | None = None,
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Store a new record, durably.

        Args:
            record: the record.
            instead_of: the handle of one that gives way to it in the same transaction, if it is there. It is
                erased for good only by the next change of epoch.
            also: what else has to happen in the same transaction.

        Raises:
            HandleTaken: there is one with this handle already; `LookupTaken` where its card or number is.
            StoreError: it could not be stored.
        """
        with self.transaction():
            if instead_of is not None:
                self._db.execute("DELETE FROM record WHERE handle = ?", (instead_of,))
            if also is not None:
                also(self._db)
            self.add_all([record])

    def add_all(self, records: Iterable[Record]) -> None:
        """Store new records, durably: all of them, or none.

        Raises:
            HandleTaken: there is one with such a handle already; `LookupTaken` where a card or number is.
            StoreError: they could not be stored.
        """
        # Taken before the lock: whoever makes the records may need this store, and may fail.
        ready = list(records)
        try:
            with self.transaction() as db:
                db.executemany(
                    "INSERT INTO record (handle, version, tier, pack, lookup, rights, expires_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        (
                            *(each.handle, each.version, each.tier, each.pack),
                            *(each.lookup, each.rights, each.expires_at),
                        )
                        for each in ready
                    ),
                )
                db.executemany(
                    "INSERT INTO half VALUES (?, ?)", ((each.handle, each.sealed.half) for each in ready)
                )
                db.executemany(
                    "INSERT INTO body VALUES (?, ?)", ((each.handle, each.sealed.body) for each in ready)
                )
        except sqlite3.IntegrityError as error:
            if "record.lookup" in str(error):
                raise LookupTaken("this card or number is somebody's already: take another") from error
            raise HandleTaken("a record with this handle is stored already: choose a new handle") from error

    def set_rights(self, handle: bytes, rights: bytes, half: bytes) -> None:
        """Change when a record may open the door, durably, with the half that is bound to that.

        Raises:
            StoreError: it could not be stored.
        """
        with self.transaction() as db:
            db.execute("UPDATE record SET rights = ? WHERE handle = ?", (rights, handle))
            db.execute("UPDATE half SET half = ? WHERE handle = ?", (half, handle))

    def count(self, above: int = 0) -> int:
        """How many records there are of a tier above this one; of all without it."""
        row = self._one("SELECT count(*) FROM record WHERE tier > ?", above)
        return int(row[0]) if row else 0

    def epoch(self) -> int | None:
        """The number of the epoch whose key opens the device halves; None before the first."""
        row = self._one("SELECT number FROM epoch")
        return int(row[0]) if row else None

    def begin_epoch(self, number: int) -> None:
        """Write down the first epoch."""
        with self.transaction() as db:
            db.execute("INSERT INTO epoch (only_row, number) VALUES (1, ?)", (number,))

    def change_epoch(
        self,
        number: int,
        remove: Collection[bytes],
        rewrap: Callable[[Half], bytes],
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> int:
        """Remove records, wrap every other half anew and set the epoch: one transaction, the commit.

        Afterwards nothing of what was removed stands in the write-ahead log either.

        Args:
            number: of the new epoch, one more than the present one.
            remove: handles.
            rewrap: a record's half, sealed anew. Its body is not read.
            also: what else has to go in the same transaction.

        Returns:
            How many records were removed.

        Raises:
            StoreError: not committed, and nothing changed; or committed, but a reader kept the log from
                being emptied. `epoch` tells which.
        """
        with self._lock:
            with self.transaction() as db:
                present = db.execute("SELECT number FROM epoch").fetchone()
                if present is None or present[0] != number - 1:
                    raise StoreError("vault.db is of another epoch than its keys: start the vault anew")
                removed = sum(
                    db.execute("DELETE FROM record WHERE handle = ?", (handle,)).rowcount for handle in remove
                )
                if also is not None:
                    also(db)
                _rewrap_all(db, rewrap)
                db.execute("UPDATE epoch SET number = ?", (number,))
            self.empty_log()
            return removed

    def empty_log(self) -> None:
        """Bring the write-ahead log into the database, and cut it to nothing.

        Raises:
            StoreError: a reader kept it from being emptied; try again.
        """
        with self._lock, self._soundness.kept_out():
            row = self._one("PRAGMA wal_checkpoint(TRUNCATE)")
        if row is None or row[0] != 0:
            raise StoreError("an erased record may still stand in the write-ahead log: erase it again")

    def integrity(self) -> bool:
        """Whether SQLite finds the whole file sound; see `soundness`. Nothing waits for it.

        Raises:
            StoreError: it cannot be read at all.
        """
        try:
            return self._soundness.look(self._lock)
        except sqlite3.Error as error:
            raise StoreError(f"vault.db cannot be read: {error}; {what_to_do(error, DAMAGED)}") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is durable afterwards, or none.

        Raises:
            StoreError: it could not be written.
            sqlite3.IntegrityError: as SQLite says it; the caller knows what it means.
        """
        with self._lock:
            try:
                if self._db.in_transaction:
                    # Part of the one that is under way on this thread: the lock lets no other in.
                    yield self._db
                    return
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    # A full disk may have ended the transaction already.
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                raise StoreError(
                    f"vault.db cannot be written: {error}; {what_to_do(error, DAMAGED)}"
                ) from error

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._soundness.close()
            self._db.close()

    def _record(self, statement: str, key: bytes) -> Record | None:
        row = self._one(statement, key)
        if row is None:
            return None
        self.records_read += 1
        return _record(row)

    def _one(self, statement: str, *values: bytes | int) -> tuple[Any, ...] | None:
        with self._reading():
            row: tuple[Any, ...] | None = self._db.execute(statement, values).fetchone()
        return row

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(f"vault.db cannot be read: {error}; {what_to_do(error, DAMAGED)}") from error


def _say_who_goes(db: sqlite3.Connection, version: int) -> None:
    """Say how many people the upgrade from that version drops; see `_UPGRADES`."""
    (count,) = db.execute("SELECT count(*) FROM record").fetchone()
    if version == 1 and count:
        print(
            f"drempel vault: vault.db is of schema 1, whose {count} templates nobody can convert: they are "
            "dropped; enrol anew whom they belonged to; badges go on",
            file=sys.stderr,
        )


def _record(row: tuple[Any, ...]) -> Record:
    handle, tier, pack, half, body, version, lookup, rights, expires_at = row
    # A part that is missing is one that does not open.
    return Record(handle, tier, pack, Sealed(half or b"", body or b""), version, lookup, rights, expires_at)


def _rewrap_all(db: sqlite3.Connection, rewrap: Callable[[Half], bytes]) -> None:
    last = b""
    while True:
        rows = db.execute(
            "SELECT handle, tier, pack, half, version, lookup, rights, expires_at "
            "FROM half JOIN record USING (handle) WHERE handle > ? ORDER BY handle LIMIT ?",
            (last, _SLICE),
        ).fetchall()
        if not rows:
            return
        db.executemany(
            "UPDATE half SET half = ? WHERE handle = ?",
            [(rewrap(each), each.handle) for each in map(Half._make, rows)],
        )
        last = rows[-1][0]
