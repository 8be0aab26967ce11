"""A camera behind Video4Linux: USB cameras, and most others.

A read must not hold the look: OpenCV's own `read` would wait for up to ten seconds. So `read` first asks
`VideoCapture.waitAny`, which polls the device for a bounded time, and only then takes the frame that is
there. (OpenCV's CAP_PROP_READ_TIMEOUT_MSEC does not exist for V4L2.) What remains blocking is the first
frame, inside `open`: there OpenCV's own wait is set to one second. A driver that hangs inside the kernel
cannot be timed out by anyone in the process; the watchdog of `lens.service` then ends the process.

What we own is one frame buffer. The kernel's memory-mapped buffers (two are asked for) and OpenCV's
copy of the last compressed frame are theirs: they are given back at `release`, unwiped.
"""

import os
import time
from pathlib import Path

import cv2
import numpy as np

from appliance.lens.camera.interface import STALL, Camera, CameraAbsent, CameraBroke, Frame

BUFFERS = 2
"""Frames that the driver may queue: one being filled and one to take, so that none is older than that."""
FIRST_FRAME_WAIT = "1"
"""Whole seconds for OpenCV's own wait inside `open`."""


class V4l2Camera(Camera):
    """The camera at a device path, for example /dev/video0."""

    def __init__(self, device: Path, width: int, height: int) -> None:
        """A closed camera; it is asked for frames of `width` x `height` pixels."""
        self._device = device
        self._size = (width, height)
        self._capture: cv2.VideoCapture | None = None
        self._frame: Frame = np.zeros((height, width, 3), np.uint8)
        self._last_frame_at = 0.0

    def open(self) -> None:
        """Open the device and see a first frame come, which takes what the camera takes."""
        if self._capture is not None:
            return
        if not self._device.exists():
            raise CameraAbsent(
                f"there is no camera at {self._device}: plug it in, or mend [camera] device in the settings"
            )
        if not os.access(self._device, os.R_OK | os.W_OK):
            raise CameraBroke(
                f"{self._device} may not be opened by this user: add the user of lens to the group `video`"
            )
        # Read by OpenCV when its first wait begins, and not again.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", FIRST_FRAME_WAIT)
        self._capture = cv2.VideoCapture(str(self._device), cv2.CAP_V4L2)
        try:
            self._begin(self._capture)
        except BaseException:
            self.close()
            raise

    def _begin(self, capture: cv2.VideoCapture) -> None:
        if not capture.isOpened():
            raise CameraBroke(f"{self._device} cannot be opened: is another program using it?")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, BUFFERS)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        if not capture.grab():
            raise CameraBroke(f"{self._device} gives no frames: unplug it and plug it in again")
        self._last_frame_at = time.monotonic()

    def read(self, wait: float) -> Frame | None:
        """See `Camera.read`."""
        capture = self._capture
        if capture is None:
            raise CameraBroke("the camera is not open")
        try:
            # A timeout of 0 ns would mean: wait for ever.
            ready, _ = cv2.VideoCapture.waitAny([capture], max(1, int(wait * 1e9)))
            got, image = capture.retrieve(self._frame) if ready else (False, None)
        except cv2.error as error:
            raise CameraBroke(f"{self._device} went away: is its cable loose?") from error
        now = time.monotonic()
        if not got or image is None or image.size == 0:
            if now - self._last_frame_at > STALL:
                raise CameraBroke(f"{self._device} stopped giving frames: unplug it and plug it in again")
            return None
        self._last_frame_at = now
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            # What OpenCV cannot convert, it gives as it came: for H.264, a row of bytes.
            raise CameraBroke(f"{self._device} gives frames of a form that is not read: use another camera")
        if image is not self._frame:
            # The camera chose another size than we asked for: its array becomes our buffer.
            self._frame.fill(0)
            self._frame = image
        return self._frame

    def close(self) -> None:
        """See `Camera.close`."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()
        self._frame.fill(0)
