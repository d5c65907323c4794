"""The tests' own tools keep their promises."""

import asyncio
import socket

import aiohttp
import pytest
from sanic import Sanic, text
from sanic.request import Request
from sanic.response import HTTPResponse

from runtime.embedded_postgres import APP_ROLE
from tests.support.chromium import PHONE
from tests.support.loopback import NotLoopback

PAGE = '<meta name="viewport" content="width=device-width"><h1>诊付</h1>'


def an_app(events: list[str]) -> Sanic:
    app: Sanic = Sanic("support", configure_logging=False)

    @app.get("/")
    async def hello(request: Request) -> HTTPResponse:
        request.app.add_task(asyncio.sleep(3600), name=f"left-running-{request.id}")
        return text(PAGE, content_type="text/html; charset=utf-8")

    @app.before_server_start
    async def before_start(_: Sanic) -> None:
        events.append("before_server_start")

    @app.after_server_start
    async def after_start(_: Sanic) -> None:
        events.append("after_server_start")

    @app.before_server_stop
    async def before_stop(_: Sanic) -> None:
        events.append("before_server_stop")

    @app.after_server_stop
    async def after_stop(_: Sanic) -> None:
        events.append("after_server_stop")

    return app


async def test_two_apps_are_served_side_by_side_and_every_listener_runs_once(serve):
    events: list[str] = []
    async with serve(an_app(events)) as one, serve(an_app([])) as two, aiohttp.ClientSession() as client:
        assert one != two
        for base_url in (one, two, one):
            async with client.get(base_url) as answer:
                assert (answer.status, await answer.text()) == (200, PAGE)
    assert events == ["before_server_start", "after_server_start", "before_server_stop", "after_server_stop"]
    assert len(asyncio.all_tasks()) == 1


async def test_no_test_reaches_another_computer():
    with pytest.raises(NotLoopback), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(NotLoopback):
        await asyncio.get_running_loop().getaddrinfo("hospital.example", 443)
    async with aiohttp.ClientSession() as client:
        with pytest.raises(NotLoopback):
            await client.get("http://192.0.2.1/")


async def test_a_test_gets_models_on_a_migrated_database_in_the_role_of_the_programs(tortoise, database):
    rows = await tortoise.connections.get("default").execute_query_dict("SELECT current_user AS me")
    assert rows == [{"me": APP_ROLE}]


@pytest.mark.browser
async def test_a_phone_sees_a_page(serve, browser):
    async with serve(an_app([])) as base_url:
        page = await browser.new_page(**PHONE)
        await page.goto(base_url)
        assert await page.text_content("h1") == "诊付"
        assert await page.evaluate("innerWidth") == 390
