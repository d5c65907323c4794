"""One person in the mini program and in the official account's chat: bound in one, known in the other."""

from __future__ import annotations

import pytest

from core.chat_texts import ChatQuestion
from core.consents import ConsentKind
from core.errors import BindingRefused, PatientNotBound
from core.models import Payer
from core.patients import JOIN_EVERY
from core.ports import ChatIdentity
from tests.support.house import ELDER, House


@pytest.fixture
async def house(tortoise: None) -> House:
    return await House.build()


async def in_the_chat(house: House, name: str, phone: str) -> tuple[Payer, Payer]:
    """Somebody who has opened the mini program, and the same person as the chat knows him: by an openid alone."""
    user = house.chat.add_user(name, phone=phone)
    mini = await house.services.institutions.chat_account_by_app(house.institution_id, house.mini_app_id)
    official = await house.services.institutions.chat_account_by_app(house.institution_id, house.service_app_id)
    patients = house.services.patients
    identity = ChatIdentity(open_id=house.chat.open_id(user, house.mini_app_id), union_id=house.chat.union_id(user))
    in_mini = await patients.payer_for(mini, identity, language="zh")
    in_chat = await patients.payer_for(official, ChatIdentity(open_id=house.chat.open_id(user, house.service_app_id)))
    house.users[in_mini.id] = user
    return in_mini, in_chat


async def test_who_is_bound_in_the_mini_program_is_known_in_the_chat(house: House) -> None:
    in_mini, in_chat = await in_the_chat(house, "王秀兰", "19900000001")
    patient = await house.bound(in_mini)
    assert await house.services.patients.bound(in_chat) == []
    stranger = await house.services.patients.joined(in_chat)
    assert not stranger.union_lookup  # the platform says nothing of who does not follow
    house.chat.follow(house.user_of(in_mini), house.service_app_id)
    assert not (await house.services.patients.joined(in_chat)).union_lookup  # asked once a day
    house.clock.advance(JOIN_EVERY)
    joined = await house.services.patients.joined(in_chat)
    assert joined.union_lookup
    assert [bound.patient_id for bound in await house.services.patients.bound(joined)] == [patient]
    await house.services.patients.check_bound(house.institution_id, joined.id, patient)
    (bound_by,) = await house.services.patients.payers_bound(joined, patient)
    assert bound_by.is_caller
    with pytest.raises(BindingRefused) as refused:
        await house.bound(joined, ELDER)
    assert refused.value.values == {"reason": "already_bound"}


async def test_another_person_is_another_person(house: House) -> None:
    in_mini, _ = await in_the_chat(house, "王秀兰", "19900000001")
    other, _ = await in_the_chat(house, "李强", "19900000002")
    patient = await house.bound(in_mini)
    assert await house.services.patients.bound(other) == []
    with pytest.raises(PatientNotBound):
        await house.services.patients.check_bound(house.institution_id, other.id, patient)


async def test_unbinding_and_withdrawing_hold_for_all_accounts_of_a_person(house: House) -> None:
    in_mini, in_chat = await in_the_chat(house, "王秀兰", "19900000001")
    house.chat.follow(house.user_of(in_mini), house.service_app_id)
    in_chat = await house.services.patients.joined(in_chat)
    patient = await house.bound(in_mini)
    await house.services.patients.unbind(in_chat, patient)
    assert await house.services.patients.bound(in_mini) == []
    await house.bound(in_mini)
    await house.services.consents.give(in_mini, ConsentKind.PERSONAL, version="1", way="miniprogram")
    assert [given.way for given in await house.services.consents.given(in_chat)] == ["miniprogram"]
    await house.services.consents.withdraw(in_chat, ConsentKind.PERSONAL)
    assert await house.services.patients.bound(in_mini) == []
    assert await house.services.consents.given(in_mini) == []


async def test_what_was_paid_in_the_mini_program_is_told_in_the_chat(house: House) -> None:
    in_mini, in_chat = await in_the_chat(house, "王秀兰", "19900000001")
    house.chat.follow(house.user_of(in_mini), house.service_app_id)
    in_chat = await house.services.patients.joined(in_chat)
    patient = await house.bound(in_mini)
    started = await house.start(in_mini, patient, house.bill(total_fen=4321))
    house.pay_sheet(started)
    await house.settle()
    assert "43.21" in await house.services.answers.text(in_chat, ChatQuestion.PAID)
    (payment,) = await house.services.payments.paid_list(in_chat.id, house.institution_id, [])
    assert payment.order_no == started.order_no


async def test_a_phone_agreed_to_in_one_app_serves_the_other(house: House) -> None:
    in_mini, in_chat = await in_the_chat(house, "王秀兰", "19900000001")
    house.chat.follow(house.user_of(in_mini), house.service_app_id)
    in_chat = await house.services.patients.joined(in_chat)
    await house.services.consents.give(in_chat, ConsentKind.SMS, version="1", way="h5", phone="19900000001")
    assert await house.services.consents.phone(in_mini) == "19900000001"
    await house.services.consents.withdraw(in_mini, ConsentKind.SMS)
    assert await house.services.consents.phone(in_chat) == ""


async def test_the_chat_asks_the_platform_who_a_stranger_is(house: House) -> None:
    in_mini, in_chat = await in_the_chat(house, "王秀兰", "19900000001")
    await house.bound(in_mini)
    house.bill(total_fen=1234)
    assert "12.34" not in await house.services.answers.text(in_chat, ChatQuestion.OWED)
    house.clock.advance(JOIN_EVERY)
    house.chat.follow(house.user_of(in_mini), house.service_app_id)
    house.bill(total_fen=1234)
    assert "12.34" in await house.services.answers.text(in_chat, ChatQuestion.OWED)
