"""After a restore: a database as it was some time ago, and a world that has gone on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from core.clock import business_day
from core.models import Confirmation, Message, Payment, Refund, StaffCase
from core.states import CaseStatus, LineStatus, PaymentStatus, RefundStatus
from tests.support.backup import Backup
from tests.support.house import House
from tests.support.postgres import Database

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
    assert await cases(house) == {"refund_without_row": [refund.refund_no]}


async def test_a_statement_that_is_not_ready_is_named(house: House) -> None:
    payer, patient = await someone(house)
    house.pay_sheet(await house.start(payer, patient, house.bill()))
    since = business_day(house.clock.now())
    house.clock.advance(timedelta(hours=15))  # one o'clock in the night: bills come at nine
    found = await house.services.adopting.walk(since)
    assert len(found.unread) == 1
    assert "STATEMENT_CREATING" in found.unread[0]
