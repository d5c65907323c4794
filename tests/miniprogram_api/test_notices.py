"""What counterparties send: believed when proven, kept once, answered after it is stored."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest

from core.models import Inbound, Message, Payment, PaymentEvent, StaffCase, UnverifiedInbound
from core.money import Fen
from core.ports import TradeOrder
from core.states import PaymentStatus
from miniprogram_api.notices import Gate
from simulators.kit import Request
from tests.miniprogram_api.phone import Phone, Post
from tests.support.fakes import held
from tests.support.house import ELDER, PUBLIC_URL, House

NOT_ACCEPTED = 500  # how WeChat Pay wants to hear that it should look again


async def a_paid_notice(house: House, phone: Phone, post: Post) -> tuple[str, str, Request]:
    """An order that is paid, and the notice about it, still in the post: order number, address, letter."""
    patient = await phone.bind()
    order_no = await phone.pays(patient, house.bill(total_fen=8650))
    ((url, letter),) = await post.catch()
    return order_no, url, letter


async def status(order_no: str) -> PaymentStatus:
    return (await Payment.get(order_no=order_no)).status


async def test_a_notice_alone_settles_a_payment(house: House, phone: Phone, post: Post) -> None:
    order_no, url, letter = await a_paid_notice(house, phone, post)
    assert (await post.send(url, letter)).status == 204
    assert await status(order_no) is PaymentStatus.PENDING  # stored and acknowledged; the work comes after
    house.faults.rate("wechatpay.not_reached", 1.0)  # nobody can be asked: the notice is the proof
    await house.settle()
    assert await status(order_no) is PaymentStatus.PAID


async def test_eight_identical_notices_at_once_are_one_event(house: House, phone: Phone, post: Post) -> None:
    order_no, url, letter = await a_paid_notice(house, phone, post)
    answers = await asyncio.gather(*(post.send(url, letter) for _ in range(8)))
    assert [answer.status for answer in answers] == [204] * 8
    assert await Inbound.all().count() == 1
    await house.settle()
    assert await status(order_no) is PaymentStatus.PAID
    assert await PaymentEvent.filter(proves="paid").count() == 1
    assert await Message.filter(kind="paid").count() == 1


async def test_a_replayed_notice_changes_nothing(house: House, phone: Phone, post: Post) -> None:
    _, url, letter = await a_paid_notice(house, phone, post)
    await post.send(url, letter)
    await house.settle()
    events = await PaymentEvent.all().count()
    house.clock.advance(timedelta(minutes=10))
    assert (await post.send(url, letter)).status == NOT_ACCEPTED
    assert (await post.send(url, with_a_new_time(letter, house))).status == NOT_ACCEPTED
    assert await Inbound.filter(source="wechatpay").count() == 1
    assert await PaymentEvent.all().count() == events


@pytest.mark.parametrize("spoiling", ["body", "signature", "no_signature", "late", "empty", "other_account"])
async def test_a_forged_notice_is_refused_and_moves_nothing(
    house: House, phone: Phone, post: Post, spoiling: str
) -> None:
    order_no, url, letter = await a_paid_notice(house, phone, post)
    match spoiling:
        case "body":
            letter = replace(letter, body=letter.body.replace(b"TRANSACTION.SUCCESS", b"TRANSACTION.SUCCESs"))
        case "signature":
            letter = replace(letter, headers={**letter.headers, "wechatpay-signature": "QUJD" * 86})
        case "no_signature":
            letter = replace(letter, headers={"content-type": "application/json"})
        case "late":
            house.clock.advance(timedelta(minutes=10))
        case "empty":
            letter = replace(letter, body=b"")
        case "other_account":
            url = await strangers_url(house)
    before = await UnverifiedInbound.all().count()
    answer = await post.send(url, letter)
    assert answer.status == NOT_ACCEPTED
    assert await UnverifiedInbound.all().count() == before + 1
    assert await Inbound.filter(source="wechatpay").count() == 0
    assert await status(order_no) is PaymentStatus.PENDING
    assert b"Traceback" not in answer.body


async def strangers_url(house: House) -> str:
    """The address of another merchant's notices."""
    merchant = house.pay.add_merchant("1900000333", appids={house.mini_app_id})
    account = await house.setup.merchant_account(
        house.institution_id,
        channel="wechatpay",
        merchant_no="1900000333",
        params={
            "app_ids": house.mini_app_id,
            "merchant_private_key": merchant.private_key_pem,
            "merchant_serial": merchant.serial_no,
            "api_v3_key": str(merchant.api_v3_key),
            "public_key_id": house.pay.public_key.serial,
            "public_key": house.pay.public_key.public_pem,
            "base_url": "https://pay.test",
        },
    )
    return f"{PUBLIC_URL}/n/{account.notify_token}"


def with_a_new_time(letter: Request, house: House) -> Request:
    """The same letter with a fresh time that its signature does not cover."""
    now = str(int(house.clock.now().timestamp()))
    return replace(letter, headers={**letter.headers, "wechatpay-timestamp": now})


async def test_a_verified_notice_for_an_order_that_we_do_not_know_is_a_case(
    house: House, phone: Phone, post: Post
) -> None:
    services = house.services
    account = await services.institutions.merchant(house.institution_id, house.merchant_account_id)
    order = TradeOrder(
        order_no="P0000000000000000000000NOT",
        amount_fen=Fen(1234),
        description="门诊缴费",
        instrument="miniprogram",
        app_id=house.mini_app_id,
        payer_open_id=house.chat.open_id(phone.user, house.mini_app_id),
        expires_at=house.clock.now() + timedelta(minutes=5),
    )
    pay = await services.outside.channels["wechatpay"].create(account, order)
    assert house.pay.pay_with(dict(pay.values)) == "paid"
    house.clock.advance(timedelta(seconds=2))
    assert await post.deliver() == 1
    await house.settle()
    (case,) = await StaffCase.all()
    assert (case.kind, case.subject, case.status) == ("notice_for_unknown_order", order.order_no, "open")
    assert case.details["paid_fen"] == 1234
    assert await Payment.all().count() == 0


async def test_an_event_of_the_his_arrives_once(house: House, phone: Phone, post: Post) -> None:
    await phone.bind()
    house.faults.script("hospital.event_duplicated")
    house.bill(ELDER, total_fen=8650)
    sent = await post.deliver()
    house.clock.advance(timedelta(minutes=1))
    assert sent + await post.deliver() == 2
    assert await Inbound.filter(source="hospital").count() == 1
    await house.settle()
    assert await Message.filter(kind="new_bill").count() == 1


@pytest.mark.parametrize("fault", ["event_forged"])
async def test_a_forged_event_is_refused(house: House, phone: Phone, post: Post, fault: str) -> None:
    await phone.bind()
    house.faults.script(f"hospital.{fault}")
    house.bill(ELDER, total_fen=8650)
    await post.deliver()
    assert await UnverifiedInbound.filter(source="hospital").count() >= 1
    await house.settle()
    assert await Message.filter(kind="new_bill").count() <= 1


async def test_an_address_that_is_nobodys(base_url: str, http: aiohttp.ClientSession) -> None:
    for path in ("/n/0123456789abcdef", "/his/v1/events/0123456789abcdef", "/n/" + "x" * 300, "/n/%00"):
        async with http.post(base_url + path, data=b"{}") as answer:
            assert answer.status == 404
            error = json.loads(await answer.read())["error"]
            assert set(error) == {"code", "message", "request_id"}
            assert error["code"] == "not_found"
    assert await UnverifiedInbound.all().count() == 0


async def test_a_flood_at_one_address_is_bounded(house: House, phone: Phone, post: Post) -> None:
    _, url, letter = await a_paid_notice(house, phone, post)
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold("read_notice")
    flood = [asyncio.create_task(post.send(url, letter)) for _ in range(80)]
    await channel.reached("read_notice")
    done, _ = await asyncio.wait(flood, timeout=1)
    assert {task.result().status for task in done} == {429}
    assert len(done) == 80 - 64
    channel.let_go("read_notice")
    assert {(await task).status for task in set(flood) - done} == {204}
    assert await Inbound.filter(source="wechatpay").count() == 1


def test_a_gate_keeps_nothing_of_whoever_has_left() -> None:
    gate = Gate(at_once_max=1)
    for number in range(5):
        with gate.enter(f"token-{number}"):
            assert len(gate.open_for()) == 1
    assert gate.open_for() == []
