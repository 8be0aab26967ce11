"""Consent: given by an act of the person, to one version of the notice; without it there is no template."""

import enum
import secrets
import sqlite3
from dataclasses import dataclass

from appliance.admin.registry.database import Registry
from appliance.admin.registry.moment import now
from appliance.errors import DrempelError
from appliance.link.messages import (
    HANDLE,
)


class Act(enum.StrEnum):
    """How the person gave consent: always an active act of their own (C2)."""

    SIGNED_PAPER = "signed-paper"
    SIGNED_SCREEN = "signed-screen"


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


def give_consent(registry: Registry, person: str, notice_version: str, act: Act) -> Consent:
    """Write down a consent.

    Raises:
        ConsentError: the person has a current consent already.
    """
    consent = Consent(secrets.token_bytes(HANDLE), person, notice_version, now(), act, None)
    try:
        with registry.transaction() as db:
            db.execute(
                "INSERT INTO consent (id, person, notice_version, given_at, act) VALUES (?, ?, ?, ?, ?)",
                (consent.id, person, notice_version, consent.given_at, act.value),
            )
    except sqlite3.IntegrityError as error:
        raise ConsentError("this person's consent is on record already: withdraw it first") from error
    return consent


def current_consent(registry: Registry, person: str) -> Consent:
    """The consent that is current.

    Raises:
        ConsentError: there is none.
    """
    with registry.transaction() as db:
        row = db.execute(
            "SELECT id, person, notice_version, given_at, act, withdrawn_at FROM consent "
            "WHERE person = ? AND withdrawn_at IS NULL",
            (person,),
        ).fetchone()
    if row is None:
        raise ConsentError("no consent of this person is on record: record it with `drempel consent give`")
    consent, whose, version, given_at, act, withdrawn_at = row
    return Consent(consent, whose, version, given_at, Act(act), withdrawn_at)


def list_consents(registry: Registry, person: str) -> list[Consent]:
    """All consents of a person, the oldest first."""
    with registry.transaction() as db:
        rows = db.execute(
            "SELECT id, person, notice_version, given_at, act, withdrawn_at FROM consent "
            "WHERE person = ? ORDER BY given_at",
            (person,),
        ).fetchall()
    return [Consent(row[0], row[1], row[2], row[3], Act(row[4]), row[5]) for row in rows]


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
