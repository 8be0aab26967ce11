"""The wall, as the door has it: a button, three lamps and the relay.

De-energised always means locked. The relay's line is requested at its inactive level, is put off before
it is released, and is switched off by a thread of its own whose deadline is set before the line goes up:
an event loop that hangs, or a caller that never lets go, cannot keep a door open.
"""

import contextlib
import math
import queue
import threading
import time
import warnings
from collections.abc import Callable

import gpiozero

from appliance.errors import DrempelError
from appliance.settings import Door

OFF_RETRY = 0.05
"""Seconds after which the relay's thread tries again where the line did not obey."""
CLOSE_TRIES = 20
"""How often closing tries to put the line off; then the line is given back, and the relay board's pull-down
and the kernel (`persist_gpio_outputs=n`) are what is left to lock."""


class PinsError(DrempelError, OSError):
    """The pins of this board cannot be had."""


class RelayError(DrempelError, RuntimeError):
    """The relay may not be energised: it is closing, or nothing would switch it off again."""


class Relay:
    """The line that unlocks, never up without a deadline on the monotonic clock."""

    def __init__(self, pin: int, limit: float, on_release: Callable[[], None]) -> None:
        """Request `pin` at its inactive level.

        Args:
            pin: BCM number; the board switches on at a high level.
            limit: seconds that the line may ever be up at a stretch.
            on_release: called on the relay's thread each time the line has gone off.
        """
        self._limit = limit
        self._on_release = on_release
        self._lock = threading.Lock()
        self._off_at: float | None = None  # monotonic; None while the line is off
        self._latest = 0.0  # monotonic; when this stretch ends whatever is asked
        self._cut = False
        self._closed = False
        # A SimpleQueue, since a signal's handler may put into it while this thread holds any lock.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._line = gpiozero.DigitalOutputDevice(pin, active_high=True, initial_value=False)
        self._timer = threading.Thread(target=self._watch, name="relay-off", daemon=True)
        self._timer.start()

    @property
    def energised(self) -> bool:
        """Whether the line is up, and so the door unlocked."""
        return self._off_at is not None

    def energise(self, seconds: float) -> None:
        """Unlock for `seconds`; again while up makes it longer, never beyond the limit.

        Raises:
            RelayError: it was cut, is closed, or its thread is dead.
        """
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError("an unlock time is a positive number of seconds")
        with self._lock:
            if self._cut or self._closed:
                raise RelayError("the relay is shut down")
            if not self._timer.is_alive():
                raise RelayError("the relay's timer is dead: restart the door zone")
            now = time.monotonic()
            if self._off_at is None:
                self._latest = now + self._limit
            self._off_at = max(self._off_at or 0.0, min(now + seconds, self._latest))
            self._wake.put(None)
            # Only now, and under the lock: the thread cannot switch off between deadline and line.
            self._line.on()

    def release(self) -> None:
        """Lock at once; it may be energised again."""
        with self._lock:
            was_up = self._put_off()
        if was_up:
            self._on_release()

    def cut(self) -> None:
        """Lock at once and for good. Never waits, so that a signal's handler may call it at any moment."""
        self._cut = True
        self._wake.put(None)

    def close(self) -> None:
        """Lock, then give the line back to the kernel; a second time does nothing."""
        if self._closed:
            return
        self._cut = True
        for _ in range(CLOSE_TRIES):
            try:
                with self._lock:
                    self._put_off()
                break
            except Exception:  # noqa: BLE001 - whatever the line's driver says, this thread must try again
                time.sleep(OFF_RETRY)
        # Only now may the timer's thread end, and only where the line is off.
        self._closed = True
        self._wake.put(None)
        self._timer.join(timeout=1)
        self._line.close()

    def _put_off(self) -> bool:
        """Line off; whether it was up. With the lock held."""
        was_up = self._off_at is not None
        self._line.off()
        self._off_at = None
        return was_up

    def _watch(self) -> None:
        """The relay's thread: off at the deadline, and off when cut."""
        wait: float | None = None
        while True:
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=wait)
            try:
                released = False
                with self._lock:
                    if self._closed and (self._off_at is None or self._line.closed):
                        return
                    due = self._off_at is not None and time.monotonic() >= self._off_at
                    if self._cut or due:
                        released = self._put_off()
                    wait = None if self._off_at is None else max(0.0, self._off_at - time.monotonic())
                if released:
                    self._on_release()
            except Exception:  # noqa: BLE001 - whatever the line's driver says, this thread must try again
                wait = OFF_RETRY


class PressButton:
    """The button, pulled up and pressed to ground; bounces make one press."""

    def __init__(self, pin: int, debounce: float, on_press: Callable[[], None]) -> None:
        """Watch `pin`.

        Args:
            pin: BCM number.
            debounce: seconds that the button must have been still before a press counts. The kernel
                filters by it too; pins without that filter, as on a simulated wall, get this one.
            on_press: called on a thread of gpiozero.
        """
        self._debounce = debounce
        self._on_press = on_press
        self._moved_at = -math.inf
        # Not gpiozero.Button: its thread for held buttons is set up after the line is watched, so that a
        # press while door starts raises on the driver's thread, which then never reports a press again.
        self._device = gpiozero.DigitalInputDevice(pin, pull_up=True, bounce_time=debounce)
        self._device.when_activated = self._pressed
        self._device.when_deactivated = self._released

    def close(self) -> None:
        """Give the line back."""
        self._device.close()

    def _pressed(self) -> None:
        still = time.monotonic() - self._moved_at
        self._moved_at = time.monotonic()
        if still >= self._debounce:
            self._on_press()

    def _released(self) -> None:
        self._moved_at = time.monotonic()


class Pins:
    """All pins of one door; the relay is the first to be requested and the first to go off."""

    def __init__(self, door: Door, *, on_press: Callable[[], None], on_release: Callable[[], None]) -> None:
        """Request every pin of `door`.

        Args:
            door: the settings of the wall.
            on_press: called on a thread of gpiozero when the button goes down.
            on_release: called on the relay's thread when the relay has gone off.

        Raises:
            PinsError: this machine has no such pins, or another process holds them.
        """
        with contextlib.ExitStack() as undo:
            try:
                _find_pins()
                self.relay = Relay(door.relay_pin, door.unlock_limit, on_release)
                undo.callback(self.relay.close)
                self.ready = gpiozero.LED(door.lamp_ready_pin)
                undo.callback(self.ready.close)
                self.busy = gpiozero.LED(door.lamp_busy_pin)
                undo.callback(self.busy.close)
                self.refused = gpiozero.LED(door.lamp_refused_pin)
                undo.callback(self.refused.close)
                self.button = PressButton(door.button_pin, door.debounce, on_press)
                undo.callback(self.button.close)
            except (gpiozero.GPIOZeroError, OSError) as error:
                raise PinsError(
                    f"the pins cannot be had ({error}): on a Raspberry Pi install lgpio and stop what else "
                    "uses the pins; without one, start with `drempel run --simulate`"
                ) from error
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Relay off first; then every line is given back."""
        try:
            self.relay.close()
        finally:
            self._undo.close()


def _find_pins() -> None:
    """Have gpiozero choose its way to the pins, without a warning for each way that this machine lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gpiozero.PinFactoryFallback)
        # On a board without lgpio this is the way that is left, and worth its warning.
        warnings.simplefilter("default", gpiozero.NativePinFactoryFallback)
        gpiozero.Device.ensure_pin_factory()
