"""The token store and the limiter on a real Redis, in memory, and while Redis is away."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from core.memory import MemoryLimiter, MemoryTokenStore
from core.ports import Limiter, TokenStore
from runtime.redis import AWAY_SECONDS, PREFIX, RedisLimiter, RedisLink, RedisTokenStore, connect
from simulators.clock import ManualClock

if TYPE_CHECKING:
    from tests.support.redis import RedisServer

SECOND = timedelta(seconds=1)
LONG = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 5, 6, 4, 0, tzinfo=UTC))


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(redis_server.url)
    yield client
    await client.aclose()


@pytest.fixture(params=["redis", "memory"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> TokenStore:
    if request.param == "memory":
        return MemoryTokenStore(clock=clock)
    return RedisTokenStore(RedisLink(request.getfixturevalue("client"), clock=clock))


@pytest.fixture(params=["redis", "memory"])
def limiter(request: pytest.FixtureRequest, clock: ManualClock) -> Limiter:
    if request.param == "memory":
        return MemoryLimiter(clock=clock)
    return RedisLimiter(RedisLink(request.getfixturevalue("client"), clock=clock), clock=clock)


# ---------------------------------------------------------------- both kinds


async def test_a_value_lives_as_long_as_it_was_given(store: TokenStore, clock: ManualClock) -> None:
    assert await store.get("t") is None
    await store.set("t", "令牌", life=timedelta(milliseconds=60))
    assert await store.get("t") == "令牌"
    await asyncio.sleep(0.08)
    clock.advance(SECOND)
    assert await store.get("t") is None
    await store.set("t", "x", life=timedelta(0))
    assert await store.get("t") is None
    await store.set("t", "x", life=LONG)
    await store.delete("t")
    assert await store.get("t") is None


async def test_a_lock_has_one_owner_until_it_is_released_or_ends(store: TokenStore, clock: ManualClock) -> None:
    got = await asyncio.gather(*(store.acquire("lock", f"owner {number}", life=LONG) for number in range(8)))
    assert got.count(True) == 1
    owner = f"owner {got.index(True)}"
    assert await store.acquire("lock", owner, life=LONG)  # asked again after a lost answer
    await store.release("lock", "somebody else")
    assert not await store.acquire("lock", "somebody else", life=LONG)
    await store.release("lock", owner)
    assert await store.acquire("lock", "next", life=timedelta(milliseconds=60))
    await asyncio.sleep(0.08)
    clock.advance(SECOND)
    assert await store.acquire("lock", "last", life=LONG)


async def test_a_limit_holds_in_every_stretch_of_time(limiter: Limiter, clock: ManualClock) -> None:
    per = timedelta(milliseconds=200)

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        clock.advance(timedelta(seconds=seconds))

    assert [await limiter.allow("k", limit=2, per=per) for _ in range(3)] == [True, True, False]
    assert await limiter.allow("another", limit=2, per=per)
    await wait(0.12)
    assert not await limiter.allow("k", limit=2, per=per)
    await wait(0.12)
    assert [await limiter.allow("k", limit=2, per=per) for _ in range(3)] == [True, True, False]
    assert not await limiter.allow("k", limit=0, per=per)


async def test_callers_at_once_share_one_limit(limiter: Limiter) -> None:
    got = await asyncio.gather(*(limiter.allow("k", limit=5, per=LONG) for _ in range(40)))
    assert got.count(True) == 5


async def test_a_lowered_limit_counts_what_was_allowed_before(limiter: Limiter) -> None:
    assert [await limiter.allow("k", limit=5, per=LONG) for _ in range(5)] == [True] * 5
    assert not await limiter.allow("k", limit=3, per=LONG)
    assert not await limiter.allow("k", limit=3, per=LONG)


# ---------------------------------------------------------------- memory is bounded


async def test_a_full_memory_forgets_the_oldest(clock: ManualClock) -> None:
    store = MemoryTokenStore(clock=clock, entries_max=2)
    for key in ("a", "b", "a", "c"):
        await store.set(key, key, life=LONG)
    assert [await store.get(key) for key in ("a", "b", "c")] == ["a", None, "c"]
    store.forget()
    assert await store.get("a") is None

    limiter = MemoryLimiter(clock=clock, entries_max=2)
    for key in ("a", "b", "a", "c"):
        await limiter.allow(key, limit=1, per=LONG)
    assert [await limiter.allow(key, limit=1, per=LONG) for key in ("a", "c", "b")] == [False, False, True]


# ---------------------------------------------------------------- real Redis only


async def test_everything_in_redis_ends_by_itself_and_names_nobody(client: Redis, clock: ManualClock) -> None:
    link = RedisLink(client, clock=clock)
    store, limiter = RedisTokenStore(link), RedisLimiter(link, clock=clock)
    await store.set("t", "x", life=LONG)
    await store.acquire("l", "me", life=LONG)
    await limiter.allow("phone 13900001234", limit=3, per=LONG)
    keys = [key if isinstance(key, bytes) else key.encode() for key in await client.keys("*")]
    assert len(keys) == 3
    for key in keys:
        assert key.startswith(PREFIX.encode())
        assert b"13900001234" not in key
        assert 0 < await client.pttl(key) <= 3_600_000


# ---------------------------------------------------------------- away


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "runtime.redis"]


async def test_while_redis_is_away_tokens_are_forgotten_and_limits_are_kept_here(
    redis_server: RedisServer, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runtime.redis")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = connect(f"redis://:hidden@127.0.0.1:{closed.getsockname()[1]}/0")
        link = RedisLink(client, clock=clock)
        store, limiter = RedisTokenStore(link), RedisLimiter(link, clock=clock)
        await store.set("t", "x", life=LONG)
        assert await store.get("t") is None
        assert await store.acquire("l", "one", life=LONG)
        assert await store.acquire("l", "other", life=LONG)
        await store.release("l", "one")
        await store.delete("t")
        assert [await limiter.allow("k", limit=2, per=LONG) for _ in range(3)] == [True, True, False]
        assert events(caplog) == ["redis_away"]
        assert "hidden" not in str([vars(record) for record in caplog.records])
        clock.advance(timedelta(seconds=AWAY_SECONDS))
        assert await store.get("t") is None
        await client.aclose()
    assert events(caplog) == ["redis_away"]


async def test_redis_comes_back_and_is_used_again(
    client: Redis, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runtime.redis")
    link = RedisLink(client, clock=clock)
    store = RedisTokenStore(link)

    async def fail(client: Redis) -> str:
        raise ConnectionResetError

    assert await link.ask(fail) is None
    await store.set("t", "lost", life=LONG)  # nobody asks for a while
    clock.advance(timedelta(seconds=AWAY_SECONDS))
    await store.set("t", "kept", life=LONG)
    assert await store.get("t") == "kept"
    assert events(caplog) == ["redis_away", "redis_back"]


async def test_a_redis_that_hangs_holds_nobody_up_for_long(clock: ManualClock) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    client = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    limiter = RedisLimiter(RedisLink(client, clock=clock), clock=clock)
    began = asyncio.get_running_loop().time()
    assert await limiter.allow("k", limit=1, per=LONG)
    assert asyncio.get_running_loop().time() - began < 3
    assert not await limiter.allow("k", limit=1, per=LONG)
    assert asyncio.get_running_loop().time() - began < 3
    await client.aclose()
    server.close()


async def test_an_emptied_redis_is_an_empty_store(client: Redis, clock: ManualClock) -> None:
    store = RedisTokenStore(RedisLink(client, clock=clock))
    await store.set("t", "x", life=LONG)
    await client.flushall()
    assert await store.get("t") is None
    assert await store.acquire("l", "me", life=LONG)


async def test_the_sandboxs_redis_understands_the_same_scripts(clock: ManualClock) -> None:
    from runtime.embedded_redis import EmbeddedRedis

    redis = EmbeddedRedis()
    address = redis.start()
    client = connect(f"redis://{address.host}:{address.port}/0")
    try:
        link = RedisLink(client, clock=clock)
        store, limiter = RedisTokenStore(link), RedisLimiter(link, clock=clock)
        assert await store.acquire("l", "me", life=LONG)
        assert not await store.acquire("l", "you", life=LONG)
        await store.release("l", "me")
        assert await store.acquire("l", "you", life=LONG)
        assert [await limiter.allow("k", limit=2, per=LONG) for _ in range(3)] == [True, True, False]
        assert await client.pttl((await client.keys(PREFIX + "limit:*"))[0]) > 0
    finally:
        await client.aclose()
        redis.stop()
