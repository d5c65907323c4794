"""The work list, and what is done with one case."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from admin import views
from admin.requests import KIND_LENGTH_MAX, StaffRequest, id_in_path, language, limit, place, reply, word
from admin.room import Room
from admin.schemas import ReasonBody, read, read_empty
from core.actors import Actor


def add_routes(staff: Blueprint, room: Room) -> None:
    work = room.services.case_work

    async def shown(request: StaffRequest, actor: Actor, case_id: str) -> HTTPResponse:
        case = await work.show(actor, id_in_path(case_id))
        return reply(views.case_file(case, language(request)))

    @staff.get("/cases")
    async def list_cases(request: StaffRequest) -> HTTPResponse:
        actor = await room.actor(request)
        kind = word(request, "kind", length_max=KIND_LENGTH_MAX)
        page = await work.list(actor, kind=kind, after=place(request, "after"), limit=limit(request))
        return reply(views.page("cases", page, [views.case(view, language(request)) for view in page.items]))

    @staff.get("/case-counts")
    async def count_cases(request: StaffRequest) -> HTTPResponse:
        actor = await room.actor(request)
        return reply(views.counts(await work.counts(actor), language(request)))

    @staff.get("/cases/<case_id:str>")
    async def show_case(request: StaffRequest, case_id: str) -> HTTPResponse:
        return await shown(request, await room.actor(request), case_id)

    @staff.post("/cases/<case_id:str>/ask")
    async def ask_now(request: StaffRequest, case_id: str) -> HTTPResponse:
        actor = await room.actor(request)
        read_empty(request)
        await room.at_most(lambda: work.ask_now(actor, id_in_path(case_id)))
        return await shown(request, actor, case_id)

    @staff.post("/cases/<case_id:str>/resume")
    async def resume(request: StaffRequest, case_id: str) -> HTTPResponse:
        actor = await room.actor(request)
        read_empty(request)
        await work.resume(actor, id_in_path(case_id))
        return await shown(request, actor, case_id)

    @staff.post("/cases/<case_id:str>/close")
    async def close(request: StaffRequest, case_id: str) -> HTTPResponse:
        actor = await room.actor(request)
        await work.close(actor, id_in_path(case_id), read(ReasonBody, request).reason)
        return await shown(request, actor, case_id)
