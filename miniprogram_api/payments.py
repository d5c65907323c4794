"""Paying: start, look, cancel."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.errors import StillWorking
from core.models import Payment
from core.money import Fen
from core.starting import StartPayment
from core.states import PaymentStatus
from miniprogram_api import views
from miniprogram_api.auth import Session
from miniprogram_api.limits import START
from miniprogram_api.requests import ApiRequest, header_text, language, path_text, reply
from miniprogram_api.room import Room
from miniprogram_api.schemas import StartPaymentBody, read, read_empty


def blueprint(room: Room) -> Blueprint:
    payments = Blueprint("payments", url_prefix="/api/v1/payments")
    services = room.services

    @payments.post("/")
    async def start_payment(request: ApiRequest) -> HTTPResponse:
        session = room.auth.session(request)
        wanted = _wanted(session, read(StartPaymentBody, request), key=header_text(request, "Idempotency-Key"))
        await room.limits.check(START, str(session.payer_id))
        # The same key again is told "still working" until this has ended, and then gets what it has brought.
        started = await room.running.in_time(
            room.tap_seconds, services.starting.start(wanted), late=StillWorking(), once=wanted
        )
        return reply(views.started(started), 200 if started.resumed else 201)

    @payments.get("/<order_no:str>", unquote=True)
    async def show_payment(request: ApiRequest, order_no: str) -> HTTPResponse:
        session = await room.asks(request)
        payment = await _own(room, session, path_text(order_no))
        if payment.status is PaymentStatus.PENDING:
            await room.running.at_most(
                room.wait_seconds,
                services.payments.refreshed(session.payer_id, session.institution_id, payment.order_no),
            )
            payment = await _own(room, session, payment.order_no)
        return reply(views.payment(payment, await services.payments.lines(payment), language(request)))

    @payments.post("/<order_no:str>/cancel", unquote=True)
    async def cancel_payment(request: ApiRequest, order_no: str) -> HTTPResponse:
        session = await room.asks(request)
        read_empty(request)
        payment = await _own(room, session, path_text(order_no))
        await room.running.at_most(
            room.wait_seconds, services.payments.cancel(session.payer_id, session.institution_id, payment.order_no)
        )
        payment = await _own(room, session, payment.order_no)
        return reply(views.payment(payment, await services.payments.lines(payment), language(request)))

    return payments


async def _own(room: Room, session: Session, order_no: str) -> Payment:
    return await room.services.payments.of_payer(session.payer_id, session.institution_id, order_no)


def _wanted(session: Session, body: StartPaymentBody, *, key: str) -> StartPayment:
    return StartPayment(
        payer_id=session.payer_id,
        institution_id=session.institution_id,
        patient_id=body.patient_id,
        bills=tuple((bill.branch, bill.bill_id) for bill in body.bills),
        shown_fen=Fen(body.shown_fen),
        method=body.method,
        accept_self_paid=body.accept_self_paid,
        despite_open=body.despite_open,
        key=key,
    )
