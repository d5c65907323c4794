"""A TokenStore and a Limiter in this process's memory, driven by the clock and bounded.

For tests, for replayable runs, and for the time when Redis is away.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta

from core.clock import Clock

ENTRIES_MAX = 10_000


class MemoryTokenStore:
    """A TokenStore; when full it forgets its oldest entry."""

    def __init__(self, *, clock: Clock, entries_max: int = ENTRIES_MAX) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self._values: OrderedDict[str, tuple[str, datetime]] = OrderedDict()

    async def get(self, key: str) -> str | None:
        return self._living(key)

    async def set(self, key: str, value: str, *, life: timedelta) -> None:
        self._values.pop(key, None)
        self._values[key] = (value, self._clock.now() + life)
        while len(self._values) > self._entries_max:
            self._values.popitem(last=False)

    async def delete(self, key: str) -> None:
        self._values.pop(key, None)

    async def acquire(self, key: str, owner: str, *, life: timedelta) -> bool:
        if self._living(key) not in {None, owner}:
            return False
        await self.set(key, owner, life=life)
        return True

    async def release(self, key: str, owner: str) -> None:
        if self._living(key) == owner:
            await self.delete(key)

    def forget(self) -> None:
        """Lose everything, as a store may at any moment."""
        self._values.clear()

    def _living(self, key: str) -> str | None:
        value, ends_at = self._values.get(key, ("", None))
        if ends_at is None or ends_at <= self._clock.now():
            self._values.pop(key, None)
            return None
        return value


class MemoryLimiter:
    """A Limiter: at most `limit` in any stretch of time as long as `per`.

    When full it forgets the key that was used least recently.
    """

    def __init__(self, *, clock: Clock, entries_max: int = ENTRIES_MAX) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self._allowed: OrderedDict[str, deque[datetime]] = OrderedDict()

    async def allow(self, key: str, *, limit: int, per: timedelta) -> bool:
        if limit < 1:
            return False
        now = self._clock.now()
        moments = self._allowed.pop(key, deque())
        self._allowed[key] = moments
        while len(self._allowed) > self._entries_max:
            self._allowed.popitem(last=False)
        while moments and (moments[0] <= now - per or len(moments) > limit):
            moments.popleft()
        if len(moments) >= limit:
            return False
        moments.append(now)
        return True
