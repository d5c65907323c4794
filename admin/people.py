"""Who calls, and what everybody has done."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from admin import views
from admin.rendering import rendered
from admin.requests import StaffRequest, limit, place, reply, word
from admin.room import Room


def add_routes(staff: Blueprint, room: Room) -> None:
    @staff.get("/me")
    async def show_me(request: StaffRequest) -> HTTPResponse:
        actor = await room.actor(request)
        profile = await room.services.institutions.profile(actor.institution_id)
        roles = sorted(role.value for role in actor.roles)
        return reply({"code": actor.code, "roles": roles, "institution": profile.code, "hospital": profile.name_zh})

    @staff.get("/audit")
    async def list_audit(request: StaffRequest) -> HTTPResponse:
        actor = await room.actor(request)
        page = await room.services.audit.list(
            actor, subject=word(request, "subject"), before=place(request, "before"), limit=limit(request)
        )
        return reply(views.page("audit", page, rendered(page.items)))
