"""The guidance channel: one-way, from vault to door, on a connection of its own.

Door opens it at a press and closes it at the end of the attempt. Only the newest connection is spoken to, and
a door that does not read is not waited for: guidance never delays a decision.
"""

import socket
import threading

from appliance.link.messages import Guidance, Guide, send_message
from appliance.link.sockets import Deadline, LinkError


class GuidanceChannel:
    """Speaks to the door of the attempt that runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._door: socket.socket | None = None

    def attach(self, connection: socket.socket) -> None:
        """Speak to this connection from now on, and close the one before it."""
        with self._lock:
            self._close()
            self._door = connection

    def say(self, guidance: Guidance) -> None:
        """Guide the person; nobody listening is no error."""
        with self._lock:
            if self._door is None:
                return
            try:
                send_message(self._door, Guide(guidance), Deadline(0.05))
            except LinkError:
                self._close()

    def detach(self) -> None:
        """Close the connection; the attempt is over."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None
