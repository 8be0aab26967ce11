"""Vault's keys and records as an administrator sees them, at a running door: checked, rotated, destroyed."""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.api_client import ApiClient
from appliance.process import WRONG_CONFIGURATION
from appliance.simulation.door import SimulatedDoor
from tests.system.house import NAME, House, eventually, open_house
from tests.system.test_commands import as_json, run

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def checked(test_models: Path, portrait_paths: dict[str, Path]) -> Iterator[House]:
    with open_house(test_models, portrait_paths) as house:
        house.enrol()
        yield house


def opens_for_the_face(house: House, presses: int = 4) -> bool:
    """Whether the enrolled person is let in; a busy machine may be late for one press."""
    house.show(house.portraits["obama2.jpg"])
    for _ in range(presses):
        house.wait_locked()
        since = house.press()
        house.wait_attempt()
        house.wait_locked()
        if house.opened(since):
            return True
    return False


def opens_for_the_badge(house: House) -> bool:
    house.wait_locked()
    return bool(house.door.board.wait_for(house.relay, 1, 5, since=house.badge()))


def vault_files(house: House) -> set[str]:
    return {path.name for path in house.door.settings.zone_state("vault").iterdir()}


def test_a_check_says_that_all_is_well(checked: House) -> None:
    assert "records: 0 of tier 1, 1 of tier 2, 0 of tier 3" in run(checked, "check")
    found = as_json(checked, "check")
    assert found["ok"]
    assert found["records"] == {"tier1": 0, "tier2": 1, "tier3": 0}
    assert (found["unreadable"], found["database"]) == (0, "sound")
    assert NAME not in json.dumps(found)


def test_rotating_the_keys_changes_the_epoch_and_nobodys_token(checked: House) -> None:
    before = as_json(checked, "check")["epoch"]
    assert as_json(checked, "rotate-keys") == {"state": "rotated"}
    assert as_json(checked, "check")["epoch"] == before + 1
    assert {name for name in vault_files(checked) if name.startswith("epoch")} == {f"epoch-{before + 1}.key"}
    assert opens_for_the_face(checked)


@pytest.mark.parametrize("claim", ["card", "number"])
def test_a_claim_that_the_site_does_not_take_is_refused_before_anybody_goes_to_the_door(
    checked: House, claim: str
) -> None:
    said = run(checked, "enrol", NAME, "--claim", claim, exit_status=1)
    assert "does not take such a claim: see claims and tier in the settings" in said
    assert not checked.api.call("GET", "/status")["vault"]["enrolment_open"]


def test_a_card_is_nobodys_to_print(checked: House, tmp_path: Path) -> None:
    said = run(checked, "enrol", NAME, "--claim", "card", "--png", str(tmp_path / "x.png"), exit_status=2)
    assert "leave out --png and --svg" in said
    assert not (tmp_path / "x.png").exists()


def test_a_record_that_was_altered_is_found_and_a_badge_goes_on(checked: House) -> None:
    with contextlib.closing(sqlite3.connect(checked.door.settings.zone_state("vault") / "vault.db")) as db:
        ((handle, half),) = db.execute("SELECT handle, half FROM half").fetchall()
        with db:
            db.execute("UPDATE half SET half = zeroblob(92)")
        try:
            # Its findings are the answer, and not an error: they go to standard output.
            found = json.loads(run(checked, "check", "--json", exit_status=1))
            assert (found["ok"], found["unreadable"], found["database"]) == (False, 1, "sound")
            assert not opens_for_the_face(checked, 1)
            assert opens_for_the_badge(checked)
        finally:
            with db:
                db.execute("UPDATE half SET half = ? WHERE handle = ?", (half, handle))
    assert as_json(checked, "check")["ok"]


def test_a_vault_that_is_away_cannot_be_checked_and_says_what_to_do(checked: House) -> None:
    checked.door.kill("vault", hold=True)
    try:
        for words in (("check",), ("rotate-keys",)):
            assert "vault" in run(checked, *words, exit_status=1)
        assert opens_for_the_badge(checked)
    finally:
        checked.door.revive("vault")


def test_after_decommissioning_no_face_opens_badges_go_on_and_vault_says_what_to_do(
    test_models: Path, portrait_paths: dict[str, Path]
) -> None:
    with open_house(test_models, portrait_paths) as house:
        house.enrol()
        assert opens_for_the_face(house)
        assert "add --yes" in run(house, "decommission", exit_status=2)
        assert as_json(house, "decommission", "--yes") == {"state": "decommissioned"}
        assert not any(".key" in name for name in vault_files(house))
        assert "decommissioned" in vault_files(house)
        # It is started again and again, as by systemd, and refuses each time.
        eventually(lambda: "was decommissioned" in house.door.last_words("vault"))
        said = house.door.last_words("vault")
        assert "badges go on" in said
        assert "to begin as a new device" in said
        eventually(lambda: house.door._broken("vault"))
        assert house.door._processes["vault"].wait(10) == WRONG_CONFIGURATION
        # Nobody answers, so the press is over at once.
        house.show(house.portraits["obama2.jpg"])
        since = house.press()
        time.sleep(2)
        assert house.opened(since) == []
        assert opens_for_the_badge(house)
        assert house.api.call("GET", "/status")["vault"] is None
        assert "vault" in run(house, "check", exit_status=1)
        # Twice is no error: nobody runs that would do it, so it is done in its place.
        assert as_json(house, "decommission", "--yes") == {"state": "decommissioned"}
        # All that lies in vault's folder goes: a new device begins.
        folder = house.door.settings.zone_state("vault")
        for path in sorted(folder.iterdir()):
            if path.name not in {"lock", "journal.jsonl"}:
                path.unlink()
        eventually(lambda: house.api.call("GET", "/status")["vault"])
        found = as_json(house, "check")
        assert (found["records"]["tier2"], found["epoch"], found["ok"]) == (0, 1, True)


def test_what_ended_since_a_backup_stays_ended_and_templates_come_from_no_backup(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    words = (str(tmp_path / "backup"), "--passphrase-file", str(tmp_path / "passphrase"))
    with open_house(test_models, portrait_paths) as house:
        house.enrol()
        as_json(house, "people", "add", "Gone Tomorrow")
        as_json(house, "backup", *words)
        assert as_json(house, "people", "erase", "Gone Tomorrow") == {"state": "erased"}
        (badge,) = as_json(house, "badges", "list")
        as_json(house, "people", "add", "Came Later")
        person = as_json(house, "people", "list")
        assert {each["name"] for each in person} == {NAME, "Came Later"}
        house.door.stop()
        restored = as_json(house, "restore", *words)
        assert (restored["tombstones"], restored["templates_kept"]) == ("replayed", 1)
        with SimulatedDoor(house.door.state, house.door.plan) as door:
            house.door = door
            house.api = ApiClient(door.settings.socket("admin/api"), {os.geteuid()})
            assert {each["name"] for each in as_json(house, "people", "list")} == {NAME, "Came Later"}
            assert [each["id"] for each in as_json(house, "badges", "list")] == [badge["id"]]
            assert opens_for_the_badge(house)
            eventually(lambda: house.api.call("GET", "/status")["vault"]["leases"] == 1)
            assert opens_for_the_face(house)
            # The template is erased, and the old registry comes back: the template does not.
            assert as_json(house, "consent", "withdraw", NAME) == {"state": "erased"}
        restored = as_json(house, "restore", *words)
        assert (restored["templates_kept"], restored["tombstones"]) == (0, "replayed")
        with SimulatedDoor(house.door.state, house.door.plan) as door:
            house.door = door
            house.api = ApiClient(door.settings.socket("admin/api"), {os.geteuid()})
            status: Any = house.api.call("GET", "/status")["vault"]
            assert (status["records"], status["leases"]) == (0, 0)
            assert not opens_for_the_face(house, 1)
            assert opens_for_the_badge(house)
