"""Synthetic faces: random unit vectors around the mean embedding of `edge`, and vaults that hold them."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from appliance.packs.manifest import load_manifest
from appliance.settings import OsdpReader, Recognition, Settings
from appliance.vault.attempt import Decider
from appliance.vault.claims import Vaulted
from appliance.vault.comparison import Vector
from appliance.vault.epoch import Epochs
from appliance.vault.protection import SHARED, seal
from appliance.vault.store import Record, Store
from appliance.vault.token import Token

EDGE = load_manifest("edge")
DIMENSION = EDGE.embedder.dimension
DECIDER = Decider(EDGE.mean, EDGE.threshold(1e-4, 3))
READER = OsdpReader(name="outside", device=Path("/dev/null"), key_file=Path("/dev/null"))
RECOGNITION = Recognition(
    enabled=True,
    controller="Bakkerij De Ooievaar",
    dpia="DPIA 2026-03",
    legal_ground="consent",
    acknowledge=["edge"],
    captures=2,
    attempt_time=4.0,
    answer_time=1.0,
)


def face(seed: int) -> Vector:
    """Somebody's embedding, normalised (d,)."""
    raw = EDGE.mean + np.random.default_rng(seed).normal(0, 0.04, DIMENSION)
    return np.asarray(raw / np.linalg.norm(raw), np.float32)


def seen(seed: int, frame: int = 0) -> bytes:
    """The same somebody in one frame: a little noise each, as it crosses from lens to vault."""
    noise = np.random.default_rng([seed, frame]).normal(0, 0.004, DIMENSION)
    return (face(seed) + noise).astype("<f4").tobytes()


def vault_of(store: Store, epochs: Epochs, **recognition: Any) -> Vaulted:
    """What opens the records of a store, under these settings of recognition."""
    settings = Settings(recognition=RECOGNITION.model_copy(update=recognition), badge_readers=[READER])
    return Vaulted.of(store, epochs, EDGE, settings)


@contextmanager
def vault_in(folder: Path, **recognition: Any) -> Iterator[Vaulted]:
    """What opens records, with a store and keys of its own in `folder`, under these settings."""
    root = bytearray(secrets.token_bytes(32))
    store = Store(folder / "vault.db")
    try:
        yield vault_of(store, Epochs.open(folder, root, store), **recognition)
    finally:
        store.close()


def enrol(vaulted: Vaulted, template: Vector, *, lease: int = 3600, pack: bytes | None = None) -> Token:
    """A stored record, and the token that opens it."""
    token = Token.create(secrets.token_bytes(16))
    binding = vaulted.binding(token.handle, SHARED)
    sealed = seal(template, EDGE.mean[: len(template)], token.secret, vaulted.epochs.current, binding)
    vaulted.store.add(Record(token.handle, SHARED, pack or vaulted.pack, sealed))
    vaulted.leases.grant(token.handle, lease)
    return token


def opens(vaulted: Vaulted, token: Token) -> bool:
    """Whether a token opens its record now, with a current ground; what it is charged is given back."""
    vaulted.leases.grant(token.handle, 60)
    claimed = vaulted.open(Token(token.handle, bytearray(token.secret), token.tier, token.body))
    if claimed is None:
        return False
    vaulted.limits.succeeded(claimed.handle)
    claimed.forget()
    return True
