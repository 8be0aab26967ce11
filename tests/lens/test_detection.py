from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from appliance.lens.detection import BadFrame, DetectedFace, FaceDetector
from appliance.lens.models import LoadedPack

Picture = npt.NDArray[np.uint8]


class TwoFaces:
    """What insightface answers, the smaller face first, as it is the surer one."""

    def prepare(self, _: int, **settings: Any) -> None:
        self.settings = settings

    def detect(self, _: Picture) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        self.boxes = np.array([[10, 10, 30, 40, 0.9], [50, 20, 150, 160, 0.6]], dtype=np.float32)
        self.landmarks = np.ones((2, 5, 2), dtype=np.float32)
        return self.boxes, self.landmarks


def simulated() -> FaceDetector:
    return FaceDetector(TwoFaces(), input_size=(192, 160), score=0.4, overlap=0.3)


def test_the_largest_face_comes_first() -> None:
    small, large = 20.0, 100.0
    faces = simulated().detect(np.zeros((480, 640, 3), dtype=np.uint8))
    assert [face.size for face in faces] == [large, small]


def test_what_insightface_found_is_overwritten_once_copied() -> None:
    scrfd = TwoFaces()
    detector = FaceDetector(scrfd, input_size=(192, 160), score=0.4, overlap=0.3)
    faces = detector.detect(np.zeros((480, 640, 3), dtype=np.uint8))
    assert all(face.box.any() and face.landmarks.any() for face in faces)
    assert not scrfd.boxes.any()
    assert not scrfd.landmarks.any()


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((480, 640), dtype=np.uint8),
        np.zeros((480, 640, 4), dtype=np.uint8),
        np.zeros((480, 640, 3), dtype=np.float32),
        np.zeros((480, 640, 3), dtype=np.int8),
        np.zeros((1, 480, 640, 3), dtype=np.uint8),
        np.zeros((0, 640, 3), dtype=np.uint8),
        np.zeros((480, 0, 3), dtype=np.uint8),
        np.lib.stride_tricks.as_strided(np.zeros((1, 1, 3), np.uint8), (16, 40_000, 3), (0, 0, 1)),
        None,
        b"frame",
    ],
)
def test_a_frame_of_another_type_or_shape_is_refused(frame: Any) -> None:
    with pytest.raises(BadFrame, match="a frame must"):
        simulated().detect(frame)


@pytest.mark.models
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 640), (480, 1), (15, 15), (16, 16), (16, 32_766), (32_766, 16)]
)
@pytest.mark.parametrize("level", [0, 255, None])
def test_a_frame_too_small_or_too_long_for_a_face_shows_none(
    edge: LoadedPack, shape: tuple[int, int], level: int | None
) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    if level is not None:
        frame.fill(level)
    assert edge.detector.detect(frame) == []


@pytest.mark.models
def test_one_face_is_found_in_each_portrait(edge: LoadedPack, portrait_frames: dict[str, Picture]) -> None:
    for frame in portrait_frames.values():
        (face,) = edge.detector.detect(frame)
        assert face.box.shape == (4,)
        assert face.landmarks.shape == (5, 2)
        assert face.box.dtype == face.landmarks.dtype == np.float32
        assert 0.5 < face.score <= 1
        x1, y1, x2, y2 = face.box
        assert ((face.landmarks > (x1, y1)) & (face.landmarks < (x2, y2))).all()
        _looks_like_a_face(face)


def _looks_like_a_face(face: DetectedFace) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.models
def test_a_face_keeps_its_place_when_the_frame_around_it_grows(
    edge: LoadedPack, portrait_frames: dict[str, Picture]
) -> None:
    portrait = cv2.resize(portrait_frames["obama.jpg"], (240, 300), interpolation=cv2.INTER_AREA)
    frame = np.full((480, 640, 3), 110, dtype=np.uint8)
    frame[100:400, 300:540] = portrait
    (alone,) = edge.detector.detect(np.asarray(portrait, dtype=np.uint8))
    (placed,) = edge.detector.detect(frame)
    assert np.abs(placed.landmarks - [300, 100] - alone.landmarks).max() < 0.1 * alone.size


@pytest.mark.models
def test_two_people_are_two_faces_and_nobody_is_none(
    edge: LoadedPack, portrait_frames: dict[str, Picture]
) -> None:
    frame = np.full((480, 640, 3), 110, dtype=np.uint8)
    assert edge.detector.detect(frame) == []
    frame[50:350, 20:260] = cv2.resize(portrait_frames["obama.jpg"], (240, 300), interpolation=cv2.INTER_AREA)
    frame[50:350, 400:600] = cv2.resize(
        portrait_frames["biden.jpg"][:1455], (200, 300), interpolation=cv2.INTER_AREA
    )
    assert len(edge.detector.detect(frame)) == len({"obama", "biden"})


@pytest.mark.models
def test_noise_is_nobody(edge: LoadedPack) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        assert edge.detector.detect(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)) == []
