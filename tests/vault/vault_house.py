"""The whole vault process in a thread: real sockets, and door and admin byte for byte."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance import journal
from appliance.evaluation.guessing_simulation import SimulatedTime
from appliance.journal import Journal
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    VAULT_TO_ADMIN,
    AskVault,
    OpenEnrolment,
    VaultState,
)
from appliance.link.sockets import Deadline, LinkError, connect
from appliance.settings import OsdpReader, Paths, Recognition, Settings, Users
from appliance.vault.service import Peers, VaultService
from appliance.vault.token import Token
from tests.vault.faces import RECOGNITION, at, enrol, face
from tests.vault.scripted_lens import ScriptedLens, lens_at

ME = frozenset({os.geteuid()})
READER = OsdpReader(name="outside", device=Path("/dev/null"), key_file=Path("/dev/null"))
Script = Callable[[ScriptedLens], None]


def settings_in(folder: Path, recognition: Recognition = RECOGNITION) -> Settings:
    for path in (folder / "state" / "vault", folder / "vault", folder / "lens"):
        path.mkdir(parents=True, exist_ok=True)
    return Settings(
        paths=Paths(state=folder / "state", runtime=folder, packs=folder / "packs"),
        users=Users(door="", lens="", vault="", admin=""),
        badge_readers=[READER],
        recognition=recognition,
    )


@dataclass
class House:
    """A vault that runs, and the ways to speak to it."""

    settings: Settings
    service: VaultService

    def open(self, name: str) -> socket.socket:
        return connect(self.settings.socket(f"vault/{name}"), ME, Deadline(5))

    def press(self, request: bytes = b"\x01", *, end: bool = True) -> bytes:
        """All that vault answers until it hangs up, as bytes."""
        with self.open("decision") as door:
            door.sendall(request)
            if end:
                door.shutdown(socket.SHUT_WR)
            return self.rest_of(door)

    def rest_of(self, door: socket.socket) -> bytes:
        door.settimeout(10)
        answer = b""
        try:
            while part := door.recv(64):
                answer += part
        except ConnectionResetError:
            # Vault hung up with bytes of ours unread.
            return answer
        return answer

    def command(self, command: Message) -> Message:
        with self.open("admin") as admin:
            send_message(admin, command, Deadline(5))
            return read_message(admin, VAULT_TO_ADMIN, Deadline(10))

    def answers(self) -> bool:
        """Whether all its sockets are served: they begin one after the other, admin's last."""
        try:
            return bool(self.state().instance)
        except LinkError:
            return False

    def state(self) -> VaultState:
        state = self.command(AskVault())
        assert isinstance(state, VaultState)
        return state

    def at(self, time: SimulatedTime) -> None:
        """Have vault live at a simulated time from here on, as if it had been started then."""
        self.service._vaulted = self.service._commands._vaulted = at(self.service._vaulted, time)
        self.service._look_at_the_clock = self.service._look_for_the_expired = Deadline(0)

    def enrol(self, seed: int = 1) -> Token:
        return enrol(self.service._vaulted, face(seed))

    def lens(self, script: Script) -> AbstractContextManager[ScriptedLens]:
        return lens_at(self.settings.socket("lens/look"), script)

    def events(self) -> list[str]:
        path = self.settings.zone_state("vault") / "journal.jsonl"
        journal.verify(path)
        text = path.read_text(encoding="utf-8")
        return [event.value for event in journal.Event for _ in range(text.count(f'"event":"{event.value}"'))]


@contextmanager
def running(settings: Settings, *, door: frozenset[int] = ME) -> Iterator[House]:
    written = Journal(settings.zone_state("vault") / "journal.jsonl", sync=False)
    service = VaultService(settings, written)
    service._peers = Peers(door, ME, ME)
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,))
    thread.start()
    try:
        house = House(settings, service)
        wait_for(house.answers)
        yield house
    finally:
        stop.set()
        thread.join(timeout=10)
        for each in threading.enumerate():
            if each.name.startswith("vault/"):
                each.join(timeout=10)
        service._guidance.close()
        service._vaulted.store.close()
        written.close()


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = Deadline(seconds)
    while not condition():
        assert not deadline.passed
        time.sleep(0.01)


def window(handle: bytes | None = None, *, captures: int = 2, seconds: int = 60) -> OpenEnrolment:
    return OpenEnrolment(handle or secrets.token_bytes(16), b"c" * 16, 3600, captures, seconds)


def capturing(*embeddings: bytes) -> Script:
    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show_faces(*embeddings)
        lens.close_camera_when_asked()

    return script
