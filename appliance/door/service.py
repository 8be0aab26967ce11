"""The door as a process: pins, badges, readers, the controller, and the counter for admin.

It needs no other zone. Asked to stop, or failing, it puts the relay off before anything else.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from appliance.door.badges import Badges
from appliance.door.controller import Controller
from appliance.door.office import Office
from appliance.door.pins import Pins
from appliance.door.readers.osdp import OsdpReader, open_readers
from appliance.door.record import Record
from appliance.journal import Event, Journal, JournalBroken, JournalError
from appliance.link.sockets import listen, user_ids
from appliance.process import begin, run_zone
from appliance.settings import Settings


def run(settings: Settings) -> int:
    """Be the door until asked to stop.

    Returns:
        0 after a stop that was asked for, 1 after a fault (systemd starts it again), 2 where the
        configuration is wrong.
    """
    return run_zone("door", lambda: asyncio.run(Door(settings).run()))


class Door:
    """One run of the door."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopped = asyncio.Event()
        self._fault: BaseException | None = None

    async def run(self) -> int:
        """Open everything, serve until stopped, close everything; the exit status.

        Raises:
            DrempelError: something that the door cannot do without is not there.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as closing:
            record = Record(_journal(settings))
            closing.callback(record.close)
            admin, vault = user_ids(settings.users.admin), user_ids(settings.users.vault)
            readers = open_readers(settings.badge_readers)
            badges = Badges(settings.zone_state("door"))
            closing.callback(badges.close)
            listener = listen(settings.socket("door/admin"))
            closing.callback(listener.close)

            # The pins call back on threads of their own; until the controller stands they reach nobody.
            controller: Controller | None = None

            def pressed() -> None:
                if controller is not None:
                    self._from_thread(loop, controller.press)

            def released() -> None:
                if controller is not None:
                    self._from_thread(loop, controller.relay_released)

            pins = Pins(settings.door, on_press=pressed, on_release=released)
            closing.callback(pins.close)
            loop.set_exception_handler(lambda _loop, context: self._fail(pins, context))
            self._obey_signals(loop, pins)

            controller = self.make_controller(pins, badges, record, readers, vault)
            closing.callback(controller.stop)
            office = Office(controller, badges, record, admin)
            await office.open(listener)
            closing.callback(office.close)
            for reader in readers:
                closing.callback(reader.stop)
            self._start(readers, controller)
            record.write(Event.STARTED)
            await self._stopped.wait()

            pins.relay.cut()
            record.write(Event.STOPPED if self._fault is None else Event.FAILED)
        if self._fault is not None:
            print(f"drempel door: stopped by a fault: {type(self._fault).__name__}", file=sys.stderr)
            return 1
        return 0

    def make_controller(
        self, pins: Pins, badges: Badges, record: Record, readers: list[OsdpReader], vault: frozenset[int]
    ) -> Controller:
        """The controller; the system tests put one in its place that fails."""
        return Controller(self._settings, pins, badges, record, readers, vault)

    def _start(self, readers: list[OsdpReader], controller: Controller) -> None:
        for number, reader in enumerate(readers, 1):

            def changed(up: bool, number: int = number) -> None:  # noqa: FBT001 - as `Reader` has it
                controller.reader_changed(number, up=up)

            reader.start(controller.card, changed)

    def _obey_signals(self, loop: asyncio.AbstractEventLoop, pins: Pins) -> None:
        """SIGTERM and SIGINT lock at once, also while the event loop hangs; then the door stops."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            pins.relay.cut()
            self._from_thread(loop, self._stopped.set)

        # Not `loop.add_signal_handler`, whose handlers wait for the loop's next turn.
        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)

    def _fail(self, pins: Pins, context: dict[str, Any]) -> None:
        """A fault that nobody foresaw: lock, and let systemd begin anew."""
        pins.relay.cut()
        if self._fault is None:
            self._fault = context.get("exception") or RuntimeError(context["message"])
        self._stopped.set()

    @staticmethod
    def _from_thread(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the door has stopped
            loop.call_soon_threadsafe(act)


def _journal(settings: Settings) -> Journal | None:
    """The door's journal, or None where it cannot be had: badges matter more than what is written of them."""
    try:
        return begin(settings, "door")
    except (JournalError, JournalBroken) as error:
        print(f"drempel door: goes on without a journal: {error}", file=sys.stderr)
        return None
