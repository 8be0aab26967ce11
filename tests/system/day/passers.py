"""Who else is about in a mixed day: people who hold up cards, and fate, which kills zones."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from appliance.link.sockets import Deadline
from appliance.process import ZONES, Zone
from appliance.simulation.board import BoardError
from appliance.simulation.reader import ReaderError
from tests.system.day.desk import BADGE_BITS, Badge, Desk
from tests.system.day.ledger import Ledger, Standing, Thing
from tests.system.day.world import World
from tests.system.openings import Cause, Stretch

SERVED = 3.0
"""Seconds from a card, or from the return of a door that was dead, to the relay: at most, if busy."""
CARD_LASTS = 1.5
"""Seconds for which a card explains a rise, where the simulated reader did not stand still."""
LATE = 0.3
"""Seconds after a card in which the death of door excuses it: later, it had opened before."""
STUCK = 3.0
"""Seconds after which a relay that is still high was left open: six unlock times."""
HOUSE_BADGE = "house badge"
"""The one badge that is never taken away, so that there is always one that must open."""
AFTER_KILL = 0.4
"""Share of the cards that are held up right after a kill."""
AIMED = 0.6
"""Share of the kills that come a moment after an act began; of the others, few would hit a short act."""
PAIR = 0.1
"""Share of the kills that hit two zones at once."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card that was held up, which must open, may open, or may not."""

    at: float
    must: bool
    may: bool
    dead: tuple[Zone, ...]
    """The zones that were dead at that moment."""
    entered: bool | None = None
    """Whether door counted an entry for it; None where door died meanwhile, or did not say."""
    stalled: bool = False
    """Whether the simulated reader stood still when it came, and may hand it over late."""

    def cause(self, back: float | None) -> Cause:
        """As a reason for the relay to rise; `back` is when door came back, where it was away.

        A reader keeps a card for a door that does not call it, and hands it over when it does.
        """
        return Cause("card", self.at, max(self.at, back or 0.0) + (SERVED if self.stalled else CARD_LASTS))


class Visitors:
    """Hold up cards, one after another, whatever else goes on."""

    def __init__(self, world: World, ledger: Ledger, desk: Desk, rng: random.Random, pace: float) -> None:
        """Visitors who come every `pace` seconds, on average."""
        self._world = world
        self._ledger = ledger
        self._desk = desk
        self._rng = rng
        self._pace = pace
        self.house: Badge | None = None
        self.cards: list[Card] = []
        self.left_open: list[str] = []
        """Times at which a visitor found the door open for far too long."""
        self.untaken = 0
        self.starved = 0
        """Cards of which nothing can be said, since the simulated reader stood still."""

    def run(self, stop: threading.Event) -> None:
        """Until it is to stop."""
        while not stop.wait(self._rng.uniform(0.1, 2 * self._pace)):
            if self._rng.random() < AFTER_KILL:
                self._world.struck.clear()
                self._world.struck.wait(2 * self._pace)
                stop.wait(self._rng.uniform(0, 0.8))
            self.one()

    def causes(self) -> list[Cause]:
        """The reasons that cards gave the relay to rise."""
        return [card.cause(self._back(card)) for card in self.cards if card.may]

    def _back(self, card: Card) -> float | None:
        """When door came back, where it was away when the card came or died before it can have opened."""
        return self._world.away(card.at, card.at + (SERVED if card.stalled else LATE))

    def refused(self, opened: list[Stretch]) -> tuple[list[Card], int, Counter[Zone]]:
        """What came of the cards that had to open.

        Returns:
            Those that did not; how many fell into door's own death; how many opened with each zone dead.
        """
        missed, fell = [], 0
        served: Counter[Zone] = Counter()
        left = list(opened)
        for card in self.cards:
            if not card.must:
                continue
            back = self._back(card)
            cause = card.cause(back)
            fitting = [each for each in left if cause.at <= each.down and each.up <= cause.until]
            if fitting:
                # One stretch serves one card, unless door itself counted an entry for each.
                left.remove(fitting[0])
            if card.entered or (card.entered is None and fitting):
                served.update(card.dead)
            elif back is not None:
                fell += 1
            else:
                missed.append(card)
        return missed, fell, served

    def one(self) -> None:
        """One visitor."""
        number, badge = self._choose()
        self.present(number, badge)

    def present(self, number: int, badge: Badge | None = None) -> None:
        """Hold up the card with this number, which is `badge` where it should open."""
        board, relay = self._world.door.board, self._world.relay
        deadline = Deadline(STUCK)
        while board.state(relay):
            if deadline.passed:
                self.left_open.append(f"the relay was high for {STUCK:g} s before {time.monotonic():.3f}")
                return
            time.sleep(0.02)
        before = self._world.door_entries()
        dead = tuple(zone for zone in ZONES if self._world.dead(zone))
        began = time.monotonic()
        try:
            at = self._world.door.reader.present(BADGE_BITS, number, timeout=2.0)
        except ReaderError:
            # Nobody calls the reader: the person waits, and tries again.
            self.untaken += 1
            now = time.monotonic()
            if self._world.door.reader.stalled(began - SERVED, now):
                self.starved += 1
            elif self._world.away(began - SERVED, now) is None:
                self.cards.append(Card(began, must=badge is not None, may=False, dead=dead))
            return
        hopeful = badge is not None and self._ledger.standing(badge.thing) is Standing.PRESENT
        try:
            board.wait_for(relay, 1, SERVED if hopeful else 0.4, since=at)
        except BoardError:
            self._world.trace(f"a card at {at:.3f} did not open, hopeful: {hopeful}")
        entered = self._entered(before) if hopeful else None
        now = time.monotonic()
        must = badge is not None and self._ledger.must(badge.thing, at, now)
        stalled = self._world.door.reader.stalled(at - 0.2, at + 0.5)
        if must and stalled and not entered:
            # Not door's fault, nor its merit: this machine let the simulated reader stand still.
            self.starved += 1
            must = False
        # Until it could last open: a badge that is just being added may make it.
        may = any(
            self._ledger.may(each.thing, at, max(now, at + SERVED))
            for each in self._all()
            if each.number == number
        )
        self.cards.append(Card(at, must, may, dead, entered, stalled))

    def _entered(self, before: tuple[int, int] | None) -> bool | None:
        """Whether the same life of door counts a badge more than before; None where it cannot be told."""
        # A face may have opened just before: the card itself is a moment later.
        for _ in range(10):
            after = self._world.door_entries()
            if before is None or after is None or after[0] != before[0]:
                return None
            if after[1] > before[1]:
                return True
            time.sleep(0.05)
        return False

    def _choose(self) -> tuple[int, Badge | None]:
        """A number, and the badge that has it, where it should open."""
        present = [badge for badge in self._all() if self._is(badge, Standing.PRESENT)]
        others = [badge for badge in self._desk.badges if not self._is(badge, Standing.PRESENT)]
        chance = self._rng.random()
        if chance < 0.15:
            return self._rng.getrandbits(BADGE_BITS), None
        if chance < 0.35 and others:
            return self._rng.choice(others).number, None
        if not present:
            return self._rng.getrandbits(BADGE_BITS), None
        badge = self._rng.choice(present)
        return badge.number, badge

    def _all(self) -> list[Badge]:
        return [*self._desk.badges, *([self.house] if self.house else [])]

    def _is(self, badge: Badge, standing: Standing) -> bool:
        return self._ledger.standing(badge.thing) is standing


class Fate:
    """Kills zones at random moments: each as often as it is owed, now and then two at once."""

    def __init__(
        self, world: World, desk: Desk, rng: random.Random, owed: dict[Zone, int], pace: float
    ) -> None:
        """Owes each zone `owed` kills, one every `pace` seconds on average."""
        self._world = world
        self._desk = desk
        self._rng = rng
        self._pace = pace
        self.owed = dict(owed)
        self.hit: Counter[tuple[str, Zone]] = Counter()
        """Kills, by the act that they fell into and the zone that they fell upon."""

    def run(self, kills: int, stop: threading.Event) -> None:
        """Until so many kills are made, or none is owed any more, or it is to stop."""
        made = 0
        # Exponential: kills come in bursts, and leave calms in which things are completed.
        while made < kills and any(self.owed.values()) and not stop.wait(self._gap()):
            if self._rng.random() < AIMED:
                self._desk.begins.clear()
                self._desk.begins.wait(2 * self._pace)
                # From a tenth of a millisecond to a second, each size alike.
                stop.wait(10 ** self._rng.uniform(-4, 0))
            for _ in range(2 if self._rng.random() < PAIR else 1):
                made += self._one()

    def _gap(self) -> float:
        return min(self._rng.expovariate(1 / self._pace), 4 * self._pace)

    def _one(self) -> int:
        # A zone that is dead cannot be killed; one that is just starting can.
        alive = [zone for zone in ZONES if self.owed[zone] and self._world.up(zone)]
        if not alive:
            return 0
        zone = self._rng.choices(alive, [self.owed[each] for each in alive])[0]
        act = self._desk.act
        if not self._world.kill(zone):
            return 0
        self._world.trace(f"kills {zone} in the middle of: {act}")
        self.owed[zone] -= 1
        self.hit[act, zone] += 1
        return 1


def add_house_badge(world: World, ledger: Ledger, rng: random.Random, name: str) -> Badge:
    """The badge that is never taken away, and the person whose it is."""
    person = world.ask("POST", "/people", {"name": f"{name}-house"})
    ledger.acknowledge(Thing("person", f"{name}-house"), Standing.PRESENT, time.monotonic())
    number = rng.getrandbits(BADGE_BITS)
    label = f"{name}-{HOUSE_BADGE}"
    body = {"person": person.value["id"], "bits": BADGE_BITS, "number": f"{number:x}", "label": label}
    badge = Badge(Thing("badge", label), number, world.ask("POST", "/badges", body).value["id"])
    ledger.acknowledge(badge.thing, Standing.PRESENT, time.monotonic())
    return badge


Tell = Callable[[str], None]
