"""Ending and restarting the door in every way and state, with what the relay's line did as proof.

The door is the real process; its pins are on a `Board` in this one, its badge reader is libosdp's own on
a pty, and vault is a pair of sockets that never answer. `pytest -s` shows the recorded states and times.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.journal import verify
from appliance.link.framing import read_message, send_message
from appliance.link.messages import (
    DOOR_TO_ADMIN,
    AddBadge,
    AskDoor,
    Done,
    DoorState,
)
from appliance.link.sockets import Deadline, connect, listen
from appliance.settings import load
from appliance.simulation.board import Board, Change
from appliance.simulation.reader import SimulatedReader

BADGE, FAULT, HANG = 0x2ABCDE1, 0x3000001, 0x3000002
BITS = 26
UNLOCK_TIME = 1.0
UNLOCK_LIMIT = 1.5
HANG_TIME = 4.0
MARGIN = 1.0
"""Seconds beyond the limit that a busy test machine may add."""

LAUNCHER = f"""
import sys, time
from pathlib import Path
from appliance.door import service
from appliance.door.controller import Controller
from appliance.settings import load
from appliance.simulation.board import use_board

class Faulty(Controller):
    def card(self, bits, number):
        if number == {FAULT}:
            raise RuntimeError("a fault that nobody foresaw")
        if number == {HANG}:
            time.sleep({HANG_TIME})
        super().card(bits, number)

class FaultyDoor(service.Door):
    def make_controller(self, pins, badges, record, readers, vault):
        return Faulty(self._settings, pins, badges, record, readers, vault)

service.Door = FaultyDoor
use_board(Path(sys.argv[2]))
sys.exit(service.run(load(Path(sys.argv[1]))))
"""

CONFIG = """
[paths]
state = "{folder}/state"
runtime = "{folder}/run"
[users]
door = ""
lens = ""
vault = ""
admin = ""
[door]
unlock_time = {unlock_time}
unlock_limit = {unlock_limit}
[recognition]
enabled = true
controller = "Bakkerij De Ooievaar"
dpia = "2026-03"
legal_ground = "consent"
[[badge_readers]]
name = "outside"
device = "{folder}/tty"
baud = 115200
key_file = "{folder}/key"
"""


class Site:
    """A door with its wall, its reader and a vault that takes every question and answers none."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="drempel-"))
        key = secrets.token_bytes(16)
        (self.folder / "key").write_text(key.hex())
        (self.folder / "key").chmod(0o600)
        (self.folder / "launcher.py").write_text(LAUNCHER)
        self.config = self.folder / "drempel.toml"
        self.config.write_text(
            CONFIG.format(folder=self.folder, unlock_time=UNLOCK_TIME, unlock_limit=UNLOCK_LIMIT)
        )
        self.settings = load(self.config)
        self.board = Board(self.folder / "board")
        self.reader = SimulatedReader(key, link=self.folder / "tty")
        (self.folder / "run" / "vault").mkdir(parents=True)
        self._vault = [listen(self.settings.socket(f"vault/{name}")) for name in ("decision", "guidance")]
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """A door, ready and with its reader online."""
        began = time.monotonic()
        command = [sys.executable, str(self.folder / "launcher.py"), str(self.config), str(self.board.path)]
        process = subprocess.Popen(command)
        self._processes.append(process)
        self.board.wait_for(self.settings.door.lamp_ready_pin, 1, 20, since=began)
        self.wait_for_reader()
        return process

    def wait_for_reader(self) -> None:
        until = time.monotonic() + 20
        while not self.ask(AskDoor()).readers_up:
            assert time.monotonic() < until
            time.sleep(0.05)

    def ask(self, message: AskDoor) -> DoorState:
        with connect(self.settings.socket("door/admin"), {os.geteuid()}, Deadline(5)) as connection:
            send_message(connection, message, Deadline(5))
            answer = read_message(connection, DOOR_TO_ADMIN, Deadline(5))
        assert isinstance(answer, DoorState)
        return answer

    def add_badge(self) -> None:
        with connect(self.settings.socket("door/admin"), {os.geteuid()}, Deadline(5)) as connection:
            send_message(connection, AddBadge(secrets.token_bytes(16), BITS, BADGE.to_bytes(16)), Deadline(5))
            assert read_message(connection, DOOR_TO_ADMIN, Deadline(5)) == Done()

    def bring_to(self, state: str) -> None:
        door = self.settings.door
        if state == "attempt":
            at = self.board.press(0.05)
            self.board.wait_for(door.lamp_busy_pin, 1, 5, since=at)
        elif state == "unlocked":
            at = self.reader.present(BITS, BADGE)
            self.board.wait_for(door.relay_pin, 1, 5, since=at)

    @property
    def relay(self) -> list[Change]:
        return self.board.history(self.settings.door.relay_pin)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.reader.stop()
        self.board.close()
        for listener in self._vault:
            listener.close()
        shutil.rmtree(self.folder)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def stretches(changes: list[Change]) -> list[tuple[float, float]]:
    """When the line went up and when it came down."""
    found, up = [], None
    for change in changes:
        if change.state and up is None:
            up = change.at
        elif not change.state and up is not None:
            found.append((up, change.at))
            up = None
    assert up is None, "the line is still up"
    return found


def show(case: str, changes: list[Change], ended: float) -> None:
    print(f"\n{case}: times in seconds from the end that was brought about")
    for change in changes:
        print(f"  {change.at - ended:+8.3f} relay {change.state}{' released' if change.released else ''}")


ENDS = ["SIGTERM", "SIGINT", "SIGKILL", "fault", "hang", "hang and SIGTERM"]


@pytest.mark.parametrize("state", ["locked", "attempt", "unlocked"])
@pytest.mark.parametrize("end", ENDS)
def test_ending_the_door_never_energises_the_relay_nor_leaves_it_on(site: Site, end: str, state: str) -> None:
    first = site.start()
    site.add_badge()
    site.bring_to(state)
    ended = time.monotonic()
    if end.startswith("SIG"):
        first.send_signal(getattr(signal, end))
    elif end == "fault":
        site.reader.present(BITS, FAULT)
    else:
        site.reader.present(BITS, HANG)
        if end.endswith("SIGTERM"):
            time.sleep(0.3)
            first.terminate()

    if end == "hang":
        # The loop hangs and the process lives on; afterwards it must serve again.
        time.sleep(HANG_TIME + 0.5)
        assert first.poll() is None
        assert site.ask(AskDoor()).readers == 1
        first.terminate()
    status = first.wait(20)
    assert status == {"SIGKILL": -signal.SIGKILL, "fault": 1}.get(end, 0)

    second = site.start()
    until_here = site.relay
    badge_at = site.reader.present(BITS, BADGE)
    site.board.wait_for(site.settings.door.relay_pin, 1, 5, since=badge_at)
    second.terminate()
    assert second.wait(20) == 0
    site.board.wait_for(site.settings.door.relay_pin, 0, 5)

    show(f"{end}, {state}", site.relay, ended)
    assert [change for change in until_here if change.state and change.at >= ended] == []
    openings = stretches(site.relay)
    assert len(openings) == (2 if state == "unlocked" else 1)
    for up, down in openings:
        assert down - up <= UNLOCK_LIMIT + MARGIN
    if end != "SIGKILL":
        verify(site.settings.zone_state("door") / "journal.jsonl")


@pytest.mark.parametrize("state", ["locked", "attempt", "unlocked"])
def test_twenty_restarts_in_a_row_never_pulse_the_relay(site: Site, state: str) -> None:
    process = site.start()
    site.add_badge()
    site.bring_to(state)
    began = time.monotonic()
    for turn in range(20):
        process.send_signal(signal.SIGKILL if turn % 2 else signal.SIGTERM)
        process.wait(20)
        # The next one is killed at a moment of its start that moves on from turn to turn.
        command = [sys.executable, str(site.folder / "launcher.py"), str(site.config), str(site.board.path)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        site._processes.append(process)
        time.sleep(turn * 0.02)
    process.kill()
    process.wait(20)
    time.sleep(0.2)
    show(f"restarts, {state}", site.relay, began)
    assert [change for change in site.relay if change.state and change.at >= began] == []
    assert all(down - up <= UNLOCK_LIMIT + MARGIN for up, down in stretches(site.relay))


def test_a_wrong_configuration_is_one_line_and_status_2(site: Site) -> None:
    (site.folder / "key").chmod(0o644)
    command = [sys.executable, "-m", "appliance.simulation.zone", "door"]
    command += ["--config", str(site.config), "--board", str(site.board.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "chmod 600" in done.stderr
    assert [change.state for change in site.relay if change.state] == []


def test_off_a_raspberry_pi_the_door_is_one_line_that_says_so(site: Site) -> None:
    command = [sys.executable, "-m", "appliance.cli", "door", "--config", str(site.config)]
    # As off a board, also where the tests run on one: no way to the pins can be loaded.
    lame = {**os.environ, "PYTHONPATH": str(site.folder / "lame")}
    (site.folder / "lame").mkdir()
    for name in ("lgpio", "RPi", "pigpio"):
        (site.folder / "lame" / f"{name}.py").write_text("raise ImportError('no board')")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=lame)
    if done.returncode != 1:
        pytest.skip("this machine has pins")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "drempel run --simulate" in done.stderr


def test_a_second_door_is_refused_and_the_first_one_serves_on(site: Site) -> None:
    first = site.start()
    site.add_badge()
    command = [sys.executable, str(site.folder / "launcher.py"), str(site.config), str(site.board.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "door runs already" in done.stderr
    assert site.ask(AskDoor()).badges == 1
    at = site.reader.present(BITS, BADGE)
    site.board.wait_for(site.settings.door.relay_pin, 1, 5, since=at)
    first.terminate()
    assert first.wait(20) == 0


def test_damaged_badges_stop_the_door_with_a_clear_word(site: Site) -> None:
    state = site.settings.zone_state("door")
    state.mkdir(parents=True)
    (state / "badges.db").write_bytes(b"no database" * 1000)
    command = [sys.executable, str(site.folder / "launcher.py"), str(site.config), str(site.board.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "backup" in done.stderr


def test_a_damaged_journal_does_not_keep_badges_out(site: Site) -> None:
    state = site.settings.zone_state("door")
    state.mkdir(parents=True)
    (state / "journal.jsonl").write_bytes(b"no journal\n")
    process = site.start()
    site.add_badge()
    at = site.reader.present(BITS, BADGE)
    site.board.wait_for(site.settings.door.relay_pin, 1, 5, since=at)
    process.terminate()
    assert process.wait(20) == 0


def test_hostile_callers_cost_nobody_the_door(site: Site) -> None:
    process = site.start()
    site.add_badge()
    path = site.settings.socket("door/admin")
    callers = []
    for noise in [
        b"",
        b"\xff" * 3,
        b"\x41\x00\x21" + bytes(5),
        b"\x43\x00\x00\x00",
        secrets.token_bytes(500),
    ] * 4:
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(str(path))
        # It may be hung up on before all of it was sent, or at once where too many call.
        with contextlib.suppress(OSError):
            caller.sendall(noise)
        callers.append(caller)
    at = site.reader.present(BITS, BADGE)
    site.board.wait_for(site.settings.door.relay_pin, 1, 5, since=at)
    time.sleep(2.5)  # the silent ones have been let go by now
    assert site.ask(AskDoor()).badge_entries == 1
    for caller in callers:
        caller.close()
    process.terminate()
    assert process.wait(20) == 0
    text = (site.settings.zone_state("door") / "journal.jsonl").read_text()
    assert "hostile message" in text


def test_the_door_loads_nothing_of_another_zone(site: Site) -> None:
    look = (
        "import sys, appliance.door.service; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'numpy', 'cv2', 'cryptography', "
        "'fastapi', 'rich', 'onnxruntime', 'insightface'}), "
        "sorted(name for name in sys.modules if name.startswith('appliance.') "
        "and name.split('.')[1] in {'lens', 'vault', 'admin', 'simulation'}))"
    )
    command = [sys.executable, "-c", look]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[] []\n"
    assert site.relay == []
