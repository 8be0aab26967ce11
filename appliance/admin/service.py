"""The admin process: the local HTTP interface on a Unix socket and on loopback, and the upkeep beside it."""

import contextlib
import os
import socket
import sys
from collections.abc import Collection, Iterator

import uvicorn
from fastapi import FastAPI

from appliance.admin.accounts import Accounts
from appliance.admin.acts import Acts
from appliance.admin.api.application import build
from appliance.admin.api.house import House
from appliance.admin.connections import checked_protocol
from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.database import Registry
from appliance.admin.upkeep import Upkeep
from appliance.admin.zones import DoorLink, VaultLink
from appliance.journal import Event, Journal
from appliance.link.sockets import listen, user_ids
from appliance.process import begin, on_stop, run_zone
from appliance.settings import Settings

LOOPBACK = "127.0.0.1"


def configured(app: FastAPI, administrators: Collection[int], journal: Journal) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        app,
        http=checked_protocol(administrators, journal),
        ws="none",
        loop="asyncio",
        lifespan="off",
        # Its log is open to whoever connects, and may quote what they sent: faults are told by the gate.
        log_config=None,
        log_level="critical",
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
    acts = Acts(registry, vault, wall, enrolling, upkeep, journal)
    house = House(settings, registry, known, vault, wall, enrolling, acts)
    administrators = user_ids(*settings.users.administrators) | {os.geteuid()}
    server = _Server(configured(build(house, journal), administrators, journal))
    listeners = [listen(settings.socket("admin/api"))]
    listeners += _loopback(settings.api.port)
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


def _loopback(port: int) -> list[socket.socket]:
    """The listener on loopback, where the settings ask for one and its port is free.

    Any user of the device may hold a port: that must not keep the commands and the leases from working.
    """
    if not port:
        return []
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        print(
            f"drempel admin: goes on without loopback: port {port}: {error.strerror or error}; free it and "
            "restart admin, or choose another [api] port",
            file=sys.stderr,
        )
        return []
    return [listener]
