from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from insightface.utils import face_align

from appliance.errors import DrempelError
from appliance.lens.alignment import (
    ARCFACE_CHIP,
    DLIB_CHIP,
    BadLandmarks,
    ChipLayout,
    align,
    chip_layout,
    similarity,
)

Points = npt.NDArray[np.float64]


def moved(points: Points, *, degrees: float, scale: float, shift: tuple[float, float]) -> Points:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    result: Points = points @ turn.T * scale + np.array(shift)
    return result


def applied(matrix: Points, points: Points) -> Points:
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize("layout", [ARCFACE_CHIP, DLIB_CHIP])
@pytest.mark.parametrize("degrees", [-170, -30, 0, 12.5, 90])
@pytest.mark.parametrize("scale", [0.2, 1.0, 7.5])
def test_a_turned_scaled_and_shifted_face_comes_back_exactly(
    layout: ChipLayout, degrees: float, scale: float
) -> None:
    target = np.array(layout.points)
    seen = moved(target, degrees=degrees, scale=scale, shift=(311.0, -42.5))
    np.testing.assert_allclose(applied(similarity(seen, layout), seen), target, atol=1e-9)


def test_it_is_the_least_squares_estimate_that_scikit_image_finds() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        landmarks = np.array(ARCFACE_CHIP.points) * rng.uniform(0.5, 4) + rng.normal(0, 6, (5, 2))
        expected = _estimated(landmarks)
        # Their template is float32: a few millionths of a pixel.
        np.testing.assert_allclose(similarity(landmarks, ARCFACE_CHIP), expected, atol=1e-4)


def _estimated(landmarks: Points) -> Points:
    """The estimate that insightface's own `face_align` makes, by scikit-image, without its old call."""
    transform: Any = face_align.trans.SimilarityTransform.from_estimate(landmarks, face_align.arcface_dst)
    matrix: Points = transform.params[:2]
    return matrix


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    mirrored = np.array(ARCFACE_CHIP.points) * [-1, 1] + [112, 0]
    matrix = similarity(mirrored, ARCFACE_CHIP)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_the_chip_shows_the_landmarks_where_the_layout_says() -> None:
    layout = ARCFACE_CHIP
    landmarks = moved(np.array(layout.points), degrees=20, scale=2.5, shift=(200, 80))
    frame = np.zeros((480, 640, 3), dtype=np.uint8)
    for channel, (x, y) in zip([0, 1, 2, 0, 1], landmarks, strict=True):
        frame[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5, channel] = 255
    chip = align(frame, landmarks, layout)
    assert chip.shape == (112, 112, 3)
    assert chip.dtype == np.uint8
    for channel, (x, y) in zip([0, 1, 2, 0, 1], layout.points, strict=True):
        assert chip[round(y), round(x), channel] > 200
        assert chip[round(y), round(x), (channel + 1) % 3] < 50


def test_what_lies_beyond_the_frame_is_black() -> None:
    frame = np.full((100, 100, 3), 200, dtype=np.uint8)
    landmarks = np.array(ARCFACE_CHIP.points) - [56, 0]
    chip = align(frame, landmarks, ARCFACE_CHIP)
    assert not chip[:, :50].any()
    assert (chip[10:90, 70:100] == 200).all()


def test_a_layout_scales_with_its_chip() -> None:
    doubled = chip_layout("arcface", 224)
    np.testing.assert_allclose(doubled.points, np.array(ARCFACE_CHIP.points) * 2)
    assert chip_layout("arcface", 112) == ARCFACE_CHIP
    assert chip_layout("dlib", 150) == DLIB_CHIP


@pytest.mark.parametrize("layout", [ARCFACE_CHIP, DLIB_CHIP])
def test_a_layout_has_the_order_of_a_face(layout: ChipLayout) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = layout.points
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert all(0 < value < layout.side for point in layout.points for value in point)


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 40.0),
        np.full((5, 2), np.nan),
        np.array([[0, 0], [1, 1], [np.inf, 0], [1, 0], [0, 1]]),
        np.zeros((4, 2)),
        np.zeros((5, 3)),
        np.zeros(10),
    ],
)
def test_points_without_turn_and_scale_are_refused(landmarks: Points) -> None:
    with pytest.raises(BadLandmarks, match="next frame") as refused:
        similarity(landmarks, ARCFACE_CHIP)
    assert isinstance(refused.value, DrempelError)
    assert isinstance(refused.value, ValueError)
