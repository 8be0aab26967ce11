"""How a zone opens its SQLite file: durable, deleting for good, and of a schema that it knows.

One file per zone; no zone ever opens another's.
"""

import sqlite3
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


def open_database(path: Path, schema: int, tables: str) -> sqlite3.Connection:
    """Open the database at `path`, or begin it; readable by its user alone.

    What an earlier process deleted stands in no file any more afterwards, even where it was killed over it.

    Args:
        path: the file; its folder must exist.
        schema: the version of `tables`, kept as SQLite's `user_version`.
        tables: the statements that make them.

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
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version = {schema}; COMMIT;")
        elif version != schema:
            raise DatabaseUnusable(
                f"{path.name} has schema {version}, this Drempel knows {schema}: upgrade Drempel"
            )
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise DatabaseUnusable(
                f"{path.name} is damaged ({sound}): restore it, or move it away and begin anew"
            )
        # A process that was killed may have left in the write-ahead log what it had just deleted.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error | OSError) and not isinstance(error, DrempelError):
            raise DatabaseUnusable(
                f"{path.name} cannot be opened: {error}; restore it from a backup, or move it away "
                "and begin anew"
            ) from error
        raise
    return connection
