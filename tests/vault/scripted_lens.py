"""A lens that follows a script, on a real Unix socket: what vault asked of it is kept, with the times."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    TO_LENS,
    CameraClosed,
    CameraOpen,
    CodeRead,
    Embed,
    Finish,
    Look,
    Probe,
)
from appliance.link.sockets import Deadline, LinkError, Torn, accept, listen

PATIENCE = 10.0
"""Seconds after which a script that waits for vault gives up."""


@dataclass
class ScriptedLens:
    """The lens's end of the looks that vault takes, one after the other."""

    script: Callable[["ScriptedLens"], None]
    heard: list[Message] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    looks: int = 0
    camera_open: bool = False
    hung_up: threading.Event = field(default_factory=threading.Event)
    connection: socket = field(default_factory=socket)

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.times[type(message).__name__] = time.monotonic()
            send_message(self.connection, message, Deadline(PATIENCE))

    def hear(self, *expected: type[Message], seconds: float = PATIENCE) -> Message:
        """The next message, which is one of `expected`."""
        message = read_message(self.connection, TO_LENS, Deadline(seconds))
        self.heard.append(message)
        self.times[f"heard {type(message).__name__}"] = time.monotonic()
        assert not expected or isinstance(message, expected), f"vault said {message}"
        return message

    def open_camera(self) -> None:
        self.hear(Look)
        self.camera_open = True
        self.say(CameraOpen())

    def show(self, code: bytes | bytearray) -> None:
        self.say(CodeRead(code))

    def show_faces(self, *embeddings: bytes) -> None:
        """As many as vault asks for, and no more than there are."""
        asked = self.hear(Embed)
        assert isinstance(asked, Embed)
        self.say(*(Probe(embedding) for embedding in embeddings[: asked.probes]))

    def close_camera_when_asked(self) -> None:
        while not isinstance(self.hear(Embed, Finish), Finish):
            pass
        self.camera_open = False
        self.say(CameraClosed())

    def embeds(self) -> list[Embed]:
        return [message for message in self.heard if isinstance(message, Embed)]

    def serve(self, connection: socket) -> None:
        self.connection = connection
        self.looks += 1
        with connection:
            try:
                self.script(self)
                while True:
                    self.hear()
            except Torn:
                self.hung_up.set()
            except LinkError:
                return
            finally:
                self.camera_open = False


def looking(code: bytes | bytearray, *embeddings: bytes) -> Callable[[ScriptedLens], None]:
    """A person who shows a token, then a face; the camera closes when vault asks."""

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(code)
        if embeddings:
            lens.show_faces(*embeddings)
        lens.close_camera_when_asked()

    return script


@contextmanager
def lens_at(path: Path, script: Callable[[ScriptedLens], None]) -> Iterator[ScriptedLens]:
    """A lens that listens at `path`, and follows its script anew in each look."""
    lens = ScriptedLens(script)
    lens.connection.close()
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        while not stop.is_set():
            try:
                connection = accept(listener, {os.geteuid()})
            except TimeoutError:
                continue
            try:
                lens.serve(connection)
            except AssertionError as failure:
                failures.append(failure)

    with listen(path) as listener:
        listener.settimeout(0.05)
        worker = threading.Thread(target=run, daemon=True)
        worker.start()
        try:
            yield lens
        finally:
            stop.set()
            worker.join(timeout=PATIENCE + 5)
    assert not failures, failures
