"""What the other zones hold for a person: handles of templates in vault, ids of badges in door.

Each is written down here before the other zone has it, and until it has let go of it, so that nothing is
ever held there without an owner here.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.admin.registry.consent import require_consent
from appliance.admin.registry.database import Registry
from appliance.admin.registry.once import KeyReused, NotAgain, Once
from appliance.admin.registry.people import require_person
from appliance.admin.registry.slices import Slice, cut
from appliance.link.messages import (
    HANDLE,
)


def begin_template(registry: Registry, person: str, consent: bytes) -> bytes:
    """A new random handle for a template that vault is about to make.

    Raises:
        ConsentError: the consent was withdrawn, or the person erased, a moment ago.
    """
    handle = secrets.token_bytes(HANDLE)
    with registry.transaction() as db:
        require_consent(db, person, consent)
        db.execute(
            "INSERT INTO template (handle, person, consent, state) VALUES (?, ?, ?, 'pending')",
            (handle, person, consent),
        )
        registry.in_the_making.add(handle)
    return handle


def complete_template(registry: Registry, handle: bytes) -> bool:
    """Vault has the template, and the person's earlier one is to be erased.

    Returns:
        False when the consent was withdrawn meanwhile.
    """
    with registry.transaction() as db:
        row = db.execute(
            "SELECT template.person FROM template JOIN consent ON consent.id = template.consent "
            "WHERE handle = ? AND state = 'pending' AND withdrawn_at IS NULL",
            (handle,),
        ).fetchone()
        if row is None:
            return False
        db.execute("UPDATE template SET state = 'erasing' WHERE person = ? AND state = 'enrolled'", row)
        db.execute("UPDATE template SET state = 'enrolled' WHERE handle = ?", (handle,))
    registry.completed.put(handle)
    return True


def enrolled_template(registry: Registry, person: str) -> bytes | None:
    """The handle of a person's template, where there is one that is complete."""
    with registry.transaction() as db:
        row = db.execute(
            "SELECT handle FROM template WHERE person = ? AND state = 'enrolled'", (person,)
        ).fetchone()
    return row[0] if row else None


def doom_templates(registry: Registry, person: str) -> bool:
    """Mark the template of a person for erasure; one that is being made is its watcher's.

    Returns:
        Whether there was one.
    """
    with registry.transaction() as db:
        return (
            db.execute(
                "UPDATE template SET state = 'erasing' WHERE person = ? AND state = 'enrolled'", (person,)
            ).rowcount
            > 0
        )


def doom_template(registry: Registry, handle: bytes) -> None:
    """Mark one template for erasure."""
    with registry.transaction() as db:
        db.execute("UPDATE template SET state = 'erasing' WHERE handle = ?", (handle,))


def doom_all_templates(registry: Registry) -> None:
    """Mark all templates for erasure, as when their keys were destroyed."""
    with registry.transaction() as db:
        db.execute("UPDATE template SET state = 'erasing' WHERE state = 'enrolled'")


def finish_making(registry: Registry, held: bytes) -> None:
    """Nobody makes this handle or badge any more: what is still pending of it was abandoned.

    Never fails: what could not be written down is found by `doom_abandoned`, at the next round or start.
    """
    registry.in_the_making.discard(held)


def doom_abandoned(registry: Registry) -> None:
    """Mark for erasure what was begun and is made by nobody any more: closed windows, unanswered badges."""
    with registry.transaction() as db:
        for handle in _pending(registry, db.execute("SELECT handle FROM template WHERE state = 'pending'")):
            db.execute("UPDATE template SET state = 'erasing' WHERE handle = ?", (handle,))
        for badge in _pending(registry, db.execute("SELECT id FROM badge WHERE state = 'pending'")):
            db.execute("UPDATE badge SET state = 'removing' WHERE id = ?", (badge,))
            # It never was there for who asked: the same call may be made again.
            db.execute("DELETE FROM made WHERE resource = ?", (badge.hex(),))


def _pending(registry: Registry, rows: Iterable[tuple[bytes]]) -> list[bytes]:
    return [held for (held,) in rows if held not in registry.in_the_making]


def holds_template(registry: Registry, person: str) -> bool:
    """Whether vault has, or may have, a template of a person."""
    with registry.transaction() as db:
        return db.execute("SELECT 1 FROM template WHERE person = ?", (person,)).fetchone() is not None


def doomed_templates(registry: Registry, person: str | None = None) -> list[bytes]:
    """The handles that vault still has to erase, of everyone or of one person."""
    return _doomed(registry, "SELECT handle FROM template WHERE state = 'erasing'", person)


def _doomed(registry: Registry, statement: str, person: str | None) -> list[bytes]:
    """What `statement` finds; of one person in a text of its own, or no index would serve it."""
    with registry.transaction() as db:
        if person is None:
            rows = db.execute(statement).fetchall()
        else:
            rows = db.execute(f"{statement} AND person = ?", (person,)).fetchall()
    return [held for (held,) in rows]


def template_erased(registry: Registry, handle: bytes) -> None:
    """Vault has erased it."""
    with registry.transaction() as db:
        db.execute("DELETE FROM template WHERE handle = ? AND state = 'erasing'", (handle,))


def lawful_templates(registry: Registry, after: int, limit: int) -> Slice[bytes]:
    """At most `limit` handles whose consent is current: those that admin vouches for."""
    with registry.transaction() as db:
        rows = db.execute(
            "SELECT template.rowid, handle FROM template JOIN consent ON consent.id = template.consent "
            "WHERE state = 'enrolled' AND withdrawn_at IS NULL AND template.rowid > ? "
            "ORDER BY template.rowid LIMIT ?",
            (after, limit + 1),
        ).fetchall()
    return cut(rows, limit)


def is_lawful(registry: Registry, handle: bytes) -> bool:
    """Whether admin vouches for this template: it is complete, and its consent is current."""
    with registry.transaction() as db:
        row = db.execute(
            "SELECT 1 FROM template JOIN consent ON consent.id = template.consent "
            "WHERE handle = ? AND state = 'enrolled' AND withdrawn_at IS NULL",
            (handle,),
        ).fetchone()
    return row is not None


@dataclass(frozen=True, slots=True)
class HeldBadge:
    """A badge that door has: its id (16 bytes), its person, its label, and whether door is to remove it."""

    id: bytes
    person: str
    label: str
    removing: bool = False


def begin_badge(
    registry: Registry, person: str, label: str, once: Once | None = None
) -> tuple[HeldBadge, bool]:
    """A new random id for a badge that door is about to have.

    Returns:
        The badge, and whether door is still to be given it: False where a call with this `once` did.

    Raises:
        NotAgain: such a call is doing so at this moment, or the badge was removed or its person erased since.
        KeyReused: `once` made something else.
        UnknownPerson: there is no such person.
    """
    badge = HeldBadge(secrets.token_bytes(HANDLE), person, label)
    with registry.transaction() as db:
        made = once.made(db) if once else None
        require_person(db, person)
        if made is not None:
            row = db.execute(
                "SELECT id, person, label, state FROM badge WHERE id = ?", (bytes.fromhex(made),)
            ).fetchone()
            if row is not None and row[1:3] != (person, label):
                raise KeyReused
            if row is not None and row[3] == "active":
                return HeldBadge(*row[:3]), False
            if row is not None and row[0] in registry.in_the_making:
                raise NotAgain("this badge is being added at this moment: ask again in a second")
            if row is None or row[3] == "removing":
                # A late repetition must not bring back a badge that somebody took away.
                raise NotAgain("this badge was removed since: use a new Idempotency-Key to add it again")
            # Still pending, and made by nobody any more: the call before did not come so far. This one goes
            # on with its badge, which door may have already.
            badge = HeldBadge(*row[:3])
        else:
            db.execute(
                "INSERT INTO badge (id, person, label, state) VALUES (?, ?, ?, 'pending')",
                (badge.id, person, label),
            )
            if once:
                once.remember(db, badge.id.hex(), person)
        registry.in_the_making.add(badge.id)
    return badge, True


def complete_badge(registry: Registry, badge: bytes) -> None:
    """Door has it."""
    with registry.transaction() as db:
        db.execute("UPDATE badge SET state = 'active' WHERE id = ? AND state = 'pending'", (badge,))


def doom_badge(registry: Registry, badge: bytes) -> bool | None:
    """Mark a badge for removal.

    Returns:
        True for one that was active, False for one that is being removed already, None where there is none.
    """
    with registry.transaction() as db:
        row = db.execute("SELECT state FROM badge WHERE id = ? AND state <> 'pending'", (badge,)).fetchone()
        if row is None:
            return None
        db.execute("UPDATE badge SET state = 'removing' WHERE id = ?", (badge,))
    return bool(row[0] == "active")


def doom_badges(registry: Registry, person: str) -> None:
    """Mark all badges of a person for removal; one that door is being given is left to who gives it."""
    with registry.transaction() as db:
        db.execute("UPDATE badge SET state = 'removing' WHERE person = ? AND state = 'active'", (person,))


def doomed_badges(registry: Registry, person: str | None = None) -> list[bytes]:
    """The ids that door still has to remove, of everyone or of one person."""
    return _doomed(registry, "SELECT id FROM badge WHERE state = 'removing'", person)


def badge_removed(registry: Registry, badge: bytes) -> None:
    """Door has removed it; that it was is kept, so that no backup brings it back."""
    with registry.transaction() as db:
        if db.execute("DELETE FROM badge WHERE id = ? AND state = 'removing'", (badge,)).rowcount:
            db.execute("INSERT OR IGNORE INTO removed_badge VALUES (?)", (badge,))


def list_badges(registry: Registry, after: int, limit: int, person: str | None = None) -> Slice[HeldBadge]:
    """At most `limit` badges that door has, the oldest first; only those of a person, where one is given.

    One that door was asked to remove, and has not removed yet, is among them: it may still open.
    """
    whose, values = ("", ()) if person is None else ("person = ? AND ", (person,))
    with registry.transaction() as db:
        rows = db.execute(
            "SELECT rowid, id, person, label, state = 'removing' FROM badge WHERE "  # noqa: S608 - our words
            f"{whose} state <> 'pending' AND rowid > ? ORDER BY rowid LIMIT ?",
            (*values, after, limit + 1),
        ).fetchall()
    return cut([(row[0], HeldBadge(row[1], row[2], row[3], bool(row[4]))) for row in rows], limit)
