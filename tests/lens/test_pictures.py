"""Picture files, with the exact pixels that must come out, and the reasons for which none do."""

import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from appliance.errors import DrempelError
from appliance.lens.camera.interface import Frame
from appliance.lens.camera.pictures import (
    ENOUGH,
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    SURROUND,
    BadPicture,
    read_picture,
    read_picture_file,
)
from tests.damaged import Damage, bmp_in_runs, oriented, png, saved, tags, tiff

# Red, green, blue over white, grey, black: no turn or mirroring of it is it again.
COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [128, 128, 128], [0, 0, 0]]], np.uint8
)


def bgr(rgb: Frame) -> Frame:
    return np.ascontiguousarray(rgb[:, :, ::-1])


def grey(levels: Frame) -> Frame:
    return np.repeat(levels[:, :, None], 3, 2)


def is_read_as(content: bytes, expected: Frame) -> None:
    picture = read_picture(content)
    np.testing.assert_array_equal(picture, expected)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.flags.owndata
    assert picture.flags.writeable


def refused(content: bytes, says: str) -> None:
    with pytest.raises(BadPicture, match=says) as refusal:
        read_picture(content)
    assert isinstance(refusal.value, DrempelError)
    assert isinstance(refusal.value, ValueError)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_a_picture_comes_as_blue_green_red(kind: str) -> None:
    is_read_as(saved(Image.fromarray(COLOURS), kind), bgr(COLOURS))


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True}), ("JPEG2000", {}), ("GIF", {})])
def test_other_formats_without_loss_give_the_same(kind: str, options: dict[str, object]) -> None:
    large = COLOURS.repeat(32, 0).repeat(32, 1)
    is_read_as(saved(Image.fromarray(large), kind, **options), bgr(large))


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_formats_with_loss_come_near(kind: str) -> None:
    large = COLOURS.repeat(32, 0).repeat(32, 1)
    picture = read_picture(saved(Image.fromarray(large), kind, quality=95, subsampling="4:4:4"))
    middles = picture[16::32, 16::32].astype(int)
    assert abs(middles - bgr(COLOURS)).max() <= 4


@pytest.mark.models
def test_a_photograph_has_the_pixels_that_opencv_gives_it(portrait_paths: dict[str, Path]) -> None:
    for path in portrait_paths.values():
        np.testing.assert_array_equal(read_picture_file(path), cv2.imread(str(path)))


@pytest.mark.parametrize(
    ("orientation", "rows"),
    [
        (1, ["RGB", "WgK"]),
        (2, ["BGR", "KgW"]),
        (3, ["KgW", "BGR"]),
        (4, ["WgK", "RGB"]),
        (5, ["RW", "Gg", "BK"]),
        (6, ["WR", "gG", "KB"]),
        (7, ["KB", "gG", "WR"]),
        (8, ["BK", "Gg", "RW"]),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_as_its_exif_says(kind: str, orientation: int, rows: list[str]) -> None:
    colour = dict(zip("RGBWgK", COLOURS.reshape(6, 3), strict=True))
    expected = np.array([[colour[letter] for letter in row] for row in rows], np.uint8)
    stored = Image.fromarray(COLOURS.repeat(16, 0).repeat(16, 1))
    if kind == "TIFF":
        content = saved(stored, kind, tiffinfo={274: orientation})
    elif kind == "PNG":
        content = oriented(stored, orientation, kind)
    else:
        content = oriented(stored, orientation, kind, quality=100)
    picture = read_picture(content)
    assert picture.shape == (16 * len(rows), 16 * len(rows[0]), 3)
    # The middles of the squares: a JPEG smears the edges.
    assert abs(picture[8::16, 8::16].astype(int) - bgr(expected)).max() <= 6
    assert picture.flags.c_contiguous
    assert picture.flags.owndata


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    is_read_as(oriented(Image.fromarray(COLOURS), orientation, "PNG"), bgr(COLOURS))


def test_exif_that_is_noise_turns_nothing() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + b"\xff" * 40, b"noise"):
        content = saved(Image.fromarray(COLOURS.repeat(16, 0)), "JPEG", quality=100, exif=exif)
        assert read_picture(content).shape == (32, 3, 3)


DEEP = np.array([[0, 255, 256, 0x7FFF], [0x8000, 0xFEFF, 0xFF00, 0xFFFF]], np.uint16)
UPPER = np.array([[0, 0, 1, 0x7F], [0x80, 0xFE, 0xFF, 0xFF]], np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_of_grey_are_scaled_and_not_clipped(kind: str) -> None:
    is_read_as(saved(Image.fromarray(DEEP), kind), grey(UPPER))


def test_16_bits_of_colour_are_scaled_and_not_clipped() -> None:
    colours = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], 2).astype(">u2")
    expected = bgr(np.stack([UPPER, UPPER[::-1], UPPER[:, ::-1]], 2))
    is_read_as(png(4, 2, 16, 2, b"".join(b"\0" + row.tobytes() for row in colours)), expected)
    is_read_as(b"P6 4 2 65535\n" + colours.tobytes(), expected)
    wide = {**tags(4, 2, 16, 2), 258: ("H", [16, 16, 16]), 277: ("H", [3])}
    is_read_as(tiff(wide, colours.astype("<u2").tobytes()), expected)


def test_a_tiff_in_which_white_is_zero_is_no_negative() -> None:
    is_read_as(tiff(tags(4, 2, 16, 0), DEEP.tobytes()), grey(255 - UPPER))
    is_read_as(tiff(tags(4, 2, 8, 0), UPPER.tobytes()), grey(255 - UPPER))


def test_12_bits_of_grey_fill_all_levels() -> None:
    # 0x000, 0x7FF, 0x800, 0xFFF, two in three bytes.
    packed = bytes.fromhex("0007ff800fff")
    is_read_as(tiff(tags(4, 1, 12), packed), grey(np.array([[0, 0x7F, 0x80, 0xFF]], np.uint8)))


@pytest.mark.parametrize(
    ("white", "level", "read"), [(1023, 512, 128), (15, 7, 119), (200, 100, 128), (65_535, 0x80FF, 128)]
)
def test_a_ppm_has_the_white_that_it_names(white: int, level: int, read: int) -> None:
    kind = ">u2" if white > 255 else "u1"
    content = b"P5\n# a remark\n3 1\n%d\n" % white + np.array([0, level, white], kind).tobytes()
    is_read_as(content, grey(np.array([[0, read, 255]], np.uint8)))
    refused(content[:-1], "cut short")
    if white < 65_535:
        too_white = content[:-1] + b"\xff" if white < 255 else content[:-2] + b"\xff\xff"
        refused(too_white, "beyond its own white")


def test_a_ppm_in_words_is_read() -> None:
    is_read_as(b"P3 3 2 255\n" + b" ".join(b"%d" % level for level in COLOURS.flat), bgr(COLOURS))
    is_read_as(b"P1 3 1 1 0 1", grey(np.array([[0, 255, 0]], np.uint8)))


def test_a_bmp_in_runs_is_read() -> None:
    runs = b"\x03\x14\0\0\0\x03\x01\x02\x03\0\0\0\0\x01"
    is_read_as(bmp_in_runs(3, 2, runs), grey(np.array([[1, 2, 3], [20, 20, 20]], np.uint8)))


def test_grey_becomes_three_equal_channels() -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    for kind in ("PNG", "TIFF", "BMP", "PPM", "GIF"):
        is_read_as(saved(Image.fromarray(levels), kind), grey(levels))
    is_read_as(
        saved(Image.fromarray(levels > 100), "PNG"), grey(np.where(levels > 100, 255, 0).astype(np.uint8))
    )


def test_transparency_is_laid_on_the_surround() -> None:
    alpha = np.array([[0, 255, 51]], np.uint8)
    colours = np.array([[[255, 255, 255], [10, 20, 30], [200, 100, 90]]], np.uint8)
    # A fifth of (200, 100, 90) and four fifths of 90.
    expected = np.array([[[SURROUND] * 3, [30, 20, 10], [90, 92, 112]]], np.uint8)
    clear = Image.fromarray(np.dstack([colours, alpha]))
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        is_read_as(saved(clear, kind, **options), expected)
    pale = Image.fromarray(np.dstack([np.full((1, 3), 200, np.uint8), alpha]), "LA")
    is_read_as(saved(pale, "PNG"), grey(np.array([[SURROUND, 200, 112]], np.uint8)))


def test_a_palette_is_looked_up_and_its_transparent_colour_laid_on_the_surround() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 7, 8, 9])
    image.putdata([2, 0, 1])
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        is_read_as(saved(image, kind), np.array([[[9, 8, 7], [0, 0, 255], [0, 255, 0]]], np.uint8))
    for kind in ("PNG", "GIF"):
        content = saved(image, kind, transparency=0)
        is_read_as(content, np.array([[[9, 8, 7], [SURROUND] * 3, [0, 255, 0]]], np.uint8))
    half = saved(image, "PNG", transparency=b"\xff\xff\x00")
    is_read_as(half, np.array([[[SURROUND] * 3, [0, 0, 255], [0, 255, 0]]], np.uint8))


def test_a_colour_that_a_png_names_as_transparent_is() -> None:
    rows = b"\0\x01\x02\x03\x04\x05\x06"
    named = png(2, 1, 8, 2, rows, (b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    is_read_as(named, np.array([[[SURROUND] * 3, [6, 5, 4]]], np.uint8))


def test_cmyk_is_ink_on_white() -> None:
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    expected = np.array([[[255, 255, 255], [255, 255, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)
    is_read_as(saved(Image.fromarray(ink, "CMYK"), "TIFF"), expected)
    large = Image.fromarray(ink.repeat(32, 0).repeat(32, 1), "CMYK")
    read = read_picture(saved(large, "JPEG", quality=100))[16, 16::32]
    assert abs(read.astype(int) - expected[0]).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture_is_read(kind: str) -> None:
    pages = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(pages[0], kind, save_all=True, append_images=pages[1:], **options)
    is_read_as(content, np.full((16, 16, 3), (0, 0, 255), np.uint8))


def test_a_pair_for_3d_gives_its_first_picture() -> None:
    pages = [Image.new("RGB", (32, 32), level) for level in ((90, 90, 90), (200, 200, 200))]
    is_read_as(
        saved(pages[0], "MPO", save_all=True, append_images=pages[1:]), np.full((32, 32, 3), 90, np.uint8)
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_pictures_are_pictures(size: tuple[int, int]) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000"):
        picture = read_picture(saved(Image.new("RGB", size, (90, 90, 90)), kind))
        assert picture.shape == (size[1], size[0], 3)
        assert abs(picture.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(
    ("value", "kind", "bits", "sample"),
    [
        (np.nan, "<f4", 32, 3),
        (np.inf, "<f4", 32, 3),
        (0.5, "<f4", 32, 3),
        (9, "<i4", 32, 2),
        (9, "<u4", 32, 1),
    ],
)
def test_numbers_without_an_agreed_white_are_refused(value: float, kind: str, bits: int, sample: int) -> None:
    pixels = np.full((2, 2), value, kind).tobytes()
    refused(tiff(tags(2, 2, bits, t339=sample), pixels), "white is not agreed")
    refused(b"Pf\n2 2\n-1.0\n" + np.full((2, 2), value, "<f4").tobytes(), "white is not agreed")


def test_no_bytes_are_no_picture() -> None:
    refused(b"", "empty")


def test_what_is_no_picture_is_told_by_its_kind_and_never_repeated() -> None:
    for content in (
        b"hello secret",
        b"\0" * 500,
        b"<svg/>secret",
        b"%PDF-1.4 secret",
        b"\xff\xd8secret",
        b"BMsecret",
    ):
        refused(content, "no whole picture of a format that is read here|cut short or damaged")
        with pytest.raises(BadPicture) as refusal:
            read_picture(content)
        assert "secret" not in str(refusal.value)
        assert refusal.value.__cause__ is None
    refused(b"\0\0\0\x20ftypheic\0\0\0\0mif1heic", "HEIC")


def test_a_file_that_was_cut_short_is_refused_or_lacks_nothing(portrait: Frame) -> None:
    refusals = 0
    for name, content in Damage(portrait).files.items():
        if name in {
            "tiff float",
            "ppm words",
        }:  # refused as it is; and the last word may be cut in the middle
            continue
        whole = read_picture(content)
        places = {
            *range(0, len(content), max(1, len(content) // 40)),
            *range(len(content) - 16, len(content)),
        }
        for place in places:
            try:
                picture = read_picture(content[:place])
            except BadPicture:
                refusals += 1
            else:
                np.testing.assert_array_equal(picture, whole, f"{name} cut at {place} of {len(content)}")
        # Its first half never is a picture, unless the rest is another.
        if name not in {"png animated", "gif animated", "tiff pages"}:
            refused(content[: len(content) // 2], "cut short|no whole picture")
    assert refusals > 1000


def test_another_picture_in_the_midst_of_a_jpeg_is_seen(portrait: Frame) -> None:
    content = saved(Image.fromarray(portrait), "JPEG")
    refused(content[: len(content) // 2] + content, "another one begins inside it")
    # One after it is none of our affair, and so is one in its metadata.
    np.testing.assert_array_equal(read_picture(content + content), read_picture(content))
    thumbnail = b"Exif\0\0" + content[:3000]
    holding = content[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]
    np.testing.assert_array_equal(read_picture(holding), read_picture(content))


def test_a_flipped_bit_in_a_png_is_seen() -> None:
    rows = b"".join(b"\0" + bytes(range(row, row + 30)) for row in range(10))
    content = png(10, 10, 8, 2, rows)
    start = content.index(b"IDAT") + 4
    stored = zlib.compress(rows, 0)
    end = start + struct.unpack(">I", content[start - 8 : start - 4])[0]
    plain = content[: start - 8] + struct.pack(">I", len(stored)) + b"IDAT" + stored
    plain += struct.pack(">I", zlib.crc32(b"IDAT" + stored)) + content[end + 4 :]
    assert read_picture(plain)[5, 1, 2] == 8
    place = plain.index(bytes(range(5, 35))) + 3
    refused(plain[:place] + bytes([plain[place] ^ 64]) + plain[place + 1 :], "damaged")


@pytest.mark.parametrize(
    "size", [(0xFFFF, 0xFFFF), (60_000, 1), (1, MAX_SIDE + 1), (5001, 5000), (0x7FFFFFFF, 3)]
)
def test_a_bomb_is_refused_from_its_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: Image.Image) -> None:
        pytest.fail("it was decoded")

    for plugin in ("Png", "Tiff", "WebP", "Gif", "Bmp"):
        module = __import__(f"PIL.{plugin}ImagePlugin", fromlist=["x"])
        for name in vars(module):
            if name.endswith("ImageFile") and name != "ImageFile":
                monkeypatch.setattr(getattr(module, name), "load", decode)
    width, height = size
    short = struct.pack("<HH", min(width, 0xFFFF), min(height, 0xFFFF))
    canvas = b"".join(((side - 1) & 0xFFFFFF).to_bytes(3, "little") for side in size)
    for content in (
        png(width, height, 8, 2, bytes(100_000)),
        tiff({**tags(1, 1, 8), 256: ("I", [width]), 257: ("I", [height])}, bytes(100)),
        b"GIF89a" + short + b"\0\0\0," + b"\0\0\0\0" + short + b"\0\2\2\x4c\1\0;",
        b"BM"
        + bytes(12)
        + struct.pack("<IIIHHIIIIII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(99),
        b"P6 %d %d 255\n" % size + bytes(99),
        b"RIFF\xff\xff\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + canvas + bytes(99),
    ):
        refused(content, "are read|far too large")


def test_a_webp_of_another_kind_is_a_bomb_as_well() -> None:
    lossless = saved(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
    word = struct.unpack("<I", lossless[21:25])[0] & ~0xFFFFFFF | 16_382 | 16_382 << 14
    refused(lossless[:21] + struct.pack("<I", word) + lossless[25:], "are read")
    lossy = saved(Image.new("RGB", (8, 8)), "WEBP")
    at = lossy.index(b"\x9d\x01\x2a") + 3
    refused(lossy[:at] + struct.pack("<HH", 16_383, 16_383) + lossy[at + 4 :], "are read|cut short")


def test_a_file_larger_than_the_limit_is_refused_unread() -> None:
    refused(bytes(MAX_BYTES + 1), "at most 32 MiB")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8" + b"\xff\xfe\0\2" * 10_000,
        b"\xff\xd8" + b"\xff\xda\0\2" * 100,
        b"GIF89a\x08\0\x08\0\0\0\0!\xfe" + b"\x01a" * 500_000,
        png(8, 8, 8, 2, bytes(200), *[(b"tEXt", b"")] * 200_000),
        tiff({**tags(9, 9, 8), 324: ("I", [8] * 100_000), 325: ("I", [1] * 100_000)}, bytes(99)),
    ],
    ids=["segments", "scans", "remarks", "chunks", "tiles"],
)
def test_a_file_that_is_nothing_but_pieces_is_refused(content: bytes) -> None:
    refused(content, "too many pieces")


def test_slow_forms_are_read_only_when_small() -> None:
    refused(b"P3 1000 1000 255\n" + b"1 " * 3_000_000, "slow")
    refused(bmp_in_runs(2000, 2000, b"\x01\x01" * 300_000), "slow")


@pytest.mark.parametrize(
    ("kind", "size", "read"),
    [
        ("JPEG", (8192, 6144), (2048, 1536)),
        ("JPEG", (6144, 8192), (1536, 2048)),
        ("JPEG", (4801, 2401), (2401, 1201)),
        ("JPEG", (9000, 2399), (9000, 2399)),
        ("PNG", (5000, 4000), (2500, 2000)),
        ("PNG", (5000, 4800), (1250, 1200)),
        ("WEBP", (2400, 3000), (1200, 1500)),
    ],
)
def test_large_photographs_become_smaller_and_keep_enough(
    kind: str, size: tuple[int, int], read: tuple[int, int]
) -> None:
    picture = read_picture(saved(Image.new("RGB", size, (20, 90, 200)), kind))
    assert (picture.shape[1], picture.shape[0]) == read
    assert min(picture.shape[:2]) >= ENOUGH
    assert abs(picture[::16, ::16].astype(int) - (200, 90, 20)).max() <= 4


def test_the_largest_that_is_allowed_is_read_and_a_little_more_is_not() -> None:
    side = 5000
    assert side * side == MAX_PIXELS
    assert read_picture(saved(Image.new("L", (side, side)), "PNG")).shape == (1250, 1250, 3)
    refused(saved(Image.new("L", (side, side + 1)), "PNG"), "at most 25 million")


def test_no_warning_of_a_decoder_comes_through_and_filters_are_as_before(portrait: Frame) -> None:
    content = saved(Image.fromarray(portrait), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x09" * 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        read_picture(content)
        assert warnings.filters == filters
    assert caught == []


def test_a_damaged_tiff_writes_nothing_to_the_terminal(portrait: Frame) -> None:
    content = saved(Image.fromarray(portrait), "TIFF", compression="tiff_lzw")
    broken = [content[:place] + b"\xff" * 200 + content[place + 200 :] for place in range(100, 100_000, 5000)]
    broken.append(tiff({**tags(9, 9, 8), 277: ("H", [68])}, bytes(99)))
    # A process of its own: pytest has handlers that keep a logger from writing to stderr.
    reading = (
        "import sys\n"
        "from appliance.lens.camera.pictures import BadPicture, read_picture\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        read_picture(bytes.fromhex(line))\n"
        "    except BadPicture as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", reading],
        input="\n".join(each.hex() for each in broken),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) > 3


def test_a_file_is_read_whatever_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(saved(Image.fromarray(COLOURS), "PNG"))
    np.testing.assert_array_equal(read_picture_file(path), bgr(COLOURS))


def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    for name, says in {
        "pipe.jpg": "no regular file",
        "empty.jpg": "no bytes",
        "folder.jpg": "no regular file|cannot be read",
        "loop.jpg": "cannot be read",
        "none.jpg": "No such file",
        "huge.jpg": "at most 32 MiB",
    }.items():
        with pytest.raises(BadPicture, match=says):
            read_picture_file(tmp_path / name)


@pytest.fixture
def portrait() -> Frame:
    """Something with detail, (200, 240, 3)."""
    rng = np.random.default_rng(5)
    blots = rng.integers(0, 256, (20, 24, 3), np.uint8)
    return np.asarray(cv2.resize(blots, (240, 200), interpolation=cv2.INTER_CUBIC), np.uint8)
