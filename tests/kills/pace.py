"""One clock for all programs and counterparties, moved forward whenever nobody does anything any more.

The offset lies in the file that the sandbox's programs share, too. Nothing is moved while a request is under way: its
deadline is counted in real seconds, and in such a world nobody ever waits longer than he promises.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from simulators.clock import OffsetClock

TICK_SECONDS = 0.002
QUIET_TICKS = 2
RING_SECONDS_MIN = 0.02
STUCK_SECONDS = 30.0


class OnlyMover(OffsetClock):
    """The file's clock for whoever alone moves it: he need not read it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._offset = timedelta(0)

    def offset(self) -> timedelta:
        return self._offset

    def begin(self, at: datetime) -> None:
        """It is this moment of the calendar now."""
        self._offset = timedelta(0)
        self.advance(timedelta(0), offset=at - datetime.now(UTC))

    def advance(self, by: timedelta, *, offset: timedelta | None = None) -> None:
        self._offset = self._offset if offset is None else offset
        super().advance(by)
        self._offset += by


@dataclass
class Pace:
    """Sleepers on the shared clock, and the hand that moves it."""

    file: Path
    is_still: Callable[[], bool]  # nobody is at anything
    next_moment: Callable[[], datetime | None]  # when the rows and the counterparties want to go on
    naps: Callable[[], bool]  # a program is at something, although it sleeps
    each_tick: Callable[[], None]
    ring: Callable[[], None]  # tells the workers that something is due
    complain: Callable[[str], None]
    traffic: int = 0  # grows with everything that anybody does
    at_rest: asyncio.Event = field(default_factory=asyncio.Event)
    horizon: datetime | None = None
    _rung_at: float = 0.0
    _sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.clock = OnlyMover(self.file)

    async def sleep(self, seconds: float) -> None:
        await self.until(self.clock.now() + timedelta(seconds=seconds))

    async def until(self, moment: datetime) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (moment, next(self._numbers), future))
        await future

    async def rest(self, within: timedelta) -> bool:
        """Let time pass until nothing is due; False when it does not come to that in time."""
        self.horizon = self.clock.now() + within
        self.at_rest.clear()
        await self.at_rest.wait()
        rested = self.clock.now() < self.horizon
        self.horizon = None
        return rested

    async def go(self) -> None:
        """For ever."""
        quiet, seen, moved_at = 0, -1, time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._wake()
            self.each_tick()
            if seen != self.traffic:
                quiet, seen, moved_at = 0, self.traffic, time.monotonic()
                continue
            quiet += 1
            if time.monotonic() - moved_at > STUCK_SECONDS:
                self.complain(f"nothing has moved for {STUCK_SECONDS:g} s")
                moved_at = time.monotonic()
            if quiet < QUIET_TICKS or not self.is_still():
                continue
            moments = [moment for moment in (self.next_moment(), self._next_sleeper()) if moment is not None]
            if self.naps():
                continue
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if seen == self.traffic and self.is_still():
                self._move(min(moments, default=None))

    def _move(self, to: datetime | None) -> None:
        now = self.clock.now()
        if to is None or (self.horizon is not None and to > self.horizon):
            if self.horizon is not None and to is not None:
                self.clock.advance(max(self.horizon - now, timedelta(0)))
            self.at_rest.set()
        elif to > now:
            self.traffic += 1
            self.clock.advance(to - now + timedelta(milliseconds=2))
            self._ring()
        else:
            self._ring()

    def _ring(self) -> None:
        if time.monotonic() - self._rung_at > RING_SECONDS_MIN:
            self._rung_at = time.monotonic()
            self.ring()

    def _next_sleeper(self) -> datetime | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def _wake(self) -> None:
        now = self.clock.now()
        while self._sleepers and self._sleepers[0][0] <= now:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self.traffic += 1
                future.set_result(None)
