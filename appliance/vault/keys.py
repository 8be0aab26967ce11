"""The root key `R`, the key of an epoch `E`, and how key files are written and destroyed (design §4).

`R` comes as a systemd credential on a device, and from a file of the vault's own in a simulation. It opens
nothing but the file of the epoch key (`epoch.py`), and leaves memory once that is open.
"""

import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.errors import DrempelError

KEY = 32
"""Bytes of every key."""
NONCE = 12
"""Bytes of an AES-GCM nonce (NIST SP 800-38D §8.2.2, drawn at random)."""
TAG = 16
"""Bytes of an AES-GCM tag."""
CREDENTIAL = "drempel-root-key"
"""The name of the systemd credential that holds `R`."""
OLD_CREDENTIAL = "drempel-root-key-old"
"""That of the root key before, for the one start at which `R` is replaced."""
ROOT_FILE = "root.key"
"""`R` in a simulation, beside vault.db."""
OLD_ROOT_FILE = "root-old.key"
"""The root key before, in a simulation."""


class KeyLost(DrempelError, OSError):
    """A key is missing, damaged, or sealed under another root key: no template can be opened."""


class EpochKey:
    """The epoch key `E`, 32 bytes in a buffer of ours, and the number of its epoch (1 and up)."""

    def __init__(self, key: bytearray, epoch: int) -> None:
        """The buffer becomes this object's own."""
        self.epoch = epoch
        self._key: bytearray | None = key
        # Scheduled once: a change of epoch uses it 100,000 times. OpenSSL cleanses it when it is dropped.
        self._cipher = AESGCM(key)

    @property
    def key(self) -> bytearray:
        """The key itself, not a copy.

        Raises:
            KeyLost: it was forgotten; a key of zeros must never seal anything.
        """
        if self._key is None:
            raise KeyLost("the epoch's key was destroyed: start the vault anew")
        return self._key

    @property
    def cipher(self) -> AESGCM:
        """AES-256-GCM under this key.

        Raises:
            KeyLost: the key was forgotten.
        """
        if self._key is None:
            raise KeyLost("the epoch's key was destroyed: start the vault anew")
        return self._cipher

    def forget(self) -> None:
        """Overwrite the key, and drop its schedule; done twice it is no error."""
        if self._key is not None:
            wipe(self._key)
            self._key = None
            del self._cipher


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


def load_root(state: Path, *, device: bool = False) -> bytearray:
    """The root key `R`: 32 bytes, in a buffer that the caller owns.

    Made at first start where no systemd credential hands it over. On a device that is said at each start:
    the card alone then holds all that opens its templates.

    Args:
        state: the folder of vault.db.
        device: whether a credential should hand it over.

    Raises:
        KeyLost: the credential or the file is not 32 bytes long, or cannot be read.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / CREDENTIAL if folder else state / ROOT_FILE
    if folder is None and not path.exists():
        if (state / "vault.db").exists():
            raise KeyLost(
                "the root key is gone but its database is not: put root.key back, or move vault.db and "
                "epoch-*.key away and enrol everyone anew"
            )
        fresh = random_bytes(KEY)
        write_durably(path, fresh)
        wipe(fresh)
    root = _read_root(path)
    if device and folder is None:
        print(
            "drempel vault: the root key lies in a file beside the database: hand it over as a systemd "
            "credential, see docs/keys.md",
            file=sys.stderr,
        )
    return root


def load_old_root(state: Path) -> bytearray | None:
    """The root key before `R`, where one is handed over to replace it; else None.

    Raises:
        KeyLost: the credential or the file is not 32 bytes long, or cannot be read.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / OLD_CREDENTIAL if folder else state / OLD_ROOT_FILE
    return _read_root(path) if path.exists() else None


def _read_root(path: Path) -> bytearray:
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
    # Copied, so that no buffer that held a key is shortened and given back unwiped.
    key = bytearray(root[:KEY])
    wipe(root)
    return key


def write_durably(path: Path, data: bytes | bytearray) -> None:
    """Write a file whole or not at all: a temporary file, synced, renamed, and its folder synced.

    Raises:
        OSError: the disk is full or read-only; the old file, if any, is untouched.
    """
    temporary = path.with_name(path.name + ".new")
    # One that a power cut left, or somebody put there: its mode would stay, and a link would be followed.
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)
    temporary.rename(path)
    sync_folder(path.parent)


def destroy_file(path: Path) -> None:
    """Overwrite a file that holds a key, remove it, and see to it that it stays removed; none is no error.

    Flash and file systems that never write in place keep the old bytes elsewhere: that is the remaining
    risk of requirement B6, which only a TPM takes away.

    Raises:
        OSError: it may still be there.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        left = os.fstat(file).st_size
        while left > 0:
            left -= os.write(file, bytes(min(left, 4096)))
        os.fsync(file)
    finally:
        os.close(file)
    path.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable what was made, renamed or removed in a folder."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
