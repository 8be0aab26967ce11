"""Cards at random phase while recognition runs, hangs and crashes: the time of each, and none may be missed.

Each card is held up to a simulated reader, which speaks OSDP with Secure Channel over a pty; its time runs
from there to the relay's line. Meanwhile people press the button, show tokens and faces, and lens, vault and
admin are stopped or killed. Started as `scripts/badge-under-load`, and by the tests.
"""

import argparse
import datetime as dt
import json
import math
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from appliance.journal import Event
from appliance.link.framing import read_message, send_message
from appliance.link.messages import DOOR_TO_ADMIN, AskDoor, DoorState
from appliance.link.sockets import Deadline, connect
from appliance.packs.portraits import portraits
from appliance.process import Zone
from appliance.qr import png
from appliance.simulation.board import BoardError
from appliance.simulation.door import Plan, Shown, SimulationError
from appliance.vault.token import Token
from tests.fixtures_models import installed_edge
from tests.system.house import House, eventually, open_house
from tests.system.openings import Cause, stretches, too_long, too_many, unexplained, unspent

Condition = Literal["idle", "runs", "hangs", "crashes"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
UNLOCK_TIME = 0.5
ATTEMPT_TIME = 3.5
ATTEMPT_LIMIT = ATTEMPT_TIME + 2.0
"""Seconds after a press in which a match may still open: the attempt, door's grace, and a busy machine."""
OVER = 0.2
"""Seconds after the end of an attempt for which its press still explains a rise."""
CARD_LASTS = 1.5
"""Seconds for which a card explains a rise: a reader that was found away is called again after one."""
STALLED = (-0.2, 0.5)
"""Seconds around a card between which a reader that stands still may lose it; later, it was handed over."""
FEW = 0.01
"""Share of the cards that may be starved or untimed, or two of them; with more, the times say too little."""
MISSED = 5.0
"""Seconds after which a card that did not open counts as missed."""
AGAIN = 3
"""How often a card is held up to a simulated reader that this machine let stand still."""
PHASE = {"idle": 0.2, "runs": 0.7, "hangs": 0.7, "crashes": 0.7}
"""Seconds, at most, between the locking of the door and the next card."""
DISTURBED: tuple[Zone, ...] = ("lens", "vault", "admin")
PRESSES = {"match": 1, "wrong face": 4, "unknown token": 1, "wrong secret": 1, "nobody": 1, "no token": 1}
"""What people show, and how often: a wrong face most of all, since it keeps lens embedding the longest."""


@dataclass
class Row:
    """What one condition gave; times in milliseconds from card to relay.

    `untimed` counts the cards that opened, as the door says, in the same moment as a face: whose rise the
    relay's was cannot be told, and so it is no time of a card. `starved` counts the times at which this
    machine let the *simulated* reader stand still, and the card had to be held up again.
    """

    condition: Condition
    cards: int = 0
    missed: int = 0
    untimed: int = 0
    starved: int = 0
    median: float | None = None
    p99: float | None = None
    worst: float | None = None
    unexplained: int = 0
    unspent: int = 0
    """Causes that explained no rise, such as a right face that was not recognised in time."""
    left_open: int = 0
    presses: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    """How often the camera was opened and closed, as lens wrote; a kill may have kept it from writing so."""
    reader_lost: int = 0
    """How often door found the reader away, which explains a card that took about a second."""
    embedded: int = 0
    """In how many of these looks a face was embedded."""
    disturbances: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every card opened, and nothing else did that should not."""
        return not (self.missed or self.unexplained or self.left_open or self.vague)

    @property
    def vague(self) -> bool:
        """Whether so many cards were starved or not timed that the row proves little."""
        return self.starved + self.untimed > max(2, FEW * self.cards)


def measure(house: House, condition: Condition, cards: int, seed: int, tell: Callable[[str], None]) -> Row:
    """Hold up `cards` cards under one condition, at a house with one person enrolled."""
    rng = random.Random(f"{seed} {condition}")
    began = time.monotonic()
    looks, losses = len(_looks(house)), _losses(house)
    stop = threading.Event()
    crowd = Crowd(house, random.Random(rng.random()), stop)
    trouble = Trouble(house, condition, random.Random(rng.random()), stop)
    threads = []
    if condition != "idle":
        threads.append(threading.Thread(target=crowd.run, name="crowd"))
    if condition in {"hangs", "crashes"}:
        threads.append(threading.Thread(target=trouble.run, name="trouble"))
    for thread in threads:
        thread.start()
    row = Row(condition)
    holder = Cards(house, row, tell)
    entered = holder.entries()
    try:
        for number in range(cards):
            time.sleep(rng.uniform(0, PHASE[condition]))
            holder.hold_up()
            if (number + 1) % 100 == 0:
                tell(f"{condition}: {number + 1} cards, {row.missed} missed")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    house.door.wait_ready()
    house.wait_locked()
    times = sorted(holder.times)
    if times:
        row.median, row.p99, row.worst = (
            round(1000 * value, 1)
            for value in (median(times), times[math.ceil(0.99 * len(times)) - 1], times[-1])
        )
    causes = holder.causes + crowd.causes
    opened = stretches(house.door.board.history(house.relay, since=began))
    row.unexplained = len(unexplained(opened, causes))
    row.unexplained += too_many(holder.entries() - entered, opened, causes)
    row.unspent = len(unspent(opened, causes))
    row.left_open = len(too_long(opened, causes, UNLOCK_TIME))
    embedded = _looks(house)[looks:]
    row.looks, row.embedded = len(embedded), sum(count > 0 for count in embedded)
    row.reader_lost = _losses(house) - losses
    row.presses, row.disturbances = dict(crowd.made), dict(trouble.made)
    return row


def _looks(house: House) -> list[int]:
    """How many faces lens embedded in each look, as its journal says."""
    closed = [line for line in _journal(house, "lens") if line["event"] == Event.CAMERA_CLOSED]
    return [line["details"]["embeddings"] for line in closed]


def _losses(house: House) -> int:
    """How often door has lost its reader so far, as its journal says."""
    return sum(line["event"] == Event.READER_DOWN for line in _journal(house, "door"))


def _journal(house: House, zone: Zone) -> list[dict[str, Any]]:
    path = house.door.settings.zone_state(zone) / "journal.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Cards:
    """Holds up the one valid card, and times it."""

    def __init__(self, house: House, row: Row, tell: Callable[[str], None]) -> None:
        self._house = house
        self._row = row
        self._tell = tell
        self._relay = house.relay
        self._door = house.door.settings.socket("door/admin")
        self.times: list[float] = []
        self.causes: list[Cause] = []

    def entries(self) -> int:
        """How often door has opened so far, as it says."""
        state = self._ask()
        return state.badge_entries + state.face_entries

    def hold_up(self) -> None:
        """One card, from a locked door to a locked door again; timed from the first time it was held up."""
        self._row.cards += 1
        first: float | None = None
        for _ in range(AGAIN):
            opened, at = self._once(first)
            first = at if first is None else first
            if opened or not self._house.door.reader.stalled(at + STALLED[0], at + STALLED[1]):
                break
            self._row.starved += 1
        if not opened:
            self._row.missed += 1
            self._tell_of(at)

    def _tell_of(self, at: float) -> None:
        """What door wrote about the time of a missed card; its journal holds no number and no name."""
        offset = time.time() - time.monotonic()
        for line in _journal(self._house, "door"):
            written = dt.datetime.fromisoformat(line["time"]).timestamp() - offset - at
            if -3 <= written <= MISSED + 2:
                self._tell(f"  {written:+.1f} s {line['event']} {line.get('details', '')}")
        for stretch in stretches(self._house.door.board.history(self._relay, since=at - 3)):
            self._tell(f"  the relay from {stretch.up - at:+.3f} to {stretch.down - at:+.3f} s")

    def _once(self, first: float | None) -> tuple[bool, float]:
        """Hold the card up once; whether it opened, and when it was held up."""
        board = self._house.door.board
        eventually(lambda: not board.state(self._relay))
        before = self._ask()
        at = self._house.badge()
        self.causes.append(Cause("card", at, at + CARD_LASTS))
        try:
            up: float | None = board.wait_for(self._relay, 1, MISSED, since=at).at
        except BoardError:
            up = None  # missed, or a face had just opened: the relay's history tells below
        eventually(lambda: not board.state(self._relay))
        after = self._ask()
        if after.badge_entries != before.badge_entries + 1:
            return False, at
        # A face may have been counted just before `before`, and its relay have risen just after it.
        opened = stretches(board.history(self._relay))
        if up is None and not any(stretch.up <= at <= stretch.down for stretch in opened):
            return False, at  # door counted an entry, and its relay did not move
        if up is None or after.face_entries != before.face_entries:
            self._row.untimed += 1
        else:
            self.times.append(up - (at if first is None else first))
        return True, at

    def _ask(self) -> DoorState:
        with connect(self._door, {os.geteuid()}, Deadline(5)) as connection:
            send_message(connection, AskDoor(), Deadline(5))
            answer = read_message(connection, DOOR_TO_ADMIN, Deadline(5))
        assert isinstance(answer, DoorState)
        return answer


class Crowd:
    """Presses the button again and again, and shows tokens and faces of every kind."""

    def __init__(self, house: House, rng: random.Random, stop: threading.Event) -> None:
        self._house = house
        self._rng = rng
        self._stop = stop
        self.made: Counter[str] = Counter()
        self.causes: list[Cause] = []

    def run(self) -> None:
        """Until it is to stop."""
        door = self._house.door.settings.door
        board = self._house.door.board
        while not self._stop.is_set():
            (kind,) = self._rng.choices(list(PRESSES), list(PRESSES.values()))
            self._show(kind)
            while board.state(door.relay_pin) or board.state(door.lamp_busy_pin):
                if self._stop.wait(0.01):
                    return
            at = self._house.press()
            self.made[kind] += 1
            self._stop.wait(0.05)
            if kind == "match":
                self.causes.append(Cause("match", at, self._over(at)))

    def _over(self, at: float) -> float:
        """Until when a press may open: to the end of its attempt, and no longer than an attempt may take."""
        board, busy = self._house.door.board, self._house.door.settings.door.lamp_busy_pin
        # The lamp as it was, not as it is: an attempt may have begun and ended since the press.
        deadline = Deadline(ATTEMPT_LIMIT)
        begun = Deadline(1.0)
        while not deadline.passed:
            lit = stretches(board.history(busy, since=at))
            if lit and lit[0].down < at + ATTEMPT_LIMIT:
                return lit[0].down + OVER
            if not lit and begun.passed:
                break  # door took no press in: it was just opening for a card
            time.sleep(0.02)
        return min(time.monotonic(), at + ATTEMPT_LIMIT)

    def _show(self, kind: str) -> None:
        house = self._house
        right, wrong = house.portraits["obama2.jpg"], house.portraits["biden.jpg"]
        if kind == "no token":
            house.door.show([Shown(0.0, right)])
            return
        mine = Token.decode(house.token)
        token = {
            "unknown token": bytes(Token.create(self._rng.randbytes(16)).encode()),
            "wrong secret": bytes(Token.create(mine.handle).encode()),
        }.get(kind, house.token)
        face = {"wrong face": wrong, "nobody": None}.get(kind, right)
        code = house.door.state / "token.png"
        code.write_bytes(png(token))
        # The token for a moment only, so that cards come while a face is being found and embedded too.
        house.door.show([Shown(0.0, code, scale=0.6), Shown(0.15, face)])


class Trouble:
    """Stops or kills lens, vault and admin at random moments; each goes on or starts again."""

    def __init__(self, house: House, condition: Condition, rng: random.Random, stop: threading.Event) -> None:
        self._house = house
        self._hangs = condition == "hangs"
        self._rng = rng
        self._stop = stop
        self.made: Counter[str] = Counter()

    def run(self) -> None:
        """Until it is to stop; nothing stays stopped."""
        # After a crash recognition needs two seconds to be back, and then some time to be worth crashing.
        gap = (0.1, 1.2) if self._hangs else (0.2, 5.0)
        while not self._stop.wait(self._rng.uniform(*gap)):
            zone = self._rng.choice(DISTURBED)
            try:
                pid = self._house.door.pid(zone)
                if self._hangs:
                    self._hang(pid)
                else:
                    self._house.door.kill(zone)
            except (SimulationError, ProcessLookupError):
                continue  # it is just starting again
            self.made[zone] += 1

    def _hang(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            self._stop.wait(self._rng.uniform(0.3, 2.5))
        finally:
            os.kill(pid, signal.SIGCONT)


def plan(packs: Path) -> Plan:
    """The door at which it is measured."""
    return Plan(packs=packs, unlock_time=UNLOCK_TIME, attempt_time=ATTEMPT_TIME, answer_time=1.5)


def table(rows: list[Row]) -> str:
    """The rows to read."""
    lines = [f"{'recognition':<12}{'cards':>7}{'missed':>8}{'median':>9}{'99 %':>9}{'worst':>9}  (ms)"]
    for row in rows:
        figures = "".join(f"{value or '-':>9}" for value in (row.median, row.p99, row.worst))
        lines.append(f"{row.condition:<12}{row.cards:>7}{row.missed:>8}{figures}")
        about = []
        if row.presses:
            about = [f"{sum(row.presses.values())} presses", f"a face embedded in {row.embedded} looks"]
        about += [f"{zone} {count} times" for zone, count in sorted(row.disturbances.items())]
        about += [f"{row.untimed} together with a face, not timed"] if row.untimed else []
        about += [f"the reader was away {row.reader_lost} times"] if row.reader_lost else []
        about += [f"{row.starved} held up again: the simulated reader stood still"] if row.starved else []
        about += [f"{row.unspent} causes opened nothing"] if row.unspent else []
        about += ["TOO MANY OF THESE TO PROVE ANYTHING"] if row.vague else []
        about += [f"{row.unexplained} RISES WITHOUT A REASON"] if row.unexplained else []
        about += [f"{row.left_open} TIMES LEFT OPEN"] if row.left_open else []
        if about:
            lines.append(f"{'':<12}{', '.join(about)}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says; the exit status: 1 where a card was missed."""
    parser = argparse.ArgumentParser(
        prog="scripts/badge-under-load",
        description="Hold up cards at random moments while recognition is idle, runs, hangs (lens, vault and "
        "admin are stopped for up to 2.5 s) and crashes (they are killed, and start again), on a simulated "
        "door of real processes. Prints median, 99th percentile and worst time from card to relay for each.",
        epilog="About 12 minutes for a thousand cards while idle, and 17 in each of the other conditions. "
        "Exit status 1: a card was missed, the relay rose without a reason, or was left open; or more than "
        "1 % of the cards (and more than two) could not be timed or had to be held up again.",
    )
    parser.add_argument(
        "cards", type=int, nargs="?", default=1000, help="cards in each condition (%(default)s)"
    )
    parser.add_argument(
        "--condition", choices=CONDITIONS, action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="for the random moments (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(arguments)
    if options.cards < 1:
        parser.error("cards: at least 1")

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    packs = installed_edge()
    rows = []
    with open_house(packs, portraits(tell), plan(packs)) as house:
        house.enrol()
        for condition in options.condition or CONDITIONS:
            rows.append(measure(house, condition, options.cards, options.seed, tell))
            tell(table(rows[-1:]))
    ok = all(row.ok for row in rows)
    if options.json:
        print(json.dumps({"ok": ok, "seed": options.seed, "rows": [asdict(row) for row in rows]}))
    else:
        print(table(rows))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
