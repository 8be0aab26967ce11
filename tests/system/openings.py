"""What the relay did, and whether each of its rises has a reason: the judge of all long runs at a door."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.simulation.board import Change

MARGIN = 1.0
"""Seconds that a busy test machine may add to an unlock time."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An act that may open the door, once, between the monotonic times `at` and `until`."""

    what: str
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time for which the relay was high; `down` is infinite where it still is."""

    up: float
    down: float


def stretches(changes: Iterable[Change]) -> list[Stretch]:
    """When the line was high, in order."""
    found: list[Stretch] = []
    up: float | None = None
    for change in changes:
        if change.state and up is None:
            up = change.at
        elif not change.state and up is not None:
            found.append(Stretch(up, change.at))
            up = None
    if up is not None:
        found.append(Stretch(up, float("inf")))
    return found


def unexplained(opened: Iterable[Stretch], causes: Iterable[Cause]) -> list[Stretch]:
    """The rises for which no cause is left: each cause explains one rise at most.

    Of the causes that fit, the one that ends first is taken, which leaves the most for the rises to come.
    """
    left = sorted(causes, key=lambda cause: cause.until)
    wrong = []
    for stretch in sorted(opened, key=lambda each: each.up):
        for number, cause in enumerate(left):
            if cause.at <= stretch.up <= cause.until:
                del left[number]
                break
        else:
            wrong.append(stretch)
    return wrong


def too_long(opened: Iterable[Stretch], causes: Sequence[Cause], unlock_time: float) -> list[Stretch]:
    """The stretches that outlast all that may have kept the door open: one unlock time for each cause."""
    wrong = []
    for stretch in opened:
        acts = sum(cause.at <= stretch.down and stretch.up <= cause.until for cause in causes)
        if stretch.down - stretch.up > unlock_time * max(1, acts) + MARGIN:
            wrong.append(stretch)
    return wrong
