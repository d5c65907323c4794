"""What the blueprints of this room share."""

from __future__ import annotations

from dataclasses import dataclass

from sanic.response import HTTPResponse

from core.services import Services
from miniprogram_api import views
from miniprogram_api.auth import Auth, Session
from miniprogram_api.limits import ASK, Limits
from miniprogram_api.lists import Lists
from miniprogram_api.requests import ApiRequest, language, reply
from miniprogram_api.running import Asking, Running

TICKET_LENGTH_MAX = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    services: Services
    auth: Auth
    limits: Limits
    lists: Lists
    running: Running
    wait_seconds: float  # how long a page waits for a counterparty
    tap_seconds: float  # how long a page waits for what a tap has begun

    async def asks(self, request: ApiRequest) -> Session:
        """The session of a request that is counted. Raises NotSignedIn, TooManyRequests."""
        session = self.auth.session(request)
        await self.limits.check(ASK, str(session.payer_id))
        return session


def tickets(request: ApiRequest) -> frozenset[str]:
    """What the page waits for, from an earlier answer."""
    text = str(request.args.get("ticket", ""))[:TICKET_LENGTH_MAX]
    return frozenset(part for part in text.split(",") if part)


def still_asking(request: ApiRequest, asking: Asking) -> HTTPResponse:
    """The HIS has not answered: the page asks again with the ticket."""
    value = views.asking(asking, language(request))
    return reply(value, 202, {"retry-after": str(value["retry_after_seconds"])})
