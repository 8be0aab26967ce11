"""What vault lets the person at the door know: read here, shown on the lamps, and never believed.

Guidance has a connection of its own beside the decision's. Whatever comes over it, or does not, changes
a lamp and nothing else.
"""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self

from appliance.link.framing import HEADER_SIZE, Message, parse_header
from appliance.link.messages import (
    TO_DOOR_GUIDANCE,
    Guidance,
    Guide,
)
from appliance.link.sockets import Late, LinkError, Torn, check_peer

CONNECT_TIME = 0.25
"""Seconds in which vault must take the connection; without it the attempt goes on unguided."""
STREAM_LIMIT = 256
"""Bytes that a stream of another zone may hold ready for us; no message here is longer."""
MAX_GUIDANCE = 100
"""Guidance of one attempt; a vault that says more is not heard out."""


async def read_message_async(
    reader: asyncio.StreamReader, expected: Collection[type[Message]], seconds: float
) -> Message | None:
    """The next message, which must be one of `expected`; None where the stream ends between messages.

    Args:
        reader: the stream.
        expected: the types that this channel has.
        seconds: the deadline for the whole message.

    Raises:
        Late, Torn, Malformed: see `appliance.link.sockets`; close the connection.
    """
    try:
        async with asyncio.timeout(seconds):
            header = await reader.read(1)
            if not header:
                return None
            header += await reader.readexactly(HEADER_SIZE - 1)
            kind, length = parse_header(header, expected)
            return kind.from_body(await reader.readexactly(length))
    except TimeoutError as error:
        if isinstance(error, LinkError):
            raise
        raise Late("the other zone stopped in the middle of a message") from error
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        if isinstance(error, LinkError):
            raise
        raise Torn("the stream ended in the middle of a message") from error


class GuidanceChannel:
    """One attempt's guidance."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, path: Path, vault: Collection[int]) -> Self | None:
        """The channel at `path`, or None where vault is away, slow or another user."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_TIME):
                reader, writer = await asyncio.open_unix_connection(path, limit=STREAM_LIMIT)
            check_peer(writer.get_extra_info("socket"), vault)
        except OSError:  # TimeoutError and LinkError are among them
            if writer is not None:
                writer.transport.abort()
            return None
        return cls(reader, writer)

    async def follow(self, show: Callable[[Guidance], None], seconds: float) -> None:
        """Show each guidance until the stream ends, `seconds` have passed, or something else comes.

        After `MAX_GUIDANCE` it ends too.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            for _ in range(MAX_GUIDANCE):
                left = until - loop.time()
                if left <= 0:
                    return
                message = await read_message_async(self._reader, TO_DOOR_GUIDANCE, left)
                if not isinstance(message, Guide):
                    return
                show(message.guidance)
                # A stream that has bytes ready never suspends its reader: the next badge comes first.
                await asyncio.sleep(0)
        except LinkError:
            return  # the attempt goes on without it
        finally:
            self.close()

    def close(self) -> None:
        """End it at once, whatever vault still has to say."""
        self._writer.transport.abort()
