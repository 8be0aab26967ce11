"""Enrolments: open a window, watch it, and take the token, once."""

import base64
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from appliance.admin.api.house import Used
from appliance.admin.enrolments import Enrolment, EnrolmentState
from appliance.admin.registry.people import find_person

router = APIRouter(prefix="/enrolments", tags=["enrolments"])


class NewEnrolment(BaseModel):
    """For whom, and for how long the window stays open."""

    person: str
    seconds: Annotated[int, Field(ge=10, le=3600)] = 120


class EnrolmentProgress(BaseModel):
    """How an enrolment stands; `guidance` is what the person could do better."""

    id: str
    state: EnrolmentState
    remaining: int
    guidance: str | None
    problem: str | None


class TokenOnce(BaseModel):
    """The token's bytes, in base64."""

    token: str


@router.post("", status_code=201)
def begin(house: Used, new: NewEnrolment) -> EnrolmentProgress:
    """Open a window; the person presses the button at the door."""
    person = find_person(house.registry, new.person).id
    return _progress(house.enrolments.begin(person, new.seconds))


@router.get("/{enrolment}")
def watch(house: Used, enrolment: str) -> EnrolmentProgress:
    """How it stands."""
    return _progress(house.enrolments.find(enrolment))


@router.delete("/{enrolment}", status_code=204)
def cancel(house: Used, enrolment: str) -> None:
    """Close the window; a template whose token was not taken yet is erased."""
    house.enrolments.cancel_one(enrolment)


@router.post("/{enrolment}/token")
def take_token(house: Used, enrolment: str, response: Response) -> TokenOnce:
    """The token, this once: nobody can ask for it again."""
    response.headers["Cache-Control"] = "no-store"
    token = house.enrolments.take_token(enrolment)
    answer = TokenOnce(token=base64.b64encode(token).decode())
    token[:] = bytes(len(token))
    return answer


def _progress(enrolment: Enrolment) -> EnrolmentProgress:
    guidance = enrolment.guidance
    return EnrolmentProgress(
        id=enrolment.id,
        state=enrolment.state,
        remaining=enrolment.remaining,
        guidance=guidance.name.lower() if guidance else None,
        problem=enrolment.problem,
    )
