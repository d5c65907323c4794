"""Every named fault in the way of one payment: the counterparties' books agree in the end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.errors import RequestError
from core.models import Payment, StaffCase, Transfer
from core.states import OPEN_PAYMENT
from simulators import hospital_faults, wechat_faults, wechatpay_faults
from simulators.faults import Fault
from tests.support.house import House

FAULTS = [*hospital_faults.FAULTS, *wechatpay_faults.FAULTS, *wechat_faults.FAULTS]
QUIET = {"wechat.code_40029"}  # strikes only what this story does not call


async def books_agree(house: House) -> tuple[int, int, int]:
    """(taken, booked, returned) in fen; raises AssertionError where the books of both sides differ."""
    pay, his = house.pay.books(), house.his.books()
    taken = returned = booked = 0
    for order in pay["orders"]:
        taken += order["taken_fen"]
        returned += order["refunded_fen"]
    for bill in his["bills"].values():
        mobile = [one for one in bill["bookings"] if one["paid_by"] == "mobile"]
        assert len(mobile) <= 1, f"booked more than once: {bill}"
        booked += sum(one["amount_fen"] for one in mobile)
    return taken, booked, returned


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_whatever_goes_wrong_the_books_agree(tortoise: object, fault: Fault) -> None:
    """At a HIS that books twice whatever is sent twice without asking, and with every fault striking twice."""
    house = await House.build(weak=True)
    payer = await house.payer()
    patient = await house.bound(payer)
    bill = house.bill()
    await house.settle()
    house.faults.script(fault.name, times=2)
    for _ in range(4):  # the patient tries again when a page says so
        try:
            started = await house.start(payer, patient, bill)
        except RequestError:
            house.clock.advance(timedelta(seconds=20))
            await house.step()
            continue
        house.pay_sheet(started)
        break
    await house.settle(within=timedelta(hours=2))
    house.faults.clear()
    await house.settle(within=timedelta(hours=6 if fault.needs_person else 48))
    taken, booked, returned = await books_agree(house)
    cases = await StaffCase.filter(status="open")
    if not fault.needs_person:
        assert taken == booked + returned
        assert [case.kind for case in cases if case.kind != "messages_misconfigured"] == []
        assert await Payment.filter(status__in=list(OPEN_PAYMENT)).count() == 0
        moved = {"channel_receivable": 0, "his_confirmed": 0}
        for transfer in await Transfer.all():
            for account, sign in ((transfer.debit, 1), (transfer.credit, -1)):
                moved[account] = moved.get(account, 0) + sign * transfer.amount_fen
        assert moved["channel_receivable"] == taken - returned
        assert -moved["his_confirmed"] == booked
    else:
        assert taken >= booked + returned
