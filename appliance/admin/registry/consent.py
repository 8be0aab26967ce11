"""Consent: given by an act of the person, to one version of the notice; without it there is no template."""

import enum
import secrets
import sqlite3
from dataclasses import dataclass

from appliance.admin.registry.database import Registry
from appliance.admin.registry.moment import now
from appliance.admin.registry.once import KeyReused, Once
from appliance.admin.registry.people import require_person
from appliance.admin.registry.slices import Slice, cut
from appliance.errors import DrempelError
from appliance.link.messages import (
    HANDLE,
)


class Act(enum.StrEnum):
    """How the person gave consent: always an active act of their own (C2)."""

    SIGNED_PAPER = "signed-paper"
    SIGNED_SCREEN = "signed-screen"


_NONE = "no consent of this person is on record: record it with `drempel consent give`"


class ConsentError(DrempelError, ValueError):
    """There is no consent where one is needed, or one already where none may be."""


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent on record: its id (16 bytes), the notice's version, when (UTC) and by which act."""

    id: bytes
    person: str
    notice_version: str
    given_at: str
    act: Act
    withdrawn_at: str | None


_SELECT = "SELECT rowid, id, person, notice_version, given_at, act, withdrawn_at FROM consent "


def give_consent(
    registry: Registry, person: str, notice_version: str, act: Act, once: Once | None = None
) -> tuple[Consent, bool]:
    """Write down a consent.

    Returns:
        The consent, and whether it is new: False where a call with this `once` wrote it down before.

    Raises:
        ConsentError: the person has a current consent already.
        KeyReused: `once` made something else.
    """
    consent = Consent(secrets.token_bytes(HANDLE), person, notice_version, now(), act, None)
    try:
        with registry.transaction() as db:
            made = once.made(db) if once else None
            if made is not None:
                row = db.execute(_SELECT + "WHERE id = ?", (bytes.fromhex(made),)).fetchone()
                before = _consent(row)
                if (before.person, before.notice_version, before.act) != (person, notice_version, act):
                    raise KeyReused
                return before, False
            require_person(db, person)
            db.execute(
                "INSERT INTO consent (id, person, notice_version, given_at, act) VALUES (?, ?, ?, ?, ?)",
                (consent.id, person, notice_version, consent.given_at, act.value),
            )
            if once:
                once.remember(db, consent.id.hex(), person)
    except sqlite3.IntegrityError as error:
        raise ConsentError("this person's consent is on record already: withdraw it first") from error
    return consent, True


def current_consent(registry: Registry, person: str) -> Consent:
    """The consent that is current.

    Raises:
        ConsentError: there is none.
    """
    with registry.transaction() as db:
        row = db.execute(_SELECT + "WHERE person = ? AND withdrawn_at IS NULL", (person,)).fetchone()
    if row is None:
        raise ConsentError(_NONE)
    return _consent(row)


def require_consent(db: sqlite3.Connection, person: str, consent: bytes) -> None:
    """Within a transaction: this consent of this person is current, and stays so until it ends.

    Raises:
        ConsentError: it is not.
    """
    row = db.execute(
        "SELECT 1 FROM consent WHERE id = ? AND person = ? AND withdrawn_at IS NULL", (consent, person)
    ).fetchone()
    if row is None:
        raise ConsentError(_NONE)


def list_consents(registry: Registry, person: str, after: int, limit: int) -> Slice[Consent]:
    """At most `limit` consents of a person, the oldest first, from after the place `after` on."""
    with registry.transaction() as db:
        rows = db.execute(
            _SELECT + "WHERE person = ? AND rowid > ? ORDER BY rowid LIMIT ?", (person, after, limit + 1)
        ).fetchall()
    return cut([(row[0], _consent(row)) for row in rows], limit)


def withdraw_consent(registry: Registry, person: str) -> bool:
    """Withdraw the current consent, and mark the person's template for erasure, in one transaction.

    A template that is being made right now stays *pending*: who watches its window finds the consent gone,
    and has it erased. Erased earlier, it could still come into being afterwards, without an owner.

    Returns:
        Whether there was a consent to withdraw.
    """
    with registry.transaction() as db:
        withdrawn = db.execute(
            "UPDATE consent SET withdrawn_at = ? WHERE person = ? AND withdrawn_at IS NULL", (now(), person)
        ).rowcount
        db.execute("UPDATE template SET state = 'erasing' WHERE person = ? AND state = 'enrolled'", (person,))
    return withdrawn > 0


def _consent(row: tuple[int, bytes, str, str, str, str, str | None]) -> Consent:
    _, consent, person, notice_version, given_at, act, withdrawn_at = row
    return Consent(consent, person, notice_version, given_at, Act(act), withdrawn_at)
