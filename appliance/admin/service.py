"""The admin process: the local HTTP interface on a Unix socket, and the upkeep beside it."""

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.admin.api import badges, enrolments, people, problems, status
from appliance.admin.api.house import House
from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.database import Registry
from appliance.admin.upkeep import Upkeep
from appliance.admin.zones import DoorLink, VaultLink
from appliance.journal import Event, Journal
from appliance.link.sockets import WrongPeer, check_peer, listen, user_ids
from appliance.process import begin, on_stop, run_zone
from appliance.settings import Settings


def build(house: House) -> FastAPI:
    """The application."""
    app = FastAPI(title="Drempel", docs_url=None, redoc_url=None, description="The local API of one door.")
    app.state.house = house
    for router in (people.router, enrolments.router, badges.router, status.router):
        app.include_router(router)
    problems.install(app)
    return app


def checked_protocol(allowed: Collection[int], journal: Journal) -> type[asyncio.Protocol]:
    """HTTP that hangs up at once on a user who is no administrator."""

    class Checked(H11Protocol):
        """One connection; the kernel vouches for who is at the other end."""

        refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            try:
                check_peer(transport.get_extra_info("socket"), allowed)
            except WrongPeer:
                journal.note(Event.WRONG_PEER)
                self.refused = True
                transport.abort()
                return
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            # Uvicorn tidies up what `connection_made` began, and for a refused peer it began nothing.
            if not self.refused:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self.refused:
                super().data_received(data)

    return Checked


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
    vault = VaultLink(settings.socket("vault/admin"), user_ids(settings.users.vault))
    door = DoorLink(settings.socket("door/admin"), user_ids(settings.users.door))
    enrolling = Enrolments(registry, vault, journal, settings.recognition.captures)
    upkeep = Upkeep(registry, vault, door)
    house = House(settings.site.name, registry, vault, door, enrolling, upkeep, journal)
    administrators = user_ids(*settings.users.administrators) | {os.geteuid()}
    server = _Server(
        uvicorn.Config(
            build(house),
            http=checked_protocol(administrators, journal),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_level="warning",
            # Paths may hold a name.
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )
    listener = listen(settings.socket("admin/api"))
    on_stop(server.stop)
    upkeep.start()
    journal.note(Event.STARTED)
    try:
        server.run(sockets=[listener])
    finally:
        enrolling.cancel()
        upkeep.stop()
        registry.close()
    journal.note(Event.STOPPED)
    return 0
