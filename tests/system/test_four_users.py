"""As on a device: four zones under four users, started through `setpriv`, and every other user refused.

The users are ones that every Debian has; nothing is added to this machine.
"""

import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.link.messages import (
    AskDoor,
    AskVault,
    Look,
)
from appliance.settings import Settings, load
from appliance.simulation.board import Board
from appliance.simulation.reader import SimulatedReader
from tests.system.house import eventually

USERS = {"door": "daemon", "lens": "bin", "vault": "mail", "admin": "news"}
STRANGER = "games"

pytestmark = [
    pytest.mark.root,
    pytest.mark.models,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become four users"),
]

# What is said at each socket (at the decision channel a request that is never finished), and who may say it.
CHANNELS = {
    "vault/decision": (b"\x01", {"door"}),
    "vault/guidance": (b"", {"door"}),
    "vault/admin": (AskVault().encode(), {"admin"}),
    "lens/look": (Look().encode(), {"vault"}),
    "door/admin": (AskDoor().encode(), {"admin"}),
    "admin/api": (b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", {"admin"}),
}

# Says it, and prints how long the other end listened and what it answered.
CALLER = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.settimeout(0.6); s.connect(sys.argv[1])
began = time.monotonic()
try:
    s.sendall(bytes.fromhex(sys.argv[2]))
    answer = s.recv(64)
except TimeoutError:
    answer = b"kept open"
except OSError:
    answer = b""
print(answer.hex())
"""


def as_user(user: str, *command: str) -> list[str]:
    entry = pwd.getpwnam(user)
    become = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    if subprocess.run(
        [*become, sys.executable, "-c", "import appliance"], capture_output=True, check=False
    ).returncode:
        # This checkout or its Python lies where other users may not look: let them read, and no more.
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*become, *command]


@pytest.fixture(scope="module")
def device(test_models: Path) -> Iterator[Settings]:
    root = Path(tempfile.mkdtemp(prefix="drempel-"))
    root.chmod(0o755)
    key = secrets.token_bytes(16)
    (root / "reader.scbk").write_text(key.hex())
    shutil.copytree(test_models / "edge", root / "packs" / "edge")
    for folder in ("state", "run"):
        for zone, user in USERS.items():
            path = root / folder / zone
            path.mkdir(parents=True)
            shutil.chown(path, user)
    (root / "shows").mkdir()
    (root / "shows" / "scene.toml").write_text("[[frame]]\nat = 0.0\nempty = true\n")
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (root / "reader.scbk").chmod(0o600)
    shutil.chown(root / "reader.scbk", USERS["door"])
    config = root / "drempel.toml"
    users = "\n".join(f'{zone} = "{user}"' for zone, user in USERS.items())
    config.write_text(f"""
[paths]
state = "{root}/state"
runtime = "{root}/run"
packs = "{root}/packs"
[users]
{users}
administrators = ["root"]
[[badge_readers]]
name = "outside"
device = "{root}/reader"
key_file = "{root}/reader.scbk"
baud = 115200
[camera]
source = "replay"
replay = "{root}/shows"
[recognition]
enabled = true
controller = "a test"
dpia = "none: a test"
legal_ground = "consent"
acknowledge = ["edge"]
""")
    settings = load(config)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        board = Board(root / "board")
        stack.callback(board.close)
        reader = SimulatedReader(key, link=root / "reader")
        stack.callback(reader.stop)
        shutil.chown((root / "reader").resolve(), USERS["door"])
        for zone, user in USERS.items():
            command = [sys.executable, "-m", "appliance.simulation.zone", zone, "--config", str(config)]
            if zone == "door":
                command += ["--board", str(root / "board")]
            process = subprocess.Popen(as_user(user, *command), stdin=subprocess.DEVNULL, cwd="/")
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for name in CHANNELS:
            eventually(settings.socket(name).exists, 30)
        reader.wait_online(20)
        yield settings


def say(settings: Settings, user: str, channel: str) -> bytes:
    data, _ = CHANNELS[channel]
    path = str(settings.socket(channel))
    done = subprocess.run(
        as_user(user, sys.executable, "-I", "-S", "-c", CALLER, path, data.hex()),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return bytes.fromhex(done.stdout.strip())


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_socket_hears_only_whom_it_should(device: Settings, channel: str) -> None:
    _, allowed = CHANNELS[channel]
    heard = {zone for zone, user in USERS.items() if say(device, user, channel)}
    assert heard == allowed
    assert say(device, STRANGER, channel) == b"", "a wrong user id is refused"


def test_root_is_an_administrator_and_no_zone(device: Settings) -> None:
    assert say(device, "root", "admin/api")
    for channel in ("vault/decision", "vault/admin", "lens/look", "door/admin"):
        assert say(device, "root", channel) == b"", channel


def test_a_refusal_leaves_a_trace_in_the_journal(device: Settings) -> None:
    say(device, STRANGER, "vault/decision")
    journal = device.zone_state("vault") / "journal.jsonl"
    events = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    assert "wrong peer" in events


def test_each_zone_runs_as_its_own_user_and_keeps_its_folder_to_itself(device: Settings) -> None:
    for zone, user in USERS.items():
        uid = pwd.getpwnam(user).pw_uid
        folder = device.paths.state / zone
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.rglob("*"):
            assert path.stat().st_uid == uid, path
            assert path.stat().st_mode & 0o077 == 0, path
