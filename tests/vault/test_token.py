import binascii
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.link.messages import (
    MAX_CODE,
    TOKEN,
)
from appliance.vault.claims import read_token
from appliance.vault.protection import ON_TOKEN, Sealed
from appliance.vault.token import SECRET, NotAToken, Token
from tests.cases import many
from tests.vault.records import Kept, a_binding, flipped
from tests.vault.watching import locals_at_return

handles = st.binary(min_size=16, max_size=16)
secret_bytes = st.binary(min_size=SECRET, max_size=SECRET)


@given(handle=handles, secret=secret_bytes)
def test_a_token_reads_as_it_was_written(handle: bytes, secret: bytes) -> None:
    code = Token(handle, bytearray(secret)).encode()
    assert len(code) == TOKEN
    read = Token.decode(code)
    assert (read.handle, bytes(read.secret)) == (handle, secret)


def test_every_flipped_bit_of_a_code_is_refused() -> None:
    code = Token.create(secrets.token_bytes(16)).encode()
    for bit in range(8 * len(code)):
        damaged = bytearray(code)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotAToken):
            Token.decode(damaged)


@many
@given(handle=handles, secret=secret_bytes, body=st.binary(min_size=29, max_size=MAX_CODE - TOKEN))
def test_a_token_of_tier_1_brings_its_body(handle: bytes, secret: bytes, body: bytes) -> None:
    code = Token(handle, bytearray(secret), ON_TOKEN, body).encode()
    assert code == bytes([0xD1]) + handle + secret + body + binascii.crc_hqx(code[:-2], 0xFFFF).to_bytes(2)
    read = Token.decode(code)
    assert (read.handle, bytes(read.secret), read.tier, read.body) == (handle, secret, ON_TOKEN, body)


@many
@given(body=st.binary(min_size=29, max_size=MAX_CODE - TOKEN) | st.none(), bit=st.integers(0, 8 * MAX_CODE))
def test_a_flipped_bit_of_a_token_is_refused(body: bytes | None, bit: int) -> None:
    secret = bytearray(range(SECRET))
    token = Token(b"h" * 16, secret) if body is None else Token(b"h" * 16, secret, ON_TOKEN, body)
    with pytest.raises(NotAToken):
        Token.decode(flipped(bytes(token.encode()), bit))


@pytest.mark.parametrize("dimensions", [128, 512])
def test_a_token_of_tier_1_opens_with_the_half_that_the_device_keeps(dimensions: int) -> None:
    kept = Kept(a_binding(ON_TOKEN), dimensions=dimensions)
    assert kept.secret is not None
    token = Token(kept.binding.handle, bytearray(kept.secret), ON_TOKEN, kept.sealed.body)
    code = token.encode()
    assert len(code) == {128: 131, 512: 323}[dimensions]
    read = Token.decode(code)
    assert kept.score(sealed=Sealed(kept.sealed.half, read.body), secret=read.secret) > 0.98


@pytest.mark.parametrize("tier", [0, 1, 3, 13])
def test_a_code_of_another_tier_or_without_its_body_is_no_token(tier: int) -> None:
    code = Token.create(bytes(16)).encode()
    code[0] = 0xD0 | tier
    code[-2:] = binascii.crc_hqx(bytes(code[:-2]), 0xFFFF).to_bytes(2)
    with pytest.raises(NotAToken):
        Token.decode(code)


def test_the_secret_of_a_code_that_is_refused_late_is_overwritten() -> None:
    code = Token.create(bytes(16)).encode()
    code[0] = 0xD3
    code[-2:] = binascii.crc_hqx(bytes(code[:-2]), 0xFFFF).to_bytes(2)
    with locals_at_return(Token.decode.__func__) as of_decode, pytest.raises(NotAToken):  # type: ignore[attr-defined]
        Token.decode(code)
    assert of_decode[0]["secret"] == bytes(SECRET)


@pytest.mark.parametrize(
    "parts",
    [
        (bytes(15), bytearray(16), 2, b""),
        (bytes(16), bytearray(15), 2, b""),
        (bytes(16), bytearray(16), 2, bytes(100)),
        (bytes(16), bytearray(16), 1, b""),
        (bytes(16), bytearray(16), 1, bytes(28)),
        (bytes(16), bytearray(16), 1, bytes(MAX_CODE)),
        (bytes(16), bytearray(16), 3, b""),
    ],
)
def test_a_token_that_cannot_be_is_not_made(parts: tuple[bytes, bytearray, int, bytes]) -> None:
    with pytest.raises(ValueError, match="a token has"):
        Token(*parts)


@many
@given(code=st.binary(max_size=MAX_CODE + 40))
def test_a_poster_is_no_token_and_no_error(code: bytes | bytearray) -> None:
    buffer = bytearray(code)
    token = read_token(buffer)
    assert token is None or token.encode() == code
    assert not any(buffer)


@pytest.mark.parametrize("length", [0, 1, 34, 36, 64])
def test_a_code_of_another_length_is_no_token(length: int) -> None:
    code = Token.create(bytes(16)).encode()
    with pytest.raises(NotAToken):
        Token.decode((code * 2)[:length])


def test_reading_a_token_overwrites_the_code_it_came_in() -> None:
    code = bytearray(Token.create(secrets.token_bytes(16)).encode())
    token = read_token(code)
    assert token is not None
    assert any(token.secret)
    assert not any(code)


def test_no_two_tokens_share_a_secret() -> None:
    drawn = {bytes(Token.create(bytes(16)).secret) for _ in range(200)}
    assert len(drawn) == 200


def test_a_token_printed_by_mistake_shows_nothing() -> None:
    token = Token(bytes(16), bytearray(b"\xab" * SECRET))
    assert "xab" not in repr(token)
