"""Column kinds that our tables share."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar, cast
from uuid import UUID

from tortoise import fields
from tortoise.fields.base import Field
from tortoise.models import Model

from core.money import Fen

E = TypeVar("E", bound=StrEnum)

STATUS_LENGTH_MAX = 20
NUMBER_LENGTH_MAX = 32  # our order, refund and confirmation numbers
OUTSIDE_ID_LENGTH_MAX = 128  # ids that counterparties make
MAC_LENGTH = 64  # hex digits of an HMAC-SHA256 or a SHA-256


def fen_field(*, default: int | None = 0) -> Field[Fen]:
    """An amount in fen; the migration adds CHECK (… >= 0)."""
    options: dict[str, Any] = {} if default is None else {"default": default}
    return cast("Field[Fen]", fields.BigIntField(**options))


def status_field(enum: type[E], *, default: E) -> Field[E]:
    """A status as text; which ones exist and follow each other is held by core/states.py and by a trigger."""
    return cast(
        "Field[E]",
        fields.CharEnumField(enum, max_length=STATUS_LENGTH_MAX, default=default, description="status"),
    )


def id_field() -> Field[UUID]:
    """A UUIDv7 made by Ids before the row is written."""
    return cast("Field[UUID]", fields.UUIDField(primary_key=True, default=None))


class DueMixin(Model):
    """A row that is work: who may work it and when."""

    due_at = fields.DatetimeField(null=True)
    attempts = fields.IntField(default=0)
    lease_until = fields.DatetimeField(null=True)
    holder = fields.CharField(max_length=64, default="")

    class Meta:
        abstract = True
