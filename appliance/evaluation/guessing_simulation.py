"""A year at the door in seconds: vault's own limits, on a simulated time and a database in memory."""

import random
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from appliance.vault import clock as clocks
from appliance.vault import limits as limiting
from appliance.vault.clock import DAY, Clock, Sources
from appliance.vault.limits import Limits, wait_after

YEAR = 365 * DAY
TRIES = 3
"""How often a person whom the door does not recognise tries again before taking the badge."""
_INDEX_KEY = bytes(range(32))
"""No secret: nobody's claims are in a simulation."""


class Memory:
    """A database in memory with what limits and clock need of the store."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.executescript(clocks.TABLES + limiting.TABLES)
        self._lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Forget it all."""
        self._db.close()


@dataclass(slots=True)
class SimulatedTime:
    """Time as it is, and as a device sees it.

    Attributes:
        true: seconds since the device's first start.
        wrong: seconds by which its wall clock is ahead of the true time.
        synchronised: whether its kernel holds the wall clock for synchronised.
        boots: how often it was started.
        booted: the true time of the last start.
    """

    true: float = 0.0
    wrong: float = 0.0
    synchronised: bool = False
    boots: int = 0
    booted: float = 0.0

    def pass_by(self, seconds: float) -> None:
        """Let time pass, the device on."""
        self.true += seconds

    def reboot(self, off: float) -> None:
        """Let time pass, the device off, and start it."""
        self.true += off
        self.boots, self.booted = self.boots + 1, self.true

    def sources(self) -> Sources:
        """What `Clock` asks."""
        return Sources(
            wall=lambda: clocks.EARLIEST + 10 * DAY + self.true + self.wrong,
            since_boot=lambda: self.true - self.booted,
            boot=lambda: f"boot {self.boots}",
            synchronised=lambda: self.synchronised,
        )


@dataclass(slots=True)
class Device:
    """Vault's limits on a database that outlives them."""

    budget: int
    time: SimulatedTime = field(default_factory=SimulatedTime)
    store: Memory = field(default_factory=Memory)
    clock: Clock = field(init=False)
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin anew on the same database; nothing of what was in memory is left, nor written before."""
        self.clock = Clock(self.store, self.time.sources())
        self.limits = Limits(self.store, _INDEX_KEY, self.clock, self.budget)

    def close(self) -> None:
        """End it."""
        self.store.close()


@dataclass(frozen=True, slots=True)
class Attacked:
    """What an attack on many claims for a year came to.

    Attributes:
        claims: how many.
        guessed: of how many an attempt passed.
        attempts: compared in all.
        most: compared of one claim.
        refused: attempts that the limits refused.
        restarts: of vault, every fourth of them with a reboot.
    """

    claims: int
    guessed: int
    attempts: int
    most: int
    refused: int
    restarts: int


def attack(rates: Sequence[float], budget: int, seed: int) -> Attacked:
    """Try every claim, each time somebody else, as often as the limits let, for a year.

    At first every quarter of an hour, as the longest wait asks, until nothing is let any more; then every
    week. Vault is restarted all the time.

    Args:
        rates: of each claim, the chance that an attempt by a stranger passes.
        budget: see `budget_of`.
        seed: of what is drawn by chance.
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation
    handles = [rng.randbytes(16) for _ in rates]
    compared, refused, restarts = [0] * len(rates), 0, 0
    guessed: set[int] = set()
    device = Device(budget)
    with closing(device):
        while device.time.true < YEAR:
            before = sum(compared)
            for number, (handle, rate) in enumerate(zip(handles, rates, strict=True)):
                if number in guessed:
                    continue
                if not device.limits.charge(handle):
                    refused += 1
                    continue
                compared[number] += 1
                if rng.random() < rate:
                    guessed.add(number)
                    device.limits.succeeded(handle)
            device.clock.moment()
            device.time.pass_by(900 if sum(compared) > before else 7 * DAY)
            if rng.random() < 0.2:
                restarts += 1
                if restarts % 4 == 0:
                    device.time.reboot(rng.uniform(10, 7200))
                device.start()
    return Attacked(len(rates), len(guessed), sum(compared), max(compared), refused, restarts)


@dataclass(frozen=True, slots=True)
class GenuineYears:
    """What a year of honest entries came to.

    Attributes:
        people: how many, for a year each.
        locked_out: of them, whose budget was spent.
        failures: not recognised, in all.
        most: not recognised of one person.
        waited: people who met a wait.
        longest: wait that anybody met, seconds.
    """

    people: int
    locked_out: int
    failures: int
    most: int
    waited: int
    longest: int


def genuine_years(
    people: int, fnmr: float, budget: int, seed: int, *, days: int = 225, entries: int = 8
) -> GenuineYears:
    """Let people enter; whoever is not recognised tries again at once, three times at most.

    Args:
        people: how many, of one device.
        fnmr: chance that an attempt of theirs fails.
        budget: see `budget_of`.
        seed: of what is drawn by chance.
        days: on which they work, at most 365.
        entries: of each on such a day.
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation
    handles = [rng.randbytes(16) for _ in range(people)]
    failures, in_a_row, longest = [0] * people, [0] * people, [0] * people
    locked_out: set[int] = set()
    device = Device(budget)
    with closing(device):
        for _day in range(days):
            for _entry in range(entries):
                for number, handle in enumerate(handles):
                    for _try in range(TRIES):
                        if not device.limits.charge(handle):
                            longest[number] = max(longest[number], wait_after(in_a_row[number]))
                            if failures[number] >= budget:
                                locked_out.add(number)
                            break
                        if rng.random() >= fnmr:
                            device.limits.succeeded(handle)
                            in_a_row[number] = 0
                            break
                        failures[number] += 1
                        in_a_row[number] += 1
                        # Told to use the badge, the person thinks again.
                        device.time.pass_by(5)
                device.clock.moment()
                device.time.pass_by(3600)
            if rng.random() < 0.1:
                device.time.reboot(60)
                device.start()
            device.time.pass_by(DAY * (365 / days) - entries * 3600)
    waited = sum(each > 0 for each in longest)
    return GenuineYears(people, len(locked_out), sum(failures), max(failures), waited, max(longest))
