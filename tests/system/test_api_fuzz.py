"""The whole local API against generated calls, with every role and with none: schemathesis, over loopback.

The zones are the real ones. What is asserted of every answer: no 5xx; a status, a media type, headers and a
body that the description documents; 401 for whoever has no account, 403 for a role that the route's rule does
not name, and neither for one that it does. `pytest -s` prints how many calls were made and how they ended.
"""

import collections
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from appliance.admin.accounts import Role
from appliance.api_client import ApiClient, ApiError
from appliance.errors import ConfigurationError
from appliance.simulation.door import Plan
from tests.system.house import House, eventually, open_house

DESCRIPTION = json.loads(Path("docs/openapi.json").read_text(encoding="utf-8"))
# Who calls is this test's affair: a generated header would stand in its way.
schema = schemathesis.openapi.from_dict({**DESCRIPTION, "security": []})
OPERATIONS: dict[str, Any] = {
    operation.label: operation
    for operation in (found.ok() for found in schema.get_all_operations() if isinstance(found, Ok))
}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    *(
        schemathesis.checks.CHECKS.get_one(name)
        for name in (
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
            "negative_data_rejection",
        )
    ),
]
NOBODY = "nobody"
A_WRONG_TOKEN = "a token of nobody's"  # noqa: S105 - an identity, no token
IDENTITIES = (*(role.value for role in Role), NOBODY, A_WRONG_TOKEN)
KINDS = {
    "person_id": "person",
    "person": "person",
    "badge_id": "badge",
    "enrolment_id": "enrolment",
    "account_id": "account",
}


@dataclass
class Site:
    """A door whose API listens on loopback, the tokens of each role, and ids of what is really there."""

    house: House
    url: str
    tokens: dict[str, str]
    known: dict[str, list[str]] = field(default_factory=lambda: collections.defaultdict(list))
    ended: collections.Counter[str] = field(default_factory=collections.Counter)
    succeeded: set[str] = field(default_factory=set)
    calls: int = 0

    @property
    def api(self) -> ApiClient:
        return self.house.api

    def headers(self, identity: str) -> dict[str, str]:
        if identity == NOBODY:
            return {}
        token = self.tokens.get(identity, f"drempel_{secrets.token_urlsafe(32)}")
        return {"Authorization": f"Bearer {token}"}

    def plant(self) -> None:
        """A person with a consent, a badge and a cancelled enrolment, one without, and an account."""
        self.known["person"].append(self.api.call("POST", "/people", {"name": "Without Consent"})["id"])
        person = self.api.call("POST", "/people", {"name": "Generated Person"})["id"]
        self.api.call("POST", f"/people/{person}/consents", {"notice_version": "1", "act": "signed-paper"})
        badge = {"person": person, "bits": 64, "number": secrets.token_hex(8)}
        enrolment = self.api.call("POST", "/enrolments", {"person": person})["id"]
        self.cancel(enrolment)
        self.known["person"].append(person)
        self.known["enrolment"].append(enrolment)
        self.known["badge"].append(self.api.call("POST", "/badges", badge)["id"])
        account = self.api.call("POST", "/accounts", {"label": "planted", "role": "auditor"})
        self.known["account"].append(account["id"])

    def close_windows(self, answer: requests.Response, operation: str) -> None:
        """An enrolment that a call opened is cancelled: the next would find the window busy."""
        if operation == "POST /enrolments" and answer.status_code == 201:
            self.cancel(answer.json()["id"])

    def cancel(self, enrolment: str) -> None:
        self.api.call("DELETE", f"/enrolments/{enrolment}")
        eventually(lambda: self.api.call("GET", f"/enrolments/{enrolment}")["state"] != "open")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def site(test_models: Path, portrait_paths: dict[str, Path]) -> Iterator[Site]:
    port = free_port()
    # A generated call may hit on any text that stands in the description or in our code, and this name
    # confirms that vault's keys are to be destroyed.
    name = f"Door {secrets.token_hex(12)}"
    with open_house(test_models, portrait_paths, Plan(packs=test_models, api_port=port, site=name)) as house:
        tokens = {
            role.value: house.api.call("POST", "/accounts", {"label": role.value, "role": role.value})[
                "token"
            ]
            for role in Role
        }
        yield Site(house, f"http://127.0.0.1:{port}", tokens)


def real_ids(case: Any, site: Site, draw: int) -> None:
    """Put the id of something that is there in the place of a generated one.

    Of what was planted lately, since earlier calls have erased, withdrawn and given much of what is older.
    """
    for values in (case.path_parameters, case.query, case.body):
        if not isinstance(values, dict):
            continue
        for name in values.keys() & KINDS.keys():
            known = site.known[KINDS[name]][-4:]
            if isinstance(values[name], str) and known:
                values[name] = known[draw % len(known)]


def call_and_check(site: Site, identity: str, label: str, case: Any) -> None:
    """Make one call, and check its answer."""
    operation = OPERATIONS[label]
    answer = case.call(base_url=site.url, headers=site.headers(identity), timeout=20)
    site.calls += 1
    site.ended[f"{answer.status_code}"] += 1
    if answer.status_code < 300:
        site.succeeded.add(label)
    roles = DESCRIPTION["paths"][operation.path][operation.method]["x-roles"]
    if identity not in {role.value for role in Role}:
        assert answer.status_code == 401, (label, identity, answer.status_code)
    elif identity not in roles:
        assert answer.status_code == 403, (label, identity, answer.status_code)
    else:
        assert answer.status_code not in {401, 403}, (label, identity, answer.status_code)
    checks = CHECKS if answer.status_code not in {401, 403} else CHECKS[:-1]
    case.validate_response(answer, checks=checks)
    site.close_windows(answer, label)


def generate(site: Site, identity: str, label: str, most: int, chance: int) -> None:
    """At most `most` different calls of one operation."""
    operation = OPERATIONS[label]

    @settings(
        max_examples=most,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @seed(chance)
    @given(data=st.data())
    def generated(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(list(GenerationMode)))
        real, draw = data.draw(st.booleans()), data.draw(st.integers(0, 1000))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if real:
            real_ids(case, site, draw)
        call_and_check(site, identity, label, case)

    generated()


def test_every_route_of_the_description_has_a_role_rule() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in DESCRIPTION["paths"].values())
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            assert operation["x-roles"], f"{method} {path}"
            assert set(operation["x-roles"]) <= {role.value for role in Role}


@pytest.mark.parametrize(
    ("allowed", "refused", "least"),
    [(8, 3, 0), pytest.param(150, 15, 5000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])],
)
def test_no_generated_call_of_any_role_or_none_breaks_the_interface(
    site: Site, allowed: int, refused: int, least: int
) -> None:
    """`least` calls must have come past the gate and the role's rule."""
    site.calls = 0
    site.ended.clear()
    site.succeeded.clear()
    chance = secrets.randbits(32)
    per_identity: collections.Counter[str] = collections.Counter()
    for identity in IDENTITIES:
        for label, operation in OPERATIONS.items():
            site.plant()
            before = site.calls
            roles = DESCRIPTION["paths"][operation.path][operation.method]["x-roles"]
            generate(site, identity, label, allowed if identity in roles else refused, chance)
            per_identity[identity] += site.calls - before
    past = site.calls - site.ended["401"] - site.ended["403"]
    print(
        f"\n{site.calls} calls of seed {chance}, {past} of them past gate and rule: {dict(per_identity)}; "
        f"ended {dict(sorted(site.ended.items()))}"
    )
    assert set(per_identity) == set(IDENTITIES)
    assert past >= least
    # Only who types the site's name may destroy its keys: `tests/admin/test_vault_routes.py` does.
    assert "POST /decommission" not in site.succeeded
    if least:
        # A token waits for nobody here: `tests/admin/test_api.py` takes one.
        assert set(OPERATIONS) - site.succeeded == {
            "POST /enrolments/{enrolment_id}/token",
            "POST /decommission",
        }
    with pytest.raises((ApiError, ConfigurationError)):
        site.api.call("GET", "/people/nobody")
    assert site.house.door.board.wait_for(site.house.relay, 0, 5)
