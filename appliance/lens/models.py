"""Load a pack: verified first, and what was verified is what runs.

Insightface's own classes decode and preprocess; they are handed sessions that were made from bytes in
memory, so insightface opens no file here and never goes to a network.
"""

import io
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from appliance.errors import ConfigurationError
from appliance.lens.alignment import chip_layout
from appliance.lens.detection import FaceDetector
from appliance.lens.embedding import ArcFaceEmbedder, DlibEmbedder, FaceEmbedder
from appliance.lens.memory import settle
from appliance.packs.manifest import Embedder, Manifest, check_acknowledged, load_manifest
from appliance.packs.verify import PackDamaged, how_to_install, read_verified

_APPLICATIONS = "insightface.app"


def _model_classes() -> tuple[Any, Any]:
    """Insightface's detector and embedder classes, without the applications that it loads beside them.

    `import insightface` also loads FaceAnalysis and its add-ons, and with them scikit-image and scipy:
    27 MB and a quarter of a second for what no look uses. So an empty module stands in their place while
    the classes are imported; whoever imports `insightface.app` afterwards gets the real one.
    """
    absent = _APPLICATIONS not in sys.modules and "insightface" not in sys.modules
    if absent:
        sys.modules[_APPLICATIONS] = ModuleType(_APPLICATIONS)
    try:
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX  # noqa: PLC0415
        from insightface.model_zoo.scrfd import SCRFD  # noqa: PLC0415
    finally:
        if absent:
            del sys.modules[_APPLICATIONS]
            vars(sys.modules.get("insightface", ModuleType(""))).pop("app", None)
    return ArcFaceONNX, SCRFD


ArcFaceONNX, SCRFD = _model_classes()
_PROVIDERS = ["CPUExecutionProvider"]
_THREADS = 1  # one face at a time; the other cores are for badges
_STRIDE_PX = 8  # of the detector's answers
_SIDE_STEP_PX = 16  # see `_crop` in `packs/centerface.py`


class PackNotInstalled(ConfigurationError, FileNotFoundError):
    """The pack is not on disk."""


class BadDetectorSize(ConfigurationError):
    """The detector cannot take an input of this size."""


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """A pack whose networks are in memory.

    Attributes:
        manifest: what the pack says of itself.
        detector: step 2.
        embedder: step 4; its `layout` is for step 3.
        liveness: the ONNX bytes of the pack's network against presentation attacks, verified, or None.
    """

    manifest: Manifest
    detector: FaceDetector
    embedder: FaceEmbedder
    liveness: bytes | None

    def warm(self) -> None:
        """Run each network once on nothing, so that the first person does not wait, and settle in memory."""
        width, height = self.detector.input_size
        self.detector.detect(np.zeros((height, width, 3), dtype=np.uint8))
        side = self.embedder.layout.side
        self.embedder.embed(np.full((side, side, 3), 127, dtype=np.uint8))
        settle()


def load_pack(
    packs: Path,
    name: str,
    *,
    acknowledged: Collection[str],
    detector_size: tuple[int, int] | None,
) -> LoadedPack:
    """Load the pack `packs/name`.

    Every file of the pack is read once, hashed in memory and compared with the pack's list before
    onnxruntime sees a byte; the sessions are then made from those same bytes. So there is no moment
    between verification and use in which a file on disk could be exchanged.

    Args:
        packs: the folder of all packs.
        name: of the pack.
        acknowledged: names of packs whose conditions the settings accept.
        detector_size: width and height of the detector's input, pixels, multiples of 16; None for the
            manifest's.

    Returns:
        The pack, on one thread a network.

    Raises:
        UnknownPack, ManifestInvalid: there is no such manifest, or it is wrong.
        PackNotAcknowledged: the settings do not accept this pack's conditions.
        PackNotInstalled: it is not on disk.
        PackDamaged: a file is not what was installed, or was installed by an earlier version that wrote
            it in a form which does not do any more; the message names it.
        BadDetectorSize: the detector's size is not a multiple of 16.
    """
    manifest = load_manifest(name)
    check_acknowledged(manifest, acknowledged)
    folder = packs / name
    if not folder.exists():
        raise PackNotInstalled(f"pack {name} is not installed in {packs}: {how_to_install(folder)}")
    size = detector_size or manifest.detector.input_size
    if any(side <= 0 or side % _SIDE_STEP_PX for side in size):
        raise BadDetectorSize(f"the detector takes multiples of {_SIDE_STEP_PX} px, not {size[0]}x{size[1]}")

    wanted = {manifest.detector.file, manifest.embedder.file}
    if manifest.liveness is not None:
        wanted.add(manifest.liveness.file)
    _, contents = read_verified(folder, wanted)
    return LoadedPack(
        manifest=manifest,
        detector=_detector(manifest, contents[manifest.detector.file], size, folder),
        embedder=_embedder(manifest.embedder, contents[manifest.embedder.file], folder),
        liveness=contents[manifest.liveness.file] if manifest.liveness is not None else None,
    )


def open_session(model: bytes, **fixed: int) -> Any:
    """An onnxruntime session on one thread, in order, from bytes that were verified.

    Args:
        model: ONNX.
        fixed: values for dimensions that the model leaves open, by name.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    for dimension, value in fixed.items():
        options.add_free_dimension_override_by_name(dimension, value)
    return onnxruntime.InferenceSession(model, options, providers=_PROVIDERS)


def _detector(manifest: Manifest, model: bytes, size: tuple[int, int], folder: Path) -> FaceDetector:
    """With both sides fixed, onnxruntime folds all that depends on them into constants."""
    try:
        session = open_session(model, width=size[0], height=size[1])
    except Fail as error:
        # Packs of before the detector took multiples of 16 say so here: their maps do not fit together.
        raise PackDamaged(
            f"{folder.name}/{manifest.detector.file} does not take {size[0]}x{size[1]}: "
            f"{how_to_install(folder)}"
        ) from error
    described = manifest.detector
    scrfd = SCRFD(session=session)
    scrfd.input_mean = described.mean
    scrfd.input_std = described.std
    if described.conversion == "centerface":
        # It answers at one stride (see `packs/centerface.py`): without the zeros of the other two,
        # insightface decodes in a third of the time. Any other detector is read at all three.
        scrfd.fmc, scrfd._feat_stride_fpn = 1, [_STRIDE_PX]  # noqa: SLF001 - insightface has no other way
        scrfd.output_names = [f"{kind}_{_STRIDE_PX}" for kind in ("score", "box", "points")]
    return FaceDetector(scrfd, input_size=size, score=described.score, overlap=described.overlap)


def _embedder(described: Embedder, model: bytes, folder: Path) -> FaceEmbedder:
    session = open_session(model)
    if session.get_outputs()[0].shape[-1] != described.dimension:
        raise PackDamaged(
            f"{folder.name}/{described.file} is not the manifest's embedder: {how_to_install(folder)}"
        )
    layout = chip_layout(described.alignment, described.chip)
    if described.alignment == "dlib":
        return DlibEmbedder(session, layout=layout, dimension=described.dimension)
    arcface = ArcFaceONNX(model_file=io.BytesIO(model), session=session)
    arcface.input_mean = described.mean
    arcface.input_std = described.std
    return ArcFaceEmbedder(arcface, layout=layout, dimension=described.dimension)
