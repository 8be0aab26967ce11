"""Accounts: who calls, what their role may do, and that a token is kept nowhere."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from appliance.admin import accounts as module
from appliance.admin.accounts import TOKEN, VOUCHED, Accounts, Role, UnknownAccount
from appliance.admin.api.access import RouteWithoutRule, RuledRoute, allows, router
from appliance.admin.api.application import RESOURCES
from appliance.admin.registry.database import Registry
from tests.admin.conftest import Office
from tests.admin.scripted_zones import ScriptedZone
from tests.admin.test_api import problem

ROUTES = [
    ("GET", "/people", set(Role)),
    ("POST", "/people", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("POST", "/people/search", set(Role)),
    ("DELETE", "/people/x", {Role.ADMINISTRATOR}),
    ("POST", "/people/x/consents", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("DELETE", "/people/x/consents", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("DELETE", "/people/x/template", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("POST", "/enrolments", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("GET", "/enrolments/x/events", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("POST", "/enrolments/x/token", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("POST", "/badges", {Role.ADMINISTRATOR, Role.ENROLLER}),
    ("GET", "/door/events", {Role.ADMINISTRATOR, Role.AUDITOR}),
    ("GET", "/settings", {Role.ADMINISTRATOR, Role.AUDITOR}),
    ("GET", "/accounts", {Role.ADMINISTRATOR, Role.AUDITOR}),
    ("POST", "/accounts", {Role.ADMINISTRATOR}),
    ("DELETE", "/accounts/x", {Role.ADMINISTRATOR}),
    ("GET", "/openapi.json", set(Role)),
]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def strangers(office: Office) -> Office:
    """The office as it is on loopback, where the kernel vouches for nobody."""
    office.http.vouched = False
    return office


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("method", "route", "allowed"), ROUTES)
def test_a_role_may_do_what_its_rule_says_and_nothing_else(
    strangers: Office, role: Role, method: str, route: str, allowed: set[Role]
) -> None:
    _, token = strangers.house.accounts.add("x", role, 1)
    answer = strangers.http.request(method, route, headers=bearer(token), content=b"{")
    if role in allowed:
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
    assert Accounts(registry).find(made["token"]) is None


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
    lines = [line for line in office.journal().splitlines() if "person added" in line]
    assert f'"account":{account.number}' in lines[0]
    assert '"account":0' in lines[1]
    assert not vault.heard


@pytest.mark.parametrize("size", [70_000, 2_000_000])
def test_a_body_that_is_too_large_is_a_413_and_is_not_read(office: Office, size: int) -> None:
    answer = office.http.post("/people", content=b'{"name": "' + b"a" * size + b'"}')
    assert "send less" in problem(answer, 413)


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
