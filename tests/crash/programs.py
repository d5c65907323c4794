"""Programs that start, die and start again, and how the world calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from simulators.faults import chance
from simulators.kit import ConnectionLost, NeverConnected
from tests.crash.database import Postgres
from tests.crash.scheduler import Life, Scheduler

T = TypeVar("T")

PAUSE_SECONDS_MAX = 20.0


class Program:
    """One program: `main` runs in each of its lives, sets things up, and then works or just returns.

    What others may use it puts into `life.things`; the program takes calls once `life.things["ready"]` is set.
    """

    def __init__(
        self, scheduler: Scheduler, postgres: Postgres, name: str, main: Callable[[Life], Awaitable[None]]
    ) -> None:
        self.scheduler = scheduler
        self.postgres = postgres
        self.name = name
        self.life: Life | None = None
        self.stays_down = False
        self._main = main
        scheduler.on_crash.append(self._crashed)

    def start(self) -> None:
        if self.life is None and not self.stays_down:
            life = self.life = self.scheduler.new_life(self.name)
            self.postgres.open(life)
            life.spawn(self._run(life))

    async def _run(self, life: Life) -> None:
        try:
            await self._main(life)
        except Exception as error:
            if not life.dead:
                self.scheduler.fail(f"{life} ended by itself: {error!r}")
            raise

    def _crashed(self, life: Life) -> None:
        if life is self.life:
            self.life = None
            pause = chance(self.scheduler.seed, "pause", self.name, life.number) ** 3 * PAUSE_SECONDS_MAX
            self.scheduler.loop.call_later(pause, self.start)

    async def call(self, work: Callable[[Life], Awaitable[T]], *, key: str) -> T:
        """Let the program do `work`, as a request from outside does. Raises NeverConnected, ConnectionLost."""
        life = self.life
        if life is None or life.dead or not life.things.get("ready"):
            raise NeverConnected(self.name)
        await self.scheduler.gate(f"call {self.name}", key)
        if life.dead:
            raise NeverConnected(self.name)

        async def run() -> T:
            return await work(life)

        task = life.spawn(run(), key=key)
        await asyncio.wait([task])
        if task.cancelled() or life.dead:
            if not task.cancelled():
                task.exception()  # whatever it died of, nobody hears it
            raise ConnectionLost(self.name)
        return task.result()
