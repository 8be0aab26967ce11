"""How a message travels: a type (one byte), the length of its body (two bytes, big-endian), and the body.

The length is fixed by the type, or lies in a small range where the type says so. A reader names the types
that it expects, and anything else is `Malformed`. Integers are big-endian.
"""

import socket
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from appliance.link.sockets import Deadline, Malformed, read_exact, send

_HEADER = struct.Struct("!BH")
HEADER_SIZE = _HEADER.size
"""Bytes before every body."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message without a body; the base of all others.

    A subclass names its `TYPE` and the `LAYOUT` of its body (a `struct` format); its fields are the
    values of that layout, in order. `__post_init__` checks what a layout cannot say.
    """

    TYPE: ClassVar[int]
    LAYOUT: ClassVar[str] = "!"

    def body(self) -> bytes | bytearray | memoryview:
        """The body on the wire."""
        return struct.pack(self.LAYOUT, *(getattr(self, field.name) for field in fields(self)))

    @classmethod
    def from_body(cls, body: bytes | bytearray) -> Self:
        """The message that `body` holds.

        Raises:
            Malformed: wrong length, or a value that this message cannot have.
        """
        try:
            return cls(*struct.unpack(cls.LAYOUT, body))
        except (struct.error, ValueError) as error:
            raise Malformed(f"a malformed {cls.__name__}") from error

    @classmethod
    def lengths(cls) -> range:
        """The body lengths that are possible."""
        size = struct.calcsize(cls.LAYOUT)
        return range(size, size + 1)

    def encode(self) -> bytes:
        """The whole message on the wire."""
        body = self.body()
        return _HEADER.pack(self.TYPE, len(body)) + bytes(body)


@dataclass(frozen=True, slots=True, repr=False)
class Payload(Message):
    """A message of one field, which is its body: bytes that nobody prints, of varying length.

    Sent without a copy; read from a socket, it is a bytearray that its owner overwrites after use.
    """

    LENGTHS: ClassVar[range]

    def __post_init__(self) -> None:
        if len(self.body()) not in self.LENGTHS:
            raise Malformed(f"a {type(self).__name__} of impossible length")

    def body(self) -> bytes | bytearray | memoryview:
        """The field itself."""
        payload: bytes | bytearray | memoryview = getattr(self, fields(self)[0].name)
        return payload

    @classmethod
    def from_body(cls, body: bytes | bytearray) -> Self:
        """The message around these bytes."""
        make: Callable[[bytes | bytearray], Self] = cls  # a subclass has its one field
        return make(body)

    @classmethod
    def lengths(cls) -> range:
        """The body lengths that are possible."""
        return cls.LENGTHS


def parse_header(header: bytes | bytearray, expected: Collection[type[Message]]) -> tuple[type[Message], int]:
    """The kind and body length that a three-byte header announces.

    Raises:
        Malformed: a type that is not among `expected`, or a length that this type cannot have.
    """
    kind_byte, length = _HEADER.unpack(header)
    for kind in expected:
        if kind_byte == kind.TYPE:
            if length not in kind.lengths():
                raise Malformed(f"a {kind.__name__} of impossible length")
            return kind, length
    raise Malformed("a message that this channel does not have")


def read_message(
    connection: socket.socket, expected: Collection[type[Message]], deadline: Deadline
) -> Message:
    """The next message, which must be one of `expected`.

    Raises:
        Torn, Late, Malformed: see `appliance.link.sockets`; close the connection.
    """
    kind, length = parse_header(read_exact(connection, HEADER_SIZE, deadline), expected)
    return kind.from_body(read_exact(connection, length, deadline))


def send_message(connection: socket.socket, message: Message, deadline: Deadline) -> None:
    """Send one message whole.

    Raises:
        LinkError: the peer is gone or does not read.
    """
    body = message.body()
    # In two parts, so that an embedding is never copied into a buffer that nobody overwrites.
    send(connection, _HEADER.pack(message.TYPE, len(body)), deadline)
    if body:
        send(connection, body, deadline)
