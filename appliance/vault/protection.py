"""How a template is sealed, tier 2 (design §4): two halves of a key, and associated data that binds.

- `S`: the claim's secret, on the person's token alone. `S'` is `S` brought to 32 bytes by HKDF.
- `r`: the device half, 32 random bytes, stored sealed under the epoch key `E`.
- `K = HKDF-SHA256(S' ‖ r, salt = h, info = "drempel template v2 tier 2")` seals the body, once.

The associated data of both sealings bind handle, tier, device, pack and version, and that of `r` the epoch
as well: a record that is swapped, altered or moved to another device is refused. Only AES-256-GCM and
HKDF-SHA256 of `cryptography`.

What is overwritten: `S`, `S'`, `r`, `K` and the opened body, all in buffers of ours. What is not: the key
schedule inside OpenSSL, which it cleanses when the cipher object is collected, and what the kernel keeps of
a socket's bytes until it reuses the memory.
"""

import secrets
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.errors import DrempelError
from appliance.vault.keys import KEY, NONCE, TAG, EpochKey, random_bytes, wipe

VERSION = 1
"""Of a record's format. 1: float32 as the pack gives it, normalised, not yet rotated."""
PACK = 32
"""Bytes of a pack's identity: a SHA-256."""
_BODY = struct.Struct("!BH")  # version, dimensions
_HALF = 0x01
_WHOLE = 0x02


class NotAuthentic(DrempelError, ValueError):
    """A sealed part does not open: altered, swapped, of another device or epoch, or the wrong secret."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a record is bound to: handle (16 bytes), device (16), pack (32), tier, and format version."""

    handle: bytes
    device: bytes
    pack: bytes
    tier: int
    version: int = VERSION

    def data(self, part: int, epoch: int = 0) -> bytes:
        """The associated data for a part of the record."""
        return b"drempel record v2" + struct.pack(
            f"!BBBI16s16s{PACK}s", part, self.tier, self.version, epoch, self.handle, self.device, self.pack
        )


@dataclass(frozen=True, slots=True)
class Sealed:
    """The two sealed parts of a record, each with its nonce before it."""

    half: bytes
    body: bytes


def seal(
    template: npt.NDArray[np.float32], secret: bytearray, epoch_key: EpochKey, binding: Binding
) -> Sealed:
    """Seal a template (d,) for storage, under a new device half."""
    half = random_bytes(KEY)
    key = _content_key(secret, half, binding)
    body = bytearray(_BODY.size + 4 * len(template))
    _BODY.pack_into(body, 0, binding.version, len(template))
    np.frombuffer(body, dtype="<f4", offset=_BODY.size)[:] = template
    try:
        nonce = secrets.token_bytes(NONCE)
        sealed_half = nonce + AESGCM(epoch_key.key).encrypt(nonce, half, binding.data(_HALF, epoch_key.epoch))
        nonce = secrets.token_bytes(NONCE)
        return Sealed(sealed_half, nonce + AESGCM(key).encrypt(nonce, body, binding.data(_WHOLE)))
    finally:
        for buffer in (half, key, body):
            wipe(buffer)


def open_sealed(
    sealed: Sealed, secret: bytearray, epoch_key: EpochKey, binding: Binding
) -> npt.NDArray[np.float32]:
    """The template (d,) of a record, in an array that the caller owns and overwrites after use.

    Raises:
        NotAuthentic: it does not open. Nothing tells why, and no part is given out.
    """
    half = bytearray(KEY)
    key = bytearray()
    body = bytearray(max(0, len(sealed.body) - NONCE - TAG))
    try:
        _open(epoch_key.key, sealed.half, binding.data(_HALF, epoch_key.epoch), half)
        key = _content_key(secret, half, binding)
        _open(key, sealed.body, binding.data(_WHOLE), body)
        version, dimensions = _BODY.unpack_from(body)
        if version != binding.version or len(body) != _BODY.size + 4 * dimensions:
            raise NotAuthentic("a record of another version")
        return np.frombuffer(body, dtype="<f4", offset=_BODY.size).copy()
    except struct.error as error:
        raise NotAuthentic("a record too short to be one") from error
    finally:
        for buffer in (half, key, body):
            wipe(buffer)


def rewrap(half: bytes, binding: Binding, old: EpochKey, new: EpochKey) -> bytes:
    """A sealed device half under another epoch key; its body stays as it is.

    Raises:
        NotAuthentic: it does not open under the old key.
    """
    opened = bytearray(max(0, len(half) - NONCE - TAG))
    try:
        old.cipher.decrypt_into(half[:NONCE], half[NONCE:], binding.data(_HALF, old.epoch), opened)
        nonce = secrets.token_bytes(NONCE)
        return nonce + new.cipher.encrypt(nonce, opened, binding.data(_HALF, new.epoch))
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic("a record that does not open") from error
    finally:
        wipe(opened)


def authenticates(sealed: Sealed, epoch_key: EpochKey, binding: Binding) -> bool:
    """Whether the device half opens; a minimal stand-in that looks at no body."""
    opened = bytearray(max(0, len(sealed.half) - NONCE - TAG))
    try:
        _open(epoch_key.key, sealed.half, binding.data(_HALF, epoch_key.epoch), opened)
    except NotAuthentic:
        return False
    finally:
        wipe(opened)
    return True


def _open(key: bytearray, sealed: bytes, data: bytes, into: bytearray) -> None:
    try:
        AESGCM(key).decrypt_into(sealed[:NONCE], sealed[NONCE:], data, into)
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic("a record that does not open") from error


def _content_key(secret: bytearray, half: bytearray, binding: Binding) -> bytearray:
    """`K`: 32 bytes from both halves; neither alone says anything about it (RFC 5869)."""
    stretched = bytearray(KEY)
    key = bytearray(KEY)
    HKDF(hashes.SHA256(), KEY, salt=binding.handle, info=b"drempel claim secret v2").derive_into(
        secret, stretched
    )
    both = stretched + half
    info = f"drempel template v2 tier {binding.tier}".encode()
    HKDF(hashes.SHA256(), KEY, salt=binding.handle, info=info).derive_into(both, key)
    wipe(stretched)
    wipe(both)
    return key
