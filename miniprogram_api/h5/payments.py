"""Paying a bill: the tap, the pay sheet, how it stands, the end of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.errors import (
    AlreadyPaid,
    AmountChanged,
    MethodNotAvailable,
    PatientNotBound,
    PaymentOpenElsewhere,
    RequestError,
    StillWorking,
)
from core.money import AMOUNT_FEN_MAX, Fen
from core.ports import Scene
from core.starting import StartPayment
from core.texts import error_text
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.addresses import first_page
from miniprogram_api.h5.bills import bill_path, own_payment, payment_path
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import is_ticked, number_of, text_of
from miniprogram_api.h5.pages import Pages
from miniprogram_api.h5.rendering import Refresh
from miniprogram_api.limits import START
from miniprogram_api.requests import ApiRequest, branch_of, path_text, reply

WAITING = frozenset({"paying", "confirming"})
"""Views of a payment that change by themselves soon."""

PAY_REFRESH_SECONDS = 4


def blueprint(pages: Pages) -> Blueprint:
    payments = Blueprint("h5_payments", url_prefix="/h/<code:str>")
    services = pages.room.services

    @payments.post("/bills/<patient_id:uuid>/<branch:str>/<bill_id:str>/pay", unquote=True)
    async def pay(request: ApiRequest, code: str, patient_id: UUID, branch: str, bill_id: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        bill = (branch_of(branch), path_text(bill_id))
        back = bill_path(visit, patient_id, *bill)
        try:
            return await _start(pages, request, visit, patient_id, bill)
        except StillWorking:
            return pages.working(request, visit, f"{back}?watch=1")
        except AlreadyPaid as paid:
            if order_no := str(paid.values.get("order_no", "")):
                return redirect(payment_path(visit, order_no), status=303)
            return pages.refused(request, visit, paid, retry=back)
        except PaymentOpenElsewhere as still_open:
            return _open_elsewhere(pages, request, visit, still_open, back)
        except AmountChanged as changed:
            said = error_text(changed, visit.look.language)
            return pages.show(request, visit, "changed.html", status=409, message=said, bill_url=back)
        except PatientNotBound:
            return pages.closed(request, visit)
        except RequestError as refused:
            return pages.refused(request, visit, refused, retry=back)

    @payments.get("/payments/<order_no:str>", unquote=True)
    async def show_payment(request: ApiRequest, code: str, order_no: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        payment = await own_payment(pages, visit, path_text(order_no))
        path = payment_path(visit, payment["order_no"])
        if payment["status"] == "paid" and (request.args.get("watch") or request.args.get("open")):
            order = quote(payment["order_no"], safe="")
            return redirect(f"{first_page(visit.profile)}paid?order={order}", status=303)
        sheet = payment["sheet"]
        is_waiting = payment["status"] in WAITING
        return pages.show(
            request,
            visit,
            "payment.html",
            scripts=("wait.js", "pay.js") if is_waiting else (),
            refresh=Refresh(url=f"{path}?watch=1", seconds=PAY_REFRESH_SECONDS, only_without_script=True)
            if is_waiting
            else None,
            payment=payment,
            payment_url=path,
            sheet_values=orjson.dumps(dict(sheet.pay.values)).decode() if sheet and sheet.pay else "",
            sheet_kind=sheet.pay.kind if sheet and sheet.pay else "",
            opens=bool(request.args.get("open")),
            bill_url=await _bill_url(pages, visit, payment),
        )

    @payments.get("/payments/<order_no:str>/state", unquote=True)
    async def state(request: ApiRequest, code: str, order_no: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        payment = await own_payment(pages, visit, path_text(order_no))
        return reply({"status": payment["status"], "has_sheet": payment["sheet"] is not None})

    @payments.post("/payments/<order_no:str>/cancel", unquote=True)
    async def cancel(request: ApiRequest, code: str, order_no: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        payment = await services.payments.of_payer(visit.payer.id, visit.profile.id, path_text(order_no))
        await pages.room.running.at_most(
            pages.room.wait_seconds,
            services.payments.cancel(visit.payer.id, visit.profile.id, payment.order_no),
        )
        return redirect(payment_path(visit, payment.order_no), status=303)

    return payments


async def _bill_url(pages: Pages, visit: Visit, payment: Mapping[str, Any]) -> str:
    """Where the payment's bill can be paid again; empty when it is no longer open to this payer."""
    patient_id, line = UUID(payment["patient_id"]), payment["lines"][0]
    try:
        await pages.room.services.patients.access(visit.profile.id, visit.payer.id, patient_id)
    except PatientNotBound:
        return ""
    return bill_path(visit, patient_id, line["branch"], line["bill_id"])


async def _start(
    pages: Pages, request: ApiRequest, visit: Visit, patient_id: UUID, bill: tuple[str, str]
) -> HTTPResponse:
    services, room = pages.room.services, pages.room
    methods = await services.institutions.methods(visit.profile.id, scene=Scene.MOBILE, app_id=visit.account.app_id)
    if not methods:
        raise MethodNotAvailable()
    wanted = StartPayment(
        payer_id=visit.payer.id,
        institution_id=visit.profile.id,
        patient_id=patient_id,
        bills=(bill,),
        shown_fen=Fen(number_of(request, "shown_fen", most=AMOUNT_FEN_MAX)),
        method=methods[0].code,
        accept_self_paid=is_ticked(request, "self_paid"),
        despite_open=is_ticked(request, "despite_open"),
        key=text_of(request, "key"),
    )
    await room.limits.check(START, str(visit.payer.id))
    started = await room.running.in_time(
        room.tap_seconds, services.starting.start(wanted), late=StillWorking(), once=wanted
    )
    return redirect(payment_path(visit, started.order_no, "open=1"), status=303)


def _open_elsewhere(
    pages: Pages, request: ApiRequest, visit: Visit, error: PaymentOpenElsewhere, back: str
) -> HTTPResponse:
    """The payer may go on all the same: the form again, with his word that he knows."""
    return pages.show(
        request,
        visit,
        "elsewhere.html",
        status=STATUS[error.code],
        message=error_text(error, visit.look.language),
        bill_url=back,
        shown_fen=text_of(request, "shown_fen"),
        self_paid=is_ticked(request, "self_paid"),
        key=pages.room.services.outside.ids.token(),
    )
