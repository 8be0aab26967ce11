"""Restoring never undoes what somebody decided: random histories, with a backup at a moment of each."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.admin.accounts import Accounts, Role
from appliance.admin.registry.consent import Act, ConsentError, current_consent, give_consent, list_consents
from appliance.admin.registry.database import Registry
from appliance.admin.registry.holdings import begin_template, complete_template, doomed_templates
from appliance.admin.registry.people import add_person, list_people
from appliance.admin.registry.restoring import AnotherRegistry, Replayed, replay
from tests.backup.histories import STEPS, Door, Steps, beginnings

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - of thousands of small files
"""Where the histories are lived: each step of them waits for the disk otherwise."""


@contextmanager
def door() -> Iterator[Door]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        made = Door(Path(folder))
        try:
            yield made
        finally:
            made.close()


def restore(door: Door, backup: Path, *, without_current: bool = False) -> Replayed:
    """What `appliance.backup.restoring` does with the two files."""
    draft, current = door.folder / "draft.db", door.folder / "current.db"
    shutil.copy(backup / "registry.db", draft)
    door.close()
    shutil.copy(door.folder / "admin" / "registry.db", current)
    with closing(sqlite3.connect(backup / "badges.db")) as badges:
        known = {badge for (badge,) in badges.execute("SELECT id FROM badge")}
    found, allowed = replay(draft, None if without_current else current, known)
    assert not draft.with_name("draft.db-wal").exists()
    draft.replace(door.folder / "admin" / "registry.db")
    current.unlink()
    shutil.copy(backup / "badges.db", door.folder / "door" / "badges.db")
    shutil.copy(backup / "badge.key", door.folder / "door" / "badge.key")
    door.open()
    door.badges.keep_only(allowed)
    return found


def counting(door: Door) -> set[str]:
    """The accounts that count."""
    return {each.id for each in door.accounts.page(0, 100).items if each.ended_at is None}


def check_sound(door: Door) -> None:
    with door.registry.transaction() as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def check_will(door: Door) -> None:
    """Nothing that was decided is undone."""
    will = door.will
    assert not door.people() & will.erased
    assert not door.active_badges() & will.taken
    assert not door.badges.ids() & will.taken
    with door.registry.transaction() as db:
        current = {each for (each,) in db.execute("SELECT id FROM consent WHERE withdrawn_at IS NULL")}
        counting = {each for (each,) in db.execute("SELECT id FROM account WHERE token IS NOT NULL")}
        owned = {each for (each,) in db.execute("SELECT handle FROM template")}
    assert not current & will.withdrawn
    assert not counting & will.revoked
    # Whatever vault holds, somebody here knows of; and both zones know the same badges.
    assert door.vault <= owned
    assert door.badges.ids() == door.active_badges()


ENROLLED: Steps = [("add account", 0), ("add person", 0), ("consent", 0), ("enrol", 0), ("add badge", 0)]


@settings(max_examples=500, deadline=None)
@example(before=ENROLLED, since=[])
@example(before=ENROLLED, since=[("withdraw", 0)])
@example(before=ENROLLED, since=[("withdraw", 0), ("vault back", 0), ("consent", 0), ("enrol", 0)])
@example(before=ENROLLED, since=[("erase template", 0)])
@example(before=ENROLLED, since=[("erase template", 0), ("vault back", 0)])
@example(before=ENROLLED, since=[("enrol", 0)])
@example(before=ENROLLED, since=[("take badge", 0)])
@example(before=ENROLLED, since=[("take badge", 0), ("door back", 0)])
@example(before=ENROLLED, since=[("half a badge", 0)])
@example(before=[*ENROLLED, ("half a badge", 0)], since=[("door back", 0)])
@example(before=[*ENROLLED, ("half an enrolment", 0)], since=[])
@example(before=[*ENROLLED, ("erase template", 0), ("take badge", 0)], since=[])
@example(before=ENROLLED, since=[("erase person", 0)])
@example(before=ENROLLED, since=[("erase person", 0), ("add person", 0), ("consent", 0), ("enrol", 0)])
@example(before=ENROLLED, since=[("revoke account", 0)])
@example(before=ENROLLED, since=[("add account", 0), ("revoke account", 1)])
@given(before=beginnings(), since=STEPS)
def test_a_backup_of_any_moment_restored_at_any_later_one_undoes_nobodys_will(
    before: Steps, since: Steps
) -> None:
    with door() as site:
        site.live(before)
        in_backup = site.lawful(), site.people(), site.active_badges() & site.badges.ids()
        accounts = counting(site)
        site.copy(site.folder / "backup")
        site.live(since)
        now = site.lawful(), site.people(), site.active_badges()
        found = restore(site, site.folder / "backup")
        check_sound(site)
        check_will(site)
        # What opens now is what opened at both moments, and no more.
        assert site.lawful() == in_backup[0] & now[0]
        assert site.active_badges() == in_backup[2] & now[2]
        assert site.people() == now[1]
        with site.registry.transaction() as db:
            assert db.execute("SELECT count(*) FROM template WHERE state = 'pending'").fetchone() == (0,)
        assert counting(site) == accounts - site.will.revoked
        assert (found.people, found.templates_kept) == (len(site.people()), len(site.lawful()))
        assert found.people_erased_since == len(in_backup[1] - now[1])
        assert found.later_people == len(now[1] - in_backup[1])
        assert found.badges == len(site.badges.ids())
        # Once more, as after a power cut: it comes to the same.
        state = site.lawful(), site.people(), site.active_badges()
        restore(site, site.folder / "backup")
        check_will(site)
        assert (site.lawful(), site.people(), site.active_badges()) == state


@settings(max_examples=200, deadline=None)
@given(first=beginnings(), second=STEPS, third=STEPS, fourth=STEPS)
def test_an_older_backup_and_then_a_newer_one_undo_nobodys_will_and_lose_nobody(
    first: Steps,
    second: Steps,
    third: Steps,
    fourth: Steps,
) -> None:
    with door() as site:
        site.live(first)
        site.copy(site.folder / "older")
        site.live(second)
        site.copy(site.folder / "newer")
        people = site.people()
        site.live(third)
        restore(site, site.folder / "older")
        check_will(site)
        site.live(fourth)
        restore(site, site.folder / "newer")
        check_sound(site)
        check_will(site)
        assert site.people() >= people - site.will.erased


@settings(max_examples=200, deadline=None)
@given(before=beginnings(), since=STEPS, after=STEPS)
def test_life_goes_on_after_a_restore(before: Steps, since: Steps, after: Steps) -> None:
    with door() as site:
        site.live(before)
        site.copy(site.folder / "backup")
        site.live(since)
        restore(site, site.folder / "backup")
        site.live(after)
        site.live([("vault back", 0), ("door back", 0)])
        check_sound(site)
        check_will(site)


@settings(max_examples=200, deadline=None)
@given(before=beginnings(), since=STEPS)
def test_on_a_new_device_people_and_badges_are_as_in_the_backup_and_no_template_is_lawful(
    before: Steps, since: Steps
) -> None:
    with door() as site:
        site.live(before)
        people, badges = site.people(), site.active_badges() & site.badges.ids()
        site.copy(site.folder / "backup")
        site.live(since)
        restore(site, site.folder / "backup", without_current=True)
        check_sound(site)
        assert site.lawful() == set()
        assert (site.people(), site.active_badges(), site.badges.ids()) == (people, badges, badges)


@settings(max_examples=30, deadline=None)
@given(before=beginnings(), chance=st.booleans())
def test_a_device_that_has_started_but_holds_nobody_counts_as_new(before: Steps, chance: bool) -> None:
    with door() as old, door() as new:
        old.live(before)
        old.copy(old.folder / "backup")
        if chance:
            Accounts(new.registry).add("desk", Role.ENROLLER, 9)
        restore(new, old.folder / "backup")
        check_sound(new)
        assert new.people() == old.people()
        assert new.lawful() == set()
        assert not [
            each for each in new.accounts.page(0, 9).items if each.label == "desk" and not each.ended_at
        ]


def test_another_registry_with_people_is_not_restored_over() -> None:
    with door() as old, door() as other:
        add_person(old.registry, "Jan de Vries")
        old.copy(old.folder / "backup")
        add_person(other.registry, "Piet Jansen")
        with pytest.raises(AnotherRegistry, match="of other people"):
            restore(other, old.folder / "backup")
        other.open()
        assert len(other.people()) == 1


def test_a_renewal_since_is_marked_for_erasure_and_its_consent_stays_on_record() -> None:
    with door() as site:
        person = add_person(site.registry, "Jan de Vries")[0].id
        give_consent(site.registry, person, "2026-1", Act.SIGNED_PAPER)
        site.live([("enrol", 0)])
        (first,) = site.lawful()
        site.copy(site.folder / "backup")
        site.live([("withdraw", 0), ("vault back", 0), ("consent", 0), ("enrol", 0)])
        (second,) = site.lawful()
        restore(site, site.folder / "backup")
        assert site.lawful() == set()
        assert set(doomed_templates(site.registry)) == {first, second}
        old, new = list_consents(site.registry, person, 0, 9).items
        assert old.withdrawn_at is not None
        assert current_consent(site.registry, person) == new


@contextmanager
def two_that_went_their_own_ways() -> Iterator[tuple[Door, Door]]:
    """A door, and another that was restored from its backup and then lived on beside it."""
    with door() as one, door() as other:
        one.live(ENROLLED)
        other.close()
        shutil.rmtree(other.folder)
        one.close()
        shutil.copytree(one.folder, other.folder)
        one.open()
        other.open()
        other.vault = set(one.vault)
        yield one, other


def test_of_two_consents_given_on_two_devices_the_one_on_this_device_is_current() -> None:
    with two_that_went_their_own_ways() as (one, other):
        for site in (one, other):
            site.live([("withdraw", 0), ("consent", 0)])
        (person,) = other.people()
        here = current_consent(other.registry, person)
        one.copy(one.folder / "backup")
        restore(other, one.folder / "backup")
        check_sound(other)
        check_will(other)
        assert current_consent(other.registry, person) == here
        assert len(list_consents(other.registry, person, 0, 9).items) == 3


def test_who_was_erased_on_the_device_of_the_backup_has_no_lawful_template_here() -> None:
    with two_that_went_their_own_ways() as (one, other):
        one.live([("erase person", 0)])
        one.copy(one.folder / "backup")
        restore(other, one.folder / "backup")
        check_sound(other)
        assert other.lawful() == set()
        # Vault may hold it here: it is asked to erase it, which needs an owner until then.
        assert set(doomed_templates(other.registry)) == other.vault
        (person,) = other.people()
        with pytest.raises(ConsentError):
            current_consent(other.registry, person)
        assert other.badges.ids() == other.active_badges() == set()


def test_a_registry_of_before_tombstones_is_upgraded_and_restored(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = Registry(path)
    person = add_person(registry, "Jan de Vries")[0].id
    consent, _ = give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    assert complete_template(registry, begin_template(registry, person, consent.id))
    with registry.transaction() as db:
        for table in ("lineage", "erased_person", "removed_badge"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 2")
    registry.close()
    found, _ = replay(path, None, set())
    assert (found.people, found.templates_to_erase) == (1, 1)
    registry = Registry(path)
    assert len(list_people(registry, 0, 9).items) == 1
    registry.close()


def test_what_was_taken_out_stands_nowhere_in_the_file() -> None:
    with door() as site:
        person = add_person(site.registry, "Wilhelmina van Oranje")[0].id
        site.copy(site.folder / "backup")
        site._erase_person(person, None)
        restore(site, site.folder / "backup")
        site.close()
        for path in (site.folder / "admin").iterdir():
            assert b"Wilhelmina" not in path.read_bytes(), path.name
        site.open()
