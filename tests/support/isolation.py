"""A connection that refuses every statement on a tenant's table which does not say whose rows it means.

`database(url, connection_class=watched_connection(watch))` opens the models on it. What must look over all
institutions says so with `across_institutions(reason)`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

import asyncpg

from core.tenancy import across

_TABLE = re.compile(r"\b(?:from|join|update|into|using)\s+(?:only\s+)?([a-z_]+)", re.IGNORECASE)
_INSERT = re.compile(r"\binsert\s+into\s+([a-z_]+)\s*\(([^)]*)\)", re.IGNORECASE)
_CONDITION = re.compile(
    r"(?:\b[a-z_]+\.)?\binstitution_id\s*(?:=\s*(\$\d+|'[0-9a-f-]{36}')|=\s*any\b|in\s*\()", re.IGNORECASE
)


@cache
def tenant_tables() -> frozenset[str]:
    """Every table with an institution_id, from the models."""
    from core import models

    found = {getattr(models, name)._meta for name in models.__all__}
    return frozenset(meta.db_table for meta in found if "institution_id" in meta.fields_map)


class NotScoped(AssertionError):
    """A statement touched a tenant's table without naming the institution."""


def unscoped(sql: str) -> list[str]:
    """The tenant tables that a statement touches without an institution; empty when all is well.

    Each mention of such a table needs its own `institution_id = …` after the WHERE (or ON), an INSERT needs the
    column.
    """
    text = re.sub(r"'(?:[^']|'')*'", lambda match: match[0] if len(match[0]) == 38 else "''", sql.replace('"', ""))
    inserted = {match[1].lower(): match[2].lower() for match in _INSERT.finditer(text)}
    mentioned = [name.lower() for name in _TABLE.findall(text)]
    missing = [
        table
        for table, columns in inserted.items()
        if table in tenant_tables() and "institution_id" not in re.split(r"[\s,]+", columns)
    ]
    others = [table for table in mentioned if table in tenant_tables() and table not in inserted]
    where = re.split(r"\b(?:where|on)\b", text, maxsplit=1, flags=re.IGNORECASE)
    conditions = len(_CONDITION.findall(where[1])) if len(where) == 2 else 0
    return missing + others[: max(len(others) - conditions, 0)]


@dataclass
class Watch:
    """What was seen; `enforce` false only takes notes."""

    enforce: bool = True
    violations: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    institutions: set[UUID] = field(default_factory=set)

    def see(self, sql: str, values: tuple[Any, ...]) -> None:
        """Called before a statement is sent. Raises NotScoped."""
        touched = [name for name in _TABLE.findall(sql.replace('"', "")) if name in tenant_tables()]
        self.tables.update(touched)
        if not touched:
            return
        for match in _CONDITION.finditer(sql.replace('"', "")):
            place = match[1] or ""
            if place.startswith("$") and int(place[1:]) <= len(values):
                self.institutions.add(UUID(str(values[int(place[1:]) - 1])))
        if reason := across.get():
            self.reasons[reason] += 1
        elif unscoped(sql):
            self.violations[sql] += 1
            if self.enforce:
                raise NotScoped(sql)


def watched_connection(watch: Watch) -> type[Any]:
    """A connection class for asyncpg's pool."""

    class WatchedConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is published without types
        async def fetch(self, query: str, *values: Any, **options: Any) -> Any:
            watch.see(query, values)
            return await super().fetch(query, *values, **options)

        async def fetchrow(self, query: str, *values: Any, **options: Any) -> Any:
            watch.see(query, values)
            return await super().fetchrow(query, *values, **options)

        async def fetchval(self, query: str, *values: Any, **options: Any) -> Any:
            watch.see(query, values)
            return await super().fetchval(query, *values, **options)

        async def execute(self, query: str, *values: Any, **options: Any) -> Any:
            watch.see(query, values)
            return await super().execute(query, *values, **options)

        async def executemany(self, query: str, values: Any, **options: Any) -> Any:
            watch.see(query, ())
            return await super().executemany(query, values, **options)

    return WatchedConnection
