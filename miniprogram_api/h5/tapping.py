"""The tap that begins a payment, of one bill or of several: on to the pay sheet, or why not and where to go."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote
from uuid import UUID

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
from core.states import PaymentStatus
from core.texts import error_text
from miniprogram_api.errors import STATUS
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import is_ticked, number_of, raw_text, text_of
from miniprogram_api.h5.pages import Pages
from miniprogram_api.limits import START
from miniprogram_api.requests import ApiRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Tap:
    """What was tapped on which page."""

    patient_id: UUID
    bills: tuple[tuple[str, str], ...]  # (branch, his_bill_id)
    page: str  # where the button stands
    action: str  # where its form leads
    again: str  # where a tap that takes long is looked for


def payment_path(visit: Visit, order_no: str, query: str = "") -> str:
    path = f"/h/{quote(visit.profile.code, safe='')}/payments/{quote(order_no, safe='')}"
    return f"{path}?{query}" if query else path


async def begin(pages: Pages, request: ApiRequest, visit: Visit, tap: Tap) -> HTTPResponse:
    try:
        return await _start(pages, request, visit, tap)
    except StillWorking:
        return pages.working(request, visit, tap.again)
    except AlreadyPaid as paid:
        if order_no := str(paid.values.get("order_no", "")):
            return redirect(payment_path(visit, order_no), status=303)
        return pages.refused(request, visit, paid, retry=tap.page)
    except PaymentOpenElsewhere as still_open:
        return _open_elsewhere(pages, request, visit, still_open, tap)
    except AmountChanged as changed:
        said = error_text(changed, visit.look.language)
        return pages.show(request, visit, "changed.html", status=409, message=said, bill_url=tap.page)
    except PatientNotBound:
        return pages.closed(request, visit)
    except RequestError as refused:
        return pages.refused(request, visit, refused, retry=tap.page)


async def watched(pages: Pages, request: ApiRequest, visit: Visit, order_no: str, *, again: str) -> HTTPResponse:
    """After a tap that took long: on to the pay sheet, once it is there."""
    payment = await pages.room.services.payments.of_payer(visit.payer.id, visit.profile.id, order_no)
    if payment.status is PaymentStatus.CREATED:
        return pages.working(request, visit, f"{again}{'&' if '?' in again else '?'}watch=1")
    return redirect(payment_path(visit, order_no, "open=1"), status=303)


async def _start(pages: Pages, request: ApiRequest, visit: Visit, tap: Tap) -> HTTPResponse:
    services, room = pages.room.services, pages.room
    methods = await services.institutions.methods(visit.profile.id, scene=Scene.MOBILE, app_id=visit.account.app_id)
    if not methods:
        raise MethodNotAvailable()
    wanted = StartPayment(
        payer_id=visit.payer.id,
        institution_id=visit.profile.id,
        patient_id=tap.patient_id,
        bills=tap.bills,
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
    pages: Pages, request: ApiRequest, visit: Visit, error: PaymentOpenElsewhere, tap: Tap
) -> HTTPResponse:
    """The payer may go on all the same: the form again, with his word that he knows."""
    return pages.show(
        request,
        visit,
        "elsewhere.html",
        status=STATUS[error.code],
        message=error_text(error, visit.look.language),
        bill_url=tap.page,
        action=tap.action,
        bills=raw_text(request, "bills"),
        shown_fen=text_of(request, "shown_fen"),
        self_paid=is_ticked(request, "self_paid"),
        key=pages.room.services.outside.ids.token(),
    )
