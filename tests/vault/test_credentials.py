import contextlib
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.link.claims import CARD, NUMBER, NotACredential, of_card, of_number
from appliance.link.decision import MAX_CLAIM
from appliance.link.messages import ClaimKind
from appliance.vault.credentials import brake, parse
from tests.cases import many

INDEX_KEY = bytearray(range(32))
SALT = bytes(range(16))
DIGITS = st.text("0123456789", min_size=1, max_size=10)
PINS = st.text("0123456789", min_size=4, max_size=12)


@many
@given(bits=st.integers(96, 255), data=st.data())
def test_a_card_is_its_own_secret_and_crosses_whole(bits: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, (1 << bits) - 1))
    wire = of_card(bits, value)
    assert len(wire) <= MAX_CLAIM
    credential = parse(wire, INDEX_KEY)
    assert credential.kind is ClaimKind.CARD
    assert int.from_bytes(credential.secret()) == value
    assert not any(wire), "what door sent is overwritten"
    kept = credential.value
    credential.forget()
    assert not any(kept)


@many
@given(DIGITS, PINS, DIGITS, PINS)
def test_a_number_is_found_by_the_number_alone(number: str, pin: str, other: str, wrong: str) -> None:
    wire = of_number(number, pin)
    assert len(wire) <= MAX_CLAIM
    credential = parse(wire, INDEX_KEY)
    assert credential.kind is ClaimKind.NUMBER
    assert credential.value == pin.encode()
    assert credential.lookup == parse(of_number(number, wrong), INDEX_KEY).lookup
    assert (credential.lookup == parse(of_number(other, pin), INDEX_KEY).lookup) == (number == other)
    assert not any(wire)


@many
@given(st.binary(max_size=64))
def test_whatever_door_sends_is_a_credential_or_refused_and_overwritten(claim: bytes) -> None:
    buffer = bytearray(claim)
    with contextlib.suppress(NotACredential):
        assert bytes(parse(buffer, INDEX_KEY).value) in claim
    assert not any(buffer)


@settings(max_examples=500, deadline=None)
@given(DIGITS, PINS, st.data())
def test_no_torn_or_stretched_number_is_taken(number: str, pin: str, data: st.DataObject) -> None:
    wire = of_number(number, pin)
    cut = data.draw(st.integers(1, len(wire) - 1))
    with pytest.raises(NotACredential):
        parse(wire[:cut], INDEX_KEY)
    with pytest.raises(NotACredential):
        parse(wire + b"0", INDEX_KEY)


@pytest.mark.parametrize(
    "wire",
    [
        bytes([CARD, 95]) + bytes(12),
        bytes([CARD, 96]) + bytes(11),
        bytes([CARD, 97]) + b"\x02" + bytes(12),
        bytes([NUMBER, 0, 4]) + b"1234",
        bytes([NUMBER, 1]) + b"1" + bytes([3]) + b"123",
        bytes([NUMBER, 1]) + b"a" + bytes([4]) + b"1234",
        bytes([NUMBER, 1]) + b"1" + bytes([4]) + b"12a4",
        bytes([CARD]),
        bytes([0x00, 96]) + bytes(12),
    ],
)
def test_what_is_no_claim_is_refused(wire: bytes) -> None:
    with pytest.raises(NotACredential):
        parse(bytearray(wire), INDEX_KEY)


@pytest.mark.parametrize(("bits", "value"), [(95, 1), (256, 1), (96, 1 << 96)])
def test_door_cannot_send_a_credential_that_is_too_short_or_too_long(bits: int, value: int) -> None:
    with pytest.raises(NotACredential):
        of_card(bits, value)


@pytest.mark.parametrize(
    ("number", "pin"), [("", "1234"), ("12345678901", "1234"), ("1", "123"), ("é", "1234"), ("1", "12 4")]
)
def test_door_cannot_send_a_number_that_is_none(number: str, pin: str) -> None:
    with pytest.raises(NotACredential):
        of_number(number, pin)


def test_another_device_finds_another_record() -> None:
    wire = of_card(128, secrets.randbits(128))
    assert parse(bytearray(wire), INDEX_KEY).lookup != parse(bytearray(wire), bytearray(32)).lookup


def test_the_brake_is_argon2id_with_the_stated_parameters() -> None:
    """The known answer is the reference implementation's (phc-winner-argon2, through argon2-cffi's `core`).

    Its pepper was derived by hand: HMAC-SHA256 twice, as RFC 5869 says.
    """
    pin, other = bytearray(b"4711"), bytearray(b"4712")
    slowed = brake(pin, SALT, INDEX_KEY)
    assert slowed.hex() == "fbecb42daed9c215178d665fdc44cf97a2b80a696810cba3930d7e2573539df8"
    assert slowed == brake(pin, SALT, INDEX_KEY)
    assert slowed != brake(other, SALT, INDEX_KEY)
    assert slowed != brake(pin, bytes(16), INDEX_KEY)
    assert slowed != brake(pin, SALT, bytearray(32))
