"""All that a thief would look for, as bytes: derived by the test from what vault holds, before it is erased.

The one place that follows the format of records and keys (`appliance.vault.protection`, `epoch_file`,
`credentials`); a new format changes this module, and no search. HKDF is done here anew with HMAC alone, so
that what it passes through is known as well.
"""

import base64
import hashlib
import hmac
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.link.messages import ClaimKind
from appliance.vault import credentials, epoch_file, protection, quantisation
from appliance.vault.comparison import Vector, make_template, read_embedding
from appliance.vault.keys import NONCE, load_root
from appliance.vault.protection import STORED_BITS, Binding
from appliance.vault.rotation import ROUNDS, Rotation, padded
from appliance.vault.token import Token
from tests.system.raw_search import Needle

WINDOW = 32
"""Bytes of an embedding that are enough to be a remnant: eight coordinates, or 64 at four bits."""
E = "epoch key E"
W = "wrapping key W"
INDEX = "index key"
HELD = (E, W, INDEX)
PEPPER = "pepper"
"""Follows from the index key, which vault holds: a copy that a library left tells nothing more."""
"""What vault holds while it runs, as it must."""


@dataclass(frozen=True, repr=False)
class Shown:
    """What a person presents: the bytes of a token's code, or of the claim that door sends."""

    kind: ClaimKind
    data: bytes

    def needles(self) -> Iterator[Needle]:
        """The whole, and a PIN and a number by themselves.

        Of a token or a card, a part is the handle or `S`, which is searched for by itself.
        """
        name = self.kind.name.lower()
        yield Needle(f"{name} as presented", self.data, least=len(self.data))
        if self.kind is ClaimKind.NUMBER:
            length = self.data[1]
            yield Needle("number", self.data[2 : 2 + length])
            yield Needle("PIN", self.pin)

    @property
    def pin(self) -> bytes:
        """The digits."""
        return self.data[3 + self.data[1] :]


@dataclass(frozen=True, repr=False)
class Keys:
    """The keys of the device, and of one record."""

    device: dict[str, bytes]
    """`HELD`, by name: also the key of the epoch that was in force then."""
    never: dict[str, bytes]
    """What vault needs at its start and at an erasure alone."""
    record: dict[str, bytes]
    """What opens this record, and what the derivations pass through."""
    stored: bytes
    """The coordinates of the template as they lie in the body once that is opened."""
    rotation_key: bytearray
    handle: bytes
    body: bytes
    """The sealed body."""

    def of_record(self) -> Iterator[Needle]:
        """What opens this record: no zone may hold any of it after the attempt."""
        yield Needle("stored template", self.stored, WINDOW, 4)
        if len(self.stored) < 4 * 512:
            restored = quantisation.restore(bytearray(self.stored), protection.TOKEN_BITS)
        else:
            restored = np.frombuffer(self.stored, "<f4").astype(np.float64)
        yield Needle("rotated template, double", restored.tobytes(), WINDOW, 8)
        restored = restored / np.sqrt(float(restored @ restored))
        yield Needle("rotated template, normalised, double", restored.tobytes(), WINDOW, 8)
        for turn in range(1, ROUNDS + 1):
            size = 8 * padded(512)
            stream = _expanded(self.rotation_key, f"drempel rotation v2 round {turn}".encode(), size)
            yield Needle(f"key stream of round {turn}", stream, WINDOW, 8)
        for name, value in self.record.items():
            yield Needle(name, value)

    def of_device(self) -> Iterator[Needle]:
        """What opens every record with a token: R at no time after the start, E as long as its epoch."""
        for name, value in {**self.device, **self.never}.items():
            yield Needle(name, value)

    def in_no_file(self) -> Iterator[Needle]:
        """What no file may hold; the root key of a simulation is one."""
        yield from self.of_record()
        for name, value in self.device.items():
            yield Needle(name, value)

    def rotated(self, name: str, vector: Vector, mean: Vector) -> Iterator[Needle]:
        """A normalised embedding as the comparison rotates it; and before it is scaled, after each round."""
        rotated = Rotation(self.rotation_key, len(mean)).rotate(vector, mean)
        unscaled = rotated * (len(rotated) * np.sqrt(len(rotated)))
        for form, values in {"rotated": rotated, "rotated, not scaled": unscaled}.items():
            yield Needle(f"{name}, {form}", values.astype("<f4").tobytes(), WINDOW, 4)
            yield Needle(f"{name}, {form}, double", values.tobytes(), WINDOW, 8)


def keys(state: Path, shown: Shown) -> Keys:
    """The keys of the record that is claimed so, in vault's folder `state`, as vault derives them."""
    device, never, device_id, number = _of_device(state)
    column, value, secret, steps, body = _claimed(shown, device[INDEX])
    joined = "record LEFT JOIN half USING (handle) LEFT JOIN body USING (handle)"
    columns = "record.handle, tier, version, pack, half, body, lookup, rights, expires_at"
    row = f"SELECT {columns} FROM {joined} WHERE record.{column} = ?"  # noqa: S608
    db = sqlite3.connect(f"file:{state / 'vault.db'}?mode=ro", uri=True)
    try:
        handle, tier, version, pack, sealed_half, stored_body, *terms = db.execute(row, (value,)).fetchone()
    finally:
        db.close()
    body = body or stored_body
    binding = Binding(handle, device_id, pack, tier, version, protection.terms_of(*terms))
    half = _opened(device[E], sealed_half, binding.data(protection._HALF, number))
    assert half[32:] == hashlib.sha256(body).digest()
    first = _extracted(handle, secret)
    stretched = _expanded(first, b"drempel claim secret v2", 32)
    both = _extracted(handle, stretched + half[:32])
    content = _expanded(both, f"drempel template v2 tier {tier}".encode(), 32)
    rotation_key = _expanded(both, b"drempel rotation v2", 32)
    plain = _opened(content, body, binding.data(protection._WHOLE))
    _, bits, dimensions = struct.unpack_from("!BBH", plain)
    assert dimensions == 512
    assert bits == (protection.TOKEN_BITS if tier == protection.ON_TOKEN else STORED_BITS)
    record = {
        **steps,
        "device half r": half[:32],
        "content key K": content,
        "rotation key": rotation_key,
        "HKDF's extract of S": first,
        "stretched secret S'": stretched,
        "HKDF's extract of S' and r": both,
    }
    return Keys(device, never, record, plain[4:], bytearray(rotation_key), handle, body)


def _of_device(state: Path) -> tuple[dict[str, bytes], dict[str, bytes], bytes, int]:
    """What vault holds, what it must not, the device's id, and the number of its epoch."""
    root = bytes(load_root(state))
    (path,) = state.glob("epoch-*.key")
    _, bound, number, nonce, sealed = epoch_file._FILE.unpack(path.read_bytes())
    extract_of_root = _extracted(bytes(32), root)
    wrapping = _expanded(extract_of_root, b"drempel epoch seal v2", 32)
    extract = _extracted(bytes(32), wrapping)
    file_key = _expanded(extract, b"drempel epoch file v2", 32)
    content = _opened(file_key, nonce + sealed, epoch_file._data(bound, number))
    held = dict(zip(HELD, (content[:32], wrapping, content[48:]), strict=True))
    never = {
        "root key R": root,
        "HKDF's extract of R": extract_of_root,
        "key of the epoch's file": file_key,
        "HKDF's extract of W": extract,
    }
    return held, never, content[32:48], number


def _claimed(shown: Shown, index_key: bytes) -> tuple[str, bytes, bytes, dict[str, bytes], bytes]:
    """By which column and value a record is found, its secret, what else is secret, and a token's body."""
    if shown.kind is ClaimKind.TOKEN:
        token = Token.decode(shown.data)
        return "handle", token.handle, bytes(token.secret), {"secret S": bytes(token.secret)}, token.body
    credential = credentials.parse(bytearray(shown.data), bytearray(index_key))
    secret = bytes(credential.secret())
    if shown.kind is ClaimKind.CARD:
        return "lookup", credential.lookup, secret, {"secret S": secret}, b""
    pepper = _expanded(_extracted(bytes(32), index_key), b"drempel pin pepper v2", 32)
    first_hash = _first_hash(shown.pin, credential.lookup, pepper)
    steps = {"brake B": secret, PEPPER: pepper, "Argon2's first hash": first_hash}
    return "lookup", credential.lookup, secret, steps, b""


def _first_hash(pin: bytes, lookup: bytes, pepper: bytes) -> bytes:
    """H0 of RFC 9106, §3.2: who had it could guess at the PIN without the brake."""
    head = (credentials.LANES, 32, credentials.MEMORY, credentials.PASSES, 0x13, 2)
    hashed = hashlib.blake2b(struct.pack("<6I", *head))
    for part in (pin, lookup[: credentials.SALT], pepper, b""):
        hashed.update(struct.pack("<I", len(part)) + part)
    return hashed.digest()


def _opened(key: bytes, sealed: bytes, data: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], data)


def _extracted(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract of RFC 5869, §2.2."""
    return hmac.digest(salt, secret, "sha256")


def _expanded(key: bytes | bytearray, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869, §2.3."""
    block, whole = b"", b""
    for number in range(1, (length + 31) // 32 + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        whole += block
    return whole[:length]


def spelled(named: Iterable[Needle]) -> Iterator[Needle]:
    """Each secret as it is, and as text: hexadecimal and base64, as a log or a journal would hold it."""
    for needle in named:
        yield needle
        for case in (needle.data.hex(), needle.data.hex().upper()):
            yield Needle(f"{needle.name}, hexadecimal", case.encode(), 16)
        for shift in range(3):
            # In the middle of a longer text as well: its first and last characters depend on the neighbours.
            text = base64.b64encode(bytes(shift) + needle.data)[4 if shift else 0 : -4]
            yield Needle(f"{needle.name}, base64", text, 12)
            yield Needle(f"{needle.name}, base64", text.translate(bytes.maketrans(b"+/", b"-_")), 12)


def embedding(name: str, received: bytes, mean: Vector, known: Keys) -> Iterator[Needle]:
    """An embedding as it crossed from lens to vault, and in every form that a comparison gives it."""
    normalised = read_embedding(received, len(mean))
    yield from known.rotated(name, normalised, mean)
    yield from _forms(name, np.frombuffer(received, "<f4"), normalised, mean)


def template(name: str, captures: Iterable[bytes], mean: Vector, known: Keys) -> Iterator[Needle]:
    """The template of these captures, in every form; and what it was before it was normalised."""
    embeddings = [read_embedding(each, len(mean)) for each in captures]
    total = np.asarray(np.sum(embeddings, axis=0), np.float32)
    whole = make_template(embeddings)
    yield from known.rotated(name, whole, mean)
    yield from _forms(name, total, whole, mean)


def _forms(name: str, raw: npt.NDArray[np.float32], normalised: Vector, mean: Vector) -> Iterator[Needle]:
    centred = normalised - mean
    wide = normalised.astype(np.float64) - mean.astype(np.float64)
    forms: dict[str, npt.NDArray[np.floating]] = {
        "raw": raw,
        "normalised": normalised,
        "centred": centred,
        "centred, normalised": centred / np.linalg.norm(centred),
        "raw, double": raw.astype(np.float64),
        "normalised, double": normalised.astype(np.float64),
        "centred, double": wide,
        "centred, normalised, double": wide / np.linalg.norm(wide),
    }
    for form, values in forms.items():
        yield Needle(f"{name}, {form}", values.tobytes(), WINDOW, values.itemsize)
