"""Whole tales over HTTP: from sign-in to receipt, and what comes back when the HIS says no."""

from __future__ import annotations

from tests.miniprogram_api.phone import Phone
from tests.support.house import House


async def test_from_sign_in_to_receipt(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    shown = await phone.bills(patient)
    assert shown["count"] == 1
    assert shown["bills"][0]["bill_id"] == bill
    order_no = await phone.pays(patient, bill)
    await house.settle()
    payment = await phone.payment(order_no)
    assert payment["status"] == "paid"
