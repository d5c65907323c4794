"""What a payer has agreed to: given, seen, and withdrawn in one place."""

from __future__ import annotations

import logging

from sanic import Blueprint
from sanic.response import HTTPResponse, empty

from core.consents import ConsentKind
from core.errors import ConsentNeeded, InvalidRequest, NotFound
from miniprogram_api import views
from miniprogram_api.limits import BIND
from miniprogram_api.requests import ApiRequest, reply
from miniprogram_api.room import Room
from miniprogram_api.schemas import GiveConsent, read

log = logging.getLogger("zhenfu.api")

WAY = "miniprogram"


def blueprint(room: Room) -> Blueprint:
    consents = Blueprint("consents", url_prefix="/api/v1/consents")
    services = room.services

    async def shown(request: ApiRequest, status: int) -> HTTPResponse:
        payer = await room.auth.payer(room.auth.session(request))
        profile = await services.institutions.profile(payer.institution_id)
        return reply(views.consents(await services.consents.given(payer), profile), status)

    @consents.get("/")
    async def list_consents(request: ApiRequest) -> HTTPResponse:
        await room.asks(request)
        return await shown(request, 200)

    @consents.post("/")
    async def give_consent(request: ApiRequest) -> HTTPResponse:
        """To the notice that is shown now; a page that shows an older one is told to show it anew."""
        session = await room.asks(request)
        body = read(GiveConsent, request)
        payer = await room.auth.payer(session)
        profile = await services.institutions.profile(payer.institution_id)
        if body.version != profile.settings.privacy_version:
            raise ConsentNeeded()
        phone = ""
        if body.kind is ConsentKind.SMS:
            if body.phone_code is None:
                raise InvalidRequest(field="phone_code", problem="is missing")
            await room.limits.check(BIND, str(payer.id))
            phone = await room.auth.phone(payer, body.phone_code)
        await services.consents.give(payer, body.kind, version=body.version, way=WAY, phone=phone)
        return await shown(request, 201)

    @consents.delete("/<kind:str>")
    async def withdraw_consent(request: ApiRequest, kind: str) -> HTTPResponse:
        session = await room.asks(request)
        if kind not in {each.value for each in ConsentKind}:
            raise NotFound()
        await services.consents.withdraw(await room.auth.payer(session), ConsentKind(kind))
        fields = {"kind": kind, "payer_id": str(session.payer_id), "request_id": request.ctx.request_id}
        log.info("consent_withdrawn", extra={"fields": fields})
        return empty()

    return consents
