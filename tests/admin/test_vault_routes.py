"""Checking vault and ending it, through the local API, with a scripted vault."""

import json
from pathlib import Path

import pytest

from appliance.admin import zones
from appliance.admin.registry.holdings import doomed_templates, lawful_templates
from appliance.link.messages import AskCheck, Checked, Decommission, Refusal, Refused
from tests.admin.conftest import Office
from tests.admin.scripted_zones import ScriptedZone, completing
from tests.admin.test_api import over, problem

SITE = "Front door"
"""The default of [site] name, with which the office of these tests runs."""


def token(office: Office, role: str) -> dict[str, str]:
    account = office.http.post("/accounts", json={"label": role, "role": role}).json()
    return {"Authorization": f"Bearer {account['token']}"}


def test_a_check_counts_by_tier_and_names_nobody(office: Office, vault: ScriptedZone) -> None:
    answer = office.http.get("/vault/check")
    assert answer.status_code == 200
    assert answer.json() == {
        "ok": True,
        "records": {"tier1": 1, "tier2": 2, "tier3": 0},
        "unreadable": 0,
        "epoch": 7,
        "database": "sound",
    }
    assert vault.of(AskCheck)


@pytest.mark.parametrize(
    ("checked", "database"),
    [
        (Checked(0, 3, 0, 1, 7, 1), "sound"),
        (Checked(0, 3, 0, 0, 7, 0), "damaged"),
        (Checked(0, 3, 0, 3, 7, 0), "damaged"),
    ],
)
def test_one_unreadable_record_or_a_damaged_file_is_not_ok(
    office: Office, vault: ScriptedZone, checked: Checked, database: str
) -> None:
    vault.checked = checked
    found = office.http.get("/vault/check").json()
    assert (found["ok"], found["unreadable"], found["database"]) == (False, checked.unreadable, database)


def test_a_check_may_take_longer_than_a_command(
    office: Office, vault: ScriptedZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zones, "COMMAND_TIME", 0.2)
    vault.slow = 0.6
    assert office.http.get("/vault/check").json()["ok"] is True


@pytest.mark.parametrize(("method", "route"), [("GET", "/vault/check"), ("POST", "/decommission")])
def test_a_vault_that_is_away_is_a_503_that_says_where_to_look(
    office: Office, method: str, route: str
) -> None:
    body = {"json": {"site": SITE}} if method == "POST" else {}
    assert "journalctl -u drempel-vault" in problem(office.http.request(method, route, **body), 503)


@pytest.mark.parametrize(
    ("method", "route", "allowed"),
    [
        ("GET", "/vault/check", {"administrator", "auditor"}),
        ("POST", "/decommission", {"administrator"}),
    ],
)
def test_who_may(office: Office, vault: ScriptedZone, method: str, route: str, allowed: set[str]) -> None:
    vault.checked = Checked(0, 0, 0, 0, 1, 1)
    office.http.vouched = True
    tokens = {role: token(office, role) for role in ("administrator", "enroller", "auditor")}
    office.http.vouched = False
    body = {"json": {"site": SITE}} if method == "POST" else {}
    for role, header in tokens.items():
        answer = office.http.request(method, route, headers=header, **body)
        assert answer.status_code == (200 if role in allowed else 403), role
    assert office.http.request(method, route, **body).status_code == 401


@pytest.mark.parametrize(
    "site", ["front door", "Front door ", "Front", "the name of this very site", "x" * 60]
)
def test_another_name_than_the_sites_destroys_nothing(office: Office, vault: ScriptedZone, site: str) -> None:
    assert "nothing was destroyed" in problem(office.http.post("/decommission", json={"site": site}), 409)
    assert not vault.of(Decommission)


@pytest.mark.parametrize("body", [{}, {"site": ""}, {"site": 1}, {"site": SITE, "sure": True}, None])
def test_a_malformed_confirmation_destroys_nothing(
    office: Office, vault: ScriptedZone, body: dict[str, object] | None
) -> None:
    problem(office.http.post("/decommission", json=body), 422)
    assert not vault.of(Decommission)


def test_the_description_does_not_tell_what_would_confirm() -> None:
    """Neither an example nor a default of the route is the name of a site, simulated or as shipped."""
    described = json.loads(Path("docs/openapi.json").read_text(encoding="utf-8"))
    confirmation = json.dumps(described["components"]["schemas"]["Confirmation"])
    for name in (SITE, "Simulated door"):
        assert name not in confirmation
        assert name not in json.dumps(described["paths"]["/decommission"])


def test_decommissioning_ends_windows_is_written_down_and_leaves_no_template_enrolled(
    office: Office, vault: ScriptedZone
) -> None:
    person = office.add("Jan de Vries", consent=True)
    vault.enrolling = completing(bytes(35))
    enrolment = office.http.post("/enrolments", json={"person": person}).json()["id"]
    assert over(office, enrolment)["state"] == "done"
    (handle,) = lawful_templates(office.house.registry, 0, 9).items
    assert office.http.post("/decommission", json={"site": SITE}).json() == {"state": "decommissioned"}
    assert len(vault.of(Decommission)) == 1
    assert lawful_templates(office.house.registry, 0, 9).items == []
    assert doomed_templates(office.house.registry) == [handle]
    assert "decommissioned" in office.journal()


def test_a_vault_that_could_not_destroy_its_keys_is_asked_again(office: Office, vault: ScriptedZone) -> None:
    vault.refuse[Decommission] = Refused(Refusal.STORAGE)
    assert problem(office.http.post("/decommission", json={"site": SITE}), 503)
    assert "decommissioned" not in office.journal()
    del vault.refuse[Decommission]
    assert office.http.post("/decommission", json={"site": SITE}).status_code == 200
    assert office.http.post("/decommission", json={"site": SITE}).status_code == 200
