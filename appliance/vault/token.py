"""The token of tier 2: what the QR code holds, and the only place where the claim's secret lives.

35 bytes: a format byte, the record's handle (16), the claim's secret `S` (16) and a check (2). They fit a
version-3 QR symbol at error correction M. The check tells a damaged or foreign code from a token; it is
no protection against forgery, which the secret is.
"""

import binascii
from dataclasses import dataclass

from appliance.errors import DrempelError
from appliance.link.messages import (
    HANDLE,
    TOKEN,
)
from appliance.vault.keys import random_bytes

SECRET = 16
"""Bytes of the claim's secret: 128 random bits."""
TIER = 2
"""Shared: the body on the device, opened by token and device together."""
_FORMAT = 0xD0 | TIER


class NotAToken(DrempelError, ValueError):
    """A code that is no token of ours, or a damaged one."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A handle (16 bytes) and the claim's secret (16 bytes, overwritten after use)."""

    handle: bytes
    secret: bytearray

    @classmethod
    def create(cls, handle: bytes) -> "Token":
        """A token with a new random secret."""
        return cls(handle, random_bytes(SECRET))

    def encode(self) -> bytearray:
        """The 35 bytes of the code, in a buffer that the caller overwrites."""
        code = bytearray([_FORMAT])
        code += self.handle
        code += self.secret
        code += _check(code)
        return code

    @classmethod
    def decode(cls, code: bytes | bytearray) -> "Token":
        """The token in a code.

        Raises:
            NotAToken: wrong length, format or check.
        """
        # Views, so that the only copy of the secret is the one that is given out.
        with memoryview(code) as view:
            if len(view) != TOKEN or view[0] != _FORMAT or bytes(view[-2:]) != _check(view[:-2]):
                raise NotAToken("not a token of this kind of door")
            return cls(bytes(view[1 : 1 + HANDLE]), bytearray(view[1 + HANDLE : -2]))


def _check(body: bytearray | memoryview) -> bytes:
    # CRC-16/CCITT-FALSE.
    return binascii.crc_hqx(body, 0xFFFF).to_bytes(2)
