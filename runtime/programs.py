"""One factory per program: what a web process and a worker process are made of, and how they end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import uvloop
from sanic import Blueprint, Sanic
from tortoise import Tortoise

from admin import app as staff
from admin.errors import answer as staff_answer
from bot.wechat import callback, files
from core.clock import Clock, OffsetClock, SystemClock
from core.due import DueRow
from core.errors import ConfigurationError
from core.ids import Ids
from core.memory import MemoryLimiter, MemoryTokenStore
from core.ports import Limiter, TokenStore
from core.services import Services
from hospital.guard import GuardSettings
from miniprogram_api.app import build_app
from runtime.bootstrap import BoundedBackground, build_callback, build_services, check_deployment, program_name
from runtime.database import database, wait_for_database
from runtime.logs import adopt_sanic
from runtime.redis import RedisLimiter, RedisLink, RedisTokenStore, connect
from runtime.settings import Settings
from runtime.sockets import listen
from runtime.supervisor import Ready
from scheduler import worker as scheduler_worker
from scheduler.jobs import seals, settled_cases
from scheduler.loops import Loop, loops
from wire.http import HttpClient, Transport

log = logging.getLogger("zhenfu.programs")

FINISH_SECONDS = 10.0
"""What has been begun when the program is told to stop has so long to end; the rest comes back from its rows."""

GRACEFUL_SECONDS = 15.0
DATABASE_WAIT_SECONDS = 60.0
"""A program that starts while the database is away waits for it; after that it dies and is started again."""

SERVER_NAME = "zhenfu"
BACKLOG = 2048
"""Connections that wait to be taken: one that finds no room tries again after seconds, longer than a platform waits."""

HOUSEKEEPING_EVERY = timedelta(hours=1)


def clock_of(settings: Settings) -> Clock:
    """The machine's clock, or the sandbox's movable one."""
    return OffsetClock(settings.clock_offset_file) if settings.clock_offset_file else SystemClock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Wired:
    """A program's services and what must be closed after them."""

    services: Services
    background: BoundedBackground
    transport: Transport
    tokens: TokenStore
    _close: AsyncExitStack

    async def finish(self) -> None:
        """Let work under way end, then close connections."""
        await self.background.finish(seconds=FINISH_SECONDS)
        await self._close.aclose()


def wire(
    settings: Settings, kind: str, *, programs: int = 1, watched: Callable[[Transport], Transport] | None = None
) -> Wired:
    """Everything on real connections, none of them opened yet.

    `programs` is how many programs share a HIS's limit on calls; `watched` may put something around the client
    that calls counterparties. Raises ConfigurationError.
    """
    clock = clock_of(settings)
    keyring = settings.keyring()
    transport = HttpClient()
    background = BoundedBackground()
    close = AsyncExitStack()
    close.push_async_callback(transport.close)
    tokens: TokenStore
    limiter: Limiter
    if settings.redis_url:
        client = connect(settings.redis_url)
        close.push_async_callback(client.aclose)
        link = RedisLink(client, clock=clock)
        tokens, limiter = RedisTokenStore(link), RedisLimiter(link, clock=clock)
    elif settings.is_sandbox:
        tokens, limiter = MemoryTokenStore(clock=clock), MemoryLimiter(clock=clock)
    else:
        raise ConfigurationError("REDIS_URL is not set: redis://host:6379/0, shared by all programs")
    used: Transport = watched(transport) if watched else transport
    services = build_services(
        clock=clock,
        ids=Ids(clock),
        keyring=keyring,
        transport=used,
        tokens=tokens,
        limiter=limiter,
        background=background,
        public_url=settings.public_url,
        program=program_name(kind),
        guard=GuardSettings(processes=programs),
        downloads=transport,
    )
    return Wired(services=services, background=background, transport=used, tokens=tokens, _close=close)


@asynccontextmanager
async def checked_database(settings: Settings) -> AsyncIterator[None]:
    """The models, in a database that is ours. Raises ConfigurationError."""
    async with database(settings.database_url, pool_max=2):
        await check_deployment(settings.deployment_id, settings.keyring())
        yield


# ---------------------------------------------------------------- the web process


def server(settings: Settings, *, programs: int = 1, ready: Ready | None = None) -> Sanic[Any, Any]:
    """The application with its connections opened before it serves and closed after its last answer."""
    wired = wire(settings, "web", programs=programs)
    app = build_app(
        wired.services,
        session_key=settings.session_key,
        name=SERVER_NAME,
        proxies_count=settings.proxies_count,
        more=[*chat_blueprints(wired), *staff_blueprints(settings, wired)],
        answers={settings.staff_path: staff_answer} if settings.staff_path else {},
    )
    adopt_sanic()
    app.config.AUTO_EXTEND = False  # the extensions write into a context that is ours and frozen
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = GRACEFUL_SECONDS
    held = _HeldDatabase(settings)

    async def open_database(app: Sanic[Any, Any]) -> None:
        await held.open()

    async def announce(app: Sanic[Any, Any]) -> None:
        log.info("serving", extra={"fields": {"program": wired.services.outside.program}})
        if ready is not None:
            ready()

    async def close_all(app: Sanic[Any, Any]) -> None:
        await wired.finish()
        await held.close()

    app.register_listener(open_database, "before_server_start")
    app.register_listener(announce, "after_server_start")
    app.register_listener(close_all, "after_server_stop")
    return app


def chat_blueprints(wired: Wired) -> list[Blueprint]:
    """What the chat room answers over HTTP."""
    services = wired.services
    return [
        callback.blueprint(build_callback(services, transport=wired.transport, tokens=wired.tokens)),
        files.blueprint(files.VerificationFiles(services.institutions, services.outside.clock)),
    ]


def staff_blueprints(settings: Settings, wired: Wired) -> list[Blueprint]:
    """What the staff's room answers over HTTP."""
    return [staff.blueprint(wired.services, path=settings.staff_path)] if settings.staff_path else []


class _HeldDatabase:
    """A database context held by one task: what opens it must also close it, and listeners are tasks of their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(opened), name="database")
        await asyncio.wait({self._task, opened}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    async def _hold(self, opened: asyncio.Future[None]) -> None:
        await wait_for_database(self._settings.database_url, seconds=DATABASE_WAIT_SECONDS)
        async with database(self._settings.database_url, pool_max=self._settings.pool_max, everywhere=True):
            # The pool is made at the first question: a server that cannot ask must not begin to answer.
            await Tortoise.get_connection("default").execute_query("SELECT 1")
            opened.set_result(None)
            await self._closing.wait()

    async def close(self) -> None:
        self._closing.set()
        if self._task is not None:
            await self._task


def run_server(settings: Settings, ready: Ready, *, programs: int = 1, on: socket.socket | None = None) -> None:
    """One web process until SIGTERM. A start that fails raises."""
    app = server(settings, programs=programs, ready=ready)
    app.run(
        sock=on or listen(settings.host, settings.port),
        backlog=BACKLOG,
        single_process=True,
        access_log=False,
        motd=False,
        debug=False,
    )


# ---------------------------------------------------------------- the worker


async def worker(settings: Settings, stopping: asyncio.Event, *, programs: int = 1, ready: Ready | None = None) -> None:
    """Work what is due until `stopping` is set; work under way is then let end."""
    wired = wire(settings, "worker", programs=programs)
    under_way = _UnderWay()
    try:
        if not await _before(stopping, wait_for_database(settings.database_url, seconds=DATABASE_WAIT_SECONDS)):
            return
        async with database(settings.database_url, pool_max=settings.pool_max):
            await Tortoise.get_connection("default").execute_query("SELECT 1")
            services = wired.services
            tasks = [
                asyncio.create_task(
                    scheduler_worker.run(services, kinds=[under_way.watch(loop) for loop in loops(services)]),
                    name="loops",
                ),
                asyncio.create_task(housekeeping(services), name="housekeeping"),
                asyncio.create_task(seals.run(services), name="seals"),
                asyncio.create_task(settled_cases.run(services), name="settled_cases"),
            ]
            log.info("working", extra={"fields": {"program": services.outside.program}})
            if ready is not None:
                ready()
            stop = asyncio.create_task(stopping.wait(), name="stop")
            done, _ = await asyncio.wait({*tasks, stop}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, stop):
                task.cancel()
            await asyncio.gather(*tasks, stop, return_exceptions=True)
            await under_way.finish(seconds=FINISH_SECONDS)
            for task in done - {stop}:
                task.result()  # loops never end by themselves
    finally:
        await wired.finish()


async def _before(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do it, unless we are told to stop first; then False."""
    task, stop = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


class _UnderWay:
    """Work that goes on when its loop is cancelled, so that a stop leaves no lease behind and no call half made."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def watch(self, loop: Loop) -> Loop:
        return replace(loop, work=self._shielded(loop.work))

    def _shielded(self, work: Callable[[DueRow], Awaitable[Any]]) -> Callable[[DueRow], Awaitable[Any]]:
        async def shielded(row: DueRow) -> Any:
            task = asyncio.ensure_future(work(row))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return await asyncio.shield(task)

        return shielded

    async def finish(self, *, seconds: float) -> None:
        if self._tasks:
            _, left = await asyncio.wait(set(self._tasks), timeout=seconds)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


async def housekeeping(services: Services) -> None:
    """What has no due time of its own, once an hour; a failure waits for the next hour."""
    while True:
        try:
            forgotten = await services.payments.forget_old_keys()
            sealed_anew = 0
            while changed := await services.rotation.step():
                sealed_anew += changed
            fields = {"idempotency_keys_forgotten": forgotten, "values_sealed_anew": sealed_anew}
            log.info("housekeeping", extra={"fields": fields})
        except Exception:
            log.exception("housekeeping_failed")
        await asyncio.sleep(HOUSEKEEPING_EVERY.total_seconds())


def run_worker(settings: Settings, ready: Ready, *, programs: int = 1) -> None:
    """One worker process until SIGTERM."""

    async def until_told() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await worker(settings, stopping, programs=programs, ready=ready)

    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_told())
