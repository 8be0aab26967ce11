"""A badge reader without hardware: libosdp's own peripheral device, at the far end of a pty.

The door's side opens the pty as it would open a serial adapter; Secure Channel is the real one.
"""

import contextlib
import os
import select
import threading
import time
import tty
from pathlib import Path

import osdp

from appliance.errors import DrempelError

REFRESH = 0.01
"""Seconds between two looks at the line on which nothing arrives."""
STALL = 0.12
"""Seconds without a look that make a stall: the door gives a reader 200 ms for an answer, and a machine that
is so busy may need the rest for sending it. A reader of hardware has none."""
PRIORITY = -15
"""Niceness of the reader's thread, where this user may set it: a busy machine does not slow hardware down."""


class ReaderError(DrempelError, TimeoutError):
    """The reader could not hand over a card: the door did not call it."""


class SimulatedReader:
    """A reader that is plugged in as soon as it is made; its methods may be called from any thread."""

    def __init__(self, key: bytes | None, address: int = 101, *, link: Path | None = None) -> None:
        """Plug the reader in.

        Args:
            key: its Secure Channel Base Key, 16 bytes from `secrets`; None is a reader without Secure
                Channel, which a door must refuse.
            address: 0 to 126.
            link: where a symbolic link to the pty is kept, so that the next reader is found in the same
                place.
        """
        self._master, self._slave = os.openpty()
        # The slave stays open here too: a pty that nobody has open forgets that it is raw.
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device = Path(os.ttyname(self._slave))
        if link is not None:
            draft = link.with_suffix(".new")
            draft.unlink(missing_ok=True)
            draft.symlink_to(self.device)
            draft.rename(link)
            self.device = link
        channel = _Pty(self._master)
        info = osdp.PDInfo(address, channel, scbk=key, flags=[osdp.LibFlag.EnforceSecure] if key else [])
        capabilities = osdp.PDCapabilities([(osdp.Capability.CardDataFormat, 1, 1)])
        self._panel = osdp.PeripheralDevice(info, capabilities, log_level=osdp.LogLevel.Critical)
        self._using = threading.Lock()
        self._stalls: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    @property
    def online(self) -> bool:
        """Whether the door calls this reader, in Secure Channel."""
        with self._using:
            return self._panel.ctx is not None and bool(
                self._panel.is_online() and self._panel.is_sc_active()
            )

    def wait_online(self, timeout: float = 10.0) -> None:
        """Wait for the door's call.

        Raises:
            ReaderError: it did not come in time.
        """
        until = time.monotonic() + timeout
        while not self.online:
            if time.monotonic() > until:
                raise ReaderError("the door does not call this reader: right key, right address?")
            time.sleep(0.02)

    def present(self, bits: int, number: int, timeout: float = 5.0) -> float:
        """Hold a card before the reader.

        Args:
            bits: how many bits the card has.
            number: its number, below 2 ** bits.
            timeout: seconds in which the door must be there to hear of it.

        Returns:
            The monotonic time at which the card was read.

        Raises:
            ReaderError: nobody took it.
        """
        size = (bits + 7) // 8
        # Wiegand with its length: with the ASCII format libosdp says yes and sends nothing.
        event = {
            "event": osdp.Event.CardRead,
            "reader_no": 0,
            "direction": 0,
            "format": osdp.CardFormat.Wiegand,
            "length": bits,
            "data": (number << (8 * size - bits)).to_bytes(size),
        }
        until = time.monotonic() + timeout
        while True:
            if self.online:
                at = time.monotonic()
                with self._using:
                    taken = self._panel.ctx.submit_event(event)
                if taken:
                    return at
            if time.monotonic() > until:
                raise ReaderError("nobody took the card: is the door running, with this reader's key?")
            time.sleep(0.01)

    def stalled(self, since: float, until: float) -> bool:
        """Whether this machine let the reader stand still for long, between two monotonic times.

        The door then finds it away, as it should, and a card may be lost with the answer that came too late.
        """
        return any(begin <= until and end >= since for begin, end in list(self._stalls))

    def stop(self) -> None:
        """Unplug the reader; a second time does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(timeout=2)
        with self._using:
            self._panel.ctx = None
        os.close(self._slave)
        os.close(self._master)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        looked = time.monotonic()
        while not self._stopping.is_set():
            with self._using:
                self._panel.ctx.refresh()
            now = time.monotonic()
            if now - looked > STALL:
                self._stalls.append((looked, now))
            looked = now
            select.select([self._master], [], [], REFRESH)


class _Pty(osdp.Channel):  # type: ignore[misc]  # osdp ships no types
    """The reader's end of the pty. libosdp cannot bear an exception from any of these calls."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def read(self, max_bytes: int) -> bytes:
        """What has arrived, at most `max_bytes`."""
        try:
            return os.read(self._descriptor, max_bytes)
        except OSError:  # nothing there, or nobody has the other end open
            return b""

    def write(self, buf: bytes) -> int:
        """Send `buf`."""
        with contextlib.suppress(OSError):  # nobody reads: a reader cannot tell
            os.write(self._descriptor, buf)
        return len(buf)

    def flush(self) -> None:
        """Nothing is kept back."""
