"""One moment of the database for questions that take minutes, while everybody else goes on writing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from core.tenancy import across_institutions

ROWS_AT_ONCE = 2_000
"""So many rows of an answer are in our memory at a time."""

_SETTINGS = (
    "TimeZone = 'UTC'",
    "DateStyle = 'ISO'",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = '10min'",
    "work_mem = '32MB'",
    "jit = off",
)


@asynccontextmanager
async def snapshot(connection: asyncpg.Connection, reason: str) -> AsyncIterator[None]:
    """What is read inside is read at one moment, over all institutions for this `reason`; nothing can be written.

    The connection is the caller's own, outside of any pool: its statements may take as long as they need.
    """
    with across_institutions(reason):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for setting in _SETTINGS:
                await connection.execute(f"SET LOCAL {setting}")
            yield


async def each_row(connection: asyncpg.Connection, query: str, take: Callable[[list[str]], None], *values: Any) -> None:
    """Hand each row of `query` to `take`, its columns as the texts that COPY writes.

    For millions of rows: each costs less than half of what a cursor's does, and PostgreSQL reads the next ones
    meanwhile, a few hundred kilobytes ahead. No column may be NULL. Of a text that holds a backslash, a tab or a
    line's end, which nothing of ours does, `take` sees COPY's escapes.
    """
    rest = b""

    async def sink(data: bytes) -> None:
        nonlocal rest
        whole, _, rest = (rest + data).rpartition(b"\n")
        if whole:
            for line in whole.decode().split("\n"):
                take(line.split("\t"))

    await connection.copy_from_query(query, *values, output=sink)


def moment_of(text: str) -> str:
    """core.ledger.moment_text of a time that `each_row` handed over, which leaves out zeros at its end."""
    return f"{text[:10]}T{text[11:19]}{(text[19:-3] or '.').ljust(7, '0')}+00:00"
