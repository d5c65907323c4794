"""A database and a loop that the runs of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.database import Place, Postgres, a_workbench
from tests.crash.loop import VirtualLoop
from tests.support.postgres import Database


@pytest.fixture(scope="module")
def place(module_database: Database) -> Place:
    return Place(module_database.app_dsn, module_database.superuser_dsn)


@pytest.fixture(scope="module")
def bench(place: Place) -> Iterator[tuple[VirtualLoop, Postgres]]:
    with a_workbench(place) as bench:
        yield bench
