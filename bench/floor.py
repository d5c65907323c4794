"""The floor: what a payment costs without us. The same statements by bare asyncpg, the same calls by bare aiohttp,
the same number of RSA signatures made and checked, the same two requests served by aiohttp's own server.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import aiohttp
import asyncpg
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from sanic import Sanic
from sanic.request import Request
from sanic.response import HTTPResponse, raw
from yarl import URL

from bench.recording import Recording, Script
from bench.town import ANSWER_SECONDS
from runtime.database import configuration
from runtime.listening import serving
from runtime.supervisor import Ready

POOL_MAX = 8
TEXT = b"POST\n/v3/pay/transactions/jsapi\n1770000000\n0123456789abcdef0123456789abcdef\n" + b"x" * 600 + b"\n"
ANSWER = b'{"order_no":"P0123456789ABCDEFGHJKMNPQR","pay":{}}' + b" " * 700
ORDER_SIGNATURES, ORDER_CHECKS = 2, 1
"""The order and the pay sheet are signed, the channel's answer is checked; then its notice is."""

WANTED, THINK = "bench-wanted-bytes", "bench-think"


class Floor:
    """A program that plays recorded payments."""

    def __init__(self, scripts: Sequence[Script], pool: asyncpg.Pool, http: aiohttp.ClientSession, peer: str) -> None:
        self._scripts, self._pool, self._http, self._peer = scripts, pool, http, peer
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = self._key.public_key()
        self._signature = self._sign()

    async def order(self, request: web.Request) -> web.Response:
        await request.read()
        await self._play(self._scripts[int(request.match_info["number"])].order)
        for _ in range(ORDER_SIGNATURES):
            self._sign()
        for _ in range(ORDER_CHECKS):
            self._check()
        return web.Response(body=ANSWER, content_type="application/json")

    async def notice(self, request: web.Request) -> web.Response:
        await request.read()
        self._check()
        await self._play(self._scripts[int(request.match_info["number"])].rest)
        return web.Response(status=204)

    async def _play(self, recording: Recording) -> None:
        async with self._pool.acquire() as connection:
            for each in recording.statements:
                await getattr(connection, each.call)(each.sql, *each.values)
        for call in recording.calls:
            url = URL(call.url, encoded=True)
            name = "wechatpay" if "/v3/" in call.url else "hospital"
            headers = {**call.headers, WANTED: str(call.answer_bytes), THINK: str(ANSWER_SECONDS[name])}
            async with self._http.request(
                call.method, f"{self._peer}{url.path}", headers=headers, data=call.body or None
            ) as answer:
                await answer.read()

    def _sign(self) -> bytes:
        return self._key.sign(TEXT, padding.PKCS1v15(), hashes.SHA256())

    def _check(self) -> None:
        self._public.verify(self._signature, TEXT, padding.PKCS1v15(), hashes.SHA256())


def run_floor(scripts: Sequence[Script], url: str, peer: str, ready: Ready, on: socket.socket) -> None:
    """The floor's process until SIGTERM."""

    async def live() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        credentials = configuration(url, pool_max=POOL_MAX)["connections"]["default"]["credentials"]
        names = ("host", "port", "user", "password", "database", "server_settings", "command_timeout", "reset")
        chosen = {name: credentials[name] for name in names}
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(asyncpg.create_pool(**chosen, min_size=1, max_size=POOL_MAX))
            http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
            floor = Floor(scripts, pool, http, peer)
            app = web.Application()
            app.add_routes([web.post("/order/{number}", floor.order), web.post("/notice/{number}", floor.notice)])
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.SockSite(runner, on).start()
            ready()
            await stop.wait()
            await runner.cleanup()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


def run_peer(ready: Ready, on: socket.socket) -> None:
    """Who answers the floor's calls: as many bytes as asked for, after as long as asked for."""
    app: Sanic = Sanic("bench_peer", configure_logging=False)  # type: ignore[type-arg]
    app.config.ACCESS_LOG = False

    @app.route("/<path:path>", methods=["GET", "POST", "DELETE"], unquote=False)
    async def answer(request: Request, path: str) -> HTTPResponse:
        await asyncio.sleep(float(request.headers[THINK]))
        return raw(b"x" * int(request.headers[WANTED]), content_type="application/json")

    async def live() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with serving(app, on):
            ready()
            await stop.wait()

    asyncio.run(live())


async def play(url: str, count: int, *, rate: float, rng: random.Random) -> None:
    """The driver: orders that come at random, each followed by its notice."""
    body = {"patient_id": "x" * 36, "bills": [{"branch": "", "bill_id": "x" * 12}], "shown_fen": 1, "method": "x" * 30}

    async def one(number: int) -> None:
        async with http.post(f"{url}/order/{number}", json=body) as answer:
            assert answer.status == 200, await answer.text()
        async with http.post(f"{url}/notice/{number}", data=b"x" * 1000) as answer:
            assert answer.status == 204, await answer.text()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        at, tasks = time.monotonic(), []
        for number in range(count):
            at += rng.expovariate(rate)
            await asyncio.sleep(max(at - time.monotonic(), 0))
            tasks.append(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
