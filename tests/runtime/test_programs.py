"""What a web process and a worker open, and how they let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from sanic import Sanic
from tortoise.context import get_current_context

from core.due import DueRow
from core.errors import ConfigurationError
from core.memory import MemoryTokenStore
from runtime.programs import _UnderWay, server, wire, worker
from runtime.redis import RedisTokenStore
from runtime.settings import Settings, read_settings
from scheduler.loops import Loop
from scheduler.worker import run_loop
from tests.runtime.environment import environment, marked
from tests.support.postgres import Database

Serve = Callable[[Sanic[Any, Any]], AbstractAsyncContextManager[str]]


@pytest.fixture
async def settings(database: Database) -> Settings:
    values = environment(database)
    await marked(database, values)
    return read_settings(values)


async def test_a_web_process_opens_the_database_before_it_answers_and_closes_it_after(
    settings: Settings, serve: Serve
) -> None:
    ready: list[bool] = []
    app = server(settings, ready=lambda: ready.append(True))
    assert get_current_context() is None
    async with serve(app) as url, aiohttp.ClientSession() as http:
        assert ready == [True]
        async with http.get(f"{url}/health/ready") as answer:
            assert answer.status == 200
        async with http.get(f"{url}/staff/v1/me") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (401, "not_signed_in")
    assert get_current_context() is None


async def test_work_in_the_background_ends_before_the_connections_close(settings: Settings, serve: Serve) -> None:
    app = server(settings)
    ended: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.2)
        ended.append("slow")

    async with serve(app):
        assert app.ctx.outside.background.start("slow", slow)
    assert ended == ["slow"]


async def test_a_worker_tells_when_it_works_and_ends_when_it_is_told(settings: Settings) -> None:
    stopping, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(worker(settings, stopping, ready=ready.set))
    async with asyncio.timeout(20):
        await ready.wait()
        stopping.set()
        await task


async def test_a_worker_that_waits_for_its_database_can_be_told_to_stop(database: Database) -> None:
    values = environment(database, DATABASE_URL="postgres://zhenfu_app@127.0.0.1:1/zhenfu")
    stopping = asyncio.Event()
    task = asyncio.create_task(worker(read_settings(values), stopping))
    await asyncio.sleep(0.3)
    assert not task.done()
    stopping.set()
    async with asyncio.timeout(5):
        await task


async def test_work_under_way_is_let_end_when_its_loop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    began, events = asyncio.Event(), []

    async def work(row: DueRow) -> None:
        events.append("began")
        began.set()
        await asyncio.sleep(0.2)
        events.append("ended")

    row = DueRow(id=uuid4(), institution_id=uuid4(), attempts=1, lease_until=datetime.now(UTC), holder="test")

    async def claimed(loop: Loop, services: Any, **bounds: Any) -> list[DueRow]:
        return [] if events else [row]

    monkeypatch.setattr("scheduler.worker.claim_due", claimed)
    under_way = _UnderWay()
    loop = under_way.watch(
        Loop(table="payment", work=work, counterparty="site_id", at_once_max=1, per_counterparty_max=1)
    )
    services: Any = None
    task = asyncio.create_task(run_loop(loop, services))
    await began.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert events == ["began"]
    await under_way.finish(seconds=5)
    assert events == ["began", "ended"]


def test_only_the_sandbox_does_without_redis(settings: Settings, database: Database) -> None:
    assert settings.redis_url
    wired = wire(settings, "web")
    assert isinstance(_tokens(wired), RedisTokenStore)
    without = environment(database, REDIS_URL=None)
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        wire(read_settings(without), "web")
    sandbox = read_settings(without | {"ZHENFU_CLOCK_OFFSET_FILE": "/nowhere/offset"})
    assert isinstance(_tokens(wire(sandbox, "web")), MemoryTokenStore)


def test_the_movable_clock_is_the_sandboxes_alone(database: Database, tmp_path: Any) -> None:
    offset = tmp_path / "offset"
    offset.write_text("86400")
    sandbox = read_settings(environment(database, ZHENFU_CLOCK_OFFSET_FILE=str(offset)))
    ahead = wire(sandbox, "web").services.outside.clock.now() - datetime.now(UTC)
    assert 86_390 < ahead.total_seconds() < 86_410


def _tokens(wired: Any) -> Any:
    messenger = wired.services.outside.messengers["wechat_service"]
    return messenger._tokens._store
