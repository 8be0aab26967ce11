"""The token of tier 2: what the QR code holds, and the only place where the claim's secret lives.

35 bytes: a format byte, the record's handle (16), the claim's secret `S` (16) and a check (2). They fit a
version-3 QR symbol at error correction M. The check tells a damaged or foreign code from a token; it is
no protection against forgery, which the secret is.
"""

import binascii
import secrets
from dataclasses import dataclass

from appliance.errors import DrempelError
from appliance.link.messages import HANDLE, TOKEN

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
        return cls(handle, bytearray(secrets.token_bytes(SECRET)))

    def encode(self) -> bytes:
        """The 35 bytes of the code."""
        body = bytes([_FORMAT]) + self.handle + self.secret
        return body + _check(body)

    @classmethod
    def decode(cls, code: bytes | bytearray) -> "Token":
        """The token in a code.

        Raises:
            NotAToken: wrong length, format or check.
        """
        if len(code) != TOKEN or code[0] != _FORMAT or bytes(code[-2:]) != _check(code[:-2]):
            raise NotAToken("not a token of this kind of door")
        return cls(bytes(code[1 : 1 + HANDLE]), bytearray(code[1 + HANDLE : -2]))


def _check(body: bytes | bytearray) -> bytes:
    # CRC-16/CCITT-FALSE.
    return binascii.crc_hqx(body, 0xFFFF).to_bytes(2)
