"""What comes of a run of kills: what was done, what was killed in the middle of it, and what was wrong."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

TOLD = ("lost", "revived", "unreadable", "other")
COUNTED = ("begun", "done", "hit")


@dataclass
class Outcome:
    """What came of a run, or of several side by side."""

    seed: int
    kills: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    """Acknowledged, and not there."""
    revived: list[str] = field(default_factory=list)
    """Acknowledged as erased, and there."""
    unreadable: list[str] = field(default_factory=list)
    """There, and does not open or authenticate."""
    other: list[str] = field(default_factory=list)
    begun: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)

    @property
    def wrong(self) -> list[str]:
        """Everything that was wrong."""
        return [*self.lost, *self.revived, *self.unreadable, *self.other]

    def add(self, other: "Outcome") -> None:
        """Take in what came of another run."""
        for name in TOLD:
            getattr(self, name).extend(getattr(other, name))
        for name in COUNTED:
            getattr(self, name).update(getattr(other, name))
        self.kills += other.kills
        self.acknowledged += other.acknowledged

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """The outcome whose fields `text` holds.

        Raises:
            ValueError: it is none.
        """
        said: dict[str, Any] = json.loads(text)
        outcome = cls(said["seed"], said["kills"], said["acknowledged"])
        for name in COUNTED:
            getattr(outcome, name).update(said[name])
        for name in TOLD:
            getattr(outcome, name).extend(said[name])
        return outcome

    def report(self) -> str:
        """What was done, what was killed in the middle of it, and the one line that counts."""
        lines = [f"{'act':<10}{'begun':>7}{'done':>7}   killed in the middle of it"]
        for act in sorted(self.begun):
            hits = sorted((name, count) for name, count in self.hit.items() if name.startswith(f"{act}/"))
            killed = ", ".join(f"{name.partition('/')[2]} {count}" for name, count in hits)
            lines.append(f"{act:<10}{self.begun[act]:>7}{self.done[act]:>7}   {killed}")
        lines += [f"WRONG: {text}" for text in self.wrong]
        lines.append(
            f"{self.kills} kills, {self.acknowledged} acknowledged, {len(self.lost)} lost, "
            f"{len(self.revived)} revived, {len(self.unreadable)} unreadable"
        )
        return "\n".join(lines)
