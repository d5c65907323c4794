"""The page behind the code on a paper: consent, the last four characters, then the bill."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.consents import ConsentKind
from core.errors import FactorLocked, FactorWrong, HospitalUnavailable, InvalidRequest, StillWorking
from core.paper import Paper, PaperStage, PaperView
from core.texts import error_text
from miniprogram_api import views
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.bills import bill_values, own_payment
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import is_ticked, text_of
from miniprogram_api.h5.pages import WAY, Pages
from miniprogram_api.h5.rendering import day_text
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
            await pages.room.running.in_time(
                pages.room.wait_seconds, services.papers.prove(paper, visit.payer, factor), late=StillWorking()
            )
        except StillWorking:
            return pages.working(request, visit, paper_path(token))
        except (FactorWrong, InvalidRequest) as wrong:
            said = error_text(wrong, visit.look.language)
            return await _shown(pages, request, paper, visit, error=said, status=STATUS[wrong.code])
        except FactorLocked as locked:
            said = error_text(locked, visit.look.language)
            return pages.show(request, visit, "paper_locked.html", status=STATUS[locked.code], message=said)
        return redirect(paper_path(token), status=303)

    return papers


def paper_path(token: str) -> str:
    return f"/p/{quote(token, safe='')}"


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
            return pages.working(request, visit, f"{paper_path(paper.token)}?ticket={view.ticket}")
        return pages.asking(request, visit, view)
    values: dict[str, Any] = {
        "view": view,
        "paper_url": paper_path(paper.token),
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
    }
