"""What the routes work with: the registry, the links to door and vault, and what runs beside them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from appliance.admin.enrolments import Enrolments
from appliance.admin.registry.database import Registry
from appliance.admin.upkeep import Upkeep
from appliance.admin.zones import DoorLink, VaultLink
from appliance.journal import Journal


@dataclass(frozen=True, slots=True)
class House:
    """Everything a route may use."""

    site: str
    registry: Registry
    vault: VaultLink
    door: DoorLink
    enrolments: Enrolments
    upkeep: Upkeep
    journal: Journal


def _house(request: Request) -> House:
    house: House = request.app.state.house
    return house


Used = Annotated[House, Depends(_house)]
"""A route's parameter that gives it the house."""
