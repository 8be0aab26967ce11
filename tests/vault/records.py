"""Records of nobody, sealed without a database: every part that binds them, and a probe to score."""

import secrets
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from appliance.vault.comparison import Vector
from appliance.vault.keys import EpochKey
from appliance.vault.protection import Binding, Opened, Sealed, open_sealed, seal


def somebody(seed: int, dimensions: int, length: float = 1) -> Vector:
    """A random vector (dimensions,) of that length."""
    raw = np.random.default_rng(seed).normal(size=dimensions)
    return np.asarray(raw * (length / np.linalg.norm(raw)), np.float32)


def a_binding(tier: int = 2) -> Binding:
    return Binding(secrets.token_bytes(16), secrets.token_bytes(16), secrets.token_bytes(32), tier)


def an_epoch(number: int = 1) -> EpochKey:
    return EpochKey(bytearray(secrets.token_bytes(32)), number)


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit flipped, counted round its end."""
    damaged = bytearray(data)
    damaged[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(damaged)


@dataclass
class Kept:
    """A sealed record and all that opens it."""

    binding: Binding
    secret: bytes | None = b"sixteen bytes..!"
    seed: int = 1
    dimensions: int = 24
    epoch_key: EpochKey = field(default_factory=an_epoch)
    sealed: Sealed = field(init=False)

    def __post_init__(self) -> None:
        self.sealed = seal(self.template, self.mean, self.owned_secret, self.epoch_key, self.binding)

    @property
    def template(self) -> Vector:
        return somebody(self.seed, self.dimensions)

    @property
    def mean(self) -> Vector:
        return somebody(self.seed + 1, self.dimensions, 0.3)

    @property
    def owned_secret(self) -> bytearray | None:
        return None if self.secret is None else bytearray(self.secret)

    def open(self, **changed: Any) -> Opened:
        """Open it, some of what opens it replaced."""
        parts = {
            "sealed": self.sealed,
            "secret": self.owned_secret,
            "epoch_key": self.epoch_key,
            "binding": self.binding,
        }
        return open_sealed(**{**parts, **changed})

    def score(self, **changed: Any) -> float:
        """How alike the template is to itself, some of what opens it replaced."""
        return self.open(**changed).score(self.template, self.mean)

    def with_part(self, **parts: bytes) -> Sealed:
        return replace(self.sealed, **parts)
