"""One photograph, looked at in several ways: the chips and embeddings that `trials` compares.

Each way differs from the door's own steps (`lens.alignment`, `lens.detection`) in one thing. A detector that
misses a face which the plain one found is counted, and the plain landmarks stand in.
"""

import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from appliance.evaluation.comparisons import NobodyToCompare
from appliance.evaluation.dataset import Photograph
from appliance.evaluation.embeddings import CHUNK, FRAME, Source, subject
from appliance.lens.alignment import BadLandmarks, ChipLayout, align
from appliance.lens.camera.pictures import BadPicture, read_picture_file
from appliance.lens.camera.replay import fit
from appliance.lens.detection import DetectedFace, FaceDetector
from appliance.lens.embedding import BadEmbedding, FaceEmbedder
from appliance.lens.quality import measure_chip, score, yaw

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]

PLAIN = "plain"
CROP = 96
"""Side of the crop and of the detector that looks at it a second time, pixels."""
CROP_OF_FACE = 2.0
"""Side of the crop in sides of the face's box."""
SIZES = ((256, 192), (320, 240), (CROP, CROP))
LIGHT, CONTRAST = 120.0, 50.0
"""Mean and standard deviation that a chip's grey levels are brought to."""


@dataclass(frozen=True, slots=True)
class Look:
    """A photograph in which the plain detector finds a face.

    Attributes:
        vectors: (ways, d) float32 of length 1.
        quality: of the plain chip, 0-1, see `lens.quality.score`.
        missed: ways whose own detector found no face.
    """

    vectors: npt.NDArray[np.float32]
    quality: float
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Looks:
    """All photographs of a data set in which the plain detector finds a face.

    Attributes:
        ways: keys of `WAYS`.
        index: which photographs they are, (n,).
        vectors: (ways, n, d) float32 of length 1.
        quality: (n,), 0-1.
        missed: (ways,), photographs in which the way's own detector found no face.
    """

    ways: tuple[str, ...]
    index: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]
    missed: npt.NDArray[np.int64]

    def of(self, *ways: str) -> npt.NDArray[np.float32]:
        """(n, d), the embedding of one way, or the mean of several brought to length 1."""
        summed = np.sum([self.vectors[self.ways.index(way)] for way in ways], axis=0)
        vectors: npt.NDArray[np.float32] = summed / np.linalg.norm(summed, axis=1, keepdims=True)
        return vectors


@dataclass(frozen=True, slots=True)
class Tools:
    """The networks of one worker: the pack's, and its detector at the other `SIZES`."""

    detector: FaceDetector
    embedder: FaceEmbedder
    others: dict[tuple[int, int], FaceDetector]


@dataclass(slots=True)
class View:
    """A frame and the face in it."""

    frame: Picture
    face: DetectedFace
    tools: Tools
    missed: bool = False
    _found: dict[tuple[int, int], DetectedFace | None] = field(default_factory=dict)

    def chip(self, landmarks: Points | None = None, *, frame: Picture | None = None) -> Picture:
        """As at the door."""
        where = self.face.landmarks if landmarks is None else landmarks
        return align(self.frame if frame is None else frame, where, self.tools.embedder.layout)

    def points(self, size: tuple[int, int]) -> Points:
        """Landmarks of the detector at another size."""
        if size not in self._found:
            self._found[size] = _middle(self.tools.others[size].detect(self.frame), FRAME)
        return self._or_plain(self._found[size])

    def refined(self) -> Points:
        """Landmarks of a second look, at a crop around the face."""
        box = self.face.box
        scale = CROP / (CROP_OF_FACE * float(max(box[2] - box[0], box[3] - box[1])))
        shift = CROP / 2 - scale * (box[:2] + box[2:]) / 2
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        crop = cv2.warpAffine(self.frame, matrix, (CROP, CROP), flags=cv2.INTER_AREA)
        found = _middle(self.tools.others[CROP, CROP].detect(crop), (CROP, CROP))
        if found is None:
            return self._or_plain(None)
        points: Points = ((found.landmarks - shift) / scale).astype(np.float32)
        return points

    def coloured(self, change: Callable[[Picture], Picture]) -> Picture:
        """The chip of a frame whose colours are changed before anything is looked for."""
        frame = change(self.frame)
        return self.chip(self._or_plain(_middle(self.tools.detector.detect(frame), FRAME)), frame=frame)

    def scaled(self, factor: float) -> Picture:
        """The chip with the face larger by a factor."""
        layout = self.tools.embedder.layout
        middle = layout.side / 2
        points = tuple(
            (middle + factor * (x - middle), middle + factor * (y - middle)) for x, y in layout.points
        )
        return align(self.frame, self.face.landmarks, ChipLayout(layout.side, points))

    def anti_aliased(self) -> Picture:
        """The chip, cut out at twice its size and then shrunk; a pixel's middle stays where it was."""
        layout = self.tools.embedder.layout
        twice = ChipLayout(2 * layout.side, tuple((2 * x + 0.5, 2 * y + 0.5) for x, y in layout.points))
        large = align(self.frame, self.face.landmarks, twice)
        return np.asarray(cv2.resize(large, (layout.side,) * 2, interpolation=cv2.INTER_AREA), np.uint8)

    def _or_plain(self, found: DetectedFace | None) -> Points:
        self.missed = self.missed or found is None
        return self.face.landmarks if found is None else found.landmarks


def mirrored(chip: Picture) -> Picture:
    """Left for right."""
    return np.ascontiguousarray(chip[:, ::-1])


def grey(frame: Picture) -> Picture:
    """Without colour, still in three channels."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def red(frame: Picture) -> Picture:
    """The red channel in all three. Skin is bright and even in it as in near infrared, which it is *not*."""
    return np.ascontiguousarray(np.repeat(frame[..., 2:], 3, axis=2))


def normalised(chip: Picture) -> Picture:
    """Grey levels brought to one mean and spread, colours kept."""
    grey_first = cv2.cvtColor(chip, cv2.COLOR_BGR2YCrCb)
    level = grey_first[..., 0].astype(np.float32)
    level = (level - level.mean()) / (level.std() + 1) * CONTRAST + LIGHT
    grey_first[..., 0] = np.clip(level, 0, 255)
    return np.asarray(cv2.cvtColor(grey_first, cv2.COLOR_YCrCb2BGR), np.uint8)


def equalised(chip: Picture) -> Picture:
    """Grey levels through CLAHE (limit 2, 4 x 4 tiles), colours kept."""
    grey_first = cv2.cvtColor(chip, cv2.COLOR_BGR2YCrCb)
    grey_first[..., 0] = cv2.createCLAHE(2.0, (4, 4)).apply(np.ascontiguousarray(grey_first[..., 0]))
    return np.asarray(cv2.cvtColor(grey_first, cv2.COLOR_YCrCb2BGR), np.uint8)


WAYS: dict[str, Callable[[View], Picture]] = {
    PLAIN: lambda view: view.chip(),
    "mirrored": lambda view: mirrored(view.chip()),
    "anti-aliased": lambda view: view.anti_aliased(),
    "256x192": lambda view: view.chip(view.points((256, 192))),
    "320x240": lambda view: view.chip(view.points((320, 240))),
    "320x240 mirrored": lambda view: mirrored(view.chip(view.points((320, 240)))),
    "second pass": lambda view: view.chip(view.refined()),
    "mean of passes": lambda view: view.chip((view.refined() + view.face.landmarks) / np.float32(2)),
    "0.95": lambda view: view.scaled(0.95),
    "1.05": lambda view: view.scaled(1.05),
    "light": lambda view: normalised(view.chip()),
    "clahe": lambda view: equalised(view.chip()),
    "grey": lambda view: view.coloured(grey),
    "red": lambda view: view.coloured(red),
}


def look_in_ways(path: Path, tools: Tools, ways: Sequence[str]) -> Look | None:
    """One photograph in each of the ways; None where the plain steps find nothing to embed."""
    try:
        frame = fit(read_picture_file(path), *FRAME)
    except BadPicture:
        return None
    faces = tools.detector.detect(frame)
    if not faces:
        return None
    view = View(frame, subject(faces), tools)
    vectors, missed = [], []
    try:
        for way in ways:
            view.missed = False
            vectors.append(tools.embedder.embed(WAYS[way](view)))
            if view.missed:
                missed.append(way)
        _, sharpness = measure_chip(view.chip())
    except (BadLandmarks, BadEmbedding):
        return None
    return Look(np.stack(vectors), score(sharpness, yaw(view.face.landmarks)), tuple(missed))


def look_at_all(
    photographs: Sequence[Photograph],
    source: Source,
    ways: Sequence[str],
    *,
    jobs: int,
    keep: Path | None,
    progress: Callable[[int, int], None],
) -> Looks:
    """All photographs in all ways, in worker processes.

    Args:
        photographs: of a data set.
        source: the pack.
        ways: keys of `WAYS`.
        jobs: processes at work.
        keep: folder for a file, the user's alone, that spares a second run the work; embeddings are
            biometric data, so None keeps nothing.
        progress: called with how many are done, and how many there are.
    """
    ways = tuple(ways)
    path = None if keep is None else keep / f"looks-{_fingerprint(photographs, source, ways)}.npz"
    if path is not None and path.exists():
        with np.load(path) as held:
            return Looks(ways, held["index"], held["vectors"], held["quality"], held["missed"])
    index: list[int] = []
    found: list[Look] = []
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (source, ways)) as pool:
        paths = [photograph.path for photograph in photographs]
        for number, look in enumerate(pool.map(_look, paths, chunksize=CHUNK)):
            progress(number + 1, len(paths))
            if look is not None:
                index.append(number)
                found.append(look)
    if not found:
        raise NobodyToCompare("in none of these photographs a face was found")
    looks = Looks(
        ways,
        np.array(index, np.int64),
        np.stack([look.vectors for look in found], axis=1),
        np.array([look.quality for look in found], np.float32),
        np.array([[way in look.missed for way in ways] for look in found]).sum(axis=0),
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            np.savez(
                file, index=looks.index, vectors=looks.vectors, quality=looks.quality, missed=looks.missed
            )
    return looks


def _fingerprint(photographs: Sequence[Photograph], source: Source, ways: Sequence[str]) -> str:
    """Of all that the looks depend on: pack, code, libraries, ways and the photographs themselves."""
    digest = hashlib.sha256((source.fingerprint() + repr(tuple(ways))).encode())
    for path in (Path(__file__), *(photograph.path for photograph in photographs)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]


def load_tools(source: Source) -> Tools:
    """The networks; errors as `load_pack`."""
    pack = source.load()
    others = {size: Source(source.packs, source.name, size).load().detector for size in SIZES}
    return Tools(pack.detector, pack.embedder, others)


def _middle(faces: Sequence[DetectedFace], size: tuple[int, int]) -> DetectedFace | None:
    """The face nearest to the middle of a picture of this width and height, as `subject` has it."""
    middle = np.array(size) / 2
    far = [float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - middle)) for face in faces]
    return faces[int(np.argmin(far))] if far else None


# --- in a worker ---------------------------------------------------------------------------------

_loaded: tuple[Tools, tuple[str, ...]] | None = None


def _begin(source: Source, ways: tuple[str, ...]) -> None:
    global _loaded  # noqa: PLW0603 - the networks live as long as the process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _loaded = load_tools(source), ways


def _look(path: Path) -> Look | None:
    if _loaded is None:
        raise RuntimeError("a worker that was not begun")
    return look_in_ways(path, *_loaded)
