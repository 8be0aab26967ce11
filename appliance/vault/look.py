"""Vault's side of one look: lens opens its camera, and closes it before the look is over.

Used as a context manager, so that no way out leaves the camera open: closing the connection closes it too.
"""

import select
import socket
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance.errors import DrempelError
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    FROM_LENS,
    CameraClosed,
    CameraOpen,
    CodeRead,
    Embed,
    Finish,
    LensFailed,
    Look,
    Probe,
)
from appliance.link.sockets import Deadline, Malformed, connect
from appliance.vault.keys import wipe

CAMERA_CLOSING = 2.0
"""Seconds that a camera may take to close; later, and the attempt ends without a match."""
MESSAGE_TIME = 0.5
"""Seconds from the first byte of a message to its last."""
SLEPT = 0.003
"""Seconds at the end of a pause that are not polled: a door that hangs up in them is not noticed yet."""
AWAKE = 0.001
"""Seconds before a deadline from which on it is waited for awake."""


class LensGone(DrempelError, ConnectionError):
    """Lens ended the look by itself, with a reason that the lens journal holds."""


class DoorGone(DrempelError, ConnectionError):
    """Door closed its end: nobody waits for this attempt any more."""


class LensLook:
    """One look through the lens."""

    def __init__(self, path: Path, lens: Collection[int], door: socket.socket, whole: Deadline) -> None:
        """A look that ends when `door` hangs up.

        Args:
            path: the lens socket.
            lens: the user ids that lens may have.
            door: the connection of the attempt.
            whole: when the attempt is over; the camera must have opened by then.
        """
        self._path = path
        self._lens_users = lens
        self._door = door
        self._whole = whole
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        """Ask lens to open its camera, and wait until it has.

        Raises:
            LinkError, LensGone, DoorGone: the camera is not open, and nothing waits for it.
        """
        self._connection = connect(self._path, self._lens_users, Deadline(1.0))
        try:
            send_message(self._connection, Look(), Deadline(MESSAGE_TIME))
            opened = self.next(self._whole)
            if not isinstance(opened, CameraOpen):
                raise Malformed("lens did not open its camera")
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; lens closes its camera when it sees that."""
        if self._connection is not None:
            self._connection.close()

    def embed(self, probes: int, *, hints: bool) -> None:
        """Let lens find and embed the face, `probes` times at most."""
        send_message(self._open, Embed(probes, int(hints)), Deadline(MESSAGE_TIME))

    def next(self, deadline: Deadline) -> Message | None:
        """The next message of lens, or None when the deadline passes without one.

        Raises:
            LensGone: lens ended the look.
            DoorGone: door hung up.
            LinkError: torn or malformed.
        """
        connection = self._open
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        # Door has half-closed long ago; a hang-up is reported without asking for it.
        poll.register(self._door, 0)
        for file, events in poll.poll(deadline.remaining * 1000):
            if file == self._door.fileno() and events & (select.POLLHUP | select.POLLERR):
                raise DoorGone("door hung up")
            if file == connection.fileno():
                message = read_message(connection, FROM_LENS, Deadline(MESSAGE_TIME))
                if isinstance(message, LensFailed):
                    raise LensGone(f"lens ended the look: {message.trouble.name.lower().replace('_', ' ')}")
                return message
        return None

    def pause(self, deadline: Deadline) -> None:
        """Wait until the deadline, while lens may talk and door may hang up; what lens says is dropped.

        A poll lasts whole milliseconds from when it began, so that its end would tell, to a fraction of one,
        how long the work before it took. The last of them are waited for to the very deadline.
        """
        while deadline.remaining > SLEPT:
            drop(self.next(deadline.earlier(deadline.remaining - SLEPT)))
        wait_until(deadline)

    def finish(self) -> None:
        """Have the camera closed, and return when lens says that it is.

        Raises:
            LinkError, LensGone: lens did not say so.
        """
        send_message(self._open, Finish(), Deadline(MESSAGE_TIME))
        deadline = Deadline(CAMERA_CLOSING)
        while not deadline.passed:
            message = self.next(deadline)
            if isinstance(message, CameraClosed):
                return
            drop(message)
        raise LensGone("lens did not close its camera in time")

    @property
    def _open(self) -> socket.socket:
        if self._connection is None:
            raise LensGone("the look has not begun")
        return self._connection


def wait_until(deadline: Deadline) -> None:
    """Wait to the very deadline, the last millisecond awake.

    How soon a sleeper is woken depends on what ran shortly before, by some ten microseconds.
    """
    time.sleep(max(0.0, deadline.remaining - AWAKE))
    while not deadline.passed:
        pass


def drop(message: Message | None) -> None:
    """Overwrite what a message that nobody wants any more carries."""
    if isinstance(message, Probe) and isinstance(message.embedding, bytearray):
        wipe(message.embedding)
    if isinstance(message, CodeRead) and isinstance(message.code, bytearray):
        wipe(message.code)
