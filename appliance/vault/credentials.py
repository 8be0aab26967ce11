"""Claims that pass through door: a card's credential, or a number with its PIN (design §2, §4).

What is on the wire stands in `appliance.link.claims`. Which record is claimed stands in its row as
`lookup = HMAC-SHA256(index key, kind ‖ value)` (RFC 2104). The index key is the vault's own and is not in the
database. The lookup makes a pseudonym of a number, which whoever holds the device can guess; of a card's 96
random bits it tells nothing.

**The brake.** A PIN of four digits is guessed by whoever holds the device and its keys. Argon2id only makes
each guess dear: `B = Argon2id(PIN, salt = lookup, secret = HKDF(index key))` with 64 MiB, 3 passes and 4
lanes, the second recommended option of RFC 9106 §4. That takes 0.15 s of one core of the machine where it was
measured, so all PINs of four digits take 25 minutes there; a Raspberry Pi 4 needs about four times as long,
and a rack of graphics cards a fraction. Hence `B` counts as no secret of the person's (B2), and tier 3 asks
for a justification. `B` goes into the content key, so no verifier of the PIN is stored anywhere.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.link.claims import CARD, CARD_BITS, DIGITS, NUMBER, NUMBER_DIGITS, PIN_DIGITS, NotACredential
from appliance.link.messages import ClaimKind
from appliance.vault.keys import KEY, wipe

MEMORY = 64 * 1024
"""KiB that the brake fills (RFC 9106 §4, second recommended option)."""
SALT = 16
"""Bytes of the salt (RFC 9106 §3.1)."""
PASSES = 3
LANES = 4


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """What door was shown, to be overwritten by `forget`: its kind, what it is looked up by, its secret part.

    `lookup` has 32 bytes; `value` is a card's whole credential, or a PIN's digits.
    """

    kind: ClaimKind
    lookup: bytes
    value: bytearray
    index_key: bytearray

    def secret(self) -> bytearray:
        """What opens the record, in a buffer that the caller overwrites.

        A card's credential itself (12 to 32 bytes), or the brake of a PIN (32 bytes), which takes its time,
        whether or not anybody has such a number.
        """
        if self.kind is ClaimKind.CARD:
            return bytearray(self.value)
        return brake(self.value, self.lookup[:SALT], self.index_key)

    def forget(self) -> None:
        """Overwrite the secret part."""
        wipe(self.value)


def parse(claim: bytearray, index_key: bytearray) -> Credential:
    """The credential in what door sent; `claim` is overwritten, whatever it is.

    Raises:
        NotACredential: of no known kind, too short, too long, or not of digits.
    """
    try:
        if len(claim) > 1 and claim[0] == CARD:
            return _card(claim, index_key)
        if len(claim) > 1 and claim[0] == NUMBER:
            return _number(claim, index_key)
        raise NotACredential("no claim of a known kind")
    finally:
        wipe(claim)


def brake(pin: bytearray, salt: bytes, index_key: bytearray) -> bytearray:
    """`B`, 32 bytes: Argon2id of a PIN (4 to 12 ASCII digits), salted by its number's lookup (16 bytes).

    Raises:
        MemoryError: 64 MiB are not to be had.
    """
    pepper = bytearray(KEY)
    try:
        HKDF(hashes.SHA256(), KEY, salt=None, info=b"drempel pin pepper v2").derive_into(index_key, pepper)
        return _argon2id(pin, salt, pepper, PASSES, MEMORY)
    finally:
        wipe(pepper)
        # The library hands PIN and pepper to OpenSSL in a block that it frees without overwriting it, and
        # takes the pepper as `bytes`. The same work again, small and with nobody's PIN, takes both places.
        _argon2id(bytearray(len(pin)), bytes(len(salt)), pepper, 1, 8 * LANES)


def _argon2id(pin: bytearray, salt: bytes, pepper: bytearray, passes: int, memory: int) -> bytearray:
    slowed = bytearray(KEY)
    Argon2id(
        salt=salt, length=KEY, iterations=passes, lanes=LANES, memory_cost=memory, secret=bytes(pepper)
    ).derive_into(pin, slowed)  # type: ignore[arg-type] # its stub is narrower than it is
    return slowed


def _card(claim: bytearray, index_key: bytearray) -> Credential:
    bits = claim[1]
    with memoryview(claim) as view:
        if bits not in CARD_BITS or len(view) != 2 + (bits + 7) // 8:
            raise NotACredential("a card's credential of an impossible length")
        if bits % 8 and view[2] >> bits % 8:
            raise NotACredential("a card's credential of more bits than it says")
        return Credential(ClaimKind.CARD, _lookup(index_key, view), bytearray(view[2:]), index_key)


def _number(claim: bytearray, index_key: bytearray) -> Credential:
    with memoryview(claim) as view:
        digits = view[1]
        number, rest = view[1 : 2 + digits], view[2 + digits :]
        if digits not in NUMBER_DIGITS or len(number) != 1 + digits or not DIGITS.issuperset(number[1:]):
            raise NotACredential("a number that is none")
        if len(rest) == 0 or rest[0] not in PIN_DIGITS or len(rest) != 1 + rest[0]:
            raise NotACredential("a PIN of an impossible length")
        if not DIGITS.issuperset(rest[1:]):
            raise NotACredential("a PIN that is not of digits")
        return Credential(
            ClaimKind.NUMBER, _lookup(index_key, view[: 2 + digits]), bytearray(rest[1:]), index_key
        )


def _lookup(index_key: bytearray, value: memoryview) -> bytes:
    """HMAC-SHA256 (32 bytes) of the kind, the length and the value."""
    code = hmac.HMAC(index_key, hashes.SHA256())
    code.update(value)
    return code.finalize()
