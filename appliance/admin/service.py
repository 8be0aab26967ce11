"""The admin process: the local HTTP interface on a Unix socket and on loopback, and the upkeep beside it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection, Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.admin.accounts import Accounts
from appliance.admin.api.application import build
from appliance.admin.api.gate import VOUCHED_PEER
from appliance.admin.api.house import Calls, House
from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.database import Registry
from appliance.admin.upkeep import Upkeep
from appliance.admin.zones import DoorLink, VaultLink
from appliance.errors import ConfigurationError
from appliance.journal import Event, Journal
from appliance.link.sockets import WrongPeer, check_peer, listen, user_ids
from appliance.process import begin, on_stop, run_zone
from appliance.settings import Settings

LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 32
"""Connections at a time, of the Unix socket and of loopback each: a flood of one leaves room on the other."""


def checked_protocol(allowed: Collection[int], journal: Journal) -> type[asyncio.Protocol]:
    """HTTP that hangs up at once, on the Unix socket, on a user who is no administrator.

    On loopback the kernel vouches for nobody, and the token decides (`admin.api.gate`).
    """
    open_now = {socket.AF_UNIX: 0, socket.AF_INET: 0}

    class Checked(H11Protocol):
        """One connection, and whom the kernel vouches for at its other end."""

        refused = True
        family = socket.AF_INET

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            peer = transport.get_extra_info("socket")
            self.family = peer.family
            open_now[self.family] += 1
            try:
                if open_now[self.family] > MOST_CONNECTIONS:
                    raise ConnectionRefusedError
                if self.family == socket.AF_UNIX:
                    check_peer(peer, allowed)
                    self.app_state = {**self.app_state, VOUCHED_PEER: True}
            except OSError as refusal:
                if isinstance(refusal, WrongPeer):
                    journal.note(Event.WRONG_PEER)
                transport.abort()
                return
            self.refused = False
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            open_now[self.family] -= 1
            # Uvicorn tidies up what `connection_made` began, and for a refused peer it began nothing.
            if not self.refused:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self.refused:
                super().data_received(data)

    return Checked


def configured(app: FastAPI, administrators: Collection[int], journal: Journal) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        app,
        http=checked_protocol(administrators, journal),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        # What is asked for is nobody's affair but the caller's.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own, which would end the process before it is tidy."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `process.on_stop`."""
        yield

    def stop(self) -> None:
        """Finish the requests that run, and return from `run`."""
        self.should_exit = True


def run(settings: Settings) -> int:
    """Be the admin zone until asked to stop; the exit status of the process, see `run_zone`."""
    return run_zone("admin", lambda: _run(settings))


def _run(settings: Settings) -> int:
    journal = begin(settings, "admin")
    registry = Registry(settings.zone_state("admin") / "registry.db")
    known = Accounts(registry)
    vault = VaultLink(settings.socket("vault/admin"), user_ids(settings.users.vault))
    wall = DoorLink(settings.socket("door/admin"), user_ids(settings.users.door))
    enrolling = Enrolments(registry, vault, journal, settings.recognition.captures)
    upkeep = Upkeep(registry, vault, wall, known)
    house = House(settings, registry, known, vault, wall, enrolling, upkeep, journal, Calls())
    administrators = user_ids(*settings.users.administrators) | {os.geteuid()}
    server = _Server(configured(build(house), administrators, journal))
    listeners = [listen(settings.socket("admin/api"))]
    if settings.api.port:
        listeners.append(_listen_on_loopback(settings.api.port))
    on_stop(server.stop)
    upkeep.start()
    journal.note(Event.STARTED)
    try:
        server.run(sockets=listeners)
    finally:
        enrolling.cancel()
        upkeep.stop()
        registry.close()
    journal.note(Event.STOPPED)
    return 0


def _listen_on_loopback(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on port {port} of loopback: {error.strerror or error}; choose another [api] port"
        ) from error
    return listener
