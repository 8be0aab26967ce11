"""Picture files and frames as no camera and no program should give them, each from a number alone.

`whole_files` makes one valid file of every kind that `read_picture` knows; `damaged_file` takes the number of
a case and breaks one of them. The same number gives the same bytes wherever Pillow has the same version.
"""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from appliance.lens.camera.interface import Frame

SIDE = 192
"""Pixels of the portrait in a whole file: enough for a face that passes the gates."""
MAGIC = (
    b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"RIFF\xff\xff\0\0WEBPVP8 ",
    b"RIFF\xff\xff\0\0WEBPVP8L",
    b"RIFF\xff\xff\0\0WEBPVP8X\n\0\0\0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    b"BM",
    b"GIF89a",
    b"P6 64 64 255\n",
    b"P3 9 9 255\n",
    b"\0\0\0\x20ftypavif\0\0\0\0avif",
    b"\0\0\0\x20ftypheic\0\0\0\0heic",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
)
LARGEST = (
    (0xFFFF, 0xFFFF),
    (0x7FFFFFFF, 0x7FFFFFFF),
    (16_384, 16_384),
    (60_000, 1),
    (1, 60_000),
    (0, 0),
    (0, 9),
)
"""Widths and heights that a header is made to declare."""

Rng = np.random.Generator


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """`image` as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(image: Image.Image, orientation: int, kind: str = "JPEG", **options: object) -> bytes:
    """`image` as a file whose EXIF says how to turn it."""
    exif = Image.Exif()
    exif[274] = orientation
    return saved(image, kind, exif=exif.tobytes(), **options)


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *between: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `rows` begin with their filter's byte each; `between` header and data go others."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *between, (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(tags: dict[int, tuple[str, list[int]]], pixels: bytes) -> bytes:
    """A little-endian TIFF by hand: the pixels at offset 8, then one directory.

    Args:
        tags: number to (`H` or `I`, values); width, height and whatever else the picture needs.
        pixels: of one strip.
    """
    tags = {**tags, 273: ("I", [8]), 279: ("I", [len(pixels)])}
    start = 8 + len(pixels)
    beyond = start + 2 + 12 * len(tags) + 4
    directory, extra = struct.pack("<H", len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"<{len(values)}{kind}", *values)
        where = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", beyond + len(extra))
        extra += raw if len(raw) > 4 else b""
        directory += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + where
    return b"II*\0" + struct.pack("<I", start) + pixels + directory + b"\0\0\0\0" + extra


def tags(
    width: int, height: int, bits: int, photometric: int = 1, **more: int
) -> dict[int, tuple[str, list[int]]]:
    """The tags of a grey TIFF without compression; `t339=3` adds tag 339."""
    plain = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
    plain |= {int(name[1:]): value for name, value in more.items()}
    return {tag: ("H", [value]) for tag, value in plain.items()}


def bmp_in_runs(width: int, height: int, runs: bytes) -> bytes:
    """An 8-bit BMP in run-length encoding, with a grey palette."""
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    at = 54 + len(palette)
    header = struct.pack("<IIiiHHIIiiII", at, 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHH", at + len(runs), 0, 0) + header + palette + runs


def whole_files(portrait: Frame) -> dict[str, bytes]:
    """A valid file of every kind, by name, all of `portrait` (height, width, 3) uint8, BGR."""
    square = cv2.resize(portrait, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    image = Image.fromarray(cv2.cvtColor(square, cv2.COLOR_BGR2RGB))
    grey = image.convert("L")
    deep = np.asarray(grey).astype(np.uint16) * 257
    clear = image.copy()
    clear.putalpha(grey)
    small = image.resize((48, 48))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.asarray(image).astype(np.uint16) * 257)
    floats = np.asarray(grey).astype("<f4")
    floats[::7] = np.nan
    frames = [small, small.rotate(90), small.rotate(180)]
    words = b" ".join(b"%d" % level for level in np.asarray(small).flat)
    lines = (row.tobytes() for row in np.asarray(small.convert("L"))[::-1])
    runs = b"".join(b"".join(b"\1%c" % level for level in line) + b"\0\0" for line in lines) + b"\0\1"
    return {
        "jpeg": saved(image, "JPEG", quality=90),
        "jpeg progressive": saved(image, "JPEG", progressive=True, optimize=True),
        "jpeg grey": saved(grey, "JPEG"),
        "jpeg cmyk": saved(image.convert("CMYK"), "JPEG"),
        "jpeg turned": oriented(image.rotate(90), 6),
        "jpeg mirrored": oriented(image, 5, quality=80, restart_marker_rows=1),
        "png": saved(image, "PNG"),
        "png grey": saved(grey, "PNG"),
        "png grey 16": saved(Image.fromarray(deep), "PNG"),
        "png 16": png(SIDE, SIDE, 16, 2, rows),
        "png alpha": saved(clear, "PNG"),
        "png grey alpha": saved(clear.convert("LA"), "PNG"),
        "png palette": saved(image.quantize(64), "PNG", transparency=3),
        "png one bit": saved(image.convert("1"), "PNG"),
        "png turned": oriented(image, 3, "PNG"),
        "png animated": saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "webp": saved(image, "WEBP", quality=80, method=0),
        "webp lossless": saved(small, "WEBP", lossless=True),
        "webp alpha": saved(clear, "WEBP", method=0),
        "webp animated": saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0),
        "webp turned": oriented(image, 8, "WEBP", method=0),
        "tiff": saved(image, "TIFF"),
        "tiff lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(clear, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": saved(image, "TIFF", compression="jpeg"),
        "tiff fax": saved(image.convert("1"), "TIFF", compression="group4"),
        "tiff 16": saved(Image.fromarray(deep), "TIFF"),
        "tiff big": saved(image, "TIFF", big_tiff=True),
        "tiff cmyk": saved(image.convert("CMYK"), "TIFF"),
        "tiff turned": saved(image, "TIFF", tiffinfo={274: 7}),
        "tiff float": tiff(tags(SIDE, SIDE, 32, t339=3), floats.tobytes()),
        "tiff pages": saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "bmp": saved(image, "BMP"),
        "bmp palette": saved(grey, "BMP"),
        "bmp runs": bmp_in_runs(48, 48, runs),
        "gif": saved(image, "GIF"),
        "gif animated": saved(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=1),
        "ppm": saved(image, "PPM"),
        "pgm": saved(grey, "PPM"),
        "pgm 16": b"P5\n%d %d\n65535\n" % (SIDE, SIDE) + deep.astype(">u2").tobytes(),
        "ppm 10": b"P6 48 48 1023\n" + (np.asarray(small).astype(np.uint16) * 4).astype(">u2").tobytes(),
        "ppm words": b"P3\n48 48\n255\n" + words,
        "avif": saved(image, "AVIF", speed=10),
        "avif turned": oriented(small, 6, "AVIF", speed=10),
        "jpeg 2000": saved(image, "JPEG2000", irreversible=True),
        "jpeg 2000 grey": saved(grey, "JPEG2000", no_jp2=True),
    }


class Damage:
    """Breaks files; made once, since it holds a whole file of every kind."""

    def __init__(self, portrait: Frame) -> None:
        self.files = whole_files(portrait)
        self._names = sorted(self.files)
        self._kinds: dict[str, Callable[[Rng, bytes], bytes]] = {
            "whole": lambda _, content: content,
            "bits flipped": _flip,
            "bits flipped in the header": _flip_header,
            "cut short": _cut,
            "cut short and closed": lambda rng, content: _cut(rng, content) + b"\xff\xd9",
            "size changed": _resize,
            "huge": _declare_huge,
            "parts swapped": _swap,
            "part repeated": _repeat,
            "part zeroed": _zero,
            "noise inserted": _insert,
            "joined": self._join,
            "magic and noise": lambda rng, _: (
                MAGIC[rng.integers(len(MAGIC))] + rng.bytes(int(rng.integers(5000)))
            ),
            "noise": lambda rng, _: rng.bytes(int(rng.integers(1, 5000))),
            "exif garbage": self._exif,
            "zero size": lambda _rng, _content: b"",
            "tiny": _tiny,
            "large": _large,
        }

    def file(self, number: int) -> tuple[str, str, bytes]:
        """Case `number`: what was done, to which file, and what came of it."""
        rng = np.random.default_rng(number)
        kind = list(self._kinds)[number % len(self._kinds)]
        # Large files are few: each is as much work as a hundred others.
        if kind == "large" and number // len(self._kinds) % 8:
            kind = "cut short"
        name = self._names[rng.integers(len(self._names))]
        return kind, name, self._kinds[kind](rng, self.files[name])

    def _join(self, rng: Rng, content: bytes) -> bytes:
        other = self.files[self._names[rng.integers(len(self._names))]]
        return _cut(rng, content) + other[int(rng.integers(2)) * int(rng.integers(len(other))) :]

    def _exif(self, rng: Rng, _: bytes) -> bytes:
        """EXIF that is noise, or points to where nothing is, in a sound picture."""
        exif = bytearray(b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", int(rng.integers(9))))
        for _entry in range(int(rng.integers(9))):
            tag = int(rng.choice([274, 0x8769, 0x8825, 0x9286, 270, 513, 700]))
            exif += struct.pack("<HHII", tag, *(int(rng.integers(high)) for high in (16, 1 << 32, 1 << 32)))
        exif += rng.bytes(int(rng.integers(60)))
        file = self.files[str(rng.choice(["jpeg", "jpeg turned", "jpeg grey"]))]
        return file[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + bytes(exif) + file[2:]


def _place(rng: Rng, content: bytes) -> int:
    """A place in a file: near its beginning, near its end, or anywhere."""
    anywhere, near = int(rng.integers(len(content))), int(rng.integers(min(64, len(content))))
    return (anywhere, near, len(content) - 1 - near)[rng.integers(3)]


def _flip(rng: Rng, content: bytes) -> bytes:
    broken = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def _flip_header(rng: Rng, content: bytes) -> bytes:
    head = min(len(content), 128)
    return _flip(rng, content[:head]) + content[head:]


def _cut(rng: Rng, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _resize(rng: Rng, content: bytes) -> bytes:
    """Every place where the side is written says another."""
    new = int(rng.choice([0, 1, 2, SIDE - 1, SIDE + 1, 1000, 4000, 0xFFFF]))
    for form in (">H", "<H"):
        old = struct.pack(form, SIDE)
        if rng.integers(2) and old in content[:400]:
            content = content[:400].replace(old, struct.pack(form, new), 1) + content[400:]
    return content.replace(str(SIDE).encode(), str(new).encode(), 1)


def _declare_huge(rng: Rng, _: bytes) -> bytes:
    """A header that declares far more than there is."""
    width, height = LARGEST[rng.integers(len(LARGEST))]
    short = (min(width, 0xFFFF), min(height, 0xFFFF))
    data = zlib.compress(bytes(200_000))
    jpeg = (
        b"\xff\xd8\xff\xc0\0\x11\x08"
        + struct.pack(">HH", *short)
        + b"\3\1\x22\0\2\x11\1\3\x11\1\xff\xda\0\x0c"
    )
    canvas = b"\0\0\0\0" + b"".join((side & 0xFFFFFF).to_bytes(3, "little") for side in (width, height))
    forms = (
        png(width, height, 8, 2, bytes(200_000)),
        png(width, height, 16, 6, bytes(200_000), (b"tEXt", b"a\0" + bytes(1000))),
        jpeg + rng.bytes(400),
        b"GIF89a"
        + struct.pack("<HH", *short)
        + b"\0\0\0,"
        + struct.pack("<HHHH", 0, 0, *short)
        + b"\0\2\2\x4c\1\0;",
        saved(Image.new("L", (2, 2)), "BMP")[:18] + struct.pack("<II", width, height) + bytes(2000),
        b"P6 %d %d 255\n" % (width, height) + bytes(300),
        b"P3 %d %d 255\n" % (width, height) + b"1 " * 300,
        b"RIFF\xff\xff\0\0WEBPVP8X\n\0\0\0" + canvas + b"VP8 " + rng.bytes(300),
        tiff(
            {**tags(1, 1, 8), 256: ("I", [width]), 257: ("I", [height]), 278: ("I", [height])},
            data[:200],
        ),
        bmp_in_runs(min(width, 30_000), min(height, 30_000), b"\xff\x07" * 500),
    )
    return forms[rng.integers(len(forms))]


def _swap(rng: Rng, content: bytes) -> bytes:
    one, two, three = sorted(_place(rng, content) for _ in range(3))
    return content[:one] + content[two:three] + content[one:two] + content[three:]


def _repeat(rng: Rng, content: bytes) -> bytes:
    start, end = sorted(_place(rng, content) for _ in range(2))
    return content[:end] + content[start:end][:2000] * int(rng.integers(2, 40)) + content[end:]


def _zero(rng: Rng, content: bytes) -> bytes:
    start, end = sorted(_place(rng, content) for _ in range(2))
    return content[:start] + bytes(end - start) + content[end:]


def _insert(rng: Rng, content: bytes) -> bytes:
    place = _place(rng, content)
    return content[:place] + rng.bytes(int(rng.integers(1, 400))) + content[place:]


def _tiny(rng: Rng, _: bytes) -> bytes:
    size = [(1, 1), (1, 2), (2, 1), (1, 400), (400, 1), (3, 3), (15, 16)][rng.integers(7)]
    mode = str(rng.choice(["L", "RGB", "RGBA", "P", "1", "CMYK"]))
    kind = "TIFF" if mode == "CMYK" else str(rng.choice(["PNG", "TIFF", "GIF", "WEBP"]))
    return saved(Image.new(mode, size, int(rng.integers(2))), kind)


def _large(rng: Rng, _: bytes) -> bytes:
    """As large as a photograph gets, whole or cut short: 12 million pixels of one colour, or a long strip."""
    size = [(4000, 3000), (3000, 4000), (16_383, 700), (2, 16_383)][rng.integers(4)]
    kind = str(rng.choice(["JPEG", "PNG", "WEBP", "TIFF", "GIF"]))
    content = saved(Image.new("RGB", size, (200, 120, 90)), kind)
    return content if rng.integers(2) else _cut(rng, content)


def odd_frame(number: int) -> tuple[str, npt.NDArray[np.generic], bool]:
    """Frame `number`: what it is, the array, and whether it is one that every step must take."""
    rng = np.random.default_rng(number)
    height, width = (int(rng.choice([1, 2, 3, 15, 16, 17, 100, 479, 700])) for _ in range(2))
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    wide = rng.integers(0, 256, (2 * height, 2 * width, 6), np.uint8)
    frames: list[tuple[str, npt.NDArray[np.generic], bool]] = [
        ("noise", noise, True),
        ("black", np.zeros_like(noise), True),
        ("white", np.full_like(noise, 255), True),
        ("every second pixel of a larger one", wide[::2, ::2, ::2], True),
        ("upside down, mirrored and RGB", noise[::-1, ::-1, ::-1], True),
        ("transposed", noise.transpose(1, 0, 2), True),
        ("a long strip", rng.integers(0, 256, (1, 32_766, 3), np.uint8), True),
        ("a tall strip", rng.integers(0, 256, (32_766, 17, 3), np.uint8), True),
        ("Fortran's order", np.asfortranarray(noise), True),
        ("huge", np.full((4320, 7680, 3), int(rng.integers(256)), np.uint8), True),
        ("too long", np.zeros((1, 32_767, 3), np.uint8), False),
        ("empty", noise[:0], False),
        ("grey", noise[:, :, 0], False),
        ("with alpha", wide[:, :, :4], False),
        ("floating point", noise.astype(np.float32), False),
        ("floating point, not a number", np.full(noise.shape, np.nan, np.float32), False),
        ("16 bits", noise.astype(np.uint16), False),
        ("signed", noise.astype(np.int8), False),
        ("a row of bytes", noise.reshape(1, -1), False),
        ("four dimensions", noise[None], False),
    ]
    return frames[number % len(frames)]
