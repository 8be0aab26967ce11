"""Connections to the local API: whom the kernel vouches for, how many at a time, and no silent ones."""

import asyncio
import socket
from collections.abc import Collection
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.admin.api.gate import VOUCHED_PEER
from appliance.journal import Event, Journal
from appliance.link.sockets import check_peer

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
    open_now: ClassVar[dict[int, list["_Checked"]]]
    """By family of the socket: the connections, the oldest first."""

    _refused = True
    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("socket")
        self._others = self.open_now.setdefault(peer.family, [])
        if peer.family == socket.AF_UNIX:
            try:
                check_peer(peer, self.allowed)
            except OSError:
                self.journal.note(Event.WRONG_PEER)
                transport.abort()
                return
            self.app_state = {**self.app_state, VOUCHED_PEER: True}
        if len(self._others) >= MOST_CONNECTIONS and not self._make_room():
            transport.abort()
            return
        self._refused = False
        self._others.append(self)
        super().connection_made(transport)
        self._silence = self.loop.call_later(FIRST_WORD, self._hang_up_on_silence)

    def _make_room(self) -> bool:
        """Hang up on the oldest connection that has asked nothing yet; whether there was one."""
        silent = next((each for each in self._others if each.cycle is None), None)
        if silent is not None:
            self._others.remove(silent)
            silent.transport.abort()
        return silent is not None

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._others:
            self._others.remove(self)
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

    Checked.allowed, Checked.journal, Checked.open_now = allowed, journal, {}
    return Checked
