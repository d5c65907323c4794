"""The programs' connections to PostgreSQL, gated; and the server itself, seen from beside.

No hook in production code: a connection class and a connect function are given to the driver's pool. Server
sessions outlive the programs that used them: after a crash they are rolled back and go to the next life, which
is what PostgreSQL does to a lost connection, and is twenty times faster than a new process with cold caches.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
from asyncpg.connection import _Atomic
from tortoise.context import TortoiseContext

from runtime.database import CONNECTION, configuration
from tests.crash.loop import VirtualLoop
from tests.crash.scheduler import Crashed, Life, Strike, Verdict, current_business, current_life

POOL_MAX = 3
CLEAN = "ROLLBACK; CLOSE ALL; UNLISTEN *; RESET ALL; DISCARD PLANS; SELECT pg_advisory_unlock_all()"
GONE_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 0.0005
WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "WITH"})
NUMBER = re.compile(r"[PRC][0-9A-HJKMNP-TV-Z]{25}")
_TABLE = re.compile(r'\b(?:INTO|UPDATE|FROM|JOIN|ONLY)\s+"?(\w+)"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a migrated database is, for programs and for the one who watches."""

    app_dsn: str
    superuser_dsn: str


class GatedConnection(asyncpg.Connection):  # type: ignore[misc]
    """One statement, with whatever preparation the driver needs for it, is one I/O."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.backend: int = self.get_server_pid()
        self.life: Life | None = None
        self.server: Postgres | None = None
        self._written: set[str] = set()
        self._begin = ""  # said by the program, not yet sent

    def __str__(self) -> str:
        return f"session {self.backend}"

    def in_transaction(self) -> bool:
        return self._protocol is not None and bool(self._protocol.is_in_transaction())

    def cancelling(self) -> bool:
        return self._protocol is not None and bool(self._protocol._is_cancelling())

    # --- what programs do ---

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if args:
            return str(await super().execute(query, *args, timeout=timeout))
        if self.life is not None:
            if query.startswith("BEGIN"):
                self._begin = query  # nobody can tell when it was sent: it goes out with the first statement
                return "BEGIN"
            if self._begin and query.startswith(("COMMIT", "ROLLBACK;")):
                self._begin = ""
                return query
            if query.startswith(("SAVEPOINT", "RELEASE")):  # … nor these, which no other session can see
                return await self._unseen(query)
        return str(await self._gated(query, (), lambda: super(GatedConnection, self).execute(query)))

    async def _execute(self, query: str, args: Any, limit: int, timeout: float | None, **options: Any) -> Any:
        run = super()._execute
        return await self._gated(query, args, lambda: run(query, args, limit, None, **options))

    async def _executemany(self, query: str, args: Any, timeout: float | None, **options: Any) -> Any:
        run = super()._executemany
        rows = list(args)
        return await self._gated(query, rows[0] if rows else (), lambda: run(query, rows, None, **options))

    async def _gated(self, query: str, args: Any, run: Callable[[], Awaitable[Any]]) -> Any:
        life = self.life
        if life is None:  # the harness itself
            return await run()
        scheduler = life.scheduler
        step = await scheduler.enter(life, label(query), key_of(args), self)
        outcome = ""
        try:
            if step.strike is Strike.LOSE_BEFORE:
                raise self._lost()
            if self.is_closed():  # cut while the statement waited for its turn
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            if self._begin:
                begin, self._begin = self._begin, ""
                await super().execute(begin)
            result = await run()
            self._tell_commit(life, step.call)
            if step.strike is Strike.LOSE_AFTER:
                raise self._lost()
        except BaseException as error:
            outcome = f" {type(error).__name__}"
            if life.dead:
                raise Crashed(step.call) from None
            if step.verdict is not None and isinstance(error, asyncpg.QueryCanceledError):
                outcome = f" {step.verdict}"
                raise _as_the_server_says(step.verdict) from None
            raise
        else:
            return result
        finally:
            scheduler.leave(step, outcome)

    async def _unseen(self, query: str) -> str:
        life = self.life
        assert life is not None
        if life.dead:
            raise Crashed(query)
        with life.scheduler.real():
            if self._begin:
                begin, self._begin = self._begin, ""
                await super().execute(begin)
            return str(await super().execute(query))

    def _tell_commit(self, life: Life, call: str) -> None:
        verb, _, table = call.partition(" ")
        if verb in WRITING:
            self._written.add(table)
        if self._written and not self.in_transaction():
            written, self._written = self._written, set()
            if verb != "ROLLBACK":
                for listener in life.scheduler.on_commit:
                    listener(written)

    def _lost(self) -> Exception:
        assert self.life is not None
        self.life.scheduler.counts["connections lost"] += 1
        self.life.scheduler.server.cut(self)
        error: Exception = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return error

    def terminate(self) -> None:
        """A program drops its connection: the server must have noticed before anything else happens."""
        if self.life is None or self.server is None:
            super().terminate()
        elif not self.life.dead:
            self.server.cut(self)

    async def close(self, *, timeout: float | None = None) -> None:
        self.terminate()

    def really_terminate(self) -> None:
        super().terminate()

    # --- between two lives ---

    def come_loose(self) -> None:
        """Leave the pool of the life that has ended."""
        own: Any = self  # the driver keeps no types
        holder = own._pool_holder() if own._pool_holder is not None else None
        own._pool_holder = None
        if holder is not None and holder._con is self:
            holder._con = None
        if own._proxy is not None:
            own._proxy._con = None
            own._proxy = None
        self._top_xact = None
        self._pool_release_ctr += 1
        self._stmt_exclusive_section = _Atomic()
        self._written = set()
        self._begin = ""
        self.life = None

    async def clean(self) -> None:
        await super().execute(CLEAN)


class Postgres:
    """The server beside the programs' connections: one per process, used by one run after the other."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._control = psycopg.connect(place.superuser_dsn, autocommit=True)
        self._idle: list[GatedConnection] = []
        self._contexts: dict[str, TortoiseContext] = {}
        self._frozen: set[int] = set()
        self._down = False
        self.stages: dict[str, Any] = {}  # what scenarios have prepared once for all their runs
        self._control.execute("SET session_replication_role = replica")  # past the triggers of what only grows
        self._tables = [
            str(name)
            for (name,) in self._control.execute(
                "SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'r'"
                " AND relnamespace = 'public'::regnamespace AND relname NOT LIKE '%migrations' ORDER BY relname"
            ).fetchall()
        ]
        self._settle()

    def _settle(self) -> None:
        """Switch off whatever the server would do at a moment of its own choosing."""
        (name,) = self._one("SELECT quote_ident(current_database())")
        for setting, value in (
            ("deadlock_timeout", "1h"),  # the scheduler finds rings itself, at once
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
            ("max_parallel_workers_per_gather", "0"),
            ("synchronous_commit", "off"),
        ):
            self._control.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        for table in self._tables:
            self._control.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")

    def close(self) -> None:
        for backend in list(self._frozen):
            self.thaw(backend)
        for connection in self._idle:
            connection.really_terminate()
        self._idle.clear()
        self._control.close()

    def empty(self) -> None:
        """Every table as it is after migration, on disk too: rows will lie where they lay last time."""
        self._down = False
        self._control.execute("TRUNCATE " + ", ".join(self._tables))

    def save(self) -> dict[str, bytes]:
        """Every row there is, to be loaded again into empty tables."""
        saved = {}
        for table in self._tables:
            with self._control.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                if rows := b"".join(bytes(block) for block in copy):
                    saved[table] = rows
        return saved

    def load(self, saved: Mapping[str, bytes]) -> None:
        for table, rows in saved.items():
            with self._control.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(rows)

    def execute(self, statement: str, *values: Any) -> None:
        """Change rows from beside, past all gates: for what the world does before anything runs."""
        self._control.execute(statement, values)

    def dump(self) -> dict[str, list[Any]]:
        """All rows of all tables, for comparison."""
        return {
            table: [row for (row,) in self._control.execute(f"SELECT t::text FROM {table} t ORDER BY 1").fetchall()]
            for table in self._tables
        }

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows seen from beside, past all gates: for oracles."""
        return self._control.execute(statement, values).fetchall()

    # --- what the scheduler asks ---

    def blockers(self, backends: list[int]) -> dict[int, list[int]]:
        rows = self._control.execute(
            "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS pid", [backends]
        ).fetchall()
        return {int(pid): list(held) for pid, held in rows}

    def freeze(self, backend: int) -> None:
        self._frozen.add(backend)
        os.kill(backend, signal.SIGSTOP)

    def thaw(self, backend: int) -> None:
        if backend in self._frozen:
            self._frozen.discard(backend)
            os.kill(backend, signal.SIGCONT)

    def break_off(self, backend: int) -> None:
        self._control.execute("SELECT pg_cancel_backend(%s)", [backend])

    def cut(self, connection: GatedConnection) -> None:
        self.thaw(connection.backend)
        connection.really_terminate()
        self._control.execute("SELECT pg_terminate_backend(%s)", [connection.backend])
        deadline = time.monotonic() + GONE_SECONDS
        while _lives(connection.backend):  # the server's own wait looks ten times a second
            if time.monotonic() > deadline:
                raise TimeoutError(f"server process {connection.backend} does not end")
            time.sleep(LOOK_AGAIN_SECONDS)

    def fall(self, lives: Iterable[Life]) -> None:
        """The server restarts: whatever was open is rolled back, every connection is gone. It comes back by `rise`."""
        self._down = True
        for life in lives:
            for connection in list(life.connections):
                if not connection.is_closed():
                    self.cut(connection)

    def rise(self) -> None:
        self._down = False

    async def give_back(self, life: Life) -> None:
        connections, life.connections = life.connections, []
        for connection in connections:
            connection.come_loose()
            if not connection.is_closed():
                with life.scheduler.real():
                    await connection.clean()
                self._idle.append(connection)

    # --- what a program asks ---

    def open(self, life: Life, *, pool_max: int = POOL_MAX) -> None:
        """Give the tasks that this life will start a database: Tortoise's context with a pool of its own."""
        context = self._contexts.get(life.name)
        if context is None:
            context = self._contexts[life.name] = self._new_context(pool_max)
        life.context.run(context.__enter__)
        client: Any = life.context.run(context.connections.get, CONNECTION)
        client._pool = None
        client._pool_init_lock = asyncio.Lock()
        client.create_pool = _create_pool

    def _new_context(self, pool_max: int) -> TortoiseContext:
        settings = configuration(
            self.place.app_dsn,
            pool_max=pool_max,
            with_timeouts=False,  # real seconds mean nothing here
            minsize=0,
            connection_class=GatedConnection,
            connect=self._connect,
            reset=_leave_as_it_is,
            statement_cache_size=2000,
            max_cached_statement_lifetime=0,
            max_inactive_connection_lifetime=0,
            max_queries=1 << 60,
        )
        context = TortoiseContext()
        with context:
            initialising = context.init(settings)
            try:
                initialising.send(None)  # it waits for nothing: connections are made when they are needed
            except StopIteration:
                return context
        raise AssertionError("Tortoise waits for something when it is initialised")

    async def _connect(self, *args: Any, **options: Any) -> GatedConnection:
        life = current_life()
        if life.dead:
            raise Crashed("connect")
        if self._down:
            raise ConnectionRefusedError("the database is away")
        if self._idle:
            connection = self._idle.pop()
        else:
            with life.scheduler.real():
                connection = await asyncpg.connect(*args, **options)
        connection.life = life
        connection.server = self
        life.connections.append(connection)
        return connection

    def _one(self, statement: str) -> tuple[Any, ...]:
        row = self._control.execute(statement).fetchone()
        assert row is not None
        return row


@contextmanager
def a_workbench(place: Place) -> Iterator[tuple[VirtualLoop, Postgres]]:
    """A loop and a server for any number of runs, one after the other."""
    loop = VirtualLoop()
    postgres = Postgres(place)
    try:
        yield loop, postgres
    finally:
        postgres.close()
        for _ in range(3):  # sockets close one turn after they are told to
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class PlainPool(asyncpg.Pool):  # type: ignore[misc]
    """Takes a connection back without a task of its own for it: here there is nothing to wait for."""

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        if connection._con is not None:
            self._check_init()
            connection._con._on_release()
            await connection._holder.release(timeout)


async def _create_pool(**options: Any) -> PlainPool:
    defaults = {"max_queries": 1 << 60, "setup": None, "init": None, "record_class": asyncpg.Record}
    pool: PlainPool = await PlainPool(None, **(defaults | options))
    return pool


async def _leave_as_it_is(connection: GatedConnection) -> None:
    """Sessions are cleaned between lives; within one, our programs leave nothing behind."""


def _as_the_server_says(verdict: Verdict) -> Exception:
    if verdict is Verdict.DEADLOCK:
        return asyncpg.DeadlockDetectedError("deadlock detected")  # type: ignore[no-any-return]
    return asyncpg.LockNotAvailableError("canceling statement due to lock timeout")  # type: ignore[no-any-return]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


_labels: dict[str, str] = {}


def label(query: str) -> str:
    """A statement's short name: its verb, its table, whether it locks."""
    name = _labels.get(query)
    if name is None:
        verb = query.split(None, 1)[0].rstrip(";").upper()
        table = _TABLE.search(query)
        locks = " LOCK" if verb == "SELECT" and re.search(r"\bFOR (NO KEY )?UPDATE\b", query) else ""
        name = _labels[query] = f"{verb} {table[1]}{locks}" if table else verb
    return name


def key_of(args: Any) -> str:
    """The business a statement is about: one of our numbers, or else an id, among its values."""
    found = ""
    for value in args or ():
        if isinstance(value, str):
            if len(value) == 26 and NUMBER.fullmatch(value):
                return value
        elif not found and isinstance(value, UUID):
            found = value.hex
    return found or current_business()
