"""Whether SQLite finds vault's file sound, looked at beside everything else.

SQLite reads the whole file for it: half a second on a server and several on a small board, at 100,000
records. So it is asked on a connection of its own, which can only read, and no attempt waits. But a reader
keeps the write-ahead log from being emptied, and that is a step of every erasure. So an erasure cuts the
look short, and the look begins anew behind it.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRIES = 20
"""Looks that may be cut short, before the next one has everything else wait."""
PAUSE = 0.02
"""Seconds that a look which was cut short leaves to the erasure; and between two times that it is told."""


class Soundness:
    """Looks at one database; safe to use from several threads. Opened at the first look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looking = threading.Lock()
        self._reader: sqlite3.Connection | None = None

    def look(self, still: threading.RLock) -> bool:
        """Whether the whole file is sound.

        Args:
            still: the lock of whoever writes; taken only where erasures cut every look short.

        Raises:
            sqlite3.Error: it cannot be read at all.
        """
        for _ in range(TRIES):
            found = self._look()
            if found is not None:
                return found
            time.sleep(PAUSE)
        with still:
            while (found := self._look()) is None:
                time.sleep(PAUSE)
            return found

    @contextmanager
    def kept_out(self) -> Iterator[None]:
        """Let no look run meanwhile; one that does is cut short."""
        while not self._looking.acquire(timeout=PAUSE):
            reader = self._reader
            if reader is not None:
                reader.interrupt()
        try:
            yield
        finally:
            self._looking.release()

    def close(self) -> None:
        """Close the connection."""
        with self.kept_out():
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _look(self) -> bool | None:
        """Whether it is sound; None where the look was cut short."""
        with self._looking:
            try:
                if self._reader is None:
                    self._reader = sqlite3.connect(
                        f"{self._path.absolute().as_uri()}?mode=ro",
                        uri=True,
                        isolation_level=None,
                        check_same_thread=False,
                        timeout=2,
                    )
                said = self._reader.execute("PRAGMA integrity_check(1)").fetchall()
                strays = self._reader.execute("PRAGMA foreign_key_check").fetchone()
            except sqlite3.DatabaseError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_INTERRUPT:
                    return None
                if code == sqlite3.SQLITE_CORRUPT:
                    return False
                raise
        return said == [("ok",)] and strays is None
