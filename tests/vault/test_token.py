import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.link.messages import (
    TOKEN,
)
from appliance.vault.claims import read_token
from appliance.vault.token import SECRET, NotAToken, Token

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


@given(code=st.binary(max_size=80))
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
