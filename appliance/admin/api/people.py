"""People, their consents, and the erasure of what the zones hold for them."""

from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from appliance.admin.accounts import Caller, Role
from appliance.admin.api.access import EVERYONE, Calling, allows, router
from appliance.admin.api.house import House, IdempotencyKey, Used
from appliance.admin.api.paging import FIRST, USUAL, After, Limit, Page
from appliance.admin.api.problems import documented
from appliance.admin.api.words import Name
from appliance.admin.registry import consent as consents
from appliance.admin.registry.consent import Act, Consent
from appliance.admin.registry.holdings import doom_badges, doom_templates, holds_template
from appliance.admin.registry.once import Kind
from appliance.admin.registry.people import Person as PersonOnRecord
from appliance.admin.registry.people import StillHeld, add_person, find_person, list_people, remove_person
from appliance.journal import Event

routes = router("/people", "people")

NOBODY = documented(HTTPStatus.NOT_FOUND, "There is no such person.")


class NewPerson(BaseModel):
    """A person to add."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada Byron"}]})

    name: Name


class Sought(BaseModel):
    """Whom to look for: a name, whole and exact. Sent as a body, since addresses may be logged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada Byron"}]})

    name: Name


class Person(BaseModel):
    """A person, and what is held for them: a current consent, a template, and how many badges."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "9f2c41d07ab3e856",
                    "name": "Ada Byron",
                    "added_at": "2026-11-25T09:00:00+00:00",
                    "consent": True,
                    "template": False,
                    "badges": 1,
                }
            ]
        },
    )

    id: str
    name: str
    added_at: str
    consent: bool
    template: bool
    badges: int


class NewConsent(BaseModel):
    """A consent that the person gave by an act of their own."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"notice_version": "2026-1", "act": "signed-paper"}]}
    )

    notice_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$")]
    act: Act


class ConsentOnRecord(BaseModel):
    """A consent, without its id."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "notice_version": "2026-1",
                    "given_at": "2026-11-25T09:00:00+00:00",
                    "act": "signed-paper",
                    "withdrawn_at": "2026-12-01T16:20:00+00:00",
                }
            ]
        },
    )

    notice_version: str
    given_at: str
    act: Act
    withdrawn_at: str | None


class Erasure(BaseModel):
    """How an erasure stands: `erased`, or `pending` until vault has acknowledged it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "erased"}]})

    state: Annotated[str, Field(pattern="^(erased|pending)$")]


@routes.get("")
@allows(*EVERYONE)
def everyone(house: Used, after: After = FIRST, limit: Limit = USUAL) -> Page[Person]:
    """Everyone, in the order in which they were added."""
    found = list_people(house.registry, after, limit)
    return Page(items=[_person(each) for each in found.items], next=found.next)


@routes.post("", status_code=201)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def add(house: Used, caller: Calling, new: NewPerson, idempotency_key: IdempotencyKey = None) -> Person:
    """Add a person."""
    once = house.calls.once(caller, idempotency_key, Kind.PERSON, new)
    person, fresh = add_person(house.registry, new.name, once)
    if fresh:
        house.note(Event.PERSON_ADDED, caller)
    return _person(person)


@routes.post("/search")
@allows(*EVERYONE)
def search(house: Used, sought: Sought, after: After = FIRST, limit: Limit = USUAL) -> Page[Person]:
    """Everyone of this name."""
    found = list_people(house.registry, after, limit, sought.name)
    return Page(items=[_person(each) for each in found.items], next=found.next)


@routes.get("/{person_id}", responses=NOBODY)
@allows(*EVERYONE)
def one(house: Used, person_id: str) -> Person:
    """One person, by id."""
    return _person(find_person(house.registry, person_id))


@routes.delete(
    "/{person_id}",
    status_code=204,
    responses={**NOBODY, **documented(HTTPStatus.CONFLICT, "A zone is away and still holds something.")},
)
@allows(Role.ADMINISTRATOR)
def remove(house: Used, caller: Calling, person_id: str) -> None:
    """Erase a person from every zone, and then from here."""
    person = find_person(house.registry, person_id).id
    _withdraw(house, caller, person)
    doom_badges(house.registry, person)
    if not (house.upkeep.erase_now(person) and house.upkeep.remove_badges_now(person)):
        raise StillHeld("a zone is away and still holds something of this person: ask again when it is back")
    remove_person(house.registry, person)
    house.registry.empty_log()
    house.note(Event.PERSON_ERASED, caller)


@routes.get("/{person_id}/consents", responses=NOBODY)
@allows(*EVERYONE)
def consents_of(
    house: Used, person_id: str, after: After = FIRST, limit: Limit = USUAL
) -> Page[ConsentOnRecord]:
    """All consents of a person, the oldest first."""
    person = find_person(house.registry, person_id).id
    found = consents.list_consents(house.registry, person, after, limit)
    return Page(items=[_consent(each) for each in found.items], next=found.next)


@routes.post(
    "/{person_id}/consents",
    status_code=201,
    responses={**NOBODY, **documented(HTTPStatus.CONFLICT, "A consent is on record already.")},
)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def give(
    house: Used, caller: Calling, person_id: str, new: NewConsent, idempotency_key: IdempotencyKey = None
) -> ConsentOnRecord:
    """Record a consent."""
    once = house.calls.once(caller, idempotency_key, Kind.CONSENT, person_id, new)
    person = find_person(house.registry, person_id).id
    consent, fresh = consents.give_consent(house.registry, person, new.notice_version, new.act, once)
    if fresh:
        house.note(Event.CONSENT_GIVEN, caller)
    return _consent(consent)


@routes.delete("/{person_id}/consents", responses=NOBODY)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def withdraw(house: Used, caller: Calling, person_id: str) -> Erasure:
    """Withdraw the current consent; the template is erased, and the badges go on."""
    return _withdraw(house, caller, find_person(house.registry, person_id).id)


@routes.delete("/{person_id}/template", responses=NOBODY)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def erase(house: Used, caller: Calling, person_id: str) -> Erasure:
    """Erase the template alone; the consent stays on record."""
    person = find_person(house.registry, person_id).id
    house.enrolments.cancel(person)
    doom_templates(house.registry, person)
    house.note(Event.ERASED, caller)
    return _erase(house, person)


def _withdraw(house: House, caller: Caller, person: str) -> Erasure:
    house.enrolments.cancel(person)
    if consents.withdraw_consent(house.registry, person):
        house.note(Event.CONSENT_WITHDRAWN, caller)
    return _erase(house, person)


def _erase(house: House, person: str) -> Erasure:
    erased = house.upkeep.erase_now(person) and not holds_template(house.registry, person)
    return Erasure(state="erased" if erased else "pending")


def _person(person: PersonOnRecord) -> Person:
    return Person.model_validate(person)


def _consent(consent: Consent) -> ConsentOnRecord:
    return ConsentOnRecord.model_validate(consent)
