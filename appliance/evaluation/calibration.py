"""The thresholds of a model pack, measured on a folder of photographs, and written into its manifest.

- The mean embedding, over half of the people (each counts alike; a salted hash of the name chooses).
- Thresholds: the least at which the share of impostor scores at or above it does not pass the FMR, rounded up
  to four decimals; with templates of five and attempts of one frame, as `comparisons` makes them.
- An attempt over three frames passes if any of them does, so its threshold is that of a single frame at a
  third of the FMR (union bound: whatever the frames have in common, its FMR is not above three times that of
  one frame, as far as that is known).

A threshold that the data cannot decide (see `operating_points`) is left out, and said so.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.errors import ConfigurationError, DrempelError
from appliance.evaluation.comparisons import Comparisons, Indices, NobodyToCompare, compare, owners
from appliance.evaluation.dataset import Dataset
from appliance.evaluation.embeddings import Embeddings, Outcome, Source
from appliance.evaluation.intervals import Members, fmr_over_people, fnmr_over_people
from appliance.evaluation.operating_points import fnmr_at_fmr
from appliance.packs.manifest import FRAMES, load_manifest, read_manifest
from appliance.shipped import shipped

Vectors = npt.NDArray[np.float32]

RATES = (1e-2, 1e-3, 1e-4, 1e-5)
TEMPLATE = 5
SEED = 7
DECIMALS = 1e4
HEAD = "# Written by drempel models calibrate"


class ManifestUnwritable(DrempelError, OSError):
    """The manifest of this installation may not be written to, or the disk is full."""


class NothingDecided(ConfigurationError):
    """The photographs decide none of the thresholds."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean embedding (d,), and over how many people and photographs."""

    vector: Vectors
    people: int
    images: int


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold and its evidence.

    Attributes:
        fmr: of a whole attempt.
        frames: of an attempt.
        threshold: a cosine.
        fnmr: share of single genuine probes below it, with its interval of 95 % over people.
        low: see fnmr.
        high: see fnmr.
        impostors_above: single impostor scores at or above it.
        attempt_fmr: false match rate of whole attempts at it; None where nobody has enough photographs.
    """

    fmr: float
    frames: int
    threshold: float
    fnmr: float
    low: float
    high: float
    impostors_above: int
    attempt_fmr: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that is written down.

    Attributes:
        mean: of the embeddings.
        found: the comparisons.
        thresholds: those that the data could decide.
        left_out: FMR and frames of the others, and why.
    """

    mean: Mean
    found: Comparisons
    thresholds: list[Calibrated]
    left_out: dict[tuple[float, int], str]


def calibrate(data: Dataset, seen: Embeddings, rates: Sequence[float], *, subtract_mean: bool) -> Calibration:
    """Find the thresholds for some false match rates.

    Args:
        data: people and photographs.
        seen: what the lens saw in them.
        rates: FMRs of a whole attempt.
        subtract_mean: where all embeddings lie in a narrow cone, as dlib's do, it costs accuracy.

    Raises:
        NobodyToCompare: nobody has enough photographs with a face.
    """
    mean = (
        mean_of_half(data, seen) if subtract_mean else Mean(np.zeros(seen.vectors.shape[1], np.float32), 0, 0)
    )
    found = compare(data, seen, mean.vector, template_size=TEMPLATE, frames=1, seed=SEED)
    wanted = {(rate, frames): rate / frames for frames in FRAMES for rate in sorted(rates, reverse=True)}
    stated = fnmr_at_fmr(found.scores, sorted(set(wanted.values())))
    thresholds, left_out = [], {}
    for (rate, frames), single in wanted.items():
        if single in stated.left_out:
            left_out[rate, frames] = stated.left_out[single]
            continue
        # Upwards, so that the rounding never lets more through.
        threshold = math.ceil(stated.stated[single].threshold * DECIMALS) / DECIMALS
        fnmr = fnmr_over_people(found.scores, threshold)
        above = int((found.scores.tail >= np.float64(threshold)).sum())
        whole = _fmr_of_attempts(data, seen, mean.vector, frames, threshold)
        thresholds.append(Calibrated(rate, frames, threshold, fnmr.rate, fnmr.low, fnmr.high, above, whole))
    if not thresholds:
        raise NothingDecided(f"these photographs decide no threshold: {next(iter(left_out.values()))}")
    return Calibration(mean, found, thresholds, left_out)


def _fmr_of_attempts(
    data: Dataset, seen: Embeddings, mean: Vectors, frames: int, threshold: float
) -> float | None:
    """The false match rate of attempts of `frames` frames by one person at a threshold; None: not measurable.

    The budget of the limits on guessing rests on it: a single frame's rate times the frames is not the same,
    since few people have so many photographs, and some of those few look alike.
    """
    try:
        found = compare(data, seen, mean, template_size=TEMPLATE, frames=frames, seed=SEED)
    except NobodyToCompare:
        return None
    return fmr_over_people(found.scores, threshold).rate


def mean_of_half(data: Dataset, seen: Embeddings) -> Mean:
    """The mean embedding of half of the people."""
    half = np.array([in_mean(name) for name in data.people])
    return mean_of(seen.vectors, owners(data)[seen.index], half)


def mean_of(vectors: Vectors, owner: Indices, members: Members) -> Mean:
    """The mean embedding of some people, of whom each counts alike.

    Args:
        vectors: embeddings (n, d).
        owner: whose each is, (n,).
        members: (people,), who counts.
    """
    some = [number for number in np.flatnonzero(members) if (owner == number).any()]
    means = [vectors[owner == number].mean(axis=0) for number in some]
    return Mean(np.mean(means, axis=0).astype(np.float32), len(some), int(np.isin(owner, some).sum()))


def in_mean(name: str) -> bool:
    """Whether a person of this name is in the half of which the mean is."""
    # Salted: a data set may itself have been halved by the parity of a plain hash.
    return hashlib.sha256(f"drempel mean {name}".encode(errors="surrogateescape")).digest()[0] % 2 == 0


def calibration_table(
    command: str, described: str, data: Dataset, seen: Embeddings, source: Source, made: Calibration
) -> str:
    """The `[calibration]` table as TOML.

    Args:
        command: as it was typed, without paths.
        described: what the data is.
        data: its people and photographs.
        seen: what the lens saw in them.
        source: the pack.
        made: what was found.
    """
    scores = made.found.scores
    size = source.detector_size or load_manifest(source.name).detector.input_size
    values = [f"{value:.6f}" for value in made.mean.vector]
    rows = "\n".join("  " + ", ".join(values[n : n + 10]) + "," for n in range(0, len(values), 10))
    missed = 1 - float((seen.outcomes == Outcome.EMBEDDED).mean())
    lines = [
        f"{HEAD}; `people` counts all who have a folder, `template_people` those of whom",
        "# templates are. FNMR is that of one probe, its interval of 95 % over people; over three frames it",
        "# bounds the attempt's.",
        "[calibration]",
        f"command = {_quoted(command)}",
        f"data = {_quoted(described)}",
        f"date = {datetime.now(tz=UTC).date().isoformat()}",
        f"detector_size = [{size[0]}, {size[1]}]",
        f"people = {len(data.people)}",
        f"images = {len(data.photographs)}",
        f"mean_people = {made.mean.people}",
        f"mean_images = {made.mean.images}",
        f"fta = {missed:.6f}",
        f"templates = {made.found.templates}",
        f"template_people = {int((scores.templates_of > 0).sum())}",
        f"genuine = {len(scores.genuine)}",
        f"impostor = {scores.impostors}",
        f"mean = [\n{rows}\n]",
    ]
    for each in made.thresholds:
        lines += [
            "",
            "[[calibration.thresholds]]",
            f"fmr = {each.fmr:g}",
            f"frames = {each.frames}",
            f"threshold = {each.threshold:.4f}",
            f"fnmr = {each.fnmr:.6f}",
            f"low = {each.low:.6f}",
            f"high = {each.high:.6f}",
            f"impostors_above = {each.impostors_above}",
        ]
        lines += [f"attempt_fmr = {each.attempt_fmr:.3g}"] if each.attempt_fmr is not None else []
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML string: what would end it or the line is left out."""
    plain = "".join(each for each in text if each.isprintable() and each not in '"\\')
    return f'"{plain}"'


def write_manifest(name: str, table: str, path: Path | None = None) -> Path:
    """Put the table at the end of a pack's manifest, in place of the former one, wholly or not at all.

    Args:
        name: of the pack.
        table: see `calibration_table`.
        path: where to write the whole manifest, if not where it is shipped.

    Returns:
        The manifest.

    Raises:
        ManifestUnwritable: it may not be written to.
        ManifestInvalid: the table does not follow the schema; nothing is changed.
    """
    where = shipped(f"models/{name}.toml")
    head = where.read_text(encoding="utf-8").partition("\n# Written by ")[0].rstrip("\n")
    text = f"{head}\n\n{table}"
    read_manifest(name, text)
    target = path or where
    temporary = target.with_name(f".{target.name}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ManifestUnwritable(
            f"{target} cannot be written ({error.strerror}): give another place with --output"
        ) from error
    return target
