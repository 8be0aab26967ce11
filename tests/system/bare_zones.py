"""Vault, and admin where it is wanted, without a door and a lens: the test is both of them.

The zones are real processes; lens plays embeddings from a script, and the press comes over the decision
channel. No camera, no model and no picture is needed, so that hundreds of kills take minutes.
"""

import base64
import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from appliance.api_client import ApiClient
from appliance.hardening import ENVIRONMENT
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    VAULT_TO_ADMIN,
    AskVault,
    CameraClosed,
    ClaimKind,
    Done,
    Embed,
    Enrolled,
    Finish,
    Lease,
    OpenEnrolment,
    Probe,
    Refused,
    VaultState,
)
from appliance.link.sockets import Deadline, LinkError, connect
from appliance.settings import load
from appliance.simulation.door import Plan, _settings_text
from tests.vault.scripted_lens import ScriptedLens, lens_at

Bare = Literal["vault", "admin"]
Scene = Callable[[ScriptedLens], None]
SOCKETS = {"vault": "vault/admin", "admin": "admin/api"}
ME = frozenset({os.geteuid()})
CAPTURES = 2
ANSWER_TIME = 1.0
STARTING_TIME = 20.0
"""Seconds in which a zone must answer after its start."""


class DoesNotStart(Exception):
    """A zone ended by itself, or does not answer after its start."""


def before_the_lens(code: bytes, *embeddings: bytes) -> Scene:
    """A person who shows a token, where there is one, and then a face as often as vault asks for it."""

    def script(lens: ScriptedLens) -> None:
        left = list(embeddings)
        lens.open_camera()
        if code:
            lens.show(code)
        while isinstance(asked := lens.hear(Embed, Finish), Embed):
            lens.say(*(Probe(left.pop(0)) for _ in range(min(asked.probes, len(left)))))
        lens.camera_open = False
        lens.say(CameraClosed())

    return script


class BareZones:
    """The zones, and who speaks to them."""

    def __init__(
        self,
        state: Path,
        zygote: subprocess.Popen[str],
        zones: Sequence[Bare],
        recognition: str,
        answer_time: float,
    ) -> None:
        self.state = state
        self.zones = tuple(zones)
        self.runtime = Path(tempfile.mkdtemp(prefix="drempel-"))
        (self.runtime / "lens").mkdir()
        state.mkdir(parents=True, exist_ok=True)
        self.config = state / "drempel.toml"
        plan = Plan(packs=state / "packs", attempt_time=4.0, answer_time=answer_time)
        settings = f"{_settings_text(state, self.runtime, plan)}captures = {CAPTURES}\n{recognition}"
        self.config.write_text(settings, "utf-8")
        self.settings = load(self.config)
        self.api = ApiClient(self.settings.socket("admin/api"), ME)
        self.scene: Scene = before_the_lens(b"")
        self._zygote = zygote
        self._processes: dict[Bare, tuple[int, int]] = {}

    def play(self, lens: ScriptedLens) -> None:
        """What is before the lens now."""
        self.scene(lens)

    def log(self, zone: Bare) -> Path:
        """What a zone has said."""
        return self.state / f"{zone}.log"

    def start(self, *zones: Bare) -> None:
        """Start zones that do not run, and wait until they answer.

        Raises:
            DoesNotStart: one does not.
        """
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        for zone in zones:
            self._zygote.stdin.write(json.dumps([zone, str(self.config), str(self.log(zone))]) + "\n")
            self._zygote.stdin.flush()
            pid = int(self._zygote.stdout.readline())
            try:
                self._processes[zone] = pid, os.pidfd_open(pid)
            except ProcessLookupError as error:
                raise DoesNotStart(f"{zone} ended at once: {self._last_words(zone)}") from error
        for zone in zones:
            deadline = Deadline(STARTING_TIME)
            while not self._answers(zone):
                if deadline.passed or not self.runs(zone):
                    raise DoesNotStart(f"{zone} does not start: {self._last_words(zone)}")
                time.sleep(0.005)

    def pid(self, zone: Bare) -> int:
        """The process of a zone."""
        return self._processes[zone][0]

    def runs(self, zone: Bare) -> bool:
        """Whether a zone's process is alive."""
        if zone not in self._processes:
            return False
        watch = select.poll()
        watch.register(self._processes[zone][1], select.POLLIN)
        return not watch.poll(0)

    def kill(self, zone: Bare, number: int = signal.SIGKILL) -> None:
        """Send a signal to a zone that is to end, and wait until it has."""
        _, watched = self._processes[zone]
        signal.pidfd_send_signal(watched, number)
        watch = select.poll()
        watch.register(watched, select.POLLIN)
        if not watch.poll(15_000):
            signal.pidfd_send_signal(watched, signal.SIGKILL)
            watch.poll()
        os.close(watched)
        del self._processes[zone]

    def stop(self) -> None:
        """End all that runs."""
        for zone in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                self.kill(zone, signal.SIGTERM)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def command(self, command: Message, seconds: float = 10.0) -> Message:
        """Vault's answer to a command of admin."""
        with connect(self.settings.socket("vault/admin"), ME, Deadline(seconds)) as connection:
            send_message(connection, command, Deadline(seconds))
            return read_message(connection, VAULT_TO_ADMIN, Deadline(seconds))

    def vouch(self, handle: bytes) -> bool:
        """Give a record its lease; whether there is one."""
        return isinstance(self.command(Lease(handle, 3600)), Done)

    def press(self, scene: Scene, claim: bytes = b"") -> bytes:
        """One press at a door before whose lens this happens: all that vault answers.

        `claim` is what a card or a keypad gave to door.
        """
        self.scene = scene
        answer = b""
        with (
            connect(self.settings.socket("vault/guidance"), ME, Deadline(5)),
            connect(self.settings.socket("vault/decision"), ME, Deadline(5)) as door,
        ):
            door.settimeout(10)
            try:
                door.sendall(b"\x01" + claim)
                door.shutdown(socket.SHUT_WR)
                while part := door.recv(8):
                    answer += part
            except OSError:
                return b""
        return answer

    def attempt(self, token: bytes, *embeddings: bytes, claim: bytes = b"") -> bool:
        """Whether a press with this token, or else this claim, and this face opens."""
        return self.press(before_the_lens(token, *embeddings), claim) == b"\x01"

    def enrol_at_vault(
        self, *embeddings: bytes, kind: ClaimKind = ClaimKind.TOKEN, claim: bytes = b""
    ) -> tuple[bytes, bytes]:
        """A record of this face, with a lease, past admin: its handle, and its token where it has one.

        Raises:
            LinkError: vault refuses.
        """
        request = OpenEnrolment(secrets.token_bytes(16), b"c" * 16, 3600, CAPTURES, 30, kind)
        with connect(self.settings.socket("vault/admin"), ME, Deadline(5)) as connection:
            send_message(connection, request, Deadline(5))
            self.wait_window()
            self.press(before_the_lens(b"", *embeddings), claim)
            while True:
                match read_message(connection, VAULT_TO_ADMIN, Deadline(10)):
                    case Enrolled(token):
                        return request.handle, bytes(token)
                    case Done():
                        return request.handle, b""
                    case Refused(reason):
                        raise LinkError(f"vault refuses: {reason.name}")

    def wait_window(self, seconds: float = 5.0) -> None:
        """Until vault has a window open.

        Raises:
            LinkError: vault is away, or no window opens in time.
        """
        deadline = Deadline(seconds)
        while not deadline.passed:
            state = self.command(AskVault())
            if isinstance(state, VaultState) and state.window:
                return
            time.sleep(0.005)
        raise LinkError("no window opened")

    def take_token(self, enrolment: str) -> bytes:
        """The token of an enrolment that is done."""
        return base64.b64decode(self.api.call("POST", f"/enrolments/{enrolment}/token")["token"])

    def _answers(self, zone: Bare) -> bool:
        try:
            connect(self.settings.socket(SOCKETS[zone]), ME, Deadline(1)).close()
        except LinkError:
            return False
        return True

    def _last_words(self, zone: Bare) -> str:
        lines = (
            self.log(zone).read_text("utf-8", errors="replace").splitlines()
            if self.log(zone).exists()
            else []
        )
        return lines[-1] if lines else "without a word"


@contextlib.contextmanager
def bare_zones(
    state: Path, *zones: Bare, recognition: str = "", answer_time: float = ANSWER_TIME
) -> Iterator[BareZones]:
    """These zones, started, with what they hold under `state`; `recognition` is added to their settings."""
    environment = {**os.environ, **ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.system.zygote", *zones],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    ) as zygote:
        running = BareZones(state.resolve(), zygote, zones, recognition, answer_time)
        try:
            with lens_at(running.settings.socket("lens/look"), running.play):
                running.start(*zones)
                yield running
        finally:
            running.stop()
