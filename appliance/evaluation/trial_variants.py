"""What `trials` tries: variants of the recognition steps, by the protocol in which they can be compared."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.evaluation.comparisons import Indices
from appliance.evaluation.trial_looks import PLAIN

Vectors = npt.NDArray[np.float32]
Pick = Callable[[Vectors, Vectors], Indices]
Decide = Callable[[Vectors], Vectors]

TEMPLATE = 5
MANY = 9
"""Photographs of which five are picked: whoever has ten or more takes part."""


def first_five(_vectors: Vectors, _quality: Vectors) -> Indices:
    """Any five: chance has put them in order."""
    return np.arange(TEMPLATE)


def sharpest_five(_vectors: Vectors, quality: Vectors) -> Indices:
    """The five of the highest quality."""
    return np.argsort(-quality, kind="stable")[:TEMPLATE].astype(np.int64)


def most_varied_five(vectors: Vectors, _quality: Vectors) -> Indices:
    """The one nearest to the mean, then each time the one least like all that were taken."""
    likeness = vectors @ vectors.T
    taken = [int(likeness.sum(axis=1).argmax())]
    while len(taken) < TEMPLATE:
        nearest = likeness[:, taken].max(axis=1)
        nearest[taken] = np.inf
        taken.append(int(nearest.argmin()))
    return np.array(taken, np.int64)


def every(vectors: Vectors, _quality: Vectors) -> Indices:
    """All of them."""
    return np.arange(len(vectors))


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to go from photographs to scores.

    Attributes:
        name: for `--only` and the table.
        costs: where, and which networks more run for each frame; at the door, enrolment pays as well.
        template: ways of `trial_looks` whose mean is a photograph's embedding when it is enrolled.
        probe: the same at the door.
        mean: whether the mean embedding is subtracted.
        whitened: whether within-class whitening follows; learnt on TUNE.
        bits: of a coordinate of the template, rotated and quantised as on a token of tier 1; else float32.
        pick: which of a template's photographs are used, of their embeddings (n, d) and quality (n,).
        decide: attempts' scores (n,) of their frames' (n, M); None for that of the frames' mean embedding.
        family: variants that differ in a parameter, of which TUNE chooses one.
    """

    name: str
    costs: str = "nothing"
    template: tuple[str, ...] = (PLAIN,)
    probe: tuple[str, ...] = (PLAIN,)
    mean: bool = True
    whitened: bool = False
    bits: int | None = None
    pick: Pick = every
    decide: Decide | None = lambda scores: scores.max(axis=1)
    family: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """A protocol, what is plain in it, and what is tried against that."""

    title: str
    template_size: int
    frames: int
    rates: tuple[float, ...]
    plain: Variant
    variants: tuple[Variant, ...]


def _both(name: str, costs: str, *ways: str, family: str = "") -> Variant:
    return Variant(name, costs, ways, ways, family=family)


QUANTISED = (
    Variant("template at 8 bits", "nothing; tier 1", bits=8),
    Variant("template at 4 bits", "nothing; tier 1", bits=4),
)
ENROL = ("320x240", "320x240 mirrored", PLAIN, "mirrored")
TRIALS = (
    Trial(
        "Templates of five, one frame",
        TEMPLATE,
        1,
        (1e-4, 1e-5),
        Variant(PLAIN),
        (
            Variant("mean not subtracted", mean=False),
            _both("mirrored added, both", "door, 1 embedder", PLAIN, "mirrored"),
            Variant("mirrored added, template", "enrolment, 1 embedder", (PLAIN, "mirrored")),
            _both("anti-aliased chip", "door, no network", "anti-aliased"),
            _both("detector 256x192, both", "door, larger detector", "256x192", family="detector"),
            _both("detector 320x240, both", "door, larger detector", "320x240", family="detector"),
            Variant("detector 256x192, template", "enrolment, larger detector", ("256x192",)),
            Variant("detector 320x240, template", "enrolment, larger detector", ("320x240",)),
            _both("landmarks of a second pass", "door, 1 detector", "second pass"),
            _both("landmarks, mean of both passes", "door, 1 detector", "mean of passes"),
            Variant("320x240 and mirrored added, template", "enrolment, 1 detector, 3 embedders", ENROL),
            _both("chip scale 0.95", "door, no network", "0.95", family="chip scale"),
            _both("chip scale 1.05", "door, no network", "1.05", family="chip scale"),
            _both("light: mean and spread", "door, no network", "light"),
            _both("light: CLAHE", "door, no network", "clahe"),
            Variant("within-class whitening", "vault, no network, a matrix", whitened=True),
            _both("grey", "door, no network", "grey"),
            Variant("grey, probe only", "door, no network", probe=("grey",)),
            _both("red channel", "door, no network", "red"),
            Variant("red channel, probe only", "door, no network", probe=("red",)),
            *QUANTISED,
        ),
    ),
    Trial(
        "Templates of five out of nine, one frame",
        MANY,
        1,
        (1e-4, 1e-5),
        Variant("any five", pick=first_five),
        (
            Variant("best five by quality", "enrolment, 4 photographs more", pick=sharpest_five),
            Variant("most varied five", "enrolment, 4 photographs more", pick=most_varied_five),
            Variant("all nine", "enrolment, 4 photographs more"),
        ),
    ),
    Trial(
        "Templates of five, attempts of three frames",
        TEMPLATE,
        3,
        (1e-3, 1e-4),
        Variant("best score of three"),
        (
            Variant("first frame alone", "saves 2 frames", decide=lambda scores: scores[:, 0]),
            Variant(
                "mean of three scores", "door, always 3 frames", decide=lambda scores: scores.mean(axis=1)
            ),
            Variant("mean embedding of three", "door, always 3 frames", decide=None),
            Variant("two of three", "door, 2 or 3 frames", decide=lambda scores: np.median(scores, axis=1)),
            *QUANTISED,
        ),
    ),
)
