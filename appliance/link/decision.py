"""The decision channel: one question, one byte, one connection an attempt.

Door opens a connection to vault, writes a verb and the claim it has (or none), half-closes, and
reads until the end of the stream or its own deadline. Exactly `01`, alone and complete, is a
match; everything else in the world is none. A late answer, or one to an earlier press, cannot open
a later door, because it arrives on a connection that nobody reads any more.
"""

import asyncio
import enum
import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from appliance.link.sockets import Deadline, Malformed, check_peer, read_to_end, send

MAX_CLAIM = 64
"""Bytes of a claim that passes through door: a card credential, or a number with its PIN.

A QR claim never passes through door.
"""

REQUEST_TIME = 1.0
"""Seconds within which door must have written its whole request."""


DESTROY = b"destroy the keys"
"""What a `TAMPER` says beside its verb: no byte that went wrong on its way destroys anything."""


class Verb(enum.IntEnum):
    """What door asks of vault."""

    ATTEMPT = 0x01
    """Verify the person who pressed, or capture them where an enrolment window is open."""
    WITHDRAW = 0x02
    """Erase the template of the claim; never opens."""
    TAMPER = 0x03
    """The device is being tampered with: destroy the keys; never opens. `DESTROY` stands for the claim."""


class Answer(enum.IntEnum):
    """The one bit, as it stands on the wire."""

    NO_MATCH = 0x00
    MATCH = 0x01


@dataclass(frozen=True, slots=True)
class Request:
    """A verb and the claim that door has; `claim` is empty where it has none (0 to 64 bytes)."""

    verb: Verb
    claim: bytes | bytearray = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """The bytes on the wire: the verb, then the claim.

        Raises:
            Malformed: the claim is longer than 64 bytes.
        """
        if len(self.claim) > MAX_CLAIM:
            raise Malformed(f"a claim has at most {MAX_CLAIM} bytes")
        return bytes([self.verb]) + self.claim

    @classmethod
    def decode(cls, data: bytes | bytearray) -> "Request":
        """The request in `data`; its claim is a copy, for its owner to overwrite.

        Raises:
            Malformed: empty, too long, or an unknown verb.
        """
        if not 1 <= len(data) <= 1 + MAX_CLAIM:
            raise Malformed("a request is a verb and at most 64 bytes")
        try:
            request = cls(Verb(data[0]), bytearray(memoryview(data)[1:]))
        except ValueError as error:
            raise Malformed("an unknown verb") from error
        if request.verb is Verb.TAMPER and request.claim != DESTROY:
            raise Malformed("a verb that stands alone")
        return request


async def ask(path: Path, vault: Collection[int], request: Request, seconds: float) -> bool:
    """Ask vault, and give its answer; door's side.

    Args:
        path: vault's decision socket.
        vault: the user ids that vault may have.
        request: what is asked.
        seconds: door's own deadline for the whole exchange.

    Returns:
        True for a match. False for everything else: no match, two bytes, no byte, another byte, a
        timeout, a torn connection, a wrong user at the other end, or nobody there.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path)
            check_peer(_socket(writer), vault)
            writer.write(request.encode())
            await writer.drain()
            writer.write_eof()
            # Three bytes at most are ever taken in: two already mean no.
            answer = bytearray()
            while len(answer) <= 1 and (part := await reader.read(2)):
                answer += part
            return answer == bytes([Answer.MATCH])
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            # Abort, not close: a peer that does not read must not keep this connection alive.
            writer.transport.abort()


def read_request(connection: socket.socket) -> Request:
    """The request on a fresh connection; vault's side.

    Raises:
        LinkError: torn, late or malformed; close the connection without a byte.
    """
    data = read_to_end(connection, 1 + MAX_CLAIM, Deadline(REQUEST_TIME))
    try:
        return Request.decode(data)
    finally:
        data[:] = bytes(len(data))


def write_answer(connection: socket.socket, answer: Answer) -> None:
    """The one byte, and the end of the stream; vault's side, its last act in an attempt.

    Raises:
        LinkError: door is gone.
    """
    send(connection, bytes([answer]), Deadline(REQUEST_TIME))
    connection.close()


def _socket(writer: asyncio.StreamWriter) -> socket.socket:
    """The socket under a stream."""
    transport_socket: socket.socket = writer.get_extra_info("socket")
    return transport_socket
