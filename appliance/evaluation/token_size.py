"""How near a token's QR code has to be held: sizes of the codes of tier 1 and 2, and what the camera reads.

Codes are made as for print and drawn into a frame of 640 x 480 as an ordinary camera might have it: turned
by ten degrees, a little in perspective, grey on grey, blurred and noisy. `lens.code.read_codes` reads them,
as at the door. The least width is that from which on 95 % of the drawings are read. The distance follows
from it: no printer, lens, screen or hand had a part in it, so it says what cannot be, rather than what is.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt

from appliance.lens import code as reader
from appliance.qr import BORDER, qr_of

Picture = npt.NDArray[np.uint8]

DIMENSIONS = 512
"""Of the embeddings of pack `edge`."""
FORMAT, HANDLE, SECRET, HEADER, NONCE, TAG, CHECK = 1, 16, 16, 4, 12, 16, 2
FRAME = (640, 480)
FIELD_OF_VIEW = 60.0
"""Degrees, across."""
SIZES = {"print of 50 mm": 50.0, "print of 80 mm": 80.0, "telephone, 65 mm": 65.0}
"""Width with the quiet zone, millimetres."""

TURN = 10.0
SKEW = 0.04
"""How far a corner is off, at most, in widths."""
DARK, LIGHT, AROUND = 50, 200, 120
BLUR = 1.0
NOISE = 6.0
"""Standard deviations: pixels, and levels of grey."""
FINE = 4
"""Times as fine the code is drawn before it is brought to the frame's pixels."""
SURE = 0.95
STEP = 2
"""Pixels between two widths that are tried."""
FURTHER = 4
"""Widths beyond the least one that must be read as well, so that no stroke of luck decides."""


@dataclass(frozen=True, slots=True)
class Token:
    """A kind of token: what it is called, and its bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found for a token.

    Attributes:
        token: the kind.
        version: of the QR symbol.
        modules: across, without the quiet zone.
        width: pixels with the quiet zone from which on it is read, or None where no width will do.
    """

    token: Token
    version: int
    modules: int
    width: int | None


def on_token(bits: int, dimensions: int = DIMENSIONS) -> Token:
    """The token of tier 1 with a template of so many bits a coordinate."""
    body = HEADER + dimensions * bits // 8
    size = FORMAT + HANDLE + SECRET + NONCE + body + TAG + CHECK
    return Token(f"tier 1, {bits} bits", size)


TOKENS = (Token("tier 2", FORMAT + HANDLE + SECRET + CHECK), on_token(4), on_token(8))


def drawn(code: Picture, width: float, rng: np.random.Generator) -> Picture:
    """A frame with the code in it.

    Args:
        code: one pixel a module, with the quiet zone; 0 is dark, 255 light.
        width: of the code with its quiet zone, pixels of the frame.
        rng: of what is left to chance: which way it is turned, where it lies, its corners, the noise.
    """
    turn = math.radians(TURN) * rng.choice((-1, 1))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    corners = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    corners += rng.uniform(-SKEW, SKEW, corners.shape)
    middle = np.array(FRAME) / 2 + rng.uniform(-1, 1, 2)
    placed = FINE * (corners * width + middle)
    # Edges of pixels, not their middles, are what the corners of the code are.
    side = len(code)
    edges = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(edges, (placed - 0.5).astype(np.float32))
    grey = np.where(code > 0, LIGHT, DARK).astype(np.uint8)
    fine = cv2.warpPerspective(
        grey, matrix, (FINE * FRAME[0], FINE * FRAME[1]), flags=cv2.INTER_NEAREST, borderValue=AROUND
    )
    frame = cv2.resize(fine, FRAME, interpolation=cv2.INTER_AREA).astype(np.float32)
    frame = cv2.GaussianBlur(frame, (0, 0), BLUR) + rng.normal(0, NOISE, frame.shape)
    return np.repeat(np.clip(np.rint(frame), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def is_read(token: Token, width: int, renderings: int, seed: int) -> bool:
    """Whether enough of the drawings of tokens of random bytes are read, and read rightly."""
    rng = np.random.default_rng([seed, token.size, width])
    may_miss = int((1 - SURE) * renderings + 1e-9)
    for _ in range(renderings):
        held = rng.bytes(token.size)
        may_miss -= reader.read_codes(drawn(modules_of(held), width, rng)) != [held]
        if may_miss < 0:
            return False
    return True


def modules_of(held: bytes) -> Picture:
    """The code with its quiet zone, one pixel a module."""
    rows = [list(row) for row in qr_of(held).matrix_iter(border=BORDER)]
    return np.where(np.array(rows) > 0, 0, 255).astype(np.uint8)


def measure(token: Token, renderings: int, seed: int) -> Measured:
    """The least width from which on the token is read."""
    symbol = qr_of(bytes(token.size))
    modules, version = len(symbol.matrix), int(symbol.version)
    most = FRAME[1] / (math.cos(math.radians(TURN)) + math.sin(math.radians(TURN)) + 2 * SKEW)
    row = 0
    width: int | None = None
    # A module is a pixel at least, or there is nothing to see.
    for tried in range(modules + 2 * BORDER, int(most), STEP):
        if not is_read(token, tried, renderings, seed):
            row, width = 0, None
            continue
        row, width = row + 1, width or tried
        if row > FURTHER:
            return Measured(token, version, modules, width)
    return Measured(token, version, modules, None)


def distance(width: float, millimetres: float, field_of_view: float = FIELD_OF_VIEW) -> float:
    """Metres at which something so wide covers so many pixels of the frame, in its middle."""
    focal = FRAME[0] / 2 / math.tan(math.radians(field_of_view) / 2)
    return millimetres * focal / width / 1000


@contextmanager
def _of_any_length() -> Iterator[None]:
    """The reader leaves out what is too long for a message of the door; here that is what is asked."""
    with patch.object(reader, "MAX_CODE", max(token.size for token in TOKENS)):
        yield


def tables(found: Sequence[Measured], renderings: int) -> str:
    """Both, in markdown: what is read, and from how far away."""
    lines = [
        "| token | bytes | version | modules | least width, pixels | pixels a module |",
        "|---" * 6 + "|",
    ]
    for each in found:
        cells = [each.token.name, str(each.token.size), str(each.version), str(each.modules)]
        if each.width is None:
            cells += ["none", ""]
        else:
            cells += [str(each.width), f"{each.width / (each.modules + 2 * BORDER):.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| token | " + " | ".join(SIZES) + " |", "|---" * (1 + len(SIZES)) + "|"]
    for each in found:
        far = ["" if each.width is None else f"{distance(each.width, size):.2f} m" for size in SIZES.values()]
        lines.append("| " + " | ".join([each.token.name, *far]) + " |")
    conditions = (
        f"{renderings} drawings a width, {100 * SURE:g} % read; turned by {TURN:g} degrees, corners off by "
        f"up to {100 * SKEW:g} %, blur {BLUR:g} px, noise {NOISE:g} of 255, grey {DARK} on {LIGHT}."
    )
    camera = f"Widths are with the quiet zone; the camera has {FRAME[0]} px over {FIELD_OF_VIEW:g} degrees."
    return "\n".join([*lines, "", f"{conditions} {camera}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """See `--help`."""
    parser = argparse.ArgumentParser(
        prog="scripts/token-size",
        description="How large the QR codes of tokens are, and from how far away the camera reads them.",
    )
    parser.add_argument("--renderings", type=int, default=50, help="drawings of each width (50)")
    parser.add_argument("--seed", type=int, default=7, help="of what is drawn by chance (7)")
    given = parser.parse_args(arguments)
    if given.renderings < 1:
        parser.error("--renderings must be 1 or more")
    with _of_any_length():
        print(tables([measure(each, given.renderings, given.seed) for each in TOKENS], given.renderings))


if __name__ == "__main__":
    main()
