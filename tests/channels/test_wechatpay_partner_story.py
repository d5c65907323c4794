"""The whole product behind a service provider: booked, refused and returned, closed; each fen at the hospital."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.models import PaymentMethod, Refund, StaffCase
from core.states import LineStatus, PaymentStatus, RefundStatus
from tests.support.house import PAY_URL, House

PROVIDER, HOSPITAL, OFFERED = "1900000301", "1900000302", "1900000303"


@pytest.fixture
async def house(tortoise: object) -> House:
    """Its mini program pays to a sub-merchant; the provider's app is one that no patient sees."""
    house = await House.build()
    provider = house.pay.add_service_provider(PROVIDER, appids={"wx00000000000000sp"})
    for mchid in (HOSPITAL, OFFERED):
        house.pay.add_sub_merchant(mchid, provider=provider, appids={house.mini_app_id})
    account = await house.setup.merchant_account(
        house.institution_id,
        channel="wechatpay",
        merchant_no=HOSPITAL,
        params={
            "app_ids": house.mini_app_id,
            "service_provider_no": PROVIDER,
            "service_provider_app_id": "wx00000000000000sp",
            "merchant_private_key": provider.private_key_pem,
            "merchant_serial": provider.serial_no,
            "api_v3_key": str(provider.api_v3_key),
            "public_key_id": house.pay.public_key.serial,
            "public_key": house.pay.public_key.public_pem,
            "base_url": PAY_URL,
        },
    )
    house.merchant_account_id = account.id
    methods = PaymentMethod.filter(institution_id=house.institution_id)
    await methods.update(merchant_account_id=account.id)
    return house


async def status(house: House, order_no: str) -> tuple[PaymentStatus, list[LineStatus]]:
    payment = await house.payment(order_no)
    return payment.status, [line.status for line in await house.lines(order_no)]


async def test_booked_refused_and_closed(house: House) -> None:
    payer = await house.payer()
    patient = await house.bound(payer)
    booked = await house.start(payer, patient, house.bill(total_fen=8650))
    open_id = house.chat.open_id(house.user_of(payer), house.mini_app_id)
    assert booked.pay is not None
    assert house.pay.check_pay_params(dict(booked.pay.values), appid=house.mini_app_id) is None
    assert house.pay_sheet(booked, open_id) == "paid"
    await house.settle()
    assert await status(house, booked.order_no) == (PaymentStatus.PAID, [LineStatus.CONFIRMED])

    refused = await house.start(payer, patient, house.bill(total_fen=1234))
    house.faults.script("hospital.refuses_confirm")
    assert house.pay_sheet(refused, open_id) == "paid"
    await house.settle()
    assert await status(house, refused.order_no) == (PaymentStatus.PAID, [LineStatus.RETURNED])
    (refund,) = await Refund.all()
    assert (refund.status, refund.amount_fen) == (RefundStatus.REFUNDED, 1234)

    unpaid = await house.start(payer, patient, house.bill(total_fen=500))
    await house.settle()
    assert await status(house, unpaid.order_no) == (PaymentStatus.CLOSED, [LineStatus.VOID])
    assert house.pay_sheet(unpaid, open_id) == "closed"

    books = house.pay.books()
    assert {(order["sp_mchid"], order["sub_mchid"]) for order in books["orders"]} == {(PROVIDER, HOSPITAL)}
    assert {each["mchid"]: each["balance_fen"] for each in books["merchants"]}[HOSPITAL] == 8650
    assert {each["event_type"] for each in house.pay.deliveries.log if each["accepted"]} == {
        "TRANSACTION.SUCCESS",
        "REFUND.SUCCESS",
    }
    assert await StaffCase.all().count() == 0


async def test_a_notice_for_another_hospital_of_the_provider_changes_nothing(house: House) -> None:
    """The same number at the same address, genuine in every byte, but the money went elsewhere."""
    payer = await house.payer()
    patient = await house.bound(payer)
    started = await house.start(payer, patient, house.bill(total_fen=8650))
    order = house.pay.orders[PROVIDER, started.order_no]
    order.merchant = house.pay.merchants[OFFERED]
    assert house.pay_sheet(started) == "paid"
    house.clock.advance(timedelta(seconds=2))
    await house.step()
    assert [each["accepted"] for each in house.pay.deliveries.log] == [False]
    payment = await house.payment(started.order_no)
    assert (payment.status, payment.paid_fen) == (PaymentStatus.PENDING, 0)
