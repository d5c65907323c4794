"""Work that a request has begun and that goes on when its client goes away.

A client's disconnect cancels its handler. What must not stop half way, and what may take longer than a page
waits, runs in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from core.errors import HospitalUnavailable, RequestError, TooManyRequests, ZhenfuError

log = logging.getLogger("zhenfu.api")

T = TypeVar("T")

TASKS_MAX = 2000
BUSY_RETRY_SECONDS = 5


class Running:
    """The tasks of one program; bounded."""

    def __init__(self, *, tasks_max: int = TASKS_MAX) -> None:
        self._tasks_max = tasks_max
        self._tasks: set[asyncio.Task[Any]] = set()
        self._once: set[Hashable] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Raises TooManyRequests when too much is under way."""
        if len(self._tasks) >= self._tasks_max:
            work.close()
            raise TooManyRequests(retry_after_seconds=BUSY_RETRY_SECONDS)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result; it is carried through even if whoever waits goes away."""
        task = self.begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    async def at_most(self, seconds: float, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for it a while; after that it goes on alone."""
        task = self.begin(work)
        await self._wait(task, seconds)
        if task.done():
            task.result()

    async def in_time(
        self, seconds: float, work: Coroutine[Any, Any, T], *, late: RequestError, once: Hashable = None
    ) -> T:
        """Its result; after `seconds` it goes on alone and `late` is raised.

        With `once`, the same work that is under way already is not begun a second time: `late` is raised at once.
        """
        if once is not None and once in self._once:
            work.close()
            raise late
        task = self.begin(work)
        if once is not None:
            self._once.add(once)
            task.add_done_callback(lambda _: self._once.discard(once))
        await self._wait(task, seconds)
        if not task.done():
            raise late
        return task.result()

    async def drain(self, *, seconds: float) -> None:
        """Let what is under way end; what does not is cancelled and comes back from its rows."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _wait(self, task: asyncio.Task[Any], seconds: float) -> None:
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                task.add_done_callback(_log_failure)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at here, so that nobody need wait for it


def _log_failure(task: asyncio.Task[Any]) -> None:
    """For work whose client has gone: nobody else sees how it ended."""
    if task.cancelled():
        return
    error = task.exception()
    if error is not None and not isinstance(error, ZhenfuError):
        log.error("work_failed", exc_info=error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """The HIS has not answered yet; the ticket fetches the answer later."""

    ticket: str


@dataclass(kw_only=True, slots=True, eq=False)
class _Question(Generic[T]):
    ticket: str
    task: asyncio.Task[T]


@dataclass(slots=True)
class Questions:
    """Questions to a HIS that may outlast their request.

    The same question of the same payer is asked once at a time, however often its page asks. Its answer is kept a
    short while for whoever shows the ticket; another program, or a later time, simply asks again.
    """

    running: Running
    new_ticket: Callable[[], str]
    wait_seconds: float
    ask_seconds: float = 60.0
    keep_seconds: float = 30.0
    open_max: int = 1000
    _open: dict[Hashable, _Question[Any]] = field(default_factory=dict)

    async def ask(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], *, tickets: frozenset[str]
    ) -> T | Asking:
        """The answer, or Asking after `wait_seconds`. Raises what the work raises, or HospitalUnavailable."""
        question: _Question[T] | None = self._open.get(key)
        if question is None or (question.task.done() and question.ticket not in tickets):
            question = self._begin(key, work)  # an answer without its ticket is from before this question
        await asyncio.wait({question.task}, timeout=self.wait_seconds)
        return question.task.result() if question.task.done() else Asking(ticket=question.ticket)

    def _begin(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> _Question[T]:
        if len(self._open) >= self.open_max and key not in self._open:
            raise HospitalUnavailable()
        question = _Question(ticket=self.new_ticket(), task=self.running.begin(self._bounded(work)))
        self._open[key] = question
        forget = partial(asyncio.get_running_loop().call_later, self.keep_seconds, self._forget, key, question)
        question.task.add_done_callback(lambda _: forget())
        return question

    async def _bounded(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            async with asyncio.timeout(self.ask_seconds):
                return await work()
        except TimeoutError as error:
            raise HospitalUnavailable() from error

    def _forget(self, key: Hashable, question: _Question[Any]) -> None:
        if self._open.get(key) is question:
            del self._open[key]
