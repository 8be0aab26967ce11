import asyncio
import os
import secrets
import select
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import osdp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.door.readers.osdp import SCBK_D, OsdpReader, open_readers, parse_card, read_key
from appliance.errors import ConfigurationError
from appliance.settings import OsdpReader as ReaderSettings
from appliance.simulation.reader import ReaderError, SimulatedReader


class Doorway:
    """A reader in the door's hands, on an event loop of its own thread."""

    def __init__(self, settings: list[ReaderSettings]) -> None:
        self.cards: list[tuple[int, int]] = []
        self.states: list[bool] = []
        self.loop = asyncio.new_event_loop()
        self.readers = open_readers(settings)
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(5)

    async def _start(self) -> None:
        for reader in self.readers:
            reader.start(lambda bits, number: self.cards.append((bits, number)), self.states.append)

    @property
    def reader(self) -> OsdpReader:
        return self.readers[0]

    def close(self) -> None:
        for reader in self.readers:
            reader.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Bus:
    """Two readers on one line: every byte of the door reaches both, as on RS-485."""

    def __init__(self, key: bytes, addresses: tuple[int, int]) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device = Path(os.ttyname(self._slave))
        self._taps = [Tap(self._master) for _ in addresses]
        self._using = threading.Lock()
        self._readers = [
            osdp.PeripheralDevice(
                osdp.PDInfo(address, tap, scbk=key, flags=[osdp.LibFlag.EnforceSecure]),
                osdp.PDCapabilities([]),
                log_level=osdp.LogLevel.Critical,
            )
            for address, tap in zip(addresses, self._taps, strict=True)
        ]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def present(self, reader: int, data: bytes) -> None:
        event = {"event": osdp.Event.CardRead, "reader_no": 0, "direction": 0, "data": data}
        with self._using:
            assert self._readers[reader].ctx.submit_event(
                {**event, "format": osdp.CardFormat.Wiegand, "length": 8 * len(data)}
            )

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        for reader in self._readers:
            reader.ctx = None
        os.close(self._slave)
        os.close(self._master)

    def _run(self) -> None:
        while not self._stopping.is_set():
            select.select([self._master], [], [], 0.01)
            try:
                data = os.read(self._master, 512)
            except BlockingIOError:
                data = b""
            with self._using:
                for reader, tap in zip(self._readers, self._taps, strict=True):
                    tap.waiting += data
                    reader.ctx.refresh()


class Tap(osdp.Channel):  # type: ignore[misc]  # osdp ships no types
    """One reader's place on the bus."""

    def __init__(self, master: int) -> None:
        super().__init__()
        self.waiting = bytearray()
        self._master = master

    def read(self, max_bytes: int) -> bytes:
        data = bytes(self.waiting[:max_bytes])
        del self.waiting[:max_bytes]
        return data

    def write(self, buf: bytes) -> int:
        return os.write(self._master, buf)

    def flush(self) -> None:
        self.waiting.clear()


def until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def write_key(path: Path, key: bytes) -> Path:
    path.write_text(key.hex() + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def key() -> bytes:
    return secrets.token_bytes(16)


@pytest.fixture
def settings(tmp_path: Path, key: bytes) -> ReaderSettings:
    return ReaderSettings(
        name="outside", device=tmp_path / "tty", key_file=write_key(tmp_path / "key", key), baud=115200
    )


@pytest.fixture
def doorway(settings: ReaderSettings) -> Iterator[Doorway]:
    made = Doorway([settings])
    yield made
    made.close()


def test_a_card_before_a_reader_with_the_right_key_arrives(
    doorway: Doorway, settings: ReaderSettings, key: bytes
) -> None:
    wall = SimulatedReader(key, link=settings.device)
    try:
        assert until(lambda: doorway.reader.up)
        wall.present(26, 0x2ABCDE1)
        wall.present(37, 5)
        assert until(lambda: len(doorway.cards) == 2)
        assert doorway.cards == [(26, 0x2ABCDE1), (37, 5)]
        assert doorway.states == [True]
    finally:
        wall.stop()


def test_a_reader_with_another_key_never_comes_up(doorway: Doorway, settings: ReaderSettings) -> None:
    wall = SimulatedReader(secrets.token_bytes(16), link=settings.device)
    try:
        assert not until(lambda: doorway.reader.up, 5)
        with pytest.raises(ReaderError):
            wall.present(26, 1, timeout=0.1)
        assert doorway.cards == []
        assert doorway.states == []
    finally:
        wall.stop()


def test_a_reader_with_the_default_key_never_comes_up(doorway: Doorway, settings: ReaderSettings) -> None:
    wall = SimulatedReader(SCBK_D, link=settings.device)
    try:
        assert not until(lambda: doorway.reader.up, 5)
    finally:
        wall.stop()


def test_a_reader_without_secure_channel_never_comes_up(doorway: Doorway, settings: ReaderSettings) -> None:
    wall = SimulatedReader(None, link=settings.device)
    try:
        assert not until(lambda: doorway.reader.up, 5)
        assert doorway.cards == []
    finally:
        wall.stop()


def test_a_reader_that_is_unplugged_goes_down_and_comes_back(
    doorway: Doorway, settings: ReaderSettings, key: bytes
) -> None:
    first = SimulatedReader(key, link=settings.device)
    assert until(lambda: doorway.reader.up)
    first.stop()
    assert until(lambda: not doorway.reader.up, 5)
    second = SimulatedReader(key, link=settings.device)
    try:
        assert until(lambda: doorway.reader.up)
        second.present(26, 77)
        assert until(lambda: doorway.cards == [(26, 77)])
        assert doorway.states == [True, False, True]
    finally:
        second.stop()


def test_a_reader_that_falls_silent_counts_as_down_and_is_called_again(
    doorway: Doorway, settings: ReaderSettings, key: bytes
) -> None:
    wall = SimulatedReader(key, link=settings.device)
    try:
        assert until(lambda: doorway.reader.up)
        with wall._using:  # the reader's power fails; its cable stays in
            assert until(lambda: not doorway.reader.up, 5)
            time.sleep(7)  # long enough for libosdp to let it rest for 300 s
        assert until(lambda: doorway.reader.up)
        wall.present(26, 78)
        assert until(lambda: doorway.cards == [(26, 78)])
    finally:
        wall.stop()


def test_noise_on_the_line_opens_nothing_and_the_reader_recovers(
    doorway: Doorway, settings: ReaderSettings, key: bytes
) -> None:
    wall = SimulatedReader(key, link=settings.device)
    try:
        assert until(lambda: doorway.reader.up)
        for _ in range(20):
            os.write(wall._master, secrets.token_bytes(40))
            time.sleep(0.01)
        assert until(lambda: wall.online and doorway.reader.up)
        wall.present(26, 79)
        assert until(lambda: (26, 79) in doorway.cards)
        assert doorway.cards == [(26, 79)]
    finally:
        wall.stop()


def test_a_missing_device_keeps_trying_and_stops_promptly(doorway: Doorway) -> None:
    time.sleep(0.2)
    assert not doorway.reader.up
    began = time.monotonic()
    doorway.reader.stop()
    assert time.monotonic() - began < 2


def test_a_file_in_place_of_the_device_leaves_the_reader_down(settings: ReaderSettings) -> None:
    settings.device.write_bytes(b"no serial line")
    doorway = Doorway([settings])
    time.sleep(0.3)
    assert not doorway.reader.up
    doorway.close()


def test_a_card_that_the_door_could_not_take_in_time_is_let_go(
    doorway: Doorway, settings: ReaderSettings, key: bytes
) -> None:
    wall = SimulatedReader(key, link=settings.device)
    try:
        assert until(lambda: doorway.reader.up)
        doorway.loop.call_soon_threadsafe(time.sleep, 4)  # the loop hangs; the person walks on
        wall.present(26, 80)
        time.sleep(4.5)
        assert doorway.cards == []
        wall.present(26, 81)
        assert until(lambda: doorway.cards == [(26, 81)])
    finally:
        wall.stop()


def test_two_readers_on_one_line_are_both_heard(settings: ReaderSettings, key: bytes) -> None:
    bus = Bus(key, (1, 2))
    places = {"outside": 1, "inside": 2}
    doorway = Doorway(
        [
            settings.model_copy(update={"name": name, "address": address, "device": bus.device})
            for name, address in places.items()
        ]
    )
    try:
        assert until(lambda: all(reader.up for reader in doorway.readers))
        bus.present(0, b"\x01\x02\x03")
        bus.present(1, b"\x0a\x0b\x0c\x0d")
        assert until(lambda: len(doorway.cards) == 2)
        assert set(doorway.cards) == {(24, 0x010203), (32, 0x0A0B0C0D)}
    finally:
        doorway.close()
        bus.close()


def test_two_speeds_on_one_device_are_refused(settings: ReaderSettings) -> None:
    other = settings.model_copy(update={"name": "inside", "address": 5, "baud": 9600})
    with pytest.raises(ConfigurationError, match="baud"):
        open_readers([settings, other])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, key: bytes, mode: int) -> None:
    path = write_key(tmp_path / "key", key)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_key(path)


@pytest.mark.parametrize("known", [SCBK_D, bytes(16), b"\xff" * 16])
def test_a_key_that_everybody_knows_is_refused(tmp_path: Path, known: bytes) -> None:
    with pytest.raises(ConfigurationError, match="everybody knows"):
        read_key(write_key(tmp_path / "key", known))


@pytest.mark.parametrize("text", ["", "00", "zz" * 16, "ab" * 17, "é" * 32, "ab " * 16])
def test_a_key_that_is_no_32_digits_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="32 hexadecimal digits"):
        read_key(path)


def test_a_missing_key_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_key(tmp_path / "none")


def card_event(**changes: Any) -> dict[str, Any]:
    return {
        "event": osdp.Event.CardRead,
        "format": osdp.CardFormat.Wiegand,
        "length": 26,
        "data": b"\x80\x00\x00\x40",
        **changes,
    }


def test_the_bits_of_a_card_are_read_from_the_left() -> None:
    assert parse_card(card_event()) == (26, 1 << 25 | 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 0, "data": b""},
        {"length": 129, "data": bytes(17)},
        {"length": -8},
        {"length": 40},
        {"length": "26"},
        {"data": None},
        {"format": osdp.CardFormat.ASCII},
        {"event": osdp.Event.KeyPress},
    ],
)
def test_an_absurd_card_is_no_card(changes: dict[str, Any]) -> None:
    assert parse_card(card_event(**changes)) is None


@given(st.integers(-5, 200), st.binary(max_size=40))
def test_whatever_a_reader_sends_is_a_sound_card_or_none(bits: int, data: bytes) -> None:
    card = parse_card(card_event(length=bits, data=data))
    if card is not None:
        assert 1 <= card[0] <= 128
        assert 0 <= card[1] < 1 << card[0]
