"""The ledger of a mixed day: what was asked, what was acknowledged, and so what must hold.

Pure book-keeping on times that the callers give; it looks at no process and no file. A *thing* is a person, a
consent, a badge or a template, under a name of its own that is never used again.
"""

import enum
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import Literal

Kind = Literal["person", "consent", "badge", "template"]


class Standing(enum.Enum):
    """What is known of a thing."""

    ABSENT = "absent"
    """Never made, or its erasure was acknowledged."""
    PRESENT = "present"
    """Its making was acknowledged."""
    EITHER = "either"
    """Something was asked and not answered: either outcome is allowed, and found out at the next look."""
    DOOMED = "doomed"
    """Its erasure was acknowledged as pending: it may be there for now, and must be gone when zones rest."""


@dataclass(frozen=True, slots=True)
class Thing:
    """What the ledger keeps an account of."""

    kind: Kind
    name: str


@dataclass
class Findings:
    """What was found wrong, in words; all empty after a good day."""

    lost: list[str] = field(default_factory=list)
    """Acknowledged, and not there."""
    revived: list[str] = field(default_factory=list)
    """Acknowledged as erased, and there."""


class Ledger:
    """All accounts; safe to use from several threads."""

    def __init__(self) -> None:
        self._accounts: dict[Thing, list[tuple[float, Standing]]] = {}
        self._lock = threading.Lock()
        self.acknowledged = 0

    def note(self, thing: Thing, standing: Standing, at: float) -> None:
        """From the monotonic time `at` on, this is what is known of a thing."""
        with self._lock:
            self._accounts.setdefault(thing, []).append((at, standing))

    def acknowledge(self, thing: Thing, standing: Standing, at: float) -> None:
        """The same, because it was acknowledged."""
        self.note(thing, standing, at)
        with self._lock:
            self.acknowledged += 1

    def standing(self, thing: Thing) -> Standing:
        """What is known now."""
        with self._lock:
            account = self._accounts.get(thing)
            return account[-1][1] if account else Standing.ABSENT

    def may(self, thing: Thing, since: float, until: float) -> bool:
        """Whether a thing may have been there at some moment between two times."""
        return any(standing is not Standing.ABSENT for standing in self._during(thing, since, until))

    def must(self, thing: Thing, since: float, until: float) -> bool:
        """Whether a thing must have been there all the time between two times."""
        return all(standing is Standing.PRESENT for standing in self._during(thing, since, until))

    def settle(self, kind: Kind, there: Collection[str], at: float) -> Findings:
        """Compare all accounts of a kind with the names that are there, all zones being at rest.

        What could have been either is found out, and stands as it was found.
        """
        findings = Findings()
        with self._lock:
            accounts = {thing: account for thing, account in self._accounts.items() if thing.kind == kind}
        for thing, account in accounts.items():
            known, found = account[-1][1], thing.name in there
            if known is Standing.PRESENT and not found:
                findings.lost.append(f"{kind} {thing.name} was acknowledged and is not there")
            elif known in {Standing.ABSENT, Standing.DOOMED} and found:
                findings.revived.append(f"{kind} {thing.name} was erased, acknowledged, and is there")
            self.note(thing, Standing.PRESENT if found else Standing.ABSENT, at)
        return findings

    def _during(self, thing: Thing, since: float, until: float) -> list[Standing]:
        """Every standing that a thing had at some moment between two times."""
        with self._lock:
            account = [(-inf, Standing.ABSENT), *self._accounts.get(thing, [])]
        ends = [at for at, _ in account[1:]] + [inf]
        return [
            standing
            for (begin, standing), end in zip(account, ends, strict=True)
            if begin <= until and end >= since
        ]
