"""The first payment from bill to receipt, and the ways it can go wrong, on real wire formats."""

from __future__ import annotations

from core.models import Message, StaffCase, Transfer
from core.states import LineStatus, PaymentStatus
from tests.support.house import House


async def test_a_payment_is_taken_booked_and_told(tortoise: object) -> None:
    house = await House.build()
    payer = await house.payer()
    patient = await house.bound(payer)
    bill = house.bill()
    await house.settle()
    started = await house.start(payer, patient, bill)
    assert house.pay_sheet(started) == "paid"
    await house.settle()
    payment = await house.payment(started.order_no)
    assert payment.status is PaymentStatus.PAID
    (line,) = await house.lines(started.order_no)
    assert line.status is LineStatus.CONFIRMED
    assert line.receipt_no
    assert line.guide_text
    assert await StaffCase.all().count() == 0
    assert {(t.kind, t.debit, t.credit, t.amount_fen) for t in await Transfer.all()} == {
        ("paid", "channel_receivable", "awaiting_his", 8650),
        ("confirmed", "awaiting_his", "his_confirmed", 8650),
    }
    assert {m.kind: m.status.value for m in await Message.all()} == {"new_bill": "sent", "paid": "sent"}
