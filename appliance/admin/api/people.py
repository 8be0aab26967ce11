"""People, their consents, and the erasure of what the zones hold for them."""

import enum
from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from appliance.admin.accounts import Role
from appliance.admin.api.access import EVERYONE, Calling, allows, router
from appliance.admin.api.house import IdempotencyKey, Used, once
from appliance.admin.api.paging import FIRST, USUAL, After, Limit, Page
from appliance.admin.api.problems import documented
from appliance.admin.api.words import Moment, Name
from appliance.admin.registry import consent as consents
from appliance.admin.registry.consent import Act, Consent
from appliance.admin.registry.once import Kind
from appliance.admin.registry.people import Person as PersonOnRecord
from appliance.admin.registry.people import add_person, find_person, list_people
from appliance.journal import Event

routes = router("/people", "people")

NOBODY = documented(HTTPStatus.NOT_FOUND, "There is no such person.")


class NewPerson(BaseModel):
    """A person to add."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Ada Byron"}]})

    name: Name


class Sought(BaseModel):
    """Whom to look for: a name, whole and exact. Sent as a body, since addresses may be logged."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Ada Byron"}]})

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
    added_at: Moment
    consent: bool
    template: bool
    badges: int


class NewConsent(BaseModel):
    """A consent that the person gave by an act of their own."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"notice_version": "2026-1", "act": "signed-paper"}]},
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
    given_at: Moment
    act: Act
    withdrawn_at: Moment | None


class ErasureState(enum.StrEnum):
    """How an erasure stands."""

    ERASED = "erased"
    PENDING = "pending"


class Erasure(BaseModel):
    """How an erasure stands: `erased`, or `pending` until vault has acknowledged it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "erased"}]})

    state: ErasureState


@routes.get("")
@allows(*EVERYONE)
def list_(house: Used, after: After = FIRST, limit: Limit = USUAL) -> Page[Person]:
    """Everyone, in the order in which they were added."""
    found = list_people(house.registry, after, limit)
    return Page(items=[_person(each) for each in found.items], next=found.next)


@routes.post("", status_code=201)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def add(house: Used, caller: Calling, new: NewPerson, idempotency_key: IdempotencyKey = None) -> Person:
    """Add a person."""
    key = once(caller, idempotency_key, Kind.PERSON)
    person, fresh = add_person(house.registry, new.name, key)
    if fresh:
        house.acts.note(Event.PERSON_ADDED, caller.account)
    return _person(person)


@routes.post("/search")
@allows(*EVERYONE)
def search(house: Used, sought: Sought, after: After = FIRST, limit: Limit = USUAL) -> Page[Person]:
    """Everyone of this name."""
    found = list_people(house.registry, after, limit, sought.name)
    return Page(items=[_person(each) for each in found.items], next=found.next)


@routes.get("/{person_id}", responses=NOBODY)
@allows(*EVERYONE)
def get(house: Used, person_id: str) -> Person:
    """One person, by id."""
    return _person(find_person(house.registry, person_id))


@routes.delete(
    "/{person_id}",
    status_code=204,
    responses={**NOBODY, **documented(HTTPStatus.CONFLICT, "A zone is away and still holds something.")},
)
@allows(Role.ADMINISTRATOR)
def erase(house: Used, caller: Calling, person_id: str) -> None:
    """Erase a person from every zone, and then from here."""
    house.acts.erase_person(find_person(house.registry, person_id).id, caller.account)


@routes.get("/{person_id}/consents", responses=NOBODY)
@allows(*EVERYONE)
def list_consents(
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
def give_consent(
    house: Used, caller: Calling, person_id: str, new: NewConsent, idempotency_key: IdempotencyKey = None
) -> ConsentOnRecord:
    """Record a consent."""
    key = once(caller, idempotency_key, Kind.CONSENT)
    person = find_person(house.registry, person_id).id
    consent, fresh = consents.give_consent(house.registry, person, new.notice_version, new.act, key)
    if fresh:
        house.acts.note(Event.CONSENT_GIVEN, caller.account)
    return _consent(consent)


@routes.delete("/{person_id}/consents", responses=NOBODY)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def withdraw_consent(house: Used, caller: Calling, person_id: str) -> Erasure:
    """Withdraw the current consent; the template is erased, and the badges go on."""
    return _erasure(house.acts.withdraw(find_person(house.registry, person_id).id, caller.account))


@routes.delete("/{person_id}/template", responses=NOBODY)
@allows(Role.ADMINISTRATOR, Role.ENROLLER)
def erase_template(house: Used, caller: Calling, person_id: str) -> Erasure:
    """Erase the template alone; the consent stays on record."""
    return _erasure(house.acts.erase_template(find_person(house.registry, person_id).id, caller.account))


def _erasure(erased: bool) -> Erasure:  # noqa: FBT001 - one value
    return Erasure(state=ErasureState.ERASED if erased else ErasureState.PENDING)


def _person(person: PersonOnRecord) -> Person:
    return Person.model_validate(person)


def _consent(consent: Consent) -> ConsentOnRecord:
    return ConsentOnRecord.model_validate(consent)
