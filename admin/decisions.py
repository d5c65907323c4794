"""What takes two: proposing, deciding, and the document that speaks for it."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from admin import views
from admin.rendering import rendered
from admin.requests import StaffRequest, id_in_path, idempotency_key, limit, place, reply
from admin.room import Room
from admin.schemas import ProposeBody, read, read_empty
from core.decision_kinds import Proposal
from core.money import Fen


def add_routes(staff: Blueprint, room: Room) -> None:
    decisions = room.services.decisions

    @staff.get("/decisions")
    async def list_decisions(request: StaffRequest) -> HTTPResponse:
        actor = await room.actor(request)
        page = await decisions.open(actor, after=place(request, "after"), limit=limit(request))
        return reply(views.page("decisions", page, rendered(page.items)))

    @staff.post("/decisions")
    async def propose(request: StaffRequest) -> HTTPResponse:
        actor = await room.actor(request)
        body, key = read(ProposeBody, request), idempotency_key(request)
        proposal = Proposal(
            kind=body.kind,
            number=body.number,
            reason=body.reason,
            document=body.document,
            amount_fen=Fen(body.amount_fen) if body.amount_fen else None,
            their_number=body.their_number,
            at=body.at,
        )
        return reply(rendered(await decisions.propose(actor, proposal, key=key, case_id=body.case_id)), 201)

    @staff.get("/decisions/<decision_id:str>")
    async def show_decision(request: StaffRequest, decision_id: str) -> HTTPResponse:
        return reply(rendered(await decisions.show(await room.actor(request), id_in_path(decision_id))))

    @staff.get("/decisions/<decision_id:str>/document")
    async def read_document(request: StaffRequest, decision_id: str) -> HTTPResponse:
        actor = await room.actor(request)
        return reply({"document": await decisions.document(actor, id_in_path(decision_id))})

    @staff.post("/decisions/<decision_id:str>/approve")
    async def approve(request: StaffRequest, decision_id: str) -> HTTPResponse:
        actor = await room.actor(request)
        read_empty(request)
        return reply(rendered(await decisions.approve(actor, id_in_path(decision_id))))

    @staff.post("/decisions/<decision_id:str>/decline")
    async def decline(request: StaffRequest, decision_id: str) -> HTTPResponse:
        actor = await room.actor(request)
        read_empty(request)
        return reply(rendered(await decisions.decline(actor, id_in_path(decision_id))))
