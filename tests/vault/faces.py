"""Synthetic faces: random unit vectors around the mean embedding of `edge`, and vaults that hold them."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from appliance.packs.manifest import load_manifest
from appliance.settings import Recognition
from appliance.vault.attempt import Decider
from appliance.vault.claims import Vaulted, pack_identity
from appliance.vault.comparison import Vector
from appliance.vault.ground import Leases
from appliance.vault.keys import EpochKey, device_id
from appliance.vault.protection import SHARED, seal
from appliance.vault.store import Record, Store
from appliance.vault.token import Token

EDGE = load_manifest("edge")
DIMENSION = EDGE.embedder.dimension
DECIDER = Decider(EDGE.mean, EDGE.threshold(1e-4, 3))
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


@contextmanager
def vault_in(folder: Path) -> Iterator[Vaulted]:
    """What opens records, with a store and keys of its own in `folder`."""
    root = bytearray(secrets.token_bytes(32))
    store = Store(folder / "vault.db")
    epoch_key = EpochKey.create(folder / "epoch.key", root, 1)
    store.begin_epoch(1)
    try:
        yield Vaulted(store, epoch_key, Leases(), device_id(root), pack_identity(EDGE), DIMENSION)
    finally:
        store.close()


def enrol(vaulted: Vaulted, template: Vector, *, lease: int = 3600, pack: bytes | None = None) -> Token:
    """A stored record, and the token that opens it."""
    token = Token.create(secrets.token_bytes(16))
    binding = vaulted.binding(token.handle)
    sealed = seal(template, EDGE.mean[: len(template)], token.secret, vaulted.epoch_key, binding)
    vaulted.store.add(Record(token.handle, SHARED, pack or vaulted.pack, sealed))
    vaulted.leases.grant(token.handle, lease)
    return token
