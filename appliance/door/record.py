"""What door writes down, on a thread of its own: a slow or full disk never keeps a person waiting."""

import queue
import threading
import time

from appliance.door.recent import Recent
from appliance.journal import STRANGERS, Detail, Event, Journal, Tally

QUEUE_LENGTH = 512
"""Events that may wait for the disk; the ones after that are counted as lost."""
STRANGERS_LENGTH = 64
"""Events that may wait when one of strangers is added: the rest of the room is the door's own."""
LOST_RETRY = 5.0
"""Seconds between two tries to write how many lines were lost."""


class Record:
    """The door's journal behind a bounded queue; nothing here blocks or raises."""

    def __init__(self, journal: Journal | None) -> None:
        """Write to `journal`, or, where it could not be opened, only count what is lost."""
        self.recent = Recent()
        self._journal = journal
        self._strangers = Tally()
        self._counting = threading.Lock()
        self._lost = 0
        self._told = 0
        self._waiting: queue.Queue[tuple[Event, dict[str, Detail]] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many lines were lost since the door started."""
        return self._lost

    def write(self, event: Event, /, **details: Detail) -> None:
        """Have one event written down soon. No detail may tell one badge or person from another.

        An event of strangers becomes one line a minute at most, with the number of them.
        """
        self.recent.add(event, details)
        if event in STRANGERS:
            count = self._strangers.add(event)
            if not count:
                return
            details["count"] = count
            if self._waiting.qsize() >= STRANGERS_LENGTH:
                self._lose()
                return
        try:
            self._waiting.put_nowait((event, details))
        except queue.Full:
            self._lose()

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, for at most `seconds`, and close the journal."""
        until = time.monotonic() + seconds
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return  # the disk hangs; the thread ends with the process
        self._thread.join(max(0.0, until - time.monotonic()))

    def _lose(self) -> None:
        with self._counting:
            self._lost += 1

    def _write_all(self) -> None:
        while True:
            try:
                item = self._waiting.get(timeout=LOST_RETRY if self._lost > self._told else None)
            except queue.Empty:
                self._tell_lost()
                continue
            if item is None:
                break
            self._tell_lost()
            event, details = item
            if not self._take(event, details):
                self._lose()
        for event, count in self._strangers.rest().items():
            self._take(event, {"count": count})
        self._tell_lost()
        if self._journal is not None:
            self._journal.close()

    def _tell_lost(self) -> None:
        """Write how many lines were lost since it was last written, as soon as the disk takes it."""
        lost = self._lost
        if lost > self._told and self._take(Event.LINES_LOST, {"count": lost - self._told}):
            self._told = lost

    def _take(self, event: Event, details: dict[str, Detail]) -> bool:
        """Whether the disk took one line."""
        if self._journal is None:
            return False
        try:
            self._journal.write(event, **details)
        except Exception:  # noqa: BLE001 - a full disk, or a detail that may not be written: the door goes on
            return False
        return True
