"""Random histories of a door: what administrators do, as the registry and door's badge file see it."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st

from appliance.admin.accounts import Accounts, Role
from appliance.admin.registry.consent import Act, give_consent, withdraw_consent
from appliance.admin.registry.database import Registry
from appliance.admin.registry.holdings import (
    badge_removed,
    begin_badge,
    begin_template,
    complete_badge,
    complete_template,
    doom_abandoned,
    doom_badge,
    doom_badges,
    doom_templates,
    doomed_badges,
    doomed_templates,
    finish_making,
    lawful_templates,
    list_badges,
    template_erased,
)
from appliance.admin.registry.people import add_person, list_people, remove_person
from appliance.door.badges import Badges

ACTS = (
    "add person",
    "consent",
    "withdraw",
    "enrol",
    "half an enrolment",
    "erase template",
    "vault back",
    "add badge",
    "half a badge",
    "take badge",
    "door back",
    "erase person",
    "add account",
    "revoke account",
)
Steps = list[tuple[str, int]]
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 3)), max_size=12)
HAD: tuple[list[str], ...] = (
    [],
    ["consent"],
    ["consent", "enrol"],
    ["consent", "enrol", "add badge"],
    ["add badge"],
)
"""What a person had when a history begins."""


@st.composite
def beginnings(draw: st.DrawFn) -> Steps:
    """One to three people who have something, an account, and whatever happened then."""
    steps: Steps = [("add account", 0)]
    for number, had in enumerate(draw(st.lists(st.sampled_from(HAD), min_size=1, max_size=3))):
        steps += [(act, number) for act in ["add person", *had]]
    return steps + draw(STEPS)


@dataclass(frozen=True)
class Will:
    """What people and administrators decided so far, by ids: none of it may be undone."""

    erased: frozenset[str]
    withdrawn: frozenset[bytes]
    taken: frozenset[bytes]
    revoked: frozenset[str]


@dataclass
class Door:
    """Admin's registry and door's badges in a folder, and what vault would hold."""

    folder: Path
    vault: set[bytes] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    withdrawn: set[bytes] = field(default_factory=set)
    taken: set[bytes] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    _number: int = 0

    def __post_init__(self) -> None:
        (self.folder / "door").mkdir(parents=True, exist_ok=True)
        (self.folder / "admin").mkdir(exist_ok=True)
        self.open()

    def open(self) -> None:
        self.registry = Registry(self.folder / "admin" / "registry.db")
        self.badges = Badges(self.folder / "door")
        self.accounts = Accounts(self.registry)

    def close(self) -> None:
        self.registry.close()
        self.badges.close()

    @property
    def will(self) -> Will:
        return Will(
            frozenset(self.erased), frozenset(self.withdrawn), frozenset(self.taken), frozenset(self.revoked)
        )

    def live(self, steps: Steps) -> None:
        for act, which in steps:
            people = list_people(self.registry, 0, 100).items
            person = people[which % len(people)].id if people else None
            if act == "add person":
                add_person(self.registry, f"Person {self._next()}")
            elif act.endswith("account"):
                self._account(act, which)
            elif act == "vault back":
                doom_abandoned(self.registry)
                self._erase()
            elif act == "door back":
                doom_abandoned(self.registry)
                self._remove()
            elif person is not None:
                self._of_person(act, person, which)

    def _of_person(self, act: str, person: str, which: int) -> None:
        consent = self._current(person)
        if act == "consent" and consent is None:
            give_consent(self.registry, person, "2026-1", Act.SIGNED_PAPER)
        elif act == "withdraw" and consent is not None:
            withdraw_consent(self.registry, person)
            self.withdrawn.add(consent)
        elif act in {"enrol", "half an enrolment"} and consent is not None:
            handle = begin_template(self.registry, person, consent)
            self.vault.add(handle)
            if act == "enrol":
                assert complete_template(self.registry, handle)
                finish_making(self.registry, handle)
        elif act == "erase template":
            doom_templates(self.registry, person)
        elif act == "erase person":
            self._erase_person(person, consent)
        elif act.endswith("badge"):
            self._badge(act, person, which)

    def _badge(self, act: str, person: str, which: int) -> None:
        if act == "take badge":
            badges = [each for each in list_badges(self.registry, 0, 100).items if not each.removing]
            if badges:
                badge = badges[which % len(badges)]
                doom_badge(self.registry, badge.id)
                self.taken.add(badge.id)
            return
        badge, _ = begin_badge(self.registry, person, "")
        self.badges.add(badge.id, 64, self._next())
        if act == "add badge":
            complete_badge(self.registry, badge.id)
        finish_making(self.registry, badge.id)

    def _erase_person(self, person: str, consent: bytes | None) -> None:
        withdraw_consent(self.registry, person)
        if consent is not None:
            self.withdrawn.add(consent)
        doom_badges(self.registry, person)
        self.registry.in_the_making.clear()
        doom_abandoned(self.registry)
        self._erase()
        self._remove()
        remove_person(self.registry, person)
        self.erased.add(person)

    def _account(self, act: str, which: int) -> None:
        counting = [each for each in self.accounts.page(0, 100).items if each.ended_at is None]
        if act == "add account":
            self.accounts.add(f"desk {self._next()}", Role.ENROLLER, 9)
        elif counting:
            account = counting[which % len(counting)].id
            self.accounts.revoke(account)
            self.revoked.add(account)

    def _erase(self) -> None:
        for handle in doomed_templates(self.registry):
            self.vault.discard(handle)
            template_erased(self.registry, handle)

    def _remove(self) -> None:
        for badge in doomed_badges(self.registry):
            self.badges.remove(badge)
            badge_removed(self.registry, badge)

    def _current(self, person: str) -> bytes | None:
        with self.registry.transaction() as db:
            row = db.execute(
                "SELECT id FROM consent WHERE person = ? AND withdrawn_at IS NULL", (person,)
            ).fetchone()
        return row[0] if row else None

    def _next(self) -> int:
        self._number += 1
        return self._number

    def lawful(self) -> set[bytes]:
        return set(lawful_templates(self.registry, 0, 1000).items)

    def people(self) -> set[str]:
        return {each.id for each in list_people(self.registry, 0, 1000).items}

    def active_badges(self) -> set[bytes]:
        return {each.id for each in list_badges(self.registry, 0, 1000).items if not each.removing}

    def copy(self, into: Path) -> None:
        """The two databases as a backup has them."""
        into.mkdir()
        for path in (self.folder / "admin" / "registry.db", self.folder / "door" / "badges.db"):
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(into / path.name)) as copy:
                source.backup(copy)
        shutil.copy(self.folder / "door" / "badge.key", into)
