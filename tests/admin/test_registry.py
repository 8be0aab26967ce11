import sqlite3
import threading
from pathlib import Path

import pytest

from appliance.admin.registry.consent import (
    Act,
    ConsentError,
    current_consent,
    give_consent,
    list_consents,
    withdraw_consent,
)
from appliance.admin.registry.database import Registry, RegistryError
from appliance.admin.registry.holdings import (
    HeldBadge,
    badge_removed,
    begin_badge,
    begin_template,
    complete_badge,
    complete_template,
    doom_abandoned,
    doom_badge,
    doom_templates,
    doomed_badges,
    doomed_templates,
    lawful_templates,
    list_badges,
    template_erased,
)
from appliance.admin.registry.people import (
    StillHeld,
    UnknownPerson,
    add_person,
    find_person,
    list_people,
    remove_person,
)


@pytest.fixture
def person(registry: Registry) -> str:
    return add_person(registry, "Jan de Vries")[0].id


def enrolled(registry: Registry, person: str) -> bytes:
    consent = current_consent(registry, person)
    handle = begin_template(registry, person, consent.id)
    assert complete_template(registry, handle)
    return handle


def state_of(registry: Registry, handle: bytes) -> str | None:
    with registry.transaction() as db:
        row = db.execute("SELECT state FROM template WHERE handle = ?", (handle,)).fetchone()
    return row[0] if row else None


def test_without_a_consent_there_is_no_template(registry: Registry, person: str) -> None:
    with pytest.raises(ConsentError, match="drempel consent give"):
        current_consent(registry, person)
    with pytest.raises(ConsentError):
        begin_template(registry, person, bytes(16))
    assert lawful_templates(registry, 0, 99).items == []


def test_one_consent_is_current_and_all_are_kept(registry: Registry, person: str) -> None:
    first, _ = give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    with pytest.raises(ConsentError, match="withdraw it first"):
        give_consent(registry, person, "2026-2", Act.SIGNED_SCREEN)
    assert current_consent(registry, person) == first
    assert withdraw_consent(registry, person) is True
    assert withdraw_consent(registry, person) is False
    second, _ = give_consent(registry, person, "2026-2", Act.SIGNED_SCREEN)
    assert current_consent(registry, person) == second
    old, new = sorted(list_consents(registry, person, 0, 9).items, key=lambda each: each.notice_version)
    assert (old.id, old.act) == (first.id, Act.SIGNED_PAPER)
    assert old.withdrawn_at is not None
    assert new.withdrawn_at is None


def test_a_withdrawal_ends_the_ground_and_dooms_the_template(registry: Registry, person: str) -> None:
    give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    handle = enrolled(registry, person)
    assert lawful_templates(registry, 0, 99).items == [handle]
    withdraw_consent(registry, person)
    assert lawful_templates(registry, 0, 99).items == []
    assert doomed_templates(registry) == [handle]
    assert doomed_templates(registry, person) == [handle]
    assert doomed_templates(registry, "another") == []
    template_erased(registry, handle)
    assert doomed_templates(registry) == []


def test_a_withdrawal_that_cannot_be_written_whole_is_not_written_at_all(
    registry: Registry, person: str
) -> None:
    give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    handle = enrolled(registry, person)
    with registry.transaction() as db:
        db.execute(
            "CREATE TEMP TRIGGER broken BEFORE UPDATE ON template BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    with pytest.raises((RegistryError, sqlite3.Error)):
        withdraw_consent(registry, person)
    assert current_consent(registry, person).withdrawn_at is None
    assert state_of(registry, handle) == "enrolled"


def test_an_enrolment_whose_consent_was_withdrawn_meanwhile_is_not_completed(
    registry: Registry, person: str
) -> None:
    consent, _ = give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    handle = begin_template(registry, person, consent.id)
    withdraw_consent(registry, person)
    assert complete_template(registry, handle) is False
    assert lawful_templates(registry, 0, 99).items == []
    # It is still written down: vault may have it, and nothing is held there without an owner here.
    assert state_of(registry, handle) is not None


def test_a_new_consent_does_not_revive_an_enrolment_of_the_old_one(registry: Registry, person: str) -> None:
    consent, _ = give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    handle = begin_template(registry, person, consent.id)
    withdraw_consent(registry, person)
    give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    assert complete_template(registry, handle) is False
    assert lawful_templates(registry, 0, 99).items == []


def test_a_renewal_dooms_the_template_before_it(registry: Registry, person: str) -> None:
    give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    first, second = enrolled(registry, person), enrolled(registry, person)
    assert lawful_templates(registry, 0, 99).items == [second]
    assert doomed_templates(registry) == [first]


def test_a_start_dooms_what_an_earlier_process_began(registry: Registry, person: str) -> None:
    consent, _ = give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    done = enrolled(registry, person)
    begun = begin_template(registry, person, consent.id)
    badge, active = (begin_badge(registry, person, label)[0].id for label in ("blue", "red"))
    complete_badge(registry, active)
    # While this process makes them, they are left to it; an earlier one's nobody makes any more.
    doom_abandoned(registry)
    assert doomed_templates(registry) == []
    assert doomed_badges(registry) == []
    registry.in_the_making.clear()
    doom_abandoned(registry)
    assert doomed_templates(registry) == [begun]
    assert doomed_badges(registry) == [badge]
    assert lawful_templates(registry, 0, 99).items == [done]
    assert [(each.id, each.removing) for each in list_badges(registry, 0, 9).items] == [
        (badge, True),
        (active, False),
    ]


def test_only_what_is_doomed_is_ever_forgotten(registry: Registry, person: str) -> None:
    give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    handle = enrolled(registry, person)
    badge = begin_badge(registry, person, "blue")[0].id
    complete_badge(registry, badge)
    template_erased(registry, handle)
    badge_removed(registry, badge)
    assert lawful_templates(registry, 0, 99).items == [handle]
    assert list_badges(registry, 0, 9).items == [HeldBadge(badge, person, "blue")]


def test_a_badge_counts_from_when_door_has_it_until_it_is_doomed(registry: Registry, person: str) -> None:
    badge = begin_badge(registry, person, "blue")[0].id
    assert find_person(registry, person).badges == 0
    complete_badge(registry, badge)
    assert find_person(registry, person).badges == 1
    assert doom_badge(registry, badge) is True
    assert find_person(registry, person).badges == 0
    assert doom_badge(registry, badge) is False
    assert doom_badge(registry, bytes(16)) is None
    complete_badge(registry, badge)
    assert doomed_badges(registry) == [badge]


@pytest.mark.parametrize("held", ["template", "doomed template", "badge"])
def test_a_person_of_whom_a_zone_holds_anything_stays(registry: Registry, person: str, held: str) -> None:
    give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    if held == "badge":
        complete_badge(registry, begin_badge(registry, person, "blue")[0].id)
    else:
        enrolled(registry, person)
        if held == "doomed template":
            doom_templates(registry, person)
    with pytest.raises(StillHeld, match="ask again"):
        remove_person(registry, person)
    assert find_person(registry, person).consent, "a refused removal took the consent along"


def test_a_person_whom_nobody_holds_is_removed_with_their_consents(registry: Registry, person: str) -> None:
    give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    handle = enrolled(registry, person)
    withdraw_consent(registry, person)
    template_erased(registry, handle)
    remove_person(registry, person)
    assert list_people(registry, 0, 9).items == []
    assert list_consents(registry, person, 0, 9).items == []


def test_a_removed_name_is_gone_from_the_disk(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    person = add_person(registry, "Wilhelmina van Oranje")[0].id
    remove_person(registry, person)
    registry.close()
    left = b"".join(path.read_bytes() for path in tmp_path.glob("registry.db*"))
    assert b"Wilhelmina" not in left


def test_a_person_is_found_by_id_and_never_by_name(registry: Registry, person: str) -> None:
    """Names stand in no route, and so in no log of one."""
    assert find_person(registry, person).name == "Jan de Vries"
    for nobody in ("", "Jan de Vries", "%", "' OR 1=1 --"):
        with pytest.raises(UnknownPerson) as refused:
            find_person(registry, nobody)
        assert "Jan" not in str(refused.value)


def test_the_registry_is_for_its_zone_alone(registry: Registry, tmp_path: Path) -> None:
    add_person(registry, "Jan")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("registry.db*")} == {0o600}


@pytest.mark.filterwarnings("ignore:unclosed database")
@pytest.mark.parametrize("damage", ["newer", "no database"])
def test_a_registry_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "registry.db"
    if damage == "newer":
        Registry(path).close()
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 4")
        db.close()
    else:
        path.write_bytes(b"no database at all, " * 500)
    with pytest.raises(RegistryError, match=r"upgrade Drempel|restore it from a backup"):
        Registry(path)


def test_a_failed_transaction_leaves_the_registry_usable(registry: Registry) -> None:
    def fail() -> None:
        with registry.transaction() as db:
            db.execute("INSERT INTO person (id, name, added_at) VALUES ('x', 'y', 'z')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list_people(registry, 0, 9).items == []
    add_person(registry, "Jan")
    assert len(list_people(registry, 0, 9).items) == 1


def test_threads_take_turns(registry: Registry) -> None:
    def work() -> None:
        for number in range(10):
            person = add_person(registry, f"Jan {number}")[0].id
            give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
            enrolled(registry, person)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lawful_templates(registry, 0, 99).items) == 30
