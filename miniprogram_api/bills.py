"""What a patient owes, what has been paid, and how it can be paid."""

from __future__ import annotations

from uuid import UUID

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.ports import Scene
from miniprogram_api import views
from miniprogram_api.requests import ApiRequest, branch_of, language, path_text, reply
from miniprogram_api.room import Room, still_asking, tickets
from miniprogram_api.running import Asking


def blueprint(room: Room) -> Blueprint:
    bills = Blueprint("bills", url_prefix="/api/v1/patients/<patient_id:uuid>")
    services = room.services

    @bills.get("/bills")
    async def list_bills(request: ApiRequest, patient_id: UUID) -> HTTPResponse:
        session = await room.asks(request)
        found = await room.lists.unpaid(session, patient_id, tickets(request))
        if isinstance(found, Asking):
            return still_asking(request, found)
        profile = await services.institutions.profile(session.institution_id)
        return reply(views.bills(found, profile, language(request)))

    @bills.get("/bills/<branch:str>/<bill_id:str>", unquote=True)
    async def show_bill(request: ApiRequest, patient_id: UUID, branch: str, bill_id: str) -> HTTPResponse:
        session = await room.asks(request)
        found = await room.lists.bill(session, patient_id, branch_of(branch), path_text(bill_id), tickets(request))
        if isinstance(found, Asking):
            return still_asking(request, found)
        profile = await services.institutions.profile(session.institution_id)
        return reply(views.bill_detail(found, profile, language(request)))

    @bills.get("/paid")
    async def list_paid(request: ApiRequest, patient_id: UUID) -> HTTPResponse:
        session = await room.asks(request)
        return reply(views.paid(await room.lists.paid(session, patient_id, tickets(request)), language(request)))

    @bills.get("/counts")
    async def count_bills(request: ApiRequest, patient_id: UUID) -> HTTPResponse:
        session = await room.asks(request)
        counts = await room.lists.counts(session, patient_id, tickets(request))
        return reply(views.counts(counts, language(request)))

    @bills.get("/methods")
    async def list_methods(request: ApiRequest, patient_id: UUID) -> HTTPResponse:
        session = await room.asks(request)
        await services.patients.access(session.institution_id, session.payer_id, patient_id)
        account = await room.auth.chat_account(await room.auth.payer(session))
        methods = await services.institutions.methods(session.institution_id, scene=Scene.MOBILE, app_id=account.app_id)
        return reply({"methods": [views.method(method, language(request)) for method in methods]})

    return bills
