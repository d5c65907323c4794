"""How much one person, and all together, may do in the chat at once; in this process's memory, and cheap."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from bot.events import ChatEventKind
from core.clock import Clock

EVENTS_AT_ONCE_MAX = 3  # of one person
EVENTS_PER_SECOND_MAX = 5  # of one person
PLACES = 16  # pushes of everybody that are worked at once; more would only make each other late
BOOKKEEPING_PLACES = 4  # besides, for what the platform says about people
PLACE_SECONDS = 1.5  # who has no place by then is told to come again: his answer would not be in time
PERSONS_MAX = 20_000  # whose last second is remembered
SECOND = timedelta(seconds=1)

UNLIMITED = frozenset({ChatEventKind.FOLLOWED, ChatEventKind.UNFOLLOWED, ChatEventKind.DELIVERED, ChatEventKind.GRANT})
"""What the platform says about a person; nobody can make it say so a hundred times in a second."""


class Turnstile:
    def __init__(
        self,
        *,
        clock: Clock,
        at_once_max: int = EVENTS_AT_ONCE_MAX,
        per_second_max: int = EVENTS_PER_SECOND_MAX,
    ) -> None:
        self._clock = clock
        self._at_once_max = at_once_max
        self._per_second_max = per_second_max
        self._inside: Counter[str] = Counter()
        self._entered: OrderedDict[str, deque[datetime]] = OrderedDict()

    def enter(self, who: str, kind: ChatEventKind) -> bool:
        """Whether an event of this person is worked; then `leave` follows."""
        if kind not in UNLIMITED and not (self._inside[who] < self._at_once_max and self._in_time(who)):
            return False
        self._inside[who] += 1
        return True

    def leave(self, who: str) -> None:
        self._inside[who] -= 1
        if not self._inside[who]:
            del self._inside[who]

    def _in_time(self, who: str) -> bool:
        now = self._clock.now()
        moments = self._entered.pop(who, None) or deque(maxlen=self._per_second_max)
        self._entered[who] = moments
        while len(self._entered) > PERSONS_MAX:
            self._entered.popitem(last=False)
        if len(moments) == self._per_second_max and moments[0] > now - SECOND:
            return False
        moments.append(now)
        return True


class Places:
    """Places to work at, in the order of coming. Whoever waits for somebody outside leaves his place meanwhile."""

    def __init__(self, places: int = PLACES, *, wait_seconds: float = PLACE_SECONDS) -> None:
        self._free = asyncio.Semaphore(places)
        self._wait_seconds = wait_seconds

    async def take(self) -> bool:
        """A place, if one is free in time; then `give` follows."""
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            return False
        return True

    def give(self) -> None:
        self._free.release()

    @asynccontextmanager
    async def left(self) -> AsyncIterator[None]:
        """Wait inside without a place; it is taken again, however long that takes."""
        self.give()
        try:
            yield
        finally:
            await self._free.acquire()
