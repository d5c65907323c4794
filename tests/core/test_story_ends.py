"""The ways a payment can end other than well, each to its last fen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from core.errors import (
    AlreadyPaid,
    AmountChanged,
    BillNotPayable,
    ChannelUnavailable,
    NotFound,
    PaymentOpenElsewhere,
)
from core.evidence import Evidence
from core.models import HisLock, Message, Payment, PaymentEvent, Refund, StaffCase, Transfer
from core.money import Fen
from core.ports import Identifier, IdentifierType, LockGrant
from core.states import LineStatus, LockStatus, PaymentStatus, ProofKind, RefundStatus
from tests.support.house import LABOURER, MCHID, House
from tests.support.postgres import Database
from tests.support.refunding import accounts, off


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def prepared(house: House, **bill: Any) -> tuple[Any, Any, str]:
    payer = await house.payer()
    patient = await house.bound(payer)
    return payer, patient, house.bill(**bill)


async def status(house: House, order_no: str) -> tuple[PaymentStatus, list[LineStatus]]:
    payment = await house.payment(order_no)
    return payment.status, [line.status for line in await house.lines(order_no)]


async def test_an_unpaid_payment_ends_closed_and_the_bill_is_free_again(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    await house.settle()
    assert await status(house, started.order_no) == (PaymentStatus.CLOSED, [LineStatus.VOID])
    assert house.pay_sheet(started) == "closed"
    (lock,) = await HisLock.all()
    assert lock.status is LockStatus.RELEASED
    again = await house.start(payer, patient, bill)
    assert house.pay_sheet(again) == "paid"
    await house.settle()
    assert await status(house, again.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])


async def test_the_hospital_refuses_and_the_money_goes_back(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    await house.settle()
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.RETURNED])
    (refund,) = await Refund.all()
    assert (refund.status, refund.amount_fen, refund.cause) == (RefundStatus.REFUNDED, 8650, "BILL_CANCELLED")
    payment = await house.payment(started.order_no)
    assert (payment.refunded_fen, payment.refund_reserved_fen, payment.paid_fen) == (8650, 8650, 8650)
    assert [(t.kind, t.debit, t.credit) for t in await Transfer.all().order_by("id")] == [
        ("paid", "channel_receivable", "awaiting_his"),
        ("return_decided", "awaiting_his", "refund_payable"),
        ("refunded", "refund_payable", "channel_receivable"),
    ]
    assert {m.kind for m in await Message.all()} >= {"refused_returned", "refund_arrived"}
    assert await StaffCase.all().count() == 0


async def test_a_payment_that_succeeds_after_its_end_is_locked_again_and_booked(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    await house.settle()
    payment = await house.payment(started.order_no)
    assert payment.status is PaymentStatus.CLOSED
    await house.services.applier.apply(paid_evidence(payment))
    await house.settle()
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])
    assert house.his.books()["bills"][bill]["times_booked"] == 1
    (lock,) = await HisLock.all()
    assert lock.status is LockStatus.CONSUMED


def paid_evidence(payment: Payment, paid_fen: int | None = None) -> Evidence:
    return Evidence(
        order_no=payment.order_no,
        kind="trade",
        source="wechatpay",
        proves="paid",
        proof_kind=ProofKind.VERIFIED_NOTICE,
        facts={
            "ever_paid": True,
            "paid_fen": payment.asked_fen if paid_fen is None else paid_fen,
            "paid_at": "2026-05-06T03:00:00+00:00",
            "channel_trade_no": "T1",
        },
    )


async def test_a_second_app_ends_the_first_attempt(house: House) -> None:
    payer, patient, bill = await prepared(house)
    first = await house.start(payer, patient, bill)
    daughter = await house.payer("王小红", "19900000001")
    await house.bound(daughter)
    second = await house.start(daughter, patient, bill)
    assert house.pay_sheet(first) == "closed"
    assert house.pay_sheet(second) == "paid"
    with pytest.raises(AlreadyPaid) as refused:
        await house.start(payer, patient, bill)
    assert refused.value.values == {}  # another payer's order number is nobody's business
    await house.settle()
    assert (await status(house, first.order_no))[0] is PaymentStatus.CLOSED
    assert await status(house, second.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])


async def test_going_on_although_the_first_attempt_is_open_books_once_and_returns_the_other(house: House) -> None:
    payer, patient, bill = await prepared(house)
    first = await house.start(payer, patient, bill)
    daughter = await house.payer("王小红", "19900000001")
    await house.bound(daughter)
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    with pytest.raises(PaymentOpenElsewhere):
        await house.start(daughter, patient, bill)
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    second = await house.start(daughter, patient, bill, despite_open=True)
    house.faults.clear()
    assert house.pay_sheet(second) == "paid"
    await house.services.applier.apply(paid_evidence(await house.payment(first.order_no)))
    await house.settle(within=timedelta(hours=1))
    lines = [line for order in (first, second) for line in await house.lines(order.order_no)]
    statuses = {line.status for line in lines}
    assert LineStatus.CONFIRMED in statuses
    assert statuses <= {LineStatus.CONFIRMED, LineStatus.RETURNING, LineStatus.RETURNED}
    assert house.his.books()["bills"][bill]["times_booked"] == 1
    assert await Refund.all().count() == 1


@pytest.mark.parametrize("answer", ["rate_limited", "rate_limited_accepted"])
async def test_too_often_for_the_channel_is_tried_again_under_the_same_number(
    house: House, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """Its word proves neither that an order is there nor that none is: the same number makes it one in either case."""
    monkeypatch.setattr("core.placing.TOO_OFTEN_PAUSES_SECONDS", (0.0, 0.0))
    payer, patient, bill = await prepared(house)
    house.faults.script(f"wechatpay.{answer}", times=2)
    started = await house.start(payer, patient, bill)
    assert house.pay_sheet(started) == "paid"
    await house.settle()
    assert [number for _, number in house.pay.orders] == [started.order_no]
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])


@pytest.mark.parametrize(("answer", "orders"), [("rate_limited", 1), ("request_lost", 1), ("answer_lost", 2)])
async def test_the_next_tap_goes_on_with_the_number_that_the_channel_would_not_take(
    house: House, monkeypatch: pytest.MonkeyPatch, answer: str, orders: int
) -> None:
    """Minutes before "no such order" proves anything. An order that the channel has got is closed, with proof."""
    monkeypatch.setattr("core.placing.TOO_OFTEN_PAUSES_SECONDS", (0.0, 0.0))
    payer, patient, bill = await prepared(house)
    house.faults.rate(f"wechatpay.{answer}", 1.0)
    with pytest.raises(ChannelUnavailable):
        await house.start(payer, patient, bill)
    (payment,) = await Payment.all()
    with pytest.raises(PaymentOpenElsewhere):
        await house.start(payer, patient, bill)
    house.clock.advance(timedelta(seconds=3))
    await house.step()
    other = await house.payer("王小红", "19900000001")
    await house.bound(other)
    with pytest.raises(PaymentOpenElsewhere):  # somebody else is told, as ever
        await house.start(other, patient, bill)
    house.faults.clear()
    started = await house.start(payer, patient, bill)
    assert (started.order_no == payment.order_no, len(house.pay.orders)) == (orders == 1, orders)
    assert house.pay_sheet(started) == "paid"
    await house.settle()
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])
    assert house.his.books()["bills"][bill]["times_booked"] == 1


async def test_a_wrong_amount_is_held_shown_to_staff_and_returned_whole(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    payment = await house.payment(started.order_no)
    await house.services.applier.apply(paid_evidence(payment, paid_fen=8600))
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.HELD])
    (case,) = await StaffCase.all()
    assert (case.kind, case.details) == ("wrong_amount", {"asked_fen": 8650, "paid_fen": 8600})
    house.clock.advance(timedelta(hours=25))
    await house.step()
    (refund,) = await Refund.all()
    assert refund.amount_fen == 8600
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.RETURNING])


@pytest.mark.parametrize("amounts", [(8650, 9650), (9650, 8650)])
async def test_the_larger_of_two_amounts_counts_whichever_is_said_first(
    house: House, database: Database, amounts: tuple[int, int]
) -> None:
    """What was told to the HIS stands; what would go back of the rest waits until a person has looked."""
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    payment = await house.payment(started.order_no)
    for paid_fen in (*amounts, *amounts):
        await house.services.applier.apply(paid_evidence(payment, paid_fen=paid_fen))
        await house.settle(within=timedelta(hours=1))
    payment = await house.payment(started.order_no)
    assert payment.paid_fen == 9650
    assert "contradicting_evidence" in {case.kind for case in await StaffCase.filter(status="open")}
    if amounts[0] == 8650:
        assert (await status(house, started.order_no))[1] == [LineStatus.CONFIRMED]
        assert await accounts(payment) == {"channel_receivable": 9650, "his_confirmed": -8650, "refund_payable": -1000}
        (refund,) = await Refund.all()
        assert (refund.amount_fen, refund.status, refund.due_at) == (1000, RefundStatus.APPROVED, None)
    else:
        assert (await status(house, started.order_no))[1] == [LineStatus.HELD]
        assert await accounts(payment) == {"channel_receivable": 9650, "held": -9650}
    assert await off(database) == []


async def test_a_held_amount_that_grows_is_returned_whole(house: House, database: Database) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    payment = await house.payment(started.order_no)
    for paid_fen in (8600, 8700):
        await house.services.applier.apply(paid_evidence(payment, paid_fen=paid_fen))
    assert await accounts(payment) == {"channel_receivable": 8700, "held": -8700}
    assert await off(database) == []
    house.clock.advance(timedelta(hours=25))
    await house.step()
    (refund,) = await Refund.all()
    assert refund.amount_fen == 8700


async def test_paid_at_the_window_while_the_pay_sheet_is_open(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.his.window_pay(bill, force=True)
    await house.step()
    await house.step()
    assert house.pay_sheet(started) == "closed"
    assert (await status(house, started.order_no))[0] is PaymentStatus.CLOSED
    with pytest.raises(BillNotPayable) as refused:
        await house.start(payer, patient, bill)
    assert refused.value.values["reason"] == "paid"


async def test_the_amount_changed_between_looking_and_paying(house: House) -> None:
    payer, patient, bill = await prepared(house)
    house.his.change_amount(bill, 9000)
    with pytest.raises(AmountChanged) as refused:
        await house.start(payer, patient, bill, shown_fen=Fen(8650))
    assert refused.value.values == {"shown_fen": 8650, "amount_fen": 9000}
    assert await Payment.all().count() == 0


async def test_amounts_that_changed_places_between_looking_and_paying(tortoise: object) -> None:
    """The sum is the same, the bills are not: nothing is created at the channel."""
    house = await House.build(settings={"merge": True}, confirm_unit="payment")
    payer, patient, first = await prepared(house)
    bills = [first, house.bill(total_fen=1200)]
    lock = house.services.outside.hospitals["rest"].lock_bills

    async def locked(*arguments: Any) -> LockGrant:
        grant = await lock(*arguments)
        return replace(grant, amounts_fen=dict(zip(bills, (Fen(1200), Fen(8650)), strict=True)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(house.services.outside.hospitals["rest"], "lock_bills", locked)
        with pytest.raises(AmountChanged):
            await house.start(payer, patient, first, bills=tuple(("", bill) for bill in bills), shown_fen=Fen(9850))
    (payment,) = await Payment.all()
    assert (payment.status, payment.sends_started) == (PaymentStatus.FAILED, 0)


async def test_one_bill_under_two_spellings_is_one_bill(tortoise: object) -> None:
    """At a HIS that looks its numbers up whatever their case."""
    house = await House.build(settings={"merge": True})
    payer, patient, bill = await prepared(house)
    ask = house.services.outside.hospitals["rest"].get_bill
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            house.services.outside.hospitals["rest"], "get_bill", lambda site, number: ask(site, number.upper())
        )
        both = (("", bill.lower()), ("", bill))
        with pytest.raises(BillNotPayable):
            await house.start(payer, patient, bill, bills=both, shown_fen=Fen(17_300))
        assert await Payment.all().count() == 0
        first = await house.start(payer, patient, bill, bills=both[:1])
        again = await house.start(payer, patient, bill)
    assert (again.order_no, again.resumed) == (first.order_no, True)


async def test_another_familys_bill_looks_like_none_at_all(house: House) -> None:
    payer, patient, _ = await prepared(house)
    with pytest.raises(NotFound):
        await house.start(payer, patient, house.bill(LABOURER))
    assert await Payment.all().count() == 0


async def test_the_same_click_again_hands_out_the_same_pay_sheet(house: House) -> None:
    payer, patient, bill = await prepared(house)
    first = await house.start(payer, patient, bill, key="same")
    again = await house.start(payer, patient, bill, key="same")
    other_key = await house.start(payer, patient, bill)
    assert first.order_no == again.order_no == other_key.order_no
    assert first.pay == again.pay == other_key.pay
    assert (first.resumed, again.resumed, other_key.resumed) == (False, True, True)


async def test_a_bill_of_nothing_is_booked_without_a_channel_payment(house: House) -> None:
    payer, patient, bill = await prepared(house, total_fen=0, items=[("免费", 0)])
    started = await house.start(payer, patient, bill)
    assert started.pay is None
    await house.settle()
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])
    event = await PaymentEvent.get(proves="paid")
    assert event.proof_kind == ProofKind.NOTHING_TO_COLLECT
    assert house.pay.books()["orders"] == []
    assert await Transfer.all().count() == 0


async def test_a_refund_number_that_dies_is_replaced_and_only_one_counts(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.refund_closed", times=2)
    await house.settle(within=timedelta(days=30))
    refunds = await Refund.all().order_by("id")
    assert [refund.status for refund in refunds] == [RefundStatus.DEAD, RefundStatus.DEAD, RefundStatus.REFUNDED]
    assert [refund.replaces_id for refund in refunds] == [None, refunds[0].id, refunds[1].id]
    payment = await house.payment(started.order_no)
    assert (payment.refunded_fen, payment.refund_reserved_fen) == (8650, 8650)
    assert await StaffCase.filter(status="open").count() == 0


async def test_a_hospital_without_locks(tortoise: object) -> None:
    house = await House.build(no_lock=True)
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    await house.settle()
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])
    assert await HisLock.all().count() == 0


async def test_a_channel_that_never_answered_ends_by_absence_after_the_deadline(house: House) -> None:
    payer, patient, bill = await prepared(house)
    house.faults.script("wechatpay.request_lost", times=2)
    with pytest.raises(Exception, match="channel_unavailable"):
        await house.start(payer, patient, bill)
    await house.settle()
    (payment,) = await Payment.all()
    assert payment.status is PaymentStatus.CLOSED
    event = await PaymentEvent.get(id=payment.proof_id)
    assert event.proof_kind == ProofKind.ABSENT_AFTER_DEADLINE
    (lock,) = await HisLock.all()
    assert lock.status is LockStatus.RELEASED


async def test_a_refund_made_in_the_merchant_console_is_seen_before_ours_leaves(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    house.pay.refund_by_hand(MCHID, started.order_no, 8650)
    await house.settle(within=timedelta(hours=5))
    assert sum(order["refunded_fen"] + order["returning_fen"] for order in house.pay.books()["orders"]) == 8650
    (refund,) = await Refund.all()
    assert (refund.status, refund.sends_started) == (RefundStatus.APPROVED, 0)
    assert [case.kind for case in await StaffCase.filter(status="open")] == ["external_refund"]


async def test_a_document_shared_by_two_people_leads_to_nobody_elses_bills(house: House) -> None:
    """An infant filed under the mother's card: the father who binds the infant never sees the mother's bills."""
    mother, infant = house.his.patients["P10002"], house.his.patients["P10003"]
    card = mother.identifiers[0]
    house.his.patients["P10003"] = replace(infant, identifiers=(card,))
    father = await house.payer("陈父", infant.phones[0])
    identifier = Identifier(type=IdentifierType(card[0]), value=card[1])
    bind = house.services.patients.bind
    child = await bind(father, name=infant.name, identifier=identifier, phone=infant.phones[0])
    herself = await house.payer("陈静", mother.phones[0] + "0")
    own = await bind(herself, name=mother.name, identifier=identifier, phone=mother.phones[0])
    assert own.patient_id != child.patient_id
    house.bill("P10002")
    assert await house.services.bills.unpaid(house.institution_id, father.id, child.patient_id) == []
    assert len(await house.services.bills.unpaid(house.institution_id, herself.id, own.patient_id)) == 1


async def test_bills_that_the_his_does_not_group_are_not_paid_together(tortoise: object) -> None:
    house = await House.build(settings={"merge": True})
    payer = await house.payer()
    patient = await house.bound(payer)
    alone, grouped = house.bill(merge_group=""), house.bill(total_fen=100)
    with pytest.raises(BillNotPayable) as refused:
        await house.start(payer, patient, alone, bills=(("", alone), ("", grouped)), shown_fen=Fen(8750))
    assert refused.value.values["reason"] == "not_together"
    assert await Payment.all().count() == 0


async def test_the_his_event_is_kept_until_the_his_can_be_asked(house: House) -> None:
    payer, patient, bill = await prepared(house)
    await house.settle()
    started = await house.start(payer, patient, bill)
    house.faults.script("hospital.booked_but_error_500", times=1)
    house.his.window_pay(bill, force=True)
    house.faults.script("hospital.outcome_unknown_word", times=3)
    await house.settle(within=timedelta(minutes=3))
    assert (await status(house, started.order_no))[0] is PaymentStatus.CLOSED


async def test_a_state_word_that_nobody_knows_is_no_refund_by_others(house: House) -> None:
    payer, patient, bill = await prepared(house)
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.unknown_trade_state", key=started.order_no, times=3)
    await house.settle()
    assert await status(house, started.order_no) == (PaymentStatus.PAID, [LineStatus.RETURNED])
    assert await StaffCase.all().count() == 0
