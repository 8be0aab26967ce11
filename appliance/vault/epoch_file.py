"""The file of an epoch's key: its names, its format, and what opens it (design §4).

`epoch-N.key` holds `E_N ‖ device id ‖ index key`, sealed by AES-256-GCM. The key that seals it is

    HKDF-SHA256(W ‖ T, info = "drempel epoch file v2"),  W = HKDF-SHA256(R, info = "drempel epoch seal v2")

where `T` is the secret of that epoch in the TPM, and empty where there is none. The associated data say the
format, whether `T` is in it, and the epoch. `W` stays in memory, so that the next epoch can be sealed; `R`
need not.

The device id and the index key are random, made at first boot, and carried from epoch to epoch: they
survive a new `R`, and neither opens anything.
"""

import re
import secrets
import struct
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.vault.keys import KEY, NONCE, TAG, KeyLost, wipe, write_durably
from appliance.vault.tpm import Binder

DEVICE = 16
"""Bytes of a device's id."""
_VERSION = 2
CONTENT = KEY + DEVICE + KEY
"""Bytes of what is sealed: `E`, the device id, the index key."""
_FILE = struct.Struct(f"!BBI{NONCE}s{CONTENT + TAG}s")  # version, bound to a TPM, epoch, nonce, sealed
FILE_NAME = re.compile(r"epoch-([1-9][0-9]{0,8})\.(key|pending)(\.new)?")
ANEW = "move vault.db and epoch-*.key away and enrol everyone anew"
"""What is left to do where a key is gone for good."""


def epoch_path(folder: Path, epoch: int) -> Path:
    """Where the key of an epoch lies."""
    return folder / f"epoch-{epoch}.key"


def pending_path(folder: Path, epoch: int) -> Path:
    """Where it lies until the change to that epoch is known to be on the disk."""
    return folder / f"epoch-{epoch}.pending"


def epochs_in(folder: Path, kind: str) -> set[int]:
    """The epochs of which there is a whole file; kind: `key` or `pending`."""
    named = (FILE_NAME.fullmatch(path.name) for path in folder.iterdir())
    return {int(each[1]) for each in named if each and each[2] == kind and not each[3]}


def seal_file(path: Path, epoch: int, wrapping: bytearray, content: bytearray, binder: Binder | None) -> None:
    """Write an epoch's file durably; with a TPM, under a new secret of it.

    Raises:
        KeyLost, OSError: it could not be written, or the TPM does not do it.
    """
    secret = bytearray() if binder is None else binder.begin(epoch)
    key = _file_key(wrapping, secret)
    bound = int(binder is not None)
    try:
        nonce = secrets.token_bytes(NONCE)
        sealed = AESGCM(key).encrypt(nonce, content, _data(bound, epoch))
    finally:
        wipe(key)
        wipe(secret)
    write_durably(path, _FILE.pack(_VERSION, bound, epoch, nonce, sealed))


def open_file(folder: Path, epoch: int, wrapping: bytearray, binder: Binder | None) -> tuple[bytearray, bool]:
    """The content of an epoch's file, and whether it is bound to a TPM.

    Raises:
        KeyLost: missing, damaged, of another epoch or root key, or bound to a TPM that does not open it.
    """
    path = epoch_path(folder, epoch)
    if not path.exists() and pending_path(folder, epoch).exists():
        path = pending_path(folder, epoch)
    secret = bytearray()
    key = bytearray()
    content = bytearray(CONTENT)
    try:
        version, bound, number, nonce, sealed = _FILE.unpack(path.read_bytes())
        if version != _VERSION:
            raise KeyLost(f"{path.name} has version {version}: it was made by another Drempel")
        if bound and binder is None:
            raise KeyLost(f'{path.name} is bound to a TPM: name it again, [recognition] tpm = "..."')
        if bound and binder is not None:
            secret = binder.secret(epoch)
        key = _file_key(wrapping, secret)
        if number != epoch:
            raise KeyLost(f"{path.name} is the key of epoch {number}: put the right file back, or {ANEW}")
        AESGCM(key).decrypt_into(nonce, sealed, _data(bound, epoch), content)
    except KeyLost:
        raise
    except OSError as error:
        raise KeyLost(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (struct.error, InvalidTag) as error:
        raise KeyLost(
            f"{path.name} does not open under this root key{' and TPM' if secret else ''}: hand over the "
            f"right ones, or put the right file back, or {ANEW}"
        ) from error
    finally:
        wipe(secret)
        wipe(key)
    return content, bool(bound)


def _data(bound: int, epoch: int) -> bytes:
    return b"drempel epoch v2" + struct.pack("!BBI", _VERSION, bound, epoch)


def wrapping_key(root: bytearray) -> bytearray:
    """`W`, made from `R`: 32 bytes in a buffer that the caller owns."""
    key = bytearray(KEY)
    HKDF(hashes.SHA256(), KEY, salt=None, info=b"drempel epoch seal v2").derive_into(root, key)
    return key


def _file_key(wrapping: bytearray, secret: bytearray) -> bytearray:
    key = bytearray(KEY)
    both = wrapping + secret
    HKDF(hashes.SHA256(), KEY, salt=None, info=b"drempel epoch file v2").derive_into(both, key)
    wipe(both)
    return key
