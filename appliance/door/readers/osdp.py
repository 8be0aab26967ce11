"""Badge readers on OSDP (IEC 60839-11-5), always with Secure Channel.

Without EnforceSecure libosdp brings a reader with a wrong key online in the clear; here it is a constant.
A *line* is one serial device with the readers on it, each at an address of its own, served by one
thread. libosdp's own thread is not used: it sleeps 20 ms between looks and, once a reader has gone, lets
it rest for 300 s; here the line wakes when bytes arrive, and a reader that is away is called every few
seconds.
"""

import asyncio
import contextlib
import os
import select
import stat
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import osdp

from appliance.door.readers import MAX_CARD_BITS
from appliance.errors import ConfigurationError
from appliance.settings import OsdpReader as ReaderSettings

SCBK_D = bytes(range(0x30, 0x40))
"""The default key of the standard, which every installer's tool knows."""
REFRESH = 0.05
"""Seconds between two looks at a line on which nothing arrives; bytes and polls that are due wake it."""
GATHER_BITS = 80
"""Bits on the line, eight bytes, for which a look waits after the first byte."""
STEPS = 2
"""Steps at each look: libosdp takes in an answer, or makes up a command, in one and sends in the next."""
POLL = 0.051
"""Seconds from the last byte to the next poll: libosdp's 50 ms, and the one that makes it more than 50."""
SILENT = 2.0
"""Seconds without a byte after which the readers of a line count as down; libosdp takes eight."""
REOPEN = 1.0
"""Seconds between two tries to open a device that is away."""
CALL_AGAIN = 1.0
"""Seconds, and as many more for each reader of the line, until a reader that is away is called again."""
STALE = 3.0
"""Seconds after which a card is not handed over any more: its owner has walked on."""
_SPEEDS = {rate: getattr(termios, f"B{rate}") for rate in (9600, 19200, 38400, 57600, 115200, 230400)}


def read_key(path: Path) -> bytes:
    """The Secure Channel Base Key in the file at `path`: 16 bytes, as 32 hexadecimal digits.

    Raises:
        ConfigurationError: no such file, readable by others, not 32 digits, or a key that everybody knows.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(64)
    except OSError as error:
        raise ConfigurationError(
            f"the reader's key {path} cannot be read: {error.strerror or error}; "
            "write 32 random hexadecimal digits into it and into the reader"
        ) from error
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise ConfigurationError(f"others can read the reader's key: run chmod 600 {path}")
    try:
        digits = text.decode("ascii").strip()
        key = bytes.fromhex(digits)
    except ValueError:
        digits, key = "", b""
    if len(digits) != 32 or len(key) != 16:
        raise ConfigurationError(f"{path} does not hold 32 hexadecimal digits, which a reader's key has")
    if key == SCBK_D or len(set(key)) == 1:
        raise ConfigurationError(
            f"{path} holds a key that everybody knows: give the reader a random one, and write it there"
        )
    return key


def parse_card(event: Mapping[str, Any]) -> tuple[int, int] | None:
    """The bits and the number of a card event of libosdp; None for another event and for an absurd card.

    OSDP sends the bits left-justified, the first bit of the card first.
    """
    if event.get("event") != osdp.Event.CardRead:
        return None
    if event.get("format") not in {osdp.CardFormat.Unspecified, osdp.CardFormat.Wiegand}:
        return None
    bits, data = event.get("length"), event.get("data")
    if not isinstance(bits, int) or not isinstance(data, bytes):
        return None
    size = (bits + 7) // 8
    if not 1 <= bits <= MAX_CARD_BITS or len(data) < size:
        return None
    return bits, int.from_bytes(data[:size]) >> (8 * size - bits)


class OsdpReader:
    """One reader on a line; see `appliance.door.readers.Reader`."""

    def __init__(self, name: str, line: "_Line") -> None:
        self.name = name
        self.up = False
        self._line = line
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_card: Callable[[int, int], None] | None = None
        self._on_state: Callable[[bool], None] | None = None

    def start(self, on_card: Callable[[int, int], None], on_state: Callable[[bool], None]) -> None:
        """Begin; the line starts with the first of its readers."""
        self._loop = asyncio.get_running_loop()
        self._on_card, self._on_state = on_card, on_state
        self._line.start()

    def stop(self) -> None:
        """End; the whole line stops."""
        self._on_card = self._on_state = None
        self._line.stop()

    def hand_over(self, event: Mapping[str, Any]) -> None:
        """An event of libosdp, on the line's thread."""
        if (card := parse_card(event)) is not None:
            self._call(self._deliver, card, time.monotonic())

    def set_up(self, *, up: bool) -> None:
        """Whether the reader is up, on the line's thread."""
        if up is not self.up:
            self.up = up
            self._call(self._report, up)

    def _deliver(self, card: tuple[int, int], read_at: float) -> None:
        if self._on_card is not None and time.monotonic() - read_at <= STALE:
            self._on_card(*card)

    def _report(self, up: bool) -> None:  # noqa: FBT001 - handed through the event loop by position
        if self._on_state is not None:
            self._on_state(up)

    def _call(self, act: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the door is stopping
                self._loop.call_soon_threadsafe(act, *arguments)


def open_readers(settings: Iterable[ReaderSettings]) -> list[OsdpReader]:
    """A reader for each of `settings`, in their order; those on one device share a line.

    Raises:
        ConfigurationError: a key that may not be, or two speeds on one device.
    """
    lines: dict[Path, _Line] = {}
    readers = []
    for reader in settings:
        line = lines.setdefault(reader.device, _Line(reader.device, reader.baud))
        if line.baud != reader.baud:
            raise ConfigurationError(
                f"two readers on {reader.device} have different baud: give both the same"
            )
        readers.append(line.add(reader.name, reader.address, read_key(reader.key_file)))
    return readers


class _SerialChannel(osdp.Channel):  # type: ignore[misc]  # osdp ships no types
    """A serial device that may not be there. libosdp cannot bear an exception from any of these calls."""

    def __init__(self, path: Path, baud: int) -> None:
        super().__init__()
        self.descriptor = -1
        self.heard_at = -SILENT
        self.sent_at = 0.0
        self._path = path
        self._speed = _SPEEDS[baud]

    def open(self) -> bool:
        """Open the device, raw at its speed; whether that worked."""
        try:
            flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
            self.descriptor = os.open(self._path, flags)
            tty.setraw(self.descriptor)
            modes = termios.tcgetattr(self.descriptor)
            modes[2] |= termios.CLOCAL | termios.CREAD
            modes[4] = modes[5] = self._speed
            termios.tcsetattr(self.descriptor, termios.TCSANOW, modes)
            termios.tcflush(self.descriptor, termios.TCIOFLUSH)
            self.heard_at = self.sent_at = -SILENT
        except (OSError, termios.error):
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close the device."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def read(self, max_bytes: int) -> bytes:
        """What has arrived, at most `max_bytes`; a device that vanished is closed."""
        if self.descriptor < 0:
            return b""
        try:
            data = os.read(self.descriptor, max_bytes)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if data:
            self.heard_at = time.monotonic()
        else:
            self.close()
        return data

    def write(self, buf: bytes) -> int:
        """Send `buf`. Bytes that find no room count as sent: the reader's silence tells."""
        self.sent_at = time.monotonic()
        if self.descriptor >= 0:
            try:
                os.write(self.descriptor, buf)
            except BlockingIOError:
                termios.tcflush(self.descriptor, termios.TCOFLUSH)
            except OSError:
                self.close()
        return len(buf)

    def flush(self) -> None:
        """Forget what has arrived."""
        if self.descriptor >= 0:
            with contextlib.suppress(termios.error):
                termios.tcflush(self.descriptor, termios.TCIFLUSH)


class _Line:
    """One serial device, the readers on it, and the thread that serves them."""

    def __init__(self, device: Path, baud: int) -> None:
        self.baud = baud
        self._channel = _SerialChannel(device, baud)
        self._readers: list[OsdpReader] = []
        self._devices: list[Any] = []
        self._called_at: list[float] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, name: str, address: int, key: bytes) -> OsdpReader:
        """One more reader, before the line starts."""
        secure = [osdp.LibFlag.EnforceSecure]
        self._devices.append(osdp.PDInfo(address, self._channel, scbk=key, flags=secure))
        self._readers.append(OsdpReader(name, self))
        return self._readers[-1]

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="osdp-line", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the device."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._channel.open():
                    self._serve()
            except Exception as error:  # noqa: BLE001 - a fault of one line must not end its thread
                print(f"drempel door: a fault on a reader's line: {error!r}", file=sys.stderr)
            self._channel.close()
            for reader in self._readers:
                reader.set_up(up=False)
            self._stopping.wait(REOPEN)

    def _serve(self) -> None:
        """Serve the readers until the device vanishes or the line stops.

        Each time with a new panel: the old one would hold on to a session that the reader has forgotten.
        """
        # Above this level libosdp reports every retry; the journal says when a reader goes and comes.
        panel = osdp.ControlPanel(self._devices, log_level=osdp.LogLevel.Critical)
        self._called_at = [time.monotonic()] * len(self._readers)
        try:
            while self._channel.descriptor >= 0 and not self._stopping.is_set():
                for _ in range(STEPS):
                    panel.ctx.refresh()
                for reader, device in zip(self._readers, self._devices, strict=True):
                    while (event := panel.get_event(device.address, timeout=-1)) is not None:
                        reader.hand_over(event)
                self._watch(panel)
                self._wait()
        finally:
            panel.ctx = None  # it holds the panel, and the panel holds it

    def _watch(self, panel: Any) -> None:
        """Say who is up, and call those who are not."""
        now = time.monotonic()
        online = panel.ctx.status() & panel.ctx.sc_status()
        heard = now - self._channel.heard_at < SILENT
        patience = CALL_AGAIN * (1 + len(self._readers))
        for number, reader in enumerate(self._readers):
            there = bool(online >> number & 1)
            reader.set_up(up=there and heard)
            if not there and now - self._called_at[number] >= patience:
                # Begin anew: disabled now, and enabled below once libosdp has done so.
                self._called_at[number] = now
                panel.ctx.disable_pd(number)
            elif not panel.ctx.is_pd_enabled(number):
                panel.ctx.enable_pd(number)

    def _wait(self) -> None:
        """Until bytes arrive, the next poll is due, or `REFRESH` has passed."""
        if self._channel.descriptor >= 0:
            due = max(self._channel.sent_at, self._channel.heard_at) + POLL - time.monotonic()
            seconds = due if 0 < due < REFRESH else REFRESH
            if select.select([self._channel.descriptor], [], [], seconds)[0]:
                # Bytes of a slow line dribble in: one look for several of them, not one for each.
                time.sleep(GATHER_BITS / self.baud)
