"""How a template is sealed (design §4): two halves of a key, and associated data that binds.

- `S`: the claim's secret, on the person's token or card alone. `S' = HKDF-SHA256(S, salt = h,
  info = "drempel claim secret v2")`, 32 bytes. In tier 3 `S` is what a PIN was stretched to, which is a
  brake and no secret, or absent; `S'` is then empty.
- `r`: the device half, 32 random bytes, stored sealed under the epoch key `E`.
- `K = HKDF-SHA256(S' ‖ r, salt = h, info = "drempel template v2 tier N")` seals the body, once: the rotated
  template. `HKDF-SHA256(S' ‖ r, salt = h, info = "drempel rotation v2")` is the key of its rotation.
- What is sealed under `E` is `r ‖ SHA-256(sealed body)`. So the device sees without `S` that a body was
  changed or swapped; a new epoch seals halves anew and touches no body; the half of tier 1, whose body is on
  the token, fits one body and no older one of the same person; and nobody can hand in a body made to open
  under several keys, which AES-GCM alone does not exclude (it commits to no key).

The associated data of both sealings bind part, tier, version, handle, device and pack; that of the half the
epoch as well, and the record's terms: what finds it, when its person may enter, and when it ends. A record
that is swapped, altered, rolled back or moved to another device is refused.

Nonces are 96 random bits. `K` seals one message ever. `E` seals one half per enrolment and one per record
when its epoch begins: far below the 2^32 of NIST SP 800-38D §8.3 for one key.

Only AES-256-GCM and HKDF-SHA256 (RFC 5869) of `cryptography`.

What is overwritten: `S'`, `r`, `K`, the rotation key, the opened body, and every rotated vector, all in
buffers of ours; `S` by who owns it. What is not: the key schedule inside OpenSSL, which it cleanses when the
cipher object is collected; single numbers while they are added up; and what the kernel keeps of a socket's
bytes until it reuses the memory.
"""

import hashlib
import math
import secrets
import struct
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.errors import DrempelError
from appliance.vault.comparison import NotAnEmbedding, Vector
from appliance.vault.keys import KEY, NONCE, TAG, EpochKey, random_bytes, wipe
from appliance.vault.quantisation import quantise, quantised_size, restore
from appliance.vault.rotation import Rotated, Rotation, padded

VERSION = 2
"""Of a record's format. 1 held a template that was not rotated, and was never released."""
ON_TOKEN = 1
"""Tier: the body on the token, opened by token and device together."""
SHARED = 2
"""Tier: the body on the device, opened by token and device together."""
DEVICE = 3
"""Tier: the body on the device, opened by the device alone."""
TOKEN_BITS = 4
"""Bits a coordinate on a token, where every byte makes the code harder to read."""
STORED_BITS = 32
"""Bits a coordinate on the device: float32."""
SECRETS = range(12, 33)
"""Bytes of `S`: 96 bits on a card at the least."""
PACK = 32
"""Bytes of a pack's identity: a SHA-256."""
_BODY = struct.Struct("!BBH")  # version, bits a coordinate, dimensions of the embedding
_PLACE = struct.Struct(f"!BBBI16s16s{PACK}s")
_HALF = 0x01
_WHOLE = 0x02
_HALF_SIZE = KEY + hashlib.sha256().digest_size


class NotAuthentic(DrempelError, ValueError):
    """A sealed part does not open: altered, swapped, of another device or epoch, or the wrong secret."""

    def __init__(self) -> None:
        super().__init__("a record that does not open")


def terms_of(lookup: bytes | None, rights: bytes, expires_at: int) -> bytes:
    """32 bytes that stand for a record's terms in the associated data of its half: SHA-256.

    Args:
        lookup: what finds it, 32 bytes; None for a token's record.
        rights: when its person may enter, as `appliance.rights` encodes it.
        expires_at: when it ends, seconds since 1970.
    """
    found_by = b"\0" if lookup is None else b"\1" + lookup
    parts = struct.pack("!BHq", len(found_by), len(rights), expires_at) + found_by + rights
    return hashlib.sha256(b"drempel terms v2" + parts).digest()


@dataclass(frozen=True, slots=True)
class Binding:
    """What a record is bound to: handle (16 bytes), device (16), pack (32), tier, format version, terms (32).

    Raises:
        NotAuthentic: no record has such a place.
    """

    handle: bytes
    device: bytes
    pack: bytes
    tier: int
    version: int = VERSION
    terms: bytes = bytes(32)

    def __post_init__(self) -> None:
        # `struct` would cut or pad: two places could then have the same associated data.
        lengths = tuple(map(len, (self.handle, self.device, self.pack, self.terms)))
        if lengths != (16, 16, PACK, 32) or not (
            ON_TOKEN <= self.tier <= DEVICE and 0 <= self.version <= 0xFF
        ):
            raise NotAuthentic

    def data(self, part: int, epoch: int = 0) -> bytes:
        """The associated data for a part of the record: 88 bytes, and the terms for its half."""
        place = _PLACE.pack(part, self.tier, self.version, epoch, self.handle, self.device, self.pack)
        return b"drempel record v2" + place + (self.terms if part == _HALF else b"")


@dataclass(frozen=True, slots=True)
class Sealed:
    """The two sealed parts of a record, each nonce (12) ‖ ciphertext ‖ tag (16). The half has 92 bytes."""

    half: bytes
    body: bytes


class Opened:
    """An opened record: its rotated template and its rotation. The template is never rotated back."""

    __slots__ = ("_rotation", "_template")

    def __init__(self, template: Rotated, rotation: Rotation) -> None:
        self._template = template
        self._rotation = rotation

    @property
    def dimensions(self) -> int:
        """Of the embedding that was sealed."""
        return self._rotation.dimensions

    def score(self, probe: Vector, mean: Vector) -> float:
        """How alike a probe and the template are: a cosine from -1 to 1, as of `comparison.score`.

        Args:
            probe: an embedding (d,), which is left as it is; its rotation is overwritten.
            mean: the pack's mean embedding (d,).

        Raises:
            NotAnEmbedding: of other dimensions, not finite, or nothing but the mean.
        """
        rotated = self._rotation.rotate(probe, mean)
        try:
            return float(self._template @ rotated)
        finally:
            rotated.fill(0)

    def forget(self) -> None:
        """Overwrite template and rotation; every score is 0 after it."""
        self._template.fill(0)
        self._rotation.forget()


def seal(
    template: Vector, mean: Vector, secret: bytearray | None, epoch_key: EpochKey, binding: Binding
) -> Sealed:
    """Seal a template for storage, under a new device half.

    Args:
        template: an embedding (d,).
        mean: the pack's mean embedding (d,).
        secret: `S`, 12 to 32 bytes; None in tier 3 without a brake.
        epoch_key: seals the device half.
        binding: what the record is bound to.

    Raises:
        NotAnEmbedding: the template has no direction, or too many dimensions.
        ValueError: no secret in tier 1 or 2, or one of another length.
    """
    if not _fits(secret, binding.tier):
        raise ValueError("a record of tier 1 or 2 is sealed with a secret of 12 to 32 bytes")
    half = random_bytes(KEY)
    key, rotation_key = _derive(secret, half, binding)
    body = bytearray()
    plain = bytearray(_HALF_SIZE)
    try:
        body = _write_body(rotation_key, template, mean, binding)
        sealed = _seal(key, body, binding.data(_WHOLE))
        plain[:KEY] = half
        plain[KEY:] = hashlib.sha256(sealed).digest()
        return Sealed(_seal_by(epoch_key.cipher, plain, binding.data(_HALF, epoch_key.epoch)), sealed)
    finally:
        for buffer in (half, key, rotation_key, body, plain):
            wipe(buffer)


def open_sealed(sealed: Sealed, secret: bytearray | None, epoch_key: EpochKey, binding: Binding) -> Opened:
    """A record, opened; the caller has it forget after use.

    Raises:
        NotAuthentic: it does not open. Nothing tells why, and no part is given out.
    """
    if not _fits(secret, binding.tier):
        raise NotAuthentic
    half = _open_half(sealed.half, epoch_key, binding)
    key = rotation_key = body = bytearray()
    try:
        _check_body(half, sealed.body)
        key, rotation_key = _derive(secret, half, binding)
        body = _open(key, sealed.body, binding.data(_WHOLE))
        return _read_body(body, rotation_key, binding)
    finally:
        for buffer in (half, key, rotation_key, body):
            wipe(buffer)


def rewrap(half: bytes, binding: Binding, old: EpochKey, new: EpochKey, anew: Binding | None = None) -> bytes:
    """A half of the old epoch, sealed for the new one. Its body stays as it is.

    Args:
        half: 92 bytes.
        binding: what it is bound to.
        old: the key it is sealed under.
        new: the key to seal it under.
        anew: what it is to be bound to from now on, where that changes.

    Raises:
        NotAuthentic: the half does not open under the old epoch key.
    """
    plain = _open_half(half, old, binding)
    try:
        return _seal_by(new.cipher, plain, (anew or binding).data(_HALF, new.epoch))
    finally:
        wipe(plain)


def authenticates(sealed: Sealed, epoch_key: EpochKey, binding: Binding) -> bool:
    """Whether a stored record is as it was sealed; no secret is needed for it.

    The half opens under the epoch key, and the body is the one it was sealed with. In tier 1 the device has
    no body: an empty one is left out.
    """
    try:
        half = _open_half(sealed.half, epoch_key, binding)
        try:
            if sealed.body or binding.tier != ON_TOKEN:
                _check_body(half, sealed.body)
        finally:
            wipe(half)
    except NotAuthentic:
        return False
    return True


def _fits(secret: bytearray | None, tier: int) -> bool:
    return tier == DEVICE if secret is None else len(secret) in SECRETS


def _derive(secret: bytearray | None, half: bytearray, binding: Binding) -> tuple[bytearray, bytearray]:
    """`K` and the rotation key, 32 bytes each, from `S` and the first 32 bytes of `half`, `r`.

    Neither alone says anything about them.
    """
    stretched = bytearray() if secret is None else _hkdf(secret, binding.handle, b"drempel claim secret v2")
    both = bytearray(len(stretched) + KEY)
    # Views, and full length from the start: slices would be copies, and a buffer that grows leaves one.
    with memoryview(both) as into, memoryview(half) as view:
        into[: len(stretched)] = stretched
        into[len(stretched) :] = view[:KEY]
    try:
        key = _hkdf(both, binding.handle, f"drempel template v2 tier {binding.tier}".encode())
        return key, _hkdf(both, binding.handle, b"drempel rotation v2")
    finally:
        wipe(stretched)
        wipe(both)


def _hkdf(material: bytearray, salt: bytes, info: bytes) -> bytearray:
    key = bytearray(KEY)
    HKDF(hashes.SHA256(), KEY, salt=salt, info=info).derive_into(material, key)
    return key


def _seal(key: bytearray, plain: bytearray, data: bytes) -> bytes:
    return _seal_by(AESGCM(key), plain, data)


def _open(key: bytearray, sealed: bytes, data: bytes) -> bytearray:
    return _open_by(AESGCM(key), sealed, data)


def _seal_by(cipher: AESGCM, plain: bytearray, data: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return nonce + cipher.encrypt(nonce, plain, data)


def _open_by(cipher: AESGCM, sealed: bytes, data: bytes) -> bytearray:
    plain = bytearray(max(0, len(sealed) - NONCE - TAG))
    try:
        cipher.decrypt_into(sealed[:NONCE], sealed[NONCE:], data, plain)
    except (InvalidTag, ValueError) as error:
        # OpenSSL decrypts before it has seen the tag.
        wipe(plain)
        raise NotAuthentic from error
    return plain


def _open_half(half: bytes, epoch_key: EpochKey, binding: Binding) -> bytearray:
    """`r ‖ SHA-256(sealed body)`, 64 bytes, in a buffer that the caller overwrites."""
    plain = _open_by(epoch_key.cipher, half, binding.data(_HALF, epoch_key.epoch))
    if len(plain) != _HALF_SIZE:
        wipe(plain)
        raise NotAuthentic
    return plain


def _check_body(half: bytearray, body: bytes) -> None:
    # Neither side is secret: who has the body has its digest.
    if half[KEY:] != hashlib.sha256(body).digest():
        raise NotAuthentic


def _write_body(rotation_key: bytearray, template: Vector, mean: Vector, binding: Binding) -> bytearray:
    """Head and coordinates of the rotated template, in a buffer that the caller overwrites."""
    rotation = Rotation(rotation_key, len(template))
    try:
        rotated = rotation.rotate(template, mean)
    finally:
        rotation.forget()
    bits = TOKEN_BITS if binding.tier == ON_TOKEN else STORED_BITS
    body = bytearray(_BODY.size + quantised_size(len(rotated), bits))
    _BODY.pack_into(body, 0, binding.version, bits, len(template))
    if bits == STORED_BITS:
        np.frombuffer(body, "<f4", offset=_BODY.size)[:] = rotated
    else:
        levels = quantise(rotated, bits)
        body[_BODY.size :] = levels
        wipe(levels)
    rotated.fill(0)
    return body


def _read_body(body: bytearray, rotation_key: bytearray, binding: Binding) -> Opened:
    """The record in an opened body, which is authentic but may be of a format to come."""
    try:
        version, bits, dimensions = _BODY.unpack_from(body)
        expected = quantised_size(padded(dimensions), bits)
    except (struct.error, NotAnEmbedding) as error:
        raise NotAuthentic from error
    if version != binding.version or bits not in {4, 8, 32} or len(body) != _BODY.size + expected:
        raise NotAuthentic
    if bits == STORED_BITS:
        template: Rotated = np.frombuffer(body, "<f4", offset=_BODY.size).astype(np.float64)
    else:
        with memoryview(body) as view, view[_BODY.size :] as levels:
            template = restore(levels, bits)
    # float32 and levels are a unit vector but for their rounding.
    template /= math.sqrt(float(template @ template))
    return Opened(template, Rotation(rotation_key, dimensions))
