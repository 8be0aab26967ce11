"""People, their consents, and the erasure of what the zones hold for them."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints

from appliance.admin.api.house import House, Used
from appliance.admin.registry import consent as consents
from appliance.admin.registry.consent import Act
from appliance.admin.registry.holdings import doom_badges, doom_templates, holds_template
from appliance.admin.registry.people import (
    Person,
    StillHeld,
    add_person,
    find_person,
    list_people,
    remove_person,
)
from appliance.journal import Event

router = APIRouter(prefix="/people", tags=["people"])


class NewPerson(BaseModel):
    """A person to add."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class NewConsent(BaseModel):
    """A consent that the person gave by an act of their own."""

    notice_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$")]
    act: Act


class ConsentOnRecord(BaseModel):
    """A consent, without its id."""

    notice_version: str
    given_at: str
    act: Act
    withdrawn_at: str | None


class Erasure(BaseModel):
    """How an erasure stands: `erased`, or `pending` until vault has acknowledged it."""

    state: str


@router.get("")
def everyone(house: Used) -> list[Person]:
    """Everyone, by name."""
    return list_people(house.registry)


@router.post("", status_code=201)
def add(house: Used, new: NewPerson) -> Person:
    """Add a person."""
    person = add_person(house.registry, new.name)
    house.journal.note(Event.PERSON_ADDED)
    return person


@router.get("/{person_id}")
def one(house: Used, person_id: str) -> Person:
    """One person, by id."""
    return find_person(house.registry, person_id)


@router.delete("/{person_id}", status_code=204)
def remove(house: Used, person_id: str) -> None:
    """Erase a person from every zone, and then from here."""
    person = find_person(house.registry, person_id).id
    _withdraw(house, person)
    doom_badges(house.registry, person)
    if not (house.upkeep.erase_now(person) and house.upkeep.remove_badges_now(person)):
        raise StillHeld("a zone is away and still holds something of this person: ask again when it is back")
    remove_person(house.registry, person)
    house.registry.empty_log()


@router.get("/{person_id}/consents")
def consents_of(house: Used, person_id: str) -> list[ConsentOnRecord]:
    """All consents of a person, the oldest first."""
    person = find_person(house.registry, person_id).id
    return [
        ConsentOnRecord.model_validate(consent, from_attributes=True)
        for consent in consents.list_consents(house.registry, person)
    ]


@router.post("/{person_id}/consents", status_code=201)
def give(house: Used, person_id: str, new: NewConsent) -> ConsentOnRecord:
    """Record a consent."""
    person = find_person(house.registry, person_id).id
    consent = consents.give_consent(house.registry, person, new.notice_version, new.act)
    house.journal.note(Event.CONSENT_GIVEN)
    return ConsentOnRecord.model_validate(consent, from_attributes=True)


@router.delete("/{person_id}/consents")
def withdraw(house: Used, person_id: str) -> Erasure:
    """Withdraw the current consent; the template is erased, and the badges go on."""
    return _withdraw(house, find_person(house.registry, person_id).id)


@router.delete("/{person_id}/template")
def erase(house: Used, person_id: str) -> Erasure:
    """Erase the template alone; the consent stays on record."""
    person = find_person(house.registry, person_id).id
    house.enrolments.cancel(person)
    doom_templates(house.registry, person)
    return _erase(house, person)


def _withdraw(house: House, person: str) -> Erasure:
    house.enrolments.cancel(person)
    if consents.withdraw_consent(house.registry, person):
        house.journal.note(Event.CONSENT_WITHDRAWN)
    return _erase(house, person)


def _erase(house: House, person: str) -> Erasure:
    erased = house.upkeep.erase_now(person) and not holds_template(house.registry, person)
    return Erasure(state="erased" if erased else "pending")
