"""The Raspberry Pi path, with a fake `picamera2` put where the real one is imported."""

import sys
import types
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.lens.camera import Camera, CameraAbsent, CameraBroke, open_camera
from appliance.lens.camera.interface import STALL
from appliance.settings import Camera as CameraSettings
from tests.lens.scripted import open_paths


class FakeJob:
    def __init__(self, image: Any) -> None:
        self.future: Future[Any] = Future()
        if image is not None:
            self.future.set_result(image)

    def get_result(self, timeout: float | None = None) -> Any:
        return self.future.result(timeout)


class FakePicamera2:
    stand_in: Path
    last: "FakePicamera2"
    cameras = 1
    starts = True
    image: Any = None

    @classmethod
    def global_camera_info(cls) -> list[dict[str, str]]:
        return [{"Model": "imx708"}] * cls.cameras

    def __init__(self) -> None:
        self.file = self.stand_in.open("rb")
        self.configuration: Any = None
        self.jobs: list[FakeJob] = []
        FakePicamera2.last = self

    def create_video_configuration(self, **what: Any) -> dict[str, Any]:
        return what

    def configure(self, what: Any) -> None:
        self.configuration = what

    def start(self) -> None:
        if not self.starts:
            raise RuntimeError("Failed to acquire camera")

    def capture_array(self, name: str, *, wait: bool) -> FakeJob:
        assert name == "main"
        assert not wait
        self.jobs.append(FakeJob(self.image))
        return self.jobs[-1]

    def close(self) -> None:
        self.file.close()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakePicamera2]:
    module = types.ModuleType("picamera2")
    module.Picamera2 = FakePicamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    FakePicamera2.stand_in = tmp_path / "media0"
    FakePicamera2.stand_in.write_bytes(b"")
    for name in ("cameras", "starts", "image"):
        monkeypatch.setattr(FakePicamera2, name, getattr(FakePicamera2, name))
    return FakePicamera2


def the_camera() -> Camera:
    return open_camera(CameraSettings(source="picamera2"))


def test_without_the_library_the_error_names_debians_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraAbsent, match="python3-picamera2"):
        the_camera().open()


def test_making_a_camera_imports_and_opens_nothing(library: type[FakePicamera2]) -> None:
    the_camera()
    assert str(library.stand_in) not in open_paths()


def test_the_device_is_open_only_between_open_and_close(
    library: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((480, 640, 3), 9, np.uint8)
    monkeypatch.setattr(library, "image", image)
    camera = the_camera()
    with camera:
        assert str(library.stand_in) in open_paths()
        assert library.last.configuration["main"] == {"size": (640, 480), "format": "RGB888"}
        frame = camera.read(0.1)
        assert frame is not None
        assert frame.mean() == 9
        assert not image.any()
    assert str(library.stand_in) not in open_paths()
    assert not frame.any()
    camera.close()


def test_a_frame_that_is_not_ready_is_picked_up_by_a_later_read(library: type[FakePicamera2]) -> None:
    with the_camera() as camera:
        assert camera.read(0.01) is None
        assert camera.read(0.01) is None
        (job,) = library.last.jobs
        job.future.set_result(np.full((480, 640, 3), 5, np.uint8))
        assert camera.read(0.01) is not None


def test_a_camera_that_gives_nothing_for_long_is_broken(library: type[FakePicamera2]) -> None:
    with the_camera() as camera:
        camera._last_frame_at -= STALL  # type: ignore[attr-defined]
        with pytest.raises(CameraBroke, match="stopped"):
            camera.read(0.01)
    assert str(library.stand_in) not in open_paths()


def test_no_camera_on_the_ribbon_is_an_absent_camera(
    library: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "cameras", 0)
    with pytest.raises(CameraAbsent, match="ribbon"):
        the_camera().open()


def test_a_camera_in_use_is_broken_and_left_closed(
    library: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "starts", False)
    camera = the_camera()
    with pytest.raises(CameraBroke, match="in use"):
        camera.open()
    assert str(library.stand_in) not in open_paths()
    with pytest.raises(CameraBroke, match="not open"):
        camera.read(0.01)


def test_a_failing_or_odd_frame_is_a_broken_camera(
    library: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "image", np.zeros((10, 10, 4), np.uint8))
    with the_camera() as camera, pytest.raises(CameraBroke, match="shape"):
        camera.read(0.01)
    monkeypatch.setattr(library, "image", None)
    with the_camera() as camera:
        camera.read(0.01)
        library.last.jobs[0].future.set_exception(RuntimeError("sensor"))
        with pytest.raises(CameraBroke, match="failed"):
            camera.read(0.01)
