"""Long lists, a page at a time."""

from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """Some items, the oldest first; ask with `after` = `next` for more, until `next` is null."""

    items: list[Item]
    next: Annotated[int | None, Field(examples=[50])]


After = Annotated[
    int, Query(ge=0, le=2**53, description="The `next` of the page before; 0 for the first page.")
]
Limit = Annotated[int, Query(ge=1, le=200, description="How many items at most.")]
FIRST = 0
USUAL = 50
