"""Binding a patient on a page: what the hospital has, then a code to the phone that it holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import quote

from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.consents import ConsentKind
from core.errors import (
    BindingRefused,
    ConsentNeeded,
    HospitalUnavailable,
    InvalidRequest,
    PhoneCodeRefused,
    RequestError,
)
from core.page_texts import IDENTIFIER_TEXTS
from core.patients import BoundPatient, normal_identifier
from core.ports import Identifier, IdentifierType
from core.scrubbing import mask_number
from core.texts import error_text
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import PROOF_FIELD, is_ticked, raw_text, text_of
from miniprogram_api.h5.pages import WAY, Pages
from miniprogram_api.limits import BIND
from miniprogram_api.requests import ApiRequest

log = logging.getLogger("zhenfu.api")


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    """What was typed into the form; it stands in the page again, never in an address."""

    name: str = field(repr=False, default="")
    document: str = IdentifierType.ID_CARD.value
    number: str = field(repr=False, default="")
    phone: str = field(repr=False, default="")

    @classmethod
    def in_form(cls, request: ApiRequest) -> Typed:
        """Raises InvalidRequest."""
        return cls(**{each.name: text_of(request, each.name) for each in fields(cls)})

    def identifier(self) -> Identifier:
        """Raises InvalidRequest."""
        try:
            kind = IdentifierType(self.document)
        except ValueError:
            raise InvalidRequest(field="identifier.type", problem="has the wrong form") from None
        identifier = Identifier(type=kind, value=self.number)
        normal_identifier(identifier)
        return identifier


def blueprint(pages: Pages) -> Blueprint:
    binding = Blueprint("h5_binding", url_prefix="/h/<code:str>/bind")
    services = pages.room.services

    @binding.get("/")
    async def show(request: ApiRequest, code: str) -> HTTPResponse:
        return await _form(pages, request, await pages.visit(request, code), Typed())

    @binding.post("/")
    async def send_code(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        typed = Typed.in_form(request)
        try:
            await _check_agreed(pages, request, visit)
            if not typed.name:
                raise InvalidRequest(field="name", problem="is missing")
            typed.identifier()
            if proof := _proof_in(pages, request, visit, typed):
                return await _bind(pages, request, visit, typed, proof)
            await services.phones.send_code(visit.payer, typed.phone)
        except RequestError as refused:
            return await _form(pages, request, visit, typed, refused)
        return _code_form(pages, request, visit, typed)

    @binding.post("/code")
    async def check_code(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        typed = Typed.in_form(request)
        try:
            await _check_agreed(pages, request, visit)
            typed.identifier()
            phone = await services.phones.check_code(visit.payer, typed.phone, text_of(request, "code"))
        except PhoneCodeRefused as refused:
            return _code_form(pages, request, visit, typed, refused)
        except RequestError as refused:
            return await _form(pages, request, visit, typed, refused)
        now = services.outside.clock.now()
        proof = pages.door.forms.phone_proof(visit.form_token, phone, now=now)
        return await _bind(pages, request, visit, replace(typed, phone=phone), proof)

    return binding


def _proof_in(pages: Pages, request: ApiRequest, visit: Visit, typed: Typed) -> str:
    """That this session has just proven the phone in this form; empty when it has not, or long ago."""
    proof, now = raw_text(request, PROOF_FIELD), pages.room.services.outside.clock.now()
    return proof if pages.door.forms.proves_phone(proof, visit.form_token, typed.phone, now=now) else ""


async def _bind(pages: Pages, request: ApiRequest, visit: Visit, typed: Typed, proof: str) -> HTTPResponse:
    """With a proven phone. What is refused is corrected in the form, which keeps the proof: a code counts once."""
    home = f"/h/{quote(visit.profile.code, safe='')}"
    try:
        await pages.room.limits.check(BIND, str(visit.payer.id))
        bound = await pages.room.running.in_time(
            pages.room.tap_seconds,
            pages.room.services.patients.bind(
                visit.payer,
                name=typed.name,
                identifier=typed.identifier(),
                phone=typed.phone,
                consent_version=visit.profile.settings.privacy_version,
                way=WAY,
            ),
            late=HospitalUnavailable(reason="still_binding"),
        )
    except RequestError as refused:
        if isinstance(refused, BindingRefused) and refused.values.get("reason") == "already_bound":
            return redirect(f"{home}/patients", status=303)
        if isinstance(refused, HospitalUnavailable) and refused.values.get("reason") == "still_binding":
            return pages.refused(request, visit, refused, retry=f"{home}/patients")
        return await _form(pages, request, visit, typed, refused, proof=proof)
    _log_bound(request, visit, bound)
    return redirect(f"{home}/?patient={bound.patient_id}", status=303)


async def _check_agreed(pages: Pages, request: ApiRequest, visit: Visit) -> None:
    """Raises ConsentNeeded."""
    version = visit.profile.settings.privacy_version
    if not (is_ticked(request, "agreed") and text_of(request, "version") == version):
        await pages.room.services.consents.required(visit.payer, ConsentKind.PERSONAL, version=version)


async def _form(
    pages: Pages,
    request: ApiRequest,
    visit: Visit,
    typed: Typed,
    refused: RequestError | None = None,
    *,
    proof: str = "",
) -> HTTPResponse:
    services = pages.room.services
    return pages.show(
        request,
        visit,
        "bind.html",
        status=STATUS[refused.code] if refused else 200,
        can_send=await services.messages.can_write_to_phones(visit.profile.id),
        typed=typed,
        proof=proof,
        documents={kind: texts[visit.look.language] for kind, texts in IDENTIFIER_TEXTS.items()},
        must_agree=not await _has_agreed(pages, visit),
        **_said(refused, visit),
    )


def _code_form(
    pages: Pages, request: ApiRequest, visit: Visit, typed: Typed, refused: RequestError | None = None
) -> HTTPResponse:
    return pages.show(
        request,
        visit,
        "bind_code.html",
        status=STATUS[refused.code] if refused else 200,
        typed=typed,
        masked_phone=mask_number(typed.phone),
        **_said(refused, visit),
    )


async def _has_agreed(pages: Pages, visit: Visit) -> bool:
    version = visit.profile.settings.privacy_version
    try:
        await pages.room.services.consents.required(visit.payer, ConsentKind.PERSONAL, version=version)
    except ConsentNeeded:
        return False
    return True


def _said(refused: RequestError | None, visit: Visit) -> dict[str, Any]:
    """The sentence for an error, and the field that it is about."""
    return {
        "error": error_text(refused, visit.look.language) if refused else "",
        "wrong_field": str(refused.values.get("field", "")) if refused else "",
    }


def _log_bound(request: ApiRequest, visit: Visit, bound: BoundPatient) -> None:
    log.info(
        "patient_bound",
        extra={
            "fields": {
                "patient_id": str(bound.patient_id),
                "payer_id": str(visit.payer.id),
                "consent_version": visit.profile.settings.privacy_version,
                "request_id": request.ctx.request_id,
            }
        },
    )
