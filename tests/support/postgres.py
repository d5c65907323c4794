"""PostgreSQL for tests, with or without pytest: one cluster per run, an empty database per asking.

Making a database takes ten times as long as emptying one, so a database in which only the programs' role has been
is emptied and given to the next who asks.

ZHENFU_TEST_POSTGRES chooses the programs: `embedded` (PostgreSQL 18 from the lock) or a folder such as
/usr/lib/postgresql/15/bin.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

from runtime.embedded_postgres import APP_ROLE, OWNER_ROLE, SUPERUSER, EmbeddedPostgres

TEMPLATE = "zhenfu_template"
USES_MAX = 100
"""What is deleted stays in a table's file for a while: after so many tests a database is dropped all the same."""

LEAVE_SECONDS = 10

SWEEPING = """
SELECT string_agg(CASE relkind
    WHEN 'r' THEN format('DELETE FROM public.%%I', relname)
    ELSE format('SELECT setval(%%L, seqstart, false) FROM pg_sequence WHERE seqrelid = %%s', oid::regclass, oid)
    END, ';')
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND CASE relkind
    WHEN 'r' THEN has_table_privilege(%(role)s, oid, 'INSERT, UPDATE, DELETE')
    WHEN 'S' THEN has_sequence_privilege(%(role)s, oid, 'USAGE, UPDATE') END
"""
"""The statements that leave nothing behind of what the programs' role can write."""

_numbers = itertools.count(1)
_emptied: WeakKeyDictionary[EmbeddedPostgres, list[Database]] = WeakKeyDictionary()


@dataclass(slots=True)
class Database:
    """A database of its own, and how to reach it in each role."""

    name: str
    cluster: EmbeddedPostgres
    uses: int = field(default=0, init=False)
    is_rebuilt: bool = field(default=False, init=False)
    """Somebody may have changed more than rows."""

    broom: psycopg.Connection | None = field(default=None, init=False, repr=False)
    sweeping: str = field(default="", init=False, repr=False)

    def let_go(self) -> None:
        if self.broom is not None:
            self.broom.close()

    def drop(self) -> None:
        self.let_go()
        self.cluster.drop_database(self.name)

    @property
    def app_dsn(self) -> str:
        return self.cluster.dsn(self.name, APP_ROLE)

    @property
    def owner_dsn(self) -> str:
        self.is_rebuilt = True
        return self.cluster.dsn(self.name, OWNER_ROLE)

    @property
    def superuser_dsn(self) -> str:
        self.is_rebuilt = True
        return self.cluster.superuser_dsn(self.name)

    @property
    def superuser_credentials(self) -> dict[str, Any]:
        """For asyncpg, which does not read libpq's form."""
        self.is_rebuilt = True
        return self.cluster.credentials(self.name, SUPERUSER) | {"host": str(self.cluster.socket_folder)}

    @property
    def app_credentials(self) -> dict[str, Any]:
        return self.cluster.credentials(self.name, APP_ROLE)

    @property
    def owner_credentials(self) -> dict[str, Any]:
        self.is_rebuilt = True
        return self.cluster.credentials(self.name, OWNER_ROLE)


def chosen_binaries() -> Path | None:
    """The folder that ZHENFU_TEST_POSTGRES names, None for the packaged PostgreSQL."""
    chosen = os.environ.get("ZHENFU_TEST_POSTGRES", "embedded")
    if chosen == "embedded":
        return None
    if not (Path(chosen) / "postgres").exists():
        raise RuntimeError(f"ZHENFU_TEST_POSTGRES={chosen}: no PostgreSQL there; `make test` installs postgresql-15")
    return Path(chosen)


@contextmanager
def a_cluster() -> Iterator[EmbeddedPostgres]:
    """A running cluster that is gone afterwards, also when this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="zhenfu-postgres-"))
    cluster = EmbeddedPostgres(folder, binaries=chosen_binaries(), durable=False)
    try:
        cluster.start(die_with_us=True)
        yield cluster
    finally:
        for database in _emptied.pop(cluster, ()):
            database.let_go()
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def an_empty_database(cluster: EmbeddedPostgres) -> Iterator[Database]:
    """Nothing in it: for tests of migrations themselves."""
    database = _a_new_database(cluster, template=None)
    try:
        yield database
    finally:
        cluster.drop_database(database.name)


@contextmanager
def a_migrated_database(cluster: EmbeddedPostgres) -> Iterator[Database]:
    """As after `zhenfu migrate`; copied from a template that is migrated once per cluster, or emptied again."""
    if not cluster.has_database(TEMPLATE):
        cluster.create_database(TEMPLATE)
        try:
            _migrate(cluster.dsn(TEMPLATE, OWNER_ROLE))
        except BaseException:
            cluster.drop_database(TEMPLATE)
            raise
    spare = _emptied.setdefault(cluster, [])
    database = spare.pop() if spare else _a_new_database(cluster, template=TEMPLATE)
    database.uses += 1
    try:
        yield database
        if database.is_rebuilt or database.uses >= USES_MAX:
            database.drop()
        else:
            _empty(database)
            spare.append(database)
    except BaseException:
        database.drop()
        raise


def _a_new_database(cluster: EmbeddedPostgres, *, template: str | None) -> Database:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    cluster.create_database(name, template=template)
    return Database(name, cluster)


def _empty(database: Database) -> None:
    """Everybody out, and no row left where the programs' role can write; triggers that forbid it do not fire."""
    if database.broom is None:
        database.broom = psycopg.connect(database.cluster.superuser_dsn(database.name), autocommit=True)
        database.broom.execute("SET session_replication_role = replica")
    database.broom.execute(
        "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        [LEAVE_SECONDS * 1000],
    )
    if not database.sweeping:
        ((database.sweeping,),) = database.broom.execute(SWEEPING, {"role": APP_ROLE}).fetchall()
    database.broom.execute(database.sweeping)


def _migrate(owner_url: str) -> None:
    """In a thread, so that no event loop and no context of the test is in its way."""
    from runtime.database import migrate  # late: most tests need no database

    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(lambda: asyncio.run(migrate(owner_url))).result()
