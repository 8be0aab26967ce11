"""The lease: for how long admin has vouched that a record's legal ground is current (design §7).

Leases live in memory, on a clock that runs on through sleep and that no change of the wall clock moves.
A restart forgets them all; admin notices and vouches anew. Whatever is lost errs towards not recognising.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.link.messages import (
    MAX_LEASE,
)


class Leases:
    """Which handles have a current ground; safe to use from several threads."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}
        self._lock = threading.RLock()

    def grant(self, handle: bytes, seconds: int) -> None:
        """Vouch for a handle for `seconds` from now (at most an hour); 0 ends it at once."""
        with self._lock:
            if seconds <= 0:
                self._until.pop(handle, None)
            else:
                self._until[handle] = _now() + min(seconds, MAX_LEASE)

    def end(self, handle: bytes) -> None:
        """End a lease; waits for a decision that holds it (`while_current`) to be sent."""
        self.grant(handle, 0)

    def end_all(self) -> None:
        """End every lease."""
        with self._lock:
            self._until.clear()

    def current(self, handle: bytes) -> bool:
        """Whether the lease of a handle runs."""
        with self._lock:
            return self._until.get(handle, 0.0) > _now()

    def count(self) -> int:
        """How many leases run."""
        with self._lock:
            now = _now()
            return sum(until > now for until in self._until.values())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold all leases as they are: what is looked at and what is granted or ended stay one act."""
        with self._lock:
            yield

    @contextmanager
    def while_current(self, handle: bytes) -> Iterator[bool]:
        """Hold a handle's lease as it is, while a decision that rests on it is sent.

        An erasure that comes meanwhile waits, so that no match leaves after it was acknowledged.
        """
        with self._lock:
            yield self.current(handle)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
