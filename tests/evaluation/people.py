"""People who are known by made-up embeddings: each a direction of their own, and noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.evaluation.dataset import Dataset, Photograph
from appliance.evaluation.embeddings import Embeddings, Outcome
from appliance.lens.quality import Verdict

Vectors = npt.NDArray[np.float32]


def units(count: int, dimension: int, seed: int) -> Vectors:
    """Directions by chance."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def made_up(
    photographs_of: Sequence[int], *, noise: float, dimension: int = 64, seed: int = 1
) -> tuple[Dataset, Embeddings]:
    """Person n has `photographs_of[n]` photographs, all with a face."""
    people = [f"person {number:03}" for number in range(len(photographs_of))]
    owner = np.repeat(np.arange(len(people)), photographs_of)
    photographs = [
        Photograph(Path(f"/nowhere/{person}/{number}.jpg"), f"{people[person]}/{number}.jpg", int(person))
        for number, person in enumerate(owner)
    ]
    vectors = units(len(people), dimension, seed)[owner] + noise * units(len(owner), dimension, seed + 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Dataset("made up", people, photographs), seen(vectors)


def seen(vectors: Vectors) -> Embeddings:
    """Every photograph with a face, and past the gates."""
    return Embeddings(
        np.full(len(vectors), Outcome.EMBEDDED, np.int8),
        np.full(len(vectors), list(Verdict).index(Verdict.GOOD), np.int8),
        np.arange(len(vectors)),
        vectors.astype(np.float32),
    )
