"""Vault's and door's ends of admin's commands, scripted, on real Unix sockets."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

from appliance.link.events import AskEvents, DoorEvent, DoorEventKind, EndOfEvents
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    ADMIN_TO_DOOR,
    ADMIN_TO_VAULT,
    AskCheck,
    AskDoor,
    AskVault,
    Checked,
    Done,
    DoorMode,
    DoorState,
    Enrolled,
    Guidance,
    Lease,
    OpenEnrolment,
    Progress,
    Refused,
    VaultState,
)
from appliance.link.sockets import Deadline, LinkError, accept, listen

Act = Callable[[socket, OpenEnrolment], None]


def hang_up(_connection: socket, _request: OpenEnrolment) -> None:
    """A vault that goes away during an enrolment."""


@dataclass
class ScriptedZone:
    """Answers every command with `Done` or its state, unless told otherwise; keeps what it heard."""

    instance: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    heard: list[Message] = field(default_factory=list)
    refuse: dict[type[Message], Refused] = field(default_factory=dict)
    enrolling: Act = hang_up
    checked: Checked = field(default_factory=lambda: Checked(1, 2, 0, 0, 7, 1))
    slow: float = 0.0

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.heard if isinstance(message, kind)]

    def vouched(self) -> set[bytes]:
        return {message.handle for message in self.heard if isinstance(message, Lease)}

    def serve(self, connection: socket, expected: Collection[type[Message]]) -> None:
        with connection:
            try:
                command = read_message(connection, expected, Deadline(5))
                self.heard.append(command)
                if type(command) in self.refuse:
                    send_message(connection, self.refuse[type(command)], Deadline(5))
                elif isinstance(command, AskCheck):
                    time.sleep(self.slow)
                    send_message(connection, self.checked, Deadline(5))
                elif isinstance(command, OpenEnrolment):
                    self.enrolling(connection, command)
                elif isinstance(command, AskEvents):
                    for message in self._events():
                        send_message(connection, message, Deadline(5))
                else:
                    send_message(connection, self._answer(command), Deadline(5))
            except LinkError:
                return

    def _events(self) -> list[Message]:
        return [
            DoorEvent(1, DoorEventKind.PRESSED, 1795593600),
            DoorEvent(2, DoorEventKind.UNLOCKED, 1795593602),
            EndOfEvents(self.instance[:8], 0),
        ]

    def _answer(self, command: Message) -> Message:
        if isinstance(command, AskVault):
            return VaultState(self.instance, 3, 2, 0, 1)
        if isinstance(command, AskDoor):
            return DoorState(DoorMode.LOCKED, 2, 1, 1, 5, 40, 7)
        return Done()


@contextmanager
def zone_at(path: Path, zone: ScriptedZone) -> Iterator[ScriptedZone]:
    """A zone that listens at `path` until the end of the block."""
    expected = ADMIN_TO_DOOR if path.parent.name == "door" else ADMIN_TO_VAULT
    stop = threading.Event()
    serving: list[threading.Thread] = []
    path.parent.mkdir(exist_ok=True)

    def run() -> None:
        while not stop.is_set():
            try:
                connection = accept(listener, {os.geteuid()})
            except TimeoutError:
                continue
            serving.append(threading.Thread(target=zone.serve, args=(connection, expected)))
            serving[-1].start()

    with listen(path) as listener:
        listener.settimeout(0.05)
        worker = threading.Thread(target=run)
        worker.start()
        try:
            yield zone
        finally:
            stop.set()
            worker.join(timeout=10)
            for each in serving:
                each.join(timeout=10)
    path.unlink()


def completing(token: bytes, *, wait: threading.Event | None = None) -> Act:
    """A vault in which the person is captured; `wait` holds back the token."""

    def enrolling(connection: socket, request: OpenEnrolment) -> None:
        for remaining in range(request.captures - 1, -1, -1):
            send_message(connection, Progress(remaining, Guidance.CAPTURED), Deadline(5))
        if wait is not None:
            wait.wait(10)
        send_message(connection, Enrolled(token), Deadline(5))

    return enrolling


def staying_open(connection: socket, _request: OpenEnrolment) -> None:
    """A vault whose window stays open until admin hangs up."""
    connection.settimeout(10)
    connection.recv(1)
