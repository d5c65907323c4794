"""Whose rows a statement may touch. Everything that belongs to an institution is asked for by institution.

A statement that must look over all institutions (a loop that claims due rows, a look-up by an unguessable
token or number) says so with `across_institutions` and why; the tests' connection refuses any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from tortoise.exceptions import DoesNotExist
from tortoise.models import Model
from tortoise.queryset import QuerySet

from core import plain_rows

M = TypeVar("M", bound=Model)

across: ContextVar[str] = ContextVar("across_institutions", default="")


@contextmanager
def across_institutions(reason: str) -> Iterator[None]:
    """Allow statements without institution inside; `reason` is for the reader."""
    token = across.set(reason)
    try:
        yield
    finally:
        across.reset(token)


@dataclass(frozen=True, slots=True)
class Scope:
    """Queries over one institution's rows."""

    institution_id: UUID

    def of(self, model: type[M]) -> QuerySet[M]:
        return model.filter(institution_id=self.institution_id)

    async def get(self, model: type[M], **wanted: Any) -> M:
        """The one row that is as wanted (core/plain_rows.py). Raises DoesNotExist."""
        row = await self.get_or_none(model, **wanted)
        if row is None:
            raise DoesNotExist(model)
        return row

    async def get_or_none(self, model: type[M], **wanted: Any) -> M | None:
        found = await self.find(model, **wanted)
        return found[0] if found else None

    async def find(
        self, model: type[M], order_by: Sequence[str] = (), *, locked: bool = False, **wanted: Any
    ) -> list[M]:
        """The rows that are as wanted."""
        mine = {"institution_id": self.institution_id, **wanted}
        return await plain_rows.find(model, mine, order_by=order_by, locked=locked)

    async def change(self, model: type[Model], wanted: Mapping[str, Any], **values: Any) -> int:
        """Set values in the rows that are as wanted; how many there were."""
        return await plain_rows.change(model, {"institution_id": self.institution_id, **wanted}, values)


def scoped(institution_id: UUID) -> Scope:
    """The only way in which patient, staff and HIS code reads tables."""
    return Scope(institution_id)
