"""Rows of a long file, read in a thread a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

T = TypeVar("T")

ROWS_AT_ONCE = 500


async def in_batches(rows: Iterator[T], *errors: type[Exception]) -> AsyncIterator[T]:
    """All of them; when one of these errors ends the reading, what was read before it is given first."""
    batch, error = await asyncio.to_thread(_next, rows, errors)
    while batch:
        for row in batch:
            yield row
        if error is not None:
            break
        batch, error = await asyncio.to_thread(_next, rows, errors)
    if error is not None:
        raise error


def _next(rows: Iterator[T], errors: tuple[type[Exception], ...]) -> tuple[list[T], Exception | None]:
    batch: list[T] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS_AT_ONCE:
                break
    except errors as error:
        return batch, error
    return batch, None
