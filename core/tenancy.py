"""Whose rows a statement may touch. Everything that belongs to an institution is asked for by institution.

A statement that must look over all institutions (a loop that claims due rows, a look-up by an unguessable
token or number) says so with `across_institutions` and why; the tests' connection refuses any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from tortoise.models import Model
from tortoise.queryset import QuerySet

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


def scoped(institution_id: UUID) -> Scope:
    """The only way in which patient, staff and HIS code reads tables."""
    return Scope(institution_id)
