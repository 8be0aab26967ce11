"""What a restored registry may bring back: nothing that was withdrawn, erased or removed since the backup.

A restored registry is the one of the backup, less what the registry in force knows to have ended since: its
*tombstones*. They are replayed in a draft, before any zone sees it:

- a person who was erased since is not there; a consent that was withdrawn since is withdrawn;
- a badge that was taken away since is not there, nor one that door's part of the backup lacks, nor one that
  was given since;
- vault's templates are in no backup. One stays enrolled where both registries know it and its consent is
  current in both; all others of either are marked for erasure, which vault is asked for at the next start;
- an account that ended since has ended, and so has one that was made since;
- who came since stays on record with their consents, for what a person decided is never undone by a restore,
  and so that every template that vault may hold has an owner here.

Without a registry in force (a new device; a damaged file), nobody knows what ended since: then every
template is marked for erasure, and it is for the caller to say so.
"""

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.admin.registry.database import SCHEMA, TABLES, UPGRADES
from appliance.admin.registry.moment import now
from appliance.database import DatabaseUnusable, open_database
from appliance.errors import ConfigurationError


class AnotherRegistry(ConfigurationError):
    """The registry in force holds people, and is not an earlier or later state of the one in the backup."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many of each: in the restored registry, and what the tombstones kept out of it.

    `templates_to_erase` counts what vault is asked to erase, `later_people` who came since the backup.
    """

    people: int
    badges: int
    consents_withdrawn_since: int
    people_erased_since: int
    badges_not_restored: int
    templates_kept: int
    templates_to_erase: int
    later_people: int


_PEOPLE = """
-- A person erased since: what they had is gone, or vault and door would not have let them be erased.
CREATE TEMP TABLE erased AS
    SELECT id FROM current.erased_person UNION SELECT id FROM main.erased_person;
CREATE TEMP TABLE known AS SELECT handle, consent FROM current.template WHERE state = 'enrolled';
DELETE FROM main.made;
DELETE FROM main.template WHERE person IN (SELECT id FROM current.erased_person);
DELETE FROM main.badge WHERE person IN (SELECT id FROM current.erased_person);
DELETE FROM main.consent WHERE person IN (SELECT id FROM current.erased_person);
DELETE FROM main.person WHERE id IN (SELECT id FROM current.erased_person);
INSERT OR IGNORE INTO main.erased_person SELECT id FROM current.erased_person;
-- Who came since.
INSERT OR IGNORE INTO main.person SELECT * FROM current.person;
"""
_CONSENTS = """
-- Withdrawn in one of the two is withdrawn.
UPDATE main.consent SET withdrawn_at = (SELECT withdrawn_at FROM current.consent WHERE id = main.consent.id)
    WHERE withdrawn_at IS NULL
    AND id IN (SELECT id FROM current.consent WHERE withdrawn_at IS NOT NULL);
-- One that only the backup knows, beside another that is current: two registries went their own ways.
UPDATE main.consent SET withdrawn_at = :now WHERE withdrawn_at IS NULL
    AND id NOT IN (SELECT id FROM current.consent)
    AND person IN (SELECT person FROM current.consent WHERE withdrawn_at IS NULL);
INSERT INTO main.consent (id, person, notice_version, given_at, act, withdrawn_at)
    SELECT id, person, notice_version, given_at, act, withdrawn_at FROM current.consent
    WHERE id NOT IN (SELECT id FROM main.consent) ORDER BY rowid;
UPDATE main.consent SET withdrawn_at = :now
    WHERE withdrawn_at IS NULL AND person IN (SELECT id FROM temp.erased);
"""
_TEMPLATES = """
UPDATE main.template SET state = 'erasing' WHERE state = 'enrolled' AND (
    handle NOT IN (SELECT handle FROM temp.known)
    OR consent IN (SELECT id FROM main.consent WHERE withdrawn_at IS NOT NULL));
-- The backup caught a window that was open, and is not any more.
UPDATE main.template SET state = 'erasing' WHERE state = 'pending';
INSERT OR IGNORE INTO main.template
    SELECT handle, person, consent, 'erasing' FROM current.template ORDER BY rowid;
"""
_BADGES = """
INSERT OR IGNORE INTO main.removed_badge SELECT id FROM current.removed_badge;
INSERT OR IGNORE INTO main.removed_badge SELECT id FROM current.badge WHERE state <> 'active';
"""
_ACCOUNTS = """
UPDATE main.account SET token = NULL,
    ended_at = (SELECT ended_at FROM current.account WHERE id = main.account.id)
    WHERE token IS NOT NULL AND id IN (SELECT id FROM current.account WHERE token IS NULL);
-- Made since: on record, as ended. The journal knows accounts by their number, which stays theirs if it can.
INSERT INTO main.account (number, id, label, role, created_at, expires_at, ended_at, token)
    SELECT CASE WHEN number IN (SELECT number FROM main.account) THEN NULL ELSE number END,
        id, label, role, created_at, expires_at, coalesce(ended_at, :now), NULL
    FROM current.account WHERE id NOT IN (SELECT id FROM main.account) ORDER BY number;
"""


def replay(draft: Path, current: Path | None, door_badges: Collection[bytes]) -> tuple[Replayed, set[bytes]]:
    """Turn `draft`, a backup's registry, into the one to put in force.

    Args:
        draft: the file, which no process uses; when this returns, it is whole and on its own (no log).
        current: a copy of the registry in force, which no process uses; None where there is none to be read.
        door_badges: the ids of the badges that door's part of the backup has, and may have again.

    Returns:
        Counts, and the ids of the badges that door may have: no others.

    Raises:
        AnotherRegistry: see there.
        DatabaseUnusable: one of them is damaged, or of a newer Drempel.
    """
    with _opened(draft) as db:
        if current is None:
            kept_out = _alone(db)
        else:
            # Brought to this schema, where it was left by an older Drempel.
            open_database(current, SCHEMA, TABLES, UPGRADES).close()
            db.execute("ATTACH ? AS current", (str(current),))
            kept_out = _replay_current(db)
        before = _count(db, "badge WHERE state = 'active'")
        allowed = _badges(db, door_badges)
        found = Replayed(
            people=_count(db, "person"),
            badges=len(allowed),
            badges_not_restored=before - len(allowed),
            templates_kept=_count(db, "template WHERE state = 'enrolled'"),
            templates_to_erase=_count(db, "template WHERE state = 'erasing'"),
            **kept_out,
        )
        db.execute("COMMIT")
        if current is not None:
            db.execute("DETACH current")
        # What was taken out stands nowhere in the file, and the file needs no log beside it.
        db.execute("VACUUM")
        db.execute("PRAGMA journal_mode = DELETE").fetchall()
    return found, allowed


@contextlib.contextmanager
def _opened(draft: Path) -> Iterator[sqlite3.Connection]:
    db = open_database(draft, SCHEMA, TABLES, UPGRADES)
    try:
        yield db
    except sqlite3.Error as error:
        raise DatabaseUnusable(
            f"the backup's registry cannot be restored: {error}; use another backup"
        ) from error
    finally:
        db.close()


def _alone(db: sqlite3.Connection) -> dict[str, int]:
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM made")
    db.execute("UPDATE template SET state = 'erasing'")
    return {"consents_withdrawn_since": 0, "people_erased_since": 0, "later_people": 0}


def _replay_current(db: sqlite3.Connection) -> dict[str, int]:
    same = db.execute("SELECT (SELECT id FROM main.lineage) = (SELECT id FROM current.lineage)").fetchone()[0]
    if not same and _count(db, "current.person"):
        raise AnotherRegistry(
            "the registry on this device is of other people, not the backup's at another time: restore on "
            "the device that it was made on, or on a new one; or erase these people first"
        )
    db.execute("BEGIN IMMEDIATE")
    people, withdrawn = _count(db, "person"), _withdrawn(db)
    erased = _count(db, "person WHERE id IN (SELECT id FROM current.erased_person)")
    for statements in (_PEOPLE, _CONSENTS, _TEMPLATES, _BADGES, _ACCOUNTS):
        _run(db, statements)
    return {
        "consents_withdrawn_since": _withdrawn(db) - withdrawn,
        "people_erased_since": erased,
        "later_people": _count(db, "person") - people + erased,
    }


def _run(db: sqlite3.Connection, statements: str) -> None:
    """Run statements within the transaction that is open, which `executescript` would end.

    No semicolon stands in their comments.
    """
    moment = {"now": now()}
    for statement in statements.split(";"):
        if statement.strip():
            db.execute(statement, moment if ":now" in statement else {})


def _withdrawn(db: sqlite3.Connection) -> int:
    return _count(db, "consent WHERE withdrawn_at IS NOT NULL")


def _badges(db: sqlite3.Connection, door_badges: Collection[bytes]) -> set[bytes]:
    """Leave the badges that both zones' parts of the backup know, and that nobody took away."""
    db.execute("CREATE TEMP TABLE at_door (id BLOB PRIMARY KEY) WITHOUT ROWID")
    db.executemany("INSERT OR IGNORE INTO at_door VALUES (?)", ((badge,) for badge in door_badges))
    db.execute(
        "DELETE FROM main.badge WHERE state <> 'active' OR id NOT IN (SELECT id FROM at_door) "
        "OR id IN (SELECT id FROM main.removed_badge)"
    )
    return {badge for (badge,) in db.execute("SELECT id FROM main.badge")}


def _count(db: sqlite3.Connection, what: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {what}").fetchone()[0])  # noqa: S608 - our own words
