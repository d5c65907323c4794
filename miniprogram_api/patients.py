"""Whom a payer may see and pay for."""

from __future__ import annotations

import logging
from uuid import UUID

from sanic import Blueprint
from sanic.response import HTTPResponse, empty

from core.errors import ConsentNeeded, HospitalUnavailable
from core.patients import BoundPatient, normal_identifier
from core.ports import Identifier
from miniprogram_api import views
from miniprogram_api.auth import Session
from miniprogram_api.limits import BIND
from miniprogram_api.requests import ApiRequest, language, reply
from miniprogram_api.room import Room
from miniprogram_api.schemas import BindPatient, read

log = logging.getLogger("zhenfu.api")


def blueprint(room: Room) -> Blueprint:
    patients = Blueprint("patients", url_prefix="/api/v1/patients")
    services = room.services

    @patients.get("/")
    async def list_patients(request: ApiRequest) -> HTTPResponse:
        session = await room.asks(request)
        bound = await services.patients.bound(await room.auth.payer(session))
        return reply({"patients": [views.patient(patient) for patient in bound]})

    @patients.post("/")
    async def bind_patient(request: ApiRequest) -> HTTPResponse:
        session = room.auth.session(request)
        body = read(BindPatient, request)
        bound = await room.running.in_time(
            room.tap_seconds,
            _bind(room, session, body, request.ctx.request_id),
            late=HospitalUnavailable(reason="still_binding"),
        )
        return reply(views.patient(bound), 201)

    @patients.delete("/<patient_id:uuid>")
    async def unbind_patient(request: ApiRequest, patient_id: UUID) -> HTTPResponse:
        session = await room.asks(request)
        await services.patients.unbind(await room.auth.payer(session), patient_id)
        return empty()

    @patients.get("/<patient_id:uuid>/payers")
    async def list_payers(request: ApiRequest, patient_id: UUID) -> HTTPResponse:
        session = await room.asks(request)
        found = await services.patients.payers_bound(await room.auth.payer(session), patient_id)
        return reply({"payers": [views.bound_payer(payer, language(request)) for payer in found]})

    @patients.delete("/<patient_id:uuid>/payers/<binding_id:uuid>")
    async def remove_payer(request: ApiRequest, patient_id: UUID, binding_id: UUID) -> HTTPResponse:
        session = await room.asks(request)
        await services.patients.remove_binding(await room.auth.payer(session), patient_id, binding_id)
        fields = {"patient_id": str(patient_id), "binding_id": str(binding_id), "payer_id": str(session.payer_id)}
        log.info("binding_removed", extra={"fields": {**fields, "request_id": request.ctx.request_id}})
        return empty()

    return patients


async def _bind(room: Room, session: Session, body: BindPatient, request_id: str) -> BoundPatient:
    """What can be refused without a counterparty is refused first: a phone code works once and may cost a fee."""
    if not body.consent.agreed:
        raise ConsentNeeded()
    identifier = Identifier(type=body.identifier.type, value=body.identifier.value)
    normal_identifier(identifier)
    await room.limits.check(BIND, str(session.payer_id))
    payer = await room.auth.payer(session)
    phone = await room.auth.phone(payer, body.phone_code)
    bound = await room.services.patients.bind(
        payer, name=body.name, identifier=identifier, phone=phone, consent_version=body.consent.version
    )
    log.info(
        "patient_bound",
        extra={
            "fields": {
                "patient_id": str(bound.patient_id),
                "payer_id": str(session.payer_id),
                "consent_version": body.consent.version,
                "request_id": request_id,
            }
        },
    )
    return bound
