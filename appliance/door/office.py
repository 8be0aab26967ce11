"""The counter at which admin is served: one small socket, few callers, short requests.

A caller is heard only if the kernel vouches that it runs as admin. It has one request a connection, and
two seconds for it and its answer: however much it sends, the event loop is soon back at the door.
"""

import asyncio
import socket
from collections.abc import Collection, Sequence

from appliance.door.badges import Badges, BadgesUnreadable, BadgeTaken
from appliance.door.controller import Controller
from appliance.door.guidance import STREAM_LIMIT, read_message_async
from appliance.door.record import Record
from appliance.journal import Event
from appliance.link.events import AskEvents
from appliance.link.framing import Message
from appliance.link.messages import (
    ADMIN_TO_DOOR,
    AddBadge,
    AskDoor,
    Done,
    Refusal,
    Refused,
    RemoveBadge,
)
from appliance.link.sockets import Late, LinkError, Malformed, Torn, check_peer

REQUEST_TIME = 2.0
"""Seconds for one request and its answer."""
MAX_CALLERS = 8
"""Connections at a time."""


class Office:
    """Serves admin at door's socket."""

    def __init__(
        self, controller: Controller, badges: Badges, record: Record, admin: Collection[int]
    ) -> None:
        self._controller = controller
        self._badges = badges
        self._record = record
        self._admin = admin
        self._callers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self, listener: socket.socket) -> None:
        """Begin to serve at `listener`."""
        self._server = await asyncio.start_unix_server(
            self._receive, sock=listener, limit=STREAM_LIMIT, backlog=MAX_CALLERS
        )

    def close(self) -> None:
        """Serve nobody any more."""
        if self._server is not None:
            self._server.close()
        for writer in self._callers:
            writer.transport.abort()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._callers) >= MAX_CALLERS:
            writer.transport.abort()
            return
        self._callers.add(writer)
        try:
            check_peer(writer.get_extra_info("socket"), self._admin)
            await self._serve(reader, writer)
        except (Malformed, Torn):
            self._record.write(Event.HOSTILE_MESSAGE)
        except Late:
            return  # a caller who has nothing more to say, or says it too slowly
        except LinkError:
            self._record.write(Event.WRONG_PEER)
        except OSError:
            return  # the caller left before the answer, or the two seconds did
        finally:
            self._callers.discard(writer)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # `close` would wait for a caller who does not read
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The one request of this connection, where there is one."""
        async with asyncio.timeout(REQUEST_TIME):
            request = await read_message_async(reader, ADMIN_TO_DOOR, REQUEST_TIME)
            if request is None:
                return
            if isinstance(request, AskEvents):
                answers: Sequence[Message] = self._record.recent.answer(request)
            else:
                answers = [await self._answer(request)]
            writer.write(b"".join(answer.encode() for answer in answers))
            await writer.drain()

    async def _answer(self, request: Message) -> Message:
        try:
            match request:
                case AddBadge():
                    number = int.from_bytes(request.number)
                    # On a thread: the disk may take its time, the next badge at the door may not wait.
                    await asyncio.to_thread(self._badges.add, request.badge, request.bits, number)
                    self._record.write(Event.BADGE_ADDED)
                case RemoveBadge():
                    await asyncio.to_thread(self._badges.remove, request.badge)
                    self._record.write(Event.BADGE_REMOVED)
                case AskDoor():
                    return self._controller.state()
                case _:
                    return Refused(Refusal.MALFORMED)
        except BadgeTaken:
            return Refused(Refusal.BADGE_TAKEN)
        except BadgesUnreadable:
            return Refused(Refusal.STORAGE)
        return Done()
