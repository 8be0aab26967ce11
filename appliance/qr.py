"""The token as a QR code: to print, to keep on a telephone, or to show in the terminal."""

import io
from pathlib import Path

import segno

BORDER = 4
"""Modules of quiet zone around the symbol (ISO/IEC 18004)."""


def qr_of(token: bytes | bytearray) -> segno.QRCode:
    """The QR code of a token's bytes, error correction M."""
    return segno.make_qr(bytes(token), error="m", mode="byte", boost_error=False)


def write_png(token: bytes | bytearray, path: Path, *, side: int = 600) -> None:
    """Write the code as a PNG of about `side` pixels, readable by its owner alone."""
    code = qr_of(token)
    scale = max(1, side // code.symbol_size(border=BORDER)[0])
    picture = io.BytesIO()
    code.save(picture, kind="png", scale=scale, border=BORDER)
    _write_private(path, picture.getvalue())


def write_svg(token: bytes | bytearray, path: Path) -> None:
    """Write the code as an SVG, 50 mm wide in print, readable by its owner alone."""
    code = qr_of(token)
    picture = io.BytesIO()
    scale = 50 / code.symbol_size(border=BORDER)[0]
    code.save(picture, kind="svg", scale=scale, unit="mm", border=BORDER)
    _write_private(path, picture.getvalue())


def for_terminal(token: bytes | bytearray) -> str:
    """The code in half-block characters, dark on light, for a terminal of at least 45 columns."""
    text = io.StringIO()
    qr_of(token).terminal(out=text, border=BORDER, compact=True)
    return text.getvalue()


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600, exist_ok=True)
    path.chmod(0o600)
    path.write_bytes(data)
