"""Who is told by SMS on the whole product: with consent, after every chat app, and never twice."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from core.consents import ConsentKind
from core.errors import PhoneCodeRefused
from core.messages import LIVES
from core.models import Message, Payer
from core.phones import CODE_LIFE
from core.ports import MessageKind
from core.states import MessageStatus
from runtime.bootstrap import BoundedBackground
from tests.support.house import House

PHONE = "13900001234"
OTHER_PHONE = "13700005678"


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(sms=True)


async def a_payer(house: House, *, consent: bool = True, follows: bool = False) -> Payer:
    """Somebody who has opened the mini program and granted it no message."""
    payer = await house.payer()
    if not follows:
        house.chat.unfollow(house.user_of(payer), house.service_app_id)
    if consent:
        await house.services.consents.give(payer, ConsentKind.SMS, version="1", way="h5", phone=PHONE)
    return payer


async def pay(house: House, payer: Payer) -> None:
    """A bill of 86.50 is issued and paid; time passes until nothing is due."""
    patient = await house.bound(payer)
    started = await house.start(payer, patient, house.bill())
    house.pay_sheet(started, house.chat.open_id(house.user_of(payer), house.mini_app_id))
    await house.settle(within=timedelta(hours=2))


def texts(house: House, phone: str = PHONE) -> list[str]:
    return [message.text for message in house.sms.messages(phone)]


async def told(kind: str) -> Message:
    return await Message.get(kind=kind)


async def test_who_does_not_follow_reads_of_the_payment_by_sms(house: House) -> None:
    payer = await a_payer(house)
    await pay(house, payer)
    paid = await told("paid")
    (shown,) = [text for text in texts(house) if "缴费成功" in text]
    assert shown.startswith("【仁和医院】您的门诊缴费：86.50元，缴费成功，")
    assert paid.status is MessageStatus.SENT
    assert paid.platform_message_id in {message.serial_no for message in house.sms.messages(PHONE)}
    account = await house.services.institutions.chat_account_on(house.institution_id, "sms")
    assert account is not None
    assert paid.chat_account_id == account.id


async def test_without_consent_nothing_goes_to_any_phone(house: House) -> None:
    await pay(house, await a_payer(house, consent=False))
    assert (await told("paid")).status is MessageStatus.REFUSED
    assert house.sms.calls == {}


async def test_a_consent_that_was_withdrawn_ends_it(house: House) -> None:
    payer = await a_payer(house)
    await house.services.consents.withdraw(payer, ConsentKind.SMS)
    await pay(house, payer)
    assert house.sms.calls == {}


async def test_who_is_reached_in_a_chat_app_gets_no_sms(house: House) -> None:
    payer = await a_payer(house, follows=True)
    await pay(house, payer)
    assert (await told("paid")).status is MessageStatus.SENT
    assert house.sms.calls == {}


async def test_what_wechat_could_not_deliver_goes_on_by_sms(house: House) -> None:
    payer = await a_payer(house, follows=True)
    await pay(house, payer)
    first = await told("paid")
    official = await house.services.institutions.chat_account_by_app(house.institution_id, house.service_app_id)
    for _ in range(2):  # the platform says so more than once
        await house.services.messages.delivered(
            official, first.platform_message_id, ok=False, code="failed:system", at=house.clock.now()
        )
    await house.settle(within=timedelta(hours=2))
    again = await Message.get(kind="paid", id__not=first.id)
    assert again.status is MessageStatus.SENT
    assert len([text for text in texts(house) if "缴费成功" in text]) == 1


async def test_an_end_that_comes_before_the_messages_id_is_kept_in_mind(tortoise: object) -> None:
    background = BoundedBackground()
    house = await House.build(sms=True, background=background)
    await pay(house, await a_payer(house, follows=True))
    first = await told("paid")
    official = await house.services.institutions.chat_account_by_app(house.institution_id, house.service_app_id)
    await Message.filter(id=first.id).update(platform_message_id="")
    said_at = house.clock.now()
    delivered = partial(house.services.messages.delivered, official, first.platform_message_id, ok=False)
    await delivered(at=said_at - timedelta(minutes=2))  # too old to be of a message that is on its way
    await Message.filter(id=first.id).update(platform_message_id=first.platform_message_id)
    await background.finish(seconds=12)
    assert (await Message.get(id=first.id)).delivery == ""
    await Message.filter(id=first.id).update(platform_message_id="")
    await delivered(at=said_at)
    assert (await Message.get(id=first.id)).delivery == ""
    await Message.filter(id=first.id).update(platform_message_id=first.platform_message_id)
    await background.finish(seconds=12)
    assert (await Message.get(id=first.id)).delivery == "failed"
    assert await Message.filter(kind="paid").count() == 2


async def test_an_id_that_is_nobodys_is_given_up(tortoise: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.messages.LOOK_AGAIN_SECONDS", (0.01, 0.01))
    background = BoundedBackground()
    house = await House.build(background=background)
    official = await house.services.institutions.chat_account_by_app(house.institution_id, house.service_app_id)
    await house.services.messages.delivered(official, "of another vendor", ok=False, at=house.clock.now())
    assert len(background._tasks) == 1
    await background.finish(seconds=5)
    assert background._tasks == set()
    assert await Message.all().count() == 0


async def test_a_lost_answer_is_the_end_of_it(house: House) -> None:
    payer = await a_payer(house)
    await house.bound(payer)
    house.faults.script("sms.answer_lost")
    house.bill()
    await house.settle()
    message = await told("new_bill")
    assert (message.status, message.result_code) == (MessageStatus.UNKNOWN, "answer_lost")
    assert len(texts(house)) == 1
    assert house.sms.calls["send_sms"] == 1


async def test_a_platform_out_of_reach_is_tried_again(house: House) -> None:
    payer = await a_payer(house)
    await house.bound(payer)
    house.faults.script("sms.not_reached", times=2)
    house.bill()
    await house.settle()
    assert (await told("new_bill")).status is MessageStatus.SENT
    assert len(texts(house)) == 1


async def test_a_days_limit_makes_the_message_wait_for_tomorrow(house: House) -> None:
    payer = await a_payer(house)
    await house.bound(payer)
    house.faults.script("sms.daily_limit")
    house.bill()
    await house.settle()
    assert (await told("new_bill")).status is MessageStatus.SENT
    (shown,) = house.sms.messages(PHONE)
    assert shown.at.isoformat() == "2026-05-06T16:05:00+00:00"  # five past midnight in Shanghai


async def test_arrears_open_a_case_and_the_message_waits(house: House) -> None:
    payer = await a_payer(house)
    await house.bound(payer)
    house.faults.script("sms.arrears")
    house.bill()
    await house.settle(within=timedelta(minutes=30))
    assert (await told("new_bill")).status is MessageStatus.QUEUED
    await house.settle(within=timedelta(hours=2))
    assert (await told("new_bill")).status is MessageStatus.SENT
    assert len(texts(house)) == 1


async def test_who_answered_r_keeps_the_list(house: House) -> None:
    payer = await a_payer(house)
    house.sms.block(PHONE)
    await house.bound(payer)
    house.bill()
    await house.settle()
    message = await told("new_bill")
    assert (message.status, message.result_code) == (
        MessageStatus.REFUSED,
        "FailedOperation.PhoneNumberInBlacklist",
    )


# ---------------------------------------------------------------- codes


def the_code(house: House, phone: str) -> str:
    text = texts(house, phone)[-1]
    return text.partition("验证码")[2][:6]


async def test_a_code_goes_to_the_phone_that_it_is_to_prove(house: House) -> None:
    """Not to the one that has agreed to notices, and not through the chat that the payer follows."""
    payer = await a_payer(house, follows=True)
    await house.services.phones.send_code(payer, OTHER_PHONE)
    await house.settle(within=timedelta(minutes=1))
    assert texts(house, PHONE) == []
    assert texts(house, OTHER_PHONE)[0].startswith("【仁和医院】验证码")
    proven = await house.services.phones.check_code(payer, OTHER_PHONE, the_code(house, OTHER_PHONE))
    assert proven == OTHER_PHONE


async def test_a_code_that_would_come_after_its_life_is_not_sent(house: House) -> None:
    payer = await a_payer(house)
    house.faults.script("sms.daily_limit")
    await house.services.phones.send_code(payer, OTHER_PHONE)
    await house.settle()
    message = await told(MessageKind.PHONE_CODE)
    assert (message.status, message.result_code) == (MessageStatus.SKIPPED, "too_late")
    assert house.clock.now() >= message.created_at + CODE_LIFE == message.created_at + LIVES[MessageKind.PHONE_CODE]
    assert texts(house, OTHER_PHONE) == []


async def test_a_code_that_is_late_but_alive_is_sent(house: House) -> None:
    payer = await a_payer(house)
    house.faults.script("sms.thirty_second_limit")
    await house.services.phones.send_code(payer, OTHER_PHONE)
    await house.settle()
    assert (await told(MessageKind.PHONE_CODE)).status is MessageStatus.SENT
    assert len(texts(house, OTHER_PHONE)) == 1


async def test_without_an_sms_account_no_code_is_promised(tortoise: object) -> None:
    house = await House.build()
    with pytest.raises(PhoneCodeRefused) as caught:
        await house.services.phones.send_code(await house.payer(), OTHER_PHONE)
    assert caught.value.values["reason"] == "no_sms"
