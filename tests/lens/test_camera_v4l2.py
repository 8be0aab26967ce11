"""The V4L2 path, faked only at `cv2.VideoCapture`: a stand-in file takes the place of the device."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from appliance.lens.camera import Camera, CameraAbsent, CameraBroke, open_camera
from appliance.lens.camera.interface import STALL, Frame
from appliance.settings import Camera as CameraSettings
from tests.lens.scripted import open_paths


class FakeVideoCapture:
    """As much of OpenCV's class as the V4L2 camera uses, with a real handle on the 'device'."""

    made: list["FakeVideoCapture"] = []  # noqa: RUF012 - reset by the fixture
    opens = True
    first_frame = True
    ready = True
    breaks = False
    size: tuple[int, int] | None = None

    def __init__(self, path: str, backend: int) -> None:
        assert backend == cv2.CAP_V4L2
        self.handle = os.open(path, os.O_RDONLY) if self.opens else -1
        self.settings: dict[int, float] = {}
        FakeVideoCapture.made.append(self)

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.handle >= 0

    def set(self, setting: int, value: float) -> bool:
        self.settings[setting] = value
        return True

    def grab(self) -> bool:
        return self.first_frame

    @classmethod
    def waitAny(cls, streams: list["FakeVideoCapture"], timeout: int) -> tuple[bool, list[int]]:  # noqa: N802
        assert timeout > 0, "0 would wait for ever"
        if cls.breaks:
            raise cv2.error("POLLERR")
        if not cls.ready:
            time.sleep(timeout / 1e9)
        return cls.ready, list(range(len(streams))) if cls.ready else []

    def retrieve(self, image: Frame) -> tuple[bool, Frame]:
        if self.size is not None and image.shape[:2] != self.size:
            image = np.empty((*self.size, 3), np.uint8)
        image.fill(77)
        return True, image

    def release(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "video0"
    path.write_bytes(b"")
    FakeVideoCapture.made = []
    for name in ("opens", "first_frame", "ready", "breaks", "size"):
        monkeypatch.setattr(FakeVideoCapture, name, getattr(FakeVideoCapture, name))
    monkeypatch.setattr(cv2, "VideoCapture", FakeVideoCapture)
    yield path
    for made in FakeVideoCapture.made:
        made.release()


def camera_at(device: Path) -> Camera:
    return open_camera(CameraSettings(source="v4l2", device=device))


def test_the_device_is_open_only_between_open_and_close(device: Path) -> None:
    camera = camera_at(device)
    assert FakeVideoCapture.made == []
    assert str(device) not in open_paths()
    with camera:
        assert str(device) in open_paths()
        assert camera.read(0.1) is not None
    assert str(device) not in open_paths()
    camera.close()


def test_few_frames_are_queued_and_the_asked_size_is_set(device: Path) -> None:
    with camera_at(device):
        settings = FakeVideoCapture.made[0].settings
    assert settings[cv2.CAP_PROP_BUFFERSIZE] <= 2
    assert (settings[cv2.CAP_PROP_FRAME_WIDTH], settings[cv2.CAP_PROP_FRAME_HEIGHT]) == (640, 480)


def test_a_frame_comes_in_the_cameras_own_buffer_which_is_zero_after_close(device: Path) -> None:
    camera = camera_at(device)
    camera.open()
    first, second = camera.read(0.1), camera.read(0.1)
    assert first is not None
    assert first is second
    assert first.any()
    camera.close()
    assert not first.any()


def test_a_camera_of_another_size_is_taken_as_it_is(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeVideoCapture, "size", (240, 320))
    with camera_at(device) as camera:
        frame = camera.read(0.1)
        assert frame is not None
        assert frame.shape == (240, 320, 3)
        assert camera.read(0.1) is frame


@pytest.mark.parametrize(
    "given", [np.ones((1, 5000), np.uint8), np.ones((48, 64, 2), np.uint8), np.ones((48, 64, 3), np.uint16)]
)
def test_frames_that_opencv_could_not_convert_are_a_broken_camera(
    device: Path, monkeypatch: pytest.MonkeyPatch, given: Frame
) -> None:
    monkeypatch.setattr(FakeVideoCapture, "retrieve", lambda _self, _image: (True, given))
    with camera_at(device) as camera, pytest.raises(CameraBroke, match="of a form that is not read"):
        camera.read(0.1)


def test_a_read_does_not_outlast_its_wait(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeVideoCapture, "ready", False)
    with camera_at(device) as camera:
        start = time.monotonic()
        assert camera.read(0.05) is None
        assert 0.04 < time.monotonic() - start < 1


def test_a_camera_that_gives_nothing_for_long_is_broken(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeVideoCapture, "ready", False)
    with camera_at(device) as camera:
        camera._last_frame_at -= STALL  # type: ignore[attr-defined]
        with pytest.raises(CameraBroke, match="stopped giving frames"):
            camera.read(0.01)


def test_a_camera_that_is_unplugged_is_broken(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeVideoCapture, "breaks", True)
    with camera_at(device) as camera, pytest.raises(CameraBroke, match="went away"):
        camera.read(0.01)


def test_no_device_is_an_absent_camera(device: Path) -> None:
    with pytest.raises(CameraAbsent, match="plug it in"):
        camera_at(device.with_name("video7")).open()


@pytest.mark.parametrize(("what", "says"), [("opens", "another program"), ("first_frame", "no frames")])
def test_a_camera_that_does_not_start_is_broken_and_left_closed(
    device: Path, monkeypatch: pytest.MonkeyPatch, what: str, says: str
) -> None:
    monkeypatch.setattr(FakeVideoCapture, what, False)
    camera = camera_at(device)
    with pytest.raises(CameraBroke, match=says):
        camera.open()
    assert str(device) not in open_paths()
    with pytest.raises(CameraBroke, match="not open"):
        camera.read(0.01)


def test_a_device_of_another_user_is_explained(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> bool:
        return False

    monkeypatch.setattr(os, "access", refuse)
    with pytest.raises(CameraBroke, match="group `video`"):
        camera_at(device).open()


def test_the_real_class_has_what_the_fake_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("isOpened", "set", "grab", "waitAny", "retrieve", "release"):
        assert hasattr(cv2.VideoCapture, name)
