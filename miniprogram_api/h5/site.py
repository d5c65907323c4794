"""All pages put together, and what is answered when one cannot be shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.errors import NotFound, NotSignedIn, RequestError
from core.institutions import Profile
from core.page_texts import page_text
from core.texts import ERRORS, error_text
from miniprogram_api.errors import RETRY_AFTER_SECONDS, STATUS, server_code
from miniprogram_api.h5 import bills, binding, entrance, papers, payments, people, scanning, together
from miniprogram_api.h5.addresses import page_of
from miniprogram_api.h5.assets import Assets
from miniprogram_api.h5.door import Door
from miniprogram_api.h5.forms import Forms, StaleForm
from miniprogram_api.h5.looks import look_of
from miniprogram_api.h5.pages import Pages
from miniprogram_api.h5.rendering import Renderer
from miniprogram_api.requests import ApiRequest
from miniprogram_api.room import Room

log = logging.getLogger("zhenfu.api")

STALE_STATUS = 403

PROFILE_SECONDS = 1.0
"""Whoever waits for the page of a failure has waited before; then it comes without the hospital's name.

Whoever is to sign in has not, and cannot without it.
"""

PAGE_CODES = {"method_not_allowed": "not_found", "invalid_request": "request_error"}
"""What the web server refuses, in a reader's words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    pages: Pages
    blueprints: Sequence[Blueprint]

    def shows(self, path: str) -> bool:
        return path.startswith(("/h/", "/p/", "/h5/"))

    async def answer(self, request: ApiRequest, exception: Exception) -> HTTPResponse:
        """Any exception as a page: never blank, never in a computer's words."""
        try:
            patience = None if isinstance(exception, NotSignedIn) else PROFILE_SECONDS
            # Not asyncio.timeout: on Python 3.11.2, in a task that the web server has cancelled once, it cancels again.
            profile = await asyncio.wait_for(self._profile(request), patience)
        except NotFound as missing:
            profile, exception = None, missing
        except Exception as failure:  # what has failed once, as a database, may fail here again
            profile, exception = None, failure if isinstance(exception, NotSignedIn) else exception
        if isinstance(exception, NotSignedIn) and profile is not None:
            try:
                return await self.pages.door.begin(request, profile)
            except Exception as failure:
                exception = failure
        language, title, code = look_of(request).language, "error_title", ""
        match exception:
            case StaleForm():
                title = "form_stale_title"
                status, message = STALE_STATUS, page_text("form_stale_text", language)
            case RequestError():
                code, message = exception.code, error_text(exception, language)
                status = STATUS[code]
            case _ if (said := server_code(exception)) is not None:
                code = PAGE_CODES.get(said, said)
                status, message = STATUS[code], ERRORS[code][language]
            case _:
                log.error("page_failed", exc_info=exception, extra={"fields": {"request_id": request.ctx.request_id}})
                status, message = STATUS["internal_error"], ERRORS["internal_error"][language]
        if status == STATUS["not_found"]:
            title = "missing_title"
        elif code == "took_too_long":
            title = "late_title"
        response = self.pages.renderer.page(
            request,
            "error.html",
            profile=profile,
            status=status,
            message=message,
            retry="" if profile is None and status == STATUS["not_found"] else page_of(request, profile),
            title=title,
        )
        if seconds := RETRY_AFTER_SECONDS.get(code):
            response.headers["retry-after"] = str(seconds)
        return response

    async def _profile(self, request: ApiRequest) -> Profile | None:
        """Whose page it was to be. Raises NotFound for nobody's."""
        _, kind, name, *_ = [*request.path.split("/"), "", ""]
        services = self.pages.room.services
        if kind == "h":
            return await services.institutions.profile_by_code(name)
        if kind == "p":
            return (await services.papers.read(name)).profile
        return None


def build_site(room: Room, *, session_key: bytes) -> Site:
    assets = Assets.load()
    renderer = Renderer(assets)
    forms = Forms.of_secret(room.services.outside.public_url, session_key)
    pages = Pages(room=room, renderer=renderer, door=Door(room, forms, renderer))
    parts = [part.blueprint(pages) for part in (papers, bills, together, payments, scanning, binding, people)]
    return Site(pages=pages, blueprints=[entrance.blueprint(pages, assets, forms), *parts])
