"""Races over several processes and one PostgreSQL; `pytest -s tests/races` shows the figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core.actors import Actor
from core.invariants import check_invariants
from core.models import AuditEntry, Inbound, Payer, Payment, PaymentEvent, PaymentLine, Refund, StaffCase, Transfer
from core.payments import Started
from core.states import LineStatus, PaymentStatus, RefundStatus
from runtime.database import credentials_of
from tests.races.racing import PROCESSES, Racers, racers
from tests.support.house import MCHID, House
from tests.support.postgres import Database
from tests.support.refunding import CLERK, booked, request, staff

pytestmark = pytest.mark.timeout(180)

NOTICES = 17  # in each process: 51 in all
PAYMENTS = 20
REQUESTS = 34  # in each process: 102 in all


@pytest.fixture
async def field(tortoise: object, database: Database) -> AsyncIterator[tuple[House, Racers]]:
    house = await House.build(settings={"merge": True, "refund_approve_above_fen": 10_000})
    async with racers(house, database) as programs:
        yield house, programs
    reader = await asyncpg.connect(**credentials_of(database.app_dsn))
    try:
        assert [outcome.identity for outcome in await check_invariants(reader) if not outcome.ok] == []
    finally:
        await reader.close()


async def prepared(house: House) -> tuple[Payer, UUID]:
    payer = await house.payer()
    return payer, await house.bound(payer)


def as_json(actor: Actor) -> dict[str, Any]:
    return {
        "id": str(actor.staff_id),
        "institution": str(actor.institution_id),
        "code": actor.code,
        "roles": [role.value for role in actor.roles],
    }


async def test_the_same_notice_fifty_times_at_once(field: tuple[House, Racers]) -> None:
    house, programs = field
    payer, patient = await prepared(house)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started)
    house.clock.advance(timedelta(seconds=30))
    delivery = house.pay.deliveries.take_due(house.clock.now())
    assert delivery is not None
    request = delivery.build(house.clock.now())
    token, headers = delivery.url.rpartition("/")[2], dict(request.headers)
    outcome = await programs.race("notice", NOTICES, token=token, headers=headers, body=request.body.hex())
    outcome.say("the same notice")
    assert outcome.words == {"answered 204": NOTICES * PROCESSES}
    assert await Inbound.filter(source="wechatpay").count() == 1
    await house.settle()
    assert await PaymentEvent.filter(proves="paid").count() == 1
    assert sorted([transfer.kind for transfer in await Transfer.all()]) == ["confirmed", "paid"]


async def test_pay_and_close_at_once(field: tuple[House, Racers]) -> None:
    """Of each payment both is said at once: it was paid, whoever came first, and paid once."""
    house, programs = field
    payer, patient = await prepared(house)
    started = [await house.start(payer, patient, house.bill(total_fen=100 + n)) for n in range(PAYMENTS)]
    orders = [{"no": one.order_no, "fen": one.amount_fen} for one in started]
    outcome = await programs.race("pay_or_close", PAYMENTS * 3, orders=orders)
    outcome.say("pay and close")
    assert set(outcome.words) <= {"is paid", "is closed"}
    for one in started:
        payment = await house.payment(one.order_no)
        assert (payment.status, payment.paid_fen) == (PaymentStatus.PAID, one.amount_fen)
        assert [line.status for line in await house.lines(one.order_no)] == [LineStatus.CONFIRMING]
    assert [transfer.kind for transfer in await Transfer.all()] == ["paid"] * PAYMENTS
    assert await StaffCase.all().count() == 0


async def two_payments(house: House, payer: Payer, patient: UUID, relative: Payer, total: int) -> list[Started]:
    """Of one bill: the first has been closed, and the channel lets both be paid."""
    bill = house.bill(total_fen=total)
    first = await house.start(payer, patient, bill)
    second = await house.start(relative, patient, bill)
    return [first, second]


async def test_two_payments_confirming_one_bill_at_once(field: tuple[House, Racers]) -> None:
    house, programs = field
    payer, patient = await prepared(house)
    relative = await house.payer("王小红", "19900000001")
    await house.bound(relative)
    pairs = [await two_payments(house, payer, patient, relative, 100 + n) for n in range(PAYMENTS)]
    orders = [{"no": one.order_no, "fen": one.amount_fen} for pair in pairs for one in pair]
    outcome = await programs.race("pay_or_close", PAYMENTS * 6, orders=orders)
    outcome.say("two payments of one bill")
    assert set(outcome.words) <= {"is paid", "is closed"}
    for pair in pairs:
        lines = [line.status for one in pair for line in await house.lines(one.order_no)]
        assert sorted(lines) == [LineStatus.CONFIRMING, LineStatus.WAITING]
    for one in (one for pair in pairs for one in pair):  # the channel's books say so, too
        order = house.pay.orders[MCHID, one.order_no]
        order.closed_at = None
        reference = house.pay.references[order.current_reference]
        reference.valid_until = max(reference.valid_until, house.clock.now() + timedelta(minutes=1))
        house.pay.pay(one.order_no)
    await house.settle(within=timedelta(hours=4))
    assert await PaymentLine.filter(status=LineStatus.CONFIRMED).count() == PAYMENTS
    assert await PaymentLine.filter(status=LineStatus.RETURNED).count() == PAYMENTS
    assert {bill["times_booked"] for bill in house.his.books()["bills"].values()} == {1}


async def test_the_same_bills_merged_crosswise_at_once(field: tuple[House, Racers]) -> None:
    """{A, B} and {B, A}: no deadlock; one at a time claims both bills, the others are told to wait."""
    house, programs = field
    payer, patient = await prepared(house)
    bills = [house.bill(), house.bill(total_fen=100)]
    outcome = await programs.race("start", 8, payer=str(payer.id), patient=str(patient), bills=bills, fen=8750)
    outcome.say("{A, B} and {B, A}")
    # The racers' own channel knows the merchant under other keys: whoever comes through the claim is refused there.
    assert set(outcome.words) <= {"StillWorking", "BillNotPayable", "ChannelUnavailable"}
    came_through = outcome.words["ChannelUnavailable"]
    assert came_through >= 1
    assert await Payment.all().count() == came_through
    assert await PaymentLine.all().count() == came_through * len(bills)
    started = await house.start(payer, patient, bills[0], bills=(("", bills[1]), ("", bills[0])), shown_fen=8750)
    claims = await PaymentLine.filter(claims_bill=True)
    assert sorted(line.his_bill_id for line in claims) == sorted(bills)
    assert {line.payment_id for line in claims} == {(await house.payment(started.order_no)).id}


async def test_a_hundred_partial_refunds_over_three_processes(field: tuple[House, Racers]) -> None:
    """1.00 each of 86.50: 86 of them are accepted."""
    house, programs = field
    payment, (line,) = await booked(house)
    clerk = as_json(await staff(house, "1001", CLERK))
    outcome = await programs.race(
        "request_refund", REQUESTS, clerk=clerk, order_no=payment.order_no, line=str(line.id), part=100
    )
    outcome.say("partial refunds")
    assert outcome.words["accepted 100"] == 86
    assert set(outcome.words) == {"accepted 100", "RefundNotPossible"}
    payment = await house.payment(payment.order_no)
    assert payment.refund_reserved_fen == 8600
    assert await Refund.all().count() == 86


async def test_two_people_approve_at_once(field: tuple[House, Racers]) -> None:
    house, programs = field
    payment, (line,) = await booked(house, 12_000)
    clerk = await staff(house, "1001", CLERK)
    heads = [as_json(await staff(house, f"20{number}")) for number in range(4)]
    refund = await request(house.services, clerk, payment, (line.id, None))
    outcome = await programs.race("approve", len(heads), heads=heads, refund_no=refund.refund_no)
    outcome.say("two people approve")
    # Each presses the button in every process; the one who was first is told the same each time.
    assert outcome.words == {"AlreadyDecided": (len(heads) - 1) * PROCESSES, "is approved": PROCESSES}
    assert await AuditEntry.filter(action="refund_approved").count() == 1
    assert (await Refund.get(id=refund.id)).status is not RefundStatus.REQUESTED
    await house.settle()
    assert (await Refund.get(id=refund.id)).status is RefundStatus.REFUNDED
    assert (await Payment.get(id=payment.id)).refunded_fen == 12_000
