"""Whom a payer has bound, who else has, and what the payer has agreed to."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.consents import ConsentKind, GivenConsent
from core.errors import ConsentNeeded, InvalidRequest, PhoneCodeRefused, RequestError
from core.page_texts import WAY_TEXTS, page_text
from core.scrubbing import mask_number
from core.texts import error_text, time_text
from miniprogram_api import views
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import is_ticked, raw_text, text_of, uuid_of
from miniprogram_api.h5.pages import WAY, Pages
from miniprogram_api.requests import ApiRequest

log = logging.getLogger("zhenfu.api")

DONE = frozenset({"withdrawn", "sms_done"})


def blueprint(pages: Pages) -> Blueprint:
    people = Blueprint("h5_people", url_prefix="/h/<code:str>")
    services = pages.room.services

    @people.get("/patients")
    async def show_patients(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        bound = await services.patients.bound(visit.payer)
        listed = [
            {
                **views.patient(patient),
                "payers": [
                    views.bound_payer(each, visit.look.language)
                    for each in await services.patients.payers_bound(visit.payer, patient.patient_id)
                ],
            }
            for patient in bound
        ]
        return pages.show(request, visit, "patients.html", patients=listed)

    @people.post("/patients")
    async def remove(request: ApiRequest, code: str) -> HTTPResponse:
        """A binding of the payer's own, or one that somebody else has to his patient."""
        visit = await pages.visit(request, code)
        patient_id, binding_id = uuid_of(request, "patient"), uuid_of(request, "binding")
        await services.patients.remove_binding(visit.payer, patient_id, binding_id)
        fields = {"patient_id": str(patient_id), "binding_id": str(binding_id), "payer_id": str(visit.payer.id)}
        log.info("binding_removed", extra={"fields": {**fields, "request_id": request.ctx.request_id}})
        return redirect(f"/h/{quote(code, safe='')}/patients", status=303)

    @people.get("/privacy")
    async def show_privacy(request: ApiRequest, code: str) -> HTTPResponse:
        return await _privacy(pages, request, await pages.visit(request, code))

    @people.post("/privacy/withdraw")
    async def withdraw(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        try:
            kind = ConsentKind(raw_text(request, "kind"))
        except ValueError:
            raise InvalidRequest(field="kind", problem="has the wrong form") from None
        await services.consents.withdraw(visit.payer, kind)
        return redirect(f"/h/{quote(code, safe='')}/privacy?done=withdrawn", status=303)

    @people.post("/privacy/sms")
    async def send_code(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        phone = text_of(request, "phone")
        try:
            if not is_ticked(request, "agreed"):
                raise ConsentNeeded()
            await services.phones.send_code(visit.payer, phone)
        except RequestError as refused:
            return await _privacy(pages, request, visit, phone=phone, refused=refused)
        return _code_form(pages, request, visit, phone)

    @people.post("/privacy/code")
    async def agree_to_sms(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        phone = text_of(request, "phone")
        try:
            proven = await services.phones.check_code(visit.payer, phone, text_of(request, "code"))
        except PhoneCodeRefused as refused:
            return _code_form(pages, request, visit, phone, refused)
        version = visit.profile.settings.privacy_version
        await services.consents.give(visit.payer, ConsentKind.SMS, version=version, way=WAY, phone=proven)
        return redirect(f"/h/{quote(code, safe='')}/privacy?done=sms_done", status=303)

    return people


async def _privacy(
    pages: Pages, request: ApiRequest, visit: Visit, *, phone: str = "", refused: RequestError | None = None
) -> HTTPResponse:
    services = pages.room.services
    given = await services.consents.given(visit.payer)
    done = str(request.args.get("done", ""))
    return pages.show(
        request,
        visit,
        "privacy.html",
        status=STATUS[refused.code] if refused else 200,
        given=[_given(each, visit) for each in given],
        has_sms=any(each.kind is ConsentKind.SMS for each in given),
        can_send=await services.messages.can_write_to_phones(visit.profile.id),
        done=done if done in DONE else "",
        phone=phone,
        not_agreed=isinstance(refused, ConsentNeeded),
        error=_sms_error(refused, visit.look.language) if refused else "",
    )


def _sms_error(refused: RequestError, language: str) -> str:
    if isinstance(refused, ConsentNeeded):
        return page_text("consent_missing", language)
    return error_text(refused, language)


def _given(consent: GivenConsent, visit: Visit) -> dict[str, Any]:
    language = visit.look.language
    return {
        "kind": consent.kind.value,
        "title": page_text(f"privacy_{consent.kind.value}", language),
        "when": page_text(
            "privacy_when",
            language,
            time=time_text(consent.given_at, language),
            way=WAY_TEXTS.get(consent.way, {}).get(language, consent.way),
            version=consent.version,
        ),
    }


def _code_form(
    pages: Pages, request: ApiRequest, visit: Visit, phone: str, refused: RequestError | None = None
) -> HTTPResponse:
    return pages.show(
        request,
        visit,
        "sms_code.html",
        status=STATUS[refused.code] if refused else 200,
        phone=phone,
        masked_phone=mask_number(phone),
        error=error_text(refused, visit.look.language) if refused else "",
    )
