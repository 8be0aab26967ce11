import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.door.guidance import read_message_async
from appliance.link.messages import TO_DOOR_GUIDANCE, Guidance, Guide, Message
from appliance.link.sockets import Late, LinkError, Malformed, Torn


def read(data: bytes, *, ended: bool = True, seconds: float = 5.0) -> Message | None:
    async def play() -> Message | None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        if ended:
            reader.feed_eof()
        return await read_message_async(reader, TO_DOOR_GUIDANCE, seconds)

    return asyncio.run(play())


@pytest.mark.parametrize("guidance", list(Guidance))
def test_each_guidance_arrives_as_it_was_sent(guidance: Guidance) -> None:
    assert read(Guide(guidance).encode()) == Guide(guidance)


def test_a_stream_that_ends_between_messages_is_no_fault() -> None:
    assert read(b"") is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x1a", Torn),
        (b"\x1a\x00\x01", Torn),
        (b"\x1a\x00\x02\x01\x01", Malformed),
        (b"\x1a\x00\x01\x00", Malformed),
        (b"\x01\x00\x00", Malformed),
        (b"\x1a\xff\xff" + bytes(65535), Malformed),
    ],
)
def test_what_is_no_guidance_is_told_apart(data: bytes, fault: type[LinkError]) -> None:
    with pytest.raises(fault):
        read(data)


@pytest.mark.parametrize("sent", [b"", b"\x1a", b"\x1a\x00\x01"])
def test_guidance_that_stalls_is_late(sent: bytes) -> None:
    with pytest.raises(Late):
        read(sent, ended=False, seconds=0.05)


@given(st.binary(max_size=64))
def test_whatever_vault_sends_is_guidance_the_end_or_a_link_error(data: bytes) -> None:
    try:
        message = read(data)
    except LinkError:
        return
    assert message is None or isinstance(message, Guide)
