"""Photographs to embeddings, by the door's own steps, on all cores, each photograph once.

What was worked out is kept in a file per pack, code and versions, so that an evaluation that was
interrupted goes on where it was, and a second one takes seconds. Embeddings are biometric data: the file
is the user's alone, holds no name, is deleted by the first evaluation after a week without use, and is
never made where nothing is to be kept.
"""

import enum
import hashlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from appliance import lens
from appliance.errors import DrempelError
from appliance.evaluation.dataset import Photograph
from appliance.lens.alignment import BadLandmarks, align
from appliance.lens.camera.pictures import BadPicture, read_picture_file
from appliance.lens.camera.replay import fit
from appliance.lens.detection import DetectedFace
from appliance.lens.embedding import BadEmbedding
from appliance.lens.models import LoadedPack, load_pack
from appliance.lens.quality import Verdict, judge_chip, judge_faces
from appliance.packs.manifest import load_manifest
from appliance.packs.verify import SUMS

FRAME = (640, 480)
"""Width and height of the camera's frame, pixels; photographs are fitted into it as by the replay camera."""
CHUNK = 16
"""Photographs that a worker gets at a time, and that are written down at a time: a quarter of a second."""
AHEAD = 3
"""Chunks per worker that are under way; more would only fill memory."""
KEPT_DAYS = 7
LIBRARIES = ("insightface", "numpy", "onnxruntime", "opencv-python", "pillow")
"""Whose versions may move an embedding."""
LENGTH_OFF = 1e-3
"""How far from 1 the length of an embedding may be that was kept; further, it was damaged on disk."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    photograph BLOB PRIMARY KEY,
    outcome INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    embedding BLOB
) STRICT, WITHOUT ROWID
"""


class WorkerDied(DrempelError, RuntimeError):
    """A worker was killed: by the kernel, for want of memory, or by a photograph."""


class Outcome(enum.IntEnum):
    """What became of a photograph; all but the first are failures to acquire.

    That a file cannot be read, since a stick was pulled out, say, is never kept: the next time it may be.
    """

    EMBEDDED = 0
    NO_FACE = 1
    NOT_A_PICTURE = 2
    NO_EMBEDDING = 3
    CANNOT_BE_READ = 4

    @property
    def words(self) -> str:
        """For people."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Source:
    """Which pack looks.

    Attributes:
        packs: folder of installed packs.
        name: of the pack.
        detector_size: width and height of the detector's input, pixels; None for the manifest's.
        face_min_px: of the gates, as in the settings.
    """

    packs: Path
    name: str
    detector_size: tuple[int, int] | None = None
    face_min_px: int = 60

    def load(self) -> LoadedPack:
        """The networks; errors as `load_pack`. Whoever evaluates was told of the pack's conditions."""
        return load_pack(self.packs, self.name, acknowledged=[self.name], detector_size=self.detector_size)

    def fingerprint(self) -> str:
        """Of all that an embedding depends on: the pack's files, the code of the steps, the libraries."""
        manifest = load_manifest(self.name)
        digest = hashlib.sha256((self.packs / self.name / SUMS).read_bytes())
        steps = sorted(Path(next(iter(lens.__path__))).rglob("*.py"))
        for part in (
            *(path.read_bytes() for path in (*steps, Path(__file__))),
            repr((self.name, self.detector_size, self.face_min_px, FRAME)).encode(),
            manifest.detector.model_dump_json().encode(),
            manifest.embedder.model_dump_json().encode(),
            *(version(library).encode() for library in LIBRARIES),
        ):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Seen:
    """One photograph as the lens saw it: `embedding` is little-endian float32, of length 1."""

    outcome: Outcome
    verdict: Verdict
    embedding: bytes | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What the lens saw of a data set's photographs, in their order.

    Attributes:
        outcomes: `Outcome` of each photograph, (photographs,).
        verdicts: index into `list(Verdict)` of what the door's gates say of each, (photographs,).
        index: which photographs have an embedding, (n,).
        vectors: those embeddings, (n, d) float32 of length 1.
    """

    outcomes: npt.NDArray[np.int8]
    verdicts: npt.NDArray[np.int8]
    index: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


class Store:
    """What was worked out before, by the SHA-256 of a photograph's bytes."""

    def __init__(self, path: Path | None) -> None:
        """Open the file at `path`, or keep it all in memory, for as long as this object lives."""
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
                os.close(os.open(path, flags, 0o600))
                # A use, also where nothing new will be written.
                os.utime(path)
            self._db = sqlite3.connect(":memory:" if path is None else path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StoreBroken(f"{path} cannot be used ({error}): delete it, or use --keep-nothing") from error

    def get(self, photograph: bytes) -> Seen | None:
        """What is known of the photograph with this hash."""
        try:
            row = self._db.execute(
                "SELECT outcome, verdict, embedding FROM seen WHERE photograph = ?", (photograph,)
            ).fetchone()
        except sqlite3.Error as error:
            raise StoreBroken(f"what was kept cannot be read ({error}): drempel evaluate --forget") from error
        return None if row is None else _seen(*row)

    def put(self, found: Sequence[tuple[bytes, Seen]]) -> None:
        """Write down what was found, at once and wholly."""
        try:
            with self._db:
                self._db.executemany(
                    "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)",
                    [
                        (key, int(seen.outcome), list(Verdict).index(seen.verdict), seen.embedding)
                        for key, seen in found
                    ],
                )
        except sqlite3.Error as error:
            raise StoreBroken(
                f"what was found cannot be kept ({error}): free some space, or use --keep-nothing"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class StoreBroken(DrempelError, OSError):
    """The file of embeddings cannot be read or written."""


def _seen(outcome: int, verdict: int, embedding: bytes | None) -> Seen | None:
    """What a row says; None where it was damaged, so that the photograph is looked at again."""
    if (embedding is not None) != (outcome == Outcome.EMBEDDED) or not 0 <= verdict < len(Verdict):
        return None
    if embedding is not None:
        vector = np.frombuffer(embedding[: len(embedding) // 4 * 4], "<f4").astype(np.float64)
        if len(embedding) % 4 or not abs(float(np.linalg.norm(vector)) - 1) < LENGTH_OFF:
            return None
    return Seen(Outcome(outcome), list(Verdict)[verdict], embedding)


def store_path(folder: Path, source: Source) -> Path:
    """The file for this pack and code in `folder`; what was not used there for a week is removed."""
    old = time.time() - KEPT_DAYS * 86400
    for path in folder.glob("*.db"):
        together = [path, *folder.glob(f"{path.name}-*")]
        if max(each.stat().st_mtime for each in together) < old:
            for each in together:
                each.unlink(missing_ok=True)
    return folder / f"{source.name}-{source.fingerprint()[:24]}.db"


def embed_all(
    photographs: Sequence[Photograph],
    source: Source,
    store: Store,
    *,
    workers: int,
    progress: Callable[[int, int], None],
) -> Embeddings:
    """Find out what the lens sees in each photograph.

    Args:
        photographs: of a data set.
        source: the pack.
        store: what is known already, and where new findings go.
        workers: processes at work.
        progress: called with how many are done, and how many there are.

    Raises:
        StoreBroken: what was found cannot be kept.
        WorkerDied: a worker was killed; what was done is kept.
        DrempelError: the pack cannot be loaded, see `load_pack`.
    """
    keys: list[bytes] = []
    done = 0

    def unknown() -> Iterator[tuple[bytes, Path]]:
        nonlocal done
        for photograph in photographs:
            key = _hash(photograph.path)
            keys.append(key)
            if store.get(key) is None:
                yield key, photograph.path
            else:
                done += 1

    # Loaded here first, so that what is wrong with a pack is said once, and clearly.
    source.load()
    todo = unknown()
    pool: ProcessPoolExecutor | None = None
    under_way: dict[Future[list[Seen]], list[tuple[bytes, Path]]] = {}
    try:
        while chunk := list(islice(todo, CHUNK)):
            pool = pool or _pool(source, workers)
            under_way[pool.submit(_look, [path for _, path in chunk])] = chunk
            if len(under_way) >= AHEAD * workers:
                done += _take(under_way, store)
                progress(done, len(photographs))
        while under_way:
            done += _take(under_way, store)
            progress(done, len(photographs))
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
    return _collect([store.get(key) for key in keys])


def _pool(source: Source, workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin, (source,))


def _take(under_way: dict[Future[list[Seen]], list[tuple[bytes, Path]]], store: Store) -> int:
    """Write down what workers have finished, waiting for one at least; how many photographs that was."""
    finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
    count = 0
    for future in finished:
        chunk = under_way.pop(future)
        try:
            found = future.result()
        except BrokenProcessPool as error:
            names = f"{chunk[0][1].name} and the {len(chunk) - 1} that follow it"
            raise WorkerDied(
                f"a worker died, perhaps of {names}: see whether memory is short (--jobs 1 takes less), else "
                "take those away; what was done is kept, so start it again"
            ) from error
        keys = [key for key, _ in chunk]
        kept = zip(keys, found, strict=True)
        store.put([(key, seen) for key, seen in kept if seen.outcome is not Outcome.CANNOT_BE_READ])
        count += len(chunk)
    return count


def _collect(found: Sequence[Seen | None]) -> Embeddings:
    verdicts = {verdict: number for number, verdict in enumerate(Verdict)}
    index, vectors = [], []
    for number, seen in enumerate(found):
        if seen is not None and seen.embedding is not None:
            index.append(number)
            vectors.append(np.frombuffer(seen.embedding, "<f4"))
    return Embeddings(
        np.array([seen.outcome if seen else Outcome.CANNOT_BE_READ for seen in found], np.int8),
        np.array([verdicts[seen.verdict] if seen else 0 for seen in found], np.int8),
        np.array(index, np.int64),
        np.array(vectors, np.float32) if vectors else np.zeros((0, 0), np.float32),
    )


def _hash(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        # Cannot be read: the worker will say so, under a key of its own.
        return hashlib.sha256(b"unreadable " + os.fsencode(path)).digest()


# --- in a worker ---------------------------------------------------------------------------------

_loaded: tuple[LoadedPack, Source] | None = None


def _begin(source: Source) -> None:
    global _loaded  # noqa: PLW0603 - the networks live as long as the process
    # Ctrl-C is for the process that writes down what was found.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _loaded = source.load(), source


def _look(paths: Sequence[Path]) -> list[Seen]:
    if _loaded is None:
        raise RuntimeError("a worker that was not begun")
    return [look(path, *_loaded) for path in paths]


def look(path: Path, pack: LoadedPack, source: Source) -> Seen:
    """What the lens sees in one photograph: the face nearest to its middle.

    At a door more than one face is refused; in a photograph from elsewhere the one in the middle is whose
    folder it lies in. What the door's gates would say of it is the `verdict`.
    """
    if not os.access(path, os.R_OK):
        return Seen(Outcome.CANNOT_BE_READ, Verdict.NO_FACE)
    try:
        picture = read_picture_file(path)
    except BadPicture as error:
        if isinstance(error.__cause__, OSError):
            return Seen(Outcome.CANNOT_BE_READ, Verdict.NO_FACE)
        return Seen(Outcome.NOT_A_PICTURE, Verdict.NO_FACE)
    frame = fit(picture, *FRAME)
    faces = pack.detector.detect(frame)
    verdict = judge_faces(faces, frame, source.face_min_px)
    if not faces:
        return Seen(Outcome.NO_FACE, verdict)
    try:
        chip = align(frame, subject(faces).landmarks, pack.embedder.layout)
        if verdict is Verdict.GOOD:
            verdict, _ = judge_chip(chip)
        embedding = pack.embedder.embed(chip)
    except (BadLandmarks, BadEmbedding):
        return Seen(Outcome.NO_EMBEDDING, verdict)
    return Seen(Outcome.EMBEDDED, verdict, embedding.astype("<f4").tobytes())


def subject(faces: Sequence[DetectedFace]) -> DetectedFace:
    """Whose photograph it is: the face nearest to its middle."""
    middle = np.array(FRAME) / 2
    return min(faces, key=lambda face: float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - middle)))
