"""What every test can ask for; the work is done in tests/support, which needs no pytest."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("tests.support")

from tests.support import loopback  # noqa: E402  (the line above must come first)
from tests.support.postgres import a_cluster, a_migrated_database, an_empty_database  # noqa: E402
from tests.support.redis import a_redis_server  # noqa: E402
from tests.support.serving import serve as serve_app  # noqa: E402

if TYPE_CHECKING:
    from playwright.async_api import Browser
    from sanic import Sanic
    from tortoise.context import TortoiseContext

    from runtime.embedded_postgres import EmbeddedPostgres
    from tests.support.postgres import Database
    from tests.support.redis import RedisServer

_KEPT_VARIABLES = frozenset({
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "USER",
    "VIRTUAL_ENV", "COLUMNS", "LINES", "CI", "PYTHONHASHSEED", "PYTEST_VERSION", "PYTEST_CURRENT_TEST",
    "ZHENFU_SCREENSHOTS", "ZHENFU_TEST_POSTGRES",
})  # fmt: skip
_DATABASE_FIXTURES = frozenset({"postgres", "database", "module_database", "empty_database"})


def pytest_configure(config: pytest.Config) -> None:
    loopback.refuse_other_computers()
    signal.signal(signal.SIGINT, _interrupt)
    for name in set(os.environ) - _KEPT_VARIABLES:  # nobody's settings, proxies or keys reach a test
        del os.environ[name]
    os.environ["TZ"] = "America/New_York"  # neither UTC nor Shanghai: code that forgets the zone shows it


def _interrupt(number: int, frame: object) -> NoReturn:
    """As Python does itself; but in its handler's place asyncio puts its own, and spells out each fixture's result."""
    raise KeyboardInterrupt


LONG_FILES = ("tests/browser/test_story_every_page", "tests/browser/", "tests/bot/test_fifty", "tests/crash/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & _DATABASE_FIXTURES:
            item.add_marker("database")
        if "browser" in fixtures:  # one Chromium serves them all, and belongs to the loop in which it was started
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    # A file is one process's: long files of few tests at the end would leave the other process idle.
    items.sort(key=lambda item: not item.nodeid.startswith(LONG_FILES))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI nothing may be missing: a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped although this is CI: {why}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One cluster for the whole run; its address, its superuser, and databases to be made in it."""
    with a_cluster() as cluster:
        yield cluster


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """A migrated database for one test alone."""
    with a_migrated_database(postgres) as database:
        yield database


@pytest.fixture
async def tortoise(database: Database) -> AsyncIterator[TortoiseContext]:
    """The models, connected to `database` in the role of the programs: `await Payment.create(…)` works."""
    from tortoise.context import TortoiseContext  # late: most tests need no database

    from runtime.database import configuration
    from tests.support.remembered import remember_filters

    remember_filters()
    async with TortoiseContext() as context:  # entered first: init looks for itself in the current context
        await context.init(configuration(database.app_dsn))
        yield context


@pytest.fixture(scope="module")
def module_database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """A migrated database that the tests of one file share; what they write stays for the next one."""
    with a_migrated_database(postgres) as database:
        yield database


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """Without a single table: for tests of migrations."""
    with an_empty_database(postgres) as database:
        yield database


@pytest.fixture(scope="session")
def session_redis() -> Iterator[RedisServer]:
    with a_redis_server() as server:
        yield server


@pytest.fixture
def redis_server(session_redis: RedisServer) -> RedisServer:
    """A real Redis, empty at the start of the test."""
    session_redis.empty()
    return session_redis


@pytest.fixture
def serve() -> Callable[[Sanic[Any, Any]], AbstractAsyncContextManager[str]]:
    """`async with serve(app) as base_url: …`"""
    return serve_app


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_browser() -> AsyncIterator[Browser]:
    from tests.support.chromium import a_browser  # late: Playwright takes 0.3 s to import

    async with a_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def browser(session_browser: Browser) -> AsyncIterator[Browser]:
    """Chromium; `await browser.new_page(**PHONE)` with PHONE or DESKTOP from tests.support.chromium."""
    yield session_browser
    for context in session_browser.contexts:  # what a test that failed has left open
        await context.close()
