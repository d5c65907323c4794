"""How a person's phone asks our servers: again when there is no answer, and not for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from core.errors import RequestError
from core.services import Services
from simulators.faults import chance
from simulators.kit import ConnectionLost, NeverConnected
from tests.crash.scheduler import Life
from tests.crash.world import Phone, World

T = TypeVar("T")

TRIES_MAX = 5


class GaveUp(Exception):
    """This person tries no more."""


class Asker:
    """One piece of business of one person."""

    def __init__(self, world: World, phone: Phone, draw: random.Random, key: str) -> None:
        self.world, self.phone, self.draw, self.key = world, phone, draw, key
        self.asked = 0

    async def attempt(self, work: Callable[[Services], Awaitable[Any]], what: str) -> None:
        try:
            await self.ask(work, what)
        except RequestError as problem:
            self.note(problem)

    async def ask(self, work: Callable[[Services], Awaitable[T]], what: str) -> T:
        """Ask our server, again when there is no answer. Raises RequestError or GaveUp."""
        self.asked += 1
        key = f"{self.key}/{what}{self.asked}"

        async def run(life: Life) -> T:
            return await work(life.things["services"])

        for attempt in range(TRIES_MAX):
            there, back = self.world.network.seconds("phone", key)
            await asyncio.sleep(there)
            try:
                answer = await self.world.request(run, key=f"{key}.{attempt}")
            except (NeverConnected, ConnectionLost) as silence:
                self.world.scheduler.counts[f"phone met {type(silence).__name__}"] += 1
                await asyncio.sleep(1 + 20 * chance(self.world.day.seed, "phone waits", key, attempt))
            else:
                await asyncio.sleep(back)
                return answer
        raise GaveUp

    async def pause(self, low: float, high: float) -> None:
        await asyncio.sleep(self.draw.uniform(low, high))

    def note(self, problem: RequestError) -> None:
        reason = problem.values.get("reason", "")
        self.world.scheduler.counts[f"told the phone: {problem.code} {reason}".rstrip()] += 1
