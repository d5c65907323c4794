"""Red receipts that the HIS makes by itself, and what turns out to be booked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from core.errors import AlreadyDecided, OutcomeUnknown, RefundNotPossible
from core.evidence import booking_evidence, rejection_evidence
from core.his_evidence import kept_evidence, red_receipt_evidence, reversal_evidence
from core.models import Decision, Inbound, Payment, PaymentEvent, PaymentLine, Refund, StaffCase
from core.money import Fen
from core.ports import BillReceipt, Booking, MoneyBy, RedReceipt, Reversal
from core.states import DecisionStatus, LineStatus, ProofKind, RefundStatus
from core.viewing import payment_view
from tests.support.fakes import held
from tests.support.house import House
from tests.support.postgres import Database
from tests.support.refunding import CLERK, accounts, booked, given_back, off, request, staff, taken_back


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(
        settings={"refund_approve_above_fen": 10_000, "refund_daily_cap_fen": 10_000, "merge": True}
    )


async def open_cases() -> list[tuple[str, str]]:
    return [(case.kind, case.subject) for case in await StaffCase.filter(status="open").order_by("id")]


# ---------------------------------------------------------------- red receipts


async def test_a_red_receipt_of_the_window_brings_the_money_back_by_itself(house: House) -> None:
    payment, (line,) = await booked(house)
    red = house.his.reverse_at_window(line.his_bill_id)
    await house.settle()
    (refund,) = await Refund.all()
    assert (refund.origin, refund.status, refund.amount_fen) == ("hospital", RefundStatus.REFUNDED, 8650)
    assert (refund.red_receipt_no, refund.his_sends_started) == (red, 0)
    assert (await PaymentEvent.get(id=refund.his_proof_id)).refund_id == refund.id
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.RETURNED
    assert given_back(house, payment.order_no) == 8650
    assert await accounts(payment) == {}
    assert await open_cases() == []


async def test_a_part_taken_back_at_the_window_leaves_the_rest_booked(house: House) -> None:
    payment, (line,) = await booked(house)
    house.his.reverse_at_window(line.his_bill_id, amount_fen=650)
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    assert (line.status, line.refunded_fen) == (LineStatus.CONFIRMED, 650)
    house.his.reverse_at_window(line.his_bill_id)
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.RETURNED
    assert given_back(house, payment.order_no) == 8650
    assert await accounts(payment) == {}


async def test_one_red_receipt_over_bills_that_were_booked_apart_brings_all_of_it_back(house: House) -> None:
    payment, lines = await booked(house, 3000, 2000, 1000)
    lines.sort(key=lambda line: -line.amount_fen)
    assert len({line.confirm_no for line in lines}) == 3
    red = house.his.reverse_at_window(lines[0].his_bill_id, amount_fen=1200, also=[lines[1].his_bill_id])
    await house.settle()
    (refund,) = await Refund.all()
    assert (refund.red_receipt_no, refund.amount_fen, refund.status) == (red, 3200, RefundStatus.REFUNDED)
    status = {line.his_bill_id: (line.status, line.refunded_fen) for line in await house.lines(payment.order_no)}
    assert [status[line.his_bill_id] for line in lines] == [
        (LineStatus.CONFIRMED, 1200), (LineStatus.RETURNED, 2000), (LineStatus.CONFIRMED, 0)
    ]  # fmt: skip
    assert given_back(house, payment.order_no) == 3200
    assert await open_cases() == []


async def test_a_red_receipt_that_spans_a_booking_under_way_waits_for_it(house: House) -> None:
    house.faults.script("hospital.never_answers_booking")
    payment, lines = await booked(house, 3000, 2000)
    (known,) = [line for line in lines if line.status is LineStatus.CONFIRMED]
    receipt = RedReceipt(
        red_receipt_no="H1",
        known=True,
        confirm_no=known.confirm_no,
        amounts_fen={line.his_bill_id: line.amount_fen for line in lines},
        money_by=MoneyBy.US_ORIGINAL_ROUTE,
    )
    with pytest.raises(OutcomeUnknown):
        await house.services.applier.apply(red_receipt_evidence(payment.order_no, receipt))
    assert await Refund.all().count() == 0


@pytest.mark.parametrize("fault", ["event_duplicated", "event_replayed", "event_forged"])
async def test_a_red_receipt_counts_once_however_it_is_told(house: House, fault: str) -> None:
    payment, (line,) = await booked(house)
    house.faults.script(f"hospital.{fault}")
    red = house.his.reverse_at_window(line.his_bill_id)
    await house.settle()
    house.his.tell_refunded(house.his.bills[line.his_bill_id], red)  # an event of its own, with the same number
    await house.settle()
    assert await Refund.all().count() == 1
    assert given_back(house, payment.order_no) == 8650
    assert await open_cases() == []


async def test_fifty_events_of_one_red_receipt_at_once_are_one_refund(house: House) -> None:
    payment, (line,) = await booked(house)
    red = house.his.reverse_at_window(line.his_bill_id)
    for _ in range(49):
        house.his.tell_refunded(house.his.bills[line.his_bill_id], red)
    requests = []
    while (delivery := house.his.deliveries.take_due(house.clock.now())) is not None:
        requests.append((delivery.url, delivery.build(house.clock.now())))
    assert len(requests) == 50
    await asyncio.gather(*(house.receive(url, request) for url, request in requests))
    assert await Inbound.filter(kind="refunded").count() == 50
    await house.settle()
    (refund,) = await Refund.all()
    assert refund.status is RefundStatus.REFUNDED
    assert given_back(house, payment.order_no) == 8650


@pytest.mark.parametrize("money_by", ["hospital_cash", "hospital_other"])
async def test_what_the_hospital_has_paid_out_itself_is_noted_and_not_paid_again(house: House, money_by: str) -> None:
    payment, (line,) = await booked(house)
    red = house.his.reverse_at_window(line.his_bill_id, money_by=money_by, amount_fen=5000)
    house.his.tell_refunded(house.his.bills[line.his_bill_id], red)
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    assert (line.status, line.paid_out_fen, line.refunded_fen) == (LineStatus.CONFIRMED, 5000, 0)
    assert await Refund.all().count() == 0
    assert await PaymentEvent.filter(kind="red_receipt").count() == 1
    clerk = await staff(house, "1001", CLERK)
    with pytest.raises(RefundNotPossible):
        await request(house.services, clerk, payment, (line.id, 3651))
    await request(house.services, clerk, payment, (line.id, None))
    await house.settle()
    assert given_back(house, payment.order_no) == 3650
    assert await accounts(payment) == {"channel_receivable": 5000, money_by: -5000}
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.RETURNED
    assert payment_view(await house.payment(payment.order_no), [line]) == "refunded"


async def test_what_the_window_has_paid_out_whole_stands_as_booked_no_more(house: House, database: Database) -> None:
    payment, (line,) = await booked(house)
    for amount in (5000, 3650):
        house.his.reverse_at_window(line.his_bill_id, money_by="hospital_cash", amount_fen=amount)
    await house.settle()
    payment = await house.payment(payment.order_no)
    (line,) = await house.lines(payment.order_no)
    assert (line.status, line.paid_out_fen, line.refunded_fen) == (LineStatus.RETURNED, 8650, 0)
    assert (payment_view(payment, [line]), payment.refunded_fen) == ("refunded", 0)
    assert await accounts(payment) == {"channel_receivable": 8650, "hospital_cash": -8650}
    assert await open_cases() == []
    (option,) = await house.services.staff_refunds.options(await staff(house, "1001", CLERK), payment.order_no)
    assert (option.allowed_fen, option.reason) == (0, "under_way")
    assert await off(database) == []


async def test_a_red_receipt_that_does_not_say_who_pays_is_a_case_until_it_does(house: House) -> None:
    payment, (line,) = await booked(house)
    red = house.his.reverse_at_window(line.his_bill_id, money_by="")
    await house.settle()
    assert await open_cases() == [("hospital_refund_unclear", red)]
    assert await Refund.all().count() == 0
    ((_, entry),) = house.his.refunds.red_receipts[red]
    entry.money_by = "us_original_route"
    house.his.tell_refunded(house.his.bills[line.his_bill_id], red)
    await house.settle()
    assert await open_cases() == []
    assert given_back(house, payment.order_no) == 8650


async def test_above_the_daily_cap_two_people_decide(house: House) -> None:
    first, (small,) = await booked(house, 6000)
    second, (large,) = await booked(house, 5000, who="王小红")
    house.his.reverse_at_window(small.his_bill_id)
    await house.settle(within=timedelta(minutes=10))
    house.his.reverse_at_window(large.his_bill_id)
    await house.settle(within=timedelta(minutes=10))
    assert given_back(house, first.order_no) == 6000
    waiting = await Refund.get(payment_id=second.id)
    assert waiting.status is RefundStatus.REQUESTED
    assert given_back(house, second.order_no) == 0
    assert await open_cases() == [("refund_above_daily_cap", waiting.refund_no)]
    head, other = await staff(house, "1002"), await staff(house, "1003")
    service = house.services.staff_refunds
    with pytest.raises(RefundNotPossible):
        await service.approve(head, waiting.refund_no)
    decision = await a_decision(house, second, waiting, head.staff_id, other.staff_id)
    released = await service.release(waiting, decision)
    assert (released.requested_by, released.decided_by) == (head.staff_id, other.staff_id)
    with pytest.raises(AlreadyDecided):
        await service.release(waiting, decision)
    await house.settle()
    assert given_back(house, second.order_no) == 5000
    assert await accounts(second) == {}
    assert await open_cases() == []


async def test_two_people_may_keep_what_is_above_the_cap(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    house.his.reverse_at_window(line.his_bill_id)
    await house.settle(within=timedelta(minutes=10))
    waiting = await Refund.get(payment_id=payment.id)
    head, other = await staff(house, "1002"), await staff(house, "1003")
    decision = await a_decision(house, payment, waiting, head.staff_id, other.staff_id)
    kept = await house.services.staff_refunds.keep(waiting, decision, text="收据有误")
    assert (kept.status, kept.refusal_text) == (RefundStatus.DECLINED, "收据有误")
    (line,) = await house.lines(payment.order_no)
    assert (line.status, line.refunded_fen) == (LineStatus.CONFIRMED, 0)
    assert (await house.payment(payment.order_no)).refund_reserved_fen == 0
    assert await open_cases() == []


async def test_the_cap_is_of_one_business_day(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    house.his.reverse_at_window(line.his_bill_id, amount_fen=7000)
    await house.settle(within=timedelta(hours=1))
    house.clock.advance(timedelta(hours=14))  # past midnight in Shanghai
    house.his.reverse_at_window(line.his_bill_id)
    await house.settle()
    assert given_back(house, payment.order_no) == 12_000
    assert await open_cases() == []


async def a_decision(house: House, payment: Payment, refund: Refund, first: Any, second: Any) -> Decision:
    decision = await Decision.create(
        id=house.services.outside.ids.uuid(),
        institution_id=house.institution_id,
        kind="release_refund",
        payment_id=payment.id,
        refund_id=refund.id,
        proposed_by=first,
        proposed_at=house.clock.now(),
    )
    decision.status, decision.decided_by, decision.decided_at = DecisionStatus.APPROVED, second, house.clock.now()
    await decision.save()
    return decision


async def test_our_own_red_receipt_is_no_second_refund(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    await request(house.services, clerk, payment, (line.id, None))
    house.faults.script("hospital.reversed_but_error_500")
    await house.settle()
    assert [event.type for event in house.his.events][-1] == "refunded"
    (refund,) = await Refund.all()
    assert (refund.origin, refund.status) == ("staff", RefundStatus.REFUNDED)
    assert given_back(house, payment.order_no) == 8650
    assert await open_cases() == []


async def test_the_cashier_is_faster_than_the_second_person(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    clerk, head = await staff(house, "1001", CLERK), await staff(house, "1002")
    asked = await request(house.services, clerk, payment, (line.id, None))
    house.his.reverse_at_window(line.his_bill_id, amount_fen=2000)
    await house.settle()
    asked = await Refund.get(id=asked.id)
    assert (asked.status, asked.refusal_text) == (RefundStatus.DECLINED, "窗口已退费")
    with pytest.raises(AlreadyDecided):
        await house.services.staff_refunds.approve(head, asked.refund_no)
    assert given_back(house, payment.order_no) == 2000


async def test_the_cashier_and_our_request_meet_at_the_his(house: House) -> None:
    """The window takes it back while our approved refund waits for the HIS: refused there, paid by the red receipt."""
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    asked = await request(house.services, clerk, payment, (line.id, 5000))
    house.faults.script("hospital.not_reached", key=asked.refund_no, times=3)
    house.his.reverse_at_window(line.his_bill_id)
    await house.settle()
    refunds = {refund.origin: refund for refund in await Refund.all()}
    assert refunds["staff"].id == asked.id
    assert refunds["staff"].status is RefundStatus.DECLINED
    assert (refunds["hospital"].status, refunds["hospital"].amount_fen) == (RefundStatus.REFUNDED, 8650)
    assert given_back(house, payment.order_no) == 8650
    assert taken_back(house, line.his_bill_id) == [8650]
    assert await open_cases() == []


async def test_red_receipts_of_the_windows_own_money_are_nobodys_business(house: House) -> None:
    bill = house.bill()
    house.his.window_pay(bill)
    house.his.reverse_at_window(bill)
    await house.settle()
    assert await Refund.all().count() == 0
    assert await open_cases() == []
    assert await Inbound.filter(status="received").count() == 0


async def test_what_the_his_takes_back_after_declining_it_is_owed_and_shown(house: House, database: Database) -> None:
    payment, (line,) = await booked(house)
    asked = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    await house.services.staff_refunds.reversals.begin(await Refund.get(id=asked.id))
    await house.services.applier.apply(kept_evidence(payment.order_no, asked.refund_no, code="LOCKED", message="x"))
    assert (await Refund.get(id=asked.id)).status is RefundStatus.DECLINED
    red = house.his.reverse_at_window(line.his_bill_id)
    ((_, entry),) = house.his.refunds.red_receipts[red]
    entry.refund_no = asked.refund_no
    for _ in range(2):
        await house.settle(within=timedelta(hours=1))
        house.his.tell_refunded(house.his.bills[line.his_bill_id], red)
    (owed,) = await Refund.filter(origin="hospital")
    assert (owed.status, owed.amount_fen, owed.red_receipt_no) == (RefundStatus.REFUNDED, 8650, red)
    assert given_back(house, payment.order_no) == 8650
    assert await open_cases() == [("hospital_contradicts_itself", asked.refund_no)]
    assert await off(database) == []


async def test_a_red_receipt_over_a_request_that_nobody_has_approved_is_unclear(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    asked = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    red = house.his.reverse_at_window(line.his_bill_id)
    ((_, entry),) = house.his.refunds.red_receipts[red]
    entry.refund_no = asked.refund_no
    await house.settle(within=timedelta(hours=1))
    assert (await Refund.get(id=asked.id)).status is RefundStatus.REQUESTED
    assert await open_cases() == [("hospital_refund_unclear", red)]


async def test_a_red_receipt_that_does_not_say_which_booking_is_unclear_if_we_booked_the_bill(house: House) -> None:
    payment, (line,) = await booked(house)
    red = house.his.reverse_at_window(line.his_bill_id)
    ((_, entry),) = house.his.refunds.red_receipts[red]
    entry.confirm_no = ""
    await house.settle()
    (case,) = await StaffCase.filter(status="open")
    assert (case.kind, case.subject, case.payment_id) == ("hospital_refund_unclear", red, payment.id)
    assert await Refund.all().count() == 0
    entry.confirm_no = line.confirm_no
    house.his.tell_refunded(house.his.bills[line.his_bill_id], red)
    await house.settle()
    assert (given_back(house, payment.order_no), await open_cases()) == (8650, [])


# ---------------------------------------------------------------- disputes


async def returned(house: House) -> tuple[Payment, PaymentLine]:
    payer = await house.payer()
    patient = await house.bound(payer)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    await house.settle(within=timedelta(hours=1))
    (line,) = await house.lines(started.order_no)
    return await house.payment(started.order_no), line


async def booked_after_all(house: House, payment: Payment, line: PaymentLine) -> None:
    receipt = BillReceipt(his_bill_id=line.his_bill_id, receipt_no="S1")
    await house.services.applier.apply(
        booking_evidence(
            payment.order_no,
            line.confirm_no,
            Booking(booked=True, receipts=(receipt,)),
            proof=ProofKind.AUTHENTICATED_QUERY,
        )
    )


async def test_what_was_returned_and_is_booked_after_all_is_disputed(house: House) -> None:
    payment, line = await returned(house)
    assert line.status is LineStatus.RETURNED
    for _ in range(2):
        await booked_after_all(house, payment, line)
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.DISPUTED
    assert await accounts(payment) == {"his_dispute": 8650, "his_confirmed": -8650}
    assert await open_cases() == [("hospital_contradicts_itself", line.confirm_no)]
    await red_receipt_over(house, payment, line, 8650)
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.RETURNED
    assert (await accounts(payment), await open_cases()) == ({}, [])


async def rejected_a_moment_ago(house: House) -> tuple[Payment, PaymentLine]:
    """Refused by the HIS while another bill of the payment is still being decided."""
    payer = await house.payer()
    patient = await house.bound(payer)
    bills = [house.bill(), house.bill(total_fen=1200)]
    started = await house.start(
        payer, patient, bills[0], bills=tuple(("", bill) for bill in bills), shown_fen=Fen(9850)
    )
    first, second = await house.lines(started.order_no)
    house.faults.script("hospital.refuses_confirm", key=first.confirm_no)
    house.faults.script("hospital.not_reached", key=second.confirm_no, times=2)
    house.pay_sheet(started)
    while first.status is not LineStatus.REJECTED:
        if not await house.step():
            house.clock.advance(timedelta(seconds=1))
        first, second = await house.lines(started.order_no)
    assert second.status is LineStatus.CONFIRMING
    return await house.payment(started.order_no), first


async def test_what_was_refused_a_moment_ago_and_is_booked_after_all_stays_until_the_his_takes_it_back(
    house: House, database: Database
) -> None:
    payment, line = await rejected_a_moment_ago(house)
    await booked_after_all(house, payment, line)
    await house.settle(within=timedelta(hours=2))
    line, other = await house.lines(payment.order_no)
    (refund,) = await Refund.all()
    assert (line.status, other.status) == (LineStatus.DISPUTED, LineStatus.CONFIRMED)
    assert (refund.status, refund.due_at, refund.amount_fen) == (RefundStatus.APPROVED, None, 8650)
    assert await accounts(payment) == {
        "channel_receivable": 9850,
        "his_confirmed": -9850,
        "his_dispute": 8650,
        "refund_payable": -8650,
    }
    assert await off(database) == []
    for amount_fen in (1, 8650):  # only all of it ends the dispute
        await red_receipt_over(house, payment, line, amount_fen)
    await house.settle(within=timedelta(hours=2))
    line, _ = await house.lines(payment.order_no)
    assert line.status is LineStatus.RETURNED
    assert given_back(house, payment.order_no) == 8650
    assert await accounts(payment) == {"channel_receivable": 1200, "his_confirmed": -1200}
    assert await open_cases() == [("hospital_refund_unclear", "H1")]
    assert await off(database) == []


async def red_receipt_over(house: House, payment: Payment, line: PaymentLine, amount_fen: int) -> None:
    receipt = RedReceipt(
        red_receipt_no=f"H{amount_fen}",
        known=True,
        confirm_no=line.confirm_no,
        amounts_fen={line.his_bill_id: Fen(amount_fen)},
        money_by=MoneyBy.US_ORIGINAL_ROUTE,
    )
    await house.services.applier.apply(red_receipt_evidence(payment.order_no, receipt))


async def test_money_that_has_not_left_stops_when_it_is_disputed(house: House) -> None:
    payment, (line,) = await booked(house)
    del payment, line
    payer = await house.payer("王小红", "19900000001")
    patient = await house.bound(payer)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.not_reached", times=50)
    await house.settle(within=timedelta(minutes=1))
    (line,) = await house.lines(started.order_no)
    assert line.status is LineStatus.RETURNING
    payment = await house.payment(started.order_no)
    await booked_after_all(house, payment, line)
    house.faults.clear()
    await house.settle(within=timedelta(days=1))
    refund = await Refund.get(payment_id=payment.id)
    assert (refund.due_at, refund.sends_started) == (None, refund.sends_unreached)
    assert given_back(house, payment.order_no) == 0
    assert ("hospital_contradicts_itself", line.confirm_no) in await open_cases()


@pytest.mark.parametrize(("call", "fault"), [("query", ""), ("refund", "not_reached"), ("refund", "request_lost")])
async def test_money_that_is_leaving_at_this_moment_stops_when_it_is_disputed(
    house: House, database: Database, call: str, fault: str
) -> None:
    payer = await house.payer()
    started = await house.start(payer, await house.bound(payer), house.bill())
    house.pay_sheet(started)
    payment = await house.services.payments.refreshed(payer.id, house.institution_id, started.order_no)
    (line,) = await house.lines(started.order_no)
    house.faults.script("hospital.refuses_confirm")
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold(call)
    working = asyncio.create_task(house.settle(within=timedelta(minutes=1)))
    await channel.reached(call)
    await booked_after_all(house, payment, line)
    refund = await Refund.get(payment_id=payment.id)
    if fault:
        house.faults.script(f"wechatpay.{fault}", key=refund.refund_no)
    channel.let_go(call)
    await working
    await house.settle(within=timedelta(days=1))
    refund = await Refund.get(id=refund.id)
    assert (refund.status in {RefundStatus.APPROVED, RefundStatus.SENDING}, refund.due_at) == (True, None)
    assert given_back(house, payment.order_no) == 0
    assert (await house.lines(payment.order_no))[0].status is LineStatus.DISPUTED
    assert await off(database) == []
    await red_receipt_over(house, payment, line, 8650)
    await house.settle(within=timedelta(hours=2))
    assert given_back(house, payment.order_no) == 8650
    assert (await accounts(payment), await open_cases()) == ({}, [])


async def test_a_refusal_after_the_booking_is_a_case_and_moves_nothing(house: House) -> None:
    payment, (line,) = await booked(house)
    await house.services.applier.apply(
        rejection_evidence(payment.order_no, line.confirm_no, code="BILL_CANCELLED", message="")
    )
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.CONFIRMED
    assert await open_cases() == [("hospital_contradicts_itself", line.confirm_no)]


async def test_a_reversal_of_another_amount_moves_no_money(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    refund = await request(house.services, clerk, payment, (line.id, 5000))
    house.faults.script("hospital.never_answers_reversal")
    await house.settle(within=timedelta(minutes=2))
    said = Reversal(reversed=True, red_receipt_no="H9", amounts_fen={line.his_bill_id: Fen(4999)})
    await house.services.applier.apply(reversal_evidence(payment.order_no, refund.refund_no, said))
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.his_proof_id) == (RefundStatus.REVERSING_AT_HIS, None)
    assert await open_cases() == [("reversal_differs", refund.refund_no)]
