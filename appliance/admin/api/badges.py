"""Badges: equal to the face, and independent of it."""

import enum
from http import HTTPStatus
from typing import Annotated

from fastapi import HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from appliance.admin.accounts import Role
from appliance.admin.api.access import EVERYONE, Calling, allows, router
from appliance.admin.api.house import IdempotencyKey, Used
from appliance.admin.api.paging import FIRST, USUAL, After, Limit, Page
from appliance.admin.api.problems import documented
from appliance.admin.api.words import Label
from appliance.admin.registry.holdings import (
    HeldBadge,
    begin_badge,
    complete_badge,
    doom_badge,
    finish_making,
    list_badges,
)
from appliance.admin.registry.once import Kind
from appliance.admin.registry.people import find_person
from appliance.journal import Event
from appliance.link.messages import (
    MAX_BADGE_BITS,
)

routes = router("/badges", "badges")

_SHOWN: JsonDict = {"id": "5f0c9a20b7d4e8663f1c41d07ab3e856", "person": "9f2c41d07ab3e856", "label": "blue"}


class NewBadge(BaseModel):
    """A badge for a person: the number as the reader sends it, `bits` bits, in hexadecimal."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"person": "9f2c41d07ab3e856", "bits": 26, "number": "1a2b3c", "label": "blue"}]
        }
    )

    person: str
    bits: Annotated[int, Field(ge=1, le=MAX_BADGE_BITS)]
    number: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{1,32}$")]
    label: Label = ""


class Badge(BaseModel):
    """A badge; its number is not kept here, and door keeps a pseudonym of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SHOWN]})

    id: str
    person: str
    label: str


class Removal(enum.StrEnum):
    """How a removal stands."""

    REMOVED = "removed"
    PENDING = "pending"


class BadgeRemoval(BaseModel):
    """How the removal of a badge stands: pending until door has acknowledged it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "removed"}]})

    state: Removal


@routes.get("")
@allows(*EVERYONE)
def everything(
    house: Used,
    person: Annotated[str | None, Query(description="Only those of the person with this id.")] = None,
    after: After = FIRST,
    limit: Limit = USUAL,
) -> Page[Badge]:
    """All badges."""
    found = list_badges(house.registry, after, limit, person)
    return Page(items=[_badge(each) for each in found.items], next=found.next)


@routes.post(
    "",
    status_code=201,
    responses={
        **documented(HTTPStatus.NOT_FOUND, "There is no such person."),
        **documented(HTTPStatus.CONFLICT, "The number is another badge's."),
    },
)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def add(house: Used, caller: Calling, new: NewBadge, idempotency_key: IdempotencyKey = None) -> Badge:
    """Let a badge open the door."""
    number = int(new.number, 16)
    if number >> new.bits:
        raise HTTPException(422, f"number: does not fit in {new.bits} bits")
    once = house.calls.once(caller, idempotency_key, Kind.BADGE, new)
    person = find_person(house.registry, new.person).id
    badge, fresh = begin_badge(house.registry, person, new.label, once)
    if not fresh:
        return _badge(badge)
    try:
        house.door.add_badge(badge.id, new.bits, number)
        complete_badge(house.registry, badge.id)
    finally:
        # Where it did not come so far, door may or may not have it: upkeep has it removed.
        finish_making(house.registry, badge.id)
    house.note(Event.BADGE_ADDED, caller)
    return _badge(badge)


@routes.delete("/{badge}", responses=documented(HTTPStatus.NOT_FOUND, "There is no such badge."))
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def remove(
    house: Used, caller: Calling, badge: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
) -> BadgeRemoval:
    """A badge opens no more."""
    if not doom_badge(house.registry, bytes.fromhex(badge)):
        raise HTTPException(404, "no such badge: see `drempel badges list`")
    house.note(Event.BADGE_REMOVED, caller)
    removed = house.upkeep.remove_badges_now()
    return BadgeRemoval(state=Removal.REMOVED if removed else Removal.PENDING)


def _badge(badge: HeldBadge) -> Badge:
    return Badge(id=badge.id.hex(), person=badge.person, label=badge.label)
