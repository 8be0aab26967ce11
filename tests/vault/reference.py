"""The vault's constructions anew, from the papers and the standard library alone, to test against.

HKDF from RFC 5869 by `hmac` and `hashlib`; rotation and quantisation by lists of floats, one operation at a
time. Nothing of `appliance.vault` is used, and of `cryptography` only AES-GCM.

The committed test vectors were made by `python -m tests.vault.reference`, which writes the same bytes each
time: every input is cut from SHA-256(label ‖ counter), so none was chosen.
"""

import hashlib
import hmac
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.vault.comparison import Vector

VECTORS = Path(__file__).parent / "vectors"
STEPS = {4: 0.3352, 8: 0.03076}


def extract(salt: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), material, "sha256")


def expand(key: bytes, info: bytes, length: int) -> bytes:
    stream, block = b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        stream += block
    return stream[:length]


def hkdf(material: bytes, salt: bytes, info: bytes) -> bytes:
    return expand(extract(salt, material), info, 32)


def keys(secret: bytes | None, half: bytes, handle: bytes, tier: int) -> tuple[bytes, bytes, bytes]:
    """S', K, and the key of the rotation."""
    stretched = b"" if secret is None else hkdf(secret, handle, b"drempel claim secret v2")
    both = stretched + half
    return (
        stretched,
        hkdf(both, handle, b"drempel template v2 tier %d" % tier),
        hkdf(both, handle, b"drempel rotation v2"),
    )


def rotate(key: bytes, vector: list[float], mean: list[float]) -> list[float]:
    size = 2
    while size < len(vector):
        size *= 2
    values = [one - other for one, other in zip(vector, mean, strict=True)]
    length = math.sqrt(math.fsum(value * value for value in values))
    values = [value / length for value in values] + [0.0] * (size - len(values))
    for turn in (1, 2, 3):
        stream = expand(key, b"drempel rotation v2 round %d" % turn, 8 * size + (size + 7) // 8)
        numbers = struct.unpack(f"<{size}Q", stream[: 8 * size])
        minus = [stream[8 * size + i // 8] >> i % 8 & 1 for i in range(size)]
        values = [-value if bit else value for value, bit in zip(values, minus, strict=True)]
        values = [values[i] for i in sorted(range(size), key=lambda i: numbers[i])]
        span = size // 2
        while span:
            for i in range(size):
                if not i & span:
                    values[i], values[i + span] = values[i] + values[i + span], values[i] - values[i + span]
            span //= 2
    scale = 1 / (size * math.sqrt(size))
    return [value * scale for value in values]


def quantise(values: list[float], bits: int) -> bytes:
    half = 2 ** (bits - 1)
    levels = [math.floor(value * math.sqrt(len(values)) / STEPS[bits]) + half for value in values]
    levels = [min(max(level, 0), 2 * half - 1) for level in levels]
    if bits == 8:
        return bytes(levels)
    return bytes(16 * one + other for one, other in zip(levels[0::2], levels[1::2], strict=True))


def sealed(key: bytes, nonce: bytes, plain: bytes, data: bytes) -> bytes:
    return nonce + AESGCM(key).encrypt(nonce, plain, data)


def place(part: int, case: dict[str, Any], epoch: int) -> bytes:
    """The associated data of a part."""
    head = struct.pack("!BBBI", part, case["tier"], case["version"], epoch)
    ids = (bytes.fromhex(case[name]) for name in ("handle", "device", "pack"))
    terms = bytes.fromhex(case["terms"]) if part == 1 else b""
    return b"drempel record v2" + head + b"".join(ids) + terms


def cut(label: str, length: int) -> bytes:
    """Bytes that nobody chose."""
    blocks = (hashlib.sha256(label.encode() + bytes([i])).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def embedding(label: str, dimensions: int, divisor: int) -> Vector:
    """(bytes - 127.5) / divisor, a power of two: exact in float32."""
    raw = np.frombuffer(cut(label, dimensions), np.uint8).astype(np.float32)
    return (raw - np.float32(127.5)) / np.float32(divisor)


def _rotation(dimensions: int) -> dict[str, Any]:
    label = f"rotation {dimensions} "
    key = cut(label + "key", 32)
    vector = embedding(label + "vector", dimensions, 1024)
    mean = embedding(label + "mean", dimensions, 8192)
    rotated = rotate(key, vector.tolist(), mean.tolist())
    return {
        "dimensions": dimensions,
        "key": key.hex(),
        "vector_float32": vector.astype("<f4").tobytes().hex(),
        "mean_float32": mean.astype("<f4").tobytes().hex(),
        "rotated_float64": struct.pack(f"<{len(rotated)}d", *rotated).hex(),
        "rotated_float32": struct.pack(f"<{len(rotated)}f", *rotated).hex(),
        "quantised_4": quantise(rotated, 4).hex(),
        "quantised_8": quantise(rotated, 8).hex(),
    }


def _sealing(tier: int, secret: int, dimensions: int) -> dict[str, Any]:
    label = f"sealing {tier} {secret} "
    lengths = {"handle": 16, "device": 16, "pack": 32, "epoch_key": 32, "device_half": 32, "terms": 32}
    case: dict[str, Any] = {"tier": tier, "version": 2, "epoch": 7 + tier, "dimensions": dimensions}
    case |= {name: cut(label + name, length).hex() for name, length in lengths.items()}
    case |= {name: cut(label + name, 12).hex() for name in ("nonce_of_body", "nonce_of_half")}
    case["secret"] = cut(label + "secret", secret).hex() if secret else None
    vector, mean = embedding(label + "vector", dimensions, 1024), embedding(label + "mean", dimensions, 8192)
    handle, half = bytes.fromhex(case["handle"]), bytes.fromhex(case["device_half"])
    raw = cut(label + "secret", secret) if secret else None
    stretched, key, rotation_key = keys(raw, half, handle, tier)
    rotated = rotate(rotation_key, vector.tolist(), mean.tolist())
    bits = 4 if tier == 1 else 32
    coordinates = quantise(rotated, 4) if tier == 1 else struct.pack(f"<{len(rotated)}f", *rotated)
    plain = struct.pack("!BBH", 2, bits, dimensions) + coordinates
    body = sealed(key, bytes.fromhex(case["nonce_of_body"]), plain, place(2, case, 0))
    plain_half = half + hashlib.sha256(body).digest()
    nonce = bytes.fromhex(case["nonce_of_half"])
    sealed_half = sealed(bytes.fromhex(case["epoch_key"]), nonce, plain_half, place(1, case, case["epoch"]))
    return case | {
        "vector_float32": vector.astype("<f4").tobytes().hex(),
        "mean_float32": mean.astype("<f4").tobytes().hex(),
        "stretched_secret": stretched.hex(),
        "content_key": key.hex(),
        "rotation_key": rotation_key.hex(),
        "plain_body": plain.hex(),
        "sealed_body": body.hex(),
        "sealed_half": sealed_half.hex(),
    }


def files() -> dict[str, list[dict[str, Any]]]:
    """The committed files, by name."""
    return {
        "rotation.json": [_rotation(dimensions) for dimensions in (1, 3, 16, 100, 128, 512)],
        "sealing.json": [
            _sealing(tier, secret, dimensions)
            for tier, secret, dimensions in ((1, 16, 512), (1, 32, 100), (2, 16, 128), (2, 12, 100))
        ]
        + [_sealing(3, 32, 128), _sealing(3, 0, 24)],
    }


if __name__ == "__main__":
    for name, cases in files().items():
        (VECTORS / name).write_text(json.dumps(cases, indent=1) + "\n")
