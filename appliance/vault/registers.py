"""What a cipher leaves in the vector registers, overwritten by the same cipher with a key that is nobody's.

OpenSSL cleanses its memory, and not the registers: round keys of AES-256, of which the first two are the key
itself, stand in them until something else needs them. A thread that is started inherits them, and where it
then only waits, they stay for as long as it does; the kernel keeps them for it, and a core file holds them.
The forensic test found the root key so, in three threads of a vault that had long overwritten it.

Python cannot name a register. It can do the same work again: the same code uses the same registers.
"""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.vault.keys import KEY, NONCE, TAG, random_bytes

_LENGTHS = (KEY, 2 * KEY, 2048)
"""Bytes that are enciphered: a key, an epoch file, a template. OpenSSL takes other code for longer ones."""


def overwrite_registers() -> None:
    """Call after the keys of the device were used, on the same thread, before it starts others or waits."""
    nonce, data = bytes(NONCE), bytes(2 * KEY)
    for length in _LENGTHS:
        key = random_bytes(KEY)
        HKDF(hashes.SHA256(), KEY, salt=nonce, info=data).derive_into(random_bytes(KEY), key)
        sealed = AESGCM(key).encrypt(nonce, bytes(length), data)
        AESGCM(key).decrypt_into(nonce, sealed, data, bytearray(len(sealed) - TAG))
