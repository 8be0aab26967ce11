import asyncio
import threading
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.door.guidance import MAX_GUIDANCE, GuidanceChannel, read_message_async
from appliance.link.framing import Message
from appliance.link.messages import (
    TO_DOOR_GUIDANCE,
    Guidance,
    Guide,
)
from appliance.link.sockets import Late, LinkError, Malformed, Torn, listen


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


class _Transport:
    def abort(self) -> None:
        """Nothing is open."""


class _Writer:
    transport = _Transport()


def test_a_card_in_the_midst_of_a_flood_is_handled_before_the_next_guidance() -> None:
    async def play() -> list[str]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        reader.feed_data(Guide(Guidance.SHOW_TOKEN).encode() * 5000)
        channel = GuidanceChannel(reader, cast("asyncio.StreamWriter", _Writer()))
        happened: list[str] = []

        def shown(_guidance: Guidance) -> None:
            if not happened:
                loop.call_soon(happened.append, "card")
            happened.append("guidance")

        await channel.follow(shown, 60)
        return happened

    happened = asyncio.run(play())
    assert happened[:3] == ["guidance", "card", "guidance"]
    assert happened.count("guidance") == MAX_GUIDANCE


def test_a_vault_that_floods_is_hung_up_on_and_the_loop_turns_all_the_while(
    short_folder: Path, me: frozenset[int]
) -> None:
    listener = listen(short_folder / "guidance.sock")
    hung_up = threading.Event()

    def flood() -> None:
        connection, _ = listener.accept()
        connection.settimeout(20)
        try:
            while True:
                connection.sendall(Guide(Guidance.SHOW_TOKEN).encode() * 10_000)
        except ConnectionError:
            hung_up.set()
        finally:
            connection.close()

    async def play() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        channel = await GuidanceChannel.open(short_folder / "guidance.sock", me)
        assert channel is not None
        turns, shown = 0, 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        def show(_guidance: Guidance) -> None:
            nonlocal shown
            shown += 1

        turn()
        await channel.follow(show, 60)
        return turns, shown

    flooder = threading.Thread(target=flood)
    flooder.start()
    turns, shown = asyncio.run(play())
    flooder.join(30)
    listener.close()
    assert shown == MAX_GUIDANCE
    assert turns >= shown
    assert hung_up.is_set()
