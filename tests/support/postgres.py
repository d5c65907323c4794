"""PostgreSQL for tests, with or without pytest: one cluster per run, a fresh database per asking.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.embedded_postgres import APP_ROLE, OWNER_ROLE, EmbeddedPostgres

TEMPLATE = "zhenfu_template"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Database:
    """A database of its own, and how to reach it in each role."""

    name: str
    cluster: EmbeddedPostgres

    @property
    def app_dsn(self) -> str:
        return self.cluster.dsn(self.name, APP_ROLE)

    @property
    def owner_dsn(self) -> str:
        return self.cluster.dsn(self.name, OWNER_ROLE)

    @property
    def superuser_dsn(self) -> str:
        return self.cluster.superuser_dsn(self.name)

    @property
    def app_credentials(self) -> dict[str, Any]:
        return self.cluster.credentials(self.name, APP_ROLE)

    @property
    def owner_credentials(self) -> dict[str, Any]:
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
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def an_empty_database(cluster: EmbeddedPostgres) -> Iterator[Database]:
    """Nothing in it: for tests of migrations themselves."""
    with _database(cluster, template=None) as database:
        yield database


@contextmanager
def a_migrated_database(cluster: EmbeddedPostgres) -> Iterator[Database]:
    """As after `zhenfu migrate`; copied from a template that is migrated once per cluster."""
    if not cluster.has_database(TEMPLATE):
        cluster.create_database(TEMPLATE)
        try:
            _migrate(cluster.dsn(TEMPLATE, OWNER_ROLE))
        except BaseException:
            cluster.drop_database(TEMPLATE)
            raise
    with _database(cluster, template=TEMPLATE) as database:
        yield database


@contextmanager
def _database(cluster: EmbeddedPostgres, *, template: str | None) -> Iterator[Database]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    cluster.create_database(name, template=template)
    try:
        yield Database(name, cluster)
    finally:
        cluster.drop_database(name)


def _migrate(owner_url: str) -> None:
    """In a thread, so that no event loop and no context of the test is in its way."""
    from runtime.database import migrate  # late: most tests need no database

    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(lambda: asyncio.run(migrate(owner_url))).result()
