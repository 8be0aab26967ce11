import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from appliance.admin.accounts import Accounts
from appliance.admin.acts import Acts
from appliance.admin.api.application import build
from appliance.admin.api.gate import VOUCHED_PEER
from appliance.admin.api.house import House
from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.database import Registry
from appliance.admin.upkeep import Upkeep
from appliance.admin.zones import DoorLink, VaultLink
from appliance.journal import Journal
from appliance.settings import Settings
from tests.admin.scripted_zones import ScriptedZone, zone_at


class Http:
    """Calls the routes as a client would, without a socket."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.vouched = True

    def request(self, method: str, route: str, **values: Any) -> httpx.Response:
        async def vouched(scope: Scope, receive: Receive, send: Send) -> None:
            # What the server notes of a connection to the Unix socket.
            await self._app({**scope, "state": {VOUCHED_PEER: self.vouched}}, receive, send)

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(vouched, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://drempel") as client:
                return await client.request(method, route, **values)

        return asyncio.run(call())

    get = partialmethod(request, "GET")
    post = partialmethod(request, "POST")
    put = partialmethod(request, "PUT")
    delete = partialmethod(request, "DELETE")


@dataclass
class Office:
    """The admin zone without its process: the routes, and a scripted vault and door where a test has them."""

    folder: Path
    house: House
    http: Http
    upkeep: Upkeep
    log: Journal

    @property
    def vault_socket(self) -> Path:
        return self.folder / "vault" / "admin.sock"

    @property
    def door_socket(self) -> Path:
        return self.folder / "door" / "admin.sock"

    def journal(self) -> str:
        return (self.folder / "journal.jsonl").read_text(encoding="utf-8")

    def add(self, name: str, *, consent: bool = False) -> str:
        """A person, with or without a consent; their id."""
        person: str = self.http.post("/people", json={"name": name}).json()["id"]
        if consent:
            given = {"notice_version": "2026-1", "act": "signed-paper"}
            assert self.http.post(f"/people/{person}/consents", json=given).status_code == 201
        return person


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry.db")
    yield registry
    registry.close()


@pytest.fixture
def office(short_folder: Path, registry: Registry, me: frozenset[int]) -> Iterator[Office]:
    journal = Journal(short_folder / "journal.jsonl", sync=False)
    vault = VaultLink(short_folder / "vault" / "admin.sock", me)
    door = DoorLink(short_folder / "door" / "admin.sock", me)
    enrolments = Enrolments(registry, vault, journal, 2)
    accounts = Accounts(registry)
    upkeep = Upkeep(registry, vault, door, accounts)
    acts = Acts(registry, vault, door, enrolments, upkeep, journal)
    house = House(Settings(), registry, accounts, vault, door, enrolments, acts)
    yield Office(short_folder, house, Http(build(house, journal)), upkeep, journal)
    enrolments.cancel()
    journal.close()


@pytest.fixture
def vault(office: Office) -> Iterator[ScriptedZone]:
    with zone_at(office.vault_socket, ScriptedZone()) as zone:
        yield zone


@pytest.fixture
def door(office: Office) -> Iterator[ScriptedZone]:
    with zone_at(office.door_socket, ScriptedZone()) as zone:
        yield zone
