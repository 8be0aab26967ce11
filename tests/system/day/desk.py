"""What an administrator does in a mixed day, and the people who come to be enrolled and who press the button.

Each act asks, reads the answer, and writes down in the ledger what may be concluded from it. Nothing is
concluded from an answer that did not come.
"""

import base64
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from appliance.vault.token import Token
from tests.system.day.ledger import Ledger, Standing, Thing
from tests.system.day.world import ATTEMPT_LIMIT, Answer, Face, World
from tests.system.openings import Cause

MOST_PEOPLE = 6
MOST_BADGES = 2
BADGE_BITS = 26
WINDOW = 20
"""Seconds that an enrolment window is open."""
PATIENT = 0.8
"""Share of the enrolments that are not begun while a zone is dead."""
PRESSES = 3
"""How often a person presses in one enrolment, at most."""


@dataclass
class Badge:
    """A badge of a person; its label is its name in the ledger."""

    thing: Thing
    number: int
    id: str = ""


@dataclass
class Handed:
    """A token that was handed out, and whose face it belongs to; `thing` is its template."""

    thing: Thing
    token: bytes
    face: Face


@dataclass
class Person:
    """Someone whom the administrator knows, or may know."""

    name: str
    face: Face
    id: str = ""
    badges: list[Badge] = field(default_factory=list)
    tokens: list[Handed] = field(default_factory=list)

    @property
    def thing(self) -> Thing:
        return Thing("person", self.name)

    @property
    def consent(self) -> Thing:
        return Thing("consent", self.name)


class Desk:
    """The administrator's desk, and the button: one act at a time."""

    def __init__(self, world: World, ledger: Ledger, rng: random.Random, name: str) -> None:
        """A desk before its first act; `name` is in the name of everyone who is added."""
        self._world = world
        self._ledger = ledger
        self._rng = rng
        self._name = name
        self._number = 0
        self.people: list[Person] = []
        self.gone: list[Person] = []
        """Those who are not there any more, or never were: nothing may be written of them."""
        self.badges: list[Badge] = []
        self.tokens: list[Handed] = []
        self.causes: list[Cause] = []
        self.unproven: list[Handed] = []
        """Tokens that have not opened the door yet."""
        self.act = "nothing"
        """What is being done at this moment, for whoever kills."""
        self.begins = threading.Event()
        """Set at the beginning of each act."""
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()

    # Which act is next.

    def step(self) -> None:
        """One act that is possible now, by chance."""
        self._look()
        known = [person for person in self.people if person.id]
        consenting = [person for person in known if self._is(person.consent, Standing.PRESENT)]
        enrolled = [person for person in known if any(self._lives(token) for token in person.tokens)]
        acts: list[tuple[int, str, Callable[[], bool]]] = []

        def offer(weight: int, name: str, act: Callable[[Person], bool], among: list[Person]) -> None:
            if among:
                person = self._rng.choice(among)
                acts.append((weight, name, lambda: act(person)))

        if len(self.people) < MOST_PEOPLE:
            acts.append((8, "add person", self._add_person))
        offer(10, "give consent", self._give_consent, [p for p in known if p not in consenting])
        offer(10, "add badge", self._add_badge, [p for p in known if len(self._active(p)) < MOST_BADGES])
        offer(5, "remove badge", self._remove_badge, [p for p in known if self._active(p)])
        offer(9, "enrol again", self._enrol, [p for p in consenting if p in enrolled])
        offer(30, "enrol", self._enrol, [p for p in consenting if p not in enrolled])
        offer(3, "erase template", self._erase_template, enrolled)
        offer(3, "withdraw consent", self._withdraw, consenting)
        offer(2, "erase person", self._remove_person, known if len(known) > 2 else [])
        tokens = [token for token in self.tokens if self._lives(token)]
        erased = [token for token in self.tokens if self._is(token.thing, Standing.ABSENT)]
        if tokens:
            token = self._rng.choice(tokens)
            other: Face = "biden" if token.face == "obama" else "obama"
            acts.append((10, "press, right face", lambda: self.press_with(token, token.face)))
            acts.append((6, "press, wrong face", lambda: self.press_with(token, other)))
        if erased:
            gone = self._rng.choice(erased)
            acts.append((6, "press, erased token", lambda: self.press_with(gone, gone.face)))
        acts.append((2, "press, no token", self._press_without))
        acts.append((2, "press, unknown token", self._press_unknown))
        (_, name, act) = self._rng.choices(acts, [weight for weight, _, _ in acts])[0]
        self.do(name, act)

    def do(self, name: str, act: Callable[[], bool]) -> bool:
        """An act by name; whether it was completed."""
        self.act = name
        self.begun[name] += 1
        self.begins.set()
        self._world.trace(f"begins: {name}")
        completed = act()
        self._world.trace(f"{'did' if completed else 'did NOT'}: {name}")
        self.done[name] += completed
        self.act = "nothing"
        return completed

    # At the desk.

    def _add_person(self) -> bool:
        self._number += 1
        face: Face = self._rng.choice(("obama", "biden"))
        person = Person(f"{self._name}-{self._number:04d}", face)
        self.people.append(person)
        answer = self._change("POST", "/people", {"name": person.name}, {person.thing: Standing.PRESENT})
        if answer.acknowledged:
            person.id = answer.value["id"]
        return answer.acknowledged

    def _give_consent(self, person: Person) -> bool:
        act = self._rng.choice(("signed-paper", "signed-screen"))
        return self._change(
            "POST",
            f"/people/{person.id}/consents",
            {"notice_version": "2026-1", "act": act},
            {person.consent: Standing.PRESENT},
        ).acknowledged

    def _add_badge(self, person: Person) -> bool:
        number = self._rng.getrandbits(BADGE_BITS)
        badge = self._issue(person, number)
        # As an administrator would: the same card again, until it is in.
        for _ in range(3):
            if badge.id or self._is(person.thing, Standing.ABSENT):
                break
            time.sleep(0.3)
            badge = self._issue(person, number)
        return bool(badge.id)

    def _issue(self, person: Person, number: int) -> Badge:
        self._number += 1
        label = f"{self._name}-badge-{self._number:04d}"
        badge = Badge(Thing("badge", label), number)
        person.badges.append(badge)
        self.badges.append(badge)
        body = {"person": person.id, "bits": BADGE_BITS, "number": f"{number:x}", "label": label}
        answer = self._change("POST", "/badges", body, {badge.thing: Standing.PRESENT})
        if answer.acknowledged:
            badge.id = answer.value["id"]
        return badge

    def _remove_badge(self, person: Person) -> bool:
        badge = self._rng.choice(self._active(person))
        answer = self._ask_for_end("DELETE", f"/badges/{badge.id}", [badge.thing])
        return self._ended(answer, "removed", [badge.thing])

    def _erase_template(self, person: Person) -> bool:
        things = [token.thing for token in person.tokens if self._lives(token)]
        answer = self._ask_for_end("DELETE", f"/people/{person.id}/template", things)
        return self._ended(answer, "erased", things)

    def _withdraw(self, person: Person) -> bool:
        things = [token.thing for token in person.tokens if self._lives(token)]
        answer = self._ask_for_end("DELETE", f"/people/{person.id}/consents", [person.consent, *things])
        if answer.acknowledged:
            # Withdrawn at once and for good, even where the erasure is pending.
            self._ledger.note(person.consent, Standing.ABSENT, time.monotonic())
        return self._ended(answer, "erased", things)

    def _remove_person(self, person: Person) -> bool:
        things = [person.thing, person.consent]
        things += [token.thing for token in person.tokens if not self._is(token.thing, Standing.ABSENT)]
        things += [badge.thing for badge in person.badges if not self._is(badge.thing, Standing.ABSENT)]
        answer = self._ask_for_end("DELETE", f"/people/{person.id}", things)
        if not answer.acknowledged:
            return False
        for thing in things:
            self._ledger.acknowledge(thing, Standing.ABSENT, time.monotonic())
        self.people.remove(person)
        self.gone.append(person)
        return True

    # At the door.

    def _enrol(self, person: Person) -> bool:
        if self._rng.random() < PATIENT:
            # Who sees that the door is out of order waits a little, or hardly anyone would be enrolled.
            self._world.wait_alive(("door", "lens", "vault"))
        earlier = [(t.thing, self._standing(t)) for t in person.tokens if self._lives(t)]
        for thing, _ in earlier:
            # A new template takes the place of the earlier one, at a moment that only admin knows.
            self._ledger.note(thing, Standing.EITHER, time.monotonic())
        answer = self._world.ask("POST", "/enrolments", {"person": person.id, "seconds": WINDOW})
        if answer.refused is not None:
            self._write_back(earlier)
        if not answer.acknowledged:
            return False
        window = f"/enrolments/{answer.value['id']}"
        self._world.show_enrolment(person.face)
        state = self._captured(window)
        if state == "open":
            self._cancel(window, earlier)
        if state == "failed":
            self._write_back(earlier)
        if state != "done":
            return False
        answer = self._world.ask("POST", f"{window}/token")
        if not answer.acknowledged:
            return False
        for thing, _ in earlier:
            self._ledger.note(thing, Standing.DOOMED, time.monotonic())
        self._take(person, base64.b64decode(answer.value["token"]))
        return True

    def _cancel(self, window: str, earlier: list[tuple[Thing, Standing]]) -> None:
        """Close a window that nobody came to; what was there before stays, unless the capture was quicker."""
        if not self._world.ask("DELETE", window).acknowledged:
            return
        for _ in range(20):
            answer = self._world.ask("GET", window)
            if not answer.acknowledged or answer.value["state"] == "done":
                return
            if answer.value["state"] == "failed":
                self._write_back(earlier)
                return
            time.sleep(0.1)

    def _write_back(self, former: list[tuple[Thing, Standing]]) -> None:
        """What was asked was not done: what was known before holds again."""
        for thing, standing in former:
            self._ledger.note(thing, standing, time.monotonic())

    def _captured(self, window: str) -> str:
        """Press until an enrolment is over, or patience is: its state."""
        state = "open"
        for _ in range(PRESSES):
            if self._world.press() is None:
                time.sleep(0.3)
                continue
            state = self._follow(window)
            if state != "open":
                break
        return state

    def _take(self, person: Person, code: bytes) -> None:
        """A token was handed out: from now on its template must be there."""
        token = Handed(Thing("template", Token.decode(code).handle.hex()), code, person.face)
        self._ledger.acknowledge(token.thing, Standing.PRESENT, time.monotonic())
        person.tokens.append(token)
        self.tokens.append(token)
        self.unproven.append(token)

    def _follow(self, window: str) -> str:
        """The state of an enrolment when the press that runs is over: open, done, failed, or unknown."""
        until = time.monotonic() + ATTEMPT_LIMIT
        self._world.wait_attempt_begun()
        while True:
            over = not self._world.attempt_runs()
            if over:
                time.sleep(0.3)  # what the last capture brought about takes a moment to be known
            answer = self._world.ask("GET", window)
            if not answer.acknowledged:
                return "unknown"
            if answer.value["state"] != "open" or over or time.monotonic() > until:
                return str(answer.value["state"])
            time.sleep(0.1)

    def press_with(self, token: Handed, face: Face) -> bool:
        """Press with a token and a face; whether there was an attempt."""
        self._world.show(face, token.token)
        return self._press(token if face == token.face else None)

    def _press_without(self) -> bool:
        self._world.show(self._rng.choice(("obama", "biden")), None)
        return self._press(None)

    def _press_unknown(self) -> bool:
        token = bytes(Token.create(self._rng.randbytes(16)).encode())
        self._world.show(self._rng.choice(("obama", "biden")), token)
        return self._press(None)

    def _press(self, token: Handed | None) -> bool:
        """Press, and wait for what comes of it; it may open only with a `token` that may open."""
        self._world.wait_attempt_over()
        at = self._world.press()
        if at is None:
            return False
        if self.causes:
            self.causes[-1] = replace(self.causes[-1], until=min(self.causes[-1].until, at))
        self._world.wait_attempt_begun()
        self._world.wait_attempt_over()
        # Its attempt is over, and nothing that comes later can be its doing; one that nobody saw begin may
        # still come on a busy machine, until the next press.
        until = at + ATTEMPT_LIMIT
        if self._world.attempt_began(at):
            until = min(time.monotonic() + 0.2, until)
        if token is not None and self._ledger.may(token.thing, at, until):
            self.causes.append(Cause(f"press with {token.thing.name}", at, until))
        return True

    # Book-keeping.

    def _look(self) -> None:
        """Find out from admin what came of what it did not answer, as far as it can be known by now."""
        ledger = self._ledger
        unclear = any(
            self._is(p.thing, Standing.EITHER) or self._is(p.consent, Standing.EITHER) for p in self.people
        )
        unclear = unclear or any(self._is(badge.thing, Standing.EITHER) for badge in self.badges)
        if not unclear:
            return
        listed, badges = self._world.listed("/people"), self._world.listed("/badges")
        if listed is None or badges is None:
            time.sleep(0.2)
            return
        now = time.monotonic()
        found = {entry["name"]: entry for entry in listed}
        # One that is being removed may be listed as that.
        active = [e for e in badges if e.get("state", "active") == "active"]
        labels = {entry["label"]: entry["id"] for entry in active}
        for person in list(self.people):
            entry = found.get(person.name)
            if entry is not None:
                person.id = entry["id"]
            if self._is(person.thing, Standing.EITHER):
                ledger.note(person.thing, Standing.PRESENT if entry else Standing.ABSENT, now)
            if self._is(person.consent, Standing.EITHER):
                given = entry is not None and entry["consent"]
                ledger.note(person.consent, Standing.PRESENT if given else Standing.ABSENT, now)
            if entry is None and self._is(person.thing, Standing.ABSENT):
                self.people.remove(person)
                self.gone.append(person)
        for badge in self.badges:
            if self._is(badge.thing, Standing.EITHER):
                badge.id = labels.get(badge.thing.name, "")
                # One that is not active any more, or not yet, is or will be removed by the upkeep.
                ledger.note(badge.thing, Standing.PRESENT if badge.id else Standing.DOOMED, now)

    def _change(
        self, method: str, route: str, body: dict[str, object], things: dict[Thing, Standing]
    ) -> Answer:
        """Ask for something to be made."""
        for thing in things:
            self._ledger.note(thing, Standing.EITHER, time.monotonic())
        answer = self._world.ask(method, route, body)
        if answer.acknowledged:
            for thing, standing in things.items():
                self._ledger.acknowledge(thing, standing, time.monotonic())
        return answer

    def _ask_for_end(self, method: str, route: str, things: list[Thing]) -> Answer:
        """Ask for something to be ended."""
        former = [(thing, self._ledger.standing(thing)) for thing in things]
        for thing in things:
            self._ledger.note(thing, Standing.EITHER, time.monotonic())
        answer = self._world.ask(method, route)
        if answer.refused is not None:
            # A person whose erasure is refused may have lost all else already: a zone was away for the rest.
            self._write_back(former[:1] if things[0].kind == "person" else former)
        return answer

    def _ended(self, answer: Answer, word: str, things: list[Thing]) -> bool:
        """Write down an acknowledged end: at once where its state is `word`, else pending."""
        if answer.acknowledged:
            at_once = answer.value["state"] == word
            for thing in things:
                standing = Standing.ABSENT if at_once else Standing.DOOMED
                self._ledger.acknowledge(thing, standing, time.monotonic())
        return answer.acknowledged

    def _is(self, thing: Thing, standing: Standing) -> bool:
        return self._ledger.standing(thing) is standing

    def _standing(self, token: Handed) -> Standing:
        return self._ledger.standing(token.thing)

    def _lives(self, token: Handed) -> bool:
        return self._standing(token) in {Standing.PRESENT, Standing.EITHER}

    def _active(self, person: Person) -> list[Badge]:
        return [b for b in person.badges if b.id and self._is(b.thing, Standing.PRESENT)]
