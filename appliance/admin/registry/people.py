"""People: who may be given a badge or a template. Their names stay in this zone."""

import secrets
import sqlite3
from dataclasses import dataclass

from appliance.admin.registry.database import Registry
from appliance.admin.registry.moment import now
from appliance.admin.registry.once import KeyReused, Once
from appliance.admin.registry.slices import Slice, cut
from appliance.errors import DrempelError

_NOBODY = "no person has this id: see `drempel people list`"


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
SELECT person.rowid, person.id, person.name, person.added_at,
    EXISTS (SELECT 1 FROM consent WHERE person = person.id AND withdrawn_at IS NULL),
    EXISTS (SELECT 1 FROM template WHERE person = person.id AND state = 'enrolled'),
    (SELECT count(*) FROM badge WHERE person = person.id AND state = 'active')
FROM person
"""


def add_person(registry: Registry, name: str, once: Once | None = None) -> tuple[Person, bool]:
    """Add a person under a new random id.

    Returns:
        The person, and whether they are new: False where a call with this `once` added them before.

    Raises:
        KeyReused: `once` made something else.
    """
    with registry.transaction() as db:
        made = once.made(db) if once else None
        if made is not None:
            before = _find(db, made)
            if before.name != name:
                raise KeyReused
            return before, False
        person = secrets.token_hex(8)
        db.execute("INSERT INTO person (id, name, added_at) VALUES (?, ?, ?)", (person, name, now()))
        if once:
            once.remember(db, person, person)
        return _find(db, person), True


def list_people(registry: Registry, after: int, limit: int, name: str | None = None) -> Slice[Person]:
    """At most `limit` people, in the order in which they were added; only those of `name`, where it is given.

    Args:
        registry: where they are.
        after: what the slice before gave as `next`; 0 for the first.
        limit: how many at most.
        name: exactly this name.
    """
    named, values = ("", ()) if name is None else ("person.name = ? AND ", (name,))
    with registry.transaction() as db:
        rows = db.execute(
            f"{_SELECT} WHERE {named} person.rowid > ? ORDER BY person.rowid LIMIT ?",
            (*values, after, limit + 1),
        ).fetchall()
    return cut([(row[0], _person(row)) for row in rows], limit)


def find_person(registry: Registry, person: str) -> Person:
    """The person with this id. Names are never looked up here, so that none stands in a route.

    Raises:
        UnknownPerson: there is none.
    """
    with registry.transaction() as db:
        return _find(db, person)


def remove_person(registry: Registry, person: str) -> None:
    """Remove a person whom no other zone holds anything of any more, with their consents.

    That somebody with this id was erased is kept, so that no backup brings them back.

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
            if db.execute("DELETE FROM person WHERE id = ?", (person,)).rowcount:
                db.execute("INSERT OR IGNORE INTO erased_person VALUES (?)", (person,))
            registry.log_holds_erased = True
    except sqlite3.IntegrityError as error:
        raise StillHeld(
            "a template or badge of this person is not yet erased everywhere: it is being tried; ask again"
        ) from error


def require_person(db: sqlite3.Connection, person: str) -> None:
    """Within a transaction: the person is there, and stays until it ends.

    Raises:
        UnknownPerson: there is none with this id.
    """
    if db.execute("SELECT 1 FROM person WHERE id = ?", (person,)).fetchone() is None:
        raise UnknownPerson(_NOBODY)


def _find(db: sqlite3.Connection, person: str) -> Person:
    row = db.execute(_SELECT + "WHERE person.id = ?", (person,)).fetchone()
    if row is None:
        raise UnknownPerson(_NOBODY)
    return _person(row)


def _person(row: tuple[int, str, str, str, int, int, int]) -> Person:
    _, person, name, added_at, consent, template, badges = row
    return Person(person, name, added_at, bool(consent), bool(template), badges)
