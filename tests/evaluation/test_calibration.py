import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from appliance.evaluation import calibration
from appliance.evaluation.calibration import Dataset, as_camera, compare, score_all
from appliance.vault.comparison import make_template, score

ROOT = Path(__file__).parents[2]


def units(count: int, dimension: int, seed: int) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.mark.parametrize("dimension", [128, 512])
@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_all_scores_at_once_are_those_of_the_vault(dimension: int, shift: float) -> None:
    vectors = units(200, dimension, 1)
    mean = np.float32(shift) * units(1, dimension, 2)[0]
    template = make_template(list(vectors[:5]))
    scores = score_all(template, vectors, mean)
    expected = [score(template, vector, mean) for vector in vectors]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_a_vector_without_direction_scores_as_in_the_vault() -> None:
    mean = units(1, 128, 3)[0]
    vectors = np.stack([mean, units(1, 128, 4)[0]])
    scores = score_all(vectors[1], vectors, mean)
    assert scores[0] == score(vectors[1], mean, mean) == -1


def test_genuine_scores_are_of_photographs_outside_the_template() -> None:
    person, other = units(2, 128, 5)
    data = Dataset("two", ["a", "b"], np.stack([person] * 7 + [other] * 3), np.repeat([0, 1], [7, 3]), 10, 0)
    scores = compare(data, np.zeros(128, np.float32))
    assert scores.templates == scores.template_people == 1
    np.testing.assert_allclose(scores.genuine, [1, 1], atol=1e-6)
    np.testing.assert_allclose(scores.impostor, [float(person @ other)] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "framed"),
    [
        ((250, 250), (334, 250)),
        ((640, 480), (640, 480)),
        ((1, 1), (2, 1)),
        ((1, 16_384), (6000, 4500)),
        ((16_384, 1), (6000, 4500)),
        ((4000, 6000), (6000, 4500)),
    ],
)
def test_a_photograph_of_any_proportions_becomes_a_frame_of_the_cameras(
    size: tuple[int, int], framed: tuple[int, int]
) -> None:
    frame = as_camera(np.full((size[1], size[0], 3), 255, np.uint8))
    assert (frame.shape[1], frame.shape[0]) == framed
    assert frame.max() == 255


def test_the_script_makes_the_environment_and_leaves_paths_as_the_caller_means_them(tmp_path: Path) -> None:
    tree = tmp_path / "a tree"
    (tree / "scripts").mkdir(parents=True)
    (tree / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/calibrate", tree / "scripts/calibrate")
    (tree / "scripts/environment").write_text('prepare() { echo "$1" >prepared; }\n')
    python = tree / ".venv/bin/python"
    python.write_text('#!/bin/sh\npwd\necho "$*"\n')
    python.chmod(0o755)
    said = subprocess.run(
        [tree / "scripts/calibrate", "edge", "lfw-dev", "--packs", "PACKS"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.splitlines() == [
        str(tmp_path),
        "-P -m appliance.evaluation.calibration edge lfw-dev --packs PACKS",
    ]
    assert (tree / "prepared").read_text() == "requirements.lock\n"


@pytest.mark.models
def test_a_measurement_of_two_people_prints_and_leaves_the_manifest(
    test_models: Path,
    portrait_paths: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for person in ("obama", "biden"):
        (tmp_path / "few" / person).mkdir(parents=True)
        for number in range(6):
            shutil.copy(portrait_paths[f"{person}.jpg"], tmp_path / "few" / person / f"{number}.jpg")
    manifest = ROOT / "models/edge.toml"
    before = manifest.read_bytes()
    arguments = ["edge", str(tmp_path / "few"), "--packs", str(test_models), "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["calibrate", *arguments])
    calibration.main()
    said = capsys.readouterr().out
    assert "12 photographs of 2 people; no face in 0" in said
    assert "2 templates of 2 people: 2 genuine and 12 impostor scores" in said
    assert manifest.read_bytes() == before
