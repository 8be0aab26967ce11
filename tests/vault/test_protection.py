import hashlib
import json
import secrets
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from appliance.vault import protection
from appliance.vault.comparison import NotAnEmbedding
from appliance.vault.keys import EpochKey
from appliance.vault.protection import (
    Binding,
    NotAuthentic,
    Opened,
    Sealed,
    authenticates,
    open_sealed,
    rewrap,
    seal,
)
from tests.vault import reference
from tests.vault.records import Kept, a_binding, an_epoch, flipped, somebody
from tests.vault.watching import locals_at_return

SECRET = b"sixteen bytes..!"
CASES: list[dict[str, Any]] = json.loads((reference.VECTORS / "sealing.json").read_text())
known_answers = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"tier {case['tier']}, {case['dimensions']}"
)
every_tier = pytest.mark.parametrize(
    ("tier", "secret"), [(1, SECRET), (2, SECRET), (3, SECRET * 2), (3, None)], ids=str
)


def of_case(case: dict[str, Any]) -> tuple[bytearray | None, EpochKey, Binding]:
    handle, device, pack = (bytes.fromhex(case[name]) for name in ("handle", "device", "pack"))
    secret = None if case["secret"] is None else bytearray.fromhex(case["secret"])
    epoch_key = EpochKey(bytearray.fromhex(case["epoch_key"]), case["epoch"])
    return (
        secret,
        epoch_key,
        Binding(handle, device, pack, case["tier"], case["version"], bytes.fromhex(case["terms"])),
    )


def in_turn(*values: bytes | bytearray) -> Callable[[int], bytes | bytearray]:
    left = list(values)

    def next_one(length: int) -> bytes | bytearray:
        assert len(left[0]) == length
        return left.pop(0)

    return next_one


@known_answers
def test_a_sealed_record_is_byte_for_byte_that_of_the_committed_vectors(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, epoch_key, binding = of_case(case)
    nonces = [bytes.fromhex(case[f"nonce_of_{part}"]) for part in ("body", "half")]
    half = bytearray.fromhex(case["device_half"])
    monkeypatch.setattr(protection, "random_bytes", in_turn(half))
    monkeypatch.setattr(secrets, "token_bytes", in_turn(*nonces))
    vector, mean = (
        np.frombuffer(bytes.fromhex(case[f"{name}_float32"]), "<f4").astype(np.float32)
        for name in ("vector", "mean")
    )
    sealed = seal(vector, mean, secret, epoch_key, binding)
    assert sealed.body.hex() == case["sealed_body"]
    assert sealed.half.hex() == case["sealed_half"]


@known_answers
def test_the_committed_records_open(case: dict[str, Any]) -> None:
    secret, epoch_key, binding = of_case(case)
    sealed = Sealed(bytes.fromhex(case["sealed_half"]), bytes.fromhex(case["sealed_body"]))
    vector, mean = (
        np.frombuffer(bytes.fromhex(case[f"{name}_float32"]), "<f4").astype(np.float32)
        for name in ("vector", "mean")
    )
    assert authenticates(sealed, epoch_key, binding)
    opened = open_sealed(sealed, secret, epoch_key, binding)
    assert opened.dimensions == case["dimensions"]
    assert opened.score(vector, mean) == pytest.approx(1, abs=0.03 if case["tier"] == 1 else 1e-6)


@known_answers
def test_every_key_is_derived_as_rfc_5869_says(case: dict[str, Any]) -> None:
    secret, _, binding = of_case(case)
    half = bytearray.fromhex(case["device_half"])
    stretched, key, rotation_key = reference.keys(
        None if secret is None else bytes(secret), bytes(half), binding.handle, binding.tier
    )
    assert (stretched.hex(), key.hex(), rotation_key.hex()) == (
        case["stretched_secret"],
        case["content_key"],
        case["rotation_key"],
    )
    assert protection._derive(secret, half, binding) == (bytearray(key), bytearray(rotation_key))


def test_tier_3_without_a_secret_derives_from_the_device_half_alone() -> None:
    handle, half = bytes(16), bytes(range(32))
    key = reference.expand(reference.extract(handle, half), b"drempel template v2 tier 3", 32)
    binding = Binding(handle, bytes(16), bytes(32), 3)
    assert protection._derive(None, bytearray(half), binding)[0] == key


@every_tier
def test_every_flipped_bit_of_a_record_is_refused(tier: int, secret: bytes | None) -> None:
    kept = Kept(a_binding(tier), secret, dimensions=8)
    for part in ("half", "body"):
        data = getattr(kept.sealed, part)
        for bit in range(8 * len(data)):
            damaged = kept.with_part(**{part: flipped(data, bit)})
            with pytest.raises(NotAuthentic):
                kept.open(sealed=damaged)
            assert not authenticates(damaged, kept.epoch_key, kept.binding)


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 27, 28, 29, 59, 60, 61, 91, 93])
def test_a_part_cut_short_or_made_longer_is_refused(length: int) -> None:
    kept = Kept(a_binding())
    for changed in (
        kept.with_part(half=(kept.sealed.half * 2)[:length]),
        kept.with_part(body=kept.sealed.body[:length]),
        kept.with_part(body=kept.sealed.body + bytes(length + 1)),
    ):
        with pytest.raises(NotAuthentic):
            kept.open(sealed=changed)
        assert not authenticates(changed, kept.epoch_key, kept.binding)


def test_a_half_of_another_length_is_refused_even_under_the_right_key() -> None:
    """As version 1 had it: `r` alone, without the digest of the body."""
    kept = Kept(a_binding())
    data = kept.binding.data(1, kept.epoch_key.epoch)
    for plain in (bytearray(32), bytearray(63), bytearray(65)):
        half = protection._seal(kept.epoch_key.key, plain, data)
        with pytest.raises(NotAuthentic):
            kept.open(sealed=kept.with_part(half=half))
        with pytest.raises(NotAuthentic):
            rewrap(half, kept.binding, kept.epoch_key, an_epoch(2))


@pytest.mark.parametrize(
    "head", [(1, 32, 24), (2, 16, 24), (2, 0, 24), (2, 8, 24), (2, 32, 33), (2, 32, 0), (2, 32, 65535), None]
)
def test_an_authentic_body_of_an_unknown_format_is_refused(
    head: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytearray(b"\x02") if head is None else bytearray(struct.pack("!BBH", *head) + bytes(4 * 32))
    monkeypatch.setattr(protection, "_write_body", lambda *_: body)
    kept = Kept(a_binding())
    with pytest.raises(NotAuthentic):
        kept.open()


def test_each_part_is_bound_to_everything_that_it_belongs_to() -> None:
    """Not by the key alone: a half is sealed under `E`, which all records share."""
    binding = a_binding()
    everywhere = [
        binding,
        replace(binding, handle=b"h" * 16),
        replace(binding, device=b"d" * 16),
        replace(binding, pack=b"p" * 32),
        replace(binding, tier=3),
        replace(binding, version=9),
    ]
    bound = {each.data(part, epoch) for each in everywhere for part in (1, 2) for epoch in (0, 1, 2)}
    assert len(bound) == len(everywhere) * 2 * 3
    # A half is bound to its record's terms as well.
    assert {len(each.data(1)) for each in everywhere} == {88 + 32}
    assert {len(each.data(2)) for each in everywhere} == {88}
    assert binding.data(1) != replace(binding, terms=b"t" * 32).data(1)


@pytest.mark.parametrize(
    "part",
    [
        {"handle": bytes(15)},
        {"handle": bytes(17)},
        {"device": b""},
        {"pack": bytes(33)},
        {"terms": bytes(31)},
        {"tier": 0},
        {"tier": 4},
        {"version": 256},
        {"version": -1},
    ],
    ids=str,
)
def test_a_place_that_no_record_can_have_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(NotAuthentic):
        replace(a_binding(), **part)


@pytest.mark.parametrize("secret", [b"", bytes(16), SECRET[:-1], SECRET + b"\0", SECRET[::-1], bytes(32)])
@pytest.mark.parametrize("tier", [1, 2, 3])
def test_another_secret_opens_nothing(tier: int, secret: bytes) -> None:
    kept = Kept(a_binding(tier), SECRET)
    for tried in (bytearray(secret), None):
        with pytest.raises(NotAuthentic):
            kept.open(secret=tried)


@pytest.mark.parametrize(
    ("tier", "secret"), [(1, None), (2, None), (2, bytes(11)), (2, bytes(33)), (3, b""), (3, bytes(8))]
)
def test_nothing_is_sealed_without_a_secret_where_one_belongs(tier: int, secret: bytes | None) -> None:
    with pytest.raises(ValueError, match="12 to 32 bytes"):
        Kept(a_binding(tier), secret)


def test_a_template_without_direction_is_not_sealed() -> None:
    mean = somebody(1, 24)
    with pytest.raises(NotAnEmbedding):
        seal(mean, mean, bytearray(SECRET), an_epoch(), a_binding())
    with pytest.raises(NotAnEmbedding):
        seal(somebody(1, 600), somebody(2, 600), bytearray(SECRET), an_epoch(), a_binding())


@every_tier
def test_what_is_stored_has_no_length_that_tells_and_shows_nothing(tier: int, secret: bytes | None) -> None:
    one, other = (Kept(a_binding(tier), secret, seed, 512) for seed in (1, 5))
    assert len(one.sealed.half) == len(other.sealed.half) == 92
    assert len(one.sealed.body) == len(other.sealed.body) == (288 if tier == 1 else 2080)
    plain = one.template.tobytes()
    assert not any(plain[start : start + 8] in one.sealed.body for start in range(0, len(plain), 8))


def test_sealing_twice_never_gives_the_same_bytes() -> None:
    kept = Kept(a_binding())
    again = seal(kept.template, kept.mean, kept.owned_secret, kept.epoch_key, kept.binding)
    for one, other in ((again.half, kept.sealed.half), (again.body, kept.sealed.body)):
        assert one[:12] != other[:12]
        assert one != other


def test_nothing_tells_why_a_record_does_not_open() -> None:
    kept = Kept(a_binding())
    said = set()
    for changed in (
        {"secret": bytearray(16)},
        {"secret": None},
        {"binding": replace(kept.binding, handle=bytes(16))},
        {"sealed": kept.with_part(half=b"")},
        {"sealed": kept.with_part(body=kept.sealed.body[:-1])},
    ):
        with pytest.raises(NotAuthentic) as refused:
            kept.open(**changed)
        said.add(str(refused.value))
    assert len(said) == 1


def test_an_opened_record_says_no_more_than_a_score() -> None:
    kept = Kept(a_binding(), dimensions=512)
    opened = kept.open()
    # What is kept is the rotated template: nothing of the face's own direction is left in it.
    own = (kept.template - kept.mean).astype(np.float64)
    assert abs(opened._template @ own) / np.linalg.norm(own) < 6 / 512**0.5
    assert repr(opened).startswith("<appliance.vault.protection.Opened object at")
    with pytest.raises(NotAnEmbedding):
        opened.score(kept.template[:100], kept.mean)


@every_tier
def test_every_buffer_with_a_key_or_a_template_is_overwritten(tier: int, secret: bytes | None) -> None:
    with locals_at_return(seal) as of_seal:
        kept = Kept(a_binding(tier), secret, dimensions=100)
    with locals_at_return(open_sealed) as of_open:
        opened = kept.open()
    # The body is the right one, and the secret is not: everything but the body was had.
    with locals_at_return(open_sealed) as of_refused, pytest.raises(NotAuthentic):
        kept.open(secret=bytearray(16))
    with locals_at_return(protection._open_half) as of_rewrap:
        rewrap(kept.sealed.half, kept.binding, kept.epoch_key, an_epoch(2))
    with locals_at_return(protection._open_half) as of_check:
        authenticates(kept.sealed, kept.epoch_key, kept.binding)
    with locals_at_return(Opened.score) as of_score:
        assert opened.score(kept.template, kept.mean) > 0.9
    names = ("half", "key", "rotation_key", "body")
    looked_at = [
        *((of_seal, name) for name in (*names, "plain")),
        *((of_open, name) for name in names),
        *((of_refused, name) for name in names[:-1]),
        (of_rewrap, "plain"),
        (of_check, "plain"),
    ]
    for calls, name in looked_at:
        (call,) = calls
        assert len(call[name]) >= 32, name
        assert not any(call[name]), name
    assert not of_score[0]["rotated"].any()
    opened.forget()
    assert not opened._template.any()
    assert not any(each.any() for each in opened._rotation._signs)


def test_what_lies_between_secret_and_keys_is_overwritten_as_well() -> None:
    kept = Kept(a_binding(1), dimensions=100)
    with locals_at_return(protection._derive) as of_derive:
        protection._derive(bytearray(SECRET), bytearray(b"r" * 32), kept.binding)
    with locals_at_return(protection._write_body) as of_body:
        written = protection._write_body(bytearray(32), kept.template, kept.mean, kept.binding)
    with locals_at_return(protection._open_by) as of_open, pytest.raises(NotAuthentic):
        protection._open(bytearray(32), kept.sealed.body, b"")
    (derived,), (body,), (opened,) = of_derive, of_body, of_open
    assert len(derived["both"]) == 64
    assert not any(derived["both"])
    assert not any(derived["stretched"])
    assert any(written)
    assert not any(body["levels"])
    assert not body["rotated"].any()
    assert not any(body["rotation"]._signs[0])
    assert not any(opened["plain"])


@every_tier
def test_one_face_in_two_records_is_as_unlike_as_strangers(
    tier: int, secret: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with one secret and one handle: what is new in each record is the device half alone."""
    drawn = iter(range(10**6))
    monkeypatch.setattr(
        protection,
        "random_bytes",
        lambda _length: bytearray(hashlib.sha256(b"%d" % next(drawn)).digest()),
    )
    binding, epoch_key = Binding(bytes(16), bytes(16), bytes(32), tier), EpochKey(bytearray(32), 1)

    def stored(seed: int) -> Any:
        kept = Kept(binding, secret, seed, 512, epoch_key)
        return kept.open()._template

    mine = np.stack([stored(1) for _ in range(300)])
    theirs = np.stack([stored(10 + 2 * seed) for seed in range(300)])
    # Pairs that share no record, so that they are independent.
    same = np.einsum("ij,ij->i", mine[0::2], mine[1::2])
    strangers = np.einsum("ij,ij->i", theirs[0::2], theirs[1::2])
    assert ks_2samp(same, strangers).pvalue > 0.01
    for found in (same, strangers):
        assert abs(found.mean()) < 4 / (512 * len(found)) ** 0.5
        assert found.std() == pytest.approx(1 / 512**0.5, rel=0.2)


def test_a_secret_stays_with_who_owns_it() -> None:
    secret = bytearray(SECRET)
    kept = Kept(a_binding())
    kept.open(secret=secret)
    assert secret == SECRET
