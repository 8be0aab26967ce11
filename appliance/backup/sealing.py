"""A backup file sealed under a passphrase: Argon2id for the key, AES-256-GCM in pieces for the content.

The file is `header ‖ piece ‖ piece ‖ …`. The header is `"drempel backup" ‖ version (1 byte) ‖ salt (16)`.
The key is `Argon2id(passphrase, salt)` with 64 MiB of memory, 3 passes and 1 lane: the second choice that
RFC 9106 §4 recommends, with one lane for its four. The version stands for these parameters, so that no file
can ask for others.

The pieces are those of STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance, CRYPTO 2015): each holds 64 KiB of content, the last whatever is left, maybe
nothing. The nonce of a piece is `number (11 bytes) ‖ last (1 byte, 1 for the last piece)`. The salt is random
and new for each file, so the key is, so no nonce is used twice under it. A piece that was changed, moved or
left out does not open; in a file that was cut short the last piece does not say that it is the last. Each
piece has the header as its associated data.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from appliance.errors import ConfigurationError, DrempelError

VERSION = 1
"""Of this layout and of the parameters below."""
MEMORY_KIB = 64 * 1024
"""Argon2id: KiB of memory."""
PASSES = 3
"""Argon2id: passes over it."""
LANES = 1
"""Argon2id: lanes."""
LEAST = 12
"""Characters of the shortest passphrase: five words have far more."""
PIECE = 64 * 1024
"""Bytes of content in a piece."""
_MAGIC = b"drempel backup"
_SALT = 16
_TAG = 16
_HEADER = len(_MAGIC) + 1 + _SALT


class BackupUnreadable(DrempelError, ValueError):
    """The file is no backup, is damaged or cut short, or the passphrase is wrong; nothing of it was used."""


def seal(content: bytearray, passphrase: bytearray, path: Path) -> None:
    """Write `content` sealed to a new file at `path`, durably, for its owner alone.

    Raises:
        ConfigurationError: the passphrase is short, or `path` exists or cannot be written; nothing is there.
    """
    if len(passphrase.decode(errors="replace")) < LEAST:
        raise ConfigurationError(
            f"a passphrase has {LEAST} characters or more, since whoever finds the file may try as many as "
            "they like: take five random words"
        )
    header = _MAGIC + bytes([VERSION]) + secrets.token_bytes(_SALT)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists, and is not overwritten: name a new file") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header)
            for piece in _sealed(content, _cipher(passphrase, header), header):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError):
            raise ConfigurationError(
                f"{path} cannot be written: {error.strerror or error}; free some space, or name another place"
            ) from error
        raise


def unseal(path: Path, passphrase: bytearray) -> bytearray:
    """The content of the backup at `path`: all of it authentic, or none.

    Raises:
        ConfigurationError: there is no such file, or it cannot be read.
        BackupUnreadable: see there.
    """
    try:
        sealed = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    header = sealed[:_HEADER]
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise BackupUnreadable(f"{path} is no backup of Drempel: name the file that `drempel backup` wrote")
    if header[len(_MAGIC)] != VERSION:
        raise BackupUnreadable(f"{path} was made by another version of Drempel: upgrade this one")
    cipher = _cipher(passphrase, header)
    content = bytearray()
    body = memoryview(sealed)[_HEADER:]
    try:
        for number in range(max(1, -(-len(body) // (PIECE + _TAG)))):
            piece = body[number * (PIECE + _TAG) : (number + 1) * (PIECE + _TAG)]
            last = (number + 1) * (PIECE + _TAG) >= len(body)
            content += cipher.decrypt(_nonce(number, last=last), piece, header)
    except InvalidTag:
        content[:] = bytes(len(content))
        # Which of the two it is, nobody can tell without the right passphrase.
        raise BackupUnreadable(
            f"{path} does not open: the passphrase is wrong, or the file is damaged or cut short; nothing "
            "was changed"
        ) from None
    return content


def _sealed(content: bytearray, cipher: AESGCM, header: bytes) -> Iterator[bytes]:
    pieces = max(1, -(-len(content) // PIECE))
    for number in range(pieces):
        piece = memoryview(content)[number * PIECE : (number + 1) * PIECE]
        yield cipher.encrypt(_nonce(number, last=number == pieces - 1), piece, header)


def _cipher(passphrase: bytearray, header: bytes) -> AESGCM:
    key = bytearray(32)
    salt = header[-_SALT:]
    brake = Argon2id(salt=salt, length=len(key), iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)
    brake.derive_into(passphrase, key)  # type: ignore[arg-type] # any buffer will do; its stub knows bytes only
    try:
        return AESGCM(key)
    finally:
        key[:] = bytes(len(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11) + bytes([last])
