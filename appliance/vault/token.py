"""What the QR code of a token holds, and the only place where the claim's secret lives.

- Tier 2, 35 bytes: format 0xD2, the record's handle (16), the claim's secret `S` (16), a check (2). They fit
  a version-3 QR symbol at error correction M.
- Tier 1: format 0xD1, handle (16), `S` (16), the record's sealed body, a check (2). For an embedding of 512
  dimensions 323 bytes: 35 and a body of nonce (12), head (4), 512 coordinates at four bits (256), tag (16).

The check tells a damaged or foreign code from a token; it is no protection against forgery, which the
secret and the sealing are. So it needs no comparison in constant time.
"""

import binascii
from dataclasses import dataclass

from appliance.errors import DrempelError
from appliance.link.messages import (
    HANDLE,
    MAX_CODE,
    TOKEN,
)
from appliance.vault.keys import NONCE, TAG, random_bytes, wipe
from appliance.vault.protection import ON_TOKEN, SHARED

SECRET = 16
"""Bytes of the claim's secret: 128 random bits."""
_FORMATS = {0xD0 | ON_TOKEN: ON_TOKEN, 0xD0 | SHARED: SHARED}
_BODY_AT = 1 + HANDLE + SECRET
_BODIES = range(NONCE + TAG + 1, MAX_CODE - TOKEN + 1)
"""Bytes of a body on a token."""


class NotAToken(DrempelError, ValueError):
    """A code that is no token of ours, or a damaged one."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A handle (16 bytes), the claim's secret (16, overwritten after use), and in tier 1 the sealed body.

    Raises:
        ValueError: lengths that no token has, or a body in tier 2, or none in tier 1.
    """

    handle: bytes
    secret: bytearray
    tier: int = SHARED
    body: bytes = b""

    def __post_init__(self) -> None:
        if (len(self.handle), len(self.secret)) != (HANDLE, SECRET) or not (
            (self.tier == SHARED and not self.body) or (self.tier == ON_TOKEN and len(self.body) in _BODIES)
        ):
            raise ValueError("a token has a handle, a secret, and in tier 1 a sealed body")

    @classmethod
    def create(cls, handle: bytes) -> "Token":
        """A token of tier 2 with a new random secret."""
        return cls(handle, random_bytes(SECRET))

    def encode(self) -> bytearray:
        """The bytes of the code, in a buffer that the caller overwrites."""
        # At full length from the start: a buffer that grows may leave a copy of the secret behind.
        code = bytearray(TOKEN + len(self.body))
        code[0] = 0xD0 | self.tier
        code[1 : 1 + HANDLE] = self.handle
        code[1 + HANDLE : _BODY_AT] = self.secret
        code[_BODY_AT:-2] = self.body
        with memoryview(code) as view:
            code[-2:] = _check(view[:-2])
        return code

    @classmethod
    def decode(cls, code: bytes | bytearray) -> "Token":
        """The token in a code.

        Raises:
            NotAToken: wrong length, format or check.
        """
        # Views, so that the only copy of the secret is the one that is given out.
        with memoryview(code) as view:
            if not TOKEN <= len(view) <= MAX_CODE or bytes(view[-2:]) != _check(view[:-2]):
                raise NotAToken("not a token of this kind of door")
            tier = _FORMATS.get(view[0], 0)
            secret = bytearray(view[1 + HANDLE : _BODY_AT])
            try:
                return cls(bytes(view[1 : 1 + HANDLE]), secret, tier, bytes(view[_BODY_AT:-2]))
            except ValueError as error:
                wipe(secret)
                raise NotAToken("not a token of this kind of door") from error


def _check(body: memoryview) -> bytes:
    # CRC-16/CCITT-FALSE.
    return binascii.crc_hqx(body, 0xFFFF).to_bytes(2)
