"""Pins on a wire: the door's process drives them, and a board in another process sees what they did.

`WiredFactory` takes the place of gpiozero's pin factory in the door's process; each change of an output
travels over a Unix socket to the `Board`, with the time at which it was made. When the connection ends,
because the process closed its pins or died, the board records every line as released and low: the
pull-down of the relay board, and a kernel with `persist_gpio_outputs=n`.
"""

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import gpiozero
from gpiozero.pins.mock import MockFactory, MockPin

from appliance.errors import DrempelError
from appliance.link.sockets import listen

_MESSAGE = struct.Struct("!BBd")
"""A pin's BCM number, its state, and the monotonic time of the change in seconds."""


class BoardError(DrempelError, TimeoutError):
    """No door is connected to the board, or it did not do what was waited for."""


class Change(NamedTuple):
    """One change of a line."""

    at: float
    """Monotonic time in seconds, on the clock that all processes of a machine share."""
    pin: int
    """BCM number."""
    state: int
    """1 is high."""
    released: bool
    """Whether nobody drives the line any more: the door's process closed it, or died."""


class Board:
    """The wall of a simulated door; its methods may be called from any thread."""

    def __init__(self, path: Path, *, button_pin: int = 17) -> None:
        """Wait at `path` for a door; one after another may come."""
        self.path = path
        self._button = button_pin
        self._changes: list[Change] = []
        self._states: dict[int, int] = {}
        self._door: socket.socket | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._listener = listen(path)
        self._thread = threading.Thread(target=self._accept, name="board", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether a door's process holds the pins."""
        return self._door is not None

    def history(self, pin: int, since: float = 0.0) -> list[Change]:
        """What a line did, from the monotonic time `since` on."""
        with self._changed:
            return [change for change in self._changes if change.pin == pin and change.at >= since]

    def state(self, pin: int) -> int:
        """1 where a line is high."""
        return self._states.get(pin, 0)

    def wait_for(self, pin: int, state: int, timeout: float, since: float | None = None) -> Change:
        """Wait until a line has a state, and give the change that brought it there.

        Args:
            pin: BCM number.
            state: 1 for high.
            timeout: seconds.
            since: a monotonic time; a change into that state after it counts, even if the line has gone
                on since. Without it, the line must be in that state.

        Raises:
            BoardError: it did not come to it in time.
        """

        def found() -> Change | None:
            for change in reversed(self._changes):
                if change.pin == pin:
                    if since is not None and change.at < since:
                        return None
                    if change.state == state:
                        return change
                    if since is None:
                        return None
            return None

        with self._changed:
            if change := self._changed.wait_for(found, timeout):
                return change
        raise BoardError(f"pin {pin} did not become {state} within {timeout:g} s")

    def press(self, duration: float = 0.1) -> float:
        """Hold the button down for `duration` seconds; the monotonic time at which it went down.

        Raises:
            BoardError: no door is connected.
        """
        at = time.monotonic()
        self.drive(self._button, 0)
        time.sleep(duration)
        with contextlib.suppress(BoardError):  # the door stopped meanwhile
            self.drive(self._button, 1)
        return at

    def drive(self, pin: int, state: int) -> None:
        """Put an input of the door to a state.

        Raises:
            BoardError: no door is connected.
        """
        door = self._door
        try:
            if door is None:
                raise BoardError("no door is connected to the board: start the door zone with --board")
            door.sendall(_MESSAGE.pack(pin, state, time.monotonic()))
        except BoardError:
            raise
        except OSError as error:
            raise BoardError("the door has just gone") from error

    def close(self) -> None:
        """End; a door that is connected loses its wall."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        door = self._door
        if door is not None:
            with contextlib.suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=2)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                door, _ = self._listener.accept()
            except OSError:
                return  # closed
            with door:
                self._door = door
                try:
                    self._listen_to(door)
                finally:
                    self._door = None
                    self._release_all()

    def _listen_to(self, door: socket.socket) -> None:
        data = b""
        while True:
            try:
                part = door.recv(4096)
            except OSError:
                part = b""
            if not part:
                return
            data += part
            while len(data) >= _MESSAGE.size:
                pin, state, at = _MESSAGE.unpack_from(data)
                data = data[_MESSAGE.size :]
                self._note(Change(at, pin, state & 1, released=bool(state & 2)))

    def _note(self, change: Change) -> None:
        with self._changed:
            self._changes.append(change)
            self._states[change.pin] = change.state
            self._changed.notify_all()

    def _release_all(self) -> None:
        last: dict[int, Change] = {}
        with self._changed:
            for change in self._changes:
                last[change.pin] = change
        for change in last.values():
            if not change.released:
                self._note(Change(time.monotonic(), change.pin, 0, released=True))


class WiredPin(MockPin):  # type: ignore[misc]  # gpiozero ships no types
    """A pin whose changes travel to the board: when it becomes an output, at each write, at its release."""

    _state: bool

    def _set_function(self, value: str) -> None:
        was_output = self.function == "output"
        super()._set_function(value)
        if value == "output" and not was_output:
            self._tell(int(self._state))
        elif value == "input" and was_output:
            self._state = False
            self._tell(2)

    def _change_state(self, value: bool) -> bool:  # noqa: FBT001 - MockPin's signature
        changed = bool(super()._change_state(value))
        if changed and self.function == "output":
            self._tell(int(value))
        return changed

    def _tell(self, state: int) -> None:
        self.factory.tell(_number(self), state)


class WiredFactory(MockFactory):  # type: ignore[misc]  # gpiozero ships no types
    """Pins on a wire to the `Board` at a path."""

    def __init__(self, path: Path) -> None:
        """Connect.

        Raises:
            OSError: no board is there.
        """
        super().__init__(pin_class=WiredPin)
        self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._wire.connect(str(path))
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._obey, name="wire", daemon=True)
        self._thread.start()

    def tell(self, pin: int, state: int) -> None:
        """Send one change: 0 low, 1 high, 2 released."""
        with self._sending, contextlib.suppress(OSError):  # the wall is gone, and with it what moved
            self._wire.sendall(_MESSAGE.pack(pin, state, time.monotonic()))

    def close(self) -> None:
        """Release all pins, and hang up."""
        super().close()
        with contextlib.suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=1)
        self._wire.close()

    def _obey(self) -> None:
        """Drive the inputs as the board says, on a thread of its own, as gpiozero's factories do."""
        data = b""
        while True:
            try:
                part = self._wire.recv(4096)
            except OSError:
                part = b""
            if not part:
                return
            data += part
            while len(data) >= _MESSAGE.size:
                number, state, _ = _MESSAGE.unpack_from(data)
                data = data[_MESSAGE.size :]
                for pin in list(self.pins.values()):
                    if _number(pin) == number and pin.function == "input":
                        pin.drive_high() if state else pin.drive_low()


def _number(pin: Any) -> int:
    """The BCM number of a pin of gpiozero, whose name is such as GPIO17."""
    return int(str(pin.info.name).removeprefix("GPIO"))


def use_board(path: Path) -> None:
    """Let every gpiozero device of this process be on the board at `path`."""
    gpiozero.Device.pin_factory = WiredFactory(path)
