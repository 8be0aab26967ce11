"""From a claim to the one template that it claims, or to nothing.

Nothing is said of why a claim does not open: unknown, erased, expired, out of hours, limited, without a
current ground, of a kind that this site does not take, made with another pack, or with a wrong secret are one
and the same to everyone outside. Each makes the same writes (see `limits`), and no face is embedded for any.
"""

import hashlib
import math
import sys
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from appliance.errors import ConfigurationError
from appliance.link.claims import NotACredential
from appliance.link.messages import ClaimKind
from appliance.packs.manifest import Manifest
from appliance.rights import ALWAYS, BadRights, Rights, allows
from appliance.settings import Settings
from appliance.vault.clock import Clock
from appliance.vault.comparison import Vector
from appliance.vault.credentials import Credential, parse
from appliance.vault.epoch import Epochs
from appliance.vault.erasing import erase, rotate
from appliance.vault.expiry import expired
from appliance.vault.ground import Leases
from appliance.vault.keys import wipe
from appliance.vault.limits import Limits, budget_of, forget
from appliance.vault.protection import (
    DEVICE,
    ON_TOKEN,
    SHARED,
    VERSION,
    Binding,
    NotAuthentic,
    Opened,
    Sealed,
    open_sealed,
    rewrap,
    terms_of,
)
from appliance.vault.store import NEVER, Record, Store, StoreError
from appliance.vault.token import NotAToken, Token

FEWEST_FAILURES = 60
"""In a year: with so many, who enters eight times a working day, and fails at 2 % of them, is locked out once
in six hundred years (the tail of a binomial; see `scripts/guessing`); with fifty, once in sixteen."""
NOBODY = bytes(16)
"""The handle of no record."""
_KINDS = {"token": ClaimKind.TOKEN, "card": ClaimKind.CARD, "number": ClaimKind.NUMBER}


@dataclass(frozen=True, slots=True)
class Policy:
    """What this site takes: the weakest tier (1 to 3), the kinds of claims, its time zone, and for how many
    seconds a template lives.
    """

    tier: int
    kinds: frozenset[ClaimKind]
    zone: ZoneInfo
    lifetime: int

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """The policy that the settings state."""
        recognition = settings.recognition
        return cls(
            recognition.tier,
            frozenset(_KINDS[each] for each in recognition.claims),
            ZoneInfo(settings.site.time_zone),
            recognition.renew_after_days * 86_400,
        )

    def tier_of(self, kind: ClaimKind) -> int:
        """The tier of a record that is enrolled for such a claim."""
        if kind is ClaimKind.NUMBER:
            return DEVICE
        return ON_TOKEN if kind is ClaimKind.TOKEN and self.tier == ON_TOKEN else SHARED


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
    """What opens records: store, keys, leases, limits and clock, what the site takes, and the pack.

    pack: its identity, 32 bytes. mean: its mean embedding (d,).
    """

    store: Store
    epochs: Epochs
    leases: Leases
    limits: Limits
    clock: Clock
    policy: Policy
    pack: bytes
    mean: Vector

    @classmethod
    def of(cls, store: Store, epochs: Epochs, manifest: Manifest, settings: Settings) -> "Vaulted":
        """What opens records with this pack under these settings; no lease runs yet.

        Raises:
            StoreError: the database cannot be read or written.
            ConfigurationError: the settings allow not even one attempt a year.
        """
        recognition = settings.recognition
        clock = Clock(store)
        attempt_fmr = manifest.attempt_fmr(recognition.fmr, recognition.probes)
        budget = budget_of(recognition.guessing_risk, attempt_fmr)
        if recognition.enabled and budget < FEWEST_FAILURES:
            enough = math.ceil(1000 * FEWEST_FAILURES * attempt_fmr) / 1000
            raise ConfigurationError(
                f"guessing_risk = {recognition.guessing_risk:g} leaves {budget} failures a year at an FMR of "
                f"{attempt_fmr:.3g}, and honest people would be locked out: choose a lower fmr (1e-5 needs "
                f"probes = 1), or write guessing_risk = {enough:g} or more"
            )
        limits = Limits(store, epochs.index_key, clock, budget)
        pack = pack_identity(manifest)
        return cls(store, epochs, Leases(), limits, clock, Policy.of(settings), pack, manifest.mean)

    def binding(
        self,
        handle: bytes,
        tier: int,
        lookup: bytes | None = None,
        rights: bytes = ALWAYS,
        expires_at: int = NEVER,
    ) -> Binding:
        """What a record of this vault, with the pack that runs and on these terms, is bound to."""
        terms = terms_of(lookup, rights, expires_at)
        return Binding(handle, self.epochs.device, self.pack, tier, VERSION, terms)

    def set_rights(self, handle: bytes, rights: bytes) -> bool:
        """Change when a record may open the door, durably; False where there is none.

        Args:
            handle: 16 bytes.
            rights: as `appliance.rights` encodes them.

        Raises:
            NotAuthentic: the record was altered; nothing changed.
            StoreError: it could not be stored; nothing changed.
        """
        with self.epochs.lock:
            record = self.store.read(handle)
            if record is None:
                return False
            key, device = self.epochs.current, self.epochs.device
            before, after = (
                Binding(
                    handle,
                    device,
                    record.pack,
                    record.tier,
                    record.version,
                    terms_of(record.lookup, each, record.expires_at),
                )
                for each in (record.rights, rights)
            )
            half = rewrap(record.sealed.half, before, key, key, after)
            self.store.set_rights(handle, rights, half)
        return True

    def tell_of_weaker_records(self) -> None:
        """Say where records are of a weaker tier than the site takes: they open nothing, and are still held.

        Raises:
            StoreError: the database cannot be read.
        """
        weaker = self.store.count(above=self.policy.tier)
        if weaker:
            print(
                f"drempel vault: {weaker} records are of a weaker tier than tier = {self.policy.tier} takes: "
                "they open nothing any more; erase these people's templates, or enrol them anew",
                file=sys.stderr,
            )

    def keep(self, record: Record, replaces: bytes = NOBODY) -> None:
        """Store a new record, durably.

        Args:
            record: sealed for the epoch in force, whose lock the caller holds.
            replaces: the handle of the person's record so far, `NOBODY` for none. Admin has it erased when it
                has the new one; but two records cannot be found by one card or number, so there it goes now.

        Raises:
            HandleTaken, StoreError: not stored; nothing changed.
        """
        before = self.store.read_by_lookup(record.lookup) if record.lookup is not None else None
        if before is None or before.handle != replaces:
            self.store.add(record)
            return
        self.store.add(record, replaces, lambda db: forget(db, self.epochs.index_key, [replaces]))
        # For good, as every erasure. Where that fails now, the next change of epoch does it, within a day.
        try:
            rotate(self.epochs, self.store)
        except StoreError as error:
            print(f"drempel vault: the replaced record is not erased for good yet: {error}", file=sys.stderr)

    def erase(self, *handles: bytes) -> int:
        """Erase records for good, with a change of epoch; how many there were.

        Raises:
            StoreError: not erased, or not for good yet; ask again.
        """
        return erase(self.epochs, self.store, handles, lambda db: forget(db, self.epochs.index_key, handles))

    def open(self, claim: Token | Credential) -> Claimed | None:
        """The claim, opened, and charged as a failure (see `limits`); None when it does not open.

        One record is read, at most. The claim's secret is overwritten in any case.

        Raises:
            StoreError: the database is damaged or gone, or its disk is full; nothing is to be compared.
        """
        secret = bytearray()
        opened: Opened | None = None
        try:
            # Before anything is known of the claim: it takes as long for a number that nobody has.
            secret = claim.secret if isinstance(claim, Token) else claim.secret()
            # Charged before the record can be erased: else a row of the erased would stay for good.
            with self.leases.held(), self.epochs.lock:
                record, opened = self._open(claim, secret)
                # A wrong PIN is a guess at it, and makes waits; a wrong secret of 96 bits and more is none.
                # Only an attempt at the face takes from the year's budget.
                guess = record is not None and (opened is not None or record.tier == DEVICE)
                handle = _place(claim) if record is None else record.handle
                allowed = self.limits.charge(handle, known=guess, counted=opened is not None)
            claimed = Claimed(handle, opened) if opened is not None and allowed else None
            if claimed is not None:
                opened = None
            return claimed
        finally:
            wipe(secret)
            if isinstance(claim, Credential):
                claim.forget()
            if opened is not None:
                opened.forget()

    def _open(self, claim: Token | Credential, secret: bytearray) -> tuple[Record | None, Opened | None]:
        """The record that is claimed, where the claim may be tried; and opened, where its secret is right."""
        # A record and the key of its epoch, or the epoch could change in between. The leases first, as an
        # erasure takes them: else each would wait for the other.
        with self.leases.held(), self.epochs.lock:
            record = self._find(claim)
            if record is None or not self._may_open(record) or not self.limits.may_try(record.handle):
                return None, None
            body = claim.body if isinstance(claim, Token) and record.tier == ON_TOKEN else record.sealed.body
            try:
                opened = open_sealed(
                    Sealed(record.sealed.half, body),
                    secret,
                    self.epochs.current,
                    self.binding(record.handle, record.tier, record.lookup, record.rights, record.expires_at),
                )
            except NotAuthentic:
                return record, None
        if opened.dimensions != len(self.mean):
            opened.forget()
            return record, None
        return record, opened

    def _find(self, claim: Token | Credential) -> Record | None:
        """The record of a claim, if there is one of the tier that such a claim opens here."""
        if isinstance(claim, Token):
            # Without a current ground the record is not even read.
            kind, tier = ClaimKind.TOKEN, claim.tier
            record = self.store.read(claim.handle) if self.leases.current(claim.handle) else None
        else:
            kind, tier = claim.kind, self.policy.tier_of(claim.kind)
            record = self.store.read_by_lookup(claim.lookup)
        served = kind in self.policy.kinds and tier <= self.policy.tier
        return record if served and record is not None and record.tier == tier else None

    def _may_open(self, record: Record) -> bool:
        """Whether a record has a ground, is of this pack, has not expired, and its person may enter now."""
        if not self.leases.current(record.handle):
            return False
        if (record.pack, record.version) != (self.pack, VERSION):
            return False
        try:
            rights = Rights.decode(record.rights)
        except BadRights as error:
            print(f"drempel vault: a record's rights are damaged: {error}", file=sys.stderr)
            return False
        if expired(record.expires_at, rights, self.clock):
            return False
        return allows(rights, self.clock.moment(), self.policy.zone, not_before=self.clock.latest)


def pack_identity(manifest: Manifest) -> bytes:
    """32 bytes that name the space in which a pack's templates live: its embedder, alignment and mean.

    A template of one space means nothing in another, so a record is bound to it. The mean is subtracted
    before a template is sealed, so another mean makes another space. The detector may be replaced without
    making templates incomparable, and is no part of it.
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
            hashlib.sha256(np.asarray(manifest.mean, "<f4").tobytes()).hexdigest(),
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


def read_credential(claim: bytearray, index_key: bytearray) -> Credential:
    """The credential that door was shown; `claim` is overwritten.

    One that is none becomes one that nobody has, so that it is refused like every other; never enrol it.
    """
    try:
        return parse(claim, index_key)
    except NotACredential:
        return Credential(ClaimKind.CARD, bytes(32), bytearray(16), index_key)


def _place(claim: Token | Credential) -> bytes:
    """What stands for a claim that is none in the table of strangers."""
    return claim.handle if isinstance(claim, Token) else claim.lookup
