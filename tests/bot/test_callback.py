"""The callback over real HTTP: the simulated platform pushes to the server program as it would to any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sanic import Sanic
from yarl import URL

from bot.wechat import callback, files
from core.models import ChatAccountRow, Message, Payer, Payment
from miniprogram_api.app import build_app
from runtime.bootstrap import build_callback
from simulators.kit import ConnectionLost, Request, Response
from simulators.wechat_push_line import push_forever, push_one
from tests.support.house import HIS_URL, PUSH_AES_KEY, PUSH_TOKEN, House
from wire.http import HttpClient

Serve = Callable[[Sanic[Any, Any]], AbstractAsyncContextManager[str]]
SESSION_KEY = b"k" * 32


@dataclass(kw_only=True)
class Line:
    """The platform's line to our server."""

    house: House
    base_url: str
    http: aiohttp.ClientSession
    row: ChatAccountRow
    answers: list[tuple[int, bytes, dict[str, str]]]

    @property
    def url(self) -> str:
        return f"{self.base_url}/wx/{self.row.callback_token}"

    async def post(self, url: str, request: Request) -> Response:
        try:
            async with self.http.request(
                request.method, URL(url, encoded=True), headers=dict(request.headers), data=request.body
            ) as answer:
                body = await answer.read()
                headers = {name.lower(): value for name, value in answer.headers.items()}
        except aiohttp.ClientError as error:
            raise ConnectionLost(url) from error
        self.answers.append((answer.status, body, headers))
        return Response(status=answer.status, headers=headers, body=body)

    async def push(self) -> None:
        while await push_one(self.house.chat, self.post):
            pass

    async def connect(self, *, mode: str = "safe", form: str = "xml", **params: str) -> None:
        """What an operator enters on both sides; the platform asks for our echo."""
        keys = {"push_token": PUSH_TOKEN, "push_aes_key": PUSH_AES_KEY, "push_mode": mode}
        self.row = await self.house.set_params(**({"connection": "own"} | keys | params))
        self.house.chat.set_callback(
            self.house.service_app_id, url=self.url, token=PUSH_TOKEN, aes_key=PUSH_AES_KEY, mode=mode, format=form
        )
        await self.push()

    def follower(self, name: str = "张三") -> str:
        user = self.house.chat.add_user(name, phone="19900000002")
        self.house.chat.follow(user, self.house.service_app_id)
        return user

    def say(self, user: str, text: str) -> None:
        self.house.chat.chat.say(user, self.house.service_app_id, text)

    @property
    def state(self) -> str:
        return self.house.chat.record.apps[self.house.service_app_id].callback_state


@pytest.fixture
async def line(tortoise: object, serve: Serve) -> AsyncIterator[Line]:
    house = await House.build()
    row = await house.set_params()
    async with HttpClient() as transport:
        pushes = build_callback(house.services, transport=transport, tokens=house.tokens, answer_seconds=0.3)
        proofs = files.VerificationFiles(house.services.institutions, house.clock)
        app = build_app(
            house.services,
            session_key=SESSION_KEY,
            more=[callback.blueprint(pushes), files.blueprint(proofs)],
        )
        async with serve(app) as base_url, aiohttp.ClientSession() as http:
            yield Line(house=house, base_url=base_url, http=http, row=row, answers=[])


@pytest.mark.parametrize("form", ["xml", "json"])
@pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
async def test_the_platform_connects_and_people_are_answered(line: Line, mode: str, form: str) -> None:
    await line.connect(mode=mode, form=form)
    assert line.state == "enabled"
    user = line.follower()
    line.say(user, "我要缴费")
    await line.push()
    welcome, answer = line.house.said(user)
    assert welcome.startswith("欢迎关注")
    assert "绑定就诊人" in answer
    assert (b"<Encrypt>" in line.answers[-1][1] or b'"Encrypt"' in line.answers[-1][1]) == (mode != "plain")


async def test_a_wrong_token_is_refused_and_nothing_is_written_down(line: Line) -> None:
    await line.connect()
    line.house.chat.set_callback(
        line.house.service_app_id, url=line.url, token="anotherToken", aes_key=PUSH_AES_KEY, mode="safe", check=False
    )
    line.follower()
    await line.push()
    assert line.answers[-1][0] == 403
    assert await Payer.all().count() == 0


async def test_forged_repeated_and_late_pushes_end_well(line: Line) -> None:
    await line.connect()
    user = line.follower()
    for fault in ("push_forged", "push_repeated", "push_answer_late"):
        line.house.faults.script(f"wechat.{fault}", times=1)
        line.house.clock.advance(timedelta(seconds=10))
        line.say(user, "查询")
        await line.push()
        line.house.clock.advance(timedelta(seconds=6))
        await line.push()
    assert {status for status, _, _ in line.answers} == {200, 403}
    assert len(line.house.said(user)) == 1 + 1 + 2 + 1  # the repeated one is answered alike, and both are shown
    assert all(entry["author"] != "system" for entry in line.house.chat.thread(user, line.house.service_app_id))


async def test_nobody_is_there_without_a_connection_or_behind_another_address(line: Line) -> None:
    for token in (line.row.callback_token, "x", "a" * 40, "a" * 3000, "%00", "é"):
        async with line.http.post(f"{line.base_url}/wx/{token}", data=b"<xml/>") as answer:
            assert answer.status == 404
        async with line.http.get(f"{line.base_url}/wx/{token}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("body", [b"", b"<xml>", b"{", b"\xff" * 100, b"<xml>" + b"<a/>" * 200_000 + b"</xml>"])
async def test_rubbish_is_refused(line: Line, body: bytes) -> None:
    await line.connect()
    for query in ("", "?timestamp=1&nonce=2&signature=3", "?" + "&".join(f"a{n}=1" for n in range(500))):
        async with line.http.post(line.url + query, data=body) as answer:
            assert answer.status in {403, 413}
        async with line.http.get(line.url + query) as answer:
            assert answer.status == 403


async def test_what_went_wrong_is_repeated_by_the_platform(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    await line.connect()
    user = line.follower()
    await line.push()

    async def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as mistake:
        mistake.setattr(type(line.house.services.institutions), "profile", broken)
        line.say(user, "缴费")
        await line.push()
        status, body, headers = line.answers[-1]
        assert (status, body, headers["zhenfu-handled"]) == (503, b"", "no")
    line.house.clock.advance(timedelta(seconds=5))
    await line.push()
    assert "绑定就诊人" in line.house.said(user)[-1]


async def test_nobody_can_be_recognised_in_the_log(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await line.connect()
    user = line.follower()
    line.say(user, "我叫王秀兰，要缴费")
    line.house.chat.unfollow(user, line.house.service_app_id)
    await line.push()
    open_id = line.house.chat.open_id(user, line.house.service_app_id)
    ours = [record for record in caplog.records if record.name.startswith(("zhenfu", "bot", "core", "wire"))]
    assert ours
    written = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in ours)
    assert open_id not in written
    assert "王秀兰" not in written
    assert PUSH_TOKEN not in written


# ---------------------------------------------------------------- beside another vendor


@dataclass
class Vendor:
    """Who served the account before us."""

    url: str = ""
    answer: bytes = b"<xml>his answer</xml>"
    status: int = 200
    wait_seconds: float = 0
    seen: list[tuple[str, bytes]] | None = None

    def app(self) -> web.Application:
        app = web.Application()
        self.seen = seen = []

        async def old(request: web.Request) -> web.Response:
            seen.append((request.rel_url.raw_query_string, await request.read()))
            await asyncio.sleep(self.wait_seconds)
            return web.Response(body=self.answer, status=self.status, content_type="text/xml")

        app.router.add_post("/old", old)
        return app


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    vendor = Vendor()
    async with TestServer(vendor.app()) as server:
        vendor.url = str(server.make_url("/old"))
        yield vendor


async def test_what_we_have_no_words_for_goes_to_the_vendor_before_byte_for_byte(line: Line, vendor: Vendor) -> None:
    await line.connect(forward_url=vendor.url)
    user = line.house.chat.add_user("张三", phone="19900000002")
    line.house.chat.follow(user, line.house.service_app_id)
    line.say(user, "预约挂号")
    sent: list[tuple[str, bytes]] = []

    async def post(url: str, request: Request) -> Response:
        sent.append((url.partition("?")[2], request.body))
        return await line.post(url, request)

    while await push_one(line.house.chat, post):
        pass
    assert vendor.seen == sent
    assert line.answers[-1][1] == vendor.answer
    line.say(user, "缴费")
    await line.push()
    assert len(vendor.seen) == 2
    assert "绑定就诊人" in line.house.said(user)[-1]
    assert (await Payer.all().count(), await Payment.all().count()) == (1, 0)


@pytest.mark.parametrize("trouble", ["away", "refuses", "slow"])
async def test_a_vendor_who_does_not_answer_is_replaced_by_our_general_words(
    line: Line, vendor: Vendor, trouble: str
) -> None:
    if trouble == "refuses":
        vendor.status = 500
    if trouble == "slow":
        vendor.wait_seconds = 6
    await line.connect(forward_url="http://127.0.0.1:1/old" if trouble == "away" else vendor.url)
    began = asyncio.get_running_loop().time()
    user = line.follower()
    await line.push()
    assert asyncio.get_running_loop().time() - began < 5
    assert "您可以回复" in line.house.said(user)[-1]


async def test_pushes_that_another_vendor_passes_on_are_answered_when_they_are_ours(line: Line) -> None:
    await line.connect(connection="forwarded")
    user = line.follower()
    line.say(user, "预约挂号")
    await line.push()
    for status, body, headers in line.answers[-2:]:
        assert (status, body, headers["zhenfu-handled"]) == (200, b"", "no")
    assert (await Payer.all()).pop().reachable
    line.say(user, "缴费")
    await line.push()
    assert line.answers[-1][2]["zhenfu-handled"] == "yes"
    assert "绑定就诊人" in line.house.said(user)[-1]


# ---------------------------------------------------------------- five seconds


async def test_three_and_a_half_seconds_of_silence_and_the_answer_follows(tortoise: object, serve: Serve) -> None:
    """With the times of production: a HIS that takes six seconds."""
    house = await House.build()
    row = await house.set_params()
    pushes = build_callback(house.services, transport=house.transport, tokens=house.tokens)
    app = build_app(house.services, session_key=SESSION_KEY, more=[callback.blueprint(pushes)])
    async with serve(app) as base_url, aiohttp.ClientSession() as http:
        line = Line(house=house, base_url=base_url, http=http, row=row, answers=[])
        await line.connect()
        user = line.follower("王秀兰")
        await line.push()
        (payer,) = await Payer.all()
        await house.bound(payer)
        house.bill(total_fen=8650)
        house.transport.hold(HIS_URL)
        loop = asyncio.get_running_loop()
        began = loop.time()
        line.say(user, "缴费")
        pushing = asyncio.create_task(push_forever(house.chat, line.post))
        await asyncio.sleep(1)
        other = line.follower("别人")  # is not held up
        await asyncio.sleep(1)
        assert house.said(other)
        while len(house.said(user)) < 2:
            assert loop.time() - began < 5
            await asyncio.sleep(0.05)
        assert loop.time() - began > 3.4
        assert house.said(user)[-1].startswith("正在向医院查询，查到后马上告诉您。\n<a href=")
        await asyncio.sleep(max(began + 6 - loop.time(), 0))
        house.transport.let_go()
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        await house.settle()
        assert "¥86.50" in house.said(user)[-1]
        assert len(house.said(user)) == 3
        assert await Message.filter(kind="chat_answer", status="sent").count() == 1
        assert {status for status, _, _ in line.answers} == {200}


# ---------------------------------------------------------------- files


async def test_domain_verification_files_are_served_by_name_alone(line: Line) -> None:
    await line.house.set_params(verify_file_name="MP_verify_abcDEF123.txt", verify_file_text="abcDEF123")
    async with line.http.get(f"{line.base_url}/MP_verify_abcDEF123.txt") as answer:
        assert (answer.status, await answer.text(), answer.content_type) == (200, "abcDEF123", "text/plain")
    async with line.http.get(f"{line.base_url}/p/MP_verify_abcDEF123.txt") as answer:  # for a link rule
        assert (answer.status, await answer.text()) == (200, "abcDEF123")
    others = ("MP_verify_other.txt", "p/MP_verify_other.txt", "MP_verify_abcDEF123.html", "robots.txt")
    for name in (*others, "..%2fMP_verify_abcDEF123.txt"):
        async with line.http.get(f"{line.base_url}/{name}") as answer:
            assert answer.status == 404
