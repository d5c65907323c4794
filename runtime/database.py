"""Opening and migrating the database; the only place that knows how Tortoise is configured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
from tortoise import Tortoise
from tortoise.context import TortoiseContext
from tortoise.migrations.api import migrate as migrate_models

APPLICATION_NAME = "zhenfu"
CONNECTION = "default"
MODELS = "core.models"
MIGRATIONS = "core.migrations"
MIGRATION_LOCK = 7_235_401_118  # any number, the same in every program of ours
POOL_MAX = 8
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 3_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
CONNECT_SECONDS = 5
KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 10
COMMAND_SECONDS = 15


def credentials_of(url: str) -> dict[str, Any]:
    """postgres://user:password@host:port/name as Tortoise's and asyncpg's keywords."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"} or not parts.path.strip("/"):
        raise ValueError("a database address looks like postgres://user:password@host:5432/name")
    return {
        "host": unquote(parts.hostname or "127.0.0.1"),
        "port": parts.port or 5432,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.lstrip("/")),
    }


def configuration(url: str, *, pool_max: int = POOL_MAX, with_timeouts: bool = True, **extra: Any) -> dict[str, Any]:
    """Tortoise's configuration for the database at `url`; `extra` goes to the driver's pool."""
    credentials = credentials_of(url) | {"minsize": 1, "maxsize": pool_max, "timeout": CONNECT_SECONDS}
    settings = {
        "application_name": APPLICATION_NAME,
        "timezone": "UTC",
        "tcp_keepalives_idle": str(KEEPALIVE_IDLE_SECONDS),
        "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_SECONDS),
    }
    if with_timeouts:
        credentials["command_timeout"] = COMMAND_SECONDS
        settings |= {
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        }
    credentials["server_settings"] = settings
    credentials["reset"] = _leave_as_it_is
    return {
        "connections": {
            CONNECTION: {"engine": "runtime.postgres_engine", "credentials": credentials | extra},
        },
        "apps": {"core": {"models": [MODELS], "default_connection": CONNECTION, "migrations": MIGRATIONS}},
        "use_tz": True,
        "timezone": "UTC",
    }


@asynccontextmanager
async def database(
    url: str, *, pool_max: int = POOL_MAX, everywhere: bool = False, **extra: Any
) -> AsyncIterator[TortoiseContext]:
    """The models on a pool of their own, for the tasks begun inside.

    `everywhere`: for all tasks of this process, also those begun elsewhere (a web server's handlers). `extra`
    goes to the driver's pool.
    """
    async with TortoiseContext() as context:  # entered first: init looks for itself in the current context
        await context.init(configuration(url, pool_max=pool_max, **extra), _enable_global_fallback=everywhere)
        yield context


async def _leave_as_it_is(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """No SET, LISTEN or session lock is used on these connections: giving one back costs no round trip."""


async def migrate(owner_url: str) -> None:
    """Bring the schema up to date. Safe to run from several programs at once."""
    guard = await asyncpg.connect(**credentials_of(owner_url))
    try:
        await guard.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        await migrate_models(config=configuration(owner_url, with_timeouts=False))
    finally:
        await guard.close()
        await Tortoise.close_connections()


async def wait_for_database(url: str, *, seconds: float) -> None:
    """Return when the database answers; raises the last error after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            connection = await asyncpg.connect(**credentials_of(url), timeout=CONNECT_SECONDS)
        except (OSError, asyncpg.PostgresError):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            await connection.close()
            return
