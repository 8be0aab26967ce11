"""A recogniser, a camera and a vault's end of the look socket, scripted: no models and no device.

Beside the simulated camera (`ReplayCamera`), which is the appliance's own and needs no script.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from appliance.journal import Journal
from appliance.lens.camera import Camera, CameraBroke, Frame
from appliance.lens.capture import Recogniser
from appliance.lens.service import LensService
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    FROM_LENS,
)
from appliance.link.sockets import Deadline, connect, listen

FRONTAL = np.array([[40, 45], [72, 45], [56, 64], [43, 82], [69, 82]], np.float32)
"""Five points of a face that looks straight on, in a box of 0 to 112."""


def textured(height: int = 480, width: int = 640, *, seed: int = 3, light: int = 128) -> Frame:
    """A frame with detail everywhere and a mean grey level of `light`."""
    noise = np.random.default_rng(seed).integers(-30, 31, (height, width, 1))
    return np.ascontiguousarray(np.broadcast_to(np.clip(light + noise, 0, 255), (height, width, 3)), np.uint8)


@dataclass
class ScriptedFace:
    """A face with a box of `width` pixels at `left`, `top`."""

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    @classmethod
    def of_width(cls, width: float, left: float = 100, top: float = 100) -> Self:
        box = np.array([left, top, left + width, top + width * 1.2], np.float32)
        return cls(box, FRONTAL * (width / 112) + np.array([left, top], np.float32))


@dataclass
class ScriptedRecogniser(Recogniser):
    """Finds what `script` says, frame by frame (the last entry for ever), and keeps what it handed out."""

    script: list[list[ScriptedFace]] = field(default_factory=lambda: [[ScriptedFace.of_width(120)]])
    dimension: int = 128
    detections: int = 0
    embeddings: int = 0
    handed_out: list[NDArray[np.float32] | Frame] = field(default_factory=list)
    on_detect: Callable[[Frame], None] = lambda _frame: None

    def detect(self, frame: Frame) -> Sequence[ScriptedFace]:
        self.on_detect(frame)
        entry = self.script[min(self.detections, len(self.script) - 1)]
        self.detections += 1
        faces = [ScriptedFace(face.box.copy(), face.landmarks.copy()) for face in entry]
        for face in faces:
            self.handed_out += [face.box, face.landmarks]
        return faces

    def align(self, frame: Frame, landmarks: NDArray[np.float32]) -> Frame:
        left, top = (int(value) for value in landmarks[0])
        chip = np.ascontiguousarray(frame[top : top + 112, left : left + 112])
        self.handed_out.append(chip)
        return chip

    def embed(self, chip: Frame) -> NDArray[np.float32]:
        assert chip.any()
        self.embeddings += 1
        embedding = np.full(self.dimension, 1 / np.sqrt(self.dimension), np.float32)
        self.handed_out.append(embedding)
        return embedding


class ScriptedCamera(Camera):
    """Shows `picture` at 100 frames a second, and holds a real file open while it is open."""

    def __init__(self, picture: Frame, stand_in: Path) -> None:
        self.picture = picture
        self.stand_in = stand_in
        self.handle = -1
        self.opened = 0
        self.fail_with: BaseException | None = None
        self.fail_on_open: BaseException | None = None
        self.hang = threading.Event()
        self.hang.set()
        self._frame = picture.copy()

    @property
    def is_open(self) -> bool:
        return self.handle >= 0

    def open(self) -> None:
        if self.fail_on_open is not None:
            raise self.fail_on_open
        self.opened += 1
        self.handle = os.open(self.stand_in, os.O_RDONLY | os.O_CREAT, 0o600)

    def read(self, wait: float) -> Frame | None:
        if not self.is_open:
            raise CameraBroke("the camera is not open")
        self.hang.wait()
        if self.fail_with is not None:
            raise self.fail_with
        time.sleep(min(wait, 0.01))
        np.copyto(self._frame, self.picture)
        return self._frame

    def close(self) -> None:
        if self.is_open:
            os.close(self.handle)
            self.handle = -1
        self._frame.fill(0)


def open_paths(pid: int | str = "self") -> set[str]:
    """What a process has open, as the kernel tells it."""
    found = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(handle.readlink()))
        except FileNotFoundError:
            continue  # the handle of this very listing, or one closed meanwhile
    return found


class Vault:
    """Vault's end of one look."""

    def __init__(self, path: Path) -> None:
        self.connection = connect(path, {os.geteuid()}, Deadline(5))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def say(self, *messages: Message) -> None:
        for message in messages:
            send_message(self.connection, message, Deadline(5))

    def hear(self, seconds: float = 5) -> Message:
        return read_message(self.connection, FROM_LENS, Deadline(seconds))

    def hear_until(self, kind: type[Message], seconds: float = 10) -> list[Message]:
        """All messages up to and with the first of `kind`."""
        heard = [self.hear(seconds)]
        while not isinstance(heard[-1], kind):
            heard.append(self.hear(seconds))
        return heard

    def wait_for_end(self) -> bytes:
        """What else comes before lens hangs up."""
        self.connection.settimeout(10)
        rest = b""
        try:
            while part := self.connection.recv(4096):
                rest += part
        except ConnectionResetError:
            # Lens hung up with bytes of ours unread.
            return rest
        return rest


@contextmanager
def serving(
    folder: Path,
    camera: Camera,
    recogniser: Recogniser | None,
    *,
    callers: frozenset[int] | None = None,
    attempt_time: float = 8,
) -> Iterator[tuple[LensService, Path]]:
    """A lens service in a thread of this process, and the path of its socket."""
    path = folder / "look.sock"
    journal = Journal(folder / "journal.jsonl", sync=False)
    service = LensService(
        camera,
        recogniser,
        journal,
        callers=frozenset({os.geteuid()}) if callers is None else callers,
        attempt_time=attempt_time,
        face_min_px=60,
    )
    with listen(path) as listener:
        worker = threading.Thread(target=service.serve, args=(listener,))
        worker.start()
        try:
            yield service, path
        finally:
            service.stop()
            worker.join(10)
            journal.close()
        assert not worker.is_alive()


def hang_up(connection: socket.socket) -> None:
    """Close at once, as a process that dies does."""
    connection.close()
