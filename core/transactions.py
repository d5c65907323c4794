"""Our database transactions: what may be done inside one, and what happens after it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import asyncpg
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.connection import get_connection
from tortoise.exceptions import IntegrityError
from tortoise.transactions import in_transaction

T = TypeVar("T")

CONNECTION = "default"
DEADLOCK_TRIES = 3
DEADLOCK_PAUSE_SECONDS = (0.01, 0.05)
"""Before the next try: whoever came at once might take the first lock again before the other has had his second."""

open_transaction: ContextVar[bool] = ContextVar("open_transaction", default=False)
"""True while this task is inside a transaction: no counterparty may be called then."""


@asynccontextmanager
async def transaction() -> AsyncIterator[BaseDBAsyncClient]:
    """One transaction; inside another one, a savepoint."""
    token = open_transaction.set(True)
    try:
        async with in_transaction(CONNECTION) as connection:
            yield connection
    finally:
        open_transaction.reset(token)


async def atomically(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` in one transaction; a deadlock is tried again, a little later; everything else is the caller's."""
    for attempt in range(1, DEADLOCK_TRIES + 1):
        try:
            async with transaction():
                return await work()
        except asyncpg.DeadlockDetectedError:
            if attempt == DEADLOCK_TRIES:
                raise
            await asyncio.sleep(random.uniform(*DEADLOCK_PAUSE_SECONDS))
    raise AssertionError("unreachable")


async def rows(sql: str, *values: Any) -> list[dict[str, Any]]:
    """The rows that a statement returns, UPDATE … RETURNING too.

    In the caller's transaction when there is one; else the statement is a transaction by itself.
    """
    found: list[dict[str, Any]] = await get_connection(CONNECTION).execute_query_dict(sql, list(values))
    return found


def violated(error: IntegrityError) -> str:
    """The name of the constraint that refused."""
    cause = error.args[0] if error.args else None
    return str(getattr(cause, "constraint_name", "") or "")
