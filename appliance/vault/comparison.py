"""Step 5: the comparison of a probe with exactly one template (A3).

The score is the cosine of the two embeddings after the pack's mean embedding was subtracted from each;
subtracting it lowers the false non-match rate a little, and the pack's thresholds were measured with it.
There is no function here, or anywhere, that takes more than one template.

At the door the two are compared rotated, by `protection.Opened.score`, with the same result. `score` here
takes them as they are: for enrolment, which has nothing sealed yet, and for evaluation.
"""

import numpy as np
import numpy.typing as npt

from appliance.errors import DrempelError

Vector = npt.NDArray[np.float32]


class NotAnEmbedding(DrempelError, ValueError):
    """Bytes of the wrong length, or numbers that no embedding has."""


def read_embedding(data: bytes | bytearray | memoryview, dimension: int) -> Vector:
    """The normalised embedding (dimension,) in little-endian float32 bytes, in an array of its own.

    Raises:
        NotAnEmbedding: wrong length, not finite, or without direction.
    """
    if len(data) != 4 * dimension:
        raise NotAnEmbedding(f"{len(data)} bytes are no embedding of {dimension} dimensions")
    vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.sqrt(vector @ vector))
    # An infinite or undefined length is refused here as well.
    if not 1e-6 <= length < float("inf"):
        vector.fill(0)
        raise NotAnEmbedding("an embedding must be finite and have a direction")
    vector /= np.float32(length)
    return vector


def make_template(embeddings: list[Vector]) -> Vector:
    """The template: the mean of normalised embeddings, normalised (dimension,).

    Raises:
        NotAnEmbedding: there are none, or they cancel out.
    """
    if not embeddings:
        raise NotAnEmbedding("a template needs at least one embedding")
    total = np.zeros_like(embeddings[0])
    for embedding in embeddings:
        total += embedding
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise NotAnEmbedding("the embeddings cancel out")
    total /= np.float32(length)
    return total


def score(template: Vector, probe: Vector, mean: Vector) -> float:
    """How alike one probe and one template are: a cosine, from -1 to 1.

    Args:
        template: normalised (d,).
        probe: normalised (d,).
        mean: the pack's mean embedding (d,).
    """
    one = template - mean
    other = probe - mean
    try:
        lengths = float(np.sqrt(one @ one)) * float(np.sqrt(other @ other))
        return float(one @ other) / lengths if lengths > 0 else -1.0
    finally:
        one.fill(0)
        other.fill(0)
