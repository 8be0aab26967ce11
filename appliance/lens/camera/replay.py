"""Pictures or a video behind the camera interface, in real time: the camera of a door without hardware.

Playing begins at `open`. A folder is played as its `scene.toml` says, or else its pictures in the order of
their names (see `scene`); a file is played as a video, whose last frame is held. As with a real camera, a
frame exists only at its tick, 15 a second: a reader that is late misses some and gets the newest.

From `open` to `close`, and at no other time, the folder or the video is an open file of this process, so
that /proc/PID/fd says about a replay what it says about a device.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from appliance.lens.camera.interface import Camera, CameraAbsent, CameraBroke, Frame
from appliance.lens.camera.pictures import MAX_BYTES, SURROUND, BadPicture, read_picture
from appliance.lens.camera.scene import SCENE, Scene, SceneInvalid, Shot, scene_from_names, scene_from_text

FRAMES_PER_SECOND = 15
ROUNDING = 1e-6
"""Seconds by which a tick may seem to be ahead."""
WALL = 45
"""Grey level of a wall with nobody before it."""
WALL_NOISE = 5
"""Grey levels of noise on it, either way: a sensor's, so that no two pixels agree by design."""


class _Reel(Protocol):
    """What is being played; `picture_at` gives the frame that is current, in a buffer of the reel."""

    def picture_at(self, seconds: float) -> Frame | None: ...

    def prepare(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class ReplayCamera(Camera):
    """A folder of pictures, or a video, played as a camera of `width` x `height` pixels would show it."""

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """A closed camera. `now` and `sleep` are the clock that it plays by, in seconds."""
        self._path = path
        self._now = now
        self._sleep = sleep
        self._frame: Frame = np.zeros((height, width, 3), np.uint8)
        self._reel: _Reel | None = None
        self._opened_at = 0.0
        self._next_tick = 0

    def open(self) -> None:
        """Begin to play.

        Raises:
            CameraAbsent: no such folder or video, or (`SceneInvalid`) one that cannot be played.
        """
        if self._reel is not None:
            return
        height, width = self._frame.shape[:2]
        if self._path.is_dir():
            self._reel = _Folder(self._path, width, height)
        elif self._path.is_file():
            self._reel = _Film(self._path, width, height)
        else:
            raise CameraAbsent(
                f"there is nothing to replay at {self._path}: put pictures or a video there, "
                "or mend [camera] replay in the settings"
            )
        self._opened_at = self._now()
        self._next_tick = 0

    def read(self, wait: float) -> Frame | None:
        """See `Camera.read`: None also stands for a scene that has not begun."""
        if self._reel is None:
            raise CameraBroke("the camera is not open")
        elapsed = self._now() - self._opened_at
        tick = max(self._next_tick, int(elapsed * FRAMES_PER_SECOND))
        due = tick / FRAMES_PER_SECOND
        if elapsed < due - ROUNDING:
            # Decoding while there is time to spare keeps it out of the way of the frame itself.
            self._reel.prepare(due)
            elapsed = self._now() - self._opened_at
            self._sleep(max(0.0, min(wait, due - elapsed)))
            elapsed = self._now() - self._opened_at
            if elapsed < due - ROUNDING:
                return None
        self._next_tick = tick + 1
        picture = self._reel.picture_at(max(elapsed, due))
        if picture is None:
            return None
        # A copy, since the reader overwrites what it was given and a picture may be held for long.
        np.copyto(self._frame, picture)
        return self._frame

    def close(self) -> None:
        """See `Camera.close`."""
        reel, self._reel = self._reel, None
        if reel is not None:
            reel.close()
        self._frame.fill(0)


class _Folder:
    """A scene from a folder. The open handle on the folder is the 'device'."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._path = path
        self._size = (width, height)
        self._pictures: dict[int, Frame] = {}
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CameraAbsent(f"{path} cannot be opened: {error.strerror or error}") from error
        try:
            self._scene = self._read_scene()
            self._picture(0)
        except BaseException:
            self.close()
            raise

    def _read_scene(self) -> Scene:
        names = os.listdir(self._handle)  # noqa: PTH208 - the open handle, no second look-up by path
        if SCENE not in names:
            return scene_from_names(names, str(self._path))
        origin = f"{self._path}/{SCENE}"
        try:
            scene = scene_from_text(self._bytes(SCENE).decode("utf-8"), origin)
        except UnicodeDecodeError as error:
            raise SceneInvalid(f"{origin} is not UTF-8") from error
        missing = [shot.picture for shot in scene.shots if shot.picture and shot.picture not in names]
        if missing:
            raise SceneInvalid(f"{origin}: there is no {missing[0]} in the folder")
        return scene

    def _bytes(self, name: str) -> bytes:
        try:
            # A pipe in the folder would be waited for.
            handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._handle)
            with os.fdopen(handle, "rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SceneInvalid(f"{self._path}/{name} cannot be read: {error.strerror or error}") from error

    def picture_at(self, seconds: float) -> Frame | None:
        index = self._scene.index_at(seconds)
        return None if index is None else self._picture(index)

    def prepare(self, seconds: float) -> None:
        self.picture_at(seconds)

    def _picture(self, index: int) -> Frame:
        """The shot as a frame; the one before it is overwritten, so that one or two are held at a time."""
        if index not in self._pictures:
            picture = self._shoot(self._scene.shots[index])
            for old in [number for number in self._pictures if number != index - 1]:
                self._pictures.pop(old).fill(0)
            self._pictures[index] = picture
        return self._pictures[index]

    def _shoot(self, shot: Shot) -> Frame:
        width, height = self._size
        if shot.picture is None:
            noise = np.random.default_rng(1).integers(
                WALL - WALL_NOISE, WALL + WALL_NOISE + 1, (height, width, 1), np.uint8
            )
            return np.ascontiguousarray(np.broadcast_to(noise, (height, width, 3)))
        try:
            image = read_picture(self._bytes(shot.picture))
        except BadPicture as error:
            where = f"{self._path}/{shot.picture}"
            raise SceneInvalid(f"{where} is no picture that can be decoded: {error}") from error
        frame = fit(image, width, height, shot.scale)
        image.fill(0)
        if shot.blur > 0:
            cv2.GaussianBlur(frame, (0, 0), shot.blur, dst=frame)
        return frame

    def close(self) -> None:
        for picture in self._pictures.values():
            picture.fill(0)
        self._pictures.clear()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class _Film:
    """A video file, decoded by OpenCV, which holds the file open from here to `close`."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._size = (width, height)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        self._rate = self._capture.get(cv2.CAP_PROP_FPS) or 0.0
        self._shown = -1
        self._picture: Frame = np.zeros((height, width, 3), np.uint8)
        if not self._capture.isOpened() or not 0 < self._rate <= 1000:
            self.close()
            raise SceneInvalid(f"{path} is no video that can be played: give a folder of pictures or an .mp4")

    def picture_at(self, seconds: float) -> Frame | None:
        wanted = int(seconds * self._rate)
        fresh = False
        while self._shown < wanted and self._capture.grab():
            self._shown += 1
            fresh = True
        if fresh:
            got, image = self._capture.retrieve()
            if got:
                np.copyto(self._picture, fit(image, *self._size))
                image.fill(0)
        return self._picture if self._shown >= 0 else None

    def prepare(self, seconds: float) -> None:
        """A video is decoded in its order, when a frame is asked for."""

    def close(self) -> None:
        self._capture.release()
        self._picture.fill(0)


def fit(image: Frame, width: int, height: int, scale: float = 1.0) -> Frame:
    """`image` in the middle of a grey frame, as large as fits times `scale`, its proportions kept."""
    factor = scale * min(width / image.shape[1], height / image.shape[0])
    across, down = (max(1, round(side * factor)) for side in (image.shape[1], image.shape[0]))
    shrinks = factor < 1
    small = cv2.resize(image, (across, down), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    frame: Frame = np.full((height, width, 3), SURROUND, np.uint8)
    left, top = (width - across) // 2, (height - down) // 2
    frame[top : top + down, left : left + across] = small
    small.fill(0)
    return frame
