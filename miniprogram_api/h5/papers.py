"""The page behind the code on a paper: consent, the last four characters, then the bill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.consents import ConsentKind
from core.errors import FactorLocked, FactorWrong, HospitalUnavailable, InvalidRequest
from core.paper import Paper, PaperStage, PaperView
from core.texts import error_text
from miniprogram_api import views
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.bills import bill_values, own_payment
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import is_ticked, raw_text, text_of
from miniprogram_api.h5.pages import WAY, Pages, locked_text
from miniprogram_api.h5.rendering import day_text
from miniprogram_api.h5.together import choices
from miniprogram_api.requests import ApiRequest
from miniprogram_api.room import tickets
from miniprogram_api.running import Asking

TEMPLATES = {
    PaperStage.CONSENT: "paper_consent.html",
    PaperStage.FACTOR: "paper_factor.html",
    PaperStage.WINDOW: "paper_window.html",
    PaperStage.OPEN: "paper_open.html",
}


IN_ADDRESS = r"[^/]+(?<!\.txt)"
"""Beside the papers' addresses may lie a file by which a platform proves the directory."""


def blueprint(pages: Pages) -> Blueprint:
    papers = Blueprint("h5_papers", url_prefix=f"/p/<token:{IN_ADDRESS}>")
    services, door = pages.room.services, pages.door

    @papers.get("/")
    async def show(request: ApiRequest, token: str) -> HTTPResponse:
        paper = await services.papers.read(token)
        visit = await door.visit(request, paper.profile)
        return await _shown(pages, request, paper, visit)

    @papers.post("/consent")
    async def agree(request: ApiRequest, token: str) -> HTTPResponse:
        paper = await services.papers.read(token)
        visit = await door.visit(request, paper.profile)
        version = paper.profile.settings.privacy_version
        if not is_ticked(request, "agreed") or text_of(request, "version") != version:
            return await _shown(pages, request, paper, visit, error="consent", status=STATUS["consent_needed"])
        await services.consents.give(visit.payer, ConsentKind.PERSONAL, version=version, way=WAY)
        return redirect(paper_path(token), status=303)

    @papers.post("/factor")
    async def prove(request: ApiRequest, token: str) -> HTTPResponse:
        paper = await services.papers.read(token)
        visit = await door.visit(request, paper.profile)
        factor = text_of(request, "factor")
        try:
            wrong = await pages.room.lists.questions.ask(
                ("factor", visit.payer.id, paper.token, factor),
                lambda: _compared(pages, paper, visit, factor),
                tickets=frozenset({raw_text(request, "ticket")}),
            )
        except FactorLocked as locked:
            said = locked_text(locked, visit.look.language)
            return pages.show(request, visit, "paper_locked.html", status=STATUS[locked.code], message=said)
        if isinstance(wrong, Asking):
            return pages.asking_for(request, visit, wrong, fields={"factor": factor})
        if wrong is not None:
            said, status = error_text(wrong.error, visit.look.language), STATUS[wrong.error.code]
            return await _page(pages, request, visit, wrong.view, error=said, status=status)
        return redirect(paper_path(token), status=303)

    return papers


def paper_path(token: str) -> str:
    return f"/p/{quote(token, safe='')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """A factor that opened nothing, and the paper to show the form on once more."""

    error: FactorWrong | InvalidRequest
    view: PaperView


async def _compared(pages: Pages, paper: Paper, visit: Visit, factor: str) -> Wrong | None:
    """None when the paper is open now. One question to the HIS, so that no answer that counted is lost on the way.

    Raises FactorLocked and what `Papers.prove` raises; FactorWrong when the paper itself cannot be shown.
    """
    papers = pages.room.services.papers
    try:
        await papers.prove(paper, visit.payer, factor)
    except (FactorWrong, InvalidRequest) as error:
        try:
            return Wrong(error=error, view=await papers.look(paper, visit.payer))
        except HospitalUnavailable:
            raise error from None
    return None


async def _shown(
    pages: Pages, request: ApiRequest, paper: Paper, visit: Visit, *, error: str = "", status: int = 200
) -> HTTPResponse:
    view = await pages.room.lists.questions.ask(
        ("paper", visit.payer.id, paper.token),
        lambda: pages.room.services.papers.look(paper, visit.payer),
        tickets=tickets(request),
    )
    if isinstance(view, Asking):
        if request.method == "POST":  # the form comes back by itself, without what was typed
            return pages.asking(request, visit, view, page=paper_path(paper.token))
        return pages.asking(request, visit, view)
    return await _page(pages, request, visit, view, error=error, status=status)


async def _page(
    pages: Pages, request: ApiRequest, visit: Visit, view: PaperView, *, error: str, status: int
) -> HTTPResponse:
    values: dict[str, Any] = {
        "view": view,
        "paper_url": paper_path(view.paper.token),
        "issued_on": day_text(view.issued_on, visit.look.language),
        "error": error,
        "payment": await own_payment(pages, visit, view.own_order_no) if view.own_order_no else None,
    }
    if view.stage is PaperStage.OPEN:
        values |= await _open_values(pages, visit, view)
    return pages.show(request, visit, TEMPLATES[view.stage], status=status, **values)


async def _open_values(pages: Pages, visit: Visit, view: PaperView) -> dict[str, Any]:
    """What the page of an open paper shows: its bill with a form to pay it, and the visit's other bills."""
    if view.bill is None or view.patient_id is None:
        raise HospitalUnavailable()
    shown, *others = await pages.room.lists.with_ours(visit.session, [view.bill, *view.others])
    return {
        **bill_values(pages, visit, shown, view.patient_id, view.masked_name),
        "others": [views.bill(other, visit.profile, visit.look.language) for other in others],
        "together": choices(visit, view.patient_id, [shown, *others]),
    }
