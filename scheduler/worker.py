"""The worker: one task per kind of due row, which keeps a bounded number of rows under way.

A silent counterparty occupies its own few places and nobody else's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from core.due import DueRow
from core.services import Services
from scheduler.loops import Loop, claim_due, loops

log = logging.getLogger("zhenfu.worker")

SLEEP_MIN_SECONDS = 0.05
SLEEP_MAX_SECONDS = 1.0
"""Time may be moved from outside and other programs write rows: nobody sleeps longer than this."""

ERROR_PAUSE_SECONDS = 1.0


async def run_once(loop: Loop, services: Services) -> int:
    """Claim what is due, up to the loop's bounds, and work it; returns how many rows."""
    rows = await claim_due(loop, services)
    await asyncio.gather(*(_work(loop, row, services) for row in rows))
    return len(rows)


async def run_loop(loop: Loop, services: Services) -> None:
    """For ever: fill the free places, wait until one is free again or time has passed. A database that is away is
    waited for."""
    under_way: dict[asyncio.Task[None], UUID | None] = {}
    idle_seconds = SLEEP_MIN_SECONDS
    try:
        while True:
            busy = Counter(under_way.values())
            full = [who for who, count in busy.items() if who is not None and count >= loop.per_counterparty_max]
            free = loop.at_once_max - len(under_way)
            rows: list[DueRow] = []
            if free > 0:
                try:
                    rows = await claim_due(loop, services, batch_max=free, skip=full)
                except Exception:
                    log.exception("loop_failed", extra={"fields": {"table": loop.table}})
                    await asyncio.sleep(ERROR_PAUSE_SECONDS)
            for row in rows:
                under_way[asyncio.create_task(_work(loop, row, services), name=f"work:{loop.table}")] = row.counterparty
            idle_seconds = SLEEP_MIN_SECONDS if rows else min(idle_seconds * 2, SLEEP_MAX_SECONDS)
            if under_way:
                done, _ = await asyncio.wait(under_way, timeout=idle_seconds, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del under_way[task]
            else:
                await asyncio.sleep(idle_seconds)
    finally:
        for task in under_way:
            task.cancel()


async def _work(loop: Loop, row: DueRow, services: Services) -> None:
    """One row; a mistake of ours is logged, the row comes back when its lease ends, and if it goes on so, it is a case.

    Raises nothing: a case that cannot be written now is written after the next failure.
    """
    fields = {"table": loop.table, "row": str(row.id)}
    try:
        try:
            await loop.work(row)
        except Exception as error:
            log.exception("work_failed", extra={"fields": fields})
            await services.failing.failed(loop.table, row, error)
        else:
            await services.failing.worked(loop.table, row)
    except Exception:
        log.exception("failure_not_shown", extra={"fields": fields})


async def run(services: Services, *, kinds: Iterable[Loop] | None = None) -> None:
    """All loops until cancelled."""
    async with asyncio.TaskGroup() as group:
        for loop in kinds if kinds is not None else loops(services):
            group.create_task(run_loop(loop, services), name=f"loop:{loop.table}")
