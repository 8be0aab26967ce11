import subprocess
import sys
import tomllib
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from appliance.packs.manifest import (
    Manifest,
    ManifestInvalid,
    PackNotAcknowledged,
    UnknownPack,
    UnknownThreshold,
    available,
    check_acknowledged,
    load_manifest,
)
from appliance.shipped import shipped


@pytest.fixture
def document() -> dict[str, Any]:
    return tomllib.loads(shipped("models/edge.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["edge", "dlib"])
def test_a_shipped_manifest_has_thresholds_for_one_and_three_frames(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.mean.shape == (manifest.embedder.dimension,)
    assert manifest.mean.dtype == np.float32
    for fmr in (1e-3, 1e-4):
        assert -1 < manifest.threshold(fmr, 1) < manifest.threshold(fmr, 3) < 1
    assert manifest.threshold(1e-3, 1) < manifest.threshold(1e-4, 1) < manifest.threshold(1e-5, 1)


@pytest.mark.parametrize("name", ["edge", "dlib"])
def test_a_threshold_that_too_few_scores_would_decide_is_not_shipped(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.calibration is not None
    assert all(each.impostors_above >= 10 for each in manifest.calibration.thresholds)
    with pytest.raises(UnknownThreshold, match="probes = 1"):
        manifest.threshold(1e-5, 3)


def test_the_mean_cannot_be_changed_by_a_reader() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_manifest("edge").mean[0] = 1


def test_an_unknown_rate_is_refused_with_the_rates_there_are() -> None:
    with pytest.raises(UnknownThreshold, match=r"0\.001, 0\.0001"):
        load_manifest("edge").threshold(5e-4, 1)
    with pytest.raises(UnknownThreshold, match="frames"):
        load_manifest("edge").threshold(1e-4, 2)


@pytest.mark.parametrize("name", ["nothing", "../pyproject", "Edge", "", "edge.toml", "edge\n"])
def test_an_unknown_pack_is_refused_with_the_packs_there_are(name: str) -> None:
    with pytest.raises(UnknownPack, match="dlib, edge"):
        load_manifest(name)


def test_every_shipped_manifest_is_listed_and_loads() -> None:
    assert {"dlib", "edge"} <= set(available())
    assert [load_manifest(name).name for name in available()] == available()


def test_a_pack_without_training_data_cannot_skip_the_acknowledgement(document: dict[str, Any]) -> None:
    document["needs_acknowledgement"] = False
    with pytest.raises(ValidationError, match="needs_acknowledgement must be true"):
        Manifest.model_validate(document)


def test_a_licence_that_excludes_the_use_cannot_skip_the_acknowledgement() -> None:
    document = tomllib.loads(shipped("models/dlib.toml").read_text(encoding="utf-8"))
    Manifest.model_validate(document)
    document["files"][0]["excludes_use"] = True
    with pytest.raises(ValidationError, match="needs_acknowledgement must be true"):
        Manifest.model_validate(document)


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"detector": {"surprise": 1}},
        {"embedder": {"file": "../embedder.onnx"}},
        {"embedder": {"file": "/embedder.onnx"}},
        {"embedder": {"source": "nothing"}},
        {"detector": {"input_size": [190, 160]}},
        {"calibration": {"mean": [0.0]}},
        {"calibration": {"mean": [float("nan")] * 512}},
    ],
)
def test_a_manifest_that_says_too_much_or_wrong_is_refused(
    document: dict[str, Any], change: dict[str, Any]
) -> None:
    for key, value in change.items():
        document[key] = document[key] | value if isinstance(value, dict) else value
    with pytest.raises(ValidationError):
        Manifest.model_validate(document)


def test_a_manifest_without_calibration_says_what_to_run(document: dict[str, Any]) -> None:
    del document["calibration"]
    with pytest.raises(ManifestInvalid, match="models calibrate edge"):
        Manifest.model_validate(document).threshold(1e-4, 1)


@pytest.mark.parametrize("acknowledged", [[], ["dlib"], ["Edge"], ["edge "], ["*"], ["edg", "e"]])
def test_a_pack_loads_only_when_acknowledged_by_exactly_its_name(acknowledged: list[str]) -> None:
    with pytest.raises(PackNotAcknowledged) as refused:
        check_acknowledged(load_manifest("edge"), acknowledged)
    assert '[recognition] acknowledge = ["edge"]' in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_acknowledged_pack_and_one_that_needs_none_pass() -> None:
    check_acknowledged(load_manifest("edge"), {"edge"})
    check_acknowledged(load_manifest("dlib"), ())


def test_vault_can_read_a_manifest_without_images_networks_or_models() -> None:
    code = (
        "import sys; from appliance.packs.manifest import load_manifest; load_manifest('edge').mean;"
        "print(sorted({'cv2','onnx','onnxruntime','insightface','PIL','skimage','requests','httpx','urllib3',"
        "'http.client','ssl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
