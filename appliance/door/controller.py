"""Who opens, and when: the one place that decides to move the relay.

Three modes: locked, attempt, unlocked. A badge opens in each of them, whatever vault does. A face opens
only as the answer to the attempt that runs at that moment. Both end in `_unlock`, which energises the
relay before it does anything else.
"""

import asyncio
import enum
from collections.abc import Collection, Iterable

from appliance.door.badges import Badges, BadgesUnreadable
from appliance.door.guidance import GuidanceChannel
from appliance.door.pins import Pins
from appliance.door.readers import Reader
from appliance.door.record import Record
from appliance.journal import Event
from appliance.link.decision import Request, Verb, ask
from appliance.link.messages import (
    DoorMode,
    DoorState,
    Guidance,
)
from appliance.settings import Settings

ATTEMPT_GRACE = 1.0
"""Seconds that door waits beyond the attempt's time; then the answer is no."""
REFUSED_TIME = 2.0
"""Seconds that the lamp says: use your badge."""
READERS_GRACE = 60.0
"""Seconds without any badge reader after which faces do not open either: never the only way in."""
MAX_COUNT = 2**32 - 1
"""Where the counters of entries stop, which is what four bytes hold."""


class Reason(enum.Enum):
    """Why the door was unlocked."""

    BADGE = "badge"
    FACE = "face"


class Outcome(enum.Enum):
    """How an attempt ended."""

    MATCH = "match"
    NO_MATCH = "no match"
    CAPTURED = "captured"
    """It was in an enrolment window, as guidance said."""
    OVERTAKEN = "overtaken"
    """A badge opened meanwhile."""
    UNAVAILABLE = "unavailable"
    """Recognition is off, or no badge reader is up: nothing was asked."""


class Controller:
    """The door's own judgement. All of its methods run on the event loop."""

    def __init__(
        self,
        settings: Settings,
        pins: Pins,
        badges: Badges,
        record: Record,
        readers: Iterable[Reader],
        vault: Collection[int],
    ) -> None:
        """A locked door.

        Args:
            settings: the configuration.
            pins: the wall.
            badges: which badges open.
            record: where events go.
            readers: the badge readers of this door, started by the caller.
            vault: the user ids that vault may have.
        """
        self._settings = settings
        self._pins = pins
        self._badges = badges
        self._record = record
        self._readers = tuple(readers)
        self._vault = vault
        self._loop = asyncio.get_running_loop()
        self._attempt: asyncio.Task[None] | None = None
        self._mode = DoorMode.LOCKED
        self._stopping = False
        self._refusal: asyncio.TimerHandle | None = None
        self._reader_seen_at = self._loop.time()
        self.guidance: Guidance | None = None
        self.entries = dict.fromkeys(Reason, 0)
        self._show()

    @property
    def mode(self) -> DoorMode:
        """What the door is doing."""
        return self._mode

    @property
    def recognition(self) -> bool:
        """Whether a press may start an attempt: configured, and a badge reader was up lately."""
        if any(reader.up for reader in self._readers):
            self._reader_seen_at = self._loop.time()
        lately = self._loop.time() - self._reader_seen_at <= READERS_GRACE
        return self._settings.recognition.enabled and lately

    def state(self) -> DoorState:
        """What admin may know.

        Raises:
            BadgesUnreadable: the badges cannot be counted.
        """
        return DoorState(
            mode=self._mode,
            readers=len(self._readers),
            readers_up=sum(reader.up for reader in self._readers),
            recognition=int(self.recognition),
            badges=self._badges.count(),
            badge_entries=self.entries[Reason.BADGE],
            face_entries=self.entries[Reason.FACE],
        )

    def press(self) -> None:
        """The button went down. During an attempt, and while unlocked, it means nothing."""
        if self._stopping or self._mode is not DoorMode.LOCKED:
            return
        self._record.write(Event.PRESSED)
        if not self.recognition:
            self._record.write(Event.ATTEMPT_ENDED, outcome=Outcome.UNAVAILABLE)
            self._refuse()
            return
        self._mode = DoorMode.ATTEMPT
        self._clear_refusal()
        self._attempt = self._loop.create_task(self._try(), name="attempt")
        # A fault in an attempt is a fault of the door: the loop's handler stops it, relay first.
        self._attempt.add_done_callback(_raise_fault)
        self._show()

    def card(self, bits: int, number: int) -> None:
        """A card was held up. A badge opens at any time, and overtakes an attempt."""
        if self._stopping:
            return
        try:
            opens = self._badges.opens(bits, number)
        except BadgesUnreadable:
            # Shut for this card, and said so; the next one may find the file in order again.
            self._record.write(Event.FAILED)
            opens = False
        if opens:
            self._unlock(Reason.BADGE)
        else:
            self._refuse()
            self._record.write(Event.BADGE_REFUSED)

    def reader_changed(self, number: int, *, up: bool) -> None:
        """The reader with this number in the settings, from 1, went up or down."""
        self._reader_seen_at = self._loop.time()
        self._record.write(Event.READER_UP if up else Event.READER_DOWN, reader=number)

    def relay_released(self) -> None:
        """The relay went off."""
        if self._mode is DoorMode.UNLOCKED and not self._pins.relay.energised:
            self._mode = DoorMode.LOCKED
            self._show()
            self._record.write(Event.LOCKED)

    def stop(self) -> None:
        """Lock for good, whatever was going on."""
        self._stopping = True
        self._pins.relay.cut()
        self._end_attempt()
        self._clear_refusal()
        for lamp in (self._pins.ready, self._pins.busy, self._pins.refused):
            lamp.off()

    async def _try(self) -> None:
        """One attempt, from the press to vault's answer or door's own deadline."""
        attempt = asyncio.current_task()
        seconds = self._settings.recognition.attempt_time + ATTEMPT_GRACE
        until = self._loop.time() + seconds
        channel = await GuidanceChannel.open(self._settings.socket("vault/guidance"), self._vault)
        follower = channel and self._loop.create_task(channel.follow(self._guide, seconds), name="guidance")
        try:
            left = max(0.0, until - self._loop.time())
            matched = await ask(
                self._settings.socket("vault/decision"), self._vault, Request(Verb.ATTEMPT), left
            )
        finally:
            if follower:
                follower.cancel()
        # No await from here to the relay: what is checked is what holds when it moves.
        if self._stopping or self._attempt is not attempt or self._mode is not DoorMode.ATTEMPT:
            return
        if matched:
            self._unlock(Reason.FACE)
            return
        captured = self.guidance in {Guidance.CAPTURED, Guidance.DONE}
        self._end_attempt()
        self._mode = DoorMode.LOCKED
        if captured:
            # A press in an enrolment window opens nothing, and is no refusal either.
            self._show()
        else:
            self._refuse()
        self._record.write(Event.ATTEMPT_ENDED, outcome=Outcome.CAPTURED if captured else Outcome.NO_MATCH)

    def _unlock(self, reason: Reason) -> None:
        """Unlock; the relay first, all else after it."""
        self._pins.relay.energise(self._settings.door.unlock_time)
        overtaken = self._mode is DoorMode.ATTEMPT and reason is Reason.BADGE
        self._mode = DoorMode.UNLOCKED
        self._end_attempt()
        self._clear_refusal()
        self._show()
        self.entries[reason] = min(self.entries[reason] + 1, MAX_COUNT)
        if reason is Reason.FACE:
            self._record.write(Event.ATTEMPT_ENDED, outcome=Outcome.MATCH)
        elif overtaken:
            self._record.write(Event.ATTEMPT_ENDED, outcome=Outcome.OVERTAKEN)
        self._record.write(Event.UNLOCKED, reason=reason)

    def _end_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        self.guidance = None
        if attempt is not None and attempt is not asyncio.current_task():
            attempt.cancel()

    def _guide(self, guidance: Guidance) -> None:
        """Vault's word to the person: shown, never believed."""
        if self._mode is DoorMode.ATTEMPT:
            self.guidance = guidance

    def _refuse(self) -> None:
        """Point to the badge for a while."""
        self._clear_refusal()
        self._refusal = self._loop.call_later(REFUSED_TIME, self._clear_refusal)
        self._show()

    def _clear_refusal(self) -> None:
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None
            self._show()

    def _show(self) -> None:
        """Set the lamps to what the door is doing."""
        if self._stopping:
            return
        refused = self._refusal is not None
        self._pins.ready.value = self._mode is DoorMode.LOCKED and not refused
        self._pins.busy.value = self._mode is DoorMode.ATTEMPT
        self._pins.refused.value = refused


def _raise_fault(attempt: asyncio.Task[None]) -> None:
    if not attempt.cancelled() and (fault := attempt.exception()) is not None:
        raise fault
