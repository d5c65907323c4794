"""An asyncio loop with virtual time that asks a scheduler what may happen next whenever nothing is ready.

Sockets are looked at only when no callback is ready, so an answer can never overtake a callback, and threads
are not used: what a program hands to an executor runs at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

MICROSECONDS = 1_000_000
Events = list[tuple[selectors.SelectorKey, int]]


class Idle(Protocol):
    """Asked when every task waits. It wakes one (and returns nothing) or looks at the sockets."""

    def idle(self) -> Events: ...


class _Selector(selectors.DefaultSelector):
    """Hands the decision over when the loop would sleep."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Events:
        if timeout is not None and timeout <= 0:
            return []
        if self.loop.decides is None:
            return super().select(None)
        return self.loop.decides.idle()

    def poll(self, timeout: float | None) -> Events:
        """Look at the sockets for real, for so many real seconds."""
        return super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time stands still until somebody moves it; `decides` says what happens when nothing is ready."""

    def __init__(self) -> None:
        self.microseconds = 0
        self.decides: Idle | None = None
        self._sockets = _Selector()
        self._sockets.loop = self
        super().__init__(self._sockets)

    def time(self) -> float:
        return self.microseconds / MICROSECONDS

    def poll(self, timeout: float | None) -> Events:
        return self._sockets.poll(timeout)

    def next_timer(self) -> float | None:
        """When the earliest timer wants to run, in loop time."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return timers[0].when() if timers else None

    def forget_timers(self) -> None:
        """Cancel whatever is still planned: the world it belonged to is over."""
        for timer in self._scheduled:  # type: ignore[attr-defined]
            timer.cancel()

    def move_to(self, moment: float) -> None:
        """Move the time forward so that a timer for `moment` is due."""
        self.microseconds = max(self.microseconds, -int(-moment * MICROSECONDS // 1))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class WorldClock:
    """The loop's time as a calendar: the one clock of all programs and all counterparties."""

    def __init__(self, loop: VirtualLoop, start: datetime) -> None:
        self._loop = loop
        self._start = start - timedelta(microseconds=loop.microseconds)

    def now(self) -> datetime:
        return self._start + timedelta(microseconds=self._loop.microseconds)


START = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
"""A Monday, 08:00 in Shanghai: the outpatient department opens."""
