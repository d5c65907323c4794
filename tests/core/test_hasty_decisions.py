"""Moments at which somebody in a hurry would believe, send or forget too much; mistakes made on purpose fail here."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.models import Confirmation
from core.states import ConfirmationStatus, PaymentStatus
from scheduler.loops import Loop, claim_due
from tests.support.house import MCHID, House


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(weak=True)


def loop_of(house: House, table: str) -> Loop:
    (loop,) = [loop for loop in house.loops() if loop.table == table]
    return loop


async def test_whoever_has_lost_the_row_to_another_does_not_send(house: House) -> None:
    payer = await house.payer()
    started = await house.start(payer, await house.bound(payer), house.bill())
    house.pay_sheet(started)
    house.clock.advance(timedelta(seconds=30))
    delivery = house.pay.deliveries.take_due(house.clock.now())
    assert delivery is not None
    await house.receive(delivery.url, delivery.build(house.clock.now()))
    for row in await claim_due(loop_of(house, "inbound"), house.services):
        await house.services.inbounds.work(row)
    loop = loop_of(house, "confirmation")
    (slow,) = await claim_due(loop, house.services)
    house.clock.advance(loop.lease + timedelta(seconds=1))
    (quick,) = await claim_due(loop, house.services)
    await loop.work(slow)
    assert house.his.calls["confirm_payment"] == 0
    await loop.work(quick)
    assert house.his.calls["confirm_payment"] == 1
    assert (await Confirmation.all().get()).status is ConfirmationStatus.CONFIRMED


async def test_no_such_order_proves_nothing_while_the_order_may_still_arrive(house: House) -> None:
    payer = await house.payer()
    started = await house.start(payer, await house.bound(payer), house.bill())
    number = (MCHID, started.order_no)
    order = house.pay.orders.pop(number)
    await house.services.payments.cancel(payer.id, house.institution_id, started.order_no)
    assert (await house.payment(started.order_no)).status is PaymentStatus.PENDING
    house.pay.orders[number] = order
    await house.settle()
    assert (await house.payment(started.order_no)).status is PaymentStatus.CLOSED
    assert order.closed_at is not None
