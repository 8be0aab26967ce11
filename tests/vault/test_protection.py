import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import pytest

from appliance.vault import protection
from appliance.vault.claims import Vaulted
from appliance.vault.keys import EpochKey
from appliance.vault.protection import Binding, NotAuthentic, Sealed, open_sealed, seal
from tests.vault.faces import face

SECRET = b"sixteen bytes..!"


@pytest.fixture
def binding(vaulted: Vaulted) -> Binding:
    return vaulted.binding(secrets.token_bytes(16))


@pytest.fixture
def sealed(vaulted: Vaulted, binding: Binding) -> Sealed:
    return seal(face(1), bytearray(SECRET), vaulted.epoch_key, binding)


@contextmanager
def locals_at_return(function: Callable[..., Any]) -> Iterator[list[dict[str, Any]]]:
    """The local variables of `function` as each of its calls returned: references to its buffers."""
    kept: list[dict[str, Any]] = []

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "return" and frame.f_code is function.__code__:
            kept.append(dict(frame.f_locals))

    sys.setprofile(profile)
    try:
        yield kept
    finally:
        sys.setprofile(None)


def flipped(data: bytes) -> Iterator[bytes]:
    """`data` with each of its bits flipped in turn."""
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def test_a_sealed_template_opens_with_both_halves(vaulted: Vaulted, binding: Binding, sealed: Sealed) -> None:
    opened = open_sealed(sealed, bytearray(SECRET), vaulted.epoch_key, binding)
    assert np.array_equal(opened, face(1))
    assert opened.dtype == np.float32


def test_what_is_stored_shows_nothing_of_the_template(sealed: Sealed, vaulted: Vaulted) -> None:
    plain = face(1).tobytes()
    assert not any(plain[start : start + 8] in sealed.body for start in range(0, len(plain), 8))
    assert bytes(vaulted.epoch_key.key) not in sealed.half


def test_sealing_twice_never_gives_the_same_bytes(vaulted: Vaulted, binding: Binding, sealed: Sealed) -> None:
    again = seal(face(1), bytearray(SECRET), vaulted.epoch_key, binding)
    assert again.half != sealed.half
    assert again.body != sealed.body
    assert again.body[:12] != sealed.body[:12]


def test_every_flipped_bit_of_the_device_half_is_refused(
    vaulted: Vaulted, binding: Binding, sealed: Sealed
) -> None:
    for half in flipped(sealed.half):
        with pytest.raises(NotAuthentic):
            open_sealed(replace(sealed, half=half), bytearray(SECRET), vaulted.epoch_key, binding)


def test_every_flipped_bit_of_the_body_is_refused(vaulted: Vaulted, binding: Binding) -> None:
    # A short template, so that every bit can be tried.
    short = seal(face(1)[:24], bytearray(SECRET), vaulted.epoch_key, binding)
    for body in flipped(short.body):
        with pytest.raises(NotAuthentic):
            open_sealed(replace(short, body=body), bytearray(SECRET), vaulted.epoch_key, binding)


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 27, 28, 29, 59, 61])
def test_a_part_cut_short_or_made_longer_is_refused(
    vaulted: Vaulted, binding: Binding, sealed: Sealed, length: int
) -> None:
    for changed in (
        replace(sealed, half=(sealed.half * 2)[:length]),
        replace(sealed, body=sealed.body[:length]),
        replace(sealed, body=sealed.body + bytes(length + 1)),
    ):
        with pytest.raises(NotAuthentic):
            open_sealed(changed, bytearray(SECRET), vaulted.epoch_key, binding)


@pytest.mark.parametrize(
    "other",
    [
        {"handle": b"h" * 16},
        {"device": b"d" * 16},
        {"pack": b"p" * 32},
        {"tier": 3},
        {"tier": 1},
        {"version": 9},
    ],
    ids=str,
)
def test_a_record_moved_to_another_place_is_refused(
    vaulted: Vaulted, binding: Binding, sealed: Sealed, other: dict[str, Any]
) -> None:
    moved = replace(binding, **other)
    with pytest.raises(NotAuthentic):
        open_sealed(sealed, bytearray(SECRET), vaulted.epoch_key, moved)


def test_each_part_is_bound_to_everything_that_it_belongs_to(binding: Binding) -> None:
    """Not by the key alone: a half is sealed under `E`, which all records share."""
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


def test_parts_of_two_records_do_not_fit_together(vaulted: Vaulted, binding: Binding, sealed: Sealed) -> None:
    """Even for one handle and one secret: a half of before belongs to the body of before."""
    other = seal(face(2), bytearray(SECRET), vaulted.epoch_key, binding)
    for mixed in (Sealed(sealed.half, other.body), Sealed(other.half, sealed.body)):
        with pytest.raises(NotAuthentic):
            open_sealed(mixed, bytearray(SECRET), vaulted.epoch_key, binding)
    with pytest.raises(NotAuthentic):
        open_sealed(Sealed(sealed.body, sealed.half), bytearray(SECRET), vaulted.epoch_key, binding)


@pytest.mark.parametrize("secret", [b"", bytes(16), SECRET[:-1], SECRET + b"\0", SECRET[::-1], bytes(32)])
def test_without_the_persons_secret_the_device_opens_nothing(
    vaulted: Vaulted, binding: Binding, sealed: Sealed, secret: bytes
) -> None:
    with pytest.raises(NotAuthentic):
        open_sealed(sealed, bytearray(secret), vaulted.epoch_key, binding)


def test_without_the_devices_key_of_that_epoch_the_token_opens_nothing(
    vaulted: Vaulted, binding: Binding, sealed: Sealed
) -> None:
    key = vaulted.epoch_key
    stranger = EpochKey(bytearray(secrets.token_bytes(32)), key.epoch)
    later = EpochKey(bytearray(key.key), key.epoch + 1)
    for wrong in (stranger, later):
        with pytest.raises(NotAuthentic):
            open_sealed(sealed, bytearray(SECRET), wrong, binding)


def test_nothing_tells_why_a_record_does_not_open(vaulted: Vaulted, binding: Binding, sealed: Sealed) -> None:
    said = set()
    for changed, secret, where in (
        (sealed, bytes(16), binding),
        (sealed, SECRET, replace(binding, handle=bytes(16))),
        (replace(sealed, half=b""), SECRET, binding),
    ):
        with pytest.raises(NotAuthentic) as refused:
            open_sealed(changed, bytearray(secret), vaulted.epoch_key, where)
        said.add(str(refused.value))
    assert len(said) == 1


def test_every_buffer_with_a_key_or_the_template_is_overwritten(vaulted: Vaulted, binding: Binding) -> None:
    with locals_at_return(seal) as of_seal:
        sealed = seal(face(1), bytearray(SECRET), vaulted.epoch_key, binding)
    with locals_at_return(open_sealed) as of_open:
        open_sealed(sealed, bytearray(SECRET), vaulted.epoch_key, binding)
        with pytest.raises(NotAuthentic):
            open_sealed(sealed, bytearray(16), vaulted.epoch_key, binding)
    for call, names in [(each, ("half", "key", "body")) for each in (*of_seal, *of_open)]:
        for name in names:
            assert len(call[name]) >= 32
            assert not any(call[name]), name
    with locals_at_return(protection._content_key) as of_key:
        key = protection._content_key(bytearray(SECRET), bytearray(32), binding)
    assert any(key)
    assert not any(of_key[0]["stretched"])
    assert not any(of_key[0]["both"])
