"""Accounts: who calls, what their role may do, and that a token is kept nowhere."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from appliance.admin import accounts as module
from appliance.admin.accounts import TOKEN, VOUCHED, Accounts, Role, UnknownAccount
from appliance.admin.api.access import RouteWithoutRule, RuledRoute, allows, router
from appliance.admin.api.application import RESOURCES, openapi
from appliance.admin.registry.database import Registry, RegistryError
from tests.admin.conftest import Office
from tests.admin.scripted_zones import ScriptedZone
from tests.admin.test_api import problem

ALL = {Role.ADMINISTRATOR, Role.ENROLLER, Role.AUDITOR}
DESK = {Role.ADMINISTRATOR, Role.ENROLLER}
WATCH = {Role.ADMINISTRATOR, Role.AUDITOR}
ALONE = {Role.ADMINISTRATOR}
RULES = {
    "GET /people": ALL,
    "POST /people": DESK,
    "POST /people/search": ALL,
    "GET /people/{person_id}": ALL,
    "DELETE /people/{person_id}": ALONE,
    "GET /people/{person_id}/consents": ALL,
    "POST /people/{person_id}/consents": DESK,
    "DELETE /people/{person_id}/consents": DESK,
    "DELETE /people/{person_id}/template": DESK,
    "POST /enrolments": DESK,
    "GET /enrolments/{enrolment_id}": DESK,
    "GET /enrolments/{enrolment_id}/events": DESK,
    "DELETE /enrolments/{enrolment_id}": DESK,
    "POST /enrolments/{enrolment_id}/token": DESK,
    "GET /badges": ALL,
    "POST /badges": DESK,
    "DELETE /badges/{badge_id}": DESK,
    "GET /door": ALL,
    "GET /door/events": WATCH,
    "GET /vault/check": WATCH,
    "POST /vault/rotation": ALONE,
    "POST /vault/clock": ALONE,
    "POST /decommission": ALONE,
    "GET /status": ALL,
    "GET /settings": WATCH,
    "GET /accounts": WATCH,
    "POST /accounts": ALONE,
    "DELETE /accounts/{account_id}": ALONE,
    "GET /openapi.json": ALL,
}
"""Who may do what, written by hand: a rule that changes must change here too, by somebody who means it."""


def test_the_rules_are_those_of_all_routes_and_of_no_others() -> None:
    described = json.loads(openapi())["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    assert routes | {"GET /openapi.json"} == set(RULES)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def strangers(office: Office) -> Office:
    """The office as it is on loopback, where the kernel vouches for nobody."""
    office.http.vouched = False
    return office


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", RULES)
def test_a_role_may_do_what_its_rule_says_and_nothing_else(strangers: Office, role: Role, name: str) -> None:
    method, route = name.split()
    _, token = strangers.house.accounts.add("x", role, 1)
    answer = strangers.http.request(method, re.sub(r"{\w+}", "x", route), headers=bearer(token), content=b"{")
    if role in RULES[name]:
        assert answer.status_code not in {401, 403}
    else:
        assert "needs an account with the role" in problem(answer, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer drempel_" + "A" * 43},
        {"Authorization": "Basic cm9vdDpyb290"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": "token=1"},
    ],
)
@pytest.mark.parametrize("route", ["/people", "/no/such/route", "/openapi.json", "/accounts"])
def test_whoever_has_no_account_hears_nothing_but_401(
    strangers: Office, headers: dict[str, str], route: str
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = strangers.http.get(route, headers=raw)
    assert "drempel accounts add" in problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_strangers_are_counted_in_the_journal_once_a_minute(strangers: Office) -> None:
    for _ in range(5):
        strangers.http.get("/people")
    assert strangers.journal().count('"event":"wrong token"') == 1


def test_two_tokens_in_one_call_are_none(strangers: Office) -> None:
    _, token = strangers.house.accounts.add("x", Role.ADMINISTRATOR, 1)
    twice = [(b"Authorization", f"Bearer {token}".encode())] * 2
    problem(strangers.http.get("/people", headers=twice), 401)


def test_on_the_unix_socket_a_token_that_is_sent_decides_too(office: Office) -> None:
    _, token = office.house.accounts.add("x", Role.AUDITOR, 1)
    problem(office.http.post("/people", json={"name": "Jan"}, headers=bearer(token)), 403)
    problem(office.http.get("/people", headers=bearer("drempel_" + "A" * 43)), 401)
    assert office.http.post("/people", json={"name": "Jan"}).status_code == 201


def test_a_token_is_shown_once_and_kept_nowhere(office: Office, tmp_path: Path) -> None:
    made = office.http.post("/accounts", json={"label": "desk", "role": "enroller"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    token = made.json()["token"]
    assert TOKEN.fullmatch(token)
    (listed,) = office.http.get("/accounts").json()["items"]
    assert listed == {key: value for key, value in made.json().items() if key != "token"}
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert kept
    assert token.encode() not in kept
    assert token not in office.journal()


def test_a_revoked_account_counts_no_more_and_neither_does_its_follower(
    office: Office, registry: Registry
) -> None:
    made = office.http.post("/accounts", json={"label": "", "role": "enroller"}).json()
    caller = office.house.accounts.find(made["token"])
    assert caller is not None
    assert office.house.accounts.counts(caller)
    assert office.http.delete(f"/accounts/{made['id']}").status_code == 204
    assert office.house.accounts.find(made["token"]) is None
    assert not office.house.accounts.counts(caller)
    assert office.house.accounts.counts(VOUCHED)
    problem(office.http.delete(f"/accounts/{made['id']}"), 404)
    (listed,) = office.http.get("/accounts").json()["items"]
    assert listed["ended_at"] is not None, "the journal knows it by its number, which must stay to be read"
    assert Accounts(registry).find(made["token"]) is None


def test_a_revoked_token_is_dead_even_where_the_disk_is_full(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, token = office.house.accounts.add("desk", Role.ENROLLER, 1)

    def full() -> None:
        raise RegistryError("registry.db cannot be used: database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(office.house.registry, "transaction", full)
        problem(office.http.delete(f"/accounts/{account.id}"), 503)
    assert office.house.accounts.find(token) is None
    assert office.http.delete(f"/accounts/{account.id}").status_code == 204


def test_accounts_are_there_after_a_restart(registry: Registry) -> None:
    account, token = Accounts(registry).add("desk", Role.ENROLLER, 30)
    again = Accounts(registry)
    found = again.find(token)
    assert found is not None
    assert (found.account, found.role) == (account.number, Role.ENROLLER)
    with pytest.raises(UnknownAccount):
        again.revoke("nobody")


def test_an_expired_account_stays_dead_when_the_clock_is_put_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)

    class Clock(datetime):
        ahead = timedelta()

        @classmethod
        def now(cls, tz: object = None) -> "Clock":  # noqa: ARG003
            return cls.fromisoformat((now + cls.ahead).isoformat())

    monkeypatch.setattr(module, "datetime", Clock)
    accounts = Accounts(registry)
    _, token = accounts.add("desk", Role.ENROLLER, 1)
    assert accounts.find(token) is not None
    Clock.ahead = timedelta(days=2)
    assert accounts.find(token) is None
    accounts.drop_expired()
    Clock.ahead = timedelta()
    assert accounts.find(token) is None
    assert Accounts(registry).find(token) is None


def test_a_route_without_a_rule_cannot_be_made() -> None:
    routes = router("/x", "x")
    with pytest.raises(RouteWithoutRule, match="no role rule"):

        @routes.get("")
        def unruled() -> None: ...

    with pytest.raises(RouteWithoutRule, match="no role rule"):

        @routes.get("")
        @allows()
        def for_nobody() -> None: ...


def test_every_route_of_the_application_is_behind_a_rule(office: Office) -> None:
    app = office.http._app
    assert isinstance(app, FastAPI)
    # What is served is what was included, and no page of the framework's own beside it.
    included = [getattr(each, "original_router", None) for each in app.routes]
    assert included == [resource.routes for resource in RESOURCES]
    routes = [route for resource in RESOURCES for route in resource.routes.routes]
    assert all(isinstance(route, RuledRoute) and route.roles for route in routes)
    assert len(routes) >= 25


def test_acts_are_written_down_with_the_number_of_the_account(office: Office, vault: ScriptedZone) -> None:
    account, token = office.house.accounts.add("desk", Role.ENROLLER, 1)
    office.http.post("/people", json={"name": "Jan"}, headers=bearer(token))
    office.http.post("/people", json={"name": "Piet"})
    made = office.http.post("/accounts", json={"label": "", "role": "auditor"}).json()
    assert f'"account":0,"subject":{made["number"]}' in office.journal()
    lines = [line for line in office.journal().splitlines() if "person added" in line]
    assert f'"account":{account.number}' in lines[0]
    assert '"account":0' in lines[1]
    assert not vault.heard


@pytest.mark.parametrize("size", [70_000, 2_000_000])
def test_a_body_that_is_too_large_is_a_413_and_is_not_read(office: Office, size: int) -> None:
    answer = office.http.post("/people", content=b'{"name": "' + b"a" * size + b'"}')
    assert "send less" in problem(answer, 413)


def test_an_enroller_is_told_no_counts_from_which_passages_could_be_followed(
    office: Office, door: ScriptedZone
) -> None:
    _, token = office.house.accounts.add("desk", Role.ENROLLER, 1)
    for route in ("/door", "/status"):
        shown = office.http.get(route, headers=bearer(token)).json()
        shown = shown.get("door", shown)
        assert (shown["badge_entries"], shown["face_entries"], shown["badges"]) == (None, None, 5)
        told = office.http.get(route).json()
        assert told.get("door", told)["badge_entries"] == 40
    assert door.heard


def test_a_fault_that_nobody_foresaw_tells_nothing_of_what_was_sent(
    office: Office, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("Wilhelmina van Oranje")

    monkeypatch.setattr("appliance.admin.api.people.add_person", fault)
    answer = office.http.post("/people", json={"name": "Wilhelmina van Oranje"})
    assert "see its log" in problem(answer, 500)
    said = capsys.readouterr().err
    assert "RuntimeError at " in said
    assert "Wilhelmina" not in said
    assert '"event":"failed"' in office.journal()
