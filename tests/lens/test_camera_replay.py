import os
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.errors import ConfigurationError
from appliance.lens.camera import CameraAbsent, CameraBroke, Frame, open_camera
from appliance.lens.camera.pictures import SURROUND
from appliance.lens.camera.replay import WALL, ReplayCamera
from appliance.lens.camera.scene import SceneInvalid
from appliance.settings import Camera as CameraSettings
from tests.lens.scripted import open_paths, textured


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def picture(folder: Path, name: str, grey: int, size: tuple[int, int] = (480, 640)) -> None:
    cv2.imwrite(str(folder / name), np.full((*size, 3), grey, np.uint8))


def playing(folder: Path, clock: Clock) -> ReplayCamera:
    return ReplayCamera(folder, 640, 480, now=clock.now, sleep=clock.sleep)


def watch(camera: ReplayCamera, clock: Clock, until: float) -> list[tuple[float, Frame]]:
    """The frames up to `until` seconds, each with the time at which it came."""
    seen = []
    start = clock.seconds
    while clock.seconds - start < until:
        frame = camera.read(0.02)
        if frame is not None:
            seen.append((clock.seconds - start, frame.copy()))
    return seen


SCENE = """
[[frame]]
at = 0.0
empty = true

[[frame]]
at = 1.0
picture = "late.png"

[[frame]]
at = 2.0
picture = "late.png"
blur = 4.0
"""


def test_a_scene_shows_an_empty_wall_then_a_late_face_then_a_blurred_one(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "late.png"), textured(light=180))
    (tmp_path / "scene.toml").write_text(SCENE)
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        seen = watch(camera, clock, 3.0)
    empty = [frame for at, frame in seen if at < 0.99]
    late = [frame for at, frame in seen if 1.0 <= at < 1.99]
    blurred = [frame for at, frame in seen if at >= 2.0]
    assert all(abs(frame.mean() - WALL) < 3 and 1 < frame.std() < 10 for frame in empty)
    assert all(abs(frame.mean() - 180) < 5 for frame in late + blurred)
    detail = [float(np.std(cv2.Laplacian(frame[:, :, 0], cv2.CV_32F))) for frame in (late[0], blurred[0])]
    assert detail[1] < detail[0] / 10
    assert len(empty) >= 14
    assert len(late) >= 14
    assert len(blurred) >= 14


def test_frames_come_at_most_15_a_second(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 120)
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        seen = watch(camera, clock, 2.0)
    times = [at for at, _ in seen]
    assert 29 <= len(seen) <= 31
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.9 / 15


def test_a_reader_that_was_away_gets_the_newest_frame_and_no_backlog(tmp_path: Path) -> None:
    picture(tmp_path, "0.png", 50)
    picture(tmp_path, "1.png", 200)
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        first = camera.read(0.1)
        assert first is not None
        assert first.mean() == 50
        clock.sleep(1.0)
        newest = camera.read(0.0)
        assert newest is not None
        assert newest.mean() == 200
        assert camera.read(0.0) is None


def test_pictures_without_a_scene_play_in_the_order_of_their_names_and_the_last_is_held(
    tmp_path: Path,
) -> None:
    for number, grey in enumerate((60, 120, 180)):
        picture(tmp_path, f"{number}.png", grey)
    (tmp_path / "notes.txt").write_text("no picture")
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        seen = watch(camera, clock, 1.0)
    levels = [round(float(frame.mean())) for _, frame in seen]
    assert list(dict.fromkeys(levels)) == [60, 120, 180]
    assert levels[-1] == 180
    assert [round(float(frame.mean())) for at, frame in seen if 0.1 <= at < 0.19] == [120]


def test_a_scene_that_loops_begins_again(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 60)
    picture(tmp_path, "b.png", 200)
    (tmp_path / "scene.toml").write_text(
        'loop = 1.0\n[[frame]]\nat = 0\npicture = "a.png"\n[[frame]]\nat = 0.5\npicture = "b.png"\n'
    )
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        seen = watch(camera, clock, 2.0)
    halves = [round(float(frame.mean())) for at, frame in seen if at % 0.5 > 0.1]
    assert list(dict.fromkeys(pairwise(halves))) == [
        (60, 60),
        (60, 200),
        (200, 200),
        (200, 60),
    ]


def test_before_the_first_frame_of_a_scene_nothing_comes(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 60)
    (tmp_path / "scene.toml").write_text('[[frame]]\nat = 0.5\npicture = "a.png"\n')
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        seen = watch(camera, clock, 1.0)
    assert 0.5 <= seen[0][0] < 0.6


def test_a_picture_keeps_its_proportions_inside_the_frame(tmp_path: Path) -> None:
    picture(tmp_path, "tall.png", 250, size=(400, 100))
    (tmp_path / "scene.toml").write_text('[[frame]]\nat = 0\npicture = "tall.png"\nscale = 0.5\n')
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        frame = camera.read(0.1)
        assert frame is not None
        assert frame.shape == (480, 640, 3)
        bright = frame[:, :, 0] > 200
        assert (bright.any(axis=0).sum(), bright.any(axis=1).sum()) == (60, 240)
        assert frame[0, 0, 0] == SURROUND


def test_the_folder_is_open_only_between_open_and_close(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 60)
    camera = open_camera(CameraSettings(source="replay", replay=tmp_path))
    assert str(tmp_path) not in open_paths()
    camera.open()
    assert str(tmp_path) in open_paths()
    assert camera.read(0.2) is not None
    camera.close()
    assert str(tmp_path) not in open_paths()
    camera.close()
    with pytest.raises(CameraBroke):
        camera.read(0.01)


def test_opening_again_plays_from_the_start(tmp_path: Path) -> None:
    picture(tmp_path, "0.png", 50)
    picture(tmp_path, "1.png", 200)
    clock = Clock()
    camera = playing(tmp_path, clock)
    for _ in range(2):
        with camera:
            frame = camera.read(0.1)
            assert frame is not None
            assert frame.mean() == 50
            clock.sleep(1.0)


def test_buffers_are_zero_after_close(tmp_path: Path) -> None:
    picture(tmp_path, "0.png", 50)
    picture(tmp_path, "1.png", 200)
    clock = Clock()
    camera = playing(tmp_path, clock)
    camera.open()
    frame = camera.read(0.1)
    assert frame is not None
    assert camera._reel is not None
    held = list(camera._reel._pictures.values())  # type: ignore[attr-defined]
    assert all(one.any() for one in held)
    camera.close()
    assert not frame.any()
    assert not any(one.any() for one in held)


def test_a_frame_is_a_copy_so_that_overwriting_it_spoils_no_later_one(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 60)
    clock = Clock()
    with playing(tmp_path, clock) as camera:
        first = camera.read(0.1)
        assert first is not None
        first.fill(0)
        second = camera.read(0.1)
        assert second is not None
        assert second.mean() == 60


def test_in_real_time_a_frame_comes_when_it_is_due(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 60)
    (tmp_path / "scene.toml").write_text(
        '[[frame]]\nat = 0\nempty = true\n[[frame]]\nat = 0.4\npicture = "a.png"\n'
    )
    camera = ReplayCamera(tmp_path, 640, 480)
    start = time.monotonic()
    with camera:
        while True:
            frame = camera.read(0.02)
            if frame is not None and round(float(frame.mean())) == 60:
                break
            assert time.monotonic() - start < 5
    assert time.monotonic() - start >= 0.4


def test_a_video_is_played_in_real_time_and_its_last_frame_is_held(tmp_path: Path) -> None:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for grey in (40, 80, 120, 160, 200):
        writer.write(np.full((240, 320, 3), grey, np.uint8))
    writer.release()
    clock = Clock()
    camera = playing(path, clock)
    camera.open()
    assert str(path) in open_paths()
    seen = watch(camera, clock, 1.0)
    camera.close()
    assert str(path) not in open_paths()
    levels = [5 * round(float(frame.mean()) / 5) for _, frame in seen]
    assert levels[0] == 40
    assert levels[-1] == 200
    assert seen[0][1].shape == (480, 640, 3)
    assert levels == sorted(levels)


@pytest.mark.parametrize(
    ("scene", "says"),
    [
        ("[[frame]\n", "TOML"),
        ("", "frame"),
        ('[[frame]]\nat = 0\npicture = "none.png"\n', "there is no none.png"),
        ("[[frame]]\nat = 0\n", 'picture = "file.jpg" or empty = true'),
        ('[[frame]]\nat = 0\npicture = "../a.png"\n', "same folder"),
        ('[[frame]]\nat = 0\npicture = "scene.toml"\n', "must end in"),
        ("[[frame]]\nat = 1\nempty = true\n[[frame]]\nat = 1\nempty = true\n", "later `at`"),
        ("loop = 1.0\n[[frame]]\nat = 1\nempty = true\n", "loop must be later"),
        ("[[frame]]\nat = 0\nempty = true\nblurr = 1\n", "blurr"),
        ("[[frame]]\nat = -1\nempty = true\n", "at"),
        ('[[frame]]\nat = 0\npicture = "text.png"\n', "no picture that can be decoded"),
        ('[[frame]]\nat = 0\npicture = "nothing.png"\n', "no picture that can be decoded"),
    ],
)
def test_a_scene_that_cannot_be_played_is_refused_with_what_to_write(
    tmp_path: Path, scene: str, says: str
) -> None:
    picture(tmp_path, "a.png", 60)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "nothing.png").write_text("")
    (tmp_path / "scene.toml").write_text(scene)
    with pytest.raises(SceneInvalid) as refusal:
        ReplayCamera(tmp_path, 640, 480).open()
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) not in open_paths()


def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(SceneInvalid, match=r"a\.png is no picture"):
        ReplayCamera(tmp_path, 640, 480).open()


def test_nothing_to_replay_is_an_absent_camera(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CameraAbsent):
            ReplayCamera(path, 640, 480).open()
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(CameraAbsent):
        ReplayCamera(tmp_path / "no.mp4", 640, 480).open()


def test_settings_without_a_replay_path_are_refused() -> None:
    settings = CameraSettings.model_construct(source="replay", replay=None)
    with pytest.raises(ConfigurationError):
        open_camera(settings)
