"""A mixed day at a door whose zones are killed at random moments: what was acknowledged holds all the same.

People are added, consent, are enrolled, get badges, and are erased; they press with tokens and faces, right
and wrong, and hold up cards; and each of the four zones is killed with SIGKILL, hundreds of times, and
starts again as under systemd. A ledger knows what was acknowledged. Started as `scripts/mixed-day`, and by
the tests.
"""

import argparse
import base64
import contextlib
import datetime as dt
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.door.controller import Reason
from appliance.errors import DrempelError
from appliance.journal import Event, verify
from appliance.link.sockets import Deadline
from appliance.packs.portraits import portraits
from appliance.process import ZONES, Zone
from appliance.simulation.board import BoardError
from appliance.vault.token import Token
from tests.fixtures_models import installed_edge
from tests.system.day.desk import Desk, Handed
from tests.system.day.ledger import Kind, Ledger, Standing
from tests.system.day.passers import Fate, Tell, Visitors, add_house_badge
from tests.system.day.world import UNLOCK_TIME, World
from tests.system.openings import Cause, Stretch, stretches, too_long, unexplained, unspent

PACE = 1.9
"""Seconds between two kills of one world, on average."""
CARD_PACE = 1.8
"""Seconds between two cards, on average."""
BETWEEN_LOOKS = 25
"""Kills between two times at which all zones rest and everything is compared."""
TRIES = 4
"""Presses in which the right face must open once: a busy machine may be late for one."""
RELEASE = 0.5
"""Seconds after the death of door in which the relay must be off, on a busy machine."""

SLOWEST = 60.0
"""Seconds, for each kill of each zone, after which a day hangs: it takes about twelve."""

TOLD = ("lost", "wrongly_opened", "left_open", "refused", "revived", "other")
COUNTED = ("kills", "numbers", "begun", "done", "hit")


@dataclass
class Outcome:
    """What came of a day, or of several at once."""

    seed: int
    kills: Counter[Zone] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    wrongly_opened: list[str] = field(default_factory=list)
    left_open: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)
    """Acknowledged as erased, and there."""
    other: list[str] = field(default_factory=list)
    """What else was wrong: files that disagree, a journal that does not verify, a name in a log."""
    numbers: Counter[str] = field(default_factory=Counter)
    begun: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)

    @property
    def wrong(self) -> list[str]:
        """Everything that was wrong."""
        return [*self.lost, *self.wrongly_opened, *self.left_open, *self.refused, *self.revived, *self.other]

    def add(self, other: "Outcome") -> None:
        """Take in what came of another day."""
        for name in TOLD:
            getattr(self, name).extend(getattr(other, name))
        for name in COUNTED:
            getattr(self, name).update(getattr(other, name))
        self.acknowledged += other.acknowledged

    def to_json(self) -> str:
        """The whole outcome."""
        return json.dumps({"ok": not self.wrong, **vars(self)})

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """The outcome that `to_json` gave.

        Raises:
            ValueError: it is none.
        """
        said: dict[str, Any] = json.loads(text)
        outcome = cls(said["seed"], acknowledged=said["acknowledged"])
        for name in COUNTED:
            getattr(outcome, name).update(said[name])
        for name in TOLD:
            getattr(outcome, name).extend(said[name])
        return outcome

    def report(self) -> str:
        """What was done, what was killed in the middle of it, and the one line that counts."""
        lines = [f"{'act':<22}{'begun':>7}{'done':>7}   killed in the middle of it"]
        for act in sorted(self.begun):
            kills = ", ".join(
                f"{zone} {self.hit[f'{act}/{zone}']}" for zone in ZONES if self.hit[f"{act}/{zone}"]
            )
            lines.append(f"{act:<22}{self.begun[act]:>7}{self.done[act]:>7}   {kills}")
        lines += [f"{name}: {number}" for name, number in sorted(self.numbers.items())]
        lines += [f"WRONG: {text}" for text in self.wrong]
        zones = ", ".join(f"{zone} {self.kills[zone]}" for zone in ZONES)
        lines.append(
            f"{self.kills.total()} kills ({zones}), {self.acknowledged} acknowledged, {len(self.lost)} lost, "
            f"{len(self.wrongly_opened)} wrongly opened, {len(self.left_open)} left open, "
            f"{len(self.refused)} badges refused"
        )
        return "\n".join(lines)


class Day:
    """One day in one world."""

    def __init__(self, world: World, seed: int, kills: int, pace: float, tell: Tell) -> None:
        """A day that kills each zone `kills` times."""
        rng = random.Random(seed)
        self._rng = rng
        self._world = world
        self._tell = tell
        self._name = f"Planted-Name-{seed:05d}"
        self.ledger = Ledger()
        self.desk = Desk(world, self.ledger, random.Random(rng.random()), self._name)
        self.visitors = Visitors(world, self.ledger, self.desk, random.Random(rng.random()), CARD_PACE)
        owed = dict.fromkeys(ZONES, kills)
        self._fate = Fate(world, self.desk, random.Random(rng.random()), owed, pace)
        self.outcome = Outcome(seed)

    def run(self) -> Outcome:
        """Live through the day, and judge it."""
        outcome = self.outcome
        self.visitors.house = add_house_badge(self._world, self.ledger, self._rng, self._name)
        while any(self._fate.owed.values()):
            self._hours(BETWEEN_LOOKS)
            self.look(everything=not any(self._fate.owed.values()))
            self._tell(
                f"day {outcome.seed}: {self._world.kills.total()} kills, {self.ledger.acknowledged} "
                f"acknowledged, {len(outcome.wrong)} wrong"
            )
        self.judge_relay()
        self._judge_files()
        desk, outcome.kills, outcome.acknowledged = self.desk, self._world.kills, self.ledger.acknowledged
        outcome.begun, outcome.done = desk.begun, desk.done
        outcome.hit = Counter({f"{act}/{zone}": count for (act, zone), count in self._fate.hit.items()})
        return outcome

    def _hours(self, kills: int) -> None:
        """Some hours of the day: acts, cards and kills at the same time."""
        over, faults = threading.Event(), list[BaseException]()

        def visitors() -> None:
            try:
                self.visitors.run(over)
            except BaseException as fault:  # noqa: BLE001 - told below, on the thread that can fail
                faults.append(fault)

        def fate() -> None:
            try:
                self._fate.run(kills, over)
            except BaseException as fault:  # noqa: BLE001 - told below, on the thread that can fail
                faults.append(fault)
            finally:
                over.set()

        threads = [threading.Thread(target=visitors), threading.Thread(target=fate)]
        for thread in threads:
            thread.start()
        try:
            while not over.is_set():
                self.desk.step()
        finally:
            over.set()
            for thread in threads:
                thread.join()
        if faults:
            raise faults[0]

    def look(self, *, everything: bool) -> None:
        """Let all zones rest, compare what they hold with the ledger, and prove the tokens."""
        outcome, world, ledger = self.outcome, self._world, self.ledger
        try:
            world.rest()
        except DrempelError as error:
            outcome.other.append(str(error))
            return
        held, now = world.held(), time.monotonic()
        listed = world.listed("/people") or []
        if {entry["name"] for entry in listed} != held.people.keys():
            outcome.other.append("the API does not list the people of registry.db")
        observed: tuple[tuple[Kind, Collection[str]], ...] = (
            ("person", held.people.keys()),
            ("consent", held.consents),
            ("badge", held.badges.keys()),
            ("template", held.templates & held.vault),
        )
        for kind, there in observed:
            findings = ledger.settle(kind, there, now)
            outcome.lost += findings.lost
            outcome.revived += findings.revived
        if held.vault != held.templates:
            outcome.other.append(
                f"{len(held.vault - held.templates)} records of vault have no owner, "
                f"{len(held.templates - held.vault)} owners no record"
            )
        if held.door != set(held.badges.values()):
            outcome.other.append("badges.db and registry.db do not agree on the badges")
        gone = {person.name: person.name.encode() for person in self.desk.gone}
        outcome.other += [f"erased, and still written: {leak}" for leak in world.leaks(gone, ("admin",))]
        self._prove(everything=everything)

    def _prove(self, *, everything: bool) -> None:
        """What must open opens, with all zones up; what was erased does not."""
        desk, ledger = self.desk, self.ledger
        living = [token for token in desk.tokens if ledger.standing(token.thing) is Standing.PRESENT]
        erased = [token for token in desk.tokens if ledger.standing(token.thing) is Standing.ABSENT]
        for token in living:
            if not everything and token not in desk.unproven:
                continue
            if self._opens(token):
                self.outcome.numbers["enrolments proved by opening"] += 1
            else:
                self.outcome.lost.append(f"template {token.thing.name} is there and does not open")
        desk.unproven.clear()
        for token in self._rng.sample(erased, min(1, len(erased))):
            desk.do("press, erased token", lambda token=token: desk.press_with(token, token.face))  # type: ignore[misc]
            self.outcome.numbers["erased tokens shown at rest"] += 1

    def _opens(self, token: Handed) -> bool:
        board, relay = self._world.door.board, self._world.relay
        for _ in range(TRIES):
            since = time.monotonic()
            self.desk.do("press, right face", lambda: self.desk.press_with(token, token.face))
            if any(change.state for change in board.history(relay, since=since)):
                return True
            self.outcome.numbers["right face, too slow once"] += 1
        return False

    def judge_relay(self) -> None:
        outcome, world = self.outcome, self._world
        # The last one who came in: a door that stays open for longer is found below.
        with contextlib.suppress(BoardError):
            world.door.board.wait_for(world.relay, 0, UNLOCK_TIME + 1.0)
        opened = stretches(world.door.board.history(world.relay))
        causes = [*self.visitors.causes(), *self.desk.causes]
        outcome.wrongly_opened += [
            f"the relay rose at {stretch.up:.3f} without a reason" for stretch in unexplained(opened, causes)
        ]
        outcome.left_open += [
            f"the relay was high from {stretch.up:.3f} to {stretch.down:.3f}"
            for stretch in too_long(opened, causes, UNLOCK_TIME)
        ]
        deaths = [at for at, zone in world.kill_times if zone == "door"]
        outcome.left_open += outlived(opened, deaths)
        outcome.left_open += self.visitors.left_open
        outcome.numbers["causes that opened nothing"] += len(unspent(opened, causes))
        missed, fell, served = self.visitors.refused(opened)
        outcome.refused += [f"a valid card at {card.at:.3f} did not open" for card in missed]
        numbers = outcome.numbers
        numbers["cards held up"] += len(self.visitors.cards)
        numbers["cards that had to open"] += sum(card.must for card in self.visitors.cards)
        numbers["cards that fell into door's own death"] += fell
        numbers["cards that no reader took, door being dead"] += self.visitors.untaken
        numbers["cards while the simulated reader stood still"] += self.visitors.starved
        for zone in ZONES:
            numbers[f"cards that opened while {zone} was dead or starting"] += served[zone]
        numbers["rises of the relay"] += len(opened)
        numbers["kills of door with the relay high"] += sum(
            any(stretch.up <= death <= stretch.down for stretch in opened) for death in deaths
        )
        outcome.wrongly_opened += self._merged(opened, causes)
        faces = self._faces_that_opened()
        numbers["faces that opened, by door's journal"] += faces
        if faces > len(self.desk.causes):
            outcome.wrongly_opened.append(f"{faces} faces opened, and {len(self.desk.causes)} might have")

    def _merged(self, opened: list[Stretch], causes: list[Cause]) -> list[str]:
        """Where door wrote, in one of its lives, that it unlocked more often than acts can explain."""
        text = self._world.journals()["door"].read_text(encoding="utf-8")
        offset = time.time() - time.monotonic()
        lives: list[tuple[float, int]] = []
        for line in map(json.loads, text.splitlines()):
            if line["event"] == Event.STARTED:
                began = dt.datetime.fromisoformat(line["time"]).timestamp() - offset
                lives.append((began, 0))
            elif line["event"] == Event.UNLOCKED and lives:
                lives[-1] = (lives[-1][0], lives[-1][1] + 1)
        return merged(lives, opened, causes)

    def _faces_that_opened(self) -> int:
        """How often door wrote that it opened for a face; a kill may have kept it from writing so."""
        lines = self._world.journals()["door"].read_text(encoding="utf-8").splitlines()
        written = [json.loads(line) for line in lines]
        return sum(
            line["event"] == Event.UNLOCKED and line["details"]["reason"] == Reason.FACE.value
            for line in written
        )

    def _judge_files(self) -> None:
        outcome, world = self.outcome, self._world
        outcome.other += [f"damaged: {text}" for text in world.damage()]
        for zone, path in world.journals().items():
            try:
                verify(path)
            except DrempelError as error:
                outcome.other.append(f"the journal of {zone}: {error}")
        written = ("logs", "door", "lens", "vault", "admin/journal.jsonl")
        outcome.other += world.leaks({"a name": self._name.encode()}, written)
        secrets = {}
        for number, token in enumerate(self.desk.tokens):
            secret = bytes(Token.decode(token.token).secret)
            secrets[f"the secret of token {number}"] = secret
            secrets[f"the secret of token {number}, hexadecimal,"] = secret.hex().encode()
            secrets[f"token {number}, base64,"] = base64.b64encode(token.token)
        outcome.other += world.leaks(secrets, ("logs", "door", "lens", "vault", "admin"))


def merged(lives: list[tuple[float, int]], opened: list[Stretch], causes: list[Cause]) -> list[str]:
    """Where door unlocked more often than rises and other causes explain; a life is its begin, and unlocks.

    A begin is known to the second only: a rise within it is counted for both lives.
    """
    spare = unspent(opened, causes)
    found = []
    for (began, unlocks), (ended, _) in zip(lives, [*lives[1:], (float("inf"), 0)], strict=True):
        own = [stretch for stretch in opened if began - 0.1 <= stretch.up <= ended + 1.1]
        over = unlocks - len(own)
        over -= sum(any(c.at <= each.down and each.up <= c.until for each in own) for c in spare)
        if over > 0:
            found.append(f"door that started about {began:.0f} unlocked {over} times more than acts explain")
    return found


def outlived(opened: list[Stretch], deaths: list[float]) -> list[str]:
    """Where the relay was still high after the death of the door that had put it there."""
    return [
        f"the relay was high until {stretch.down:.3f}, and door had died at {death:.3f}"
        for death in deaths
        for stretch in opened
        if stretch.up <= death and stretch.down > death + RELEASE
    ]


def live(seed: int, kills: int, tell: Tell, *, pace: float = PACE) -> Outcome:
    """Live one day; where something was wrong its folder is kept, and named in the outcome."""
    state = Path(tempfile.mkdtemp(prefix="drempel-day-"))
    outcome = Outcome(seed, other=["the day broke off"])
    try:
        with World(state, installed_edge(), portraits(lambda _: None)).running() as world:
            outcome = Day(world, seed, kills, pace, tell).run()
    finally:
        if outcome.wrong:
            tell(f"day {seed}: kept for inquiry: {state}")
        else:
            shutil.rmtree(state, ignore_errors=True)
    return outcome


def live_side_by_side(seed: int, kills: int, worlds: int, tell: Tell) -> Outcome:
    """Live several days at once, each in a process of its own, and take them together."""
    whole = Outcome(seed)
    processes = []
    for number in range(worlds):
        share = kills // worlds + (number < kills % worlds)
        command = [sys.executable, "-m", "tests.system.mixed_day", str(share), "--seed", str(seed + number)]
        command += ["--worlds", "1", "--json"]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    deadline = Deadline(SLOWEST * (kills // worlds + 1) + 120)
    try:
        for number, process in enumerate(processes):
            try:
                said, _ = process.communicate(timeout=max(1.0, deadline.remaining))
                whole.add(Outcome.from_json(said))
            except subprocess.TimeoutExpired:
                whole.other.append(f"day {seed + number} did not end in time")
            except ValueError:
                whole.other.append(f"day {seed + number} broke off with {process.returncode}: see above")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    if whole.wrong:
        tell(f"repeat with --seed {seed}")
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Live as the command line says; the exit status: 1 where anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/mixed-day",
        description="A day of presses, cards, enrolments and erasures at simulated doors of real processes, "
        "while door, lens, vault and admin are each killed with SIGKILL at random moments and start again. "
        "Nothing that was acknowledged may be lost, no door may open that should not or stay open, and "
        "badges are served throughout.",
        epilog="About half an hour for 300 kills of each zone, in two worlds side by side. Exit status 1: "
        "something was wrong; it is told, and the folder of that day is kept.",
    )
    parser.add_argument("kills", type=int, nargs="?", default=300, help="kills of each zone (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="for all that is left to chance (%(default)s)")
    parser.add_argument("--worlds", type=int, default=2, help="doors side by side (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    options = parser.parse_args(arguments)
    if options.kills < 1 or options.worlds < 1:
        parser.error("at least one kill, and one world")

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    installed_edge()
    portraits(tell)
    if options.worlds == 1:
        outcome = live(options.seed, options.kills, tell)
    else:
        outcome = live_side_by_side(options.seed, options.kills, options.worlds, tell)
    print(outcome.to_json() if options.json else outcome.report())
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
