"""The bytes of any picture file become a frame, or are refused in one line. Never a crash, never half a face.

Pillow decodes, not OpenCV: it refuses a file that was cut short, where OpenCV gives what it had and grey
below it; it knows CMYK, palettes and alpha; and it says a picture's size before it decodes. On a whole
JPEG or PNG of 8 bits both give the same pixels.

What is decided here, and why:

- *A file that was cut short is refused.* The upper half of a face above grey is still a face to a detector,
  and would be enrolled, or counted as a failure of recognition that was one of copying.
- *Damage inside a file is seen only where the format has a checksum* (PNG), or where the stream cannot be
  followed. A flipped bit in a JPEG gives a picture with a stripe: it is taken as it is, for the gates to
  judge.
- *Transparency is laid on `SURROUND`*, the grey beside a picture in the replay: it is what a viewer would
  show. Under a transparent pixel lies whatever the program left there, often the background cut away.
- *16 bits become 8 by their upper byte*, in every format: 65535 is white, nothing is clipped.
- *Floating point and 32 bits are refused*: no format says how much is white, and NaN is not a colour.
- *Of an animation, of several pages or of a pair for 3D, the first is read.*
- *What the file is called does not matter*, only what it is.
- *Large photographs become smaller*: by whole powers of two while the shorter side keeps `ENOUGH` pixels.
  A JPEG is decoded at that size, which takes a quarter of the time.
- *Colour profiles are not applied*: neither are a camera's.

The limits keep a file from taking long, and are checked before it is decoded; they were set so that one core
of a server reads what is allowed within a second. They are the smaller, the slower a format is.
"""

import ctypes
import functools
import io
import logging
import os
import re
import stat
import struct
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from appliance.errors import DrempelError
from appliance.lens.camera.interface import Frame

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

SURROUND = 90
"""Grey level beside a picture that does not fill the frame, and behind one that is transparent."""
MAX_BYTES = 32 * 1024 * 1024
"""Of a file."""
MAX_SIDE = 16_384
"""Pixels: of any picture's longer side."""
MAX_PIXELS = 25_000_000
"""Of a picture of a format that is not named below."""
MAX_PIXELS_OF = {"JPEG": 50_331_648, "MPO": 50_331_648, "AVIF": 16_777_216, "JPEG2000": 2_097_152}
"""Pixels, by Pillow's name of the format. JPEG has the largest photographs, and is quick."""
MAX_SLOW_BYTES = 512 * 1024
"""Of a file that Pillow decodes in plain Python: a PPM in words, a BMP in runs."""
MAX_READS = 250_000
"""Times that a decoder may ask for more: each is a step in plain Python, and some files are nothing else."""
MAX_STRIPS = 65_536
"""Of a TIFF, or tiles: Pillow makes a list of all before it says the size."""
MAX_SCANS = 24
"""Of a progressive JPEG, which has about ten. Each goes over the whole picture, however few its bytes are."""
MAX_SEGMENTS = 4096
"""Of a JPEG before its end."""
ENOUGH = 1200
"""Pixels that the shorter side keeps. A face that a detector's input of 144 rows shows at 16 rows is then
133 rows high: more than any chip takes."""

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
_NAMES = "JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, AVIF or JPEG 2000"
_HEIC = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
_PLAIN = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_TIFF_BITS, _TIFF_PHOTOMETRIC, _EXIF_ORIENTATION = 258, 262, 274
_TIFF_STRIPS = frozenset({273, 279, 324, 325})
_TIFF = frozenset({b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"})
_WHITE_IS_ZERO = 0

_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""Not 00, which is data, and not D0 to D7, which only mark places in it."""
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The starts of a JPEG's picture: there is one."""

_one_at_a_time = threading.Lock()
"""Silencing Python's warnings holds for all threads, and two large pictures at once take too much memory."""


class BadPicture(DrempelError, ValueError):
    """A file is no picture that is read here, or not a whole one; the text never repeats what is in it."""


def read_picture(content: bytes) -> Frame:
    """The picture in `content`, upright as its EXIF orientation says.

    Args:
        content: of a whole file, at most `MAX_BYTES`.

    Returns:
        (height, width, 3) uint8, BGR, contiguous, in memory of its own. Decoders' own memory is not wiped.

    Raises:
        BadPicture: it is empty, too large, cut short, of another format, or has no agreed 8-bit colours.
    """
    try:
        _check_content(content)
        with _one_at_a_time, warnings.catch_warnings():
            # Pillow warns of damaged metadata, and then does without it; so do we.
            warnings.simplefilter("ignore")
            return _decode(content)
    except BadPicture:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file raises whatever a decoder tripped over
        # Only the kind: a decoder's message may quote what it was given, and so may the error's own frames.
        kind = type(error).__name__
    raise BadPicture(f"the picture is cut short or damaged ({kind}): copy it again")


def read_picture_file(path: Path) -> Frame:
    """The picture in the file at `path`; see `read_picture`.

    Raises:
        BadPicture: also where the file is not there, may not be read, or is no regular file.
    """
    try:
        # A pipe without a writer would be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BadPicture("it is no regular file: give a picture")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadPicture(f"the file cannot be read: {error.strerror or type(error).__name__}") from error
    return read_picture(content)


class _Patience(io.BytesIO):
    """The content, for a decoder that does not ask too often."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise BadPicture("the picture is in too many pieces to be read: save it anew")
        return super().read(size)


def _check_content(content: bytes) -> None:
    if not content:
        raise BadPicture("the picture is empty: the file has no bytes")
    if len(content) > MAX_BYTES:
        raise BadPicture(f"the picture's file is too large: at most {MAX_BYTES >> 20} MiB are read")
    if content.startswith(b"\xff\xd8"):
        _check_jpeg(content)
    if content[:4] in _TIFF:
        _check_tiff(content)
    if _decodes_slowly(content) and len(content) > MAX_SLOW_BYTES:
        raise BadPicture("the picture's form is a slow one, and it is large: save it as PNG or JPEG")


def _check_jpeg(content: bytes) -> None:
    """Walk over the segments to the end of the picture: few enough, and no second picture in its midst.

    A decoder that meets another picture's start in the data fills up with grey, and says nothing.
    """
    segments = scans = frames = 0
    at = len(b"\xff\xd8")
    while found := _JPEG_MARKER.search(content, at):
        code, at = found[1][0], found.end()
        if code == _EOI:
            return
        segments += 1
        scans += code == _SOS
        frames += code in _FRAMES
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise BadPicture("the picture is in too many pieces to be read: save it anew")
        if code == _SOI or frames > 1:
            raise BadPicture("the picture is damaged: another one begins inside it")
        at += int.from_bytes(content[at : at + 2], "big")


def _check_tiff(content: bytes) -> None:
    """Count what the first directory says of strips and tiles (TIFF 6.0, section 2, and BigTIFF)."""
    order = "<" if content[:2] == b"II" else ">"
    big = 43 in content[2:4]
    many, one = (order + "Q", order + "HHQ8x") if big else (order + "H", order + "HHI4x")
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    (entries,) = struct.unpack_from(many, content, at)
    first, size = at + struct.calcsize(many), struct.calcsize(one)
    for entry in range(min(entries, MAX_STRIPS)):
        tag, _, count = struct.unpack_from(one, content, first + entry * size)
        if tag in _TIFF_STRIPS and count > MAX_STRIPS:
            raise BadPicture("the picture is in too many pieces to be read: save it anew")


def _decodes_slowly(content: bytes) -> bool:
    in_words = content[:2] in {b"P1", b"P2", b"P3"}
    return in_words or (content[:2] == b"BM" and int.from_bytes(content[30:34], "little") in {1, 2})


def _decode(content: bytes) -> Frame:
    # Only here: of the cameras, the replay alone has files to read.
    # The plugins are named since Pillow would else load all of its formats to find them.
    from PIL import (  # noqa: PLC0415
        AvifImagePlugin,  # noqa: F401
        Jpeg2KImagePlugin,  # noqa: F401
        TiffImagePlugin,  # noqa: F401
        UnidentifiedImageError,
        WebPImagePlugin,  # noqa: F401
    )
    from PIL import Image as pillow  # noqa: N813, PLC0415

    _quieten()
    _check_webp(content)
    try:
        opened = pillow.open(_Patience(content), formats=_FORMATS)
    except pillow.DecompressionBombError:
        raise BadPicture(f"the picture is far too large: at most {MAX_PIXELS:,} pixels are read") from None
    except UnidentifiedImageError:
        raise BadPicture(_unknown(content)) from None
    with opened as image:  # closes nothing of ours but the content's copy
        _check_size(image.size, image.format or "")
        factor = _reduction(image.size)
        if factor > 1:
            # Of all formats, JPEG alone can be decoded smaller; elsewhere this does nothing.
            image.draft(None, (image.width // factor, image.height // factor))
        if image.format == "PPM" and image.tile[0].codec_name == "ppm":
            colours, turn = _ppm(image, content), 1
        else:
            image.load()
            # Once more: what was decoded has the say.
            _check_size(image.size, image.format or "")
            colours, turn = _as_rgb(image), _orientation(image)
    factor = _reduction(colours.size)
    if factor > 1:
        colours = colours.reduce(factor)
    return _turned(cv2.cvtColor(np.asarray(colours), cv2.COLOR_RGB2BGR), turn)


@functools.cache
def _quieten() -> None:
    """Keep remarks out of the terminal: Pillow's own, and those of libtiff, whose errors Pillow sees itself.

    Names are looked up in Pillow's own extension and what it is linked with, so it is the libtiff that Pillow
    uses; one that hides them goes on talking.
    """
    from PIL import _imaging  # noqa: PLC0415

    # Where nobody set up logging, Python would write errors to stderr.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    library = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        set_handler = getattr(library, name, None)
        if set_handler is not None:
            set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
            set_handler(None)


def _check_webp(content: bytes) -> None:
    """Pillow makes a WebP's whole canvas as it opens it, so its size is read before."""
    if content[:4] == b"RIFF" and content[8:16] == b"WEBPVP8X":
        width, height = (1 + int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
        _check_size((width, height), "WEBP")


def _check_size(size: tuple[int, int], kind: str) -> None:
    width, height = size
    if min(size) < 1:
        raise BadPicture("the picture has no pixels")
    if max(size) > MAX_SIDE:
        raise BadPicture(f"the picture has {width} x {height} pixels: at most {MAX_SIDE} each way are read")
    most = MAX_PIXELS_OF.get(kind, MAX_PIXELS)
    if width * height > most:
        raise BadPicture(
            f"the picture has {width} x {height} pixels: of a {kind or 'file'}, "
            f"at most {most / 1e6:.0f} million are read"
        )


def _unknown(content: bytes) -> str:
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC:
        return "the picture is HEIC, which is not read here: save it as JPEG"
    return f"the file is no whole picture of a format that is read here ({_NAMES})"


def _reduction(size: tuple[int, int]) -> int:
    """By how much a picture is made smaller."""
    return next((factor for factor in (8, 4, 2) if min(size) // factor >= ENOUGH), 1)


def _orientation(image: "Image") -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read.

    Pillow has turned a TIFF by the time that it is loaded, and forgotten its orientation.
    """
    try:
        value: Any = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - damaged metadata raise whatever their parser tripped over
        # The pixels are whole. Upright is the best guess.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _as_rgb(image: "Image") -> "Image":
    """The picture in mode RGB."""
    from PIL import Image as pillow  # noqa: N813, PLC0415

    deep = image.mode in _DEEP or (image.mode == "I" and image.format == "PPM")
    if deep:
        return pillow.fromarray(_upper_byte(image)).convert("RGB")
    if image.mode not in _PLAIN | _WITH_ALPHA:
        raise BadPicture(
            "the picture's colours are of a kind whose white is not agreed (such as floating point): "
            "save it with 8 or 16 bits"
        )
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        shown = image.convert("RGBA")
        ground = pillow.new("RGB", shown.size, (SURROUND,) * 3)
        ground.paste(shown, mask=shown.getchannel("A"))
        return ground
    return image.convert("RGB")


def _ppm(image: "ImageFile", content: bytes) -> "Image":
    """A binary PPM or PGM with another white than 255, which Pillow would read pixel by pixel in Python."""
    from PIL import Image as pillow  # noqa: N813, PLC0415

    tile: Any = image.tile[0]
    _, white = tile.args
    bands = 3 if content[:2] == b"P6" else 1
    kind = np.dtype(">u2" if white > 255 else "u1")
    values = np.frombuffer(content, kind, image.width * image.height * bands, tile.offset)
    if values.max() > white:
        raise BadPicture("the picture is damaged: it has levels beyond its own white")
    # The upper byte, as everywhere, where white is all 16 bits; else the nearest level.
    wide = values.astype(np.uint32)
    levels = (wide >> 8 if white == 65_535 else (wide * 255 + white // 2) // white).astype(np.uint8)
    shape = (image.height, image.width, 3)[: 2 + (bands == 3)]
    return pillow.fromarray(levels.reshape(shape)).convert("RGB")


def _upper_byte(image: "Image") -> Frame:
    """Grey of 9 to 16 bits as (height, width) uint8."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = max(tags.get(_TIFF_BITS, (16,)))
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 1 << bits:
        raise BadPicture("the picture is damaged: it has levels beyond its own white")
    grey: Frame = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # Pillow minds this with 8 bits only.
        np.invert(grey, out=grey)
    return grey


def _turned(frame: Frame, orientation: int) -> Frame:
    """`frame` as it is looked at, by the eight orientations of EXIF 2.3 (tag 274)."""
    turned: Frame = frame
    if orientation in {5, 6, 7, 8}:
        turned = cv2.transpose(turned)
    # After the transposition: 5 needs no more, 6 mirrors across, 8 down, 7 both.
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    if orientation in flips:
        turned = cv2.flip(turned, flips[orientation])
    return turned
