"""The guidance channel: one-way, from vault to door, on a connection of its own.

Door opens it at a press, before it asks, and closes it at the end of the attempt. A door that does not read
is not waited for: guidance never delays a decision.
"""

import socket
import threading
from collections.abc import Callable

from appliance.link.framing import send_message
from appliance.link.messages import (
    Guidance,
    Guide,
)
from appliance.link.sockets import Deadline, LinkError

FRESH_TIME = 0.1
"""Seconds that an attempt waits for its guidance connection, which door opens just before it."""

Say = Callable[[Guidance], None]
"""Guides the person of one attempt."""


class GuidanceChannel:
    """Gives each attempt the connection that door opened for it, and to no later one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: socket.socket | None = None
        self._speaking: socket.socket | None = None

    def attach(self, connection: socket.socket) -> None:
        """Keep a fresh connection for the attempt that is about to begin."""
        with self._changed:
            if self._waiting is not None:
                self._waiting.close()
            self._waiting = connection
            self._changed.notify_all()

    def begin(self) -> Say:
        """Take the fresh connection for the attempt that begins; without one, nothing is said.

        What an earlier attempt still says goes to its own connection, which is closed here.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None, FRESH_TIME)
            if self._speaking is not None:
                self._speaking.close()
            self._speaking, self._waiting = self._waiting, None
            door = self._speaking

        def say(guidance: Guidance) -> None:
            if door is None:
                return
            try:
                send_message(door, Guide(guidance), Deadline(0.05))
            except LinkError:
                # Door reads no more: its own affair, and never a decision's.
                door.close()

        return say

    def close(self) -> None:
        """Let go of both connections."""
        with self._changed:
            for connection in (self._waiting, self._speaking):
                if connection is not None:
                    connection.close()
            self._waiting = self._speaking = None
