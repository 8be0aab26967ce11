"""Connections to the local API: whom the kernel vouches for, how many at a time, and no silent ones."""

import asyncio
import collections
import socket
from collections.abc import Collection
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.admin.api.gate import VOUCHED_PEER
from appliance.journal import Event, Journal
from appliance.link.sockets import WrongPeer, check_peer

FIRST_WORD = 10.0
"""Seconds in which a caller must have sent the head of its first call; Uvicorn would wait for ever."""
MOST_CONNECTIONS = 32
"""Connections at a time, of the Unix socket and of loopback each: a flood of one leaves room on the other."""


class _Checked(H11Protocol):
    """HTTP that hangs up at once, on the Unix socket, on a user who is no administrator.

    On loopback the kernel vouches for nobody, and the token decides (`admin.api.gate`).
    """

    allowed: ClassVar[Collection[int]]
    journal: ClassVar[Journal]
    open_now: ClassVar[collections.Counter[int]]

    _refused = True
    _family = -1
    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("socket")
        self._family = peer.family
        self.open_now[self._family] += 1
        try:
            if self.open_now[self._family] > MOST_CONNECTIONS:
                raise ConnectionRefusedError
            if self._family == socket.AF_UNIX:
                check_peer(peer, self.allowed)
                self.app_state = {**self.app_state, VOUCHED_PEER: True}
        except OSError as refusal:
            if isinstance(refusal, WrongPeer):
                self.journal.note(Event.WRONG_PEER)
            transport.abort()
            return
        self._refused = False
        super().connection_made(transport)
        self._silence = self.loop.call_later(FIRST_WORD, self._hang_up_on_silence)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_now[self._family] -= 1
        if self._silence is not None:
            self._silence.cancel()
        # Uvicorn tidies up what `connection_made` began, and for a refused peer it began nothing.
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def _hang_up_on_silence(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def checked_protocol(allowed: Collection[int], journal: Journal) -> type[asyncio.Protocol]:
    """The protocol for a server whose administrators have the user ids `allowed`."""

    class Checked(_Checked):
        pass

    Checked.allowed, Checked.journal, Checked.open_now = allowed, journal, collections.Counter()
    return Checked
