"""One moment of the database for questions that take minutes, while everybody else goes on writing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from core.tenancy import across_institutions

ROWS_AT_ONCE = 2_000
"""So many rows of an answer are in our memory at a time."""

_SETTINGS = (
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
