"""The keys of the device: the root key `R`, and the epoch key `E` sealed under it (design §4).

`R` comes as a systemd credential on a device, and from a file of the vault's own in a simulation. `E`
lies in a file of its own, so that it can be destroyed without rewriting the database.
"""

import os
import secrets
import struct
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.errors import DrempelError

KEY = 32
"""Bytes of every key."""
NONCE = 12
"""Bytes of an AES-GCM nonce (NIST SP 800-38D §8.2.2, drawn at random)."""
TAG = 16
"""Bytes of an AES-GCM tag."""
CREDENTIAL = "drempel-root-key"
"""The name of the systemd credential that holds `R`."""
_EPOCH_FILE = struct.Struct(f"!BI{NONCE}s{KEY + TAG}s")
_EPOCH_VERSION = 1


class KeyLost(DrempelError, OSError):
    """A key is missing, damaged, or sealed under another root key: no template can be opened."""


def wipe(buffer: bytearray | memoryview) -> None:
    """Overwrite a buffer that we own with zeros."""
    buffer[:] = bytes(len(buffer))


def random_bytes(length: int) -> bytearray:
    """Random bytes of the kernel, in a buffer that the caller owns; no copy is left elsewhere."""
    buffer = bytearray(length)
    with Path("/dev/urandom").open("rb", buffering=0) as source:
        if source.readinto(buffer) != length:
            raise KeyLost("the kernel gives no random bytes: is /dev/urandom there?")
    return buffer


def load_root(state: Path) -> bytearray:
    """The root key `R`: 32 bytes, in a buffer that the caller owns.

    Made at first start where no systemd credential hands it over.

    Raises:
        KeyLost: the credential or the file is not 32 bytes long, or cannot be read.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / CREDENTIAL if folder else state / "root.key"
    if folder is None and not path.exists():
        if (state / "vault.db").exists():
            raise KeyLost(
                "the root key is gone but its database is not: put root.key back, or move vault.db away "
                "and enrol everyone anew"
            )
        write_durably(path, random_bytes(KEY))
    # One byte more than a key, so that a longer file is seen to be one.
    root = bytearray(KEY + 1)
    try:
        with path.open("rb", buffering=0) as file:
            length = file.readinto(root)
    except OSError as error:
        raise KeyLost(f"the root key cannot be read: {error.strerror or error}") from error
    if length != KEY:
        wipe(root)
        raise KeyLost(
            "the root key is not 32 bytes long: hand over the credential that this device began with"
        )
    del root[KEY:]
    return root


def device_id(root: bytearray) -> bytes:
    """16 bytes that name this device in associated data; another root key is another device."""
    return HKDF(hashes.SHA256(), 16, salt=None, info=b"drempel device id v2").derive(root)


class EpochKey:
    """The epoch key `E`, 32 bytes, and the number of its epoch."""

    def __init__(self, key: bytearray, epoch: int) -> None:
        self.key = key
        self.epoch = epoch

    @classmethod
    def load(cls, path: Path, root: bytearray) -> "EpochKey":
        """Open the epoch key that lies sealed at `path`.

        Raises:
            KeyLost: missing, damaged, or sealed under another root key.
        """
        try:
            version, epoch, nonce, sealed = _EPOCH_FILE.unpack(path.read_bytes())
            if version != _EPOCH_VERSION:
                raise KeyLost(f"the epoch key has version {version}: it was made by a newer Drempel")
            key = bytearray(KEY)
            AESGCM(root).decrypt_into(nonce, sealed, _epoch_data(root, epoch), key)
        except OSError as error:
            raise KeyLost(f"the epoch key cannot be read: {error.strerror or error}") from error
        except (struct.error, InvalidTag) as error:
            raise KeyLost(
                "the epoch key does not open under this root key: put back the right epoch.key, or move "
                "vault.db away and enrol everyone anew"
            ) from error
        return cls(key, epoch)

    @classmethod
    def create(cls, path: Path, root: bytearray, epoch: int) -> "EpochKey":
        """Make a new epoch key, and write it sealed to `path`, durably."""
        key = random_bytes(KEY)
        nonce = secrets.token_bytes(NONCE)
        sealed = AESGCM(root).encrypt(nonce, key, _epoch_data(root, epoch))
        write_durably(path, _EPOCH_FILE.pack(_EPOCH_VERSION, epoch, nonce, sealed))
        return cls(key, epoch)


def write_durably(path: Path, data: bytes | bytearray) -> None:
    """Write a file whole or not at all: a temporary file, synced, renamed, and its folder synced.

    Raises:
        OSError: the disk is full or read-only; the old file, if any, is untouched.
    """
    temporary = path.with_name(path.name + ".new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _epoch_data(root: bytearray, epoch: int) -> bytes:
    return b"drempel epoch v2" + device_id(root) + struct.pack("!I", epoch)
