"""A slice of a long list: what the local API gives at a time, and where the next slice begins."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Slice(Generic[Item]):
    """Some items in the order in which they were added; `next` is what to ask `after`, None at the end.

    A place in a list is a row's number and no name or id, since it stands in addresses that may be logged.
    """

    items: list[Item]
    next: int | None


def cut(rows: list[tuple[int, Item]], limit: int) -> Slice[Item]:
    """The first `limit` of `rows`, which are numbered, and one more than `limit` where there are more."""
    items = [item for _, item in rows[:limit]]
    return Slice(items, rows[limit - 1][0] if len(rows) > limit else None)
