"""Who is told what, by which road, and that no copy is sent."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.due import claim
from core.models import HospitalSiteRow, Message
from core.states import MessageStatus
from scheduler.loops import LEASE, loops
from tests.support.house import House


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def poll(house: House) -> None:
    """The loop that asks HIS for new bills, once."""
    (loop,) = [loop for loop in loops(house.services) if loop.table == "hospital_site"]
    for row in await claim(
        loop.table,
        now=house.clock.now(),
        holder="poller",
        lease=LEASE,
        batch_max=10,
        counterparty="id",
        per_counterparty_max=1,
    ):
        await loop.work(row)


async def test_where_the_his_cannot_notify_new_bills_are_found_by_asking_once(tortoise: object) -> None:
    house = await House.build(no_events=True)
    payer = await house.payer()
    await house.bound(payer)
    house.bill()
    assert not await house.step()
    house.clock.advance(timedelta(seconds=1))  # the window ends before its last instant
    await poll(house)
    (message,) = await Message.all()
    assert message.kind == "new_bill"
    house.clock.advance(timedelta(minutes=1))
    await poll(house)
    assert await Message.all().count() == 1
    house.bill(total_fen=100)
    house.clock.advance(timedelta(minutes=1))
    await poll(house)
    assert await Message.all().count() == 2
    site = await HospitalSiteRow.get(id=house.site_id)
    assert site.polled_until == house.clock.now()


async def test_a_silent_his_is_polled_again_and_no_bill_is_missed(tortoise: object) -> None:
    house = await House.build(no_events=True)
    payer = await house.payer()
    await house.bound(payer)
    house.bill()
    house.faults.script("hospital.answer_lost", times=1)
    await poll(house)
    assert await Message.all().count() == 0
    house.clock.advance(timedelta(minutes=3))
    await poll(house)
    assert await Message.all().count() == 1


async def test_everybody_who_has_bound_the_patient_is_told_once(house: House) -> None:
    for name in ("王秀兰", "王小红"):
        await house.bound(await house.payer(name, "19900000001"))
    house.bill()
    house.faults.script("hospital.event_duplicated")
    await house.settle()
    assert await Message.filter(kind="new_bill", status=MessageStatus.SENT).count() == 2
    assert await Message.all().count() == 2


async def test_who_does_not_follow_the_account_is_reached_through_the_mini_program(house: House) -> None:
    payer = await house.payer()
    await house.bound(payer)
    user = house.user_of(payer)
    house.chat.unfollow(user, house.service_app_id)
    house.grant(user)
    house.bill()
    await house.settle()
    (message,) = await Message.all()
    assert message.status is MessageStatus.SENT
    assert len(house.chat.inbox(house.chat.open_id(user, house.mini_app_id))) == 1


async def test_who_cannot_be_reached_on_any_road_finds_the_bill_in_the_list(house: House) -> None:
    payer = await house.payer()
    patient = await house.bound(payer)
    house.chat.unfollow(house.user_of(payer), house.service_app_id)
    bill = house.bill()
    await house.settle()
    (message,) = await Message.all()
    assert message.status is MessageStatus.REFUSED
    shown = await house.services.bills.unpaid(house.institution_id, payer.id, patient)
    assert [entry.bill.his_bill_id for entry in shown] == [bill]


async def test_a_lost_answer_is_repeated_only_inside_the_platforms_window(house: House) -> None:
    payer = await house.payer()
    await house.bound(payer)
    house.bill()
    house.faults.script("wechat.answer_lost", times=1)
    await house.settle()
    (message,) = await Message.all()
    assert message.status is MessageStatus.SENT
    user = house.user_of(payer)
    assert len(house.chat.inbox(house.chat.open_id(user, house.service_app_id))) == 1
