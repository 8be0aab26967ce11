"""Tokens are read here: the bytes of QR codes before the lens. What they mean is vault's affair.

The image is a stranger's, so it meets a parser here and nowhere else, in a process that holds no secret.

Of what is made on the way, the grey copy of the frame is ours and overwritten. The library's own
binarised copies, and the immutable `bytes` in which it gives a code, are not: they linger until the
memory is used again.
"""

import itertools

import cv2
import numpy as np
import zxingcpp

from appliance.lens.camera.interface import Frame
from appliance.link.messages import (
    MAX_CODE,
)

MAX_CODES_PER_FRAME = 4
"""More codes than that in one frame are somebody's wallpaper."""

MOST_PIXELS = 3840 * 2160
"""Of what the library is given: a larger frame is thinned out. At 6000 x 4500 pixels, a wall of finder
patterns takes it more than a second; at this size, 0.14 s."""


def read_codes(frame: Frame) -> list[bytes]:
    """The distinct QR codes of 1 to `MAX_CODE` bytes in `frame`, at most four; longer ones are no tokens.

    Takes 1 to 3 ms at 640 x 480. Whatever is in the picture, the worst answer is an empty list.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        return []
    step = next(step for step in itertools.count(1) if frame[::step, ::step, 0].size <= MOST_PIXELS)
    frame = frame[::step, ::step]
    grey = np.empty(frame.shape[:2], np.uint8)
    try:
        cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY, dst=grey)
        found = zxingcpp.read_barcodes(grey, formats=zxingcpp.BarcodeFormat.QRCodeModel2)
        codes = [result.bytes for result in found]
    except (RuntimeError, ValueError, IndexError, MemoryError, cv2.error):
        # The libraries' C++ exceptions. A picture that upsets it holds no token that we can read.
        return []
    finally:
        grey.fill(0)
    fitting = [code for code in codes if 1 <= len(code) <= MAX_CODE]
    return list(dict.fromkeys(fitting))[:MAX_CODES_PER_FRAME]
