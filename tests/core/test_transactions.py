"""One transaction or a savepoint; a deadlock is retried once; no counterparty is called inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import psycopg
import pytest
from tortoise.exceptions import IntegrityError

from core.errors import NotReached
from core.models import Institution
from core.transactions import DEADLOCK_TRIES, atomically, open_transaction, rows, transaction, violated
from runtime.database import database
from tests.support.postgres import Database
from tests.support.transports import UNREACHABLE, InProcessTransport
from wire.http import HttpClient, HttpRequest

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def impatient_database(module_database: Database) -> Database:
    """Finds a deadlock after 30 ms instead of a second."""
    with psycopg.connect(module_database.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {module_database.name} SET deadlock_timeout = '30ms'".encode())
    return module_database


@pytest.fixture
async def opened(impatient_database: Database) -> AsyncIterator[None]:
    async with database(impatient_database.app_dsn):
        yield
    with psycopg.connect(impatient_database.owner_dsn) as connection:
        connection.execute("DELETE FROM institution")


async def an_institution(number: int) -> UUID:
    row = await Institution.create(id=UUID(int=number), code=f"code-{number}", name_zh="仁和医院", created_at=NOON)
    return row.id


async def codes() -> list[str]:
    return sorted([row.code for row in await Institution.all()])


async def rename(number: int, name: str) -> None:
    await Institution.filter(id=UUID(int=number)).update(name_zh=name)


# ---------------------------------------------------------------- transaction


async def test_what_fails_leaves_nothing_behind(opened: None) -> None:
    async def fails() -> None:
        async with transaction():
            await an_institution(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await codes() == []


async def test_a_transaction_inside_another_is_a_savepoint(opened: None) -> None:
    async def fails() -> None:
        async with transaction():
            await an_institution(2)
            await an_institution(1)

    async with transaction():
        await an_institution(1)
        with pytest.raises(IntegrityError):
            await fails()
        async with transaction():
            await an_institution(3)
    assert await codes() == ["code-1", "code-3"]


async def test_what_was_done_in_a_savepoint_falls_with_the_whole(opened: None) -> None:
    async def fails() -> None:
        async with transaction():
            async with transaction():
                await an_institution(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await codes() == []


async def test_nobody_sees_it_before_the_commit(opened: None, impatient_database: Database) -> None:
    other = await asyncpg.connect(**impatient_database.app_credentials)
    try:
        async with transaction():
            await an_institution(1)
            assert await other.fetchval("SELECT count(*) FROM institution") == 0
        assert await other.fetchval("SELECT count(*) FROM institution") == 1
    finally:
        await other.close()


async def test_it_is_known_whether_a_transaction_is_open(opened: None) -> None:
    assert not open_transaction.get()
    async with transaction():
        assert open_transaction.get()
        async with transaction():
            assert open_transaction.get()
        assert open_transaction.get()
    assert not open_transaction.get()
    with pytest.raises(ZeroDivisionError):
        async with transaction():
            raise ZeroDivisionError
    assert not open_transaction.get()


async def test_other_tasks_do_not_have_our_transaction(opened: None) -> None:
    inside, may_end = asyncio.Event(), asyncio.Event()

    async def works() -> None:
        async with transaction():
            inside.set()
            await may_end.wait()

    task = asyncio.create_task(works())
    await inside.wait()
    assert not open_transaction.get()
    await an_institution(1)
    may_end.set()
    await task
    assert await codes() == ["code-1"]


async def test_rows_come_back_from_a_change_too(opened: None) -> None:
    await an_institution(1)
    change = "UPDATE institution SET phone = $2 WHERE code = $1 RETURNING code, phone"
    found = await rows(change, "code-1", "12320")
    assert found == [{"code": "code-1", "phone": "12320"}]


async def test_the_constraint_that_refused_is_named(opened: None) -> None:
    await an_institution(1)
    with pytest.raises(IntegrityError) as caught:
        await an_institution(1)
    assert violated(caught.value) == "institution_pkey"
    assert violated(IntegrityError("something else")) == ""
    assert violated(IntegrityError()) == ""


# ---------------------------------------------------------------- atomically


async def test_a_real_deadlock_is_retried_and_both_get_their_way(opened: None) -> None:
    await an_institution(1)
    await an_institution(2)
    met = asyncio.Barrier(2)
    tries: list[str] = []

    def crosswise(name: str, first: int, second: int) -> Callable[[], Awaitable[str]]:
        async def work() -> str:
            tries.append(name)
            await rename(first, name)
            if tries.count(name) == 1:
                await met.wait()
            await rename(second, name)
            return name

        return work

    done = await asyncio.gather(atomically(crosswise("甲", 1, 2)), atomically(crosswise("乙", 2, 1)))
    assert tuple(done) == ("甲", "乙")
    assert len(tries) >= 3
    assert len({row.name_zh for row in await Institution.all()}) == 1  # whoever came last wrote both


async def test_a_deadlock_is_tried_again_a_few_times_and_no_more(opened: None) -> None:
    tries = []

    async def work() -> None:
        tries.append(await an_institution(1))
        raise asyncpg.DeadlockDetectedError("again")

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await atomically(work)
    assert len(tries) == DEADLOCK_TRIES
    assert await codes() == []


@pytest.mark.parametrize("error", [ValueError, asyncpg.LockNotAvailableError, IntegrityError, asyncio.CancelledError])
async def test_nothing_else_is_retried(opened: None, error: type[BaseException]) -> None:
    tries = []

    async def work() -> None:
        tries.append(await an_institution(1))
        raise error("no")

    with pytest.raises(error):
        await atomically(work)
    assert len(tries) == 1
    assert await codes() == []


async def test_what_the_work_returns_comes_back(opened: None) -> None:
    async def work() -> int:
        await an_institution(1)
        return 7

    assert await atomically(work) == 7
    assert await codes() == ["code-1"]


# ---------------------------------------------------------------- no call inside

REQUEST = HttpRequest(method="GET", url=f"{UNREACHABLE}/x")


async def test_no_counterparty_is_called_while_a_transaction_is_open(opened: None) -> None:
    async with HttpClient() as client:
        for transport in (client, InProcessTransport({})):
            async with transaction():
                with pytest.raises(RuntimeError, match="transaction was open"):
                    await transport.send(REQUEST, deadline_seconds=5)
                async with transaction():
                    with pytest.raises(RuntimeError, match="transaction was open"):
                        await transport.send(REQUEST, deadline_seconds=5)
                with pytest.raises(RuntimeError, match="transaction was open"):
                    await transport.send(REQUEST, deadline_seconds=5)
                with pytest.raises(RuntimeError, match="transaction was open"):
                    await asyncio.create_task(transport.send(REQUEST, deadline_seconds=5))
            with pytest.raises(NotReached):
                await transport.send(REQUEST, deadline_seconds=5)


async def test_a_call_in_atomic_work_is_refused_and_nothing_is_kept(opened: None) -> None:
    async def work() -> None:
        await an_institution(1)
        await InProcessTransport({}).send(REQUEST, deadline_seconds=5)

    with pytest.raises(RuntimeError, match="transaction was open"):
        await atomically(work)
    assert await codes() == []
