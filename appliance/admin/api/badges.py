"""Badges: equal to the face, and independent of it."""

import enum
import re
from http import HTTPStatus
from typing import Annotated, Self

from fastapi import HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from appliance.admin.accounts import Role
from appliance.admin.api.access import EVERYONE, Calling, allows, router
from appliance.admin.api.house import IdempotencyKey, Used, once
from appliance.admin.api.paging import FIRST, USUAL, After, Limit, Page
from appliance.admin.api.problems import documented
from appliance.admin.api.words import Label
from appliance.admin.registry.holdings import HeldBadge, list_badges
from appliance.admin.registry.once import Kind
from appliance.admin.registry.people import find_person
from appliance.link.messages import (
    MAX_BADGE_BITS,
)

routes = router("/badges", "badges")

_ID = re.compile(r"[0-9a-f]{32}")
_SHOWN: JsonDict = {
    "id": "5f0c9a20b7d4e8663f1c41d07ab3e856",
    "person": "9f2c41d07ab3e856",
    "label": "blue",
    "state": "active",
}


class NewBadge(BaseModel):
    """A badge for a person: the number as the reader sends it, `bits` bits, in hexadecimal."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"person": "9f2c41d07ab3e856", "bits": 26, "number": "1a2b3c", "label": "blue"}]
        },
    )

    person: str
    bits: Annotated[int, Field(strict=True, ge=1, le=MAX_BADGE_BITS)]
    number: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{1,32}$")]
    label: Label = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if int(self.number, 16) >> self.bits:
            raise ValueError(f"the number does not fit in {self.bits} bits")
        return self


class BadgeState(enum.StrEnum):
    """How a badge stands: `removing` until door has acknowledged its removal; it may still open."""

    ACTIVE = "active"
    REMOVING = "removing"


class Badge(BaseModel):
    """A badge; its number is not kept here, and door keeps a pseudonym of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SHOWN]})

    id: str
    person: str
    label: str
    state: BadgeState


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
def list_(
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
    person = find_person(house.registry, new.person).id
    key = once(caller, idempotency_key, Kind.BADGE)
    number = int(new.number, 16)
    return _badge(house.acts.give_badge(person, new.bits, number, new.label, caller.account, key))


@routes.delete("/{badge_id}", responses=documented(HTTPStatus.NOT_FOUND, "There is no such badge."))
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def remove(house: Used, caller: Calling, badge_id: str) -> BadgeRemoval:
    """A badge opens no more. Asked again, it says how the removal stands."""
    removed = house.acts.take_badge(_id(badge_id), caller.account)
    if removed is None:
        raise HTTPException(404, "no such badge: see `drempel badges list`")
    return BadgeRemoval(state=Removal.REMOVED if removed else Removal.PENDING)


def _id(text: str) -> bytes:
    """The id that a text is; no badge has the empty one."""
    return bytes.fromhex(text) if _ID.fullmatch(text) else b""


def _badge(badge: HeldBadge) -> Badge:
    state = BadgeState.REMOVING if badge.removing else BadgeState.ACTIVE
    return Badge(id=badge.id.hex(), person=badge.person, label=badge.label, state=state)
