"""Refunds asked for and decided by many at once, in several programs with connections of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core.errors import AlreadyDecided, RefundNotPossible
from core.models import AuditEntry, Refund
from core.states import LineStatus, RefundStatus
from scheduler.loops import claim_due
from tests.support.fakes import held
from tests.support.house import House
from tests.support.refunding import CLERK, accounts, booked, given_back, request, staff, taken_back

REQUESTS = 100


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(settings={"refund_approve_above_fen": 10_000, "merge": True})


async def at_once(*work: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*work, return_exceptions=True))


async def test_a_hundred_partial_requests_at_once_never_exceed_what_was_paid(house: House) -> None:
    """100 × 1.00 of 86.50: 86 of them are accepted, and 86.00 go back, once."""
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    outcomes = await at_once(*(request(house.services, clerk, payment, (line.id, 100)) for _ in range(REQUESTS)))
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Refund)]
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Refund)]
    assert {type(outcome) for outcome in refused} == {RefundNotPossible}
    assert {outcome.values["reason"] for outcome in refused} == {"too_much"}
    assert len(accepted) == 86
    payment = await house.payment(payment.order_no)
    (line,) = await house.lines(payment.order_no)
    assert (payment.refund_reserved_fen, line.refunded_fen) == (8600, 8600)


async def test_parts_and_wholes_of_two_lines_asked_for_at_once_in_any_order(house: House) -> None:
    payment, (first, second) = await booked(house, 400, 300)
    clerk = await staff(house, "1001", CLERK)
    both: list[tuple[UUID, int | None]] = [(first.id, None), (second.id, None)]
    asked: list[list[tuple[UUID, int | None]]] = [both, both[::-1], [(first.id, 100)]] * 8
    outcomes = await at_once(*(request(house.services, clerk, payment, *parts) for parts in asked))
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Refund)]
    assert {type(outcome) for outcome in outcomes if not isinstance(outcome, Refund)} == {RefundNotPossible}
    total = sum(refund.amount_fen for refund in accepted)
    payment = await house.payment(payment.order_no)
    assert payment.refund_reserved_fen == total <= 700
    await house.settle()
    assert given_back(house, payment.order_no) == total
    assert sum(sum(taken_back(house, line.his_bill_id)) for line in (first, second)) == total
    found = await accounts(payment)
    assert found.get("his_confirmed", 0) == total - 700


async def test_one_click_eight_times_at_once_is_one_refund(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    outcomes = await at_once(
        *(request(house.services, clerk, payment, (line.id, 500), key="one click") for _ in range(8))
    )
    assert {outcome.id for outcome in outcomes} == {(await Refund.get(request_key="one click")).id}
    assert (await house.payment(payment.order_no)).refund_reserved_fen == 500
    assert await AuditEntry.all().count() == 1


async def test_two_people_approve_at_once_and_it_has_one_effect(house: House) -> None:
    payment, (line,) = await booked(house, 12_000)
    clerk = await staff(house, "1001", CLERK)
    heads = [await staff(house, f"20{number}") for number in range(4)]
    refund = await request(house.services, clerk, payment, (line.id, None))
    service = house.services.staff_refunds
    outcomes = await at_once(
        *(service.approve(head, refund.refund_no) for head in heads[:2]),
        *(service.decline(head, refund.refund_no, reason="不同意") for head in heads[2:]),
    )
    done = [outcome for outcome in outcomes if isinstance(outcome, Refund)]
    assert len(done) == 1
    assert {type(outcome) for outcome in outcomes if not isinstance(outcome, Refund)} == {AlreadyDecided}
    assert await AuditEntry.all().count() == 2
    await house.settle()
    (line,) = await house.lines(payment.order_no)
    end = (await Refund.get(id=refund.id)).status
    assert (end, line.status, given_back(house, payment.order_no)) in {
        (RefundStatus.REFUNDED, LineStatus.RETURNED, 12_000),
        (RefundStatus.DECLINED, LineStatus.CONFIRMED, 0),
    }


async def test_two_refunds_that_are_ready_at_once_leave_one_after_the_other(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    house.faults.rate("wechatpay.not_reached", 1.0)
    for amount_fen in (3000, 2000):
        await request(house.services, clerk, payment, (line.id, amount_fen))
    await house.settle(within=timedelta(minutes=1))
    house.faults.clear()
    house.clock.advance(timedelta(minutes=30))
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold("query")
    (loop,) = (loop for loop in house.loops() if loop.table == "refund")
    due = await claim_due(loop, house.services)
    assert len(due) == 2
    working = asyncio.gather(*(loop.work(row) for row in due))
    async with asyncio.timeout(5):
        while channel.calls["query"] < 2:  # each has seen that the other one has not left
            await asyncio.sleep(0)
    channel.let_go("query")
    await working
    assert channel.calls["refund"] == 1
    await house.settle(within=timedelta(minutes=10))
    first, second = sorted([refund.last_sent_at for refund in await Refund.all() if refund.last_sent_at is not None])
    assert second - first >= timedelta(seconds=60)
    assert given_back(house, payment.order_no) == 5000


async def test_the_window_and_a_request_at_once_never_give_back_more_than_was_paid(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    house.his.reverse_at_window(line.his_bill_id, amount_fen=5000)
    await at_once(house.step(), *(request(house.services, clerk, payment, (line.id, 3000)) for _ in range(4)))
    await house.settle()
    assert given_back(house, payment.order_no) == sum(taken_back(house, line.his_bill_id)) <= 8650
    assert (await house.payment(payment.order_no)).refund_reserved_fen == given_back(house, payment.order_no)
