"""The keyed rotation of embeddings (B4, design §4): orthonormal, and new for every record.

A vector is centred (the pack's mean subtracted), normalised, padded with zeros to a power of two `n`, and
goes three times through keyed signs, a keyed permutation and a Walsh-Hadamard transform scaled by 1/√n.
Each of the three is orthonormal, so the cosine of two vectors under one key is that of `comparison.score`;
under two keys the vectors of one face are as unlike as those of strangers. (Signs, permutation and
Walsh-Hadamard in three rounds: Ailon & Chazelle 2009, "The fast Johnson-Lindenstrauss transform"; Andoni
et al. 2015, "Practical and optimal LSH for angular distance", who find three rounds near enough to a random
rotation.)

What it is not: a cipher. Against a holder of the key it adds nothing, and it protects no record: AES-GCM
does. It keeps apart the vectors of two devices, or of two renewals, for whoever sees vectors without keys.

Key stream of round i = 1, 2, 3: `HKDF-Expand-SHA256(key, "drempel rotation v2 round i", 8n + ⌈n/8⌉)`. Its
first 8n bytes are n little-endian 64-bit numbers; the stable order that sorts them is the permutation (two
alike among 512: probability below 2^-46). The bits after them, lowest first, are the signs: 1 is minus.

Bit-exact: every step is one IEEE 754 binary64 operation per coordinate (add, subtract, multiply, divide,
square root: all correctly rounded) in a fixed order; the one sum is `math.fsum`, which is correctly rounded
whatever the order. No dot product of numpy is used, whose order of adding differs between machines.
"""

import math

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from appliance.link.messages import MAX_EMBEDDING
from appliance.vault.comparison import NotAnEmbedding, Vector
from appliance.vault.keys import wipe

Rotated = npt.NDArray[np.float64]
"""A rotated vector (n,), of length 1."""
ROUNDS = 3
MAX_DIMENSIONS = MAX_EMBEDDING // 4
"""Of an embedding: 512. One HKDF-Expand, of at most 255 · 32 bytes, then holds the stream of a round."""


def padded(dimensions: int) -> int:
    """The least power of two that holds so many dimensions: 2 to 512.

    Raises:
        NotAnEmbedding: fewer than 1 or more than `MAX_DIMENSIONS`.
    """
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise NotAnEmbedding(f"an embedding has 1 to {MAX_DIMENSIONS} dimensions, not {dimensions}")
    return max(2, 1 << (dimensions - 1).bit_length())


class Rotation:
    """The rotation under one key (32 bytes, which the caller overwrites after this), for `dimensions`.

    Signs and order are expanded once, so that each probe costs only the transforms.
    """

    __slots__ = ("_orders", "_scale", "_signs", "dimensions")

    def __init__(self, key: bytearray, dimensions: int) -> None:
        """Expand the key.

        Raises:
            NotAnEmbedding: no embedding has so many dimensions.
        """
        size = padded(dimensions)
        self.dimensions = dimensions
        # The three factors 1/√n as one, at the end: exact for n = 4, 16, 64, 256, rounded once for others.
        self._scale = 1 / (size * math.sqrt(size))
        self._signs: list[Rotated] = []
        self._orders: list[npt.NDArray[np.intp]] = []
        for turn in range(1, ROUNDS + 1):
            signs, order = _expand(key, turn, size)
            self._signs.append(signs)
            self._orders.append(order)

    def rotate(self, vector: Vector, mean: Vector) -> Rotated:
        """The rotated vector (n,), in a buffer that the caller overwrites.

        Args:
            vector: an embedding (dimensions,).
            mean: the pack's mean embedding (dimensions,).

        Raises:
            NotAnEmbedding: of other dimensions, not finite, or nothing but the mean.
        """
        if vector.shape != (self.dimensions,) or mean.shape != (self.dimensions,):
            raise NotAnEmbedding(f"not an embedding of {self.dimensions} dimensions")
        values, spare = np.zeros((2, padded(self.dimensions)))
        try:
            _centre(vector, mean, values, spare)
            for signs, order in zip(self._signs, self._orders, strict=True):
                np.multiply(values, signs, out=values)
                # "clip" only because "raise" would buffer; every index is within.
                np.take(values, order, out=spare, mode="clip")
                values, spare = _transform(spare, values)
            return values * self._scale
        finally:
            values.fill(0)
            spare.fill(0)

    def forget(self) -> None:
        """Overwrite signs and orders. Afterwards every vector rotates to zeros."""
        for signs in self._signs:
            signs.fill(0)
        for order in self._orders:
            order.fill(0)


def _expand(key: bytearray, turn: int, size: int) -> tuple[Rotated, npt.NDArray[np.intp]]:
    """Signs (size,) of 1 and -1, and order (size,), of one round."""
    stream = bytearray(8 * size + (size + 7) // 8)
    info = f"drempel rotation v2 round {turn}".encode()
    HKDFExpand(hashes.SHA256(), len(stream), info).derive_into(key, stream)
    order = np.frombuffer(stream, "<u8", size).argsort(kind="stable")
    bits = np.unpackbits(np.frombuffer(stream, np.uint8, offset=8 * size), count=size, bitorder="little")
    signs = bits.astype(np.float64)
    signs *= -2
    signs += 1
    bits.fill(0)
    wipe(stream)
    return signs, order


def _centre(vector: Vector, mean: Vector, values: Rotated, spare: Rotated) -> None:
    """Fill `values` with the vector, centred and of length 1, and zeros; `spare` is overwritten."""
    part = values[: len(vector)]
    np.copyto(part, vector)
    part -= mean
    np.multiply(values, values, out=spare)
    length = math.sqrt(math.fsum(memoryview(spare)))
    if not 0 < length < math.inf:
        raise NotAnEmbedding("an embedding must be finite and differ from the mean")
    values /= length


def _transform(values: Rotated, spare: Rotated) -> tuple[Rotated, Rotated]:
    """The Walsh-Hadamard transform in natural order, not scaled, and the buffer that is left over.

    Each of log2 n steps pairs the upper with the lower half, so transforms by the highest bit of the index
    and moves that bit to the lowest place; after log2 n steps every bit had its turn and is back in place.
    """
    half = len(values) // 2
    for _ in range(half.bit_length()):
        np.add(values[:half], values[half:], out=spare[0::2])
        np.subtract(values[:half], values[half:], out=spare[1::2])
        values, spare = spare, values
    return values, spare
