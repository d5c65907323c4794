"""Plain statements on one table, chosen by equality, without the query builder.

The builder composes each statement anew, and that costs three times what the driver needs to send it and read the
answer. What every payment does dozens of times goes through here; everything else through the builder.

A wanted value is compared by `=`; None asks for NULL, a list or set for any of its members, and a name that ends with
`__gt` for more than the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from tortoise.connection import get_connection
from tortoise.models import Model

from core.transactions import CONNECTION

M = TypeVar("M", bound=Model)

_MORE_THAN = "__gt"


async def find(
    model: type[M], wanted: Mapping[str, Any], *, order_by: Sequence[str] = (), locked: bool = False
) -> list[M]:
    """The rows that are as wanted; `locked` keeps them from being changed until the caller's transaction ends."""
    values: list[Any] = []
    sql = f"SELECT {_columns(model)} FROM {_table(model)} WHERE {_conditions(wanted, values)}"
    if order_by:
        sql += " ORDER BY " + ", ".join(f'"{name}"' for name in order_by)
    if locked:
        sql += " FOR NO KEY UPDATE"
    _, found = await get_connection(CONNECTION).execute_query(sql, values)
    return [model._init_from_db(**row) for row in found]


async def change(model: type[Model], wanted: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """Set `values` in the rows that are as wanted; how many there were."""
    fields = model._meta.fields_map
    sent: list[Any] = []
    sets = []
    for name, value in values.items():
        sent.append(fields[name].to_db_value(value, model))
        sets.append(f'"{name}" = ${len(sent)}')
    sql = f"UPDATE {_table(model)} SET {', '.join(sets)} WHERE {_conditions(wanted, sent)}"
    changed, _ = await get_connection(CONNECTION).execute_query(sql, sent)
    return changed


def _conditions(wanted: Mapping[str, Any], values: list[Any]) -> str:
    """What stands after WHERE; its values are added to `values`."""
    parts = []
    for name, value in wanted.items():
        if value is None:
            parts.append(f'"{name}" IS NULL')
        elif isinstance(value, list | tuple | set | frozenset):
            values.append(list(value))
            parts.append(f'"{name}" = ANY (${len(values)})')
        else:
            values.append(value)
            sign = ">" if name.endswith(_MORE_THAN) else "="
            parts.append(f'"{name.removesuffix(_MORE_THAN)}" {sign} ${len(values)}')
    return " AND ".join(parts)


@cache
def _columns(model: type[Model]) -> str:
    return ", ".join(f'"{column}"' for column in model._meta.fields_db_projection.values())


@cache
def _table(model: type[Model]) -> str:
    return f'"{model._meta.db_table}"'
