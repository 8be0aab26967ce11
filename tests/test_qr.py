import io
import os
import secrets
from pathlib import Path

import cv2
import numpy as np
import pytest
import zxingcpp

from appliance.errors import ConfigurationError
from appliance.link.messages import (
    TOKEN,
)
from appliance.qr import for_terminal, png, qr_of, reserve, svg
from appliance.vault.token import Token


@pytest.fixture
def token() -> bytes:
    return bytes(Token.create(secrets.token_bytes(16)).encode())


def test_a_token_fits_a_small_symbol_that_a_telephone_shows_large(token: bytes) -> None:
    code = qr_of(token)
    assert len(token) == TOKEN
    assert code.version == 3
    assert code.error == "M"


@pytest.mark.parametrize("seed", range(5))
def test_what_the_png_holds_is_the_token_byte_for_byte(tmp_path: Path, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(TOKEN)
    path = tmp_path / "token.png"
    path.write_bytes(png(bytearray(data)))
    (read,) = zxingcpp.read_barcodes(cv2.imread(str(path)))
    assert read.bytes == data


def test_the_png_has_a_quiet_zone_and_about_the_side_that_was_asked(tmp_path: Path, token: bytes) -> None:
    path = tmp_path / "token.png"
    path.write_bytes(png(token, side=600))
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    modules = 29 + 2 * 4
    scale = picture.shape[0] // modules
    assert picture.shape == (scale * modules, scale * modules)
    assert 600 - modules < picture.shape[0] <= 600
    edge = np.ones_like(picture, dtype=bool)
    edge[4 * scale : -4 * scale, 4 * scale : -4 * scale] = False
    assert (picture[edge] == 255).all()
    assert (picture[~edge] == 0).any()


def test_the_svg_prints_fifty_millimetres_wide(token: bytes) -> None:
    text = svg(token).decode()
    assert 'width="50' in text
    assert "mm" in text


def test_a_token_file_is_new_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token.png"
    mask = os.umask(0)
    try:
        with reserve(path) as file:
            file.write(b"x")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="name a new file"):
        reserve(path)


def test_a_token_is_never_written_through_a_link_or_into_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "link", tmp_path / "missing" / "token.png"):
        with pytest.raises(ConfigurationError):
            reserve(path)
    assert not (tmp_path / "elsewhere").exists()


def test_what_the_terminal_shows_is_the_token(token: bytes) -> None:
    lines = [line for line in for_terminal(token).splitlines() if line]
    halves = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    rows: list[list[int]] = []
    for line in lines:
        plain = "".join(letter for letter in line if letter in halves)
        rows.append([halves[letter][0] for letter in plain])
        rows.append([halves[letter][1] for letter in plain])
    width = max(len(row) for row in rows)
    assert width <= 45
    lit = np.array([row + [1] * (width - len(row)) for row in rows], np.uint8)
    picture = np.kron(lit * 255, np.ones((8, 8), np.uint8)).astype(np.uint8)
    padded = np.pad(picture, 64, constant_values=255)
    (read,) = zxingcpp.read_barcodes(padded)
    assert read.bytes == token


def test_a_code_says_nothing_but_the_token(token: bytes) -> None:
    text = io.StringIO()
    qr_of(token).save(buffer := io.BytesIO(), kind="svg")
    text.write(buffer.getvalue().decode())
    assert token.hex() not in text.getvalue()
    assert "title" not in text.getvalue()
