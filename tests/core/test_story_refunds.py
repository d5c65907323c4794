"""Refunds that staff ask for: the HIS first, then the money, and nothing when the HIS refuses."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from core.clock import OUR_CLOCKS_APART
from core.errors import (
    AlreadyDecided,
    HospitalUnavailable,
    IdempotencyConflict,
    InvalidRequest,
    NeedsAnother,
    NotAllowed,
    NotFound,
    RefundNotPossible,
)
from core.models import AuditEntry, Confirmation, HospitalSiteRow, Message, PaymentEvent, Refund, RefundLine, StaffCase
from core.states import LineStatus, RefundStatus
from core.tenancy import scoped
from simulators.faults import Fault
from simulators.hospital_faults import FAULTS
from tests.support.house import MCHID, House
from tests.support.refunding import CLERK, accounts, booked, given_back, request, staff, taken_back

ITEMS = [("阿莫西林", 5000), ("布洛芬", 3650)]


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(settings={"refund_approve_above_fen": 10_000, "merge": True})


async def check_books(house: House) -> None:
    """Ours, the HIS's and the channel's."""
    his = house.his.books()["bills"]
    for order in house.pay.books()["orders"]:
        payment = await house.payment(order["out_trade_no"])
        mine = [entry for bill in his.values() for entry in bill["bookings"] if entry["order_no"] == payment.order_no]
        receipts = {entry["receipt_no"] for entry in mine}
        red = sum(
            entry["amount_fen"]
            for bill in his.values()
            for entry in bill["red_receipts"]
            if entry["receipt_no"] in receipts and entry["money_by"] == "us_original_route"
        )
        kept = sum(entry["amount_fen"] for entry in mine) - red
        assert order["taken_fen"] == kept + order["refunded_fen"]
        assert (payment.refunded_fen, payment.refund_reserved_fen) == (order["refunded_fen"],) * 2
        expected = {"channel_receivable": order["taken_fen"] - order["refunded_fen"], "his_confirmed": -kept}
        assert await accounts(payment) == {account: fen for account, fen in expected.items() if fen}


async def test_a_whole_bill_goes_back_the_his_first(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    (option,) = await house.services.staff_refunds.options(clerk, payment.order_no)
    assert (option.allowed_fen, option.reason, option.title) == (8650, "", line.title)
    refund = await request(house.services, clerk, payment, (line.id, None))
    assert (refund.status, refund.amount_fen, refund.origin) == (RefundStatus.APPROVED, 8650, "staff")
    assert given_back(house, payment.order_no) == 0
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    refund = await Refund.get(id=refund.id)
    assert (line.status, line.refunded_fen) == (LineStatus.RETURNED, 8650)
    assert (refund.status, refund.his_sends_started) == (RefundStatus.REFUNDED, 1)
    assert refund.red_receipt_no.startswith("H")
    assert taken_back(house, line.his_bill_id) == [8650]
    assert given_back(house, payment.order_no) == 8650
    assert (await PaymentEvent.get(id=refund.his_proof_id)).proves == "reversed"
    assert house.pay.refunds[(MCHID, refund.refund_no)].asked["reason"] == "医院退费，原路退款"
    assert await Message.filter(kind="refund_arrived").count() == 1
    (option,) = await house.services.staff_refunds.options(clerk, payment.order_no)
    assert (option.allowed_fen, option.reason) == (0, "under_way")
    with pytest.raises(RefundNotPossible) as refused:
        await request(house.services, clerk, payment, (line.id, None))
    assert refused.value.values["reason"] == "under_way"
    assert await StaffCase.filter(status="open").count() == 0
    assert [entry.action for entry in await AuditEntry.all()] == ["refund_requested"]
    await check_books(house)


async def test_one_item_goes_back_and_the_line_stays_booked(house: House) -> None:
    payment, (line,) = await booked(house, 8650, items=ITEMS)
    clerk = await staff(house, "1001", CLERK)
    refund = await request(house.services, clerk, payment, (line.id, None, ["2"]))
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    assert (line.status, line.refunded_fen) == (LineStatus.CONFIRMED, 3650)
    (part,) = await RefundLine.filter(refund_id=refund.id)
    assert (part.his_items, part.amount_fen, part.reversed_fen) == (["2"], 3650, 3650)
    assert given_back(house, payment.order_no) == 3650
    await check_books(house)
    rest = await request(house.services, clerk, payment, (line.id, None))
    assert rest.amount_fen == 5000
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.RETURNED
    assert taken_back(house, line.his_bill_id) == [3650, 5000]
    await check_books(house)


async def test_parts_of_several_lines_go_back_in_one_refund(house: House) -> None:
    payment, lines = await booked(house, 4000, 3000)
    clerk = await staff(house, "1001", CLERK)
    refund = await request(house.services, clerk, payment, (lines[0].id, None), (lines[1].id, 1000))
    assert refund.amount_fen == 5000
    await house.settle()
    first, second = await house.lines(payment.order_no)
    assert (first.status, second.status, second.refunded_fen) == (LineStatus.RETURNED, LineStatus.CONFIRMED, 1000)
    await check_books(house)


async def test_what_was_handed_out_shows_the_hospitals_reason_and_is_refused(house: House) -> None:
    payment, (line,) = await booked(house, 8650, items=ITEMS)
    house.his.refunds.dispense(line.his_bill_id, ["1"])
    clerk = await staff(house, "1001", CLERK)
    (option,) = await house.services.staff_refunds.options(clerk, payment.order_no)
    assert (option.allowed_fen, option.his_text) == (3650, "药品已发出，不能退费")
    assert [item.refundable for item in option.items] == [False, True]
    for asked in ((line.id, None), (line.id, None, ["1"]), (line.id, 3651)):
        with pytest.raises(RefundNotPossible) as refused:
            await request(house.services, clerk, payment, asked)
        assert refused.value.values == {"reason": "his_refuses", "his_text": "药品已发出，不能退费"}
    house.his.dispense(line.his_bill_id)
    (option,) = await house.services.staff_refunds.options(clerk, payment.order_no)
    assert (option.allowed_fen, option.reason) == (0, "his_refuses")
    assert await Refund.all().count() == 0
    assert (await house.payment(payment.order_no)).refund_reserved_fen == 0


async def test_handed_out_between_question_and_refund_nothing_goes_back(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    refund = await request(house.services, clerk, payment, (line.id, None))
    house.faults.script("hospital.handed_out_meanwhile")
    await house.settle()
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.refusal_text) == (RefundStatus.DECLINED, "药品已发出，不能退费")
    assert (await PaymentEvent.get(id=refund.his_proof_id)).proves == "kept"
    (line,) = await house.lines(payment.order_no)
    assert (line.status, line.refunded_fen) == (LineStatus.CONFIRMED, 0)
    assert given_back(house, payment.order_no) == 0
    assert await StaffCase.filter(status="open").count() == 0
    await check_books(house)


async def test_above_the_limit_another_person_decides(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    clerk, head, other = [await staff(house, code) for code in ("1001", "1002", "1003")]
    service = house.services.staff_refunds
    refund = await request(house.services, clerk, payment, (line.id, None))
    assert refund.status is RefundStatus.REQUESTED
    await house.settle()
    assert taken_back(house, line.his_bill_id) == []
    assert [one.refund_no for one in await service.waiting(head)] == [refund.refund_no]
    with pytest.raises(NeedsAnother):
        await service.approve(clerk, refund.refund_no)
    approved = await service.approve(head, refund.refund_no)
    assert (approved.status, approved.decided_by) == (RefundStatus.APPROVED, head.staff_id)
    assert (await service.approve(head, refund.refund_no)).id == refund.id
    with pytest.raises(AlreadyDecided):
        await service.approve(other, refund.refund_no)
    with pytest.raises(AlreadyDecided):
        await service.decline(other, refund.refund_no, reason="不同意")
    await house.settle()
    assert given_back(house, payment.order_no) == 12_000
    assert [entry.action for entry in await AuditEntry.all().order_by("id")] == ["refund_requested", "refund_approved"]
    assert [one.status for one in await service.of_payment(head, payment.order_no)] == [RefundStatus.REFUNDED]
    await check_books(house)


async def test_what_one_clerk_gives_back_of_a_payment_alone_stays_within_the_limit(house: House) -> None:
    payment, (line,) = await booked(house, 40_000)
    clerk, head = await staff(house, "1001", CLERK), await staff(house, "1002")
    at_once = [await request(house.services, clerk, payment, (line.id, 3000))]
    at_once += await asyncio.gather(*(request(house.services, clerk, payment, (line.id, 4000)) for _ in range(2)))
    waiting = [refund for refund in at_once if refund.status is RefundStatus.REQUESTED]
    assert [refund.amount_fen for refund in waiting] == [4000]
    await house.services.staff_refunds.approve(head, waiting[0].refund_no)
    assert (await request(house.services, clerk, payment, (line.id, 3000))).status is RefundStatus.APPROVED
    assert (await request(house.services, clerk, payment, (line.id, 1))).status is RefundStatus.REQUESTED
    await house.settle(within=timedelta(hours=1))
    assert given_back(house, payment.order_no) == 14_000


async def test_a_declined_request_leaves_everything_as_it_was(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    clerk, head = await staff(house, "1001", CLERK), await staff(house, "1002")
    service = house.services.staff_refunds
    refund = await request(house.services, clerk, payment, (line.id, None))
    with pytest.raises(RefundNotPossible):
        await request(house.services, clerk, payment, (line.id, 1))
    declined = await service.decline(head, refund.refund_no, reason="药已发")
    assert (declined.status, declined.refusal_text) == (RefundStatus.DECLINED, "药已发")
    with pytest.raises(AlreadyDecided):
        await service.approve(head, refund.refund_no)
    again = await request(house.services, clerk, payment, (line.id, None))
    withdrawn = await service.decline(clerk, again.refund_no, reason="按错了")
    assert withdrawn.status is RefundStatus.DECLINED
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    assert (line.status, line.refunded_fen) == (LineStatus.CONFIRMED, 0)
    await check_books(house)


async def test_the_same_click_is_the_same_refund(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    first = await request(house.services, clerk, payment, (line.id, 100), key="k")
    again = await request(house.services, clerk, payment, (line.id, 100), key="k")
    assert first.id == again.id
    with pytest.raises(IdempotencyConflict):
        await request(house.services, clerk, payment, (line.id, 101), key="k")
    await house.settle()
    assert (await request(house.services, clerk, payment, (line.id, 100), key="k")).id == first.id
    assert given_back(house, payment.order_no) == 100


async def test_who_may_not_does_not(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    looker, clerk = await staff(house, "1000", frozenset()), await staff(house, "1001", CLERK)
    service = house.services.staff_refunds
    with pytest.raises(NotAllowed):
        await service.options(looker, payment.order_no)
    with pytest.raises(NotAllowed):
        await request(house.services, looker, payment, (line.id, None))
    refund = await request(house.services, clerk, payment, (line.id, None))
    with pytest.raises(NotAllowed):
        await service.approve(clerk, refund.refund_no)
    with pytest.raises(NotAllowed):
        await service.decline(looker, refund.refund_no, reason="x")
    with pytest.raises(NotFound):
        await service.options(clerk, "P" + "0" * 25)
    with pytest.raises(NotFound):
        await request(house.services, clerk, payment, (payment.id, None))
    with pytest.raises(InvalidRequest):
        await request(house.services, clerk, payment)
    with pytest.raises(InvalidRequest):
        await request(house.services, clerk, payment, (line.id, 0))


async def test_a_line_that_the_his_may_still_book_is_never_refunded(house: House) -> None:
    payer = await house.payer()
    patient = await house.bound(payer)
    started = await house.start(payer, patient, house.bill())
    house.faults.script("hospital.never_answers_booking")
    house.pay_sheet(started)
    await house.settle(within=timedelta(minutes=20))
    (line,) = await house.lines(started.order_no)
    assert line.status is LineStatus.CONFIRMING
    clerk = await staff(house, "1001", CLERK)
    payment = await house.payment(started.order_no)
    (option,) = await house.services.staff_refunds.options(clerk, started.order_no)
    assert (option.allowed_fen, option.reason) == (0, "not_confirmed")
    with pytest.raises(RefundNotPossible) as refused:
        await request(house.services, clerk, payment, (line.id, None))
    assert refused.value.values["reason"] == "not_confirmed"
    assert await Refund.all().count() == 0


async def test_a_silent_hospital_means_no_answer_and_no_refund(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    house.faults.script("hospital.error_500")
    with pytest.raises(HospitalUnavailable):
        await house.services.staff_refunds.options(clerk, payment.order_no)
    house.faults.script("hospital.error_500")
    with pytest.raises(HospitalUnavailable):
        await request(house.services, clerk, payment, (line.id, None))
    assert await Refund.all().count() == 0


async def test_a_hospital_that_takes_nothing_back_for_us_sends_staff_to_the_window(tortoise: object) -> None:
    house = await House.build(no_refund=True)
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    (option,) = await house.services.staff_refunds.options(clerk, payment.order_no)
    assert (option.allowed_fen, option.reason) == (0, "window_only")
    with pytest.raises(RefundNotPossible):
        await request(house.services, clerk, payment, (line.id, None))


async def test_too_late_for_the_channel(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    house.clock.advance(timedelta(days=366))
    with pytest.raises(RefundNotPossible) as refused:
        await request(house.services, clerk, payment, (line.id, None))
    assert refused.value.values["reason"] == "too_late"


async def test_two_refunds_of_one_payment_keep_the_channels_spacing(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    first = await request(house.services, clerk, payment, (line.id, 100))
    second = await request(house.services, clerk, payment, (line.id, 200))
    await house.settle()
    sent = [(await Refund.get(id=refund.id)).last_sent_at for refund in (first, second)]
    assert sent[0] is not None
    assert sent[1] is not None
    assert abs(sent[1] - sent[0]) >= timedelta(seconds=60)
    assert [(await Refund.get(id=refund.id)).sends_started for refund in (first, second)] == [1, 1]
    assert given_back(house, payment.order_no) == 300
    await check_books(house)


REVERSAL_FAULTS = [fault for fault in FAULTS if {"confirm_refund", "query_refund", "refund_repeated"} & fault.calls]


@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize("fault", REVERSAL_FAULTS, ids=lambda fault: fault.name)
async def test_whatever_goes_wrong_at_the_his_it_is_reversed_and_paid_once(
    tortoise: object, fault: Fault, weak: bool
) -> None:
    house = await House.build(settings={"refund_approve_above_fen": 10_000}, weak=weak)
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    refund = await request(house.services, clerk, payment, (line.id, 5000))
    house.faults.script(fault.name, times=2)
    await house.settle(within=timedelta(hours=6))
    house.faults.clear()
    if fault.needs_person:
        assert [case.kind for case in await StaffCase.filter(status="open")] == ["reversal_outcome_unknown"]
        house.his.refunds.resolve(refund.refund_no, take_back=True)
    await house.settle(within=timedelta(days=2))
    refund = await Refund.get(id=refund.id)
    handed_out = fault.name == "hospital.handed_out_meanwhile"
    assert refund.status is (RefundStatus.DECLINED if handed_out else RefundStatus.REFUNDED)
    assert taken_back(house, line.his_bill_id) == ([] if handed_out else [5000])
    assert given_back(house, payment.order_no) == (0 if handed_out else 5000)
    assert await StaffCase.filter(status="open").count() == 0
    await check_books(house)


async def sent_again_after(house: House, row: Confirmation | Refund, number: str, prefix: str = "") -> timedelta:
    """A request that is lost, from a machine whose clock is behind: when the next one leaves."""
    counter, stamp = f"{prefix}sends_started", f"{prefix}last_sent_at"
    house.faults.script("hospital.request_lost", key=number)
    first_at = None
    for _ in range(50):
        if not await house.step():
            due_at = await house.next_due_at()
            assert due_at is not None
            house.clock.advance(due_at - house.clock.now())
        await row.refresh_from_db()
        if first_at is None and getattr(row, counter) == 1:
            first_at = house.clock.now()
            behind = {stamp: first_at - OUR_CLOCKS_APART}
            await scoped(row.institution_id).change(type(row), {"id": row.id}, **behind)
        elif first_at is not None and getattr(row, counter) == 2:
            return house.clock.now() - first_at
    raise AssertionError("it is not sent again")


async def test_clocks_that_are_apart_send_nothing_to_the_his_before_its_time(house: House) -> None:
    payer = await house.payer()
    started = await house.start(payer, await house.bound(payer), house.bill())
    house.pay_sheet(started)
    payment = await house.services.payments.refreshed(payer.id, house.institution_id, started.order_no)
    (confirmation,) = await Confirmation.all()
    site = await house.services.institutions.site(house.institution_id, house.site_id)
    least = timedelta(seconds=site.deadline_seconds + site.capabilities.processing_limit_seconds)
    assert await sent_again_after(house, confirmation, confirmation.confirm_no) >= least
    await house.settle(within=timedelta(hours=1))
    (line,) = await house.lines(started.order_no)
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    assert await sent_again_after(house, refund, refund.refund_no, "his_") >= least


async def test_a_replaced_refund_keeps_its_proof_and_is_never_reversed_twice(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    await request(house.services, clerk, payment, (line.id, None))
    house.faults.script("wechatpay.refund_closed", times=2)
    await house.settle(within=timedelta(days=30))
    refunds = await Refund.all().order_by("id")
    assert [refund.status for refund in refunds] == [RefundStatus.DEAD, RefundStatus.DEAD, RefundStatus.REFUNDED]
    assert {refund.origin for refund in refunds} == {"staff"}
    assert [refund.his_sends_started for refund in refunds] == [1, 0, 0]
    assert taken_back(house, line.his_bill_id) == [8650]
    (line,) = await house.lines(payment.order_no)
    assert line.status is LineStatus.RETURNED
    await check_books(house)


async def test_a_his_that_cannot_be_asked_about_reversals_is_never_told_twice(tortoise: object) -> None:
    house = await House.build(settings={"refund_approve_above_fen": 10_000}, weak=True)
    payment, (line,) = await booked(house)
    await _set_capability(house, "refund_query", False)
    clerk = await staff(house, "1001", CLERK)
    await request(house.services, clerk, payment, (line.id, 5000))
    house.faults.script("hospital.reversed_but_error_500")
    await house.settle(within=timedelta(hours=3))
    assert taken_back(house, line.his_bill_id) == [5000]
    assert (await Refund.all())[0].status is RefundStatus.REVERSING_AT_HIS
    kinds = {case.kind for case in await StaffCase.filter(status="open")}
    assert "reversal_outcome_unknown" in kinds


async def test_a_group_that_was_booked_as_one_goes_back_as_one_where_the_his_takes_no_parts(tortoise: object) -> None:
    house = await House.build(settings={"refund_approve_above_fen": 10_000, "merge": True}, confirm_unit="payment")
    payment, lines = await booked(house, 4000, 3000)
    await _set_capability(house, "partial_refund", False)
    clerk = await staff(house, "1001", CLERK)
    with pytest.raises(RefundNotPossible) as refused:
        await request(house.services, clerk, payment, (lines[0].id, None))
    assert refused.value.values["reason"] == "window_only"
    await request(house.services, clerk, payment, (lines[0].id, None), (lines[1].id, None))
    await house.settle()
    assert given_back(house, payment.order_no) == 7000
    assert {line.status for line in await house.lines(payment.order_no)} == {LineStatus.RETURNED}
    await check_books(house)


async def _set_capability(house: House, name: str, value: bool) -> None:
    row = await HospitalSiteRow.get(id=house.site_id)
    row.capabilities = {**row.capabilities, name: value}
    await row.save(update_fields=["capabilities"])
