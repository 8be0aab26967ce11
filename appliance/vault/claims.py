"""From the code of a token to the one template that it claims, or to nothing.

Nothing is said of why a claim does not open: unknown, erased, without a current ground, made with another
pack, or a wrong secret are one and the same to everyone outside.
"""

import hashlib
from dataclasses import dataclass

from appliance.packs.manifest import Manifest
from appliance.vault.ground import Leases
from appliance.vault.keys import EpochKey, wipe
from appliance.vault.protection import SHARED, VERSION, Binding, NotAuthentic, Opened, open_sealed
from appliance.vault.store import Store
from appliance.vault.token import NotAToken, Token


@dataclass(frozen=True, slots=True, repr=False)
class Claimed:
    """An opened claim: its handle, and its record, which `forget` overwrites."""

    handle: bytes
    record: Opened

    def forget(self) -> None:
        """Overwrite the opened record."""
        self.record.forget()


@dataclass(frozen=True, slots=True, repr=False)
class Vaulted:
    """What opens records: the store, the keys and the leases of this vault, and the pack it runs with."""

    store: Store
    epoch_key: EpochKey
    leases: Leases
    device: bytes
    pack: bytes
    dimension: int

    def binding(self, handle: bytes) -> Binding:
        """What a record of this vault, with the pack that runs, is bound to."""
        return Binding(handle, self.device, self.pack, SHARED)

    def open(self, token: Token) -> Claimed | None:
        """The claim of a token, opened; None when it does not open. One record is read, at most.

        The token's secret is overwritten in either case.

        Raises:
            StoreError: the database is damaged or gone.
        """
        try:
            if not self.leases.current(token.handle):
                return None
            record = self.store.read(token.handle)
            if record is None or (record.pack, record.tier, record.version) != (self.pack, SHARED, VERSION):
                return None
            opened = open_sealed(record.sealed, token.secret, self.epoch_key, self.binding(token.handle))
        except NotAuthentic:
            return None
        finally:
            wipe(token.secret)
        if opened.dimensions != self.dimension:
            opened.forget()
            return None
        return Claimed(token.handle, opened)


def pack_identity(manifest: Manifest) -> bytes:
    """32 bytes that name the space in which a pack's embeddings live: its embedder and its alignment.

    A template of one space means nothing in another, so a record is bound to it. The detector may be
    replaced without making templates incomparable, and is no part of it.
    """
    embedder = manifest.embedder
    (model,) = (source.member_sha256 for source in manifest.files if source.id == embedder.source)
    space = "\n".join(
        str(part)
        for part in (
            manifest.name,
            model,
            embedder.conversion,
            embedder.alignment,
            embedder.chip,
            embedder.dimension,
            embedder.mean,
            embedder.std,
        )
    )
    return hashlib.sha256(b"drempel pack v2\n" + space.encode()).digest()


def read_token(code: bytearray) -> Token | None:
    """The token in a code; None for one that is none, such as a poster's. `code` is overwritten."""
    try:
        return Token.decode(code)
    except NotAToken:
        return None
    finally:
        wipe(code)
