"""What all pages share: who looks, how a page is answered, what a waiting or failing one says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanic.response import HTTPResponse

from core.errors import FactorLocked, RequestError
from core.page_texts import page_text
from core.texts import error_text
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.door import Door, Visit
from miniprogram_api.h5.rendering import Refresh, Renderer
from miniprogram_api.requests import ApiRequest
from miniprogram_api.room import Room
from miniprogram_api.running import Asking

HOURS_OF_DAY = 24

WAY = "h5"
"""How consents come about here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pages:
    room: Room
    renderer: Renderer
    door: Door

    async def visit(self, request: ApiRequest, code: str) -> Visit:
        """A page of the institution with this code. Raises NotFound, NotSignedIn, TooManyRequests."""
        return await self.door.visit(request, await self.room.services.institutions.profile_by_code(code))

    def show(
        self,
        request: ApiRequest,
        visit: Visit,
        template: str,
        *,
        status: int = 200,
        scripts: Sequence[str] = (),
        script_origins: Sequence[str] = (),
        refresh: Refresh | None = None,
        **values: Any,
    ) -> HTTPResponse:
        return self.renderer.page(
            request,
            template,
            profile=visit.profile,
            status=status,
            form_token=visit.form_token,
            sign_in_origin=visit.sign_in_origin,
            scripts=scripts,
            script_origins=script_origins,
            refresh=refresh,
            **values,
        )

    def asking(self, request: ApiRequest, visit: Visit, asking: Asking, *, page: str = "") -> HTTPResponse:
        """The HIS has not answered: this page, or the one named, comes again by itself, with the ticket."""
        refresh = Refresh(url=f"{page}?ticket={asking.ticket}" if page else with_ticket(request, asking.ticket))
        return self.show(request, visit, "waiting.html", status=202, kind="asking", refresh=refresh)

    def asking_for(
        self, request: ApiRequest, visit: Visit, asking: Asking, *, fields: Mapping[str, str]
    ) -> HTTPResponse:
        """The HIS has not answered what a form asked: its fields are sent again by themselves, with the ticket."""
        return self.show(
            request,
            visit,
            "again.html",
            status=202,
            scripts=("wait.js",),
            action=request.path,
            fields={**fields, "ticket": asking.ticket},
        )

    def working(self, request: ApiRequest, visit: Visit, url: str) -> HTTPResponse:
        """What a tap has begun goes on; `url` shows how far it has come."""
        return self.show(request, visit, "waiting.html", status=202, kind="working", refresh=Refresh(url=url))

    def closed(self, request: ApiRequest, visit: Visit) -> HTTPResponse:
        """A bill that nothing opens to this payer, or no longer: where it was opened by its paper, that helps again."""
        return self.show(request, visit, "closed.html", status=STATUS["patient_not_bound"])

    def refused(self, request: ApiRequest, visit: Visit, error: RequestError, *, retry: str) -> HTTPResponse:
        """Why it did not work; `retry` is the page to go back to."""
        return self.show(
            request,
            visit,
            "error.html",
            status=STATUS[error.code],
            message=error_text(error, visit.look.language),
            retry=retry,
            title="missing_title" if error.code == "not_found" else "error_title",
        )


def locked_text(locked: FactorLocked, language: str) -> str:
    """After too many wrong tries: when to try again, in words for people; nobody counts 1,440 minutes."""
    minutes = int(locked.values["minutes"])
    hours = math.ceil(minutes / 60)
    if hours >= HOURS_OF_DAY:
        return page_text("locked_tomorrow", language)
    return page_text("locked_hours", language, hours=hours) if minutes > 60 else error_text(locked, language)


def with_ticket(request: ApiRequest, ticket: str) -> str:
    """This page again, with what it waits for."""
    rest = [part for part in request.query_string.split("&") if part and not part.startswith("ticket=")]
    return f"{request.path}?{'&'.join([*rest, f'ticket={ticket}'])}"
