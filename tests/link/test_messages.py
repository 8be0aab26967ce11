import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appliance.link import messages
from appliance.link.framing import (
    HEADER_SIZE,
    Message,
    read_message,
    send_message,
)
from appliance.link.messages import (
    FROM_LENS,
    MAX_CODE,
    MAX_EMBEDDING,
    AddBadge,
    CodeRead,
    Done,
    DoorMode,
    DoorState,
    Embed,
    Enrolled,
    Erase,
    Guidance,
    Guide,
    Lease,
    Look,
    OpenEnrolment,
    Probe,
    Refusal,
    Refused,
    VaultState,
)
from appliance.link.sockets import Deadline, Late, LinkError, Malformed, Torn
from tests.link.strategies import ALL, BY_TYPE, defined, every_message, of

CHANNELS = (
    messages.TO_LENS,
    messages.FROM_LENS,
    messages.TO_DOOR_GUIDANCE,
    messages.ADMIN_TO_VAULT,
    messages.VAULT_TO_ADMIN,
    messages.ADMIN_TO_DOOR,
    messages.DOOR_TO_ADMIN,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def read_bytes(data: bytes, expected: tuple[type[Message], ...]) -> Message:
    """What a reader makes of a peer that sends `data` and hangs up."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        return read_message(ours, expected, Deadline(5))


def plain(message: Message) -> tuple[type[Message], tuple[object, ...]]:
    """The message's values, with buffers as bytes."""
    values = (getattr(message, field.name) for field in fields(message))
    return type(message), tuple(bytes(value) if isinstance(value, bytearray) else value for value in values)


def test_every_message_belongs_to_a_channel() -> None:
    assert set(ALL) == defined()


def test_no_two_messages_share_a_type_byte() -> None:
    assert len({kind.TYPE for kind in ALL}) == len(ALL)
    assert all(1 <= kind.TYPE <= 255 for kind in ALL)


@pytest.mark.parametrize("kind", BY_TYPE, ids=lambda kind: kind.__name__)
def test_every_message_arrives_as_it_was_sent(kind: type[Message]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(message=of(kind))
    def arrives(message: Message) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            send_message(theirs, message, Deadline(5))
            theirs.close()
            arrived = read_message(ours, (kind,), Deadline(5))
            assert ours.recv(1) == b""
        assert plain(arrived) == plain(message)
        assert len(message.encode()) - HEADER_SIZE in kind.lengths()

    arrives()


def test_codes_and_embeddings_arrive_in_buffers_that_the_reader_can_overwrite() -> None:
    code = read_bytes(CodeRead(b"abc").encode(), FROM_LENS)
    assert isinstance(code, CodeRead)
    assert isinstance(code.code, bytearray)
    probe = read_bytes(Probe(bytes(8)).encode(), FROM_LENS)
    assert isinstance(probe, Probe)
    assert isinstance(probe.embedding, bytearray)


@settings(max_examples=2500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.binary(max_size=80)
    | st.tuples(st.sampled_from([kind.TYPE for kind in ALL]), st.integers(0, 70), st.binary(max_size=70)).map(
        lambda made: struct.pack("!BH", made[0], made[1]) + made[2]
    )
    | st.sampled_from(BY_TYPE).flatmap(
        lambda kind: st.binary(min_size=kind.lengths()[0], max_size=kind.lengths()[0]).map(
            lambda body: struct.pack("!BH", kind.TYPE, len(body)) + body
        )
    ),
    channel=st.sampled_from(CHANNELS),
)
@example(data=b"", channel=FROM_LENS)
@example(data=b"\x13\xff\xff", channel=FROM_LENS)
@example(data=b"\x13\x08\x04" + bytes(0x804), channel=FROM_LENS)
def test_whatever_a_peer_sends_is_a_message_of_the_channel_or_an_error_of_the_link(
    data: bytes, channel: tuple[type[Message], ...]
) -> None:
    try:
        message = read_bytes(data, channel)
    except LinkError:
        return
    assert type(message) in channel
    # What was taken in is exactly what it says: nothing is guessed, nothing is left out.
    assert data.startswith(message.encode())


@settings(max_examples=200, deadline=None)
@given(message=every_message, data=st.data())
def test_a_message_cut_anywhere_is_torn(message: Message, data: st.DataObject) -> None:
    whole = message.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Torn):
        read_bytes(whole[:cut], (type(message),))


@settings(max_examples=200, deadline=None)
@given(message=every_message, channel=st.sampled_from(CHANNELS))
def test_a_message_of_another_channel_is_refused(
    message: Message, channel: tuple[type[Message], ...]
) -> None:
    if type(message) in channel:
        assert plain(read_bytes(message.encode(), channel)) == plain(message)
    else:
        with pytest.raises(Malformed, match="does not have"):
            read_bytes(message.encode(), channel)


@pytest.mark.parametrize("kind", BY_TYPE, ids=lambda kind: kind.__name__)
def test_a_length_that_the_type_cannot_have_is_refused_before_the_body_is_read(kind: type[Message]) -> None:
    lengths = kind.lengths()
    for length in {lengths[0] - 1, lengths[-1] + 1, 0, 0xFFFF} - {-1}:
        if length in lengths:
            continue
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # No body at all: a reader that waited for it would be late, not refuse.
            theirs.sendall(struct.pack("!BH", kind.TYPE, length))
            with pytest.raises(Malformed, match="impossible length"):
                read_message(ours, (kind,), Deadline(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Embed(0, 0),
        lambda: Embed(21, 0),
        lambda: Embed(3, 2),
        lambda: CodeRead(b""),
        lambda: CodeRead(bytes(MAX_CODE + 1)),
        lambda: Probe(b""),
        lambda: Probe(bytes(6)),
        lambda: Probe(bytes(MAX_EMBEDDING + 4)),
        lambda: OpenEnrolment(bytes(15), bytes(16), 60, 5, 60),
        lambda: OpenEnrolment(bytes(16), bytes(17), 60, 5, 60),
        lambda: OpenEnrolment(bytes(16), bytes(16), 3601, 5, 60),
        lambda: OpenEnrolment(bytes(16), bytes(16), 60, 0, 60),
        lambda: OpenEnrolment(bytes(16), bytes(16), 60, 21, 60),
        lambda: OpenEnrolment(bytes(16), bytes(16), 60, 5, 0),
        lambda: OpenEnrolment(bytes(16), bytes(16), 60, 5, 3601),
        lambda: Lease(bytes(16), 3601),
        lambda: VaultState(bytes(16), 1, 1, 2, 0),
        lambda: AddBadge(bytes(16), 0, bytes(16)),
        lambda: AddBadge(bytes(16), 129, bytes(16)),
        lambda: AddBadge(bytes(16), 26, (1 << 26).to_bytes(16)),
        lambda: DoorState(DoorMode.LOCKED, 1, 2, 0, 0, 0, 0),
        lambda: DoorState(DoorMode.LOCKED, 1, 1, 2, 0, 0, 0),
    ],
)
def test_a_value_out_of_range_cannot_be_made_into_a_message(make: object) -> None:
    assert callable(make)
    with pytest.raises(Malformed):
        make()


@pytest.mark.parametrize("kind", [Guide, Refused])
def test_a_word_outside_the_enumeration_is_refused(kind: type[Message]) -> None:
    known = {word.value for word in (Guidance if kind is Guide else Refusal)}
    for number in range(256):
        wire = struct.pack("!BHB", kind.TYPE, 1, number)
        if number in known:
            assert read_bytes(wire, (kind,)).encode() == wire
        else:
            with pytest.raises(Malformed):
                read_bytes(wire, (kind,))


def test_what_is_secret_does_not_show_in_a_message_printed_by_mistake() -> None:
    secret = b"\xab\xcd\xef\x12"
    for message in (
        CodeRead(secret),
        Probe(secret),
        Enrolled(secret * 8 + secret[:3]),
        AddBadge(bytes(16), 32, secret.rjust(16, b"\0")),
    ):
        assert "xab" not in repr(message)
        assert secret.hex() not in repr(message)


def test_a_peer_that_drips_holds_nobody_longer_than_the_deadline(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    stop = threading.Event()

    def drip() -> None:
        for byte in Erase(bytes(16)).encode():
            theirs.send(bytes([byte]))
            if stop.wait(0.1):
                return

    peer = threading.Thread(target=drip)
    peer.start()
    began = time.monotonic()
    with pytest.raises(Late):
        read_message(ours, (Erase,), Deadline(0.35))
    took = time.monotonic() - began
    stop.set()
    peer.join()
    assert 0.3 < took < 1.0


def test_a_deadline_that_passed_already_reads_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    send_message(theirs, Done(), Deadline(1))
    with pytest.raises(Late):
        read_message(ours, (Done,), Deadline(0))


def test_a_peer_that_does_not_read_delays_the_sender_no_longer_than_the_deadline(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, _theirs = pair
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(bytes(4096))
    began = time.monotonic()
    with pytest.raises(Late):
        send_message(ours, Probe(bytes(2048)), Deadline(0.2))
    assert time.monotonic() - began < 2


def test_a_message_to_a_peer_that_is_gone_is_an_error_of_the_link(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(LinkError):
        send_message(ours, Look(), Deadline(1))


def test_two_messages_in_one_packet_are_two_messages(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(CodeRead(b"one").encode() + CodeRead(b"two").encode())
    read = [read_message(ours, FROM_LENS, Deadline(1)) for _ in range(2)]
    assert [bytes(message.code) for message in read if isinstance(message, CodeRead)] == [b"one", b"two"]
