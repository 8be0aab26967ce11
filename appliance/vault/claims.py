"""From the code of a token to the one template that it claims, or to nothing.

Nothing is said of why a claim does not open: unknown, erased, without a current ground, made with another
pack, or a wrong secret are one and the same to everyone outside.
"""

import hashlib
from dataclasses import dataclass

from appliance.packs.manifest import Manifest
from appliance.vault.comparison import Vector
from appliance.vault.epoch import Epochs
from appliance.vault.erasing import erase
from appliance.vault.ground import Leases
from appliance.vault.keys import EpochKey, wipe
from appliance.vault.protection import VERSION, Binding, NotAuthentic, open_sealed
from appliance.vault.store import Store
from appliance.vault.token import TIER, NotAToken, Token


@dataclass(frozen=True, slots=True, repr=False)
class Claimed:
    """An opened claim: its handle, and its template (d,), which `forget` overwrites."""

    handle: bytes
    template: Vector

    def forget(self) -> None:
        """Overwrite the template."""
        self.template.fill(0)


@dataclass(frozen=True, slots=True, repr=False)
class Vaulted:
    """What opens records: the store, the keys and the leases of this vault, and the pack it runs with."""

    store: Store
    epochs: Epochs
    leases: Leases
    pack: bytes
    dimension: int

    @property
    def epoch_key(self) -> EpochKey:
        """The key of the epoch in force."""
        return self.epochs.current

    @property
    def device(self) -> bytes:
        """16 bytes that name this device."""
        return self.epochs.device

    def erase(self, handle: bytes) -> bool:
        """Erase a record for good, with a change of epoch; True when there was one.

        Raises:
            StoreError: not erased, or not for good yet; ask again.
        """
        return erase(self.epochs, self.store, [handle]) > 0

    def binding(self, handle: bytes) -> Binding:
        """What a record of this vault, with the pack that runs, is bound to."""
        return Binding(handle, self.device, self.pack, TIER)

    def open(self, token: Token) -> Claimed | None:
        """The claim of a token, opened; None when it does not open. One record is read, at most.

        The token's secret is overwritten in either case.

        Raises:
            StoreError: the database is damaged or gone.
        """
        try:
            if not self.leases.current(token.handle):
                return None
            # A record and the key of its epoch, or the epoch could change in between.
            with self.epochs.lock:
                record = self.store.read(token.handle)
                if record is None or (record.pack, record.tier, record.version) != (self.pack, TIER, VERSION):
                    return None
                template = open_sealed(
                    record.sealed, token.secret, self.epoch_key, self.binding(token.handle)
                )
        except NotAuthentic:
            return None
        finally:
            wipe(token.secret)
        if template.shape != (self.dimension,):
            template.fill(0)
            return None
        return Claimed(token.handle, template)


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
