"""All that a thief would look for, as bytes: derived by the test from what vault holds, before it is erased.

The one place that follows the format of records and keys (`appliance.vault.protection`, `keys`); a new format
changes this module, and no search.
"""

import base64
import hmac
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.link.messages import ClaimKind
from appliance.vault import protection
from appliance.vault.comparison import Vector, make_template, read_embedding
from appliance.vault.keys import EpochKey, device_id, load_root
from appliance.vault.protection import Binding, Sealed, open_sealed
from appliance.vault.token import Token
from tests.system.raw_search import Needle

WINDOW = 32
"""Bytes of an embedding that are enough to be a remnant: eight coordinates."""


@dataclass(frozen=True, repr=False)
class Keys:
    """The keys of the device, and of one record."""

    root: bytes
    epoch: bytes
    half: bytes
    content: bytes
    secret: bytes
    steps: dict[str, bytes]
    """What the derivations pass through, from which K follows."""
    stored: bytes
    """The template as it lies in the record once that is opened."""

    def of_record(self) -> Iterator[Needle]:
        """What opens this record: no zone may hold any of it after the attempt."""
        yield Needle("secret S", self.secret)
        yield Needle("device half r", self.half)
        yield Needle("content key K", self.content)
        yield Needle("stored template", self.stored, WINDOW, 4)
        for name, value in self.steps.items():
            yield Needle(name, value)

    def of_device(self) -> Iterator[Needle]:
        """What opens every record with a token: R at no time after the start, E as long as its epoch."""
        yield Needle("root key R", self.root)
        yield Needle("epoch key E", self.epoch)


def keys(state: Path, token: bytes) -> Keys:
    """The keys of a record in vault's folder `state`, as vault itself derives them for a token."""
    root = load_root(state)
    epoch = EpochKey.load(state / "epoch.key", root)
    claim = Token.decode(token)
    db = sqlite3.connect(f"file:{state / 'vault.db'}?mode=ro", uri=True)
    try:
        tier, version, pack, sealed_half, body = db.execute(
            "SELECT tier, version, pack, half, body FROM record WHERE handle = ?", (claim.handle,)
        ).fetchone()
    finally:
        db.close()
    binding = Binding(claim.handle, device_id(root), pack, tier, version)
    half = bytearray(32)
    protection._open(epoch.key, sealed_half, binding.data(protection._HALF, epoch.epoch), half)
    content = protection._content_key(claim.secret, half, binding)
    first = _extracted(claim.handle, bytes(claim.secret))
    stretched = hmac.digest(first, b"drempel claim secret v2\x01", "sha256")
    steps = {
        "HKDF's extract of S": first,
        "stretched secret S'": stretched,
        "HKDF's extract of S' and r": _extracted(claim.handle, stretched + bytes(half)),
    }
    info = f"drempel template v2 tier {tier}".encode()
    assert hmac.digest(steps["HKDF's extract of S' and r"], info + b"\x01", "sha256") == content
    stored = open_sealed(Sealed(sealed_half, body), claim.secret, epoch, binding)
    return Keys(
        bytes(root),
        bytes(epoch.key),
        bytes(half),
        bytes(content),
        bytes(claim.secret),
        steps,
        stored.tobytes(),
    )


def claim(kind: ClaimKind, presented: bytes) -> Needle:
    """What a person presents, whole: a token holds the handle of its record, which is no secret."""
    return Needle(f"{kind.name.lower()} as presented", presented, least=len(presented))


def _extracted(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract of RFC 5869, §2.2."""
    return hmac.digest(salt, secret, "sha256")


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


def embedding(name: str, received: bytes, mean: Vector) -> Iterator[Needle]:
    """An embedding as it crossed from lens to vault, and in every form that a comparison gives it."""
    normalised = read_embedding(received, len(mean))
    yield from _forms(name, np.frombuffer(received, "<f4"), normalised, mean)


def template(name: str, captures: Iterable[bytes], mean: Vector) -> Iterator[Needle]:
    """The template of these captures, in every form; and what it was before it was normalised."""
    embeddings = [read_embedding(each, len(mean)) for each in captures]
    total = np.asarray(np.sum(embeddings, axis=0), np.float32)
    yield from _forms(name, total, make_template(embeddings), mean)


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
