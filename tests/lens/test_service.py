import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance import journal
from appliance.lens.camera import CameraAbsent, CameraBroke, Frame
from appliance.lens.service import LensService
from appliance.link.messages import (
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
from tests.lens.scripted import (
    ScriptedCamera,
    ScriptedFace,
    ScriptedRecogniser,
    Vault,
    open_paths,
    serving,
    textured,
)
from tests.lens.test_code import held_up


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="drempel-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def camera(folder: Path) -> ScriptedCamera:
    return ScriptedCamera(textured(), folder / "video0")


def events(folder: Path) -> list[str]:
    journal.verify(folder / "journal.jsonl")
    return (folder / "journal.jsonl").read_text().splitlines()


def eventually_closed(camera: ScriptedCamera) -> bool:
    end = time.monotonic() + 5
    while camera.is_open and time.monotonic() < end:
        time.sleep(0.005)
    return not camera.is_open


def test_a_look_reads_a_code_sends_probes_and_ends_with_the_camera_closed(
    folder: Path, camera: ScriptedCamera
) -> None:
    camera.picture = held_up(b"a token")
    recogniser = ScriptedRecogniser()
    with serving(folder, camera, recogniser) as (_, path), Vault(path) as vault:
        assert camera.opened == 0
        assert str(camera.stand_in) not in open_paths()
        vault.say(Look())
        assert vault.hear() == CameraOpen()
        assert str(camera.stand_in) in open_paths()
        assert vault.hear() == CodeRead(b"a token")
        assert recogniser.detections == 0
        camera.picture = textured()
        vault.say(Embed(3, 0))
        assert all(isinstance(vault.hear(), Probe) for _ in range(3))
        vault.say(Finish())
        assert vault.hear() == CameraClosed()
        assert str(camera.stand_in) not in open_paths()
        assert vault.wait_for_end() == b""
        closed = events(folder)[-1]
    assert '"camera closed"' in closed
    assert '"codes":1,"embeddings":3' in closed


def test_an_unknown_claim_costs_no_embedding(folder: Path, camera: ScriptedCamera) -> None:
    camera.picture = held_up(b"unknown")
    recogniser = ScriptedRecogniser()
    with serving(folder, camera, recogniser) as (_, path), Vault(path) as vault:
        vault.say(Look())
        vault.hear_until(CodeRead)
        time.sleep(0.1)
        vault.say(Finish())
        vault.hear_until(CameraClosed)
        vault.wait_for_end()
    assert recogniser.detections == recogniser.embeddings == 0
    assert any('"embeddings":0' in line for line in events(folder))


def test_no_frame_is_seen_and_no_camera_opened_before_a_look(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (_, path), Vault(path):
        time.sleep(0.1)
        assert camera.opened == 0
    assert camera.opened == 0


def test_an_enrolment_gets_hints(folder: Path, camera: ScriptedCamera) -> None:
    recogniser = ScriptedRecogniser([[ScriptedFace.of_width(40)]])
    with serving(folder, camera, recogniser) as (_, path), Vault(path) as vault:
        vault.say(Look(), Embed(5, 1))
        assert isinstance(vault.hear_until(Hint)[-1], Hint)


def test_looks_follow_each_other(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (_, path):
        for number in range(1, 4):
            with Vault(path) as vault:
                vault.say(Look(), Embed(1, 0))
                vault.hear_until(Probe)
                vault.say(Finish())
                vault.hear_until(CameraClosed)
            assert camera.opened == number


def test_a_hang_up_closes_the_camera_at_once(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (_, path):
        with Vault(path) as vault:
            vault.say(Look())
            vault.hear_until(CameraOpen)
        assert eventually_closed(camera)  # well before a look's own limit of 10 s
    assert not any("hostile" in line for line in events(folder))


@pytest.mark.parametrize("hints", [0, 1])
def test_finish_is_heard_while_frames_are_served(folder: Path, camera: ScriptedCamera, hints: int) -> None:
    with serving(folder, camera, ScriptedRecogniser([[]])) as (_, path), Vault(path) as vault:
        vault.say(Look(), Embed(20, hints))
        vault.hear_until(CameraOpen)
        time.sleep(0.1)
        start = time.monotonic()
        vault.say(Finish())
        vault.hear_until(CameraClosed)
        assert time.monotonic() - start < 5  # a look that does not hear it goes on for 10 s


@contextmanager
def saying(vault: Vault, words: bytes, pause: float) -> Iterator[None]:
    """Vault says `words` again and again, until lens hangs up."""
    over = threading.Event()

    def say() -> None:
        try:
            while not over.wait(pause):
                vault.connection.sendall(words)
        except OSError:
            return  # lens hung up

    worker = threading.Thread(target=say)
    worker.start()
    try:
        yield
    finally:
        over.set()
        vault.connection.shutdown(socket.SHUT_RDWR)
        worker.join(10)
    assert not worker.is_alive()


@pytest.mark.parametrize("hints", [0, 1])
def test_a_look_has_one_limit_which_no_embed_renews(
    folder: Path, camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch, hints: int
) -> None:
    monkeypatch.setattr("appliance.lens.service.GRACE", 0.2)
    with (
        serving(folder, camera, ScriptedRecogniser([[]]), attempt_time=0.2) as (_, path),
        Vault(path) as vault,
    ):
        start = time.monotonic()
        vault.say(Look())
        vault.hear_until(CameraOpen)
        with saying(vault, Embed(1, hints).encode(), 0.05):
            assert vault.hear_until(LensFailed)[-1] == LensFailed(LensTrouble.OUT_OF_TIME)
            assert 0.4 <= time.monotonic() - start < 5
            assert not camera.is_open


def test_a_flood_of_messages_neither_outlasts_the_limit_nor_a_stop(
    folder: Path, camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.lens.service.GRACE", 0.2)
    with serving(folder, camera, ScriptedRecogniser([[]]), attempt_time=0.2) as (service, path):
        with Vault(path) as vault:
            vault.say(Look())
            vault.hear_until(CameraOpen)
            with saying(vault, Embed(1, 0).encode() * 1000, 0):
                assert vault.hear_until(LensFailed)[-1] == LensFailed(LensTrouble.OUT_OF_TIME)
        service._look_limit = 60
        with Vault(path) as vault:
            vault.say(Look())
            vault.hear_until(CameraOpen)
            with saying(vault, Embed(1, 0).encode() * 1000, 0):
                service.stop()
                assert vault.hear_until(LensFailed)[-1] == LensFailed(LensTrouble.INTERNAL)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (CameraAbsent("gone"), LensTrouble.CAMERA_ABSENT),
        (CameraBroke("loose"), LensTrouble.CAMERA_BROKE),
        (RuntimeError("a library"), LensTrouble.INTERNAL),
        (MemoryError(), LensTrouble.INTERNAL),
    ],
)
def test_a_failing_camera_is_told_and_the_next_look_works(
    folder: Path, camera: ScriptedCamera, error: BaseException, trouble: LensTrouble
) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (_, path):
        camera.fail_on_open = error
        with Vault(path) as vault:
            vault.say(Look())
            assert vault.hear() == LensFailed(trouble)
        camera.fail_on_open = None
        camera.fail_with = error
        with Vault(path) as vault:
            vault.say(Look())
            assert vault.hear_until(LensFailed)[-1] == LensFailed(trouble)
            assert not camera.is_open
        camera.fail_with = None
        with Vault(path) as vault:
            vault.say(Look(), Embed(1, 0))
            vault.hear_until(Probe)
    assert sum('"failed"' in line for line in events(folder)) == 2


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((480, 640), np.uint8),
        np.zeros((1, 4096), np.uint8),
        np.zeros((480, 640, 4), np.uint8),
        np.zeros((480, 640, 3), np.float32),
        np.zeros((0, 640, 3), np.uint8),
        np.zeros((1, 32_767, 3), np.uint8),
    ],
    ids=["grey", "a row of bytes", "alpha", "floating point", "empty", "too long"],
)
def test_frames_that_are_none_end_the_look_as_a_broken_camera_and_the_next_look_works(
    folder: Path, camera: ScriptedCamera, frame: Frame, capfd: pytest.CaptureFixture[str]
) -> None:
    good = camera.picture, camera._frame
    with serving(folder, camera, ScriptedRecogniser()) as (_, path):
        camera.picture, camera._frame = frame, frame.copy()
        with Vault(path) as vault:
            vault.say(Look())
            assert vault.hear_until(LensFailed)[-1] == LensFailed(LensTrouble.CAMERA_BROKE)
            assert not camera.is_open
        camera.picture, camera._frame = good
        with Vault(path) as vault:
            vault.say(Look(), Embed(1, 0))
            vault.hear_until(Probe)
    assert "a frame must" in capfd.readouterr().err


def test_a_step_that_fails_ends_the_look_and_says_where_but_not_what(
    folder: Path, camera: ScriptedCamera, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_frame: Frame) -> None:
        raise ValueError("the picture says 4711")

    with serving(folder, camera, ScriptedRecogniser(on_detect=fail)) as (_, path):
        with Vault(path) as vault:
            vault.say(Look(), Embed(1, 0))
            assert vault.hear_until(LensFailed)[-1] == LensFailed(LensTrouble.INTERNAL)
            assert not camera.is_open
        with Vault(path) as vault:
            vault.say(Look())
            vault.hear_until(CameraOpen)
    said = capsys.readouterr().err
    assert "ValueError at test_service.py" in said
    assert "4711" not in said
    assert all(line.startswith("drempel lens: ") for line in said.splitlines())


def test_with_recognition_off_no_look_opens_the_camera(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, None) as (_, path), Vault(path) as vault:
        vault.say(Look())
        assert vault.hear() == LensFailed(LensTrouble.CAMERA_ABSENT)
    assert camera.opened == 0


def test_a_wrong_user_is_not_heard(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, ScriptedRecogniser(), callers=frozenset({os.geteuid() + 1})) as (_, path):
        with Vault(path) as vault:
            assert vault.wait_for_end() == b""
        with Vault(path) as vault:
            assert vault.wait_for_end() == b""
    assert camera.opened == 0
    assert sum('"wrong peer"' in line for line in events(folder)) == 2


def test_a_stop_ends_a_look_with_the_camera_closed(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (service, path), Vault(path) as vault:
        vault.say(Look())
        vault.hear_until(CameraOpen)
        service.stop()
        assert vault.hear_until(LensFailed)[-1] == LensFailed(LensTrouble.INTERNAL)
        assert not camera.is_open
        service.stop()


def test_a_silent_caller_holds_nobody_for_long(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (_, path), Vault(path), Vault(path) as vault:
        vault.say(Look())
        assert vault.hear(5) == CameraOpen()


def test_a_hanging_driver_is_noticed(
    folder: Path, camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.lens.service.GRACE", 0.5)
    camera.hang.clear()
    with serving(folder, camera, ScriptedRecogniser(), attempt_time=1) as (service, path):
        assert not service.stuck
        with Vault(path) as vault:
            vault.say(Look())
            vault.hear_until(CameraOpen)
            assert not service.stuck
            end = time.monotonic() + 20
            while not service.stuck and time.monotonic() < end:
                time.sleep(0.05)
            assert service.stuck
            camera.hang.set()
            vault.hear_until(LensFailed)
            assert not service.stuck


def test_a_dripped_message_ends_the_look(folder: Path, camera: ScriptedCamera) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (_, path), Vault(path) as vault:
        vault.say(Look())
        vault.hear_until(CameraOpen)
        start = time.monotonic()
        vault.connection.send(Embed(1, 0).encode()[:1])
        assert vault.hear_until(LensFailed)[-1] == LensFailed(LensTrouble.INTERNAL)
        assert time.monotonic() - start < 5  # not when the look's own limit is over
        assert not camera.is_open
    assert any("hostile" in line for line in events(folder))


@pytest.mark.parametrize(
    "opening", [Finish().encode(), Embed(1, 0).encode(), b"\x01\x00\x01x", b"\x15\x00\x00", b"\xff" * 100]
)
def test_any_other_first_word_opens_no_camera(folder: Path, camera: ScriptedCamera, opening: bytes) -> None:
    with serving(folder, camera, ScriptedRecogniser()) as (_, path), Vault(path) as vault:
        vault.connection.sendall(opening)
        assert vault.wait_for_end() == b""
    assert camera.opened == 0
    assert any("hostile" in line for line in events(folder))


@pytest.fixture(scope="module")
def under_attack() -> Iterator[tuple[LensService, Path, ScriptedCamera]]:
    path = Path(tempfile.mkdtemp(prefix="drempel-"))
    camera = ScriptedCamera(textured(), path / "video0")
    with serving(path, camera, ScriptedRecogniser()) as (service, address):
        yield service, address, camera
    shutil.rmtree(path)


whole = st.sampled_from(
    [Look().encode(), Embed(1, 0).encode(), Embed(20, 1).encode(), Finish().encode(), CameraOpen().encode()]
)
piece = st.one_of(
    whole,
    st.builds(lambda one, end: one[:end], whole, st.integers(0, 5)),
    st.binary(min_size=1, max_size=40),
    st.builds(
        lambda kind, length: bytes([kind]) + length.to_bytes(2), st.integers(0, 255), st.integers(0, 65535)
    ),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begin=st.booleans(), pieces=st.lists(piece, max_size=6), slow=st.booleans(), half_close=st.booleans())
def test_hostile_bytes_never_crash_the_service_and_leave_the_camera_closed(
    under_attack: tuple[LensService, Path, ScriptedCamera],
    begin: bool,
    pieces: list[bytes],
    slow: bool,
    half_close: bool,
) -> None:
    _, path, camera = under_attack
    with Vault(path) as vault:
        try:
            if begin:
                vault.say(Look())
            for part in pieces:
                vault.connection.sendall(part)
                if slow:
                    time.sleep(0.01)
            if half_close:
                vault.connection.shutdown(socket.SHUT_WR)
                vault.wait_for_end()
        except (BrokenPipeError, ConnectionError):
            assert pieces, "only what was sent can have made lens hang up"
    with Vault(path) as vault:
        vault.say(Look(), Embed(1, 0))
        vault.hear_until(Probe)
        vault.say(Finish())
        vault.hear_until(CameraClosed)
        vault.wait_for_end()
        assert not camera.is_open
        assert str(camera.stand_in) not in open_paths()
