"""What door writes down, on a thread of its own: a slow or full disk never keeps a person waiting."""

import queue
import threading
import time

from appliance.journal import Detail, Event, Journal, JournalError

QUEUE_LENGTH = 512
"""Events that may wait for the disk; the ones after that are counted as lost."""


class Record:
    """The door's journal behind a bounded queue; nothing here blocks or raises."""

    def __init__(self, journal: Journal | None) -> None:
        """Write to `journal`, or, where it could not be opened, only count what is lost."""
        self.lost = 0
        self._journal = journal
        self._waiting: queue.Queue[tuple[Event, dict[str, Detail]] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    def write(self, event: Event, /, **details: Detail) -> None:
        """Have one event written down soon. No detail may tell one badge or person from another."""
        try:
            self._waiting.put_nowait((event, details))
        except queue.Full:
            self.lost += 1

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, for at most `seconds`, and close the journal."""
        until = time.monotonic() + seconds
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return  # the disk hangs; the thread ends with the process
        self._thread.join(max(0.0, until - time.monotonic()))

    def _write_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            event, details = item
            try:
                if self._journal is None:
                    raise JournalError("there is no journal")
                self._journal.write(event, **details)
            except Exception:  # noqa: BLE001 - a full disk, or a detail that may not be written: the door goes on
                self.lost += 1
        if self._journal is not None:
            self._journal.close()
