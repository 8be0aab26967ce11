import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from appliance.cli import app
from appliance.errors import ConfigurationError
from appliance.evaluation import calibration
from appliance.evaluation.calibration import (
    ManifestUnwritable,
    NothingDecided,
    calibrate,
    calibration_table,
    mean_of_half,
    write_manifest,
)
from appliance.evaluation.embeddings import Source
from appliance.packs.manifest import ManifestInvalid, load_manifest, read_manifest
from appliance.shipped import shipped
from tests.evaluation.people import made_up

FEW_RATES = (1e-1, 1e-2, 1e-4)


def test_thresholds_let_no_more_through_than_their_rate_and_three_frames_are_stricter() -> None:
    data, seen = made_up([8] * 60, noise=1.2)
    made = calibrate(data, seen, FEW_RATES, subtract_mean=False)
    scores = made.found.scores
    found = {(each.fmr, each.frames): each for each in made.thresholds}
    assert set(found) == {(1e-1, 1), (1e-2, 1), (1e-1, 3), (1e-2, 3)}
    assert set(made.left_out) == {(1e-4, 1), (1e-4, 3)}
    for (rate, frames), each in found.items():
        share = (scores.tail >= each.threshold).mean()
        assert share <= rate / frames
        assert each.impostors_above == (scores.tail >= each.threshold).sum()
        assert each.fnmr == (scores.genuine < each.threshold).mean()
        assert each.low <= each.fnmr <= each.high
        assert round(each.threshold, 4) == each.threshold
    assert found[1e-2, 3].threshold > found[1e-2, 1].threshold > found[1e-1, 1].threshold


def test_the_mean_is_of_half_of_the_people_each_alike() -> None:
    data, seen = made_up([2, 9] * 40, noise=0.3)
    mean = mean_of_half(data, seen)
    assert 25 <= mean.people <= 55
    chosen = [number for number, name in enumerate(data.people) if calibration.in_mean(name)]
    owner = np.array([each.person for each in data.photographs])
    expected = np.mean([seen.vectors[owner == number].mean(axis=0) for number in chosen], axis=0)
    np.testing.assert_allclose(mean.vector, expected, atol=1e-6)


def table_for(source: Source) -> str:
    data, seen = made_up([8] * 60, noise=1.2, dimension=512)
    made = calibrate(data, seen, (1e-1, 1e-2), subtract_mean=True)
    return calibration_table('drempel "calibrate"\n', "made up \\ people", data, seen, source, made)


def test_the_table_is_a_manifests_and_takes_the_place_of_the_former_one(tmp_path: Path) -> None:
    table = table_for(Source(tmp_path, "edge"))
    path = write_manifest("edge", table, tmp_path / "edge.toml")
    text = path.read_text(encoding="utf-8")
    manifest = read_manifest("edge", text)
    assert manifest.calibration is not None
    assert manifest.calibration.people == 60
    assert manifest.calibration.command == "drempel calibrate"
    assert {(each.fmr, each.frames) for each in manifest.calibration.thresholds} == {
        (0.1, 1),
        (0.01, 1),
        (0.1, 3),
        (0.01, 3),
    }
    assert text.count("[calibration]") == 1
    assert manifest.files == load_manifest("edge").files


def test_a_table_that_is_none_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid):
        write_manifest("edge", "[calibration]\npeople = 3\n", tmp_path / "edge.toml")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestUnwritable, match="--output"):
        write_manifest("edge", table_for(Source(tmp_path, "edge")), tmp_path / "missing" / "edge.toml")


@pytest.mark.models
def test_photographs_of_two_people_decide_nothing_and_no_manifest_is_written(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for person in ("obama", "biden"):
        (tmp_path / "few" / person).mkdir(parents=True)
        for number in range(8):
            shutil.copy(portrait_paths[f"{person}.jpg"], tmp_path / "few" / person / f"{number}.jpg")
    before = shipped("models/edge.toml").read_bytes()
    target = tmp_path / "edge.toml"
    arguments = ["models", "calibrate", "edge", str(tmp_path / "few"), "--packs", str(test_models), "--json"]
    arguments += ["--fmr", "0.7", "--output", str(target), "--keep-nothing", "--jobs", "1"]
    said = CliRunner().invoke(app, arguments)
    assert isinstance(said.exception, NothingDecided), said.output
    assert "16 of 16 photographs" in said.stderr
    assert not target.exists()
    assert shipped("models/edge.toml").read_bytes() == before


def test_a_rate_that_is_none_is_refused(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["models", "calibrate", "edge", str(tmp_path), "--fmr", "2"])
    assert isinstance(said.exception, ConfigurationError)
