"""Tortoise's asyncpg engine with transactions that survive cancelled tasks and lost connections.

In Tortoise 1.1.9 a task cancelled in BEGIN leaks its connection, and a connection lost in BEGIN leaves a
dead client in the task's context. Named as `engine` in the connection's configuration.

A lost server is told by the driver in many ways, by moment and by luck; here they become one: ServiceUnavailable. So
does a server that had too much to do: what was begun is undone, and whoever asked may come again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg
from asyncpg import InterfaceError
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import (
    NestedTransactionContext,
    TransactionalDBClient,
    TransactionContext,
    TransactionContextPooled,
)
from tortoise.connection import get_connections
from tortoise.exceptions import TransactionManagementError

from core.errors import ServiceUnavailable

log = logging.getLogger("zhenfu.database")

LOST = (
    OSError,  # refused, reset, unknown host; TimeoutError, too
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a former primary after a switch-over
    asyncpg.TooManyConnectionsError,
)
BUSY = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""Waited for a lock, or worked, longer than the server allows (runtime/database.py)."""

CLOSED_WORDS = ("closed", "closing", "released back to the pool")
"""In an InterfaceError: the connection has gone. Its other words are about mistakes of ours."""


def is_lost(error: BaseException) -> bool:
    """Whether this failure of the driver means that the server or the connection is gone."""
    if isinstance(error, asyncpg.InternalClientError):  # the driver's state after a loss that it had not seen
        return not isinstance(error, asyncpg.OutdatedSchemaCacheError)
    if isinstance(error, InterfaceError):
        return any(word in str(error) for word in CLOSED_WORDS)
    return isinstance(error, LOST)


@contextmanager
def _lost_is_away() -> Iterator[None]:
    """Around calls of the driver alone. Raises ServiceUnavailable."""
    try:
        yield
    except Exception as error:
        if is_lost(error) or isinstance(error, BUSY):
            event = "database_busy" if isinstance(error, BUSY) else "database_away"
            log.warning(event, extra={"fields": {"error": type(error).__name__}})
            raise ServiceUnavailable() from error
        raise


class SafeTransactionContext(TransactionContextPooled):
    """Always gives the connection back and always restores the context, whatever was interrupted."""

    __slots__ = ()

    async def __aenter__(self) -> TransactionalDBClient:
        with _lost_is_away():
            return await self._entered()

    async def _entered(self) -> TransactionalDBClient:
        await self.ensure_connection()
        pool = self.client._parent._pool
        self.client._connection = await pool.acquire()
        try:
            self.token = get_connections().set(self.connection_name, self.client)
            try:
                await self.client.begin()
            except BaseException:
                get_connections().reset(self.token)
                raise
        except BaseException:
            # What the server has seen of this connection is unknown: it must not be used again.
            _terminate(self.client._connection)
            await pool.release(self.client._connection)
            raise
        return self.client

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        connection = self.client._connection
        pool = self.client._parent._pool
        try:
            if not self.client._finalized:
                if exc_type:
                    if exc_type is not TransactionManagementError:
                        await self.client.rollback()
                else:
                    await self.client.commit()
        except BaseException:
            _terminate(connection)
            raise
        finally:
            get_connections().reset(self.token)
            if pool is not None:
                await pool.release(connection)


def _terminate(connection: Any) -> None:
    """End it; one that was lost on its own has already left the pool, which is no reason to hide why."""
    with suppress(InterfaceError):
        connection.terminate()


class ZhenfuTransaction(TransactionWrapper):
    """One transaction, or a savepoint in it."""

    async def _translate_exceptions(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        return await super()._translate_exceptions(_saying_away(func), *args, **kwargs)

    def _in_transaction(self) -> TransactionContext:
        return NestedTransactionContext(ZhenfuTransaction(self))

    async def commit(self) -> None:
        with _lost_is_away():
            await super().commit()

    async def rollback(self) -> None:
        with _lost_is_away():
            await super().rollback()


class ZhenfuAsyncpgClient(AsyncpgDBClient):
    """The client that the rest of the product sees through Tortoise."""

    async def _translate_exceptions(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        return await super()._translate_exceptions(_saying_away(func), *args, **kwargs)

    def _in_transaction(self) -> TransactionContext:
        return SafeTransactionContext(ZhenfuTransaction(self), self._pool_init_lock)


def _saying_away(func: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Before Tortoise translates: it knows some of these errors as something else."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        with _lost_is_away():
            return await func(*args, **kwargs)

    return call


client_class = ZhenfuAsyncpgClient
"""The name by which Tortoise finds the client in an engine module."""
