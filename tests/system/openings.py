"""What the relay did, and whether each of its rises has a reason: the judge of all long runs at a door."""

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.simulation.board import Change

MARGIN = 0.35
"""Seconds that a busy machine may add to an unlock time. Both ends of a stretch are timed by door's own
process, so that only the waking of its relay's thread is in it; and less than the shortest unlock time of a
long run, half a second, so that a second unlock inside a stretch shows unless it comes in its first part."""


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
    """The rises for which no cause is left: each cause explains one rise at most."""
    return _shared_out(opened, causes)[0]


def unspent(opened: Iterable[Stretch], causes: Iterable[Cause]) -> list[Cause]:
    """The causes that explained no rise, each of which would have let a wrong one pass in its time."""
    return _shared_out(opened, causes)[1]


def _shared_out(opened: Iterable[Stretch], causes: Iterable[Cause]) -> tuple[list[Stretch], list[Cause]]:
    """The rises without a cause, and the causes without a rise.

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
    return wrong, left


def too_long(opened: Iterable[Stretch], causes: Iterable[Cause], unlock_time: float) -> list[Stretch]:
    """The stretches that outlast all that may have kept the door open.

    One unlock time for the rise, and one more for each cause that explained no rise and fell into the
    stretch: it can have been spent on making it longer, and only on one.
    """
    opened = sorted(opened, key=lambda each: each.up)
    left = unspent(opened, causes)
    wrong = []
    for stretch in opened:
        allowed = unlock_time + MARGIN
        for cause in [each for each in left if _merges(each, stretch)]:
            if stretch.down - stretch.up <= allowed:
                break
            left.remove(cause)
            allowed += unlock_time
        if stretch.down - stretch.up > allowed:
            wrong.append(stretch)
    return wrong


def too_many(unlocks: int, opened: Iterable[Stretch], causes: Iterable[Cause]) -> int:
    """How many of door's own `unlocks` neither made a rise nor can be a cause that came while it was open.

    A wrong unlock while the door is open makes no rise: only door's own count tells of it. What is given is
    one life of door; `causes` may be those of the whole run.
    """
    opened = list(opened)
    merged = [
        cause for cause in unspent(opened, causes) if any(_merges(cause, stretch) for stretch in opened)
    ]
    return max(0, unlocks - len(opened) - len(merged))


def _merges(cause: Cause, stretch: Stretch) -> bool:
    return cause.at <= stretch.down and stretch.up <= cause.until
