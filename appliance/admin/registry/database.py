"""`registry.db`: the only file on the device that holds a name."""

import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.database import DatabaseUnusable, open_database
from appliance.errors import DrempelError

SCHEMA = 3
_FIRST = """
CREATE TABLE person (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    added_at TEXT NOT NULL
) STRICT;
CREATE TABLE consent (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    person TEXT NOT NULL REFERENCES person (id),
    notice_version TEXT NOT NULL,
    given_at TEXT NOT NULL,
    act TEXT NOT NULL,
    withdrawn_at TEXT
) STRICT;
CREATE UNIQUE INDEX one_current_consent ON consent (person) WHERE withdrawn_at IS NULL;
-- A template is written down before vault may make it ('pending') and until vault has erased it ('erasing').
CREATE TABLE template (
    handle BLOB PRIMARY KEY CHECK (length(handle) = 16),
    person TEXT NOT NULL REFERENCES person (id),
    consent BLOB NOT NULL REFERENCES consent (id),
    state TEXT NOT NULL CHECK (state IN ('pending', 'enrolled', 'erasing'))
) STRICT;
CREATE UNIQUE INDEX one_template ON template (person) WHERE state = 'enrolled';
-- A badge likewise: door holds only a pseudonym of its number, and the number itself is not kept.
CREATE TABLE badge (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    person TEXT NOT NULL REFERENCES person (id),
    label TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'removing'))
) STRICT;
"""
_SECOND = """
-- Who may call the local API. The token itself is not kept; a hash of 256 random bits tells nothing of them.
CREATE TABLE account (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    label TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    ended_at TEXT,
    token BLOB UNIQUE CHECK (length(token) = 32)
) STRICT;
-- What a call with an idempotency key made, so that the same call made again makes nothing more. Of the call
-- itself nothing is kept: not the name in it, and not the badge's number; of the key a hash. When its person
-- is erased it stays for its day without one, so that a late repetition brings nobody back.
CREATE TABLE made (
    account INTEGER NOT NULL,
    key BLOB NOT NULL CHECK (length(key) = 32),
    kind TEXT NOT NULL,
    resource TEXT NOT NULL,
    person TEXT REFERENCES person (id) ON DELETE SET NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX made_when ON made (made_at);
CREATE INDEX made_for ON made (person);
CREATE INDEX consent_of ON consent (person);
CREATE INDEX template_of ON template (person);
CREATE INDEX template_under ON template (consent);
CREATE INDEX badge_of ON badge (person);
CREATE INDEX person_named ON person (name);
-- What the upkeep looks for each second, among 100,000 that are in order.
CREATE INDEX template_erasing ON template (person) WHERE state = 'erasing';
CREATE INDEX template_pending ON template (handle) WHERE state = 'pending';
CREATE INDEX badge_removing ON badge (person) WHERE state = 'removing';
CREATE INDEX badge_pending ON badge (id) WHERE state = 'pending';
"""
_THIRD = """
-- Which registry this is, so that none is restored over another's people; a copy of it keeps the name.
CREATE TABLE lineage (id BLOB NOT NULL CHECK (length(id) = 16)) STRICT;
INSERT INTO lineage VALUES (randomblob(16));
-- Who was erased and which badges were taken away, by an id that was random and now leads to nobody: a backup
-- made before must not bring them back. A withdrawn consent stays on record, and is its own mark.
CREATE TABLE erased_person (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE removed_badge (id BLOB PRIMARY KEY CHECK (length(id) = 16)) STRICT, WITHOUT ROWID;
"""
TABLES = _FIRST + _SECOND + _THIRD
UPGRADES = {1: _SECOND, 2: _THIRD}


class RegistryError(DrempelError, OSError):
    """The registry cannot be read or written; nothing in it was changed, and the door goes on."""


class Registry:
    """The database; safe to use from several threads.

    `in_the_making` holds the handles and badge ids that this process is just giving to another zone; a row
    that is pending and not among them was abandoned. `completed` holds the handles of templates that became
    lawful and that the upkeep has not vouched for yet. `log_holds_erased` says that something was erased
    whose copy may still stand in the write-ahead log.
    """

    def __init__(self, path: Path) -> None:
        """Open the registry, or begin it.

        Raises:
            RegistryError: damaged, or made by a newer Drempel.
        """
        self._lock = threading.RLock()
        self.in_the_making: set[bytes] = set()
        self.completed: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.log_holds_erased = False
        try:
            self._db = open_database(path, SCHEMA, TABLES, UPGRADES)
        except DatabaseUnusable as error:
            raise RegistryError(str(error)) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is durable afterwards, or none.

        Raises:
            RegistryError: it could not be written.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                raise RegistryError(
                    f"registry.db cannot be used: {error}; free some space and try again"
                ) from error

    def empty_log(self) -> None:
        """Empty the write-ahead log, so that what was deleted stands nowhere any more.

        Raises:
            RegistryError: another process reads the database; try again.
        """
        with self._lock:
            try:
                (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.Error as error:
                raise RegistryError(f"registry.db cannot be written: {error}; try again") from error
            if busy:
                raise RegistryError("something else reads registry.db, and keeps what was erased: try again")
            self.log_holds_erased = False

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()
