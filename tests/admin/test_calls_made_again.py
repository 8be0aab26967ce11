"""Idempotency keys: the same call made again makes nothing twice, also across a crash of admin."""

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from appliance.admin.accounts import Accounts
from appliance.admin.registry.consent import ConsentError
from appliance.admin.registry.database import Registry
from appliance.admin.registry.holdings import begin_badge, begin_template, complete_badge, doom_abandoned
from appliance.admin.registry.once import Kind, Once, forget_old
from appliance.admin.registry.people import add_person, find_person, list_people, remove_person
from appliance.link.messages import AddBadge, OpenEnrolment, Refusal, Refused
from tests.admin.conftest import Office
from tests.admin.scripted_zones import ScriptedZone, staying_open, zone_at
from tests.admin.test_accounts import bearer
from tests.admin.test_api import problem, wait_for

KEY = {"Idempotency-Key": "5b8f6f0e-7a44"}
BADGE = {"bits": 26, "number": "2abcde1", "label": "blue"}


def test_a_person_is_added_once(office: Office) -> None:
    first = office.http.post("/people", json={"name": "Jan"}, headers=KEY)
    again = office.http.post("/people", json={"name": "Jan"}, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(office.http.get("/people").json()["items"]) == 1
    assert office.journal().count("person added") == 1


def test_calls_at_the_same_moment_make_one_thing(office: Office) -> None:
    ids: list[str] = []

    def ask() -> None:
        ids.append(office.http.post("/people", json={"name": "Jan"}, headers=KEY).json()["id"])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/people", {"name": "Piet"}),
        ("/people/{who}/consents", {"notice_version": "1", "act": "signed-paper"}),
    ],
)
def test_a_key_of_another_call_is_refused(office: Office, route: str, body: dict[str, Any]) -> None:
    person = office.http.post("/people", json={"name": "Jan"}, headers=KEY).json()["id"]
    answer = office.http.post(route.format(who=person), json=body, headers=KEY)
    assert "choose a new one" in problem(answer, 422)


def test_the_same_key_of_another_account_is_another_key(office: Office) -> None:
    token = office.http.post("/accounts", json={"label": "", "role": "enroller"}).json()["token"]
    office.http.post("/people", json={"name": "Jan"}, headers=KEY)
    office.http.post("/people", json={"name": "Jan"}, headers={**KEY, **bearer(token)})
    assert len(office.http.get("/people").json()["items"]) == 2


def test_a_consent_is_recorded_once_and_found_again_after_a_withdrawal(
    office: Office, vault: ScriptedZone
) -> None:
    person = office.add("Jan")
    given = {"notice_version": "1", "act": "signed-paper"}
    first = office.http.post(f"/people/{person}/consents", json=given, headers=KEY)
    assert office.http.post(f"/people/{person}/consents", json=given, headers=KEY).json() == first.json()
    office.http.delete(f"/people/{person}/consents")
    late = office.http.post(f"/people/{person}/consents", json=given, headers=KEY)
    assert late.json()["withdrawn_at"] is not None, "a late repetition must not undo a withdrawal"
    assert len(office.http.get(f"/people/{person}/consents").json()["items"]) == 1
    assert not vault.heard


def test_a_badge_is_added_once_and_a_late_repetition_does_not_bring_it_back(
    office: Office, door: ScriptedZone
) -> None:
    body = {"person": office.add("Jan"), **BADGE}
    first = office.http.post("/badges", json=body, headers=KEY)
    again = office.http.post("/badges", json=body, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len({message.badge for message in door.of(AddBadge) if isinstance(message, AddBadge)}) == 1
    office.http.delete(f"/badges/{first.json()['id']}")
    before = len(door.of(AddBadge))
    assert "removed since" in problem(office.http.post("/badges", json=body, headers=KEY), 409)
    assert len(door.of(AddBadge)) == before
    assert office.http.post("/badges", json=body, headers={"Idempotency-Key": "new"}).status_code == 201


def test_a_badge_that_did_not_come_so_far_is_added_by_the_same_call_made_again(office: Office) -> None:
    body = {"person": office.add("Jan"), **BADGE}
    problem(office.http.post("/badges", json=body, headers=KEY), 503)
    with zone_at(office.door_socket, ScriptedZone(refuse={AddBadge: Refused(Refusal.STORAGE)})):
        problem(office.http.post("/badges", json=body, headers=KEY), 503)
    with office.house.registry.transaction() as db:
        ids = [row[0] for row in db.execute("SELECT id FROM badge")]
    assert len(ids) == 1, "it goes on with the badge that door may have already"
    # Whether or not the upkeep had its round in between.
    doom_abandoned(office.house.registry)
    with zone_at(office.door_socket, ScriptedZone()):
        assert office.http.post("/badges", json=body, headers=KEY).status_code == 201
    states = [each["state"] for each in office.http.get("/badges").json()["items"]]
    assert states == ["removing", "active"]


def test_a_badge_that_is_being_added_is_not_added_beside(registry: Registry) -> None:
    person = add_person(registry, "Jan")[0].id
    once = Once(0, "k", Kind.BADGE)
    badge, fresh = begin_badge(registry, person, "", once)
    assert fresh
    with pytest.raises(ValueError, match="at this moment"):
        begin_badge(registry, person, "", once)
    complete_badge(registry, badge.id)
    assert begin_badge(registry, person, "", once) == (badge, False)


def test_a_restart_in_between_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    once = Once(7, "k", Kind.PERSON)
    registry = Registry(path)
    person, fresh = add_person(registry, "Jan", once)
    assert fresh
    registry.close()
    registry = Registry(path)
    assert add_person(registry, "Jan", once) == (person, False)
    assert len(list_people(registry, 0, 9).items) == 1
    registry.close()


def test_a_key_outlives_its_person_and_is_forgotten_after_a_day(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, office: Office
) -> None:
    person = office.http.post("/people", json={"name": "Jan"}, headers=KEY).json()["id"]
    with zone_at(office.vault_socket, ScriptedZone()), zone_at(office.door_socket, ScriptedZone()):
        assert office.http.delete(f"/people/{person}").status_code == 204
    late = office.http.post("/people", json={"name": "Jan"}, headers=KEY)
    assert "erased since" in problem(late, 409), "a late repetition must not bring back who was erased"
    with registry.transaction() as db:
        assert db.execute("SELECT person FROM made").fetchall() == [(None,)]
    once = Once(0, "k", Kind.PERSON)
    add_person(registry, "Piet", once)
    now = time.time()
    monkeypatch.setattr("appliance.admin.registry.once.time.time", lambda: now + 23 * 3600)
    assert not add_person(registry, "Piet", once)[1]
    monkeypatch.setattr("appliance.admin.registry.once.time.time", lambda: now + 25 * 3600)
    forget_old(registry)
    with registry.transaction() as db:
        assert db.execute("SELECT count(*) FROM made").fetchone() == (0,)
    assert add_person(registry, "Piet", once)[1]


def test_one_window_is_opened_by_a_call_that_is_made_twice(office: Office, vault: ScriptedZone) -> None:
    vault.enrolling = staying_open
    body = {"person": office.add("Jan", consent=True)}
    first = office.http.post("/enrolments", json=body, headers=KEY).json()
    again = office.http.post("/enrolments", json=body, headers=KEY).json()
    assert first["id"] == again["id"]
    wait_for(lambda: bool(vault.of(OpenEnrolment)))
    assert len(vault.of(OpenEnrolment)) == 1
    longer = {**body, "seconds": 999}
    assert "choose a new one" in problem(office.http.post("/enrolments", json=longer, headers=KEY), 422)
    office.http.delete(f"/enrolments/{first['id']}")


@pytest.mark.parametrize("key", ["", "a" * 65, "a b", "é", "a\x7f"])
def test_a_key_that_is_none_is_a_422(office: Office, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    assert "dempotency" in problem(office.http.post("/people", json={"name": "Jan"}, headers=headers), 422)


def test_nothing_of_the_call_is_kept_on_the_disk(office: Office, door: ScriptedZone, tmp_path: Path) -> None:
    office.http.post("/badges", json={"person": office.add("Jan"), **BADGE}, headers=KEY)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert KEY["Idempotency-Key"].encode() not in kept, "its maker may have made it of a name"
    assert b"2abcde1" not in kept
    assert door.heard


VERSION_1 = """
CREATE TABLE person (id TEXT PRIMARY KEY, name TEXT NOT NULL, added_at TEXT NOT NULL) STRICT;
CREATE TABLE consent (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    person TEXT NOT NULL REFERENCES person (id),
    notice_version TEXT NOT NULL,
    given_at TEXT NOT NULL,
    act TEXT NOT NULL,
    withdrawn_at TEXT
) STRICT;
CREATE UNIQUE INDEX one_current_consent ON consent (person) WHERE withdrawn_at IS NULL;
CREATE TABLE template (
    handle BLOB PRIMARY KEY CHECK (length(handle) = 16),
    person TEXT NOT NULL REFERENCES person (id),
    consent BLOB NOT NULL REFERENCES consent (id),
    state TEXT NOT NULL CHECK (state IN ('pending', 'enrolled', 'erasing'))
) STRICT;
CREATE UNIQUE INDEX one_template ON template (person) WHERE state = 'enrolled';
CREATE TABLE badge (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    person TEXT NOT NULL REFERENCES person (id),
    label TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'removing'))
) STRICT;
INSERT INTO person VALUES ('0123456789abcdef', 'Jan', '2026-10-01T00:00:00+00:00');
PRAGMA user_version = 1;
"""
"""The registry as the first Drempel made it, with one person in it."""


def test_a_registry_of_the_version_before_is_brought_up_to_date(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "registry.db")
    old.executescript(VERSION_1)
    old.close()
    upgraded, fresh = Registry(tmp_path / "registry.db"), Registry(tmp_path / "fresh.db")
    assert [person.name for person in list_people(upgraded, 0, 9).items] == ["Jan"]
    assert Accounts(upgraded).page(0, 9).items == []

    def names(registry: Registry) -> set[tuple[str, str]]:
        with registry.transaction() as db:
            return set(db.execute("SELECT type, name FROM sqlite_schema"))

    assert names(upgraded) == names(fresh)
    upgraded.close()
    fresh.close()
    again = Registry(tmp_path / "registry.db")
    assert len(list_people(again, 0, 9).items) == 1
    again.close()


def test_who_is_erased_in_the_midst_of_a_call_is_not_found(
    office: Office, door: ScriptedZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = office.add("Jan")
    found = find_person(office.house.registry, person)
    for module in ("badges", "people", "enrolments"):
        monkeypatch.setattr(f"appliance.admin.api.{module}.find_person", lambda *_: found)
    remove_person(office.house.registry, person)
    problem(office.http.post("/badges", json={"person": person, **BADGE}), 404)
    given = {"notice_version": "1", "act": "signed-paper"}
    problem(office.http.post(f"/people/{person}/consents", json=given), 404)
    problem(office.http.post("/enrolments", json={"person": person}), 409)
    with pytest.raises(ConsentError):
        begin_template(office.house.registry, person, bytes(16))
    assert not door.heard
