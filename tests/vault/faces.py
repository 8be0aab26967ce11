"""Synthetic faces: random unit vectors around the mean embedding of `edge`, and vaults that hold them."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from appliance.evaluation.guessing_simulation import SimulatedTime
from appliance.packs.manifest import load_manifest
from appliance.settings import OsdpReader, Recognition, Settings
from appliance.vault.attempt import Decider
from appliance.vault.claims import Vaulted
from appliance.vault.clock import Clock
from appliance.vault.comparison import Vector
from appliance.vault.credentials import parse
from appliance.vault.epoch import Epochs
from appliance.vault.limits import Limits
from appliance.vault.protection import ON_TOKEN, SHARED, seal
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


def enrol_on_token(vaulted: Vaulted, template: Vector, handle: bytes | None = None) -> Token:
    """A stored record of tier 1, and the token that holds its body."""
    handle = handle or secrets.token_bytes(16)
    secret = bytearray(secrets.token_bytes(16))
    binding = vaulted.binding(handle, ON_TOKEN)
    sealed = seal(template, EDGE.mean, secret, vaulted.epochs.current, binding)
    vaulted.store.add(Record(handle, ON_TOKEN, vaulted.pack, replace(sealed, body=b"")))
    vaulted.leases.grant(handle, 3600)
    return Token(handle, secret, ON_TOKEN, sealed.body)


def enrol_for(vaulted: Vaulted, template: Vector, wire: bytearray, *, tier: int | None = None) -> bytes:
    """A stored record for a card, or a number and PIN, as door sends it; its handle. `wire` stays."""
    credential = parse(bytearray(wire), vaulted.epochs.index_key)
    handle, tier = secrets.token_bytes(16), tier or vaulted.policy.tier_of(credential.kind)
    binding = vaulted.binding(handle, tier, credential.lookup)
    sealed = seal(template, EDGE.mean, credential.secret(), vaulted.epochs.current, binding)
    vaulted.store.add(Record(handle, tier, vaulted.pack, sealed, lookup=credential.lookup))
    vaulted.leases.grant(handle, 3600)
    return handle


def again(token: Token) -> Token:
    """The same token once more: a claim overwrites its secret."""
    return Token(token.handle, bytearray(token.secret), token.tier, token.body)


def at(vaulted: Vaulted, time: SimulatedTime, budget: int | None = None) -> Vaulted:
    """The same vault at a simulated time, as one that was started then."""
    clock = Clock(vaulted.store, time.sources())
    limits = Limits(vaulted.store, vaulted.epochs.index_key, clock, budget or vaulted.limits._budget)
    return replace(vaulted, clock=clock, limits=limits)


def opens(vaulted: Vaulted, token: Token) -> bool:
    """Whether a token opens its record now, with a current ground; what it is charged is given back."""
    vaulted.leases.grant(token.handle, 60)
    claimed = vaulted.open(Token(token.handle, bytearray(token.secret), token.tier, token.body))
    if claimed is None:
        return False
    vaulted.limits.succeeded(claimed.handle)
    claimed.forget()
    return True
