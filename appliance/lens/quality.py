"""Whether a frame is good enough to be a probe, and if not, what the person could do about it.

These are gates on the picture: is there one face, near enough, sharp, lit, turned to the door. They say
nothing about who it is, and nothing about whether it is a living person: presentation-attack checks will
be a step of their own beside these, between detection and embedding.

Thresholds were measured with pack `edge`, every picture fitted into 640 x 480 as the replay camera does, on
the development half of Labeled Faces in the Wild (every seventh photograph) and on 64 colour portraits;
`drempel evaluate` counts the verdicts on any folder. Of the pictures that show one person, 858 of 863
of LFW (99.4 %) and 58 of 58 portraits pass all gates. (A second face was found on 126 of 989 and 6 of
64; every one that was looked at is a second person.)
"""

import enum
import math
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.lens.camera.interface import Frame
from appliance.link.messages import (
    Guidance,
)

CHIP_SIDE = 112
"""Pixels: chips are measured at this size, so that one threshold serves packs of any chip size."""
MIN_SHARPNESS = 0.015
"""Share of fine detail, see `measure_chip`. Of chips blurred by 1 to 4 px, those below it have a median
cosine with their own sharp original of 0.2 to 0.6, those above 0.02 one of 0.92 (pack `edge`): what is
below it is an answer by chance. Unblurred, the softest of 989 scaled-up photographs is at 0.022 (0.5th
percentile), and faces of only 61 px are at 0.033 (1st percentile)."""
GOOD_SHARPNESS = 0.1
"""The median of ordinary photographs; more adds nothing to a score."""
MIN_LIGHT = 40.0
"""Mean grey level of a face. Ordinary photographs lie between 76 and 198; the room below is for dark skin,
which a gate on light must not shut out."""
MAX_LIGHT = 225.0
"""Mean grey level: above it a face is mostly clipped to white."""
MAX_YAW = 0.45
"""Eye distances, see `yaw`. 99 % of ordinary photographs are below 0.42."""
MAX_ROLL = 30.0
"""Degrees. Alignment turns a face upright; more is no one who looks at a door (photographs: below 19)."""


class Face(Protocol):
    """A detected face, as `lens.detection` gives it."""

    @property
    def box(self) -> NDArray[np.float32]:
        """Left, top, right, bottom, in pixels of the frame."""
        ...

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """Five points of x, y: left and right eye, nose, left and right corner of the mouth, as seen."""
        ...


class Verdict(enum.Enum):
    """What stands between a frame and a probe; each value is what to tell the person."""

    GOOD = (0, Guidance.HOLD_STILL)
    NO_FACE = (1, Guidance.LOOK_HERE)
    SEVERAL_FACES = (2, Guidance.ONE_PERSON)
    TOO_FAR = (3, Guidance.COME_CLOSER)
    CUT_OFF = (4, Guidance.STEP_BACK)
    TURNED_AWAY = (5, Guidance.LOOK_HERE)
    TOO_DARK = (6, Guidance.TOO_DARK)
    TOO_BRIGHT = (7, Guidance.STEP_BACK)
    BLURRED = (8, Guidance.HOLD_STILL)

    @property
    def guidance(self) -> Guidance:
        """What to tell the person."""
        return self.value[1]


def judge_faces(faces: Sequence[Face], frame: Frame, face_min_px: int) -> Verdict:
    """Whether there is one face, whole, near enough, and turned this way."""
    if not faces:
        return Verdict.NO_FACE
    if sum(_width(face) >= face_min_px / 2 for face in faces) > 1:
        return Verdict.SEVERAL_FACES
    face = faces[0]
    if _width(face) < face_min_px:
        return Verdict.TOO_FAR
    height, width = frame.shape[:2]
    points = face.landmarks
    if points.min() < 0 or points[:, 0].max() > width - 1 or points[:, 1].max() > height - 1:
        return Verdict.CUT_OFF
    if abs(yaw(points)) > MAX_YAW or abs(roll(points)) > MAX_ROLL:
        return Verdict.TURNED_AWAY
    return Verdict.GOOD


def judge_chip(chip: Frame) -> tuple[Verdict, float]:
    """Whether an aligned face is lit and sharp, and its sharpness."""
    light, sharpness = measure_chip(chip)
    if light < MIN_LIGHT:
        return Verdict.TOO_DARK, sharpness
    if light > MAX_LIGHT:
        return Verdict.TOO_BRIGHT, sharpness
    if sharpness < MIN_SHARPNESS:
        return Verdict.BLURRED, sharpness
    return Verdict.GOOD, sharpness


def score(sharpness: float, turned: float) -> float:
    """How good a probe is, 0 to 1: full for a sharp face straight on.

    Args:
        sharpness: of the chip, see `measure_chip`.
        turned: of the face, see `yaw`.
    """
    return min(1.0, sharpness / GOOD_SHARPNESS) * max(0.0, 1.0 - abs(turned))


def yaw(landmarks: NDArray[np.float32]) -> float:
    """How far the nose is from the middle between the eyes, along their line, in eye distances: 0 is frontal.

    A rough measure of turning the head, positive towards the picture's right. Infinite when the
    eyes are less than a pixel apart.
    """
    left, right, nose = (complex(x, y) for x, y in landmarks[:3].tolist())
    line = right - left
    if not abs(line) >= 1:
        return math.inf
    return ((nose - (left + right) / 2) * line.conjugate()).real / abs(line) ** 2


def roll(landmarks: NDArray[np.float32]) -> float:
    """The slope of the line between the eyes, in degrees: 0 is upright."""
    across, down = np.asarray(landmarks[1], np.float64) - landmarks[0]
    return math.degrees(math.atan2(down, across))


def measure_chip(chip: Frame) -> tuple[float, float]:
    """The light and the sharpness of an aligned face, measured on its inner part.

    Light is the mean grey level, 0 to 255. Sharpness is the variance of the Laplacian over the variance of
    the grey levels: a share of fine detail that contrast alone does not move.
    """
    grey = cv2.cvtColor(chip, cv2.COLOR_BGR2GRAY)
    if grey.shape[0] != CHIP_SIDE:
        whole = grey
        grey = cv2.resize(whole, (CHIP_SIDE, CHIP_SIDE), interpolation=cv2.INTER_AREA)
        whole.fill(0)
    # The corners are hair, collar and wall.
    edge = CHIP_SIDE // 6
    inner = grey[edge:-edge, edge:-edge]
    light, spread = cv2.meanStdDev(inner)
    edges = cv2.Laplacian(inner, cv2.CV_32F)
    _, detail = cv2.meanStdDev(edges)
    grey.fill(0)
    edges.fill(0)
    variance = max(1.0, float(spread[0, 0]) ** 2)
    return float(light[0, 0]), float(detail[0, 0]) ** 2 / variance


def _width(face: Face) -> float:
    return float(face.box[2] - face.box[0])
