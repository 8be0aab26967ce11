"""Vaults with as many records as one likes: real ones, sealed and stored as any other, of nobody.

An attempt claims one record, so what it costs must not depend on how many there are.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.link.messages import (
    HANDLE,
    MAX_LEASE,
)
from appliance.packs.fetch import Progress
from appliance.packs.manifest import Manifest
from appliance.vault.claims import Vaulted, pack_identity
from appliance.vault.ground import Leases
from appliance.vault.keys import EpochKey, device_id, random_bytes, wipe
from appliance.vault.protection import SHARED, seal
from appliance.vault.store import Record, Store
from appliance.vault.token import Token

_BATCH = 10_000


@dataclass(frozen=True, slots=True, repr=False)
class Enrolled:
    """A vault with `count` records, all with a current lease, and the codes of their tokens."""

    vaulted: Vaulted
    count: int
    codes: list[bytes]


@contextmanager
def enrolled(count: int, manifest: Manifest, folder: Path, progress: Progress) -> Iterator[Enrolled]:
    """A vault with `count` random templates, in a folder of its own; about 5 KB a record.

    Raises:
        StoreError: it does not fit on the disk.
    """
    folder.mkdir()
    root = random_bytes(32)
    store = Store(folder / "vault.db")
    try:
        epoch_key = EpochKey.create(folder / "epoch.key", root, 1)
        store.begin_epoch(1)
        dimension, mean = manifest.embedder.dimension, manifest.mean
        vaulted = Vaulted(store, epoch_key, Leases(), device_id(root), pack_identity(manifest), dimension)
        wipe(root)
        codes: list[bytes] = []
        # In the order of the keys, so that no page of the tree is written twice.
        handles = sorted(secrets.token_bytes(HANDLE) for _ in range(count))
        for start in range(0, count, _BATCH):
            if start:
                progress(f"sealed {start:,} of {count:,} records")
            records = []
            for handle in handles[start : start + _BATCH]:
                token = Token.create(handle)
                codes.append(bytes(token.encode()))
                template = _anybody(dimension)
                sealed = seal(template, mean, token.secret, epoch_key, vaulted.binding(handle))
                records.append(Record(handle, SHARED, vaulted.pack, sealed))
                vaulted.leases.grant(handle, MAX_LEASE)
            store.add_all(records)
        yield Enrolled(vaulted, count, codes)
    finally:
        store.close()


def _anybody(dimension: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A random embedding, normalised (dimension,)."""
    vector = np.frombuffer(secrets.token_bytes(dimension), np.int8).astype(np.float32)
    vector += np.float32(0.5)  # no vector of zeros
    return vector / np.float32(np.sqrt(vector @ vector))
