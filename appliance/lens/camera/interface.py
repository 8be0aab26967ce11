"""What every camera here can do, and how it can fail. No device is named in this file."""

from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from appliance.errors import DrempelError

Frame = NDArray[np.uint8]
"""Height x width x 3, BGR, contiguous."""

STALL = 3.0
"""Seconds without any frame after which an open camera counts as broken."""


class CameraAbsent(DrempelError, OSError):
    """There is no camera to open, or nothing to replay."""


class CameraBroke(DrempelError, OSError):
    """The camera is there, but cannot be opened or stopped giving frames."""


class Camera(Protocol):
    """A camera that is closed until `open`, and after `close` has no handle left in this process."""

    def open(self) -> None:
        """Open the device; it gives frames from here on. Opening an open camera does nothing.

        Raises:
            CameraAbsent: there is none.
            CameraBroke: it is there, but cannot be opened.
        """
        ...

    def read(self, wait: float) -> Frame | None:
        """The newest frame that was not given before, or None when none came within `wait` seconds.

        The array is a buffer of this camera: it holds the frame until the next `read` or `close`. Whoever
        reads it overwrites it after use.

        Raises:
            CameraBroke: the device failed, gave nothing for `STALL` seconds, or is not open.
        """
        ...

    def close(self) -> None:
        """Close the device and overwrite the buffers that are ours; a second time does nothing."""
        ...

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
