"""A zone that is killed while it first starts, and makes its keys and files, starts the next time."""

import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from appliance.api_client import ApiClient
from appliance.errors import DrempelError
from appliance.link.framing import read_message, send_message
from appliance.link.messages import DOOR_TO_ADMIN, VAULT_TO_ADMIN, AskDoor, AskVault, DoorState, VaultState
from appliance.link.sockets import Deadline, connect
from appliance.process import Zone
from appliance.settings import Settings, load
from appliance.simulation.board import Board
from tests.system.house import eventually

ANSWERS: dict[Zone, str] = {"door": "door/admin", "vault": "vault/admin", "admin": "admin/api"}
MAKING = 0.06
"""Seconds from a zone's lock on its folder within which it has made all that it keeps."""

CONFIG = """
[paths]
state = "{folder}/state"
runtime = "{folder}/run"
packs = "{folder}"
[users]
door = ""
lens = ""
vault = ""
admin = ""
[[badge_readers]]
name = "outside"
device = "{folder}/tty"
key_file = "{folder}/key"
[recognition]
enabled = true
controller = "test"
dpia = "test"
legal_ground = "consent"
acknowledge = ["edge"]
"""


def start(zone: Zone, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "appliance.simulation.zone", zone]
    command += ["--config", str(folder / "drempel.toml"), "--board", str(folder / "board")]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def site(folder: Path) -> Settings:
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text(secrets.token_hex(16))
    (folder / "drempel.toml").write_text(CONFIG.format(folder=folder))
    return load(folder / "drempel.toml")


def serves(zone: Zone, settings: Settings, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (settings.paths.state.parent / "log").read_text()
    path = settings.socket(ANSWERS[zone])
    try:
        if zone == "admin":
            ApiClient(path, {os.geteuid()}).call("GET", "/people")
            return True
        with connect(path, {os.geteuid()}, Deadline(1)) as connection:
            send_message(connection, AskDoor() if zone == "door" else AskVault(), Deadline(1))
            allowed = DOOR_TO_ADMIN if zone == "door" else VAULT_TO_ADMIN
            return isinstance(read_message(connection, allowed, Deadline(1)), DoorState | VaultState)
    except DrempelError:
        return False


@pytest.mark.parametrize("zone", ANSWERS)
@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
def test_a_kill_while_keys_and_files_are_made_does_not_keep_a_zone_down(
    zone: Zone, kills: int, short_folder: Path
) -> None:
    rng = random.Random(1)
    left: Counter[tuple[str, ...]] = Counter()
    for number in range(kills):
        folder = short_folder / str(number)
        folder.mkdir()
        settings = site(folder)
        board = Board(folder / "board")
        own = settings.zone_state(zone)
        first = start(zone, folder)
        while not (own / "lock").exists():
            assert first.poll() is None, (folder / "log").read_text()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, MAKING))
        first.kill()
        first.wait()
        left[tuple(sorted(path.name for path in own.iterdir()))] += 1
        settings.socket(ANSWERS[zone]).unlink(missing_ok=True)
        second = start(zone, folder)
        try:
            eventually(lambda: serves(zone, settings, second))  # noqa: B023 - called at once
        finally:
            second.kill()
            second.wait()
            board.close()
    print(f"\n{zone}: what the killed ones left behind")
    for names, count in sorted(left.items()):
        print(f"  {count} times {', '.join(names)}")
