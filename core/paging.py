"""Pages of a list by place, not by number: page 200 costs what page 1 costs, and no row is seen twice. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from core.errors import InvalidRequest

T = TypeVar("T")

PAGE_DEFAULT = 50
PAGE_MAX = 200


@dataclass(frozen=True, slots=True)
class Place:
    """A row's place in a list in time: its moment, and its id among rows of the same moment."""

    at: datetime
    id: UUID

    def __str__(self) -> str:
        return f"{self.at.isoformat()}_{self.id.hex}"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`next` is where the list goes on; None at its end."""

    items: Sequence[T]
    next: Place | None


def place_from(text: str, field: str) -> Place | None:
    """What `str(place)` gave; None for nothing. Raises InvalidRequest."""
    if not text:
        return None
    moment, _, number = text.partition("_")
    try:
        place = Place(datetime.fromisoformat(moment.replace(" ", "+")), UUID(number))
    except ValueError:
        raise InvalidRequest(field=field, problem="not a place in this list") from None
    if place.at.tzinfo is None:
        raise InvalidRequest(field=field, problem="not a place in this list")
    return place


def page_of(found: Sequence[T], limit: int, place: Callable[[T], Place]) -> Page[T]:
    """A page from up to `limit` + 1 items: one more than wanted shows that the list goes on."""
    items = found[:limit]
    return Page(items, place(items[-1]) if len(found) > limit else None)
