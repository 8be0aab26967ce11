"""The lens as a process of its own: what the kernel says it has open, and what it says to vault."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import segno

from appliance import journal
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    FROM_LENS,
    CameraClosed,
    CameraOpen,
    CodeRead,
    Embed,
    Finish,
    Hint,
    LensFailed,
    LensTrouble,
    Look,
    Probe,
)
from appliance.link.sockets import Deadline, connect
from tests.looking import only_root_looks_in

TOKEN = bytes(range(200, 235))

PLAIN = """
import sys
from appliance.simulation.zone import main
sys.exit(main(["lens", "--config", sys.argv[1]]))
"""

# No file can grow any more.
FULL_DISK = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n" + PLAIN

# The V4L2 path, replaced at `cv2.VideoCapture` alone: a stand-in file is the device, `sys.argv[2]` is what
# it shows, and a file named `hang` beside it makes the driver hang.
WITH_A_FAKE_DRIVER = (
    """
import os, sys, time
from pathlib import Path
import cv2
picture = cv2.imread(sys.argv[2])
class Driver:
    def __init__(self, path, backend):
        assert backend == cv2.CAP_V4L2
        self.path = Path(path)
        self.handle = os.open(path, os.O_RDWR)
    def isOpened(self): return True
    def set(self, setting, value): return True
    def grab(self): return True
    @staticmethod
    def waitAny(streams, timeout):
        while streams[0].path.with_name("hang").exists():
            time.sleep(1)
        time.sleep(min(timeout / 1e9, 0.03))
        return True, [0]
    def retrieve(self, image):
        image[...] = picture
        return True, image
    def release(self): os.close(self.handle)
cv2.VideoCapture = Driver
"""
    + PLAIN
)

SETTINGS = """
[paths]
state = "{folder}/state"
runtime = "{folder}/run"
packs = "{packs}"
[users]
door = ""
lens = ""
vault = ""
admin = ""
[[badge_readers]]
name = "outside"
device = "/dev/null"
key_file = "/dev/null"
[camera]
{camera}
[recognition]
enabled = {enabled}
controller = "test"
dpia = "test"
legal_ground = "consent"
acknowledge = ["edge"]
attempt_time = {attempt_time}
answer_time = 1.0
"""


class Lens:
    """A running lens process."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.process = process
        self.path = folder / "run/lens/look.sock"

    def open_paths(self) -> set[str]:
        found = set()
        for handle in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                found.add(str(handle.readlink()))
            except FileNotFoundError:
                continue  # closed while we listed
        return found

    def call(self) -> socket.socket:
        return connect(self.path, {os.geteuid()}, Deadline(10))


def say(connection: socket.socket, message: Message) -> None:
    send_message(connection, message, Deadline(5))


def hear(connection: socket.socket, seconds: float = 10) -> Message:
    return read_message(connection, FROM_LENS, Deadline(seconds))


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="drempel-"))
    yield path
    shutil.rmtree(path)


@contextmanager
def running(folder: Path, camera: str, *more: str, launcher: str = PLAIN, **settings: Any) -> Iterator[Lens]:
    values = {"packs": folder, "enabled": "true", "attempt_time": 8.0, "camera": camera} | settings
    (folder / "drempel.toml").write_text(SETTINGS.format(folder=folder, **values))
    process = subprocess.Popen(
        [sys.executable, "-c", launcher, str(folder / "drempel.toml"), *more],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
    )
    lens = Lens(folder, process)
    try:
        deadline = Deadline(60)
        while not lens.path.exists() and process.poll() is None and not deadline.passed:
            time.sleep(0.02)
        yield lens
    finally:
        process.kill()
        process.communicate()


def token_picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    matrix = np.array(list(segno.make(TOKEN, micro=False).matrix_iter(border=4)), np.uint8)
    symbol = cv2.resize((1 - matrix) * 220, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    picture = np.full((480, 640, 3), 100, np.uint8)
    picture[50 : 50 + symbol.shape[0], 50 : 50 + symbol.shape[1]] = symbol[..., None]
    return picture


def doors_folder(folder: Path, portrait: Path) -> Path:
    """An empty wall, a token held up at 0.3 s, and a face at 1.0 s."""
    scene = folder / "scene"
    scene.mkdir()
    cv2.imwrite(str(scene / "token.png"), token_picture())
    shutil.copy(portrait, scene / "face.jpg")
    (scene / "scene.toml").write_text(
        "[[frame]]\nat = 0.0\nempty = true\n"
        '[[frame]]\nat = 0.3\npicture = "token.png"\n'
        '[[frame]]\nat = 1.0\npicture = "face.jpg"\n'
    )
    return scene


@only_root_looks_in
@pytest.mark.models
def test_a_whole_look_on_replay_with_the_real_pack(
    folder: Path, test_models: Path, portrait_paths: dict[str, Path]
) -> None:
    scene = doors_folder(folder, portrait_paths["obama.jpg"])
    with running(folder, f'source = "replay"\nreplay = "{scene}"', packs=test_models) as lens:
        assert str(scene) not in lens.open_paths()
        with lens.call() as vault:
            say(vault, Look())
            assert hear(vault) == CameraOpen()
            assert str(scene) in lens.open_paths()
            code = hear(vault)
            assert isinstance(code, CodeRead)
            assert code.code == TOKEN
            say(vault, Embed(3, 0))
            probes = [hear(vault) for _ in range(3)]
            embeddings = []
            for probe in probes:
                assert isinstance(probe, Probe)
                embeddings.append(np.frombuffer(probe.embedding, "<f4"))
            say(vault, Finish())
            assert hear(vault) == CameraClosed()
            assert str(scene) not in lens.open_paths()
            assert vault.recv(1) == b""
        assert all(abs(float(one @ one) - 1) < 1e-4 for one in embeddings)
        assert float(embeddings[0] @ embeddings[1]) > 0.99
        lens.process.send_signal(signal.SIGTERM)
        assert lens.process.wait(20) == 0
    lines = (folder / "state/lens/journal.jsonl").read_text()
    assert '"camera closed","details":{"frames":' in lines
    assert '"codes":1,"embeddings":3}' in lines
    journal.verify(folder / "state/lens/journal.jsonl")


@pytest.mark.models
def test_an_enrolment_hints_come_closer_and_spaces_its_captures(
    folder: Path, test_models: Path, portrait_paths: dict[str, Path]
) -> None:
    scene = doors_folder(folder, portrait_paths["obama.jpg"])
    (scene / "scene.toml").write_text(
        '[[frame]]\nat = 0.0\npicture = "face.jpg"\nscale = 0.2\n[[frame]]\nat = 0.8\npicture = "face.jpg"\n'
    )
    with (
        running(folder, f'source = "replay"\nreplay = "{scene}"', packs=test_models) as lens,
        lens.call() as vault,
    ):
        say(vault, Look())
        assert hear(vault) == CameraOpen()
        say(vault, Embed(3, 1))
        first = hear(vault)
        assert isinstance(first, Hint)
        times: list[float] = []
        while len(times) < 3:
            if isinstance(hear(vault), Probe):
                times.append(time.monotonic())
        assert min(times[1] - times[0], times[2] - times[1]) >= 0.19


@only_root_looks_in
@pytest.mark.models
def test_the_v4l2_device_is_open_only_during_a_look_however_it_ends(folder: Path, test_models: Path) -> None:
    device = folder / "video0"
    device.write_bytes(b"")
    show = folder / "show.png"
    cv2.imwrite(str(show), token_picture())
    camera = f'source = "v4l2"\ndevice = "{device}"'
    with running(folder, camera, str(show), launcher=WITH_A_FAKE_DRIVER, packs=test_models) as lens:
        assert str(device) not in lens.open_paths()
        for ending in (Finish().encode(), b"", b"\xff\xff\xff", Embed(1, 0).encode()[:2]):
            with lens.call() as vault:
                say(vault, Look())
                assert hear(vault) == CameraOpen()
                assert str(device) in lens.open_paths()
                vault.sendall(ending)
                vault.shutdown(socket.SHUT_WR)
                vault.settimeout(5)
                while vault.recv(4096):
                    pass
            assert str(device) not in lens.open_paths()
        with lens.call() as vault:
            say(vault, Look())
            assert hear(vault) == CameraOpen()
            lens.process.send_signal(signal.SIGTERM)
            assert lens.process.wait(20) == 0


@pytest.mark.models
def test_a_driver_that_hangs_costs_the_process_and_nothing_more(
    folder: Path, test_models: Path, portrait_paths: dict[str, Path]
) -> None:
    device = folder / "video0"
    device.write_bytes(b"")
    (folder / "hang").write_bytes(b"")
    camera = f'source = "v4l2"\ndevice = "{device}"'
    with (
        running(
            folder,
            camera,
            str(portrait_paths["obama.jpg"]),
            launcher=WITH_A_FAKE_DRIVER,
            packs=test_models,
            attempt_time=2.0,
        ) as lens,
        lens.call() as vault,
    ):
        say(vault, Look())
        assert hear(vault) == CameraOpen()
        start = time.monotonic()
        assert lens.process.wait(30) == 70
        assert time.monotonic() - start > 5


@only_root_looks_in
def test_with_recognition_off_every_look_is_refused_and_no_model_is_loaded(folder: Path) -> None:
    with running(folder, f'source = "replay"\nreplay = "{folder}"', enabled="false") as lens:
        with lens.call() as vault:
            say(vault, Look())
            assert hear(vault) == LensFailed(LensTrouble.CAMERA_ABSENT)
        maps = Path(f"/proc/{lens.process.pid}/maps").read_text()
        assert "onnxruntime" not in maps
        lens.process.send_signal(signal.SIGTERM)
        assert lens.process.wait(20) == 0


def test_a_wrong_configuration_is_one_line_and_status_2(folder: Path) -> None:
    with running(folder, f'source = "replay"\nreplay = "{folder}"', packs=folder / "none") as lens:
        _, said = lens.process.communicate(timeout=60)
        assert lens.process.returncode == 2
        assert said.count("\n") == 1
        assert said.startswith("drempel lens: ")
        assert "not installed" in said
        assert f"--packs {folder / 'none'}" in said


def test_a_damaged_pack_is_one_line_and_status_1(folder: Path) -> None:
    (folder / "edge").mkdir()
    (folder / "edge/detector.onnx").write_bytes(b"half")
    with running(folder, f'source = "replay"\nreplay = "{folder}"') as lens:
        _, said = lens.process.communicate(timeout=60)
        assert lens.process.returncode == 1
        assert said.count("\n") == 1
        assert said.startswith("drempel lens: edge/SHA256SUMS is missing")


def test_a_full_disk_at_the_start_does_not_stop_lens(folder: Path) -> None:
    with (
        running(
            folder, f'source = "replay"\nreplay = "{folder}"', launcher=FULL_DISK, enabled="false"
        ) as lens,
        lens.call() as vault,
    ):
        say(vault, Look())
        assert hear(vault) == LensFailed(LensTrouble.CAMERA_ABSENT)
        lens.process.send_signal(signal.SIGTERM)
        assert lens.process.wait(20) == 0
        assert (folder / "state/lens/journal.jsonl").read_bytes() == b""
