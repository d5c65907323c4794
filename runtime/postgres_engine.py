"""Tortoise's asyncpg engine with transactions that survive cancelled tasks and lost connections.

In Tortoise 1.1.9 a task cancelled in BEGIN leaks its connection, and a connection lost in BEGIN leaves a
dead client in the task's context. Named as `engine` in the connection's configuration.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from asyncpg import InterfaceError
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import TransactionalDBClient, TransactionContext, TransactionContextPooled
from tortoise.connection import get_connections
from tortoise.exceptions import TransactionManagementError


class SafeTransactionContext(TransactionContextPooled):
    """Always gives the connection back and always restores the context, whatever was interrupted."""

    __slots__ = ()

    async def __aenter__(self) -> TransactionalDBClient:
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


class ZhenfuAsyncpgClient(AsyncpgDBClient):
    """The client that the rest of the product sees through Tortoise."""

    def _in_transaction(self) -> TransactionContext:
        return SafeTransactionContext(TransactionWrapper(self), self._pool_init_lock)


client_class = ZhenfuAsyncpgClient
"""The name by which Tortoise finds the client in an engine module."""
