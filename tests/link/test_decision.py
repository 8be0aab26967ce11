"""The decision channel, against vaults that do whatever a broken or hostile one could do."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.link.decision import DESTROY, MAX_CLAIM, Answer, Request, Verb, ask, read_request, write_answer
from appliance.link.sockets import Late, LinkError, Malformed, Torn

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ME = frozenset({os.geteuid()})
PRESS = Request(Verb.ATTEMPT)


@asynccontextmanager
async def listening_at(path: Path, behaviour: Behaviour) -> AsyncIterator[None]:
    """A vault that serves every connection so, until the end of the block."""
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # door hung up first, or the test is over
        finally:
            writer.transport.abort()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_unix_server(begin, path)
    try:
        yield
    finally:
        # A connection that is being accepted must be, or asyncio leaves it open.
        await asyncio.sleep(0.02)
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
        await asyncio.sleep(0.02)


def answer_of(
    folder: Path,
    behaviour: Behaviour,
    *,
    request: Request = PRESS,
    vault: frozenset[int] = ME,
    seconds: float = 2.0,
) -> bool:
    """What door makes of a vault that behaves so."""

    async def meet() -> bool:
        path = folder / "decision.sock"
        path.unlink(missing_ok=True)
        async with listening_at(path, behaviour):
            return await ask(path, vault, request, seconds)

    return asyncio.run(meet())


def saying(*parts: bytes, pause: float = 0.0, then_hold: float = 0.0) -> Behaviour:
    """A vault that reads the request, says these parts with pauses before each, and ends the stream."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        for part in parts:
            await asyncio.sleep(pause)
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(then_hold)
        writer.close()
        await writer.wait_closed()

    return behave


def test_one_byte_alone_and_complete_opens(short_folder: Path) -> None:
    assert answer_of(short_folder, saying(b"\x01")) is True


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"\x00",),
        *((bytes([byte]),) for byte in (2, 3, 0x0A, 0x10, 0x31, 0x7F, 0x80, 0x81, 0xFE, 0xFF)),
        (b"\x01\x01",),
        (b"\x01\x00",),
        (b"\x00\x01",),
        (b"\x01", b"\x01"),
        (b"\x01", b"\x00"),
        (b"\x00", b"\x01"),
        (b"\x01\n",),
        (b"\x01" * 100_000,),
    ],
    ids=repr,
)
def test_anything_else_does_not_open(short_folder: Path, parts: tuple[bytes, ...]) -> None:
    assert answer_of(short_folder, saying(*parts, pause=0.01)) is False


@settings(max_examples=60, deadline=None)
@given(answer=st.binary(max_size=4))
def test_of_all_answers_only_one_opens(answer: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("d")
    assert answer_of(folder, saying(answer)) is (answer == b"\x01")


def test_a_match_without_the_end_of_the_stream_does_not_open(short_folder: Path) -> None:
    began = time.monotonic()
    assert answer_of(short_folder, saying(b"\x01", then_hold=5), seconds=0.3) is False
    assert time.monotonic() - began < 2


def test_a_vault_that_says_nothing_is_waited_for_no_longer_than_the_deadline(short_folder: Path) -> None:
    began = time.monotonic()
    assert answer_of(short_folder, saying(then_hold=5), seconds=0.3) is False
    assert 0.25 < time.monotonic() - began < 2


def test_a_vault_that_drips_is_waited_for_no_longer_than_the_deadline(short_folder: Path) -> None:
    began = time.monotonic()
    assert answer_of(short_folder, saying(*[b"\x01"] * 50, pause=0.2), seconds=0.5) is False
    assert time.monotonic() - began < 2


def test_a_vault_that_never_reads_is_waited_for_no_longer_than_the_deadline(short_folder: Path) -> None:
    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    began = time.monotonic()
    assert answer_of(short_folder, deaf, seconds=0.3) is False
    assert time.monotonic() - began < 2


def test_a_late_match_does_not_open(short_folder: Path) -> None:
    assert answer_of(short_folder, saying(b"\x01", pause=0.4), seconds=0.2) is False


def test_a_late_answer_cannot_open_a_later_door(short_folder: Path) -> None:
    """The match of a first press comes while a second press waits: the second stays shut."""

    async def meet() -> tuple[bool, bool]:
        answer_first = asyncio.Event()
        calls = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal calls
            calls += 1
            first_call = calls == 1
            await reader.read()
            if first_call:
                await answer_first.wait()
            else:
                answer_first.set()
                await asyncio.sleep(0.2)
            writer.write(b"\x01" if first_call else b"\x00")
            await writer.drain()

        path = short_folder / "decision.sock"
        async with listening_at(path, serve):
            first = await ask(path, ME, PRESS, 0.2)
            second = await ask(path, ME, PRESS, 2.0)
            await asyncio.sleep(0.05)
        return first, second

    assert asyncio.run(meet()) == (False, False)


def test_a_connection_that_breaks_after_the_byte_does_not_open(short_folder: Path) -> None:
    """A reset is no end of the stream: the vault that died may have meant to say more."""

    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Unread bytes of the request make the kernel send a reset instead of an end.
        await asyncio.sleep(0.1)
        raise ConnectionError(writer)

    assert answer_of(short_folder, reset, request=Request(Verb.ATTEMPT, b"x" * 64)) is False


def test_a_vault_of_another_user_does_not_open_and_hears_no_claim(short_folder: Path) -> None:
    heard: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x01")
        writer.write_eof()
        heard.append(await reader.read())

    claim = Request(Verb.ATTEMPT, b"a card's credential")
    assert answer_of(short_folder, impostor, request=claim, vault=frozenset({54321})) is False
    assert heard in ([], [b""])


def test_nobody_there_does_not_open(short_folder: Path) -> None:
    async def meet() -> bool:
        return await ask(short_folder / "nobody.sock", ME, PRESS, 1.0)

    assert asyncio.run(meet()) is False


def test_a_claim_too_long_is_not_sent_and_does_not_open(short_folder: Path) -> None:
    heard: list[bytes] = []

    async def generous(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.write(b"\x01")
        await writer.drain()

    request = Request(Verb.ATTEMPT, bytes(MAX_CLAIM + 1))
    assert answer_of(short_folder, generous, request=request) is False
    assert heard in ([], [b""])


def test_vault_hears_the_verb_and_the_claim_and_then_the_end(short_folder: Path) -> None:
    heard: list[bytes] = []

    async def listening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.write(b"\x00")
        await writer.drain()

    answer_of(short_folder, listening, request=Request(Verb.WITHDRAW, b"1234"))
    assert heard == [b"\x021234"]


@given(verb=st.sampled_from([Verb.ATTEMPT, Verb.WITHDRAW]), claim=st.binary(max_size=MAX_CLAIM))
def test_a_request_arrives_as_it_was_asked(verb: Verb, claim: bytes) -> None:
    request = Request(verb, claim)
    assert Request.decode(request.encode()) == request


@given(claim=st.binary(max_size=MAX_CLAIM).filter(lambda claim: claim != DESTROY))
def test_no_byte_that_went_wrong_destroys_the_keys(claim: bytes) -> None:
    with pytest.raises(Malformed):
        Request.decode(b"\x03" + claim)
    assert Request.decode(b"\x03" + DESTROY).verb is Verb.TAMPER


@given(claim=st.binary(min_size=MAX_CLAIM + 1, max_size=200))
def test_a_claim_longer_than_64_bytes_is_refused_on_both_sides(claim: bytes) -> None:
    with pytest.raises(Malformed, match="at most 64 bytes"):
        Request(Verb.ATTEMPT, claim).encode()
    with pytest.raises(Malformed, match="at most 64 bytes"):
        Request.decode(b"\x01" + claim)


@given(data=st.binary(max_size=80))
def test_whatever_door_sends_is_a_request_or_malformed(data: bytes) -> None:
    try:
        request = Request.decode(data)
    except Malformed:
        assert len(data) not in range(1, 66) or data[0] not in {1, 2}
    else:
        assert request.encode() == data


def served(data: bytes, *, end: bool = True) -> Request:
    """What vault reads of a door that sends `data`, and half-closes or does not."""
    vault, door = socket.socketpair()
    with vault, door:
        door.sendall(data)
        if end:
            door.shutdown(socket.SHUT_WR)
        return read_request(vault)


def test_vault_reads_a_request_only_when_it_is_complete() -> None:
    assert served(b"\x01abc") == Request(Verb.ATTEMPT, b"abc")
    for data in (b"", b"\x00", b"\x03", b"\xff1234", b"\x01" + bytes(65), b"\x01" + bytes(100_000)[:5000]):
        with pytest.raises(LinkError):
            served(data)


def test_a_request_without_an_end_is_late() -> None:
    began = time.monotonic()
    with pytest.raises(Late):
        served(b"\x01", end=False)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(("answer", "wire"), [(Answer.MATCH, b"\x01"), (Answer.NO_MATCH, b"\x00")])
def test_an_answer_is_one_byte_and_the_end(answer: Answer, wire: bytes) -> None:
    vault, door = socket.socketpair()
    with door:
        write_answer(vault, answer)
        assert vault.fileno() == -1
        assert door.recv(10) == wire
        assert door.recv(10) == b""


def test_an_answer_to_a_door_that_is_gone_is_an_error_of_the_link() -> None:
    vault, door = socket.socketpair()
    door.close()
    with vault, pytest.raises(LinkError):
        write_answer(vault, Answer.MATCH)
    assert issubclass(Torn, LinkError)
