"""The Raspberry Pi's own camera, through Picamera2.

Picamera2 comes from Debian's package, not from PyPI, and importing it starts libcamera: so it is imported
inside `open` and nowhere else. Each frame is asked for as a job, so that a wait has an end; a job that is
not done when `read` returns is picked up by the next `read`.

What we own is one frame buffer, and the array that Picamera2 copies for us, which is overwritten as soon
as it is copied. libcamera's DMA buffers are the kernel's: `close` gives them back, unwiped.
"""

import importlib
import time
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import numpy as np

from appliance.lens.camera.interface import STALL, Camera, CameraAbsent, CameraBroke, Frame

PACKAGE = "python3-picamera2"


class RaspberryPiCamera(Camera):
    """The first camera that libcamera finds."""

    def __init__(self, width: int, height: int) -> None:
        """A closed camera that gives frames of `width` x `height` pixels."""
        self._size = (width, height)
        self._device: Any = None
        self._job: Any = None
        self._frame: Frame = np.zeros((height, width, 3), np.uint8)
        self._last_frame_at = 0.0

    def open(self) -> None:
        """Start libcamera and the sensor; exposure settles while frames already come."""
        if self._device is not None:
            return
        try:
            library = importlib.import_module("picamera2")
        except ImportError as error:
            raise CameraAbsent(
                f'camera.source is "picamera2" but it is not installed: apt-get install {PACKAGE}, '
                "and make the virtual environment with --system-site-packages"
            ) from error
        if not library.Picamera2.global_camera_info():
            raise CameraAbsent("no Raspberry Pi camera was found: check its ribbon cable")
        try:
            self._device = library.Picamera2()
            # Picamera2 names a format by its bytes as a little-endian word: "RGB888" is B, G, R in memory.
            self._device.configure(
                self._device.create_video_configuration(
                    main={"size": self._size, "format": "RGB888"}, buffer_count=2
                )
            )
            self._device.start()
        except Exception as error:  # libcamera's bindings raise RuntimeError, and now and then others
            self.close()
            raise CameraBroke("the Raspberry Pi camera cannot be started: is it in use?") from error
        self._last_frame_at = time.monotonic()

    def read(self, wait: float) -> Frame | None:
        """See `Camera.read`."""
        if self._device is None:
            raise CameraBroke("the camera is not open")
        try:
            if self._job is None:
                self._job = self._device.capture_array("main", wait=False)
            image = self._job.get_result(timeout=wait)
        except (NotYet, TimeoutError):
            if time.monotonic() - self._last_frame_at > STALL:
                raise CameraBroke("the Raspberry Pi camera stopped giving frames") from None
            return None
        except Exception as error:  # as above
            raise CameraBroke("the Raspberry Pi camera failed") from error
        self._job = None
        self._last_frame_at = time.monotonic()
        if image.shape != self._frame.shape:
            image.fill(0)
            raise CameraBroke("the Raspberry Pi camera gives frames of another shape than it was asked for")
        np.copyto(self._frame, image)
        image.fill(0)
        return self._frame

    def close(self) -> None:
        """See `Camera.close`."""
        device, self._device, self._job = self._device, None, None
        self._frame.fill(0)
        if device is not None:
            device.close()  # stops the sensor as well, and lets go of libcamera's handles
