import asyncio
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import gpiozero
import pytest
from gpiozero.pins.mock import MockFactory, MockPin

from appliance.door import pins as pins_module
from appliance.door.pins import Pins, PinsError, Relay, RelayError
from appliance.settings import Door

RELAY, BUTTON = 22, 17


def nothing() -> None:
    """No one listens."""


@pytest.fixture
def wall() -> Iterator[MockFactory]:
    factory = MockFactory()
    gpiozero.Device.pin_factory = factory
    yield factory
    factory.reset()
    gpiozero.Device.pin_factory = None


@pytest.fixture
def make_relay(wall: MockFactory) -> Iterator[Callable[..., Relay]]:
    assert gpiozero.Device.pin_factory is wall
    made: list[Relay] = []

    def make(limit: float = 1.0, on_release: Callable[[], None] = nothing) -> Relay:
        made.append(Relay(RELAY, limit, on_release))
        return made[-1]

    yield make
    for relay in made:
        relay.close()


def states(wall: MockFactory) -> list[bool]:
    return [bool(state.state) for state in wall.pin(RELAY).states]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_requesting_and_releasing_the_pins_never_moves_the_relay(wall: MockFactory) -> None:
    line = wall.pin(RELAY)
    Pins(Door(), on_press=nothing, on_release=nothing).close()
    assert [state.state for state in line.states] == [False]


def test_the_relay_goes_off_at_its_deadline(wall: MockFactory, make_relay: Callable[..., Relay]) -> None:
    released = threading.Event()
    relay = make_relay(on_release=released.set)
    relay.energise(0.1)
    assert released.wait(5)
    assert not relay.energised
    assert states(wall) == [False, True, False]


def test_the_relay_goes_off_while_the_event_loop_hangs(
    wall: MockFactory, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay()

    async def hang() -> bool:
        relay.energise(0.1)
        # The loop hangs until the line is off, however busy this machine is.
        return wait_until(lambda: not relay.energised, 20)

    assert asyncio.run(hang())
    assert states(wall) == [False, True, False]
    assert wall.pin(RELAY).states[-1].timestamp > 0.09


def test_an_unlock_time_beyond_the_limit_is_cut_to_the_limit(
    wall: MockFactory, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(limit=0.2)
    relay.energise(60)
    assert wait_until(lambda: not relay.energised)
    assert wall.pin(RELAY).states[-1].timestamp < 30


def test_a_caller_that_never_lets_go_cannot_hold_the_door_beyond_the_limit(
    wall: MockFactory, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(limit=0.3)
    began = time.monotonic()
    relay.energise(0.2)
    while len(wall.pin(RELAY).states) < 3 and time.monotonic() - began < 5:
        relay.energise(0.2)
        time.sleep(0.01)
    on = wall.pin(RELAY).states[2].timestamp
    assert 0.25 < on < 5


def test_energising_again_makes_the_time_longer_and_never_shorter(
    wall: MockFactory, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(limit=2.0)
    relay.energise(0.5)
    relay.energise(0.05)
    assert wait_until(lambda: not relay.energised)
    assert states(wall) == [False, True, False]
    assert wall.pin(RELAY).states[-1].timestamp > 0.4


def test_after_the_limit_the_next_unlock_may_begin(
    wall: MockFactory, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(limit=0.1)
    relay.energise(1)
    assert wait_until(lambda: not relay.energised)
    relay.energise(1)
    assert wait_until(lambda: not relay.energised)
    assert states(wall) == [False, True, False, True, False]


def test_the_deadline_is_set_before_the_line_goes_up(
    make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make_relay()
    armed: list[float | None] = []
    line_on = relay._line.on

    def on() -> None:
        armed.append(relay._off_at)
        line_on()

    monkeypatch.setattr(relay._line, "on", on)
    relay.energise(0.1)
    assert len(armed) == 1
    assert armed[0] is not None


def test_a_line_that_fails_to_go_up_still_goes_off(
    wall: MockFactory, make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make_relay()
    line_on = relay._line.on

    def up_and_fail() -> None:
        line_on()
        raise OSError(5, "the driver failed after the line went up")

    monkeypatch.setattr(relay._line, "on", up_and_fail)
    with pytest.raises(OSError, match="driver"):
        relay.energise(0.1)
    assert wait_until(lambda: not relay.energised)
    assert states(wall) == [False, True, False]


def test_a_line_that_does_not_go_off_at_once_is_tried_again(
    wall: MockFactory, make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make_relay()
    line_off = relay._line.off
    tries: list[int] = []

    def off() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(5, "busy")
        line_off()

    monkeypatch.setattr(relay._line, "off", off)
    relay.energise(0.05)
    assert wait_until(lambda: not relay.energised)
    assert len(tries) == 3
    assert states(wall) == [False, True, False]


def test_the_relay_stays_off_when_its_timer_is_dead(
    wall: MockFactory, make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make_relay()
    monkeypatch.setattr(relay._timer, "is_alive", lambda: False)
    with pytest.raises(RelayError, match="restart the door"):
        relay.energise(1)
    assert states(wall) == [False]


def test_a_listener_that_fails_does_not_kill_the_timer(make_relay: Callable[..., Relay]) -> None:
    def fail() -> None:
        raise RuntimeError("the loop is closed")

    relay = make_relay(on_release=fail)
    for _ in range(2):
        relay.energise(0.05)
        assert wait_until(lambda: not relay.energised)
    assert relay._timer.is_alive()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_an_unlock_time_that_is_none_moves_nothing(
    wall: MockFactory, make_relay: Callable[..., Relay], seconds: float
) -> None:
    with pytest.raises(ValueError, match="unlock time"):
        make_relay().energise(seconds)
    assert states(wall) == [False]


def test_a_release_locks_at_once_and_says_so(wall: MockFactory, make_relay: Callable[..., Relay]) -> None:
    released: list[int] = []
    relay = make_relay(on_release=lambda: released.append(1))
    relay.energise(1)
    relay.release()
    relay.release()
    assert not relay.energised
    assert released == [1]
    assert states(wall) == [False, True, False]


def test_a_cut_locks_for_good_even_in_the_midst_of_energising(
    wall: MockFactory, make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make_relay()
    line_on = relay._line.on

    def on() -> None:
        # As a signal's handler does, between the deadline and the line, on the thread that holds the lock.
        relay.cut()
        line_on()

    monkeypatch.setattr(relay._line, "on", on)
    relay.energise(1)
    assert wait_until(lambda: not relay.energised)
    with pytest.raises(RelayError, match="shut down"):
        relay.energise(1)
    assert states(wall) == [False, True, False]


def test_closing_locks_first_and_gives_the_line_back_after(
    wall: MockFactory, make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make_relay()
    relay.energise(1)
    at_close: list[bool] = []
    give_back = relay._line.close

    def close() -> None:
        at_close.append(states(wall)[-1])
        give_back()

    monkeypatch.setattr(relay._line, "close", close)
    relay.close()
    assert at_close == [False]
    with pytest.raises(RelayError):
        relay.energise(1)


class PressedAtOnce(MockPin):  # type: ignore[misc]
    """A pin that is pressed, let go and pressed as soon as its edges are watched."""

    def _enable_event_detect(self) -> None:
        super()._enable_event_detect()
        self.drive_low()
        self.drive_high()
        self.drive_low()


def test_a_press_while_the_door_starts_leaves_the_button_alive() -> None:
    factory = gpiozero.Device.pin_factory = MockFactory(pin_class=PressedAtOnce)
    presses: list[float] = []
    pins = Pins(Door(debounce=0.01), on_press=lambda: presses.append(time.monotonic()), on_release=nothing)
    try:
        button = factory.pin(Door().button_pin)
        time.sleep(0.02)
        button.drive_high()
        time.sleep(0.02)
        seen = len(presses)
        button.drive_low()
        assert len(presses) == seen + 1
    finally:
        pins.close()
        factory.reset()
        gpiozero.Device.pin_factory = None


def test_a_bouncing_button_is_one_press(wall: MockFactory) -> None:
    presses: list[float] = []
    pins = Pins(Door(debounce=0.05), on_press=lambda: presses.append(time.monotonic()), on_release=nothing)
    button = wall.pin(BUTTON)
    for _ in range(5):
        button.drive_low()
        button.drive_high()
    button.drive_low()
    assert len(presses) == 1
    time.sleep(0.1)
    button.drive_high()
    time.sleep(0.1)
    button.drive_low()
    assert len(presses) == 2
    pins.close()


@pytest.mark.usefixtures("wall")
def test_a_machine_without_pins_is_told_what_to_do() -> None:
    blocker = gpiozero.LED(Door().lamp_busy_pin)
    with pytest.raises(PinsError, match="simulate"):
        Pins(Door(), on_press=nothing, on_release=nothing)
    blocker.close()
    # What had been requested before the failure is free again.
    Pins(Door(), on_press=nothing, on_release=nothing).close()


@pytest.mark.parametrize("failures", [1, 3])
def test_closing_tries_again_where_the_line_does_not_go_off(
    wall: MockFactory, make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    relay = make_relay(limit=60)
    line_off, give_back = relay._line.off, relay._line.close
    tries: list[int] = []
    at_close: list[bool] = []

    def off() -> None:
        tries.append(1)
        if len(tries) <= failures:
            raise OSError(5, "busy")
        line_off()

    def close() -> None:
        at_close.append(states(wall)[-1])
        give_back()

    relay.energise(60)
    monkeypatch.setattr(relay._line, "off", off)
    monkeypatch.setattr(relay._line, "close", close)
    relay.close()
    assert at_close == [False], "off before it was given back"
    assert not relay.energised
    assert not relay._timer.is_alive()


def test_a_line_that_never_goes_off_is_given_back_and_the_timer_ends(
    make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins_module, "CLOSE_TRIES", 2)
    relay = make_relay(limit=60)

    def off() -> None:
        raise OSError(5, "busy for ever")

    relay.energise(60)
    monkeypatch.setattr(relay._line, "off", off)
    relay.close()
    assert relay._line.closed
    assert wait_until(lambda: not relay._timer.is_alive())


def test_pins_that_are_nowhere_are_one_error_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        for name in ("lgpio", "rpigpio", "pigpio", "native"):
            warnings.warn(f"Falling back from {name}", gpiozero.PinFactoryFallback, stacklevel=1)
        raise gpiozero.BadPinFactory("Unable to load any default pin factory!")

    monkeypatch.setattr(gpiozero.Device, "pin_factory", None)
    monkeypatch.setattr(gpiozero.Device, "_default_pin_factory", staticmethod(none))
    with warnings.catch_warnings(record=True) as said, pytest.raises(PinsError, match="Unable to load"):
        Pins(Door(), on_press=nothing, on_release=nothing)
    assert said == []
