"""The commands as an administrator types them, at a running door: what they print, and their exit status."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.simulation.demo import variations
from appliance.simulation.door import Shown
from tests.system.house import House, eventually, open_house

pytestmark = [pytest.mark.models, pytest.mark.timeout(200)]

NAME = "Ada B/yron"


@pytest.fixture(scope="module")
def door(test_models: Path, portrait_paths: dict[str, Path]) -> Iterator[House]:
    with open_house(test_models, portrait_paths) as house:
        yield house


def run(door: House, *words: str, exit_status: int = 0, stderr: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DREMPEL_CONFIG": str(door.door.config)},
    )
    assert done.returncode == exit_status, done.stderr
    if exit_status:
        assert len(done.stderr.splitlines()) <= 1, "an error is one line"
        assert "Traceback" not in done.stderr
    return done.stdout if exit_status == 0 and not stderr else done.stdout + done.stderr


def as_json(door: House, *words: str) -> Any:
    return json.loads(run(door, *words, "--json"))


def press_until_captured(door: House) -> None:
    """What the person does meanwhile."""
    eventually(lambda: door.api.call("GET", "/status")["vault"]["enrolment_open"])
    for _ in range(4):
        door.press()
        door.wait_locked()
        if not door.api.call("GET", "/status")["vault"]["enrolment_open"]:
            return


def test_a_person_from_the_first_word_to_the_last(door: House, tmp_path: Path) -> None:
    person = as_json(door, "people", "add", NAME)["id"]
    badge = as_json(door, "badges", "add", NAME, "26:155aa55")["id"]
    assert [each["id"] for each in as_json(door, "badges", "list")] == [badge]
    assert [each["id"] for each in as_json(door, "badges", "list", NAME)] == [badge]
    assert door.door.board.wait_for(door.relay, 1, 5, since=door.badge())

    token = tmp_path / "token.png"
    assert "no consent" in run(door, "enrol", NAME, "--png", str(token), exit_status=1)
    assert not token.exists()
    assert as_json(door, "consent", "give", NAME, "--notice", "2026-1")["act"] == "signed-paper"
    pictures = variations(door.portraits["obama.jpg"], door.door.state)
    door.door.show(Shown(0.3 * number, picture) for number, picture in enumerate(pictures))
    presser = threading.Thread(target=press_until_captured, args=(door,))
    presser.start()
    assert "token" in as_json(door, "enrol", NAME, "--png", str(token))
    presser.join()
    assert token.stat().st_mode & 0o777 == 0o600
    assert "name a new file" in run(door, "enrol", NAME, "--png", str(token), exit_status=2)

    (listed,) = as_json(door, "people", "list")
    assert (listed["id"], listed["consent"], listed["template"], listed["badges"]) == (person, True, True, 1)
    status = as_json(door, "status")
    assert status["vault"]["records"] == status["vault"]["leases"] == 1
    door.door.show([Shown(0.0, token, scale=0.6), Shown(0.5, door.portraits["obama2.jpg"])])
    door.wait_locked()
    assert door.door.board.wait_for(door.relay, 1, 10, since=door.press())

    events = [json.loads(line)["kind"] for line in run(door, "events", "--json").splitlines()]
    assert events[0] == "started"
    assert [kind for kind in events if kind.startswith(("unlocked", "captured"))][-1] == "unlocked"
    assert {"captured", "unlocked", "badge_added"} <= set(events)

    assert as_json(door, "consent", "withdraw", NAME) == {"state": "erased"}
    assert as_json(door, "status")["vault"]["records"] == 0
    assert as_json(door, "badges", "remove", badge) == {"state": "removed"}
    assert as_json(door, "people", "erase", NAME) == {"state": "erased"}
    assert as_json(door, "people", "list") == []
    journals = as_json(door, "journal", "verify")
    assert {each["zone"]: each["ok"] for each in journals} == dict.fromkeys(
        ("door", "lens", "vault", "admin"), True
    )


def test_a_door_that_runs_is_backed_up_and_not_restored_under(door: House, tmp_path: Path) -> None:
    as_json(door, "people", "add", "Backed Up")
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    words = (str(tmp_path / "backup"), "--passphrase-file", str(tmp_path / "passphrase"))
    assert as_json(door, "backup", *words)["bytes"] == (tmp_path / "backup").stat().st_size
    assert "Templates are not in it" in run(
        door, "backup", str(tmp_path / "another"), *words[1:], stderr=True
    )
    assert "stop Drempel first" in run(door, "restore", *words, exit_status=2)
    assert as_json(door, "people", "erase", "Backed Up") == {"state": "erased"}


def test_an_account_from_its_token_to_its_end(door: House) -> None:
    account = as_json(door, "accounts", "add", "front desk", "--role", "enroller")
    assert account["token"].startswith("drempel_")
    listed = as_json(door, "accounts", "list")
    assert [(each["label"], each["role"]) for each in listed] == [("front desk", "enroller")]
    assert account["token"] not in json.dumps(listed)
    assert as_json(door, "accounts", "revoke", account["id"]) == {"state": "revoked"}
    (ended,) = as_json(door, "accounts", "list")
    assert ended["ended_at"] is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["people", "erase", "Nobody"], "no such person"),
        (["badges", "add", "Nobody", "26:zz"], "BITS:HEX"),
        (["badges", "remove", "abc"], "badges list"),
        (["models", "install", "nope"], "edge"),
        (["run", "--state", "/elsewhere"], "--simulate"),
        (["simulate", "press"], "DREMPEL_CONTROL"),
        (["accounts", "add", "x", "--role", "janitor"], "role"),
        (["accounts", "revoke", "x"], "accounts list"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(door: House, words: list[str], says: str) -> None:
    assert says in run(door, *words, exit_status=2)


def test_what_cannot_be_had_is_exit_1(door: House) -> None:
    door.door.kill("vault", hold=True)
    try:
        assert as_json_of_failure(door)["vault"] is None
    finally:
        door.door.revive("vault")


def as_json_of_failure(door: House) -> Any:
    return json.loads(run(door, "status", "--json", exit_status=1))
