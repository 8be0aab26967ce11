"""The badges that open this door: a small SQLite file that no other zone reads.

A badge's number is kept as an HMAC-SHA256 under a key that door made for itself: a pseudonym, which
without that key cannot be turned back or compared with another site's list. Beside it stands the id
that admin gave the badge; whose badge it is, is not known here.

Look-ups and changes have a connection each. A look-up reads one row of an index in well under a
millisecond and, the file being in WAL mode, never waits for a change; so it runs on the event loop.
A change waits for the disk, which on a card can take a tenth of a second; call it on a thread.
"""

import hmac
import os
import secrets
import sqlite3
import threading
from collections.abc import Collection
from pathlib import Path

from appliance.errors import DrempelError

SCHEMA = 1
"""What `user_version` says of a file in this layout."""
KEY_SIZE = 32
"""Bytes of `badge.key`."""
BADGE_ID = 16
"""Bytes of the id that admin gives a badge."""
MAX_BITS = 128
"""Bits of the longest badge number."""
READ_WAIT_MS = 50
"""Milliseconds that a look-up waits for a locked file: the person at the door is waiting too."""
WRITE_WAIT_MS = 1000
"""Milliseconds that a change waits for a locked file."""

_CREATE = """
CREATE TABLE key_check (hmac BLOB NOT NULL CHECK (length(hmac) = 32)) STRICT;
CREATE TABLE badge (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    number BLOB NOT NULL UNIQUE CHECK (length(number) = 32)
) STRICT, WITHOUT ROWID;
"""


class BadgesUnreadable(DrempelError, OSError):
    """The badge file or its key is damaged, gone or locked: no badge opens until that is mended."""


class BadgeTaken(DrempelError, ValueError):
    """The number belongs to another badge, or the badge has another number."""


class Badges:
    """The badge file of this door, open."""

    def __init__(self, folder: Path) -> None:
        """Open `badges.db` and `badge.key` in `folder`, or begin them; both are for this user alone.

        Raises:
            BadgesUnreadable: one of them is damaged, gone while the other is there, or not ours.
        """
        self._path = folder / "badges.db"
        self._writing = threading.Lock()
        try:
            # Made here, so that its mode is right from its first byte; SQLite gives -wal and -shm the same.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise BadgesUnreadable(f"{self._path} cannot be opened: {error.strerror or error}") from error
        self._write = self._connect(WRITE_WAIT_MS)
        try:
            self._prepare(folder / "badge.key")
            self._read = self._connect(READ_WAIT_MS)
        except sqlite3.Error as error:
            self._write.close()
            raise self._unreadable(error) from error
        except DrempelError:
            self._write.close()
            raise

    def add(self, badge: bytes, bits: int, number: int) -> None:
        """Let a badge open, durably; adding the same badge with the same number again changes nothing.

        Args:
            badge: the badge's id, 16 bytes.
            bits: how many bits its number has, 1 to 128.
            number: the number, below 2 ** bits.

        Raises:
            BadgeTaken: that number is another badge's, or that badge has another number.
            BadgesUnreadable: the file cannot be written; nothing changed.
            ValueError: an id or a number that cannot be.
        """
        if len(badge) != BADGE_ID:
            raise ValueError(f"a badge's id has {BADGE_ID} bytes")
        pseudonym = self._pseudonym(bits, number)
        with self._writing:
            try:
                with self._write:
                    self._write.execute("INSERT OR IGNORE INTO badge VALUES (?, ?)", (badge, pseudonym))
                    row = self._write.execute("SELECT number FROM badge WHERE id = ?", (badge,)).fetchone()
            except sqlite3.Error as error:
                raise self._unreadable(error) from error
        if row is None or row[0] != pseudonym:
            raise BadgeTaken("this number is another badge's, or this badge has another number: remove first")

    def remove(self, badge: bytes) -> None:
        """Let a badge open no more, durably; removing one that does not exist is done already.

        Raises:
            BadgesUnreadable: the file cannot be written; nothing changed.
        """
        with self._writing:
            try:
                with self._write:
                    self._write.execute("DELETE FROM badge WHERE id = ?", (badge,))
                # The deleted row would stay in the log. A checkpoint that finds a reader busy is made up
                # for by the next one: what stays behind is a pseudonym.
                self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                raise self._unreadable(error) from error

    def opens(self, bits: int, number: int) -> bool:
        """Whether a badge with this number opens.

        Raises:
            BadgesUnreadable: the file cannot be read, which opens for nobody.
        """
        try:
            pseudonym = self._pseudonym(bits, number)
        except ValueError:
            return False
        try:
            row = self._read.execute("SELECT 1 FROM badge WHERE number = ?", (pseudonym,)).fetchone()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        return row is not None

    def ids(self) -> set[bytes]:
        """The ids of the badges that open, 16 bytes each.

        Raises:
            BadgesUnreadable: the file cannot be read.
        """
        try:
            return {badge for (badge,) in self._read.execute("SELECT id FROM badge")}
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def keep_only(self, badges: Collection[bytes]) -> None:
        """Let no other badges open than those with these ids, durably.

        Raises:
            BadgesUnreadable: the file cannot be written; nothing changed.
        """
        gone = [(badge,) for badge in self.ids() if badge not in badges]
        with self._writing:
            try:
                with self._write:
                    self._write.executemany("DELETE FROM badge WHERE id = ?", gone)
                self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                raise self._unreadable(error) from error

    def count(self) -> int:
        """How many badges open.

        Raises:
            BadgesUnreadable: the file cannot be read.
        """
        try:
            return int(self._read.execute("SELECT count(*) FROM badge").fetchone()[0])
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._read.close()
        with self._writing:
            self._write.close()

    def _pseudonym(self, bits: int, number: int) -> bytes:
        if not 1 <= bits <= MAX_BITS or not 0 <= number < 1 << bits:
            raise ValueError(f"a badge number has 1 to {MAX_BITS} bits, and fits in them")
        return hmac.digest(self._key, bytes([bits]) + number.to_bytes(MAX_BITS // 8), "sha256")

    def _connect(self, wait_ms: int) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=wait_ms / 1000, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
        except sqlite3.Error as error:
            connection.close()
            raise self._unreadable(error) from error
        return connection

    def _prepare(self, key_path: Path) -> None:
        """Check the file and its key together, or begin both."""
        version = self._write.execute("PRAGMA user_version").fetchone()[0]
        if version not in {0, SCHEMA}:
            raise BadgesUnreadable(f"{self._path} was made by another version of Drempel: upgrade Drempel")
        self._write.execute("PRAGMA journal_mode = WAL").fetchall()
        verdict = self._write.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise BadgesUnreadable(f"{self._path} is damaged ({verdict}): {_RESTORE}")
        if version == 0:
            if not key_path.exists():
                _make_key(key_path)
            self._key = _read_key(key_path)
            # One transaction, and the version last in it: a power cut leaves a whole file or an empty one.
            check = _key_check(self._key).hex()
            self._write.executescript(
                f"BEGIN;{_CREATE}INSERT INTO key_check VALUES (x'{check}');"  # noqa: S608 - our own digest
                f"PRAGMA user_version = {SCHEMA};COMMIT;"
            )
        else:
            self._key = _read_key(key_path)
            if not is_key_of(self._key, self._write):
                raise BadgesUnreadable(f"{key_path} is not the key of {self._path}: {_RESTORE}")

    def _unreadable(self, error: sqlite3.Error) -> BadgesUnreadable:
        return BadgesUnreadable(f"{self._path} cannot be used ({error}): {_RESTORE}")


def is_key_of(key: bytes, database: sqlite3.Connection) -> bool:
    """Whether the pseudonyms in a badge file were made under `key`.

    Raises:
        sqlite3.Error: the file cannot be read, or is no badge file.
    """
    stored = database.execute("SELECT hmac FROM key_check").fetchone()
    return stored is not None and hmac.compare_digest(stored[0], _key_check(key))


def _key_check(key: bytes) -> bytes:
    return hmac.digest(key, b"drempel badges", "sha256")


_RESTORE = "restore both from a backup, or move both away and add the badges again"


def _make_key(path: Path) -> None:
    """A key of 32 random bytes at `path`: whole and on the disk, or not there at all."""
    draft = path.with_suffix(".new")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(KEY_SIZE))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise BadgesUnreadable(f"{path} cannot be made: {error.strerror or error}") from error


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise BadgesUnreadable(f"{path} cannot be read ({error.strerror or error}): {_RESTORE}") from error
    if len(key) != KEY_SIZE:
        raise BadgesUnreadable(f"{path} has {len(key)} bytes where a key has {KEY_SIZE}: {_RESTORE}")
    return key
