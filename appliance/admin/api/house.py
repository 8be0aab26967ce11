"""What the routes work with: the registry, the links to door and vault, and what runs beside them."""

import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from appliance.admin.accounts import Accounts, Caller
from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.database import Registry
from appliance.admin.registry.once import KeyReused, Kind, Once
from appliance.admin.upkeep import Upkeep
from appliance.admin.zones import DoorLink, VaultLink
from appliance.journal import Event, Journal
from appliance.settings import Settings

MOST_CALLS = 4096
"""Idempotency keys whose calls are remembered; the oldest gives way."""


class Calls:
    """What was asked under which idempotency key, as a keyed hash and in memory alone.

    It tells a call that is made again from another call with the same key. On a disk, the hash of a badge's
    26 bits would be the number itself to whoever tries them all.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._asked: dict[Once, bytes] = {}

    def once(self, caller: Caller, key: str | None, kind: Kind, *asked: str | BaseModel) -> Once | None:
        """The idempotency key of a call, where it has one.

        Raises:
            KeyReused: something else was asked with it before.
        """
        if key is None:
            return None
        once = Once(caller.account, key, kind)
        text = "\n".join(each if isinstance(each, str) else each.model_dump_json() for each in asked)
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        with self._lock:
            if not hmac.compare_digest(self._asked.setdefault(once, digest), digest):
                raise KeyReused
            if len(self._asked) > MOST_CALLS:
                del self._asked[next(iter(self._asked))]
        return once


@dataclass(frozen=True, slots=True)
class House:
    """Everything a route may use."""

    settings: Settings
    registry: Registry
    accounts: Accounts
    vault: VaultLink
    door: DoorLink
    enrolments: Enrolments
    upkeep: Upkeep
    journal: Journal
    calls: Calls

    def note(self, event: Event, caller: Caller) -> None:
        """Write an administrative act down, with the number of the account that did it."""
        self.journal.note(event, account=caller.account)


def _house(request: Request) -> House:
    house: House = request.app.state.house
    return house


Used = Annotated[House, Depends(_house)]
"""A route's parameter that gives it the house."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[A-Za-z0-9._:-]{1,64}$",
        description="Chosen by the caller, new for each call: the same call made again within a day makes "
        "nothing twice, and is answered as the first was.",
        examples=["5b8f6f0e-7a44-4d0b-9a0c-0b7e0f6f6c1d"],
    ),
]
"""A route's parameter: the header `Idempotency-Key`."""
