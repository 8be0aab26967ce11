"""How a zone opens its SQLite file: durable, deleting for good, and of a schema that it knows.

One file per zone; no zone ever opens another's.
"""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.errors import DrempelError

PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "secure_delete=ON",
    "foreign_keys=ON",
    "trusted_schema=OFF",
)


class DatabaseUnusable(DrempelError, OSError):
    """The file is damaged, cannot be opened, or is of a schema that this Drempel does not know."""


FROM_A_BACKUP = "restore it from a backup, or move it away and begin anew"
"""What to do about a damaged file that `drempel backup` holds a copy of."""


def open_database(
    path: Path,
    schema: int,
    tables: str,
    upgrades: Mapping[int, str] | None = None,
    *,
    damaged: str = FROM_A_BACKUP,
    before_upgrade: Callable[[sqlite3.Connection, int], None] | None = None,
) -> sqlite3.Connection:
    """Open the database at `path`, or begin it; readable by its user alone.

    What an earlier process deleted stands in no file any more afterwards, even where it was killed over it.

    Args:
        path: the file; its folder must exist.
        schema: the version of `tables`, kept as SQLite's `user_version`.
        tables: the statements that make them.
        upgrades: for an older version, the statements that bring a file from it to the next.
        damaged: what to do about a file that is damaged, or of a schema from which no upgrade leads.
        before_upgrade: called before the upgrade from a version, to look at what that will drop.

    Returns:
        A connection in autocommit mode that may be used from several threads, one at a time.

    Raises:
        DatabaseUnusable: the message says what to do.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
        path.chmod(0o600)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise DatabaseUnusable(f"{path.name} is damaged ({sound}): {damaged}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version = {schema}; COMMIT;")
        while version and version < schema and version in (upgrades or {}):
            statements = (upgrades or {})[version]
            if before_upgrade is not None:
                before_upgrade(connection, version)
            version += 1
            # One transaction a step: a power cut leaves a whole file of one version or of the next.
            connection.executescript(
                f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {version}; COMMIT;"
            )
        if version not in {0, schema}:
            advice = (
                "upgrade Drempel"
                if version > schema
                else f"open it with the Drempel that wrote it, or {damaged}"
            )
            raise DatabaseUnusable(f"{path.name} has schema {version}, this Drempel knows {schema}: {advice}")
        # A process that was killed may have left in the write-ahead log what it had just deleted.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error | OSError) and not isinstance(error, DrempelError):
            advice = what_to_do(error, damaged) if isinstance(error, sqlite3.Error) else _DISK
            raise DatabaseUnusable(f"{path.name} cannot be opened: {error}; {advice}") from error
        raise
    return connection


_DISK = "make its disk writable and its folder this zone's own, and start again"
_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space and try again",
    sqlite3.SQLITE_READONLY: _DISK,
    sqlite3.SQLITE_CANTOPEN: _DISK,
    sqlite3.SQLITE_PERM: _DISK,
    sqlite3.SQLITE_IOERR: "free some space, or replace the disk if it fails, and try again",
    sqlite3.SQLITE_BUSY: "another process has it open; end that one and try again",
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def what_to_do(error: sqlite3.Error, damaged: str = FROM_A_BACKUP) -> str:
    """What to do about an error of SQLite: a damaged file and a full disk ask for different acts.

    Args:
        error: what SQLite said.
        damaged: what to do about this file where it is damaged.
    """
    # The low byte is the kind of error, the rest its detail (sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return damaged if code in _DAMAGED else _ADVICE.get(code, f"try again; if it stays, {damaged}")
