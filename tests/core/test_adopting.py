"""After a restore: a database as it was some time ago, and a world that has gone on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core.clock import business_day
from core.errors import ChannelUnavailable
from core.models import Confirmation, Message, Payment, PaymentEvent, Refund, StaffCase
from core.states import CaseStatus, LineStatus, PaymentStatus, ProofKind, RefundStatus
from tests.support.backup import Backup
from tests.support.house import House
from tests.support.postgres import Database
from tests.support.refunding import CLERK, booked, given_back, request, staff, taken_back

DAY = timedelta(days=1)


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def someone(house: House) -> tuple[Any, Any]:
    payer = await house.payer()
    return payer, await house.bound(payer)


async def cases(house: House) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in await StaffCase.filter(institution_id=house.institution_id, status=CaseStatus.OPEN).order_by("subject"):
        found.setdefault(case.kind, []).append(case.subject)
    return found


async def test_a_payment_that_the_database_has_forgotten_becomes_a_case(house: House, database: Database) -> None:
    payer, patient = await someone(house)
    backup = Backup.take(database)
    lost = await house.start(payer, patient, house.bill())
    house.pay_sheet(lost)
    await house.settle(within=timedelta(hours=2))
    backup.restore()
    since = business_day(house.clock.now())
    first = await house.services.adopting.walk(since)
    assert (first.listed, first.lost) == (0, 0)  # the channel lists a day when it is over
    assert (first.booked, first.bookings_lost, first.unread) == (1, 1, ())
    house.clock.advance(DAY)
    found = await house.services.adopting.walk(since)
    assert (found.listed, found.lost, found.lost_fen, found.foreign, found.unread) == (1, 1, 8650, 0, ())
    (confirm_no,) = (
        booking["confirm_no"] for bill in house.his.books()["bills"].values() for booking in bill["bookings"]
    )
    assert await cases(house) == {"order_without_row": [lost.order_no], "booking_without_row": [confirm_no]}
    (case,) = await StaffCase.filter(institution_id=house.institution_id, kind="order_without_row")
    assert (case.details["amount_fen"], case.details["order_no"]) == (8650, lost.order_no)
    again = await house.services.adopting.walk(since)
    assert (again.lost, again.bookings_lost) == (1, 1)
    assert await StaffCase.filter(institution_id=house.institution_id).count() == 2
    assert await Payment.filter(institution_id=house.institution_id).count() == 0


def keeping(counterparty: Any, call: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> list[Backup]:
    """A copy of the database is made whenever this call is about to leave."""
    kept = list[Backup]()
    good = getattr(counterparty, call)

    async def after_a_copy(*values: Any) -> Any:
        kept.append(Backup.take(database))
        return await good(*values)

    monkeypatch.setattr(counterparty, call, after_a_copy)
    return kept


async def test_an_order_that_stands_as_unsent_is_found_paid(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer, patient = await someone(house)
    kept = keeping(house.services.outside.hospitals["rest"], "lock_bills", database, monkeypatch)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started)
    await house.settle()
    kept[0].restore()
    assert (await house.payment(started.order_no)).sends_started == 0
    found = await house.services.adopting.walk(business_day(house.clock.now()))
    assert (found.doubted >= 1, found.asked, found.found_paid, found.silent) == (True, 1, 1, 0)
    await house.settle()
    assert (await house.payment(started.order_no)).status is PaymentStatus.PAID
    assert [line.status for line in await house.lines(started.order_no)] == [LineStatus.CONFIRMED]
    assert len(house.his.books()["bills"]) == 1
    assert await cases(house) == {}


async def test_a_booking_that_stands_as_unsent_is_asked_about_and_not_sent_again(
    house: House, database: Database
) -> None:
    payer, patient = await someone(house)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started)
    await house.services.payments.refreshed(payer.id, house.institution_id, started.order_no)
    backup = Backup.take(database)
    (before,) = await Confirmation.filter(institution_id=house.institution_id)
    assert before.sends_started == 0
    await house.settle()
    assert house.his.calls["confirm_payment"] == 1
    backup.restore()
    found = await house.services.adopting.walk(business_day(house.clock.now()))
    assert found.doubted >= 1
    await house.settle()
    assert [line.status for line in await house.lines(started.order_no)] == [LineStatus.CONFIRMED]
    assert house.his.calls["confirm_payment"] == 1
    (message,) = await Message.filter(institution_id=house.institution_id, kind="paid")
    assert message.status == "queued" or message.sends_started >= 1


async def test_a_refund_that_stands_as_unsent_is_asked_about_and_not_sent_again(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer, patient = await someone(house)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    kept = keeping(house.services.outside.channels["wechatpay"], "query", database, monkeypatch)
    await house.settle()
    books = house.pay.books()["refunds"]
    (kept_refund,) = await Refund.filter(institution_id=house.institution_id)
    assert kept_refund.status is RefundStatus.REFUNDED
    kept[-1].restore()  # the question before a refund leaves
    (unsent,) = await Refund.filter(institution_id=house.institution_id)
    assert (unsent.status, unsent.sends_started) == (RefundStatus.APPROVED, 0)
    await house.services.adopting.walk(business_day(house.clock.now()))
    await house.settle()
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert refund.status is RefundStatus.REFUNDED
    assert house.pay.books()["refunds"] == books


async def test_an_order_that_never_was_ends_although_the_copy_does_not_know_until_when_it_may_be_paid(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is made while the bill is being locked: nothing is known yet of when the order would expire."""
    payer, patient = await someone(house)
    bill = house.bill()
    kept = keeping(house.services.outside.hospitals["rest"], "lock_bills", database, monkeypatch)
    house.faults.script("wechatpay.not_reached", times=10)
    with pytest.raises(ChannelUnavailable):
        await house.start(payer, patient, bill)
    house.faults.clear()
    kept[0].restore()
    (payment,) = await Payment.filter(institution_id=house.institution_id)
    assert (payment.status, payment.expires_at) == (PaymentStatus.CREATED, None)
    since = business_day(house.clock.now())
    await house.services.adopting.walk(since)
    await house.services.adopting.walk(since)
    await house.settle(within=timedelta(minutes=20))
    payment = await house.payment(payment.order_no)
    assert payment.status is PaymentStatus.CLOSED
    (event,) = await PaymentEvent.filter(institution_id=house.institution_id, id=payment.proof_id)
    assert event.proof_kind == ProofKind.ABSENT_AFTER_DEADLINE
    assert house.pay_sheet(await house.start(payer, patient, bill)) == "paid"


async def wanted(house: House, payment: Payment, line_id: UUID, fen: int | None = None) -> Refund:
    """A refund that one person has asked for and another one has approved."""
    asked = await request(house.services, await staff(house, "1001", CLERK), payment, (line_id, fen))
    return await house.services.staff_refunds.approve(await staff(house, "1002"), asked.refund_no)


@pytest.mark.parametrize("has_left", [True, False])
async def test_a_staff_refund_of_which_the_copy_knows_nothing_but_the_wish_goes_its_way(
    house: House, database: Database, has_left: bool
) -> None:
    """The HIS has taken its booking back since then, and the channel has given the money back, or not yet."""
    payment, (line,) = await booked(house)
    await wanted(house, payment, line.id)
    backup = Backup.take(database)
    if not has_left:
        house.faults.rate("wechatpay.not_reached", 1.0)
    await house.settle(within=timedelta(hours=1))
    house.faults.clear()
    assert given_back(house, payment.order_no) == (8650 if has_left else 0)
    assert taken_back(house, line.his_bill_id) == [8650]
    backup.restore()
    await house.services.adopting.walk(business_day(house.clock.now()))
    await house.settle(within=timedelta(days=1))
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    payment = await house.payment(payment.order_no)
    assert (refund.status, payment.refunded_fen) == (RefundStatus.REFUNDED, 8650)
    assert given_back(house, payment.order_no) == 8650
    assert [line.status for line in await house.lines(payment.order_no)] == [LineStatus.RETURNED]
    assert taken_back(house, line.his_bill_id) == [8650]
    assert house.his.calls["confirm_refund"] == 1
    assert await cases(house) == {}


async def test_a_refund_that_the_copy_only_knows_as_asked_for_is_shown_and_settled_by_the_same_yes(
    house: House, database: Database
) -> None:
    payment, (line,) = await booked(house, 20_000)
    clerk, head = await staff(house, "1001", CLERK), await staff(house, "1002")
    asked = await request(house.services, clerk, payment, (line.id, None))
    assert asked.status is RefundStatus.REQUESTED
    backup = Backup.take(database)
    await house.services.staff_refunds.approve(head, asked.refund_no)
    await house.settle(within=timedelta(days=1))
    backup.restore()
    since = business_day(house.clock.now())
    found = await house.services.adopting.walk(since)
    assert (found.lost, found.lost_fen, found.unread) == (1, 20_000, ())  # the HIS says so, at once
    assert await cases(house) == {"refund_not_approved": [asked.refund_no]}
    await StaffCase.filter(institution_id=house.institution_id).update(status=CaseStatus.CLOSED)
    house.clock.advance(DAY)
    house.faults.rate("hospital.not_reached", 1.0)
    found = await house.services.adopting.walk(since)
    house.faults.clear()
    assert (found.lost, len(found.unread)) == (
        1,
        2,
    )  # the channel lists it; the HIS is silent: its list, and this refund
    assert await cases(house) == {"refund_not_approved": [asked.refund_no]}
    await house.services.staff_refunds.approve(head, asked.refund_no)
    await house.settle(within=timedelta(days=1))
    refund = await Refund.get(id=asked.id, institution_id=house.institution_id)
    assert refund.status is RefundStatus.REFUNDED
    assert given_back(house, payment.order_no) == 20_000
    assert house.his.calls["confirm_refund"] == 1
    assert await cases(house) == {}


async def test_the_successor_of_a_dead_staff_refund_is_asked_about_before_it_is_sent(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment, (line,) = await booked(house)
    dead = await wanted(house, payment, line.id, 3000)
    house.faults.script("wechatpay.refund_closed")
    channel = house.services.outside.channels["wechatpay"]
    kept = keeping(channel, "query", database, monkeypatch)
    sent = keeping(channel, "refund", database, monkeypatch)
    await house.settle(within=timedelta(days=1))
    assert len(sent) == 2  # the dead one and its successor
    kept[-1].restore()
    successor = await Refund.get(institution_id=house.institution_id, replaces_id=dead.id)
    assert (successor.status, successor.sends_started) == (RefundStatus.APPROVED, 0)
    await house.services.adopting.walk(business_day(house.clock.now()))
    await house.settle(within=timedelta(days=1))
    successor = await Refund.get(institution_id=house.institution_id, replaces_id=dead.id)
    assert successor.status is RefundStatus.REFUNDED
    assert len(sent) == 2
    assert given_back(house, payment.order_no) == 3000


async def test_a_return_that_the_copy_has_forgotten_settles_its_own_repetition(
    house: House, database: Database
) -> None:
    payer, patient = await someone(house)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started)
    await house.services.payments.refreshed(payer.id, house.institution_id, started.order_no)
    backup = Backup.take(database)
    house.faults.script("hospital.refuses_confirm")
    await house.settle(within=timedelta(hours=1))
    (lost,) = await Refund.filter(institution_id=house.institution_id)
    backup.restore()
    house.faults.script("hospital.refuses_confirm", times=5)
    since = business_day(house.clock.now())
    await house.services.adopting.walk(since)
    await house.settle(within=timedelta(hours=15))
    house.clock.advance(timedelta(hours=10))
    await house.services.adopting.walk(since)
    await house.settle(within=timedelta(hours=2))
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert (refund.status, refund.refund_no != lost.refund_no) == (RefundStatus.REFUNDED, True)
    assert given_back(house, started.order_no) == 8650
    assert [line.status for line in await house.lines(started.order_no)] == [LineStatus.RETURNED]
    assert await cases(house) == {"refund_without_row": [lost.refund_no]}


async def test_what_the_channel_lists_is_compared_with_what_is_known(house: House, database: Database) -> None:
    """Another system's order of the same merchant is nobody's case; a refund of ours that is forgotten is one."""
    payer, patient = await someone(house)
    paid = await house.start(payer, patient, house.bill())
    house.pay_sheet(paid)
    refused = await house.start(payer, patient, house.bill(total_fen=500))
    house.pay_sheet(refused)
    house.faults.script("hospital.refuses_confirm")
    await house.services.payments.refreshed(payer.id, house.institution_id, paid.order_no)
    await house.services.payments.refreshed(payer.id, house.institution_id, refused.order_no)
    backup = Backup.take(database)
    await house.settle()
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    backup.restore()
    since = business_day(house.clock.now())
    house.clock.advance(DAY)
    found = await house.services.adopting.walk(since)
    assert (found.listed, found.lost, found.lost_fen) == (3, 1, refund.amount_fen)
    assert await cases(house) == {"refund_without_row": [refund.refund_no], "external_refund": [refund.refund_no]}


async def test_a_statement_that_is_not_ready_is_named(house: House) -> None:
    payer, patient = await someone(house)
    house.pay_sheet(await house.start(payer, patient, house.bill()))
    since = business_day(house.clock.now())
    house.clock.advance(timedelta(hours=15))  # one o'clock in the night: bills come at nine
    found = await house.services.adopting.walk(since)
    assert len(found.unread) == 1
    assert "STATEMENT_CREATING" in found.unread[0]
