"""Whether this program runs, and whether it can work."""

from __future__ import annotations

import asyncio
import logging

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.transactions import rows
from miniprogram_api.requests import ApiRequest, reply

log = logging.getLogger("zhenfu.api")

DATABASE_SECONDS = 2.0


def blueprint() -> Blueprint:
    health = Blueprint("health", url_prefix="/health")

    @health.get("/live")
    async def live(request: ApiRequest) -> HTTPResponse:
        return reply({"status": "ok"})

    @health.get("/ready")
    async def ready(request: ApiRequest) -> HTTPResponse:
        if await _database_answers():
            return reply({"status": "ok"})
        return reply({"status": "database_away"}, 503)

    return health


async def _database_answers() -> bool:
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            await rows("SELECT 1 AS one")
    except Exception as error:  # whatever it is, we cannot work
        log.warning("not_ready", extra={"fields": {"error": type(error).__name__}})
        return False
    return True
