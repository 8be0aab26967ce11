"""Step 2: where the faces are, through insightface's SCRFD.

An input of 192 pixels across with a least score of 0.4 is the smallest that loses nothing. Failure to
acquire the subject, on 700 photographs of Labeled Faces in the Wild laid into frames of 640x480 so that
the median face is 99 or 69 pixels wide, on the 700 photographs as they are, and on 64 colour portraits
(any face); at a least score of 0.5, in brackets at 0.35:

| input   | 99 px       | 69 px         | as they are | portraits | error of landmarks, 99 px / 69 px |
| 128x96  | 0.14 % (0)  | 37.7 % (14.6) | 0.14 % (0)  | 0         | 0.105 / 0.403 |
| 160x128 | 0           | 6.4 % (0.3)   | 0           | 0         | 0.075 / 0.153 |
| 192x160 | 0           | 0.14 % (0)    | 0           | 0         | 0.065 / 0.092 |
| 256x192 | 0           | 0             | 0           | 0         | 0.064 / 0.068 |
| 320x256 | 0           | 0             | 0           | 0         | 0.056 / 0.061 |

The error is the mean distance from what the same detector finds at 640x480, in distances between the
eyes. At 0.4 and 192x160 none of them is missed, and FNMR at a fixed FMR is that of 320x256 within the
few photographs by which such figures move.

`edge` takes 192x144, which is 192x160 without the 16 rows that a frame of 4:3 leaves empty: it is shrunk as
much, and differs by the border. The same 700 photographs, 99 px in three places of the frame (centre, bottom,
anywhere) and 69 px in five (anywhere three times), so 2,100 and 3,500 frames:

| input   | missed at 0.5, 0.4, 0.35: 99 px | 69 px   | error of landmarks, in the centre, 99 px / 69 px |
| 192x160 | 0, 0, 0                         | 9, 1, 0 | 0.072 / 0.103 |
| 192x144 | 0, 0, 0                         | 8, 2, 1 | 0.071 / 0.110 |
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.errors import DrempelError

_LEAST_SIDE_PX = 16
"""Of a frame in which a face is looked for."""
MOST_SIDE_PX = 32_766
"""Of a frame: OpenCV's warp counts a picture's sides in 16 bits."""


class BadFrame(DrempelError, ValueError):
    """A frame is not (height, width, 3) uint8, is empty, or is longer than `MOST_SIDE_PX`."""


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face in a frame.

    Attributes:
        box: (4,) float32 x1, y1, x2, y2, pixels; may reach a little beyond the frame.
        score: of the detector, 0-1.
        landmarks: (5, 2) float32 x and y, pixels: left eye, right eye, nose, left and right corner of
            the mouth, as seen in the picture.
    """

    box: npt.NDArray[np.float32]
    score: float
    landmarks: npt.NDArray[np.float32]

    @property
    def size(self) -> float:
        """The shorter side of the box, pixels."""
        return float(min(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class FaceDetector:
    """Finds faces. Not for use from two threads at once.

    Args:
        scrfd: an insightface detector with five landmarks.
        input_size: width and height of the network's input, pixels; a frame is shrunk into it.
        score: least score of a face, 0-1.
        overlap: boxes that overlap by more (intersection over union) are one face.
    """

    def __init__(self, scrfd: Any, *, input_size: tuple[int, int], score: float, overlap: float) -> None:
        self._scrfd = scrfd
        self._scrfd.prepare(0, input_size=input_size, det_thresh=score, nms_thresh=overlap)
        self.input_size = input_size

    def detect(self, frame: npt.NDArray[np.uint8]) -> list[DetectedFace]:
        """Find all faces in a frame.

        Args:
            frame: (height, width, 3) uint8, BGR.

        Returns:
            The faces, largest first; none where a side has less than 16 pixels, or the frame is so long that
            less than one would be left of the other side.

        Raises:
            BadFrame: the frame has another type or shape.
        """
        check_frame(frame)
        if min(frame.shape[:2]) < _LEAST_SIDE_PX or not self._leaves_both_sides(frame):
            return []
        boxes, landmarks = self._scrfd.detect(frame)
        faces = [
            DetectedFace(np.array(box[:4], np.float32), float(box[4]), np.array(five, np.float32))
            for box, five in zip(boxes, landmarks, strict=True)
        ]
        boxes.fill(0)
        landmarks.fill(0)
        return sorted(faces, key=lambda face: face.size, reverse=True)

    def _leaves_both_sides(self, frame: npt.NDArray[np.uint8]) -> bool:
        """Whether insightface, which shrinks the frame into the input and rounds down, has a pixel left."""
        across, down = self.input_size
        height, width = frame.shape[:2]
        return bool(across * height >= width and down * width >= height)


def check_frame(frame: object) -> None:
    """Nothing, if the frame can go through all steps.

    Raises:
        BadFrame: it has another type or shape.
    """
    if not isinstance(frame, np.ndarray):
        raise BadFrame(f"a frame must be an array, (height, width, 3) uint8; this is {type(frame).__name__}")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}"
        raise BadFrame(f"a frame must be uint8 of shape (height, width, 3), BGR; this is {found}")
    if not 1 <= min(frame.shape[:2]) <= max(frame.shape[:2]) <= MOST_SIDE_PX:
        raise BadFrame(f"a frame must have 1 to {MOST_SIDE_PX} pixels each way; this is {frame.shape[:2]}")
