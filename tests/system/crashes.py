"""A pair of zones, vault and admin, killed at random moments of what they write, and judged after each kill.

A ledger knows what was acknowledged. Used by `crash_test`.
"""

import base64
import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.api_client import ApiError
from appliance.errors import ConfigurationError, DrempelError
from appliance.journal import verify
from appliance.link.messages import AskCheck, Checked
from appliance.link.sockets import Deadline, LinkError
from tests.system.bare_zones import Bare, BareZones, DoesNotStart, before_the_lens
from tests.system.crash_outcome import Outcome
from tests.system.day.ledger import Ledger, Standing, Thing
from tests.vault.faces import seen

PEOPLE = 4
TRIES = 2
"""Presses in which the right face must open once: a busy machine may be late for one."""
BETWEEN_RESTS = 10
"""Kills between two times at which admin's upkeep is waited for, and an erased token is shown."""
UNHARMED = 2
"""Acts, at most, that come to their end between two kills, so that there is something to lose."""
RESTING_TIME = 30.0
WINDOW = 10
"""Seconds that an enrolment window is open."""
TARGETS: tuple[tuple[tuple[Bare, ...], int], ...] = (
    (("vault",), 5),
    (("admin",), 3),
    (("vault", "admin"), 2),
)
"""Who is killed at once, and how often that is."""
ROTATE = "/vault/rotation"

Tell = Callable[[str], None]


@dataclass
class Handed:
    """A token that was handed out; `thing` is its template."""

    thing: Thing
    token: bytes
    face: int

    @property
    def handle(self) -> bytes:
        """Of its record."""
        return bytes.fromhex(self.thing.name)


@dataclass
class Person:
    """Someone who is enrolled, renewed and erased, again and again."""

    id: str
    face: int
    tokens: list[Handed] = field(default_factory=list)


class Crashes:
    """One pair of zones that is killed, and the ledger of what it has acknowledged."""

    def __init__(self, zones: BareZones, seed: int, tell: Tell) -> None:
        """With everyone's consent on record, and nobody enrolled."""
        self.zones = zones
        self.ledger = Ledger()
        self.outcome = Outcome(seed)
        self._rng = random.Random(seed)
        self._tell = tell
        self._frame = 0
        self._took: dict[str, float] = {}
        self._act = ""
        self._epoch = 0
        self.people = [self._person(number) for number in range(PEOPLE)]

    @property
    def tokens(self) -> list[Handed]:
        """Every token that was ever handed out."""
        return [token for person in self.people for token in person.tokens]

    def run(self, kills: int) -> Outcome:
        """Kill so often, judge after each, and give what came of it."""
        outcome = self.outcome
        try:
            while outcome.kills < kills:
                self._strike()
                rest = outcome.kills % BETWEEN_RESTS == 0 or outcome.kills == kills
                self.look(rest=rest)
                if outcome.kills % 25 == 0 or outcome.kills == kills:
                    self._tell(
                        f"seed {outcome.seed}: {outcome.kills} of {kills} kills, "
                        f"{self.ledger.acknowledged} acknowledged, {len(outcome.wrong)} wrong"
                    )
            self._judge_files()
        except DoesNotStart as error:
            # Whatever it holds, nobody can open it any more.
            outcome.unreadable += [f"{t.thing.name}: {error}" for t in self._standing(Standing.PRESENT)]
            outcome.other.append(str(error))
        outcome.acknowledged = self.ledger.acknowledged
        return outcome

    # What is done, and killed in the middle.

    def _strike(self) -> None:
        """Some acts, one with a kill at a random moment of it, and the restart."""
        for _ in range(self._rng.randrange(UNHARMED + 1)):
            self.do(*self._choose())
        targets = self._rng.choices([t for t, _ in TARGETS], [weight for _, weight in TARGETS])[0]
        name, act = self._choose()
        moment = self._rng.uniform(0.0, 1.2 * self._took.get(name, 0.1))

        def kill() -> None:
            time.sleep(moment)
            self.outcome.hit[f"{self._act or 'between'}/{' and '.join(targets)}"] += 1
            for zone in targets:
                self.zones.kill(zone)
            self.outcome.kills += 1

        fate = threading.Thread(target=kill)
        fate.start()
        try:
            self.do(name, act)
        finally:
            fate.join()
        self.zones.start(*targets)

    def do(self, name: str, act: Callable[[], bool]) -> None:
        """An act by name, timed where it is completed."""
        self.outcome.begun[name] += 1
        began, self._act = time.monotonic(), name
        completed = act()
        self._act = ""
        self.outcome.done[name] += completed
        if completed:
            took = time.monotonic() - began
            self._took[name] = 0.8 * self._took.get(name, took) + 0.2 * took

    def _choose(self) -> tuple[str, Callable[[], bool]]:
        """What is next: most are enrolled at any time, so that much can be lost."""
        person = self._rng.choice(self.people)
        acts: list[tuple[int, str, Callable[[], bool]]]
        if any(self._may_live(token) for token in person.tokens):
            acts = [(3, "renew", lambda: self.enrol(person)), (3, "erase", lambda: self.erase(person))]
        else:
            acts = [(6, "enrol", lambda: self.enrol(person))]
        acts.append((2, "rotate", self.rotate))
        (_, name, act) = self._rng.choices(acts, [weight for weight, _, _ in acts])[0]
        return name, act

    def enrol(self, person: Person) -> bool:
        """Enrol a person; a template that they have is erased by it, at a moment that only admin knows."""
        earlier = [(t.thing, self.ledger.standing(t.thing)) for t in person.tokens if self._may_live(t)]
        self._note([thing for thing, _ in earlier], Standing.EITHER)
        answer, said = self._ask("POST", "/enrolments", {"person": person.id, "seconds": WINDOW})
        if said == "no":
            for thing, standing in earlier:
                self._note([thing], standing)
        if said != "yes":
            return False
        window = f"/enrolments/{answer['id']}"
        try:
            self.zones.wait_window(2.0)
            self.zones.press(before_the_lens(b"", *(self._seen(person.face) for _ in range(8))))
        except LinkError:
            pass  # vault is dead: what came of the window, admin says
        state = self._outcome_of(window)
        if state != "done":
            return False
        answer, said = self._ask("POST", f"{window}/token")
        if said != "yes":
            return False
        self._note([thing for thing, _ in earlier], Standing.DOOMED)
        self._take(person, answer["token"])
        return True

    def erase(self, person: Person) -> bool:
        """Erase a person's template."""
        things = [token.thing for token in person.tokens if self._may_live(token)]
        former = [(thing, self.ledger.standing(thing)) for thing in things]
        self._note(things, Standing.EITHER)
        answer, said = self._ask("DELETE", f"/people/{person.id}/template")
        if said == "no":
            for thing, standing in former:
                self._note([thing], standing)
        if said != "yes":
            return False
        for thing in things:
            at_once = answer["state"] == "erased"
            self.ledger.acknowledge(thing, Standing.ABSENT if at_once else Standing.DOOMED, time.monotonic())
        return True

    def rotate(self) -> bool:
        """Begin a new epoch, in which everything is as it was."""
        _, said = self._ask("POST", ROTATE)
        if said == "yes":
            self.ledger.acknowledge(Thing("template", "rotation"), Standing.ABSENT, time.monotonic())
        return said == "yes"

    def _outcome_of(self, window: str) -> str:
        """How an enrolment ended; one that nobody was captured for is closed."""
        deadline = Deadline(3.0)
        while True:
            answer, said = self._ask("GET", window)
            if said != "yes":
                return "unknown"
            if answer["state"] != "open":
                return str(answer["state"])
            if deadline.passed:
                _, said = self._ask("DELETE", window)
                return "unknown"
            time.sleep(0.01)

    def _take(self, person: Person, token: str) -> None:
        code = base64.b64decode(token)
        handed = Handed(Thing("template", code[1:17].hex()), code, person.face)
        self.ledger.acknowledge(handed.thing, Standing.PRESENT, time.monotonic())
        person.tokens.append(handed)

    # What is seen after a restart.

    def look(self, *, rest: bool) -> None:
        """Compare what vault holds with the ledger; with `rest`, after admin's upkeep has done its work."""
        outcome = self.outcome
        if rest:
            self._rest()
        there = self._held()
        for token in self._standing(Standing.PRESENT):
            if token.thing.name not in there:
                outcome.lost.append(f"template {token.thing.name} was acknowledged and is not there")
                self._note([token.thing], Standing.ABSENT)
            elif not self._opens(token):
                outcome.unreadable.append(f"template {token.thing.name} is there and does not open")
        for token in self._standing(Standing.ABSENT):
            if token.thing.name in there:
                outcome.revived.append(f"template {token.thing.name} was erased, acknowledged, and is there")
                self._note([token.thing], Standing.EITHER)
        if rest:
            findings = self.ledger.settle("template", there, time.monotonic())
            outcome.lost += findings.lost
            outcome.revived += findings.revived
            self._show_erased()
        self._check()

    def _opens(self, token: Handed) -> bool:
        """Whether a token and its face open the door; its lease is given here, as admin would in a second."""
        for _ in range(TRIES):
            with contextlib.suppress(LinkError):
                if self.zones.vouch(token.handle) and self.zones.attempt(
                    token.token, *(self._seen(token.face) for _ in range(3))
                ):
                    return True
        return False

    def _show_erased(self) -> None:
        erased = self._standing(Standing.ABSENT)
        for token in self._rng.sample(erased, min(1, len(erased))):
            self.zones.vouch(token.handle)
            if self.zones.attempt(token.token, *(self._seen(token.face) for _ in range(3))):
                self.outcome.revived.append(
                    f"template {token.thing.name} was erased, acknowledged, and opens"
                )

    def _check(self) -> None:
        """What vault says of its own records; and what SQLite says of the files."""
        answer = self.zones.command(AskCheck(), 30.0)
        if isinstance(answer, Checked):
            self.outcome.unreadable += ["a record does not authenticate"] * answer.unreadable
            if not answer.sound:
                self.outcome.other.append("vault says that its database is damaged")
            if answer.epoch < self._epoch:
                self.outcome.other.append(f"the epoch went back from {self._epoch} to {answer.epoch}")
            self._epoch = answer.epoch
        for zone, name in (("vault", "vault.db"), ("admin", "registry.db")):
            with contextlib.closing(self._open(zone, name)) as db:
                (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                self.outcome.other.append(f"{name}: {verdict}")

    def _rest(self) -> None:
        deadline = Deadline(RESTING_TIME)
        while True:
            with contextlib.closing(self._open("admin", "registry.db")) as db:
                (open_rows,) = db.execute(
                    "SELECT count(*) FROM template WHERE state <> 'enrolled'"
                ).fetchone()
            if not open_rows:
                return
            if deadline.passed:
                self.outcome.other.append(f"admin does not come to rest: {open_rows} rows unfinished")
                return
            time.sleep(0.05)

    def _held(self) -> set[str]:
        with contextlib.closing(self._open("vault", "vault.db")) as db:
            return {handle.hex() for (handle,) in db.execute("SELECT handle FROM record")}

    def _open(self, zone: str, name: str) -> sqlite3.Connection:
        path = self.zones.state / zone / name
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)

    def _judge_files(self) -> None:
        for zone in self.zones.zones:
            try:
                verify(self.zones.settings.zone_state(zone) / "journal.jsonl")
            except DrempelError as error:
                self.outcome.other.append(f"the journal of {zone}: {error}")

    # Small things.

    def _person(self, number: int) -> Person:
        person = self.zones.api.call("POST", "/people", {"name": f"Person {number}"})["id"]
        consent = {"notice_version": "1", "act": "signed-paper"}
        self.zones.api.call("POST", f"/people/{person}/consents", consent)
        return Person(person, number + 1)

    def _seen(self, face: int) -> bytes:
        self._frame += 1
        return seen(face, self._frame)

    def _ask(self, method: str, route: str, body: dict[str, Any] | None = None) -> tuple[Any, str]:
        """The API's answer; and whether it is yes, no, or unknown, where none came."""
        try:
            return self.zones.api.call(method, route, body), "yes"
        except ConfigurationError:
            return None, "no"
        except ApiError as error:
            # Nobody answered, or the answer broke off: what was asked may have been done.
            return None, "unknown" if error.__cause__ is not None else "no"

    def _note(self, things: Sequence[Thing], standing: Standing) -> None:
        for thing in things:
            self.ledger.note(thing, standing, time.monotonic())

    def _may_live(self, token: Handed) -> bool:
        return self.ledger.standing(token.thing) is not Standing.ABSENT

    def _standing(self, standing: Standing) -> list[Handed]:
        return [token for token in self.tokens if self.ledger.standing(token.thing) is standing]
