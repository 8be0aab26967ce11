import math
from typing import Any

import cv2
import numpy as np
import pytest

from appliance.lens.alignment import align
from appliance.lens.camera.replay import fit
from appliance.lens.models import LoadedPack
from appliance.lens.quality import (
    MAX_ROLL,
    MAX_YAW,
    MIN_SHARPNESS,
    Verdict,
    judge_chip,
    judge_faces,
    measure_chip,
    roll,
    score,
    yaw,
)
from appliance.link.messages import (
    Guidance,
)
from tests.lens.scripted import FRONTAL, ScriptedFace, textured

FRAME = textured()


def judged(*faces: ScriptedFace) -> Verdict:
    return judge_faces(faces, FRAME, face_min_px=60)


def test_one_face_near_enough_and_straight_on_passes() -> None:
    assert judged(ScriptedFace.of_width(120)) is Verdict.GOOD
    assert judged(ScriptedFace.of_width(60)) is Verdict.GOOD


def test_nobody_is_asked_to_look_here() -> None:
    assert judged() is Verdict.NO_FACE
    assert Verdict.NO_FACE.guidance is Guidance.LOOK_HERE


def test_two_people_are_asked_to_be_one() -> None:
    assert judged(ScriptedFace.of_width(120), ScriptedFace.of_width(30, left=400)) is Verdict.SEVERAL_FACES
    assert Verdict.SEVERAL_FACES.guidance is Guidance.ONE_PERSON


def test_somebody_far_behind_does_not_count() -> None:
    assert judged(ScriptedFace.of_width(120), ScriptedFace.of_width(29, left=400)) is Verdict.GOOD


def test_a_small_face_is_asked_to_come_closer() -> None:
    assert judged(ScriptedFace.of_width(59)) is Verdict.TOO_FAR
    assert Verdict.TOO_FAR.guidance is Guidance.COME_CLOSER


@pytest.mark.parametrize(("left", "top"), [(-60.0, 100.0), (580.0, 100.0), (100.0, -70.0), (100.0, 420.0)])
def test_a_face_at_the_edge_is_asked_to_step_back(left: float, top: float) -> None:
    assert judged(ScriptedFace.of_width(120, left, top)) is Verdict.CUT_OFF
    assert Verdict.CUT_OFF.guidance is Guidance.STEP_BACK


def test_yaw_grows_with_the_nose_and_does_not_depend_on_size_or_roll() -> None:
    turned = FRONTAL.copy()
    turned[2, 0] += 0.25 * 32
    assert yaw(FRONTAL) == pytest.approx(0, abs=0.01)
    assert yaw(turned) == pytest.approx(0.25, abs=0.01)
    assert yaw(turned * 3) == pytest.approx(0.25, abs=0.01)
    angle = math.radians(20)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], np.float32)
    assert yaw(turned @ rotation) == pytest.approx(0.25, abs=0.01)
    assert roll(turned @ rotation) == pytest.approx(20, abs=0.1)


def test_a_face_that_looks_away_or_lies_down_is_asked_to_look_here() -> None:
    away = ScriptedFace.of_width(112)
    away.landmarks[2, 0] += (MAX_YAW + 0.1) * 32
    assert judged(away) is Verdict.TURNED_AWAY
    tilted = ScriptedFace.of_width(112)
    tilted.landmarks[1, 1] += math.tan(math.radians(MAX_ROLL + 2)) * 32
    assert judged(tilted) is Verdict.TURNED_AWAY
    nowhere = ScriptedFace.of_width(112)
    nowhere.landmarks[:] = 200
    assert judged(nowhere) is Verdict.TURNED_AWAY
    assert Verdict.TURNED_AWAY.guidance is Guidance.LOOK_HERE


@pytest.mark.parametrize(
    ("light", "verdict"), [(20, Verdict.TOO_DARK), (128, Verdict.GOOD), (245, Verdict.TOO_BRIGHT)]
)
@pytest.mark.parametrize("side", [112, 150])
def test_light_is_judged_on_the_face(light: int, verdict: Verdict, side: int) -> None:
    chip = textured(side, side, light=light)
    assert judge_chip(chip)[0] is verdict


def test_contrast_alone_does_not_move_sharpness() -> None:
    chip = textured(112, 112)
    flat = (64 + chip // 2).astype(np.uint8)
    assert measure_chip(flat)[1] == pytest.approx(measure_chip(chip)[1], rel=0.1)


def test_an_even_surface_is_no_sharp_face() -> None:
    assert judge_chip(np.full((112, 112, 3), 128, np.uint8))[0] is Verdict.BLURRED


@pytest.mark.parametrize("side", [112, 150])
def test_every_copy_of_a_face_is_overwritten(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = []

    def watch(name: str) -> None:
        real = getattr(cv2, name)

        def keep(*arguments: Any, **settings: Any) -> Any:
            made.append(real(*arguments, **settings))
            return made[-1]

        monkeypatch.setattr(cv2, name, keep)

    for name in ("cvtColor", "resize", "Laplacian"):
        watch(name)
    assert measure_chip(textured(side, side))[1] > 0
    assert len(made) == (2 if side == 112 else 3)
    assert not any(picture.any() for picture in made)


def test_a_score_prefers_the_sharper_and_the_straighter() -> None:
    assert score(0.05, 0.0) > score(0.03, 0.0)
    assert score(0.05, 0.0) > score(0.05, -0.3)
    assert 0 <= score(MIN_SHARPNESS, 5.0) <= score(9.0, 0.0) <= 1


@pytest.mark.models
def test_the_official_portraits_pass_and_do_not_when_they_are_blurred_dark_or_far(
    edge: LoadedPack, portrait_frames: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]
) -> None:
    for picture in portrait_frames.values():
        frame = fit(picture, 640, 480)
        faces = edge.detector.detect(frame)
        assert judge_faces(faces, frame, 60) is Verdict.GOOD
        chip = align(frame, faces[0].landmarks, edge.embedder.layout)
        assert judge_chip(chip)[0] is Verdict.GOOD
        assert judge_chip(cv2.GaussianBlur(chip, (0, 0), 4))[0] is Verdict.BLURRED
        assert judge_chip(chip // 6)[0] is Verdict.TOO_DARK
        far = fit(picture, 640, 480, 0.2)
        assert judge_faces(edge.detector.detect(far), far, 60) in {Verdict.TOO_FAR, Verdict.NO_FACE}
