"""Finding a payment by any of its numbers, and all that is known of it."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from admin.rendering import rendered
from admin.requests import StaffRequest, id_in_path, number_in_path, reply, word
from admin.room import Room
from core.errors import InvalidRequest


def add_routes(staff: Blueprint, room: Room) -> None:
    files = room.services.payment_files

    @staff.get("/payments")
    async def find_payments(request: StaffRequest) -> HTTPResponse:
        actor = await room.actor(request)
        number = word(request, "number").strip()
        if not number:
            raise InvalidRequest(field="number", problem="is missing")
        return reply({"payments": rendered(await files.find(actor, number))})

    @staff.get("/payments/<order_no:str>", unquote=True)
    async def show_payment(request: StaffRequest, order_no: str) -> HTTPResponse:
        actor = await room.actor(request)
        return reply(rendered(await files.by_order(actor, number_in_path(order_no))))

    @staff.get("/evidence/<event_id:str>/raw")
    async def read_raw(request: StaffRequest, event_id: str) -> HTTPResponse:
        actor = await room.actor(request)
        return reply({"raw": await files.raw(actor, id_in_path(event_id))})
