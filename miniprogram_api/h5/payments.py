"""Paying a bill: the tap, the pay sheet, how it stands, the end of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.errors import PatientNotBound
from miniprogram_api.h5.addresses import first_page
from miniprogram_api.h5.bills import bill_path, own_payment
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.pages import Pages
from miniprogram_api.h5.rendering import Refresh
from miniprogram_api.h5.tapping import Tap, begin, payment_path
from miniprogram_api.h5.together import together_path, unpaid_path
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
        tap = Tap(patient_id=patient_id, bills=(bill,), page=back, action=f"{back}/pay", again=f"{back}?watch=1")
        return await begin(pages, request, visit, tap)

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
    """Where the payment's bills can be paid again; empty when they are no longer open to this payer."""
    patient_id, lines = UUID(payment["patient_id"]), payment["lines"]
    try:
        await pages.room.services.patients.access(visit.profile.id, visit.payer.id, patient_id)
    except PatientNotBound:
        return ""
    if len(lines) == 1:
        return bill_path(visit, patient_id, lines[0]["branch"], lines[0]["bill_id"])
    if payment["status"] != "not_paid":
        return unpaid_path(visit, patient_id)
    return together_path(visit, patient_id, [(line["branch"], line["bill_id"]) for line in lines])
