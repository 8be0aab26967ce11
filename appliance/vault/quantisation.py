"""Eight or four bits a coordinate, for the template that a token carries (tier 1).

The coordinates of a rotated unit vector (n,) are close to normally distributed with deviation 1/√n, so one
fixed uniform quantiser fits them all, and no range has to be stored. It has 2^bits levels, half of them on
each side of zero (mid-rise: no level at zero); what lies beyond the outermost takes the outermost.

The step is the one of least mean squared error for a normal distribution: J. Max, "Quantizing for minimum
distortion", IRE Transactions on Information Theory 6 (1960), table II, for 16 levels; his table ends at 36,
and the step for 256 is computed by his criterion (a test does it anew for both). The error is 1.15 % of the
variance at four bits and 0.009 % at eight, which takes as much from a cosine of 1.
"""

import math

import numpy as np

from appliance.vault.keys import wipe
from appliance.vault.rotation import Rotated

STEPS = {4: 0.3352, 8: 0.03076}
"""By bits: the step in deviations."""


def quantised_size(count: int, bits: int) -> int:
    """Bytes for `count` coordinates, a power of two from 2."""
    return count * bits // 8


def quantise(values: Rotated, bits: int) -> bytearray:
    """The coordinates (n,) of a rotated unit vector at 8 or 4 bits, in a buffer that the caller overwrites.

    One byte a coordinate, or one byte a pair with the first in the upper half.
    """
    half = 1 << (bits - 1)
    levels = values * math.sqrt(len(values))
    levels /= STEPS[bits]
    np.floor(levels, out=levels)
    levels += half
    np.clip(levels, 0, 2 * half - 1, out=levels)
    packed = bytearray(len(values))
    np.copyto(np.frombuffer(packed, np.uint8), levels, casting="unsafe")
    levels.fill(0)
    if bits == 8:
        return packed
    pairs = np.frombuffer(packed, np.uint8).reshape(-1, 2)
    halved = bytearray(len(pairs))
    into = np.frombuffer(halved, np.uint8)
    np.left_shift(pairs[:, 0], 4, out=into)
    np.bitwise_or(into, pairs[:, 1], out=into)
    wipe(packed)
    return halved


def restore(packed: bytearray | memoryview, bits: int) -> Rotated:
    """The coordinates (n,), each the middle of its level, in an array that the caller overwrites.

    Their length is near 1, not 1.
    """
    data = np.frombuffer(packed, np.uint8)
    values = np.empty(len(data) * 8 // bits)
    if bits == 8:
        np.copyto(values, data)
    else:
        nibbles = data >> 4
        np.copyto(values[0::2], nibbles)
        np.bitwise_and(data, 0x0F, out=nibbles)
        np.copyto(values[1::2], nibbles)
        nibbles.fill(0)
    values += 0.5 - (1 << (bits - 1))
    values *= STEPS[bits]
    values /= math.sqrt(len(values))
    return values
