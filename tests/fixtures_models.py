"""The installed `edge` pack and the pinned portraits, for tests marked `models`. Kept between runs."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from appliance import packs as packs_code
from appliance.lens.models import LoadedPack, load_pack
from appliance.packs.install import install
from appliance.packs.portraits import portraits
from appliance.packs.verify import PackDamaged, verify_pack

Picture = npt.NDArray[np.uint8]

_CONVERSIONS = ("centerface.py", "fr_feature.py", "onnx_graph.py", "install.py")


def installed_edge() -> Path:
    """The folder of packs, with `edge` in it, verified."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    packs = cache / "drempel" / "test-models"
    stamp = packs / ".converted-by"
    written = _conversions()
    try:
        verify_pack(packs / "edge")
        fits = stamp.is_file() and stamp.read_text("utf-8") == written
    except PackDamaged:
        fits = False
    if not fits:
        install("edge", into=packs, source_folder=None, progress=print)
        stamp.write_text(written, "utf-8")
    return packs


def _conversions() -> str:
    """A hash of the code that converts: another one converts anew."""
    code = Path(packs_code.__file__).parent
    text = b"".join((code / name).read_bytes() for name in _CONVERSIONS)
    return hashlib.sha256(text).hexdigest()


@pytest.fixture(scope="session")
def test_models() -> Path:
    """The folder of packs, for tests."""
    return installed_edge()


@pytest.fixture(scope="session")
def edge(test_models: Path) -> LoadedPack:
    """Pack `edge`, loaded."""
    return load_pack(test_models, "edge", acknowledged=["edge"], detector_size=None)


@pytest.fixture(scope="session")
def portrait_paths() -> dict[str, Path]:
    """The portraits by name: two of one person, one of another."""
    return portraits(print)


@pytest.fixture(scope="session")
def portrait_frames(portrait_paths: dict[str, Path]) -> dict[str, Picture]:
    """The portraits, read: (height, width, 3) uint8, BGR."""
    frames = {name: cv2.imread(str(path)) for name, path in portrait_paths.items()}
    return {name: np.asarray(frame, dtype=np.uint8) for name, frame in frames.items()}
