"""What must hold of every record there can be: each property over 2,000 of them."""

import secrets
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.vault import protection
from appliance.vault.comparison import score
from appliance.vault.keys import EpochKey
from appliance.vault.protection import (
    ON_TOKEN,
    NotAuthentic,
    Sealed,
    authenticates,
    open_sealed,
    rewrap,
    seal,
)
from tests.vault import reference
from tests.vault.records import Kept, a_binding, an_epoch, flipped, somebody

many = settings(max_examples=2000, deadline=None)
tiers = st.integers(1, 3)
token_tiers = st.integers(1, 2)
seeds = st.integers(0, 2**32)
secret_bytes = st.binary(min_size=12, max_size=32)
dimensions = st.integers(1, 40)
bits = st.integers(0, 2**16)


@st.composite
def records(draw: st.DrawFn, tier: st.SearchStrategy[int] = tiers) -> Kept:
    """A sealed record of any tier."""
    binding = a_binding(draw(tier))
    secret = draw(secret_bytes | st.none() if binding.tier == 3 else secret_bytes)
    return Kept(binding, secret, draw(seeds), draw(dimensions))


@many
@given(
    tier=tiers,
    secret=secret_bytes,
    without=st.booleans(),
    seed=seeds,
    size=st.sampled_from([24, 100, 128, 512]),
    alike=st.floats(0, 1),
)
def test_round_trip(tier: int, secret: bytes, without: bool, seed: int, size: int, alike: float) -> None:
    kept = Kept(a_binding(tier), None if without and tier == 3 else secret, seed, size)
    probe = kept.template * (alike + 0.01) + somebody(seed + 2, size) * (1 - alike)
    opened = kept.open()
    assert opened.dimensions == size
    # Float32 loses nothing to speak of. Four bits lose little where there are many coordinates.
    tolerance = 1e-6 if tier != ON_TOKEN else 0.6 / size**0.5
    assert opened.score(probe, kept.mean) == pytest.approx(
        score(kept.template, probe, kept.mean), abs=tolerance
    )
    opened.forget()
    assert opened.score(probe, kept.mean) == 0


@many
@given(kept=records(), bit=bits, part=st.sampled_from(["half", "body"]))
def test_every_flipped_bit_of_a_stored_part_is_refused_and_seen_without_a_secret(
    kept: Kept, bit: int, part: str
) -> None:
    assert authenticates(kept.sealed, kept.epoch_key, kept.binding)
    damaged = kept.with_part(**{part: flipped(getattr(kept.sealed, part), bit)})
    with pytest.raises(NotAuthentic):
        kept.open(sealed=damaged)
    assert not authenticates(damaged, kept.epoch_key, kept.binding)


@many
@given(
    kept=records(), bit=bits, part=st.sampled_from(["handle", "device", "pack", "version", "tier", "terms"])
)
def test_every_flipped_bit_of_what_a_record_is_bound_to_is_refused(kept: Kept, bit: int, part: str) -> None:
    before: Any = getattr(kept.binding, part)
    after: Any = flipped(before, bit) if isinstance(before, bytes) else before ^ 1 << bit % 8
    try:
        elsewhere = replace(kept.binding, **{part: after})
    except NotAuthentic:
        assert (part, 1 <= after <= 3) == ("tier", False)
        return
    with pytest.raises(NotAuthentic):
        kept.open(binding=elsewhere)
    assert not authenticates(kept.sealed, kept.epoch_key, elsewhere)
    with pytest.raises(NotAuthentic):
        rewrap(kept.sealed.half, elsewhere, kept.epoch_key, an_epoch())


@many
@given(kept=records(), bit=bits, which=st.sampled_from(["number", "key"]))
def test_every_flipped_bit_of_the_epoch_or_its_key_is_refused(kept: Kept, bit: int, which: str) -> None:
    key, epoch = bytes(kept.epoch_key.key), kept.epoch_key.epoch
    wrong = (
        EpochKey(bytearray(key), epoch ^ 1 << bit % 32)
        if which == "number"
        else EpochKey(bytearray(flipped(key, bit)), epoch)
    )
    with pytest.raises(NotAuthentic):
        kept.open(epoch_key=wrong)
    assert not authenticates(kept.sealed, wrong, kept.binding)


@many
@given(
    tier=tiers,
    differ=st.sets(st.sampled_from(["handle", "device", "pack", "version"])),
    mine=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    secret=secret_bytes,
)
def test_records_swapped_between_people_devices_packs_or_versions_are_refused(
    tier: int, differ: set[str], mine: tuple[bool, bool, bool], secret: bytes
) -> None:
    """Any mixture of half, body and place of two records under one epoch key, even with one secret."""
    one = Kept(a_binding(tier), secret)
    stranger = replace(a_binding(tier), version=3)
    binding = replace(one.binding, **{part: getattr(stranger, part) for part in differ})
    other = Kept(binding, secret, epoch_key=one.epoch_key)
    half, body, place = (one if mine_is else other for mine_is in mine)
    mixed = Sealed(half.sealed.half, body.sealed.body)
    if half is body and half.binding == place.binding:
        assert half.score(sealed=mixed, binding=place.binding) > 0.9
        return
    with pytest.raises(NotAuthentic):
        one.open(sealed=mixed, binding=place.binding)
    assert not authenticates(mixed, one.epoch_key, place.binding)


@many
@given(kept=records(token_tiers), guess=st.binary(max_size=40) | st.none())
def test_a_record_of_tier_1_or_2_does_not_open_without_its_secret(kept: Kept, guess: bytes | None) -> None:
    if guess == kept.secret:
        return
    for binding in (kept.binding, replace(kept.binding, tier=3)):
        with pytest.raises(NotAuthentic):
            kept.open(secret=None if guess is None else bytearray(guess), binding=binding)


@many
@given(kept=records(), guess=st.binary(min_size=32, max_size=32))
def test_who_has_secret_and_body_but_not_the_device_half_opens_nothing(kept: Kept, guess: bytes) -> None:
    """Not with another device's epoch key, nor with a device half of one's own under the right keys."""
    with pytest.raises(NotAuthentic):
        kept.open(epoch_key=an_epoch(kept.epoch_key.epoch))
    key, _ = protection._derive(kept.owned_secret, bytearray(guess), kept.binding)
    with pytest.raises(NotAuthentic):
        protection._open(key, kept.sealed.body, kept.binding.data(2))


@many
@given(kept=records(), step=st.integers(1, 2**31))
def test_a_rewrapped_record_opens_in_the_new_epoch_alone(kept: Kept, step: int) -> None:
    old, new = kept.epoch_key, an_epoch(kept.epoch_key.epoch + step)
    before = kept.score()
    after = kept.with_part(half=rewrap(kept.sealed.half, kept.binding, old, new))
    assert kept.score(sealed=after, epoch_key=new) == before
    assert authenticates(after, new, kept.binding)
    same_key_old_number = EpochKey(bytearray(new.key), old.epoch)
    for sealed, epoch_key in ((after, old), (kept.sealed, new), (after, same_key_old_number)):
        with pytest.raises(NotAuthentic):
            kept.open(sealed=sealed, epoch_key=epoch_key)
        assert not authenticates(sealed, epoch_key, kept.binding)
        with pytest.raises(NotAuthentic):
            rewrap(sealed.half, kept.binding, epoch_key, an_epoch())


@many
@given(kept=records(st.just(ON_TOKEN)), other_seed=seeds)
def test_the_half_of_tier_1_fits_one_body_alone(kept: Kept, other_seed: int) -> None:
    """Not another person's, not an older one of the same person, not even one made with the right key."""
    another = Kept(
        replace(kept.binding, handle=secrets.token_bytes(16)), kept.secret, epoch_key=kept.epoch_key
    )
    older = seal(
        somebody(other_seed, kept.dimensions), kept.mean, kept.owned_secret, kept.epoch_key, kept.binding
    )
    half = protection._open_half(kept.sealed.half, kept.epoch_key, kept.binding)
    _, key, _ = reference.keys(kept.secret, bytes(half[:32]), kept.binding.handle, ON_TOKEN)
    plain = protection._open(bytearray(key), kept.sealed.body, kept.binding.data(2))
    forged = protection._seal(bytearray(key), plain, kept.binding.data(2))
    for body in (another.sealed.body, older.body, forged, b""):
        with pytest.raises(NotAuthentic):
            open_sealed(Sealed(kept.sealed.half, body), kept.owned_secret, kept.epoch_key, kept.binding)
    # The device itself holds no body, and can check its half all the same.
    assert authenticates(Sealed(kept.sealed.half, b""), kept.epoch_key, kept.binding)
    assert not authenticates(Sealed(kept.sealed.half, older.body), kept.epoch_key, kept.binding)
