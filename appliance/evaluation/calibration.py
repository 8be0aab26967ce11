"""Measure the thresholds of a model pack on a folder of photographs, and write them into its manifest.

Run as `scripts/calibrate`, which makes the environment first.

The folder holds one folder a person. Every photograph goes through the same detector, alignment and
embedder as at the door. Then:

- the mean embedding, over half of the people (each counts alike; a salted hash of the name chooses);
- templates: vault's own `make_template` of five embeddings of a person who has six photographs or more;
  at most five templates a person;
- scores: vault's own `score`, of a template with photographs of the same person that are not in it (at
  most twenty), and with all photographs of all others;
- thresholds: the least at which the share of impostor scores at or above it does not pass the FMR. An
  attempt over three frames passes if any of them does, so its threshold is that of a single frame at a
  third of the FMR (union bound: never too low, whatever the frames have in common).

A threshold that fewer than five impostor scores determine is left out, and said so.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from appliance.lens.alignment import align
from appliance.lens.camera.pictures import SURROUND, BadPicture, read_picture_file
from appliance.lens.detection import DetectedFace
from appliance.lens.models import LoadedPack, load_pack
from appliance.packs.manifest import load_manifest
from appliance.shipped import shipped
from appliance.vault.comparison import make_template

Vectors = npt.NDArray[np.float32]

RATES = (1e-2, 1e-3, 1e-4, 1e-5)
TEMPLATE = 5
MOST_TEMPLATES = 5
MOST_PROBES = 20
LEAST_IMPOSTORS = 5
MOST_ACROSS = 6000
"""Pixels of a photograph's frame."""
SEED = 7


@dataclass
class Dataset:
    """Embeddings (n, d) of length 1, whose they are (n,), how many photographs gave none.

    `unreadable` files, of which no picture could be read, are not among the `images`.
    """

    name: str
    people: list[str]
    vectors: Vectors
    owner: npt.NDArray[np.int64]
    images: int
    missed: int
    unreadable: int = 0


@dataclass
class Scores:
    """Scores of all comparisons."""

    genuine: Vectors
    impostor: Vectors
    templates: int
    template_people: int
    thresholds: list[tuple[float, int, float, float]] = field(default_factory=list)


def embed_dataset(folder: Path, pack: LoadedPack) -> Dataset:
    """Embed the face nearest to the middle of each photograph."""
    people = sorted(path.name for path in folder.iterdir() if path.is_dir())
    vectors, owner = [], []
    images = unreadable = 0
    for number, person in enumerate(people):
        for path in sorted((folder / person).iterdir()):
            try:
                frame = as_camera(read_picture_file(path))
            except BadPicture as error:
                unreadable += 1
                print(f"  {path} is left out: {error}", file=sys.stderr)
                continue
            images += 1
            faces = pack.detector.detect(frame)
            if not faces:
                continue
            chip = align(frame, _subject(faces, frame).landmarks, pack.embedder.layout)
            vectors.append(pack.embedder.embed(chip))
            owner.append(number)
        if number % 200 == 0:
            print(f"  {number} of {len(people)} people", file=sys.stderr)
    if not vectors:
        sys.exit(f"{folder} holds no photograph with a face: give a folder with one folder a person")
    missed = images - len(vectors)
    return Dataset(folder.name, people, np.array(vectors), np.array(owner), images, missed, unreadable)


def as_camera(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A photograph within a frame of the camera's proportions, 4:3, as `lens.camera.replay` shows it.

    The detector's input is made for these: another shape would be shrunk more than a frame at the door is.
    A picture that would make a frame of more than `MOST_ACROSS` pixels (a strip, as a rule) is shrunk first.
    """
    height, width = picture.shape[:2]
    share = MOST_ACROSS / max(width, height * 4 / 3)
    if share < 1:
        size = (max(1, int(width * share)), max(1, int(height * share)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    height, width = picture.shape[:2]
    across, down = max(0, -(-4 * height // 3) - width), max(0, -(-3 * width // 4) - height)
    framed: npt.NDArray[np.uint8] = cv2.copyMakeBorder(
        picture,
        down // 2,
        down - down // 2,
        across // 2,
        across - across // 2,
        cv2.BORDER_CONSTANT,
        value=(SURROUND,) * 3,
    )
    return framed


def _subject(faces: list[DetectedFace], frame: npt.NDArray[np.uint8]) -> DetectedFace:
    middle = np.array([frame.shape[1], frame.shape[0]]) / 2
    return min(faces, key=lambda face: float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - middle)))


def mean_of_half(data: Dataset) -> tuple[Vectors, int, int]:
    """The mean embedding (d,), and of how many people and photographs."""
    half = [n for n, name in enumerate(data.people) if _in_mean(name)]
    means = [data.vectors[data.owner == n].mean(axis=0) for n in half if (data.owner == n).any()]
    return np.mean(means, axis=0), len(means), int(np.isin(data.owner, half).sum())


def _in_mean(name: str) -> bool:
    # Salted: a data set may itself have been halved by the parity of a plain hash.
    return hashlib.sha256(f"drempel mean {name}".encode()).digest()[0] % 2 == 0


def compare(data: Dataset, mean: Vectors) -> Scores:
    """All scores of templates of five against single probes."""
    rng = np.random.default_rng(SEED)
    genuine, impostor = [], []
    templates = 0
    template_people = set()
    for person, groups in _groups(data, rng):
        mine = data.owner == person
        for group in groups:
            scores = score_all(make_template(list(data.vectors[group])), data.vectors, mean)
            probes = np.setdiff1d(np.flatnonzero(mine), group)
            genuine.append(scores[rng.permutation(probes)[:MOST_PROBES]])
            impostor.append(scores[~mine])
            templates += 1
            template_people.add(person)
    if not genuine:
        sys.exit("nobody has six photographs with a face: give a larger folder")
    return Scores(np.concatenate(genuine), np.concatenate(impostor), templates, len(template_people))


def _groups(data: Dataset, rng: np.random.Generator) -> Iterator[tuple[int, list[npt.NDArray[np.int64]]]]:
    for person in range(len(data.people)):
        mine = rng.permutation(np.flatnonzero(data.owner == person))
        whole = min(len(mine) // TEMPLATE, MOST_TEMPLATES)
        if len(mine) > TEMPLATE:
            yield person, [mine[n * TEMPLATE : (n + 1) * TEMPLATE] for n in range(whole)]


def score_all(template: Vectors, probes: Vectors, mean: Vectors) -> Vectors:
    """What `vault.comparison.score` says of each probe, at once.

    Args:
        template: normalised (d,).
        probes: normalised (n, d).
        mean: the pack's mean embedding (d,).

    Returns:
        (n,) cosines, from -1 to 1.
    """
    one, others = template - mean, probes - mean
    lengths = np.linalg.norm(one) * np.linalg.norm(others, axis=1)
    scores: Vectors = np.where(lengths > 0, others @ one / np.where(lengths > 0, lengths, 1), -1)
    return scores.astype(np.float32)


def find_thresholds(scores: Scores) -> None:
    """Fill in the thresholds: (FMR, frames, threshold, FNMR of one probe)."""
    falling = np.sort(scores.impostor)[::-1]
    for frames in (1, 3):
        for rate in RATES:
            passing = int(len(falling) * rate / frames)
            if passing < LEAST_IMPOSTORS:
                print(f"FMR {rate:g} with {frames} frame(s): left out, {passing} impostor scores decide it")
                continue
            # Just above the first score that must not pass, to four decimals upwards.
            threshold = float(np.floor(falling[passing] * 1e4) + 1) / 1e4
            fnmr = float((scores.genuine < threshold).mean())
            scores.thresholds.append((rate, frames, threshold, fnmr))
            missed = int((scores.genuine < threshold).sum())
            print(
                f"FMR {rate:g}, {frames} frame(s): threshold {threshold:.4f} ({passing} impostors above), "
                f"FNMR {fnmr:.3%} ({missed} of {len(scores.genuine)})"
            )


def calibration_table(
    command: str, data: Dataset, pack: LoadedPack, mean: tuple[Vectors, int, int], scores: Scores
) -> str:
    """The `[calibration]` table as TOML."""
    vector, mean_people, mean_images = mean
    width, height = pack.detector.input_size
    values = [f"{value:.6f}" for value in vector]
    rows = "\n".join("  " + ", ".join(values[n : n + 10]) + "," for n in range(0, len(values), 10))
    lines = [
        "# Written by scripts/calibrate; `people` counts all who have a folder, `template_people` those with",
        "# six photographs or more. FNMR is that of one probe; over three frames it bounds the attempt's.",
        "[calibration]",
        f'command = "{command}"',
        f'data = "{data.name}"',
        f"date = {datetime.now(tz=UTC).date().isoformat()}",
        f"detector_size = [{width}, {height}]",
        f"people = {len(data.people)}",
        f"images = {data.images}",
        f"mean_people = {mean_people}",
        f"mean_images = {mean_images}",
        f"fta = {data.missed / data.images:.6f}",
        f"templates = {scores.templates}",
        f"template_people = {scores.template_people}",
        f"genuine = {len(scores.genuine)}",
        f"impostor = {len(scores.impostor)}",
        f"mean = [\n{rows}\n]",
    ]
    for rate, frames, threshold, fnmr in scores.thresholds:
        lines += [
            "",
            "[[calibration.thresholds]]",
            f"fmr = {rate:g}",
            f"frames = {frames}",
            f"threshold = {threshold:.4f}",
            f"fnmr = {fnmr:.6f}",
        ]
    return "\n".join(lines) + "\n"


def write_manifest(name: str, table: str) -> Path:
    """Put the table at the end of the manifest, in place of the former one."""
    path = shipped(f"models/{name}.toml")
    text = path.read_text(encoding="utf-8")
    head = text.partition("# Written by scripts/calibrate")[0].rstrip("\n")
    path.write_text(f"{head}\n\n{table}", encoding="utf-8")
    load_manifest(name)
    return path


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="scripts/calibrate"
    )
    parser.add_argument("pack", help="name of an installed pack, such as edge")
    parser.add_argument("dataset", type=Path, help="folder of photographs, one folder a person")
    parser.add_argument("--packs", type=Path, required=True, help="folder of installed packs")
    parser.add_argument(
        "--detector-size", type=int, nargs=2, metavar=("W", "H"), help="another input of the detector, pixels"
    )
    parser.add_argument("--describe", default=None, help="what the data is, for the manifest")
    parser.add_argument(
        "--no-mean",
        action="store_true",
        help="subtract nothing: where all embeddings lie in a narrow cone, as dlib's do, it costs accuracy",
    )
    parser.add_argument("--dry-run", action="store_true", help="print, and leave the manifest as it is")
    parser.add_argument("--save", type=Path, help="keep embeddings and owners here, as .npz")
    chosen = parser.parse_args()
    if not chosen.dataset.is_dir():
        parser.error(f"{chosen.dataset} is not a folder")

    size = (chosen.detector_size[0], chosen.detector_size[1]) if chosen.detector_size else None
    pack = load_pack(chosen.packs, chosen.pack, acknowledged=[chosen.pack], detector_size=size)
    data = embed_dataset(chosen.dataset, pack)
    if chosen.save is not None:
        np.savez(chosen.save, vectors=data.vectors, owner=data.owner, people=data.people)
    print(
        f"{data.images} photographs of {len(data.people)} people; no face in {data.missed}, "
        f"no picture in {data.unreadable}"
    )
    mean = mean_of_half(data)
    print(f"mean over {mean[2]} photographs of {mean[1]} people, length {np.linalg.norm(mean[0]):.3f}")
    if chosen.no_mean:
        mean = (np.zeros_like(mean[0]), 0, 0)
    scores = compare(data, mean[0])
    print(
        f"{scores.templates} templates of {scores.template_people} people: "
        f"{len(scores.genuine)} genuine and {len(scores.impostor)} impostor scores"
    )
    find_thresholds(scores)
    if chosen.describe is not None:
        data.name = chosen.describe
    command = f"scripts/calibrate {chosen.pack} {chosen.dataset.name} --packs PACKS"
    command += " --no-mean" if chosen.no_mean else ""
    table = calibration_table(command, data, pack, mean, scores)
    if not chosen.dry_run:
        print(f"written to {write_manifest(chosen.pack, table).name}")


if __name__ == "__main__":
    main()
