"""The token as a QR code: to print, to keep on a telephone, or to show in the terminal."""

import io
import os
from pathlib import Path
from typing import BinaryIO

import segno

from appliance.errors import ConfigurationError
from appliance.link.messages import TOKEN

BORDER = 4
"""Modules of quiet zone around the symbol (ISO/IEC 18004)."""


def qr_of(token: bytes | bytearray) -> segno.QRCode:
    """The QR code of a token's bytes, error correction M."""
    return segno.make_qr(bytes(token), error="m", mode="byte", boost_error=False)


def png(token: bytes | bytearray, *, side: int = 600) -> bytes:
    """The code as a PNG of about `side` pixels."""
    code = qr_of(token)
    picture = io.BytesIO()
    code.save(picture, kind="png", scale=max(1, side // code.symbol_size(border=BORDER)[0]), border=BORDER)
    return picture.getvalue()


def svg(token: bytes | bytearray) -> bytes:
    """The code as an SVG, 50 mm wide in print; 80 mm where the token carries the template (tier 1)."""
    code = qr_of(token)
    picture = io.BytesIO()
    # At these widths both are read from 20 cm and more; see `scripts/token-size`.
    width = 50 if len(token) <= TOKEN else 80
    code.save(picture, kind="svg", scale=width / code.symbol_size(border=BORDER)[0], unit="mm", border=BORDER)
    return picture.getvalue()


def for_terminal(token: bytes | bytearray) -> str:
    """The code in half-block characters, dark on light, for a terminal of 37 columns; of 77 in tier 1."""
    text = io.StringIO()
    qr_of(token).terminal(out=text, border=BORDER, compact=True)
    return text.getvalue()


def reserve(path: Path) -> BinaryIO:
    """A new file for a token, open for writing, readable by its owner alone.

    Raises:
        ConfigurationError: it exists already, or its folder does not.
    """
    try:
        return os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb"
        )
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be made for the token: {error.strerror or error}; name a new file"
        ) from error
