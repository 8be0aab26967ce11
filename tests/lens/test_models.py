import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from insightface.app import FaceAnalysis
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from appliance.lens import models
from appliance.lens.alignment import align
from appliance.lens.camera.replay import fit
from appliance.lens.models import BadDetectorSize, LoadedPack, PackNotInstalled, load_pack
from appliance.packs.manifest import PackNotAcknowledged, UnknownPack
from appliance.packs.verify import PackDamaged, read_verified, verify_pack

# Of the distance between the eyes: an input of 192 pixels places a landmark no better (`lens/detection.py`).
_SHARE_OF_EYES = 0.1
WITHOUT = """
import sys
import appliance.lens.models
assert not {"scipy", "matplotlib", "albumentations", "insightface.app"} & set(sys.modules)
import insightface
assert not hasattr(insightface, "app")
from insightface.app import FaceAnalysis
assert FaceAnalysis.get.__module__ == "insightface.app.face_analysis"
"""


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All that onnxruntime is given to open, and how."""
    opened: list[Any] = []
    real = onnxruntime.InferenceSession

    def listen(model: Any, options: Any = None, **rest: Any) -> Any:
        opened.append((model, options))
        return real(model, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", listen)
    return opened


def test_lens_carries_two_classes_of_insightface_and_not_its_applications() -> None:
    """In a process of its own; afterwards the applications are there for whoever wants them."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_pack_that_is_not_installed_says_how(tmp_path: Path) -> None:
    with pytest.raises(PackNotInstalled, match=f"drempel models install edge --packs {tmp_path}$"):
        load_pack(tmp_path, "edge", acknowledged=["edge"], detector_size=None)
    with pytest.raises(UnknownPack):
        load_pack(tmp_path, "../edge", acknowledged=["edge"], detector_size=None)


def test_a_pack_that_is_not_acknowledged_is_not_even_looked_for(tmp_path: Path) -> None:
    with pytest.raises(PackNotAcknowledged, match=r'\[recognition\] acknowledge = \["edge"\]'):
        load_pack(tmp_path, "edge", acknowledged=["dlib"], detector_size=None)


@pytest.mark.models
def test_the_pack_loads_on_one_thread_and_in_order(test_models: Path, sessions: list[Any]) -> None:
    pack = load_pack(test_models, "edge", acknowledged=["edge"], detector_size=None)
    pack.warm()
    assert len(sessions) == len({"detector", "embedder"})
    for model, options in sessions:
        assert isinstance(model, bytes)  # never a path: what was verified is what runs
        assert options.intra_op_num_threads == 1
        assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert pack.detector.input_size == pack.manifest.detector.input_size
    assert pack.liveness == (test_models / "edge" / "liveness" / "liveness.onnx").read_bytes()


@pytest.mark.models
def test_a_damaged_pack_is_refused_before_onnxruntime_sees_a_byte(
    test_models: Path, tmp_path: Path, sessions: list[Any]
) -> None:
    folder = tmp_path / "edge"
    shutil.copytree(test_models / "edge", folder)
    for name in [*verify_pack(folder), "SHA256SUMS"]:
        whole = (folder / name).read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 3] ^= 0x10
        (folder / name).write_bytes(damaged)
        with pytest.raises(PackDamaged, match=f"edge/{name}"):
            load_pack(tmp_path, "edge", acknowledged=["edge"], detector_size=None)
        (folder / name).write_bytes(whole)
    assert sessions == []
    load_pack(tmp_path, "edge", acknowledged=["edge"], detector_size=None)
    assert len(sessions) == len({"detector", "embedder"})


@pytest.mark.models
def test_files_exchanged_after_the_check_change_nothing(
    test_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: just after the pack was verified, and before anything is opened."""
    folder = tmp_path / "edge"
    shutil.copytree(test_models / "edge", folder)
    verified = read_verified

    def verify_then_exchange(*arguments: Any) -> Any:
        result = verified(*arguments)
        for path in folder.rglob("*.onnx"):
            path.write_bytes(b"exchanged")
        return result

    monkeypatch.setattr(models, "read_verified", verify_then_exchange)
    load_pack(tmp_path, "edge", acknowledged=["edge"], detector_size=None).warm()
    assert (folder / "detector.onnx").read_bytes() == b"exchanged"


@pytest.mark.models
def test_loading_and_running_needs_no_network_and_leaves_no_telemetry(
    test_models: Path, tmp_path: Path
) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from pathlib import Path; from appliance.lens.models import load_pack\n"
        "load_pack(Path(sys.argv[1]), 'edge', acknowledged=['edge'], detector_size=None).warm()\n"
    )
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code, str(test_models)], env=environment, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))
    assert not (tmp_path / ".insightface").exists()


@pytest.mark.models
@pytest.mark.parametrize("size", [(128, 96), (192, 144), (192, 160), (208, 176), (320, 256)])
def test_the_detector_takes_another_size(
    test_models: Path, portrait_frames: dict[str, Any], size: tuple[int, int]
) -> None:
    pack = load_pack(test_models, "edge", acknowledged=["edge"], detector_size=size)
    assert pack.detector.input_size == size
    assert len(pack.detector.detect(portrait_frames["obama.jpg"])) == 1


@pytest.mark.models
def test_sixteen_rows_less_find_the_same_face(test_models: Path, portrait_frames: dict[str, Any]) -> None:
    """In a frame of 4:3 the last rows of 192x160 are empty, and 192x144 is the same picture without them."""
    more, less = (
        load_pack(test_models, "edge", acknowledged=["edge"], detector_size=size).detector
        for size in ((192, 160), (192, 144))
    )
    for portrait in portrait_frames.values():
        frame = fit(portrait, 640, 480)
        (expected,), (seen,) = more.detect(frame), less.detect(frame)
        eyes = float(np.linalg.norm(expected.landmarks[0] - expected.landmarks[1]))
        assert np.linalg.norm(seen.landmarks - expected.landmarks, axis=1).max() < _SHARE_OF_EYES * eyes
        assert seen.score == pytest.approx(expected.score, abs=0.05)


@pytest.mark.models
def test_a_detector_of_an_earlier_version_is_named(
    test_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took multiples of 32 alone, and onnxruntime refuses it where the sides are fixed otherwise."""

    def refuse(*_: Any, **fixed: int) -> Any:
        raise Fail(str(fixed))

    monkeypatch.setattr(models, "open_session", refuse)
    with pytest.raises(PackDamaged, match=r"detector\.onnx does not take 192x144: run drempel"):
        load_pack(test_models, "edge", acknowledged=["edge"], detector_size=None)


@pytest.mark.parametrize("size", [(190, 160), (192, 152), (0, 32), (-32, 32)])
def test_a_size_that_the_detector_cannot_take_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "edge").mkdir()
    with pytest.raises(BadDetectorSize, match="multiples of 16"):
        load_pack(tmp_path, "edge", acknowledged=["edge"], detector_size=size)


@pytest.mark.models
@pytest.mark.filterwarnings("ignore:.*estimate.* is deprecated:FutureWarning")
def test_the_pack_is_one_that_insightface_loads_itself(
    test_models: Path,
    edge: LoadedPack,
    portrait_frames: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FaceAnalysis, told nothing but the folder, finds the same face and the same embedding."""

    def refuse(*_: Any) -> None:
        raise AssertionError("insightface went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    analysis = FaceAnalysis(name=str(test_models / "edge"), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=-1, det_size=edge.detector.input_size)
    frame = portrait_frames["obama.jpg"]
    (theirs,) = analysis.get(frame)
    (ours,) = edge.detector.detect(frame)
    np.testing.assert_allclose(theirs.bbox, ours.box, atol=0.05)
    np.testing.assert_allclose(theirs.kps, ours.landmarks, atol=0.05)
    embedding = edge.embedder.embed(align(frame, ours.landmarks, edge.embedder.layout))
    assert float(theirs.normed_embedding @ embedding) > 0.999


@pytest.mark.models
def test_insightface_itself_refuses_a_damaged_network(test_models: Path, tmp_path: Path) -> None:
    shutil.copytree(test_models / "edge", tmp_path / "edge")
    path = tmp_path / "edge" / "embedder.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(RuntimeError, match="SHA-256 mismatch"):
        FaceAnalysis(name=str(tmp_path / "edge"), providers=["CPUExecutionProvider"])
