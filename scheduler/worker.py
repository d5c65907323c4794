"""The worker: one task per kind of due row, each claiming a batch, working it, and sleeping until more is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from core.due import DueRow
from core.services import Services
from scheduler.loops import Loop, claim_due, loops

log = logging.getLogger("zhenfu.worker")

SLEEP_MIN_SECONDS = 0.05
SLEEP_MAX_SECONDS = 1.0
"""Time may be moved from outside and other programs write rows: nobody sleeps longer than this."""

ERROR_PAUSE_SECONDS = 1.0
AT_ONCE_MAX = 32


async def run_once(loop: Loop, services: Services) -> int:
    """Claim one batch and work it, several rows at once; returns how many rows."""
    rows = await claim_due(loop, services)
    if rows:
        limit = asyncio.Semaphore(AT_ONCE_MAX)
        await asyncio.gather(*(_work(loop, row, limit) for row in rows))
    return len(rows)


async def _work(loop: Loop, row: DueRow, limit: asyncio.Semaphore) -> None:
    """One row; a mistake of ours is logged and the row comes back when its lease ends."""
    async with limit:
        try:
            await loop.work(row)
        except Exception:
            log.exception("work_failed", extra={"fields": {"table": loop.table, "row": str(row.id)}})


async def run_loop(loop: Loop, services: Services) -> None:
    """For ever. A database that is away is waited for."""
    idle_seconds = SLEEP_MIN_SECONDS
    while True:
        try:
            worked = await run_once(loop, services)
        except Exception:
            log.exception("loop_failed", extra={"fields": {"table": loop.table}})
            await asyncio.sleep(ERROR_PAUSE_SECONDS)
            continue
        idle_seconds = SLEEP_MIN_SECONDS if worked else min(idle_seconds * 2, SLEEP_MAX_SECONDS)
        await asyncio.sleep(0 if worked else idle_seconds)


async def run(services: Services, *, kinds: Iterable[Loop] | None = None) -> None:
    """All loops until cancelled."""
    async with asyncio.TaskGroup() as group:
        for loop in kinds if kinds is not None else loops(services):
            group.create_task(run_loop(loop, services), name=f"loop:{loop.table}")
