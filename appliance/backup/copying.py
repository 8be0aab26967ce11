"""Copies of a zone's files, taken while the zone runs, with its user's rights and no others."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from appliance.errors import DrempelError
from appliance.process import acting_as

WAIT = 5.0
"""Seconds to wait for a zone that is writing."""


class NotCopied(DrempelError, OSError):
    """A file is damaged, missing, or not to be read: nothing was copied."""


def copy_database(path: Path, user: str, check: Callable[[sqlite3.Connection], None] | None = None) -> bytes:
    """The database at `path` as of one moment, with all that was committed by then, as one file's bytes.

    Taken through SQLite's own backup interface in a single step, during which writers wait.

    Args:
        path: the file; the zone may be running.
        user: its zone's user; "" for who calls.
        check: looks at the copy, as a database.

    Raises:
        NotCopied: it is damaged, or cannot be read.
        ConfigurationError: this user may not read it.
    """
    with acting_as(user):
        try:
            # Opened for writing, since a log that a killed zone left must be read; nothing is written.
            source = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=WAIT)
            with closing(source), closing(sqlite3.connect(":memory:")) as copy:
                source.backup(copy)
                (sound,) = copy.execute("PRAGMA quick_check(1)").fetchone()
                if sound != "ok":
                    raise NotCopied(f"{path} is damaged ({sound})")
                if check is not None:
                    check(copy)
                return copy.serialize()
        except sqlite3.Error as error:
            raise NotCopied(f"{path} cannot be copied ({error})") from error


def read_file(path: Path, user: str) -> bytes:
    """The bytes of a file of the zone whose user is `user`.

    Raises:
        NotCopied: it cannot be read.
        ConfigurationError: this user may not.
    """
    with acting_as(user):
        try:
            return path.read_bytes()
        except OSError as error:
            raise NotCopied(f"{path} cannot be read ({error.strerror or error})") from error
