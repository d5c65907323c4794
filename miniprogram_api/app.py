"""HTTP for mini programs, for pages inside chat apps, and for counterparties' notices."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import orjson
from sanic import Blueprint, Sanic
from sanic.config import Config
from sanic.response import BaseHTTPResponse, HTTPResponse

from core.services import Services
from miniprogram_api import bill_links, bills, consents, docs, health, notices, papers, patients, payments, sessions
from miniprogram_api.auth import Auth, Tokens
from miniprogram_api.errors import answer
from miniprogram_api.h5.site import build_site
from miniprogram_api.limits import Limits
from miniprogram_api.lists import Lists
from miniprogram_api.requests import ApiRequest, App
from miniprogram_api.room import Room
from miniprogram_api.running import Questions, Running

log = logging.getLogger("zhenfu.api")

Answers = Callable[[ApiRequest, Exception], Awaitable[HTTPResponse]]
"""How a room answers what went wrong below its address."""

NAME = "zhenfu"
BODY_BYTES_MAX = 1 << 20
PAGE_WAIT_SECONDS = 2.5
"""A page answers within 3 seconds, whatever a counterparty does."""

TAP_WAIT_SECONDS = 8.0
"""What a tap has begun is waited for so long; then it goes on by itself and the page is told so."""

RESPONSE_SECONDS = 60
DRAIN_SECONDS = 10

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def build_app(
    services: Services,
    *,
    session_key: bytes,
    name: str = NAME,
    page_wait_seconds: float = PAGE_WAIT_SECONDS,
    tap_wait_seconds: float = TAP_WAIT_SECONDS,
    proxies_count: int = 0,
    more: Iterable[Blueprint] = (),
    answers: Mapping[str, Answers] | None = None,
) -> App:
    """The server program's application; `more` are the blueprints of other rooms.

    `answers`: who answers what no route does (an unknown address, a wrong method) below an address that is another
    room's, in that room's shape.

    `session_key`: at least 32 random bytes, the same in every program. `proxies_count`: how many of our own proxies
    stand in front and add to X-Forwarded-For. The database is opened by whoever runs it.
    """
    app: App = Sanic(
        name,
        config=_config(proxies_count),
        ctx=services,
        request_class=ApiRequest,  # type: ignore[arg-type]  # Sanic ties it to its default context
        dumps=orjson.dumps,
        loads=orjson.loads,
        configure_logging=False,
    )
    room = build_room(
        services, session_key=session_key, page_wait_seconds=page_wait_seconds, tap_wait_seconds=tap_wait_seconds
    )
    ours = [
        part.blueprint(room) for part in (sessions, patients, bills, papers, consents, payments, notices, bill_links)
    ]
    site = build_site(room, session_key=session_key)
    for blueprint in [*ours, health.blueprint(), docs.blueprint(), *site.blueprints, *more]:
        app.blueprint(blueprint)

    @app.exception(Exception)
    async def answered(request: ApiRequest, exception: Exception) -> HTTPResponse:
        for below, answer_of_room in (answers or {}).items():
            if request.path == below or request.path.startswith(f"{below}/"):
                return await answer_of_room(request, exception)
        shows_page = site.shows(request.path)
        return await site.answer(request, exception) if shows_page else answer(request, exception)

    app.register_middleware(_arrived, "request")
    app.register_middleware(_left, "response")

    @app.before_server_stop
    async def drain(app: App) -> None:
        await room.running.drain(seconds=DRAIN_SECONDS)

    return app


def build_room(services: Services, *, session_key: bytes, page_wait_seconds: float, tap_wait_seconds: float) -> Room:
    running = Running()
    questions = Questions(running=running, new_ticket=services.outside.ids.token, wait_seconds=page_wait_seconds)
    return Room(
        services=services,
        auth=Auth(services=services, tokens=Tokens.of_secret(services.outside.clock, session_key)),
        limits=Limits(services.outside.limiter),
        lists=Lists(services=services, questions=questions),
        running=running,
        wait_seconds=page_wait_seconds,
        tap_seconds=tap_wait_seconds,
    )


def _config(proxies_count: int) -> Config:
    config = Config(env_prefix=None)
    config.ACCESS_LOG = False
    config.AUTO_EXTEND = False  # the documentation page of sanic-ext loads from elsewhere
    config.REQUEST_MAX_SIZE = BODY_BYTES_MAX
    config.RESPONSE_TIMEOUT = RESPONSE_SECONDS
    config.FALLBACK_ERROR_FORMAT = "json"
    config.PROXIES_COUNT = proxies_count or None
    return config


async def _arrived(request: ApiRequest) -> None:
    _ = request.ctx.began  # the clock of this request starts


async def _left(request: ApiRequest, response: BaseHTTPResponse) -> None:
    for header, value in HEADERS.items():
        response.headers.setdefault(header, value)
    response.headers["x-request-id"] = request.ctx.request_id
    log.info(
        "request",
        extra={
            "fields": {
                "request_id": request.ctx.request_id,
                "method": request.method,
                "route": f"/{request.route.path}" if request.route else "",
                "status": response.status,
                "ms": round((time.perf_counter() - request.ctx.began) * 1000, 1),
            }
        },
    )
