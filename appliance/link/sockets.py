"""Unix sockets between zones: who is at the other end, and reads that a slow peer cannot stretch.

Every read has one deadline for all of its bytes, so that a peer that sends one byte a second
holds nobody longer than a peer that sends nothing.
"""

import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Collection
from pathlib import Path

from appliance.errors import ConfigurationError, DrempelError

_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class LinkError(DrempelError, ConnectionError):
    """The other zone is away, went away, or spoke something that the link does not know."""


class WrongPeer(LinkError, PermissionError):
    """The process at the other end runs as a user who has no business on this socket."""


class Torn(LinkError, EOFError):
    """The stream ended in the middle of a message."""


class Late(LinkError, TimeoutError):
    """The deadline passed before the message was complete."""


class Malformed(LinkError, ValueError):
    """A message that this channel does not have: unknown type, wrong length, value out of range."""


class Deadline:
    """A point on the monotonic clock, which no change of the wall clock moves."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        """A deadline `seconds` from now."""
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left; zero once it has passed."""
        return max(0.0, self._at - time.monotonic())

    @property
    def overdue(self) -> float:
        """Seconds since it passed; negative before."""
        return time.monotonic() - self._at

    @property
    def passed(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() >= self._at

    def earlier(self, seconds: float) -> "Deadline":
        """The earlier of this deadline and one `seconds` from now."""
        other = Deadline(seconds)
        if other._at < self._at:
            return other
        return self


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel vouches for it (SO_PEERCRED)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    return int(uid)


def check_peer(connection: socket.socket, allowed: Collection[int]) -> None:
    """Refuse a peer whose user id is not among `allowed`.

    Raises:
        WrongPeer: it is not; the caller closes the connection.
    """
    uid = peer_uid(connection)
    if uid not in allowed:
        raise WrongPeer(f"user id {uid} may not speak here: run each zone under its own user (see [users])")


def listen(path: Path, *, backlog: int = 8) -> socket.socket:
    """A listening stream socket at `path`; a stale socket file of a dead process is replaced.

    The file is open to all users of the device on purpose: the kernel's word on the peer's user id,
    checked on each connection, decides, and a refused peer leaves a trace where a permission error
    would not.

    Raises:
        LinkError: the path is longer than a socket address holds, or is something else than a socket.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LinkError(f"{path} exists and is no socket: remove it, or set another [paths] runtime")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise LinkError(
            f"cannot listen on {path}: {error.strerror or error}; check [paths] runtime"
        ) from error
    return listener


def accept(listener: socket.socket, allowed: Collection[int]) -> socket.socket:
    """The next connection from a peer among `allowed`; a wrong one is closed at once.

    Raises:
        WrongPeer: a wrong peer called. Call again.
        TimeoutError: the listener has a timeout, and nobody called in it.
    """
    connection, _ = listener.accept()
    try:
        check_peer(connection, allowed)
    except OSError:
        connection.close()
        raise
    return connection


def connect(path: Path, expected: Collection[int], deadline: Deadline) -> socket.socket:
    """A connection to the zone that listens at `path`, which must run as one of `expected`.

    Raises:
        WrongPeer: another user listens there.
        LinkError: nobody listens there.
        Late: the deadline passed.
    """
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise LinkError(f"no socket for {path.name}: {error.strerror or error}; restart this zone") from error
    try:
        _connect(connection, path, deadline)
        check_peer(connection, expected)
    except TimeoutError as error:
        connection.close()
        raise Late(f"{path.name} did not answer in time: is that zone running?") from error
    except LinkError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        reason = error.strerror or error
        raise LinkError(f"nobody answers at {path}: {reason}; is that zone running?") from error
    return connection


def _connect(connection: socket.socket, path: Path, deadline: Deadline) -> None:
    while True:
        connection.settimeout(_left(deadline))
        try:
            connection.connect(str(path))
        except BlockingIOError:
            # The listener's queue is full, which a socket with a timeout is told at once: unix(7), EAGAIN.
            time.sleep(0.01)
        else:
            return


def read_exact(connection: socket.socket, length: int, deadline: Deadline) -> bytearray:
    """Exactly `length` bytes, in a buffer that the caller owns and can overwrite.

    Raises:
        Torn: the stream ended first.
        Late: the deadline passed first.
    """
    buffer = bytearray(length)
    view = memoryview(buffer)
    got = 0
    while got < length:
        try:
            connection.settimeout(_left(deadline))
            count = connection.recv_into(view[got:])
        except TimeoutError as error:
            raise Late("the other zone stopped in the middle of a message") from error
        except OSError as error:
            raise Torn("the connection broke") from error
        if count == 0:
            raise Torn("the stream ended in the middle of a message")
        got += count
    view.release()
    return buffer


def read_to_end(connection: socket.socket, limit: int, deadline: Deadline) -> bytearray:
    """All bytes until the peer half-closes; at most `limit`, in a buffer that the caller overwrites.

    Raises:
        Malformed: more than `limit` bytes came.
        Late, Torn: the deadline passed, or the connection broke, before the end.
    """
    # One buffer, filled in place and overwritten: one that is shortened may leave its content behind.
    data = bytearray(limit + 1)
    length = 0
    try:
        with memoryview(data) as view:
            while length <= limit:
                connection.settimeout(_left(deadline))
                came = connection.recv_into(view[length:])
                if not came:
                    return bytearray(view[:length])
                length += came
    except TimeoutError as error:
        raise Late("the other zone did not finish its message") from error
    except OSError as error:
        raise Torn("the connection broke") from error
    finally:
        data[:] = bytes(len(data))
    raise Malformed(f"more than {limit} bytes")


def send(connection: socket.socket, data: bytes | bytearray | memoryview, deadline: Deadline) -> None:
    """All of `data`, or an error.

    Raises:
        LinkError: the peer is gone, or did not read before the deadline.
    """
    try:
        connection.settimeout(_left(deadline))
        connection.sendall(data)
    except TimeoutError as error:
        raise Late("the other zone does not read") from error
    except OSError as error:
        raise LinkError("the other zone is gone") from error


def user_ids(*names: str) -> frozenset[int]:
    """The user ids of system users; an empty name means the user who runs this process.

    Raises:
        ConfigurationError: a user does not exist on this device.
    """
    import pwd  # noqa: PLC0415 - only where zones run under users of their own

    found = set()
    for name in names:
        try:
            found.add(pwd.getpwnam(name).pw_uid if name else os.geteuid())
        except KeyError as error:
            raise ConfigurationError(
                f"there is no user {name!r}: create it, or mend [users] in the settings"
            ) from error
    return frozenset(found)


def _left(deadline: Deadline) -> float:
    """What to give `settimeout`: a passed deadline still means 'now', never 'block for ever'."""
    if deadline.passed:
        raise TimeoutError
    return deadline.remaining or 1e-3
