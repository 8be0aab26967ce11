"""People: who may be given a badge or a template. Their names stay in this zone."""

import secrets
import sqlite3
from dataclasses import dataclass

from appliance.admin.registry.database import Registry
from appliance.admin.registry.moment import now
from appliance.errors import DrempelError


class UnknownPerson(DrempelError, LookupError):
    """There is no person with this id."""


class StillHeld(DrempelError, ValueError):
    """The person has a template or a badge that a zone has not let go of yet."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person: id, name, when added (UTC, ISO 8601), and what the other zones hold for them."""

    id: str
    name: str
    added_at: str
    consent: bool
    template: bool
    badges: int


_SELECT = """
SELECT person.id, person.name, person.added_at,
    EXISTS (SELECT 1 FROM consent WHERE person = person.id AND withdrawn_at IS NULL),
    EXISTS (SELECT 1 FROM template WHERE person = person.id AND state = 'enrolled'),
    (SELECT count(*) FROM badge WHERE person = person.id AND state = 'active')
FROM person
"""


def add_person(registry: Registry, name: str) -> Person:
    """Add a person under a new random id."""
    person = secrets.token_hex(8)
    with registry.transaction() as db:
        db.execute("INSERT INTO person (id, name, added_at) VALUES (?, ?, ?)", (person, name, now()))
    return find_person(registry, person)


def list_people(registry: Registry) -> list[Person]:
    """Everyone, by name."""
    with registry.transaction() as db:
        return [_person(row) for row in db.execute(_SELECT + "ORDER BY person.name, person.id")]


def find_person(registry: Registry, person: str) -> Person:
    """The person with this id. Names are never looked up here, so that none stands in a route.

    Raises:
        UnknownPerson: there is none.
    """
    with registry.transaction() as db:
        row = db.execute(_SELECT + "WHERE person.id = ?", (person,)).fetchone()
    if row is None:
        raise UnknownPerson("no person has this id: see `drempel people list`")
    return _person(row)


def remove_person(registry: Registry, person: str) -> None:
    """Remove a person whom no other zone holds anything of any more, with their consents.

    Raises:
        StillHeld: a template or a badge is still there.
    """
    try:
        with registry.transaction() as db:
            db.execute(
                "DELETE FROM consent WHERE person = ? AND NOT EXISTS "
                "(SELECT 1 FROM template WHERE template.consent = consent.id)",
                (person,),
            )
            db.execute("DELETE FROM person WHERE id = ?", (person,))
    except sqlite3.IntegrityError as error:
        raise StillHeld(
            "a template or badge of this person is not yet erased everywhere: it is being tried; ask again"
        ) from error


def _person(row: tuple[str, str, str, int, int, int]) -> Person:
    person, name, added_at, consent, template, badges = row
    return Person(person, name, added_at, bool(consent), bool(template), badges)
