"""The staff's HTTP API as one blueprint, to be served beside the patients'."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from admin import cases, decisions, payments, people, refunds
from admin.errors import answer
from admin.openapi import document
from admin.requests import StaffRequest, reply
from admin.room import ASK_SECONDS, Room
from core.services import Services

VERSION_PATH = "/v1"


def blueprint(services: Services, *, path: str = "/staff", ask_seconds: float = ASK_SECONDS) -> Blueprint:
    """Under `path` + /v1. `ask_seconds`: how long a channel or HIS that was asked is waited for."""
    staff = Blueprint("staff", url_prefix=path + VERSION_PATH)
    room = Room(services=services, ask_seconds=ask_seconds)
    for part in (people, cases, decisions, payments, refunds):
        part.add_routes(staff, room)

    @staff.get("/openapi.json")
    async def describe(request: StaffRequest) -> HTTPResponse:
        return reply(document(path + VERSION_PATH))

    staff.exception(Exception)(answer)
    return staff
