"""Paper prescriptions in the mini program: scanned, typed, proven, and then paid like any other bill."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.errors import InvalidRequest, NotFound
from core.models import Payer
from core.paper import PaperView
from miniprogram_api import views
from miniprogram_api.auth import Session
from miniprogram_api.requests import ApiRequest, language, reply
from miniprogram_api.room import Room, still_asking, tickets
from miniprogram_api.running import Asking
from miniprogram_api.schemas import FactorBody, OpenPaper, read

PAGE_PATH = "/p/"
"""Of the page behind a paper's code; after it comes the token."""


def blueprint(room: Room) -> Blueprint:
    papers = Blueprint("papers", url_prefix="/api/v1/papers")
    services = room.services

    async def look(payer: Payer, token: str) -> PaperView:
        return await services.papers.look(await services.papers.read(token), payer)

    async def look_by_barcode(payer: Payer, code: str) -> PaperView:
        return await look(payer, await services.papers.by_barcode(payer, code))

    async def prove(payer: Payer, token: str, factor: str) -> PaperView:
        paper = await services.papers.read(token)
        await services.papers.prove(paper, payer, factor)
        return await services.papers.look(paper, payer)

    @papers.post("/")
    async def open_paper(request: ApiRequest) -> HTTPResponse:
        session = await room.asks(request)
        body = read(OpenPaper, request)
        if [body.token, body.url, body.code].count(None) != 2:
            raise InvalidRequest(field="token", problem="send one of token, url and code")
        payer = await room.auth.payer(session)
        if body.code is not None:
            code = body.code
            return await _answer(
                room, request, session, ("paper_code", payer.id, code), lambda: look_by_barcode(payer, code)
            )
        token = body.token if body.token is not None else token_of(services.outside.public_url, body.url or "")
        return await _answer(room, request, session, ("paper", payer.id, token), lambda: look(payer, token))

    @papers.get("/<token:str>")
    async def show_paper(request: ApiRequest, token: str) -> HTTPResponse:
        session = await room.asks(request)
        payer = await room.auth.payer(session)
        return await _answer(room, request, session, ("paper", payer.id, token), lambda: look(payer, token))

    @papers.post("/<token:str>/factor")
    async def prove_paper(request: ApiRequest, token: str) -> HTTPResponse:
        session = await room.asks(request)
        factor = read(FactorBody, request).factor
        payer = await room.auth.payer(session)
        # The same digits again, while the HIS is silent, are the same question; as a guess they count once anyway.
        key = ("factor", payer.id, token, factor)
        return await _answer(room, request, session, key, lambda: prove(payer, token, factor))

    return papers


def token_of(public_url: str, url: str) -> str:
    """The token in the whole address that a scan gives. Raises NotFound for an address that is not a paper's."""
    start = f"{public_url}{PAGE_PATH}"
    if not url.startswith(start):
        raise NotFound(reason="paper")
    return url.removeprefix(start).partition("#")[0].partition("?")[0].rstrip("/")


async def _answer(
    room: Room,
    request: ApiRequest,
    session: Session,
    key: Hashable,
    work: Callable[[], Coroutine[Any, Any, PaperView]],
) -> HTTPResponse:
    view = await room.lists.questions.ask(key, work, tickets=tickets(request))
    if isinstance(view, Asking):
        return still_asking(request, view)
    shown = [] if view.bill is None else await room.lists.with_ours(session, [view.bill, *view.others])
    return reply(views.paper(view, shown, language(request)))
