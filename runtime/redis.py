"""Redis: the connection, the TokenStore and the Limiter on it, and what they do while it is away.

Nothing here is ever needed to be right about money: Redis may be emptied, hang or vanish at any moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from core.clock import Clock
from core.memory import MemoryLimiter

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 50
POOL_WAIT_SECONDS = 1
SOCKET_SECONDS = 1
RETRIES = 3
CALL_SECONDS = 2  # for one call with all its retries
AWAY_SECONDS = 5  # after a failure nobody asks Redis for so long
PREFIX = "zhenfu:"

_Value = TypeVar("_Value")

# A lock may be asked for twice when the answer to the first time is lost: the same owner gets it again.
_ACQUIRE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1 end
return 0
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
# The times, in microseconds, of the latest allowed ones: never more than `limit` in any stretch of `per`.
_ALLOW = """
local time = redis.call('TIME')
local now, limit, per = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
while redis.call('LLEN', KEYS[1]) > limit do redis.call('LPOP', KEYS[1]) end
if redis.call('LLEN', KEYS[1]) == limit then
  if tonumber(redis.call('LINDEX', KEYS[1], 0)) > now - per then return 0 end
  redis.call('LPOP', KEYS[1])
end
redis.call('RPUSH', KEYS[1], string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(per / 1000))
return 1
"""


def connect(url: str) -> Redis:
    """A client with bounded waits everywhere; it connects when it is first used. Close it with `aclose()`."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=POOL_WAIT_SECONDS,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES),
    )
    return Redis.from_pool(pool)


class RedisLink:
    """One client's health, shared by all who use it: a failure is logged once, and once when it is over."""

    def __init__(self, client: Redis, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._ask_again_at: datetime | None = None

    async def ask(self, call: Callable[[Redis], Awaitable[_Value]]) -> _Value | None:
        """The call's result; None when Redis cannot be asked now. Raises nothing of Redis."""
        now = self._clock.now()
        if self._ask_again_at is not None and now < self._ask_again_at:
            return None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                value = await call(self._client)
        except (RedisError, OSError, TimeoutError) as error:
            if self._ask_again_at is None:
                logger.warning("redis_away", extra={"error": type(error).__name__})
            self._ask_again_at = now + timedelta(seconds=AWAY_SECONDS)
            return None
        if self._ask_again_at is not None:
            self._ask_again_at = None
            logger.warning("redis_back")
        return value


class RedisTokenStore:
    """A TokenStore on Redis; while Redis is away it behaves as if it had forgotten everything."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def get(self, key: str) -> str | None:
        value = await self._link.ask(lambda client: client.get(PREFIX + key))
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    async def set(self, key: str, value: str, *, life: timedelta) -> None:
        if (milliseconds := _milliseconds(life)) > 0:
            await self._link.ask(lambda client: client.set(PREFIX + key, value, px=milliseconds))
        else:
            await self.delete(key)

    async def delete(self, key: str) -> None:
        await self._link.ask(lambda client: client.delete(PREFIX + key))

    async def acquire(self, key: str, owner: str, *, life: timedelta) -> bool:
        """True also while Redis is away: then there is nobody to share the lock with."""
        given = await self._link.ask(lambda client: _run(client, _ACQUIRE, key, owner, max(_milliseconds(life), 1)))
        return given is None or given == 1

    async def release(self, key: str, owner: str) -> None:
        await self._link.ask(lambda client: _run(client, _RELEASE, key, owner))


class RedisLimiter:
    """A Limiter on Redis; while Redis is away each process limits for itself."""

    def __init__(self, link: RedisLink, *, clock: Clock) -> None:
        self._link = link
        self._alone = MemoryLimiter(clock=clock)

    async def allow(self, key: str, *, limit: int, per: timedelta) -> bool:
        if limit < 1:
            return False
        # Hashed, because a key may hold an address or a person's number, and any length.
        name = "limit:" + hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        microseconds = int(per / timedelta(microseconds=1))
        allowed = await self._link.ask(lambda client: _run(client, _ALLOW, name, limit, microseconds))
        if allowed is None:
            return await self._alone.allow(key, limit=limit, per=per)
        return bool(allowed)


async def _run(client: Redis, script: str, key: str, *arguments: str | int) -> Any:
    return await client.eval(script, 1, PREFIX + key, *map(str, arguments))


def _milliseconds(life: timedelta) -> int:
    return int(life / timedelta(milliseconds=1))
