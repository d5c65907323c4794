"""Transports for tests: straight into simulators without a socket, and one that watches and meddles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

from core.errors import NotReached, OutcomeUnknown
from core.transactions import open_transaction
from simulators.kit import ConnectionLost, NeverConnected, Request, exchange
from wire.http import HttpReply, HttpRequest, Transport

if TYPE_CHECKING:
    from simulators.kit import Simulator

UNREACHABLE = "http://127.0.0.1:1"


class InProcessTransport:
    """Carries requests to simulators, found by base URL (`http://127.0.0.1`, no slash at its end)."""

    def __init__(self, routes: Mapping[str, Simulator]) -> None:
        self.routes = dict(routes)

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        if open_transaction.get():
            raise RuntimeError("a counterparty was called while a database transaction was open")
        scheme, _, rest = request.url.partition("://")
        host, slash, target = rest.partition("/")
        simulator = self.routes.get(f"{scheme}://{host}")
        if simulator is None:
            raise NotReached(f"nobody listens at {host}")
        try:
            response = await exchange(
                simulator,
                Request(
                    method=request.method,
                    target=slash + target or "/",
                    headers={name.lower(): value for name, value in request.headers.items()},
                    body=request.body,
                ),
            )
        except NeverConnected as error:
            raise NotReached(str(error)) from error
        except ConnectionLost as error:
            raise OutcomeUnknown(str(error)) from error
        return HttpReply(status=response.status, headers=dict(response.headers), body=response.body)


class InProcessDownloads:
    """Files by way of another transport."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def download(
        self, request: HttpRequest, into: BinaryIO, *, bytes_max: int, deadline_seconds: float
    ) -> HttpReply:
        reply = await self._inner.send(request, deadline_seconds=deadline_seconds)
        if reply.status != 200:
            return reply
        if len(reply.body) > bytes_max:
            raise OutcomeUnknown("the file is larger than we accept")
        into.write(reply.body)
        return HttpReply(status=reply.status, headers=reply.headers)


class WatchedTransport:
    """Another transport, whose traffic is kept and whose next exchange can be spoilt."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.requests: list[HttpRequest] = []
        self.replies: list[HttpReply] = []
        self._unreachable = 0
        self._alter: Callable[[HttpReply], HttpReply] | None = None
        self._instead: tuple[int, HttpReply] | None = None

    def unreachable_next(self, times: int = 1) -> None:
        """The next requests go to a port where nobody listens."""
        self._unreachable += times

    def alter_next(self, alter: Callable[[HttpReply], HttpReply]) -> None:
        """The next request is carried out and its answer changed on the way back."""
        self._alter = alter

    def answer_next(self, reply: HttpReply, *, after: int = 0) -> None:
        """The request after the next `after` ones is not carried out; this is its answer."""
        self._instead = (after, reply)

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        self.requests.append(request)
        reply = await self._reply(request, deadline_seconds)
        self.replies.append(reply)
        return reply

    async def _reply(self, request: HttpRequest, deadline_seconds: float) -> HttpReply:
        if self._unreachable:
            self._unreachable -= 1
            path = request.url.partition("://")[2].partition("/")[2]
            request = HttpRequest(
                method=request.method,
                url=f"{UNREACHABLE}/{path}",
                headers=request.headers,
                body=request.body,
            )
        if self._instead is not None:
            after, instead = self._instead
            self._instead = (after - 1, instead) if after else None
            if not after:
                return instead
        reply = await self.inner.send(request, deadline_seconds=deadline_seconds)
        if self._alter is not None:
            alter, self._alter = self._alter, None
            return alter(reply)
        return reply


class HeldTransport:
    """Another transport, whose requests to one address wait until they are let go: a slow counterparty."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.sent: list[str] = []  # paths of all requests to the address that is or was held
        self.most_at_once = 0
        self._under_way = 0
        self._address: str | None = None
        self._free = asyncio.Event()
        self._free.set()

    def hold(self, address: str) -> None:
        """From now on, until `let_go`; the requests are carried out afterwards."""
        self._address = address
        self._free.clear()

    def let_go(self) -> None:
        self._free.set()

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        if self._address is None or not request.url.startswith(self._address):
            return await self.inner.send(request, deadline_seconds=deadline_seconds)
        self.sent.append(request.url.removeprefix(self._address).partition("?")[0])
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            await self._free.wait()
            return await self.inner.send(request, deadline_seconds=deadline_seconds)
        finally:
            self._under_way -= 1
