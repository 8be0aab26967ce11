"""A whole door on a table: four real zones as four processes; only pin, wire and lens are simulated.

A zone that ends is started again after a moment, as systemd would. Pictures are put before the lens by
swapping the folder that the replay camera opens at a press.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from appliance.errors import DrempelError
from appliance.hardening import ENVIRONMENT
from appliance.link.sockets import Deadline, LinkError, connect
from appliance.process import WRONG_CONFIGURATION, ZONES, Zone
from appliance.settings import Settings, load
from appliance.simulation.board import Board
from appliance.simulation.reader import SimulatedReader

RESTART_DELAY = 0.5
"""Seconds between the end of a zone and its next start, as RestartSec= in a unit."""
READY_SOCKETS = {"door": "door/admin", "lens": "lens/look", "vault": "vault/admin", "admin": "admin/api"}


class SimulationError(DrempelError, RuntimeError):
    """The simulated door could not be built, or did not do what was asked of it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is before the lens from `at` seconds after it opened: a picture, or nobody (`picture` is None).

    `blur` is in pixels (sigma), `scale` the share of the field of view that the picture fills.
    """

    at: float
    picture: Path | None
    blur: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How the simulated door is set up.

    Attributes:
        packs: the folder of the installed model packs.
        recognition: whether faces open from the start; out of the box they do not.
        unlock_time, attempt_time, answer_time: seconds, as in the settings.
        pack: the model pack, acknowledged.
        api_port: of loopback, where the API listens beside its Unix socket; 0 for none.
        site: what the door is called.
    """

    packs: Path
    recognition: bool = True
    unlock_time: float = 1.0
    attempt_time: float = 8.0
    answer_time: float = 3.0
    pack: str = "edge"
    api_port: int = 0
    site: str = "Simulated door"


class SimulatedDoor:
    """The simulation, as a context manager: started on entry, and all of it stopped on exit."""

    def __init__(self, state: Path, plan: Plan) -> None:
        """A simulation that keeps what it holds under `state`; nothing is made and nothing runs before entry.

        Its settings, wall and reader are there from entry on; pictures may be shown before.
        """
        self.state = state.resolve()
        self.config = self.state / "drempel.toml"
        self.plan = plan
        self.board: Board
        self.reader: SimulatedReader
        self._runtime: Path
        self._logs = self.state / "logs"
        self._shows = self.state / "shows"
        self._show_number = 0
        self._processes: dict[Zone, subprocess.Popen[bytes]] = {}
        self._held: set[Zone] = set()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._undo = contextlib.ExitStack()

    @property
    def settings(self) -> Settings:
        """The settings that the zones read at their next start."""
        return load(self.config)

    def __enter__(self) -> Self:
        """Start the four zones, and wait until each of them serves.

        Raises:
            SimulationError: one does not; its last words are in the message.
        """
        with contextlib.ExitStack() as undo:
            # Socket paths are short by law of the kernel (107 bytes): never below a long state path.
            self._runtime = Path(tempfile.mkdtemp(prefix="drempel-"))
            undo.callback(shutil.rmtree, self._runtime, ignore_errors=True)
            self._lay_out()
            self.write_settings(self.plan)
            if not self._show_number:
                self.show([Shown(0.0, None)])
            self.board = Board(self._runtime / "board", button_pin=self.settings.door.button_pin)
            undo.callback(self.board.close)
            self.reader = SimulatedReader(self._reader_key(), link=self._runtime / "reader")
            undo.callback(self.reader.stop)
            undo.callback(self._stop_zones)
            for zone in ZONES:
                self._start(zone)
            self.wait_ready()
            self._undo = undo.pop_all()
        threading.Thread(target=self._keep_up, name="keep zones up", daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop everything."""
        self.stop()

    def write_settings(self, plan: Plan) -> None:
        """Write the settings file; zones read it at their next start, see `restart`. From entry on."""
        self.plan = plan
        self.config.write_text(_settings_text(self.state, self._runtime, plan), encoding="utf-8")

    def show(self, shots: Iterable[Shown]) -> None:
        """Put pictures before the lens, from its next opening on."""
        self._lay_out()
        self._show_number += 1
        folder = self._shows / f"{self._show_number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        lines = []
        for number, shot in enumerate(shots):
            lines.append(f"[[frame]]\nat = {shot.at:.3f}")
            if shot.picture is None:
                lines.append("empty = true")
            else:
                name = f"{number:03d}{shot.picture.suffix.lower()}"
                shutil.copyfile(shot.picture, folder / name)
                lines.append(f'picture = "{name}"\nscale = {shot.scale:.3f}')
            lines.append(f"blur = {shot.blur:.3f}")
        (folder / "scene.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        link = self._shows / "new"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        # One rename: a camera that opens now sees the old pictures or the new ones, whole.
        link.rename(self._shows / "before-the-lens")

    def pid(self, zone: Zone) -> int:
        """The process id of a zone that runs.

        Raises:
            SimulationError: it does not run.
        """
        with self._lock:
            process = self._processes.get(zone)
            if process is None or process.poll() is not None:
                raise SimulationError(f"{zone} does not run at this moment: wait for it, or see its log")
            return process.pid

    def kill(self, zone: Zone, number: int = signal.SIGKILL, *, hold: bool = False) -> None:
        """Send a signal to a zone; with `hold`, it stays down until `revive`."""
        with self._lock:
            if hold:
                self._held.add(zone)
            os.kill(self.pid(zone), number)

    def revive(self, zone: Zone) -> None:
        """Let a zone that was held down start again, and wait until it serves."""
        with self._lock:
            self._held.discard(zone)
        self.wait_ready([zone])

    def restart(self) -> None:
        """Stop all zones as systemd would, and start them with the settings as they are now."""
        with self._lock:
            self._held.update(ZONES)
            for process in self._processes.values():
                process.terminate()
            for process in self._processes.values():
                process.wait(timeout=15)
            self._held.clear()
        self.wait_ready()

    def wait_ready(self, zones: Iterable[Zone] = ZONES, seconds: float = 60.0) -> None:
        """Wait until each zone answers at its socket, and the badge reader is online.

        Raises:
            SimulationError: one does not in time; its last words are in the message.
        """
        deadline = Deadline(seconds)
        users = {os.geteuid()}
        for zone in zones:
            while not self._answers(zone, users):
                if deadline.passed or self._broken(zone):
                    raise SimulationError(f"{zone} does not start: {self.last_words(zone)}")
                time.sleep(0.05)
            if zone == "door":
                self.reader.wait_online(timeout=max(1.0, deadline.remaining))
                self.board.wait_for(self.settings.door.lamp_ready_pin, 1, max(1.0, deadline.remaining))

    def last_words(self, zone: Zone) -> str:
        """The last line of a zone's log, or where it would be."""
        log = self._logs / f"{zone}.log"
        with contextlib.suppress(OSError):
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return f"{log} is empty"

    def stop(self) -> None:
        """Stop the zones, admin first and door last, and the simulated wall; a second time does nothing."""
        self._undo.close()

    def _stop_zones(self) -> None:
        self._stopping.set()
        with self._lock:
            for zone in reversed(ZONES):
                process = self._processes.get(zone)
                if process is None:
                    continue
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._stopped.set()

    def _lay_out(self) -> None:
        """Make the folders under `state`; one that is new or empty is closed to all others."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(self.state.iterdir()):
            self.state.chmod(0o700)
        for folder in (self._logs, self._shows):
            folder.mkdir(mode=0o700, exist_ok=True)

    def _start(self, zone: Zone) -> None:
        command = [sys.executable, "-m", "appliance.simulation.zone", zone, "--config", str(self.config)]
        command += ["--parent", str(os.getpid())]
        if zone == "door":
            command += ["--board", str(self._runtime / "board")]
        with (self._logs / f"{zone}.log").open("ab") as log:
            self._processes[zone] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **ENVIRONMENT},
            )

    def _keep_up(self) -> None:
        ended: dict[Zone, float] = {}
        while not self._stopping.wait(0.05):
            with self._lock:
                for zone, process in list(self._processes.items()):
                    if process.poll() is None or self._stopping.is_set():
                        continue
                    since = ended.setdefault(zone, time.monotonic())
                    if zone not in self._held and time.monotonic() - since >= RESTART_DELAY:
                        del ended[zone]
                        self._start(zone)
        # The kernel ends what this thread started when this thread ends: they are stopped in order first.
        self._stopped.wait()

    def _broken(self, zone: Zone) -> bool:
        """Whether a zone refuses to start: a wrong configuration does not mend itself."""
        with self._lock:
            process = self._processes.get(zone)
            return process is not None and process.poll() == WRONG_CONFIGURATION

    def _answers(self, zone: Zone, users: set[int]) -> bool:
        with self._lock:
            process = self._processes.get(zone)
            if process is None or process.poll() is not None:
                return False
        try:
            connect(self.settings.socket(READY_SOCKETS[zone]), users, Deadline(1.0)).close()
        except LinkError:
            return False
        return True

    def _reader_key(self) -> bytes:
        path = self.state / "reader.scbk"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16), encoding="ascii")
        return bytes.fromhex(path.read_text(encoding="ascii"))


@contextlib.contextmanager
def temporary_state() -> Iterator[Path]:
    """A state folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="drempel-state-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quoted(text: object) -> str:
    """A TOML basic string: JSON's, but for the one character more that TOML escapes."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _settings_text(state: Path, runtime: Path, plan: Plan) -> str:
    plan = replace(plan, packs=plan.packs.resolve())
    named = plan.recognition
    return f"""# The settings of a simulated door. All zones run as the user who started it.
[site]
name = {_quoted(plan.site)}
language = "en"

[paths]
state = {_quoted(state)}
runtime = {_quoted(runtime)}
packs = {_quoted(plan.packs)}

[users]
door = ""
lens = ""
vault = ""
admin = ""
administrators = [""]

[api]
port = {plan.api_port}

[door]
unlock_time = {plan.unlock_time}

[[badge_readers]]
kind = "osdp"
name = "outside"
device = {_quoted(runtime / "reader")}
key_file = {_quoted(state / "reader.scbk")}
baud = 115200

[camera]
source = "replay"
replay = {_quoted(state / "shows" / "before-the-lens")}

[recognition]
enabled = {str(named).lower()}
controller = "{"The person who runs this simulation" if named else ""}"
dpia = "{"none: a simulation with public pictures" if named else ""}"
legal_ground = "{"consent" if named else ""}"
pack = {_quoted(plan.pack)}
acknowledge = [{_quoted(plan.pack)}]
attempt_time = {plan.attempt_time}
answer_time = {plan.answer_time}
"""
