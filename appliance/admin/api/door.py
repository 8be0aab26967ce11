"""The door: how it is, and what happened there, without anyone's name or number."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from appliance.admin.accounts import Caller, Role
from appliance.admin.api.access import EVERYONE, Calling, allows, router
from appliance.admin.api.house import Used
from appliance.admin.api.problems import documented
from appliance.admin.api.words import Moment, words
from appliance.link.events import INSTANCE, MOST_EVENTS, DoorEventKind
from appliance.link.messages import DoorMode, DoorState

routes = router("/door", "door")

DOOR_EXAMPLE: JsonDict = {
    "mode": "locked",
    "readers": 1,
    "readers_up": 1,
    "recognition": True,
    "badges": 31,
    "badge_entries": 112,
    "face_entries": 48,
}
_NOWHERE = "0" * (2 * INSTANCE) + "-0"
_REFUSED = documented(HTTPStatus.CONFLICT, "Door cannot say: see its journal.")


class DoorStatus(BaseModel):
    """Door; entries are counted since its start, without identity.

    Null for an enroller: who asks often enough would follow every passage.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [DOOR_EXAMPLE]})

    mode: Annotated[str, Field(json_schema_extra={"enum": words(DoorMode)})]
    readers: int
    readers_up: int
    recognition: bool
    badges: int
    badge_entries: int | None
    face_entries: int | None


class DoorEvent(BaseModel):
    """Something that happened at the door, and when (UTC); what people do, to the quarter of an hour."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"kind": "unlocked", "at": "2026-11-25T08:59:03+00:00"}]}
    )

    kind: Annotated[str, Field(json_schema_extra={"enum": words(DoorEventKind)})]
    at: Moment


class DoorEvents(BaseModel):
    """Events, the oldest first. Ask with `after` = `next` for what comes later.

    `missed` says that there were events in between that nobody keeps any more: more than 500 came, or door
    was restarted.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [{"kind": "unlocked", "at": "2026-11-25T08:59:03+00:00"}],
                    "next": "b7d4e8663f1c41d0-17",
                    "missed": False,
                }
            ]
        }
    )

    items: list[DoorEvent]
    next: str
    missed: bool


@routes.get("", responses=_REFUSED)
@allows(*EVERYONE)
def get(house: Used, caller: Calling) -> DoorStatus:
    """How door is."""
    return door_status(house.door.state(), caller)


@routes.get("/events", responses=_REFUSED)
@allows(Role.ADMINISTRATOR, Role.AUDITOR)
def list_events(
    house: Used,
    after: Annotated[
        str,
        Field(pattern=rf"^[0-9a-f]{{{2 * INSTANCE}}}-(0|[1-9][0-9]{{0,8}})$"),
        Query(description="The `next` of the answer before; without it, from the oldest that is kept."),
    ] = _NOWHERE,
    limit: Annotated[int, Query(ge=1, le=MOST_EVENTS, description="How many at most.")] = 50,
) -> DoorEvents:
    """What happened at the door lately; ask again for what is new."""
    instance, _, number = after.partition("-")
    found, end = house.door.events(bytes.fromhex(instance), int(number), limit)
    known = int(number) if end.instance.hex() == instance else 0
    last = found[-1].number if found else known
    return DoorEvents(
        items=[
            DoorEvent(kind=event.kind.name.lower(), at=datetime.fromtimestamp(event.at, UTC).isoformat())
            for event in found
        ],
        next=f"{end.instance.hex()}-{last}",
        missed=bool(end.missed),
    )


def door_status(state: DoorState, caller: Caller) -> DoorStatus:
    """Door's state, as it is shown to a caller."""
    counted = caller.role is not Role.ENROLLER
    return DoorStatus(
        mode=state.mode.name.lower(),
        readers=state.readers,
        readers_up=state.readers_up,
        recognition=bool(state.recognition),
        badges=state.badges,
        badge_entries=state.badge_entries if counted else None,
        face_entries=state.face_entries if counted else None,
    )
