"""Enrolments: open a window, watch it, and take the token, once.

The shape is that of a fingerprint's enrolment in FIDO: captures that remain, what the person should do
differently, and cancel. The captures themselves are presses of the button at the door, by the person.
"""

import asyncio
import enum
from collections.abc import AsyncIterable
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from appliance.admin.accounts import Role
from appliance.admin.api.access import Calling, allows, router
from appliance.admin.api.house import IdempotencyKey, Used, once
from appliance.admin.api.once import AnswerOnce
from appliance.admin.api.problems import documented
from appliance.admin.api.words import words
from appliance.admin.enrolments import Enrolment, EnrolmentState
from appliance.admin.registry.once import Kind
from appliance.admin.registry.people import find_person
from appliance.admin.zones import ZoneRefused
from appliance.journal import Event
from appliance.link.messages import ClaimKind, Guidance, Refusal

routes = router("/enrolments", "enrolments")

LOOK_AGAIN = 0.1
"""Seconds between two looks at an enrolment that is followed: hints come 0.35 s apart at least."""
NONE = documented(HTTPStatus.NOT_FOUND, "There is no such enrolment, or admin was restarted.")
_FRONT_DESK = (Role.ADMINISTRATOR, Role.ENROLLER)


class Claim(enum.StrEnum):
    """With what the person will claim their template at the door."""

    TOKEN = "token"  # noqa: S105 - a word of the interface
    """A QR code, given out once after the enrolment."""
    CARD = "card"
    """A card's credential of at least 96 secret random bits, held up after each press of the enrolment."""
    NUMBER = "number"
    """A number and a PIN, typed after each press; only where the settings justify tier 3."""


class NewEnrolment(BaseModel):
    """For whom, with what they will claim, and for how long the window stays open."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"person": "9f2c41d07ab3e856", "seconds": 120}]},
    )

    person: str
    claim: Claim = Claim.TOKEN
    seconds: Annotated[int, Field(strict=True, ge=10, le=3600)] = 120


class EnrolmentProgress(BaseModel):
    """How an enrolment stands.

    `remaining` captures are still needed; `guidance` is what the person could do better, or `captured`;
    `problem` says why an enrolment failed.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "7b1e0f6f6c1d4d0b",
                    "state": "failed",
                    "remaining": 3,
                    "guidance": "come_closer",
                    "problem": "nobody was captured in time: open the enrolment again, and press the button",
                }
            ]
        }
    )

    id: str
    state: EnrolmentState
    remaining: int
    guidance: Annotated[str | None, Field(json_schema_extra={"enum": [*words(Guidance), None]})]
    problem: str | None


class TokenOnce(BaseModel):
    """The token's bytes, in base64: what its QR code holds."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "0gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}
    )

    token: str


def _found(house: Used, enrolment_id: str) -> Enrolment:
    return house.enrolments.find(enrolment_id)


Found = Annotated[Enrolment, Depends(_found)]


@routes.post(
    "",
    status_code=201,
    responses={
        **documented(HTTPStatus.NOT_FOUND, "There is no such person."),
        **documented(
            HTTPStatus.CONFLICT, "No consent is on record, another window is open, or no such claim is taken."
        ),
    },
)
@allows(*_FRONT_DESK)
def begin(
    house: Used, caller: Calling, new: NewEnrolment, idempotency_key: IdempotencyKey = None
) -> EnrolmentProgress:
    """Open a window; the person presses the button at the door."""
    person = find_person(house.registry, new.person).id
    if new.claim.value not in house.settings.recognition.claims:
        # Vault has the last word; but nobody is sent to the door first, to be told so there.
        raise ZoneRefused(Refusal.CLAIM_NOT_SERVED)
    key = once(caller, idempotency_key, Kind.ENROLMENT)
    enrolment = house.enrolments.begin(person, new.seconds, key, ClaimKind[new.claim.name])
    house.acts.note(Event.WINDOW_OPENED, caller.account)
    return _progress(enrolment)


@routes.get("/{enrolment_id}", responses=NONE)
@allows(*_FRONT_DESK)
def get(found: Found) -> EnrolmentProgress:
    """How it stands."""
    return _progress(found)


@routes.get("/{enrolment_id}/events", response_class=EventSourceResponse, responses=NONE)
@allows(*_FRONT_DESK)
async def follow(house: Used, caller: Calling, found: Found) -> AsyncIterable[ServerSentEvent]:
    """Follow it as server-sent events, until it is over.

    Each event is `progress`, `done` or `failed`, and its data an EnrolmentProgress. The stream ends after
    the last, and when the account that follows is revoked.
    """
    last: EnrolmentProgress | None = None
    while house.accounts.counts(caller):
        now = _progress(found)
        if now != last:
            yield ServerSentEvent(
                event="progress" if now.state is EnrolmentState.OPEN else now.state.value, data=now
            )
            last = now
        if now.state is not EnrolmentState.OPEN:
            return
        await asyncio.sleep(LOOK_AGAIN)


@routes.delete("/{enrolment_id}", status_code=204, responses=NONE)
@allows(*_FRONT_DESK)
def cancel(house: Used, caller: Calling, enrolment_id: str) -> None:
    """Close the window; a template whose token was not taken yet is erased."""
    house.enrolments.cancel_one(enrolment_id)
    house.acts.note(Event.WINDOW_CLOSED, caller.account)


@routes.post(
    "/{enrolment_id}/token",
    response_model=TokenOnce,
    responses=documented(HTTPStatus.NOT_FOUND, "Not there, or taken."),
)
@allows(*_FRONT_DESK)
def take_token(house: Used, caller: Calling, enrolment_id: str) -> Response:
    """The token, this once: nobody can ask for it again, with whatever key."""
    token = house.enrolments.take_token(enrolment_id)
    house.acts.note(Event.TOKEN_GIVEN, caller.account)
    return AnswerOnce(token)


def _progress(enrolment: Enrolment) -> EnrolmentProgress:
    guidance = enrolment.guidance
    return EnrolmentProgress(
        id=enrolment.id,
        state=enrolment.state,
        remaining=enrolment.remaining,
        guidance=guidance.name.lower() if guidance else None,
        problem=enrolment.problem,
    )
