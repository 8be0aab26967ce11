"""What the routes work with: the registry, the links to door and vault, and what runs beside them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from appliance.admin.accounts import Accounts, Caller
from appliance.admin.acts import Acts
from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.database import Registry
from appliance.admin.registry.once import Kind, Once
from appliance.admin.zones import DoorLink, VaultLink
from appliance.settings import Settings


@dataclass(frozen=True, slots=True)
class House:
    """Everything a route may use."""

    settings: Settings
    registry: Registry
    accounts: Accounts
    vault: VaultLink
    door: DoorLink
    enrolments: Enrolments
    acts: Acts


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


def once(caller: Caller, key: str | None, kind: Kind) -> Once | None:
    """The idempotency key of a call, where it has one."""
    return None if key is None else Once(caller.account, key, kind)
