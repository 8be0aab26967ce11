"""The answer with a token: well-formed, and overwritten whatever becomes of its caller."""

import asyncio
import base64
import json

import pytest
from starlette.types import Message

from appliance.admin.api.once import AnswerOnce


async def nothing() -> Message:
    raise AssertionError("it reads nothing")


@pytest.mark.parametrize("length", [1, 2, 3, 35, 323])
def test_the_token_goes_out_whole_in_base64_and_both_buffers_are_overwritten(length: int) -> None:
    token = bytearray(range(1, 256)) * 2
    token = token[:length]
    plain = bytes(token)
    answer = AnswerOnce(token)
    assert token == bytes(length)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(answer({}, nothing, send))
    start, *parts = sent
    body = b"".join(part["body"] for part in parts)
    assert base64.b64decode(json.loads(body)["token"], validate=True) == plain
    assert all(len(part["body"]) == 1 for part in parts)
    assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [False]
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"cache-control"] == b"no-store"
    assert answer._text == bytes(len(body))


def test_it_is_overwritten_where_the_caller_went_away() -> None:
    answer = AnswerOnce(bytearray(b"secret" * 5))

    async def gone(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(answer({}, nothing, gone))
    assert not any(answer._text)
