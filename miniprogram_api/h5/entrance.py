"""What belongs to no page of its own: the way back from a sign-in, how pages are shown, styles and scripts."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse, raw, redirect

from core.errors import NotFound
from core.texts import LANGUAGES
from miniprogram_api.h5.addresses import is_page
from miniprogram_api.h5.assets import PREFIX, Assets
from miniprogram_api.h5.forms import Forms, raw_text
from miniprogram_api.h5.looks import CARE_COOKIE, KEPT, LANGUAGE_COOKIE, keep_cookie
from miniprogram_api.h5.pages import Pages
from miniprogram_api.requests import ApiRequest

FOREVER = "public, max-age=31536000, immutable"
"""An asset's address changes with its content."""


def blueprint(pages: Pages, assets: Assets, forms: Forms) -> Blueprint:
    entrance = Blueprint("h5_entrance")
    is_secure = pages.room.services.outside.public_url.startswith("https:")

    @entrance.get("/h/<code:str>/back")
    async def back(request: ApiRequest, code: str) -> HTTPResponse:
        profile = await pages.room.services.institutions.profile_by_code(code)
        return await pages.door.back(request, profile)

    @entrance.post("/h5/look")
    async def change_look(request: ApiRequest) -> HTTPResponse:
        """Language and size of type; says nothing about anybody, so nobody need be signed in."""
        forms.check_origin(request)
        target = raw_text(request, "back")
        response = redirect(target if is_page(target) else "/", status=303)
        for cookie, field, allowed in (
            (CARE_COOKIE, "care", ("on", "off")),
            (LANGUAGE_COOKIE, "language", LANGUAGES),
        ):
            if (value := raw_text(request, field)) in allowed:
                keep_cookie(response, cookie, value, is_secure=is_secure, life=KEPT)
        return response

    @entrance.get(f"{PREFIX}/<digest:str>/<name:str>")
    async def asset(request: ApiRequest, digest: str, name: str) -> HTTPResponse:
        found = assets.files.get(name)
        if found is None or found.digest != digest:
            raise NotFound()
        packs = "gzip" in str(request.headers.get("accept-encoding", ""))
        headers = {"cache-control": FOREVER, "vary": "accept-encoding"}
        if packs:
            headers["content-encoding"] = "gzip"
        return raw(found.packed if packs else found.body, headers=headers, content_type=found.content_type)

    return entrance
