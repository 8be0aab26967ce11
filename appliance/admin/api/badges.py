"""Badges: equal to the face, and independent of it."""

import enum
from typing import Annotated

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from appliance.admin.api.house import Used
from appliance.admin.registry.holdings import (
    begin_badge,
    complete_badge,
    doom_badge,
    finish_making,
    list_badges,
)
from appliance.admin.registry.people import find_person
from appliance.journal import Event
from appliance.link.messages import (
    MAX_BADGE_BITS,
)

router = APIRouter(prefix="/badges", tags=["badges"])


class NewBadge(BaseModel):
    """A badge for a person: the number as the reader sends it, `bits` bits, in hexadecimal."""

    person: str
    bits: Annotated[int, Field(ge=1, le=MAX_BADGE_BITS)]
    number: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{1,32}$")]
    label: Annotated[str, Field(max_length=40)] = ""


class Badge(BaseModel):
    """A badge; its number is not kept here, and door keeps a pseudonym of it."""

    id: str
    person: str
    label: str


class Removal(enum.StrEnum):
    """How a removal stands."""

    REMOVED = "removed"
    PENDING = "pending"


class BadgeRemoval(BaseModel):
    """How the removal of a badge stands: pending until door has acknowledged it."""

    state: Removal


@router.get("")
def everything(house: Used) -> list[Badge]:
    """All badges."""
    return [
        Badge(id=badge.hex(), person=person, label=label)
        for badge, person, label in list_badges(house.registry)
    ]


@router.post("", status_code=201)
def add(house: Used, new: NewBadge) -> Badge:
    """Let a badge open the door."""
    number = int(new.number, 16)
    if number >> new.bits:
        raise HTTPException(422, f"number: does not fit in {new.bits} bits")
    person = find_person(house.registry, new.person).id
    badge = begin_badge(house.registry, person, new.label)
    try:
        house.door.add_badge(badge, new.bits, number)
        complete_badge(house.registry, badge)
    finally:
        # Where it did not come so far, door may or may not have it: upkeep has it removed.
        finish_making(house.registry, badge)
    house.journal.note(Event.BADGE_ADDED)
    return Badge(id=badge.hex(), person=person, label=new.label)


@router.delete("/{badge}")
def remove(house: Used, badge: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]) -> BadgeRemoval:
    """A badge opens no more."""
    if not doom_badge(house.registry, bytes.fromhex(badge)):
        raise HTTPException(404, "no such badge: see `drempel badges list`")
    house.journal.note(Event.BADGE_REMOVED)
    removed = house.upkeep.remove_badges_now()
    return BadgeRemoval(state=Removal.REMOVED if removed else Removal.PENDING)
