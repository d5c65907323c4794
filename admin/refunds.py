"""Giving money back: what may go back, asking for it, and a second person's word."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from admin.rendering import rendered
from admin.requests import StaffRequest, idempotency_key, number_in_path, reply
from admin.room import Room
from admin.schemas import ReasonBody, RefundBody, read, read_empty
from admin.views import refund_brief
from core.money import Fen


def add_routes(staff: Blueprint, room: Room) -> None:
    refunds = room.services.staff_refunds

    @staff.get("/payments/<order_no:str>/refund-options", unquote=True)
    async def show_options(request: StaffRequest, order_no: str) -> HTTPResponse:
        actor = await room.actor(request)
        return reply({"options": rendered(await refunds.options(actor, number_in_path(order_no)))})

    @staff.post("/payments/<order_no:str>/refunds", unquote=True)
    async def request_refund(request: StaffRequest, order_no: str) -> HTTPResponse:
        actor = await room.actor(request)
        body, key = read(RefundBody, request), idempotency_key(request)
        parts = [
            (part.line_id, Fen(part.amount_fen) if part.amount_fen else None, part.his_items) for part in body.parts
        ]
        refund = await refunds.request(actor, number_in_path(order_no), parts, reason=body.reason, key=key)
        return reply(rendered(refund_brief(refund)), 201)

    @staff.get("/refunds")
    async def list_waiting(request: StaffRequest) -> HTTPResponse:
        found = await refunds.waiting(await room.actor(request))
        return reply({"refunds": [rendered(refund_brief(refund)) for refund in found]})

    @staff.post("/refunds/<refund_no:str>/approve", unquote=True)
    async def approve_refund(request: StaffRequest, refund_no: str) -> HTTPResponse:
        actor = await room.actor(request)
        read_empty(request)
        return reply(rendered(refund_brief(await refunds.approve(actor, number_in_path(refund_no)))))

    @staff.post("/refunds/<refund_no:str>/decline", unquote=True)
    async def decline_refund(request: StaffRequest, refund_no: str) -> HTTPResponse:
        actor = await room.actor(request)
        reason = read(ReasonBody, request).reason
        return reply(rendered(refund_brief(await refunds.decline(actor, number_in_path(refund_no), reason=reason))))
