"""Races run for real: many at once, on several connections, and one effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core.errors import AlreadyPaid, BillNotPayable, IdempotencyConflict, PaymentOpenElsewhere, StillWorking
from core.evidence import Evidence
from core.models import (
    Confirmation,
    HisLock,
    IdempotencyRecord,
    Inbound,
    Message,
    Payer,
    Payment,
    PaymentEvent,
    PaymentLine,
    Refund,
    StaffCase,
    Transfer,
)
from core.payments import Started
from core.states import LineStatus, PaymentStatus, ProofKind, RefundStatus
from scheduler.loops import Loop, claim_due, loops
from simulators.kit import Request
from tests.support.house import House

AT_ONCE = 8


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(settings={"merge": True})


async def prepared(house: House, **bill: Any) -> tuple[Payer, UUID, str]:
    payer = await house.payer()
    patient = await house.bound(payer)
    return payer, patient, house.bill(**bill)


async def at_once(*work: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*work, return_exceptions=True))


def paid_evidence(payment: Payment, **changes: Any) -> Evidence:
    facts = {
        "ever_paid": True,
        "paid_fen": payment.asked_fen,
        "paid_at": "2026-05-06T03:00:00+00:00",
        "channel_trade_no": "T1",
    }
    values: dict[str, Any] = {
        "order_no": payment.order_no,
        "kind": "trade",
        "source": "wechatpay",
        "proves": "paid",
        "proof_kind": ProofKind.VERIFIED_NOTICE,
        "facts": facts,
        **changes,
    }
    return Evidence(**values)


async def the_notice(house: House) -> tuple[str, Request]:
    """The channel's next notice, as it would be sent."""
    house.clock.advance(timedelta(seconds=30))
    delivery = house.pay.deliveries.take_due(house.clock.now())
    assert delivery is not None
    return delivery.url, delivery.build(house.clock.now())


async def work(house: House, *tables: str) -> None:
    """What is due in these tables, once."""
    for loop in loops(house.services):
        if loop.table in tables:
            for row in await claim_due(loop, house.services):
                await loop.work(row)


# ---------------------------------------------------------------- the same thing, said many times at once


async def test_the_same_notice_eight_times_at_once_is_one_event_and_one_set_of_transfers(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    url, request = await the_notice(house)
    answers = await at_once(*(house.receive(url, request) for _ in range(AT_ONCE)))
    assert [answer.status for answer in answers] == [answers[0].status] * AT_ONCE
    assert answers[0].status in {200, 204}
    assert await Inbound.filter(source="wechatpay").count() == 1
    await house.settle()
    assert await PaymentEvent.filter(proves="paid").count() == 1
    assert sorted([transfer.kind for transfer in await Transfer.all()]) == ["confirmed", "paid"]
    assert house.his.books()["bills"][bill]["times_booked"] == 1
    assert await Message.filter(kind="paid").count() == 1
    assert await StaffCase.all().count() == 0


async def test_the_same_evidence_applied_eight_times_at_once_has_one_effect(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    payment = await house.payment(started.order_no)
    applied = await at_once(*(house.services.applier.apply(paid_evidence(payment)) for _ in range(AT_ONCE)))
    assert [one.status for one in applied] == [PaymentStatus.PAID] * AT_ONCE
    assert await PaymentEvent.filter(payment_id=payment.id).count() == 1
    (transfer,) = await Transfer.all()
    assert (transfer.kind, transfer.amount_fen) == ("paid", 8650)
    assert await Confirmation.all().count() == 1
    assert (await house.payment(started.order_no)).paid_fen == 8650


async def test_notice_and_answers_that_say_the_same_in_different_words_pay_once(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    payment = await house.payment(started.order_no)
    pieces = [
        paid_evidence(payment, proof_kind=kind, source=source)
        for kind in (ProofKind.VERIFIED_NOTICE, ProofKind.AUTHENTICATED_QUERY, ProofKind.AUTHENTICATED_CLOSE)
        for source in ("wechatpay", "staff")
    ]
    await at_once(*(house.services.applier.apply(piece) for piece in pieces))
    assert await PaymentEvent.filter(payment_id=payment.id, proves="paid").count() == len(pieces)
    assert [transfer.kind for transfer in await Transfer.all()] == ["paid"]
    assert await Confirmation.all().count() == 1


async def test_paid_and_closed_said_at_once_end_as_paid(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    payment = await house.payment(started.order_no)
    closed = paid_evidence(payment, proves="closed", facts={"ever_paid": False, "closed": True})
    await at_once(*(house.services.applier.apply(piece) for piece in [closed, paid_evidence(payment)] * 4))
    assert (await house.payment(started.order_no)).status is PaymentStatus.PAID
    await house.settle(within=timedelta(hours=1))
    (line,) = await house.lines(started.order_no)
    assert line.status is LineStatus.CONFIRMED
    assert house.his.books()["bills"][bill]["times_booked"] == 1


# ---------------------------------------------------------------- starting


async def check_one_payment(house: House, outcomes: list[Any], bill: str) -> Started:
    """One start went through; whoever else came was told to wait or got the same pay sheet."""
    started = [outcome for outcome in outcomes if isinstance(outcome, Started)]
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Started)]
    assert {type(outcome) for outcome in refused} <= {StillWorking}
    assert started
    assert len({outcome.order_no for outcome in started}) == 1
    assert await Payment.all().count() == 1
    assert await PaymentLine.filter(his_bill_id=bill).count() == 1
    assert await HisLock.all().count() == 1
    assert len(house.pay.books()["orders"]) == 1
    return started[0]


@pytest.mark.parametrize("times", [2, AT_ONCE])
async def test_starts_at_once_for_one_bill_make_one_payment(house: House, times: int) -> None:
    payer, patient, bill = await prepared(house)
    outcomes = await at_once(*(house.start(payer, patient, bill) for _ in range(times)))
    started = await check_one_payment(house, outcomes, bill)
    again = await house.start(payer, patient, bill)
    assert (again.order_no, again.pay, again.resumed) == (started.order_no, started.pay, True)


async def test_the_same_click_five_times_at_once_makes_one_payment(house: House) -> None:
    payer, patient, bill = await prepared(house)
    outcomes = await at_once(*(house.start(payer, patient, bill, key="one click") for _ in range(5)))
    started = await check_one_payment(house, outcomes, bill)
    assert await IdempotencyRecord.all().count() == 1
    again = await house.start(payer, patient, bill, key="one click")
    assert (again.order_no, again.pay) == (started.order_no, started.pay)
    assert house.pay_sheet(again) == "paid"
    await house.settle()
    with pytest.raises(AlreadyPaid):
        await house.start(payer, patient, bill, key="one click")


async def test_one_key_for_two_bills_at_once_pays_one_of_them(house: House) -> None:
    payer, patient, bill = await prepared(house)
    other = house.bill(total_fen=100)
    outcomes = await at_once(*(house.start(payer, patient, one, key="one click") for one in (bill, other)))
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [IdempotencyConflict]
    assert await Payment.all().count() == 1
    assert await IdempotencyRecord.all().count() == 1


async def test_two_people_starting_at_once_never_hold_one_bill_both(house: House) -> None:
    payer, patient, bill = await prepared(house)
    daughter = await house.payer("王小红", "19900000001")
    await house.bound(daughter)
    outcomes = await at_once(*(house.start(who, patient, bill) for who in (payer, daughter)))
    # The one who was first may learn that the other has ended his attempt while it was being made.
    assert {type(outcome) for outcome in outcomes} <= {Started, StillWorking, PaymentOpenElsewhere, BillNotPayable}
    assert {one.values["reason"] for one in outcomes if isinstance(one, BillNotPayable)} <= {"busy"}
    claims = await PaymentLine.filter(his_bill_id=bill, claims_bill=True)
    assert len(claims) == 1
    payable = [outcome for outcome in outcomes if isinstance(outcome, Started) and house.pay_sheet(outcome) == "paid"]
    await house.settle()
    assert len(payable) <= 1
    assert house.his.books()["bills"][bill]["times_booked"] == len(payable)


async def test_bills_merged_crosswise_at_once_neither_deadlock_nor_pay_twice(house: House) -> None:
    payer, patient, first = await prepared(house)
    second = house.bill(total_fen=100)
    keys = [("", first), ("", second)]
    outcomes = await at_once(
        *(
            house.start(payer, patient, first, bills=tuple(order), shown_fen=8750)
            for order in (keys, keys[::-1], keys, keys[::-1])
        )
    )
    started = [outcome for outcome in outcomes if isinstance(outcome, Started)]
    assert {type(outcome) for outcome in outcomes} <= {Started, StillWorking}
    assert len({outcome.order_no for outcome in started}) == 1
    assert await PaymentLine.all().count() == 2


# ---------------------------------------------------------------- paid twice


async def paid_twice(house: House) -> tuple[str, Started, Started]:
    """Two attempts for one bill, the second begun although the first could not be ended."""
    payer, patient, bill = await prepared(house)
    first = await house.start(payer, patient, bill)
    daughter = await house.payer("王小红", "19900000001")
    await house.bound(daughter)
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    with pytest.raises(PaymentOpenElsewhere):
        await house.start(daughter, patient, bill)
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    house.his.locks.clear()  # this HIS lets somebody else lock a bill that is locked
    second = await house.start(daughter, patient, bill, despite_open=True)
    house.faults.clear()
    return bill, first, second


async def test_two_payments_paid_at_once_for_one_bill_are_booked_once_and_the_other_is_returned(house: House) -> None:
    bill, first, second = await paid_twice(house)
    assert [house.pay_sheet(started) for started in (first, second)] == ["paid", "paid"]
    (one, other) = [await house.payment(started.order_no) for started in (first, second)]
    await at_once(*(house.services.applier.apply(paid_evidence(payment)) for payment in (one, other) for _ in range(4)))
    lines = await PaymentLine.filter(his_bill_id=bill)
    assert sorted(line.status.value for line in lines) == ["confirming", "waiting"]
    await house.settle()
    lines = await PaymentLine.filter(his_bill_id=bill)
    assert sorted(line.status.value for line in lines) == ["confirmed", "returned"]
    (refund,) = await Refund.all()
    assert (refund.status, refund.amount_fen, refund.cause) == (RefundStatus.REFUNDED, 8650, "paid_elsewhere")
    assert house.his.books()["bills"][bill]["times_booked"] == 1
    assert sorted(order["refunded_fen"] for order in house.pay.books()["orders"]) == [0, 8650]
    assert sorted([transfer.kind for transfer in await Transfer.all()]) == [
        "confirmed",
        "paid",
        "paid",
        "refunded",
        "return_decided",
    ]
    returned = {line.payment_id for line in lines if line.status is LineStatus.RETURNED}
    (told,) = await Message.filter(kind="refused_returned")
    assert {told.payment_id} == returned


async def test_lines_that_must_go_back_get_one_refund_however_often_it_is_asked(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    url, request = await the_notice(house)
    await house.receive(url, request)
    await work(house, "inbound", "confirmation")
    (line,) = await house.lines(started.order_no)
    assert line.status is LineStatus.REJECTED
    returning = house.services.returning
    made = await at_once(*(returning.return_lines(line.payment_id, line.institution_id) for _ in range(AT_ONCE)))
    assert [type(one) for one in made if one is not None] == [Refund]
    (refund,) = await Refund.all()
    payment = await house.payment(started.order_no)
    assert (refund.amount_fen, payment.refund_reserved_fen) == (8650, 8650)
    await house.settle()
    assert [order["refunded_fen"] for order in house.pay.books()["orders"]] == [8650]


async def test_eight_workers_at_once_do_the_work_of_one(house: House) -> None:
    """Every loop is worked by eight claimers at the same time until nothing is due."""
    payer, patient, bill = await prepared(house)
    others = [house.bill(total_fen=100 + number) for number in range(4)]
    for one in (bill, *others):
        house.pay_sheet(await house.start(payer, patient, one))

    async def worker(loop: Loop) -> None:
        for row in await claim_due(loop, house.services):
            await loop.work(row)

    for _ in range(40):
        house.clock.advance(timedelta(seconds=5))
        if house.pay.deliveries.next_due_at():
            while delivery := house.pay.deliveries.take_due(house.clock.now()):
                await house.receive(delivery.url, delivery.build(house.clock.now()))
        for loop in house.loops():
            outcomes = await at_once(*(worker(loop) for _ in range(AT_ONCE)))
            assert outcomes == [None] * AT_ONCE
    for one in (bill, *others):
        assert house.his.books()["bills"][one]["times_booked"] == 1
    assert sorted([transfer.kind for transfer in await Transfer.all()]) == ["confirmed"] * 5 + ["paid"] * 5
    assert await Message.filter(kind="paid", status="sent").count() == 5
    assert await StaffCase.all().count() == 0
