"""What all simulators share: requests and answers without a socket, deliveries to us, and the loopback server.

A simulator is plain code around its own books: `handle(request) -> response`. `create_app` puts a real HTTP
server around it; a replayable run calls `exchange` directly and meets the same bytes and the same faults.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from sanic import Sanic
from sanic.request import Request as SanicRequest
from sanic.response import HTTPResponse, raw

from simulators.clock import Clock
from simulators.faults import Effect, Fault, Faults

BODY_BYTES_MAX = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """An HTTP request; header names are lower-case, `target` is path and query exactly as sent."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @staticmethod
    def of_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        return Response(status=status, headers={"content-type": "application/json", **(headers or {})}, body=body)


class NeverConnected(Exception):
    """The connection was not made: nothing can have happened."""


class ConnectionLost(Exception):
    """The connection died after the request was sent: anything can have happened."""


class Simulator(Protocol):
    """One counterparty. `handle` must not await anything outside: it answers from its own books."""

    name: str
    faults: Faults
    clock: Clock
    deliveries: Deliveries

    async def handle(self, request: Request) -> Response: ...

    def classify(self, request: Request) -> tuple[str, str]:
        """The name of the call and the key (order number, bill, openid) that faults are decided by."""
        ...


async def exchange(simulator: Simulator, request: Request) -> Response:
    """One request to the simulator, struck by whatever fault is due. Raises NeverConnected, ConnectionLost."""
    call, key = simulator.classify(request)
    fault = simulator.faults.pick(simulator.name, call, key, specific=False)
    effect = fault.effect if fault else None
    if effect is Effect.NOT_REACHED:
        raise NeverConnected(call)
    if effect is Effect.LOSE_REQUEST:
        raise ConnectionLost(call)
    if effect is Effect.ERROR_BEFORE:
        return Response(status=500, headers={"content-type": "text/html"}, body=b"<html>internal error</html>")
    response = await simulator.handle(request)
    if effect is Effect.LOSE_ANSWER:
        raise ConnectionLost(call)
    if effect is Effect.ERROR_AFTER:
        return Response(status=500, headers={"content-type": "text/html"}, body=b"<html>internal error</html>")
    if effect is Effect.GARBLED_ANSWER:
        return Response(status=response.status, headers=response.headers, body=response.body[: len(response.body) // 2])
    return response


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """Something the counterparty sends to us: a notice, an event, a push."""

    sequence: int
    due_at: datetime
    url: str
    key: str  # what it is about, for faults and for the books' page
    attempt: int  # 1 for the first try
    build: Callable[[datetime], Request]  # signed afresh for each attempt


Post = Callable[[str, Request], Awaitable[Response]]


class Deliveries:
    """What the counterparty still has to send, in its own order; nothing here waits or sleeps."""

    def __init__(self) -> None:
        self._sequence = itertools.count(1)
        self.waiting: list[Delivery] = []
        self.log: list[dict[str, Any]] = []

    def schedule(
        self, *, due_at: datetime, url: str, key: str, build: Callable[[datetime], Request], attempt: int = 1
    ) -> None:
        self.waiting.append(
            Delivery(sequence=next(self._sequence), due_at=due_at, url=url, key=key, attempt=attempt, build=build)
        )

    def next_due_at(self) -> datetime | None:
        return min((delivery.due_at for delivery in self.waiting), default=None)

    def take_due(self, now: datetime) -> Delivery | None:
        """Remove and return the earliest delivery that is due, or None."""
        due = [delivery for delivery in self.waiting if delivery.due_at <= now]
        if not due:
            return None
        first = min(due, key=lambda delivery: (delivery.due_at, delivery.sequence))
        self.waiting.remove(first)
        return first


class Delivers(Protocol):
    """A simulator that sends to us says what a delivery's answer means to it (usually: try again later)."""

    deliveries: Deliveries
    clock: Clock

    def delivered(self, delivery: Delivery, response: Response | None) -> None: ...


async def deliver_one(simulator: Delivers, post: Post) -> bool:
    """Send the next due delivery, if there is one; False when nothing was due."""
    now = simulator.clock.now()
    delivery = simulator.deliveries.take_due(now)
    if delivery is None:
        return False
    try:
        response: Response | None = await post(delivery.url, delivery.build(now))
    except (NeverConnected, ConnectionLost, TimeoutError, OSError):
        response = None
    simulator.delivered(delivery, response)
    return True


async def deliver_forever(simulator: Delivers, post: Post, *, idle_seconds: float = 0.05) -> None:
    """Keep sending what falls due; for simulators that run as servers."""
    while True:
        if not await deliver_one(simulator, post):
            await asyncio.sleep(idle_seconds)


def create_app(simulator: Simulator, *, name: str | None = None) -> Sanic[Any, Any]:
    """A real HTTP server on whatever socket it is given, answering with `simulator`."""
    app: Sanic[Any, Any] = Sanic(name or f"simulator_{simulator.name}", configure_logging=False)
    app.config.ACCESS_LOG = False
    app.config.REQUEST_MAX_SIZE = BODY_BYTES_MAX

    @app.route("/<path:path>", methods=["GET", "POST", "PUT", "DELETE", "PATCH"], unquote=False)
    async def answer(request: SanicRequest, path: str) -> HTTPResponse | None:
        return await _answer(request)

    @app.route("/", methods=["GET", "POST"])
    async def answer_root(request: SanicRequest) -> HTTPResponse | None:
        return await _answer(request)

    async def _answer(request: SanicRequest) -> HTTPResponse | None:
        target = request.raw_url.decode("latin-1")
        incoming = Request(
            method=request.method,
            target=target,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.body,
        )
        try:
            response = await exchange(simulator, incoming)
        except (NeverConnected, ConnectionLost):
            # A live server cannot refuse a connection it has already accepted: it hangs up without a byte.
            request.transport.abort()  # type: ignore[attr-defined]  # asyncio's and uvloop's both have it
            return None
        headers = dict(response.headers)
        content_type = headers.pop("content-type", "application/octet-stream")
        return raw(response.body, status=response.status, headers=headers, content_type=content_type)

    return app


__all__ = [
    "BODY_BYTES_MAX",
    "ConnectionLost",
    "Deliveries",
    "Delivers",
    "Delivery",
    "Fault",
    "NeverConnected",
    "Post",
    "Request",
    "Response",
    "Simulator",
    "create_app",
    "deliver_forever",
    "deliver_one",
    "exchange",
]
