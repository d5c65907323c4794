"""An official account's server as others write it: wechatpy checks, opens, parses and answers pushes over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sanic import Sanic
from sanic.request import Request as SanicRequest
from sanic.response import HTTPResponse, raw
from wechatpy import create_reply, parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidSignatureException
from wechatpy.utils import check_signature

from core.errors import NotReached, OutcomeUnknown
from simulators.kit import ConnectionLost, NeverConnected, Post, Request, Response
from simulators.wechat import WechatPlatformSimulator, push_one
from tests.support.serving import serve
from tests.support.wechat import WechatOfTests
from wire.http import HttpClient, HttpRequest

TOKEN = "hospitalToken"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
NEW_AES_KEY = "ABCDEFGhijklmnopqrstuvwxyz0123456789abcdefg"
Answer = Callable[[Any], object]


@dataclass(kw_only=True)
class AccountServer:
    """`answer` gets the parsed message and gives a text, a wechatpy reply, or bytes to be sent as they are."""

    app_id: str
    aes_keys: list[str] = field(default_factory=lambda: [AES_KEY])
    answer: Answer = lambda message: b"success"
    wait_seconds: list[float] = field(default_factory=list)  # before each of the next answers
    statuses: list[int] = field(default_factory=list)  # of the next answers
    messages: list[Any] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)  # query and body of everything accepted
    refused: int = 0

    def app(self) -> Sanic[Any, Any]:
        app: Sanic[Any, Any] = Sanic("account_server", configure_logging=False)
        app.config.ACCESS_LOG = False

        @app.route("/wechat", methods=["GET", "POST"])
        async def take(request: SanicRequest) -> HTTPResponse:
            query = {name: values[0] for name, values in request.args.items()}
            try:
                check_signature(TOKEN, query["signature"], query["timestamp"], query["nonce"])
                if request.method == "GET":
                    return raw(query["echostr"].encode())
                crypto, text = self._opened(query, request.body)
            except (InvalidSignatureException, KeyError):
                self.refused += 1
                return raw(b"", status=403)
            message = json.loads(text) if text.startswith("{") else parse_message(text)
            self.messages.append(message)
            self.raw.append({"query": query, "body": request.body.decode()})
            if self.wait_seconds:
                await asyncio.sleep(self.wait_seconds.pop(0))
            body = self._answered(message, crypto, query)
            return raw(body, status=self.statuses.pop(0) if self.statuses else 200)

        return app

    def _opened(self, query: dict[str, str], body: bytes) -> tuple[WeChatCrypto | None, str]:
        if query.get("encrypt_type") != "aes":
            return None, body.decode()
        given: Any = json.loads(body) if body.startswith(b"{") else body
        for key in self.aes_keys:
            crypto = WeChatCrypto(TOKEN, key, self.app_id)
            try:
                text = crypto.decrypt_message(given, query["msg_signature"], query["timestamp"], query["nonce"])
            except InvalidSignatureException:
                raise
            except Exception:  # noqa: S112 - wechatpy raises anything under a wrong key
                continue
            return crypto, text
        raise InvalidSignatureException

    def _answered(self, message: Any, crypto: WeChatCrypto | None, query: dict[str, str]) -> bytes:
        answer = self.answer(message)
        if isinstance(answer, bytes):
            return answer
        text = create_reply(answer, message=message, render=True)
        if crypto is not None:
            text = crypto.encrypt_message(text, query["nonce"], query["timestamp"])
        return str(text).encode()


@dataclass(kw_only=True)
class Pushing:
    """The platform, the account's server, and a real line between them."""

    world: WechatOfTests
    server: AccountServer
    url: str
    post: Post

    @property
    def simulator(self) -> WechatPlatformSimulator:
        return self.world.simulator

    async def push(self, *, deadline_seconds: float = 5.0) -> int:
        """Send everything that is due; how many there were."""
        count = 0
        while await push_one(self.simulator, self.post, deadline_seconds=deadline_seconds):
            count += 1
        return count

    async def enter_callback(self, *, mode: str = "plain", form: str = "xml", aes_key: str = AES_KEY) -> None:
        self.simulator.set_callback(
            self.world.official.app_id, url=self.url, token=TOKEN, aes_key=aes_key, mode=mode, format=form
        )
        await self.push()

    def thread(self) -> list[dict[str, Any]]:
        """What has been said, without what happened."""
        entries = self.simulator.thread(self.world.user, self.world.official.app_id)
        return [entry for entry in entries if entry["via"] != "event"]


@asynccontextmanager
async def pushing(world: WechatOfTests) -> AsyncIterator[Pushing]:
    server = AccountServer(app_id=world.official.app_id)
    async with serve(server.app()) as account_url, HttpClient() as http:

        async def post(url: str, request: Request) -> Response:
            try:
                reply = await http.send(
                    HttpRequest(method=request.method, url=url, headers=request.headers, body=request.body),
                    deadline_seconds=10,
                )
            except NotReached as error:
                raise NeverConnected(url) from error
            except OutcomeUnknown as error:
                raise ConnectionLost(url) from error
            return Response(status=reply.status, headers=reply.headers, body=reply.body)

        yield Pushing(
            world=world,
            server=server,
            url=f"{account_url}/wechat",
            post=post,
        )
