"""Step 3: turn, scale and cut out a face so that its five landmarks lie where the embedder expects them."""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from appliance.errors import DrempelError

# Left eye, right eye, nose, left and right corner of the mouth, as seen in the picture.
# Source: insightface, `utils/face_align.py`, for a chip of 112 px.
_ARCFACE_112 = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_ARCFACE_PX = 112

# Where CenterFace's landmarks lie in dlib's own chip (`get_face_chip_details`, 150 px, padding 0.25, from
# its five-point predictor): the mean over 1,037 photographs of Labeled Faces in the Wild in which dlib and
# CenterFace find the same one face. They scatter by 2.4-4.2 px, the nose by 6.5 px across (turned heads).
_DLIB_150 = (
    (46.002, 47.357),
    (103.176, 46.257),
    (74.006, 78.668),
    (50.192, 104.987),
    (97.774, 103.934),
)
_DLIB_PX = 150
_LEAST = float(np.finfo(np.float32).eps)
"""Of a spread (square pixels) or a scale: what is less is none."""


class BadLandmarks(DrempelError, ValueError):
    """Five points from which no turn and scale follow: not finite, or all in one place."""


@dataclass(frozen=True, slots=True)
class ChipLayout:
    """Where the five landmarks lie in an aligned picture.

    Attributes:
        side: of the square chip, pixels.
        points: (5, 2) x and y, pixels, in the order of `DetectedFace.landmarks`.
    """

    side: int
    points: tuple[tuple[float, float], ...]


ARCFACE_CHIP = ChipLayout(_ARCFACE_PX, _ARCFACE_112)
DLIB_CHIP = ChipLayout(_DLIB_PX, _DLIB_150)
_LAYOUTS = {"arcface": ARCFACE_CHIP, "dlib": DLIB_CHIP}


def chip_layout(alignment: Literal["arcface", "dlib"], side: int) -> ChipLayout:
    """The layout of a manifest's `alignment`, scaled to its chip.

    Args:
        alignment: `arcface` or `dlib`.
        side: of the chip, pixels.
    """
    layout = _LAYOUTS[alignment]
    scale = side / layout.side
    return ChipLayout(side, tuple((x * scale, y * scale) for x, y in layout.points))


def similarity(landmarks: npt.NDArray[np.floating[Any]], layout: ChipLayout) -> npt.NDArray[np.float64]:
    """The turn, scale and shift that bring five points nearest to a layout (least squares).

    Umeyama's estimate (1991), in the closed form that it has in the plane: with both sets centred and
    read as complex numbers p and q, scale and angle are those of sum(conj(p) q) / sum(|p|^2). A mirrored
    face is never mirrored back.

    Args:
        landmarks: (5, 2) x and y in the frame, pixels.
        layout: where they are to lie.

    Returns:
        (2, 3) float64, to be multiplied with (x, y, 1).

    Raises:
        BadLandmarks: the points are not five finite, different ones.
    """
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise BadLandmarks("five finite landmarks are needed, as (5, 2): take the next frame")
    # In plain numbers: for five points a library's calls cost more than the arithmetic.
    points = [complex(x, y) for x, y in landmarks.tolist()]
    target = [complex(x, y) for x, y in layout.points]
    centre, target_centre = sum(points) / 5, sum(target) / 5
    source = [point - centre for point in points]
    spread = sum(abs(point) ** 2 for point in source)
    if spread < _LEAST:
        raise BadLandmarks("the landmarks all lie in one place: take the next frame")
    wanted = (point - target_centre for point in target)
    turn = sum(point.conjugate() * aim for point, aim in zip(source, wanted, strict=True)) / spread
    if abs(turn) < _LEAST:
        raise BadLandmarks("no turn and scale follow from these landmarks: take the next frame")
    shift = target_centre - turn * centre
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(
    frame: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.floating[Any]], layout: ChipLayout
) -> npt.NDArray[np.uint8]:
    """Cut the aligned chip out of a frame.

    Args:
        frame: (height, width, 3) uint8, BGR.
        landmarks: (5, 2) x and y, pixels, as of `DetectedFace`.
        layout: of the embedder.

    Returns:
        (side, side, 3) uint8, BGR; black where the chip reaches beyond the frame.

    Raises:
        BadLandmarks: the points are not five finite, different ones.
    """
    matrix = similarity(landmarks, layout)
    chip: npt.NDArray[np.uint8] = cv2.warpAffine(
        frame, matrix, (layout.side, layout.side), flags=cv2.INTER_LINEAR, borderValue=0.0
    )
    return chip
