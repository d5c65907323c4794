"""Transactions on a pool whose tasks are cancelled, whose connections are cut and whose server goes away.

After each of these every connection of the pool can be had again, and the same task goes on working.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
from tortoise.context import TortoiseContext
from tortoise.transactions import in_transaction

from core.errors import ServiceUnavailable
from core.models import Institution
from core.transactions import open_transaction, rows, transaction
from runtime.database import APPLICATION_NAME, CONNECTION, database
from runtime.embedded_postgres import EmbeddedPostgres
from runtime.postgres_engine import SafeTransactionContext, ZhenfuAsyncpgClient, is_lost
from tests.support.postgres import Database, chosen_binaries

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
POOL = 4
CANCELLATIONS = 120
BACK_SECONDS = 1.0
GIVE_UP_SECONDS = 10.0


async def one() -> int:
    """A transaction that does something."""
    async with transaction():
        found = await rows("SELECT 1 AS one")
    return int(found[0]["one"])


async def nothing_is_leaked(context: TortoiseContext) -> None:
    """Every connection of the pool can be had, each is usable, and nobody is left inside a transaction."""
    client: Any = context.connections.get(CONNECTION)
    assert isinstance(client, ZhenfuAsyncpgClient)
    pool: Any = client._pool
    async with AsyncExitStack() as held:
        for _ in range(POOL):
            connection = await asyncio.wait_for(held.enter_async_context(pool.acquire()), 5)
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT 1") == 1
    assert pool.get_size() == pool.get_idle_size()
    assert not open_transaction.get()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[TortoiseContext]:
    async with database(url, pool_max=POOL) as context:
        yield context


@pytest.fixture
async def pool(module_database: Database) -> AsyncIterator[TortoiseContext]:
    async with opened(module_database.app_dsn) as context:
        yield context


def cut(database: Database) -> int:
    """End every connection of the programs; how many there were."""
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND datname = %s",
            [APPLICATION_NAME, database.name],
        ).fetchall()
    return len(ended)


async def test_transactions_are_of_the_safe_kind(pool: TortoiseContext) -> None:
    assert isinstance(in_transaction(CONNECTION), SafeTransactionContext)
    async with in_transaction(CONNECTION):
        assert not isinstance(in_transaction(CONNECTION), SafeTransactionContext)  # a savepoint


async def test_tasks_cancelled_at_any_moment_leak_no_connection(pool: TortoiseContext) -> None:
    """Cancelled all along the time that a transaction takes on this machine: in BEGIN, in the query, in COMMIT."""
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(one() for _ in range(POOL)))  # the pool is opened, which is another matter
    started = loop.time()
    await asyncio.gather(*(one() for _ in range(POOL)))
    whole = loop.time() - started
    finished = cancelled = 0
    for step in range(CANCELLATIONS):
        tasks = [asyncio.create_task(one()) for _ in range(POOL)]
        stop = loop.time() + 1.5 * whole * step / CANCELLATIONS
        while loop.time() < stop:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            finished += outcome == 1
            cancelled += isinstance(outcome, asyncio.CancelledError)
    assert finished + cancelled == CANCELLATIONS * POOL
    assert cancelled > POOL
    await nothing_is_leaked(pool)
    assert await one() == 1


async def test_a_pool_whose_opening_is_cancelled_is_opened_by_the_next(pool: TortoiseContext) -> None:
    for turns in range(CANCELLATIONS):
        task = asyncio.create_task(one())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert await one() == 1
    await nothing_is_leaked(pool)


async def test_a_task_cancelled_while_begin_waits_gives_its_connection_back(
    pool: TortoiseContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has seen BEGIN and we never heard of it."""
    begun = asyncio.Event()
    begin = ZhenfuAsyncpgClient._in_transaction

    def slow(client: ZhenfuAsyncpgClient) -> Any:
        context: Any = begin(client)
        inner = context.client.begin

        async def begin_and_wait() -> None:
            await inner()
            begun.set()
            await asyncio.sleep(60)

        context.client.begin = begin_and_wait
        return context

    monkeypatch.setattr(ZhenfuAsyncpgClient, "_in_transaction", slow)
    for _ in range(POOL + 1):
        begun.clear()
        task = asyncio.create_task(one())
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    monkeypatch.undo()
    await nothing_is_leaked(pool)
    assert await one() == 1


async def test_the_same_task_goes_on_after_a_failed_begin(
    pool: TortoiseContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its context must not keep the dead client."""
    begin = ZhenfuAsyncpgClient._in_transaction

    def broken(client: ZhenfuAsyncpgClient) -> Any:
        context: Any = begin(client)

        async def fails() -> None:
            raise ConnectionResetError("the line is dead")

        context.client.begin = fails
        return context

    monkeypatch.setattr(ZhenfuAsyncpgClient, "_in_transaction", broken)
    for _ in range(POOL + 1):
        with pytest.raises(ServiceUnavailable):
            await one()
    monkeypatch.undo()
    assert await one() == 1
    await nothing_is_leaked(pool)


async def test_work_that_fails_in_a_transaction_leaves_the_context_clean(pool: TortoiseContext) -> None:
    for _ in range(POOL + 1):
        with pytest.raises(ZeroDivisionError):
            async with transaction():
                raise ZeroDivisionError
    await nothing_is_leaked(pool)
    assert await one() == 1


async def test_after_cut_connections_the_first_tries_may_fail_and_then_all_succeed(
    pool: TortoiseContext, module_database: Database
) -> None:
    await asyncio.gather(*(one() for _ in range(POOL)))
    for _ in range(3):
        assert await asyncio.to_thread(cut, module_database) >= 1
        failed = 0
        for _ in range(POOL + 1):
            try:
                await one()
            except ServiceUnavailable:
                failed += 1
            else:
                break
        assert failed <= POOL  # each dead connection can disappoint once
        assert [await one() for _ in range(20)] == [1] * 20
        await nothing_is_leaked(pool)


async def test_a_connection_cut_inside_a_transaction_loses_only_that_transaction(
    pool: TortoiseContext, module_database: Database
) -> None:

    async def is_cut() -> None:
        async with transaction():
            await rows("SELECT 1 AS one")
            await asyncio.to_thread(cut, module_database)
            await rows("SELECT 1 AS one")

    with pytest.raises(ServiceUnavailable):
        await is_cut()
    with suppress(ServiceUnavailable):
        await one()
    assert [await one() for _ in range(POOL)] == [1] * POOL
    await nothing_is_leaked(pool)


async def test_a_commit_that_is_cut_off_is_an_error_and_never_a_success(
    pool: TortoiseContext, module_database: Database
) -> None:
    async def is_cut() -> None:
        async with transaction():
            await Institution.create(id=UUID(int=77), code="cut", name_zh="仁和医院", created_at=NOON)
            await asyncio.to_thread(cut, module_database)

    with pytest.raises(ServiceUnavailable):
        await is_cut()
    with psycopg.connect(module_database.app_dsn) as other:
        assert other.execute("SELECT count(*) FROM institution WHERE code = 'cut'").fetchone() == (0,)
    await nothing_is_leaked(pool)


async def test_cut_under_load_nothing_is_leaked_and_everybody_goes_on(
    pool: TortoiseContext, module_database: Database
) -> None:
    wins = [0] * (3 * POOL)
    stop = asyncio.Event()

    async def client(number: int) -> None:
        while not stop.is_set():
            try:
                wins[number] += await one()
            except ServiceUnavailable:
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(client(number)) for number in range(len(wins))]
    for _ in range(4):
        await asyncio.sleep(0.1)
        await asyncio.to_thread(cut, module_database)
    before = list(wins)
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*tasks), GIVE_UP_SECONDS)
    assert all(now > then for now, then in zip(wins, before, strict=True))
    await nothing_is_leaked(pool)


async def test_a_server_that_takes_too_long_is_told_as_busy(pool: TortoiseContext) -> None:
    async with in_transaction(CONNECTION) as connection:
        await connection.execute_query("SET LOCAL statement_timeout = '20ms'")
        with pytest.raises(ServiceUnavailable):
            await connection.execute_query("SELECT pg_sleep(5)")
    assert await one() == 1


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (asyncpg.InternalClientError("cannot switch to state 12; protocol is in the failed state"), True),
        (asyncpg.TargetServerAttributeNotMatched("no server that takes writes"), True),
        (asyncpg.InterfaceError("cannot perform operation: connection is closed"), True),
        (asyncpg.InterfaceError("pool is closing"), True),
        (asyncpg.InterfaceError("cannot call Connection.fetch(): connection has been released back to the pool"), True),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), True),
        (asyncpg.CannotConnectNowError("the database system is starting up"), True),
        (asyncpg.AdminShutdownError("terminating connection"), True),
        (asyncpg.CrashShutdownError("terminating connection"), True),
        (asyncpg.TooManyConnectionsError("too many clients already"), True),
        (asyncpg.IdleInTransactionSessionTimeoutError("terminating connection"), True),
        (asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), False),
        (asyncpg.OutdatedSchemaCacheError("cached statement"), False),
        (asyncpg.exceptions.DataError("invalid input for query argument"), False),
        (asyncpg.UniqueViolationError("payment_order_no"), False),
        (asyncpg.DeadlockDetectedError("again"), False),
        (asyncpg.LockNotAvailableError("lock timeout"), False),
        (asyncpg.InvalidPasswordError("no"), False),
        (ValueError("a mistake"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_says_that_the_server_is_gone(error: Exception, lost: bool) -> None:
    assert is_lost(error) is lost


@pytest.fixture
def cluster() -> Iterator[EmbeddedPostgres]:
    """A server of our own, to be stopped; not in tmp_path, which is closed to root's PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="zhenfu-test-") as name:
        Path(name).chmod(0o755)
        cluster = EmbeddedPostgres(Path(name) / "cluster", binaries=chosen_binaries(), durable=False)
        cluster.start()
        try:
            cluster.create_database("here")
            with cluster.superuser() as connection:
                connection.execute("CHECKPOINT")  # it does not wait for its disk: what is new would die with it
            yield cluster
        finally:
            cluster.stop()


@pytest.mark.database
async def test_a_server_restarted_under_load_is_used_again_within_a_second(cluster: EmbeddedPostgres) -> None:
    loop = asyncio.get_running_loop()
    async with opened(cluster.dsn("here")) as context:
        back_at = 0.0
        first_success: dict[int, float] = {}
        stop = asyncio.Event()
        failures = 0

        async def client(number: int) -> None:
            nonlocal failures
            while not stop.is_set():
                try:
                    await (one() if number % 2 else rows("SELECT 1 AS one"))
                except ServiceUnavailable:
                    failures += 1
                    await asyncio.sleep(0.05)
                else:
                    if back_at:
                        first_success.setdefault(number, loop.time())

        tasks = [asyncio.create_task(client(number)) for number in range(3 * POOL)]
        await asyncio.sleep(0.2)
        assert not failures
        with cluster.superuser("here") as connection:  # a server process dies, and the server drops everybody
            mine = "SELECT pid FROM pg_stat_activity WHERE application_name = %s LIMIT 1"
            (found,) = connection.execute(mine, [APPLICATION_NAME]).fetchall()
        os.kill(found[0], signal.SIGKILL)
        await asyncio.sleep(0.3)
        assert failures
        await asyncio.to_thread(cluster.stop)
        await asyncio.sleep(0.3)
        assert failures
        await asyncio.to_thread(cluster.start)
        back_at = loop.time()
        while len(first_success) < len(tasks) and loop.time() < back_at + GIVE_UP_SECONDS:
            await asyncio.sleep(0.02)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), GIVE_UP_SECONDS)
        assert len(first_success) == len(tasks)
        assert min(first_success.values()) - back_at < BACK_SECONDS
        await nothing_is_leaked(context)
