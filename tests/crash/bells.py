"""Wakes the worker's loops when there is something to do, as their own short naps would, without the naps.

A loop that finds nothing sleeps up to a second and looks again. Here it sleeps until a row of its kind can be
due, or until somebody has committed something about such a row, and then for that part of a second.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from datetime import datetime

from simulators.faults import chance
from tests.crash.database import Postgres
from tests.crash.scheduler import Scheduler, current_life

NAP_SECONDS_MAX = 1.0
DUE = ("inbound", "payment", "confirmation", "his_lock", "payment_line", "refund", "message", "hospital_site")
ENDLESS = "hospital_site"  # is due again and again, whatever happens


class Bells:
    def __init__(self, scheduler: Scheduler, postgres: Postgres) -> None:
        self._scheduler = scheduler
        self._postgres = postgres
        self._sleepers: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._known: dict[str, datetime | None] = {}  # until somebody commits something about it
        self._naps: Counter[tuple[str, str]] = Counter()
        scheduler.on_commit.append(self._committed)

    def next_due(self, *tables: str) -> datetime | None:
        """When a row of these kinds can be taken."""
        for table in tables:
            if table not in self._known:
                ((self._known[table],),) = self._postgres.query(
                    f"SELECT min(greatest(due_at, lease_until)) FROM {table} WHERE due_at IS NOT NULL"
                )
        return min((at for table in tables if (at := self._known[table]) is not None), default=None)

    async def wait(self, table: str) -> None:
        """Sleep until there is something to do in this table."""
        while True:
            due_at = self.next_due(table)
            seconds = None
            if due_at is not None:
                seconds = max((due_at - self._scheduler.clock.now()).total_seconds(), 0.0) + self._nap(table)
            if not await self._sleep(table, seconds):
                return
            if due_at is not None and due_at <= self._scheduler.clock.now():
                await asyncio.sleep(self._nap(table))
                return

    async def _sleep(self, table: str, seconds: float | None) -> bool:
        """True when a bell has rung."""
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers[table].append(bell)
        try:
            async with asyncio.timeout(seconds):
                await bell
        except TimeoutError:
            return False
        finally:
            if bell in self._sleepers[table]:
                self._sleepers[table].remove(bell)
        return True

    def _nap(self, table: str) -> float:
        name = (current_life().name, table)
        self._naps[name] += 1
        return NAP_SECONDS_MAX * chance(self._scheduler.seed, "nap", *name, self._naps[name]) ** 2

    def _committed(self, tables: set[str]) -> None:
        for table in sorted(tables):
            self._known.pop(table, None)
            sleepers, self._sleepers[table] = self._sleepers[table], []
            for bell in sleepers:
                if not bell.done():
                    bell.set_result(None)
