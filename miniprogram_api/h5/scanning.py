"""A prescription's own barcode or our code, scanned by the app's scanner or typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.errors import CounterpartyError, FactorLocked, PlatformUnavailable, RequestError
from core.institutions import PaperCode
from core.texts import error_text
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.addresses import is_page
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import raw_text, text_of
from miniprogram_api.h5.pages import Pages, locked_text
from miniprogram_api.h5.papers import paper_path
from miniprogram_api.h5.rendering import origin_of
from miniprogram_api.requests import ApiRequest
from miniprogram_api.running import Asking

SCANNER_SCRIPT = "https://res.wx.qq.com/open/js/jweixin-1.6.0.js"
"""WeChat's own script: its terms want it loaded from there. Without it the number is typed."""

SCANNED_LENGTH_MAX = 1024


def blueprint(pages: Pages) -> Blueprint:
    scanning = Blueprint("h5_scanning", url_prefix="/h/<code:str>/scan")

    @scanning.get("/")
    async def show(request: ApiRequest, code: str) -> HTTPResponse:
        return await _form(pages, request, await pages.visit(request, code))

    @scanning.post("/")
    async def find(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        try:
            scanned = text_of(request, "number", length_max=SCANNED_LENGTH_MAX)
            if path := paper_address(scanned, pages.room.services.outside.public_url):
                return redirect(path, status=303)
            number = number_in(scanned)
            found = await pages.room.lists.questions.ask(
                ("barcode", visit.payer.id, number),
                lambda: pages.room.services.papers.by_barcode(visit.payer, number),
                tickets=frozenset({raw_text(request, "ticket")}),
            )
        except RequestError as refused:
            language = visit.look.language
            said = (
                locked_text(refused, language) if isinstance(refused, FactorLocked) else error_text(refused, language)
            )
            return await _form(pages, request, visit, error=said, status=STATUS[refused.code])
        if isinstance(found, Asking):
            return pages.asking_for(request, visit, found, fields={"number": number})
        return redirect(paper_path(found), status=303)

    return scanning


async def _form(pages: Pages, request: ApiRequest, visit: Visit, *, error: str = "", status: int = 200) -> HTTPResponse:
    is_on = visit.profile.settings.paper_code is not PaperCode.OFF
    config = await _scanner(pages, request, visit) if is_on else {}
    return pages.show(
        request,
        visit,
        "scan.html",
        status=status,
        scripts=("scan.js",) if config else (),
        script_origins=(origin_of(SCANNER_SCRIPT),) if config else (),
        is_on=is_on,
        config=orjson.dumps(dict(config)).decode() if config else "",
        scanner_script=SCANNER_SCRIPT,
        error=error,
    )


async def _scanner(pages: Pages, request: ApiRequest, visit: Visit) -> Mapping[str, Any]:
    """What the app's scanner wants to know; empty where there is none, or where the platform is silent."""
    outside = pages.room.services.outside
    platform = outside.platforms.get(visit.account.platform)
    if platform is None:
        return {}
    query = f"?{request.query_string}" if request.query_string else ""
    try:
        return await pages.room.running.in_time(
            pages.room.wait_seconds,
            platform.page_config(visit.account, f"{outside.public_url}{request.path}{query}"),
            late=PlatformUnavailable(),
        )
    except (CounterpartyError, PlatformUnavailable):
        return {}


def paper_address(scanned: str, public_url: str) -> str:
    """The path of a paper of ours; empty for anything else."""
    path = scanned.removeprefix(public_url)
    return path if path != scanned and path.startswith("/p/") and is_page(path) else ""


def number_in(scanned: str) -> str:
    """A scanner writes the kind of a barcode before its number: CODE_128,A123."""
    return scanned.rpartition(",")[2].strip()
