import base64
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance import journal
from appliance.admin import enrolments as enrolments_module
from appliance.admin.registry.database import RegistryError
from appliance.admin.registry.holdings import (
    doom_abandoned,
    doomed_badges,
    doomed_templates,
    lawful_templates,
)
from appliance.link.events import AskEvents
from appliance.link.messages import (
    MAX_LEASE,
    TOKEN,
    AddBadge,
    AskVault,
    Erase,
    OpenEnrolment,
    Refusal,
    Refused,
    RemoveBadge,
)
from tests.admin.conftest import Office
from tests.admin.scripted_zones import ScriptedZone, completing, staying_open, zone_at

NAME = "Wilhelmina van Oranje"


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of a problem document, whose shape is checked (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert set(document) == {"type", "title", "status", "detail"}
    assert document["type"] == "about:blank"
    assert document["status"] == status
    assert document["title"]
    assert NAME not in answer.text
    return str(document["detail"])


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def over(office: Office, enrolment: str) -> dict[str, Any]:
    """How an enrolment ended."""

    def ended() -> bool:
        return bool(office.http.get(f"/enrolments/{enrolment}").json()["state"] != "open")

    wait_for(ended)
    result: dict[str, Any] = office.http.get(f"/enrolments/{enrolment}").json()
    return result


def test_a_person_is_added_found_listed_and_removed(office: Office) -> None:
    added = office.http.post("/people", json={"name": NAME})
    assert added.status_code == 201
    person = added.json()
    assert (person["name"], person["consent"], person["template"], person["badges"]) == (
        NAME,
        False,
        False,
        0,
    )
    assert office.http.get(f"/people/{person['id']}").json() == person
    assert office.http.get("/people").json() == {"items": [person], "next": None}
    assert office.http.delete(f"/people/{person['id']}").status_code == 204
    assert office.http.get("/people").json()["items"] == []


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("GET", "/people/nobody"),
        ("DELETE", "/people/nobody"),
        ("GET", "/people/nobody/consents"),
        ("DELETE", "/people/nobody/consents"),
        ("DELETE", "/people/nobody/template"),
        ("GET", "/enrolments/none"),
        ("DELETE", "/enrolments/none"),
        ("POST", "/enrolments/none/token"),
        ("DELETE", f"/badges/{'0' * 32}"),
        ("GET", "/no/such/route"),
        ("GET", "/docs"),
    ],
)
def test_what_is_not_there_is_a_404_that_says_where_to_look(office: Office, method: str, route: str) -> None:
    assert problem(office.http.request(method, route), 404)


@pytest.mark.parametrize(
    ("route", "body", "place"),
    [
        ("/people", {}, "name"),
        ("/people", {"name": "Jan", "nick": NAME}, "nick"),
        ("/people", {"name": ""}, "name"),
        ("/people", {"name": NAME * 10}, "name"),
        ("/people", {"name": [NAME]}, "name"),
        ("/people", {"name": f" {NAME}"}, "name"),
        ("/people", {"name": f"{NAME}\x1b[2J"}, "name"),
        ("/people", {"name": f"\u202e{NAME}"}, "name"),
        ("/people", {"name": f"Jan\u200b{NAME}"}, "name"),
        ("/people/{who}/consents", {"notice_version": NAME, "act": "signed-paper"}, "notice_version"),
        ("/people/{who}/consents", {"notice_version": "1", "act": NAME}, "act"),
        ("/enrolments", {"person": "{who}", "seconds": 5}, "seconds"),
        ("/enrolments", {"person": "{who}", "seconds": 3601}, "seconds"),
        ("/enrolments", {"person": "{who}", "seconds": "60"}, "seconds"),
        ("/accounts", {"label": "", "role": "auditor", "days": True}, "days"),
        ("/badges", {"person": "{who}", "bits": True, "number": "1"}, "bits"),
        ("/badges", {"person": "{who}", "bits": 26, "number": "zz"}, "number"),
        ("/badges", {"person": "{who}", "bits": 129, "number": "1"}, "bits"),
        ("/badges", {"person": "{who}", "bits": 4, "number": "1f"}, "does not fit in 4 bits"),
        ("/badges", {"person": "{who}", "bits": 26, "number": "1", "label": NAME * 4}, "label"),
    ],
)
def test_a_malformed_call_is_a_422_with_the_place_and_without_what_was_sent(
    office: Office, route: str, body: dict[str, Any], place: str
) -> None:
    person = office.add(NAME)
    filled = {key: person if value == "{who}" else value for key, value in body.items()}
    detail = problem(office.http.post(route.format(who=person), json=filled), 422)
    assert place in detail


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"name": "\\ud800"}', b"\xff\xfe", b"[]", b'"' + NAME.encode() + b'"']
)
def test_a_body_that_is_no_json_of_ours_is_a_422(office: Office, data: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert office.http.post("/people", content=data, headers=headers).status_code in {400, 422}
    assert office.http.get("/people").json()["items"] == []


def test_a_method_that_a_route_does_not_have_is_a_problem_too(office: Office) -> None:
    problem(office.http.put("/people", json={}), 405)


def test_without_a_consent_nobody_is_enrolled(office: Office, vault: ScriptedZone) -> None:
    person = office.add(NAME)
    assert "consent" in problem(office.http.post("/enrolments", json={"person": person}), 409)
    assert vault.of(OpenEnrolment) == []


def test_an_erasure_that_cannot_empty_the_log_is_done_all_the_same_and_the_log_emptied_later(
    office: Office, vault: ScriptedZone, door: ScriptedZone, tmp_path: Path
) -> None:
    person = office.add(NAME)
    reader = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM person").fetchall()
    assert office.http.delete(f"/people/{person}").status_code == 204
    assert office.journal().count("person erased") == 1
    assert office.house.registry.log_holds_erased
    reader.close()
    office.upkeep._empty_log()
    assert NAME.encode() not in (tmp_path / "registry.db-wal").read_bytes()
    assert not vault.heard
    assert not door.heard


def test_a_second_consent_is_a_409(office: Office) -> None:
    person = office.add(NAME, consent=True)
    given = {"notice_version": "2026-2", "act": "signed-screen"}
    assert "withdraw it first" in problem(office.http.post(f"/people/{person}/consents", json=given), 409)


def test_a_consent_on_record_says_which_notice_and_which_act_and_no_id(office: Office) -> None:
    person = office.add(NAME, consent=True)
    (consent,) = office.http.get(f"/people/{person}/consents").json()["items"]
    assert set(consent) == {"notice_version", "given_at", "act", "withdrawn_at"}
    assert (consent["act"], consent["withdrawn_at"]) == ("signed-paper", None)


def test_an_enrolment_gives_its_token_exactly_once_and_lets_nobody_store_it(
    office: Office, vault: ScriptedZone
) -> None:
    token = secrets.token_bytes(TOKEN)
    vault.enrolling = completing(token)
    person = office.add(NAME, consent=True)
    begun = office.http.post("/enrolments", json={"person": person, "seconds": 60})
    assert begun.status_code == 201
    enrolment = begun.json()["id"]
    ended = over(office, enrolment)
    assert (ended["state"], ended["remaining"], ended["guidance"]) == ("done", 0, "captured")
    assert "token" not in ended
    given = office.http.post(f"/enrolments/{enrolment}/token")
    assert given.headers["cache-control"] == "no-store"
    assert base64.b64decode(given.json()["token"]) == token
    again = office.http.post(f"/enrolments/{enrolment}/token")
    assert "given out once" in problem(again, 404)
    (request,) = vault.of(OpenEnrolment)
    assert isinstance(request, OpenEnrolment)
    assert request.lease <= MAX_LEASE
    assert any(request.consent)
    assert lawful_templates(office.house.registry, 0, 99).items == [request.handle]
    assert office.http.get(f"/people/{person}").json()["template"] is True
    for stored in (office.journal().encode(), *[path.read_bytes() for path in office.folder.glob("*.db*")]):
        assert token not in stored
        assert base64.b64encode(token) not in stored


def test_two_who_ask_at_once_do_not_both_get_the_token(office: Office, vault: ScriptedZone) -> None:
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    over(office, enrolment)
    answers: list[int] = []

    def ask() -> None:
        answers.append(office.http.post(f"/enrolments/{enrolment}/token").status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 404, 404, 404]


@pytest.mark.parametrize("act", ["consents", "template"])
def test_after_a_withdrawal_or_an_erasure_nobody_gets_the_token(
    office: Office, vault: ScriptedZone, act: str
) -> None:
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    over(office, enrolment)
    assert office.http.delete(f"/people/{person}/{act}").json() == {"state": "erased"}
    problem(office.http.post(f"/enrolments/{enrolment}/token"), 404)


@pytest.mark.parametrize("act", ["template", "cancel"])
def test_a_token_that_comes_after_the_cancelling_is_nobodys(
    office: Office, vault: ScriptedZone, act: str
) -> None:
    """Vault has stored the template, and its answer is on the way, when the window is closed."""
    go = threading.Event()
    vault.enrolling = completing(secrets.token_bytes(TOKEN), wait=go)
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    wait_for(lambda: bool(vault.of(OpenEnrolment)))
    if act == "cancel":
        assert office.http.delete(f"/enrolments/{enrolment}").status_code == 204
    else:
        assert office.http.delete(f"/people/{person}/template").json() == {"state": "pending"}
    go.set()
    assert over(office, enrolment)["state"] == "failed"
    problem(office.http.post(f"/enrolments/{enrolment}/token"), 404)
    assert office.http.get(f"/people/{person}").json()["template"] is False
    doom_abandoned(office.house.registry)
    assert office.upkeep.erase_now()
    assert len(vault.of(Erase)) == 1


def test_a_second_window_is_refused_while_one_is_open(office: Office, vault: ScriptedZone) -> None:
    vault.enrolling = staying_open
    one, other = office.add(NAME, consent=True), office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": one}).json()["id"]
    refused = office.http.post("/enrolments", json={"person": other})
    assert "another enrolment is open" in problem(refused, 409)
    cancel(office, enrolment)
    over(office, enrolment)
    begun = office.http.post("/enrolments", json={"person": other})
    assert begun.status_code == 201
    cancel(office, begun.json()["id"])
    over(office, begun.json()["id"])
    assert office.journal().count("window opened") == 2


def test_a_cancelling_that_the_disk_refused_may_be_asked_again(
    office: Office, vault: ScriptedZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    over(office, enrolment)

    def full(*_: object) -> None:
        raise RegistryError("registry.db cannot be used: database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(enrolments_module, "doom_template", full)
        problem(office.http.delete(f"/enrolments/{enrolment}"), 503)
    problem(office.http.post(f"/enrolments/{enrolment}/token"), 404)
    assert office.http.delete(f"/enrolments/{enrolment}").status_code == 204
    assert len(doomed_templates(office.house.registry)) == 1


def test_a_token_that_nobody_takes_is_overwritten_and_its_template_erased(
    office: Office, vault: ScriptedZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolments_module, "TOKEN_TIME", 0.2)
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    over(office, enrolment)
    wait_for(lambda: bool(doomed_templates(office.house.registry)))
    problem(office.http.post(f"/enrolments/{enrolment}/token"), 404)


def test_a_token_that_is_not_there_yet_is_a_404(office: Office, vault: ScriptedZone) -> None:
    vault.enrolling = staying_open
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    problem(office.http.post(f"/enrolments/{enrolment}/token"), 404)
    assert office.http.delete(f"/enrolments/{enrolment}").status_code == 204
    assert over(office, enrolment)["state"] == "failed"


@pytest.mark.parametrize("failure", ["hangs up", "refuses", "away"])
def test_an_enrolment_that_fails_says_why_and_leaves_nothing_lawful(office: Office, failure: str) -> None:
    person = office.add(NAME, consent=True)
    zone = ScriptedZone()
    if failure == "refuses":
        zone.refuse[OpenEnrolment] = Refused(Refusal.WINDOW_BUSY)
    if failure == "away":
        enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
        ended = over(office, enrolment)
    else:
        with zone_at(office.vault_socket, zone):
            enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
            ended = over(office, enrolment)
    assert ended["state"] == "failed"
    assert ended["problem"]
    assert NAME not in ended["problem"]
    assert lawful_templates(office.house.registry, 0, 99).items == []
    # Vault may have it or not: it is to be erased either way.
    doom_abandoned(office.house.registry)
    assert len(doomed_templates(office.house.registry)) == 1


def test_a_consent_withdrawn_during_an_enrolment_leaves_no_template_without_an_owner(
    office: Office, vault: ScriptedZone
) -> None:
    """Vault completes the window after the withdrawal: what it stored is erased, and no token is given."""
    go = threading.Event()
    vault.enrolling = completing(secrets.token_bytes(TOKEN), wait=go)
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    wait_for(lambda: bool(vault.of(OpenEnrolment)))
    assert office.http.delete(f"/people/{person}/consents").status_code == 200
    go.set()
    assert over(office, enrolment)["state"] == "failed"
    problem(office.http.post(f"/enrolments/{enrolment}/token"), 404)
    stored_at = vault.heard.index(vault.of(OpenEnrolment)[0])
    (request,) = vault.of(OpenEnrolment)
    assert isinstance(request, OpenEnrolment)
    doom_abandoned(office.house.registry)
    assert request.handle in doomed_templates(office.house.registry)
    assert office.upkeep.erase_now()
    assert Erase(request.handle) in vault.heard[stored_at + 1 :]
    assert lawful_templates(office.house.registry, 0, 99).items == []


def test_a_withdrawal_erases_at_once_where_vault_is_there(office: Office, vault: ScriptedZone) -> None:
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add(NAME, consent=True)
    over(office, office.http.post("/enrolments", json={"person": person}).json()["id"])
    (handle,) = lawful_templates(office.house.registry, 0, 99).items
    assert office.http.delete(f"/people/{person}/consents").json() == {"state": "erased"}
    assert vault.of(Erase) == [Erase(handle)]
    (consent,) = office.http.get(f"/people/{person}/consents").json()["items"]
    assert consent["withdrawn_at"] is not None


@pytest.mark.parametrize("vault_is", ["away", "refusing"])
def test_a_withdrawal_counts_at_once_and_is_pending_until_vault_has_erased(
    office: Office, vault_is: str
) -> None:
    person = office.add(NAME, consent=True)
    with zone_at(office.vault_socket, ScriptedZone(enrolling=completing(secrets.token_bytes(TOKEN)))):
        over(office, office.http.post("/enrolments", json={"person": person}).json()["id"])
    if vault_is == "away":
        assert office.http.delete(f"/people/{person}/consents").json() == {"state": "pending"}
    else:
        refusing = ScriptedZone(refuse={Erase: Refused(Refusal.STORAGE)})
        with zone_at(office.vault_socket, refusing):
            assert office.http.delete(f"/people/{person}/consents").json() == {"state": "pending"}
    assert lawful_templates(office.house.registry, 0, 99).items == []
    assert "ask again" in problem(office.http.delete(f"/people/{person}"), 409)
    with zone_at(office.vault_socket, ScriptedZone()) as back:
        assert office.http.delete(f"/people/{person}/consents").json() == {"state": "erased"}
        assert len(back.of(Erase)) == 1
    assert office.http.delete(f"/people/{person}").status_code == 204


def test_erasing_the_template_alone_keeps_the_consent(office: Office, vault: ScriptedZone) -> None:
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add(NAME, consent=True)
    over(office, office.http.post("/enrolments", json={"person": person}).json()["id"])
    assert office.http.delete(f"/people/{person}/template").json() == {"state": "erased"}
    state = office.http.get(f"/people/{person}").json()
    assert (state["consent"], state["template"]) == (True, False)


def test_a_badge_is_added_listed_without_its_number_and_removed(office: Office, door: ScriptedZone) -> None:
    person = office.add(NAME)
    body = {"person": person, "bits": 26, "number": "2abcde1", "label": "blue"}
    added = office.http.post("/badges", json=body)
    assert added.status_code == 201
    badge = added.json()
    assert badge == {"id": badge["id"], "person": person, "label": "blue", "state": "active"}
    assert door.of(AddBadge) == [AddBadge(bytes.fromhex(badge["id"]), 26, 0x2ABCDE1.to_bytes(16))]
    assert office.http.get("/badges").json()["items"] == [badge]
    stored = b"".join(path.read_bytes() for path in office.folder.iterdir() if path.is_file())
    assert b"2abcde1" not in stored
    assert office.http.delete(f"/badges/{badge['id']}").json() == {"state": "removed"}
    assert door.of(RemoveBadge) == [RemoveBadge(bytes.fromhex(badge["id"]))]
    assert office.http.get("/badges").json()["items"] == []


def test_a_badge_that_door_did_not_take_is_not_listed_and_is_to_be_removed(office: Office) -> None:
    person = office.add(NAME)
    body = {"person": person, "bits": 26, "number": "1"}
    assert "is that zone running" in problem(office.http.post("/badges", json=body), 503)
    taken = ScriptedZone(refuse={AddBadge: Refused(Refusal.BADGE_TAKEN)})
    with zone_at(office.door_socket, taken):
        assert "remove that one first" in problem(office.http.post("/badges", json=body), 409)
    assert office.http.get("/badges").json()["items"] == []
    doom_abandoned(office.house.registry)
    assert len(doomed_badges(office.house.registry)) == 2


def test_a_badge_removed_while_door_is_away_is_pending(office: Office) -> None:
    person = office.add(NAME)
    with zone_at(office.door_socket, ScriptedZone()):
        badge = office.http.post("/badges", json={"person": person, "bits": 26, "number": "1"}).json()["id"]
    assert office.http.delete(f"/badges/{badge}").json() == {"state": "pending"}
    assert office.http.delete(f"/badges/{badge}").json() == {"state": "pending"}, (
        "asked again, it says the same"
    )
    (listed,) = office.http.get("/badges").json()["items"]
    assert (listed["id"], listed["state"]) == (badge, "removing"), "it may still open, and is shown"
    assert office.journal().count("badge removed") == 1
    with zone_at(office.door_socket, ScriptedZone()) as back:
        assert office.upkeep.remove_badges_now()
        assert back.of(RemoveBadge) == [RemoveBadge(bytes.fromhex(badge))]
    assert problem(office.http.delete(f"/badges/{badge}"), 404)


def test_a_badge_is_removed_though_another_cannot_be(office: Office, door: ScriptedZone) -> None:
    person = office.add(NAME)
    stuck, other = (
        office.http.post("/badges", json={"person": person, "bits": 26, "number": number}).json()["id"]
        for number in ("1", "2")
    )
    door.refuse[RemoveBadge] = Refused(Refusal.STORAGE)
    assert office.http.delete(f"/badges/{stuck}").json() == {"state": "pending"}
    door.refuse.clear()
    assert office.http.delete(f"/badges/{other}").json() == {"state": "removed"}
    assert door.of(RemoveBadge) == [RemoveBadge(bytes.fromhex(each)) for each in (stuck, other)]


def test_the_status_counts_without_identity(office: Office, vault: ScriptedZone, door: ScriptedZone) -> None:
    office.add(NAME)
    status = office.http.get("/status").json()
    assert status["site"] == "Front door"
    assert status["vault"] == {"records": 3, "leases": 2, "enrolment_open": False, "recognition": True}
    assert status["door"]["badge_entries"] == 40
    assert NAME not in str(status)
    assert vault.heard
    assert door.heard


def test_a_zone_that_is_away_or_in_trouble_is_said_to_be_and_is_no_error(office: Office) -> None:
    assert office.http.get("/status").json() == {"site": "Front door", "door": None, "vault": None}
    with zone_at(office.vault_socket, ScriptedZone(refuse={AskVault: Refused(Refusal.STORAGE)})):
        answer = office.http.get("/status")
    assert answer.status_code == 200
    assert answer.json()["vault"] is None


def test_a_zone_of_another_user_is_not_spoken_to(office: Office, vault: ScriptedZone) -> None:
    office.house.vault._users = frozenset({54321})
    assert office.http.get("/status").json()["vault"] is None
    assert vault.heard == []


def test_a_name_is_never_in_the_journal(office: Office, vault: ScriptedZone, door: ScriptedZone) -> None:
    vault.enrolling = completing(secrets.token_bytes(TOKEN))
    person = office.add(NAME, consent=True)
    over(office, office.http.post("/enrolments", json={"person": person}).json()["id"])
    office.http.post("/badges", json={"person": person, "bits": 26, "number": "2abcde1", "label": NAME[:30]})
    problem(office.http.get(f"/people/{NAME}"), 404)
    office.http.delete(f"/people/{person}/consents")
    office.http.delete(f"/people/{person}")
    written = office.journal()
    assert journal.verify(office.folder / "journal.jsonl").lines >= 5
    for secret in (NAME, NAME.split(maxsplit=1)[0], person, "2abcde1"):
        assert secret not in written
    assert door.heard


def test_the_database_in_trouble_is_a_503_without_details_of_anyone(office: Office) -> None:
    office.add(NAME)
    office.house.registry.close()
    assert "free some space" in problem(office.http.get("/people"), 503)


def test_nothing_in_the_interface_promises_a_template_an_image_or_an_embedding(office: Office) -> None:
    described = office.http.get("/openapi.json").json()
    routes = described["paths"]
    giving = [route for route in routes if "token" in route]
    assert giving == ["/enrolments/{enrolment_id}/token"]
    assert list(routes[giving[0]]) == ["post"]
    (template,) = [route for route in routes if route.endswith("/template")]
    assert list(routes[template]) == ["delete"]
    names = {
        name
        for schema in described["components"]["schemas"].values()
        for name in schema.get("properties", {})
    }
    assert not names & {"embedding", "image", "picture", "handle", "secret", "number_hash", "body"}


def test_a_long_list_comes_in_pages_none_twice_and_none_left_out(office: Office) -> None:
    names = [f"Jan {number}" for number in range(7)]
    for name in names:
        office.add(name)
    found: list[str] = []
    after: int | None = 0
    while after is not None:
        page = office.http.get(f"/people?after={after}&limit=3").json()
        assert len(page["items"]) <= 3
        found += [person["name"] for person in page["items"]]
        after = page["next"]
    assert found == names
    for wrong in ("limit=0", "limit=201", "after=-1", f"after={2**64}", "after=x"):
        assert problem(office.http.get(f"/people?{wrong}"), 422)


def test_people_of_one_name_are_found_without_the_name_in_an_address(office: Office) -> None:
    one, other = office.add("Jan"), office.add("Jan")
    office.add("Jan de Vries")
    found = office.http.post("/people/search?limit=1", json={"name": "Jan"}).json()
    assert [person["id"] for person in found["items"]] == [one]
    rest = office.http.post(f"/people/search?after={found['next']}", json={"name": "Jan"}).json()
    assert ([person["id"] for person in rest["items"]], rest["next"]) == ([other], None)


def test_a_name_is_found_however_a_keyboard_composed_it(office: Office) -> None:
    one = office.add("Zoe\u0308")
    found = office.http.post("/people/search", json={"name": "Zo\u00eb"}).json()["items"]
    assert [person["id"] for person in found] == [one]


def test_the_badges_of_one_person_can_be_asked_for(office: Office, door: ScriptedZone) -> None:
    people = [office.add("Jan"), office.add("Piet")]
    for number, person in enumerate(people):
        office.http.post("/badges", json={"person": person, "bits": 26, "number": f"{number}"})
    (badge,) = office.http.get(f"/badges?person={people[1]}").json()["items"]
    assert badge["person"] == people[1]
    assert len(door.of(AddBadge)) == 2


def events_of(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The names and the data of server-sent events."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in answer.text.strip().split("\n\n")]
    found = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block if not line.startswith(":"))
        found.append((fields["event"], json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("ending", ["done", "failed"])
def test_an_enrolment_is_followed_as_events_to_its_end(
    office: Office, vault: ScriptedZone, ending: str
) -> None:
    go = threading.Event()
    vault.enrolling = completing(secrets.token_bytes(TOKEN), wait=go) if ending == "done" else staying_open
    person = office.add(NAME, consent=True)
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    threading.Timer(0.5, go.set if ending == "done" else lambda: cancel(office, enrolment)).start()
    events = events_of(office.http.get(f"/enrolments/{enrolment}/events"))
    assert [name for name, _ in events[:-1]] == ["progress"] * (len(events) - 1)
    assert len(events) >= 2
    name, last = events[-1]
    assert (name, last["state"]) == (ending, ending)
    remaining = [data["remaining"] for _, data in events]
    assert remaining == sorted(remaining, reverse=True)
    assert all("token" not in data for _, data in events)


def cancel(office: Office, enrolment: str) -> None:
    assert office.http.delete(f"/enrolments/{enrolment}").status_code == 204


def test_events_of_no_enrolment_are_a_404_before_any_event(office: Office) -> None:
    problem(office.http.get("/enrolments/none/events"), 404)


def test_the_doors_events_come_in_their_order_with_where_to_go_on(office: Office, door: ScriptedZone) -> None:
    first = office.http.get("/door/events").json()
    assert [event["kind"] for event in first["items"]] == ["pressed", "unlocked"]
    assert first["items"][0]["at"] == "2026-11-25T08:00:00+00:00"
    assert first["missed"] is False
    office.http.get(f"/door/events?after={first['next']}&limit=7")
    (begin, further) = door.of(AskEvents)
    assert begin == AskEvents(bytes(8), 0, 50)
    assert further == AskEvents(door.instance[:8], 2, 7)
    assert problem(office.http.get("/door/events?after=x"), 422)


def test_a_door_that_is_away_is_a_503_for_who_asks_for_it_alone(office: Office) -> None:
    assert "is that zone running" in problem(office.http.get("/door"), 503)
    assert "is that zone running" in problem(office.http.get("/door/events"), 503)


def test_the_settings_in_force_can_be_read_and_hold_no_secret(office: Office) -> None:
    found = office.http.get("/settings").json()
    assert found["recognition"]["enabled"] is False
    assert found["door"]["unlock_time"] == 5.0
    assert set(found) == {
        "site",
        "paths",
        "users",
        "api",
        "door",
        "badge_readers",
        "camera",
        "recognition",
    }
    problem(office.http.put("/settings", json={}), 405)
