"""The chat of a whole house: what people write, and what they read, once."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from core.institutions import PaperCode
from core.models import Message, Payer, Payment
from core.ports import ChatIdentity
from core.states import MessageStatus
from simulators.kit import Request, Response
from simulators.wechat_push_line import push_one
from tests.support.house import HIS_URL, LABOURER, House

ASKING = '正在向医院查询，查到后马上告诉您。\n<a href="http://house.test/h/renhe/">全部查看和缴费</a>'
SHORT = 0.5  # seconds in place of 3.5


@pytest.fixture
async def house(tortoise: object) -> House:
    house = await House.build(settings={"paper_code": "his_asks"})
    await house.open_chat(answer_seconds=SHORT)
    return house


async def a_patient(house: House, name: str = "王秀兰") -> tuple[str, Payer]:
    """Somebody who has bound the elder through the official account's own payer."""
    user = house.chat.add_user(name, phone="19900000001")
    house.chat.follow(user, house.service_app_id)
    await house.push()
    account = await house.services.institutions.chat_account_by_app(house.institution_id, house.service_app_id)
    identity = ChatIdentity(open_id=house.chat.open_id(user, house.service_app_id))
    payer = await house.services.patients.payer_for(account, identity)
    await house.bound(payer)
    return user, payer


def say(house: House, user: str, text: str) -> None:
    house.chat.chat.say(user, house.service_app_id, text)


async def told(house: House, user: str, text: str) -> str:
    """What is said to this."""
    before = len(house.said(user))
    say(house, user, text)
    await house.push()
    (answer,) = house.said(user)[before:]
    return answer


# ---------------------------------------------------------------- answers


async def test_who_follows_is_welcomed_and_told_what_to_write(house: House) -> None:
    user = house.chat.add_user("张三", phone="19900000002")
    house.chat.follow(user, house.service_app_id)
    assert await house.push() == 1
    (welcome,) = house.said(user)
    assert welcome.startswith("欢迎关注仁和医院。")
    assert "“缴费”" in welcome


async def test_bills_are_told_with_links(house: House) -> None:
    user, _ = await a_patient(house)
    assert "目前没有待缴费账单" in await told(house, user, "缴费")
    bill = house.bill(total_fen=8650)
    answer = await told(house, user, "我要缴费！")
    assert "您有1张待缴费账单，共¥86.50" in answer
    assert f"/-/{bill}" in answer
    assert await Payment.all().count() == 0


async def test_who_has_bound_nobody_is_shown_how(house: House) -> None:
    user = house.chat.add_user("张三", phone="19900000002")
    house.chat.follow(user, house.service_app_id)
    await house.push()
    assert "/h/renhe/bind" in await told(house, user, "账单")
    assert "您还没有在手机上缴过费" in await told(house, user, "查询")
    house.clock.advance(timedelta(seconds=2))
    assert "收费窗口" in await told(house, user, "人工")
    assert "/h/renhe/bind" in await told(house, user, "绑定")
    assert "您可以回复" in await told(house, user, "你好")


async def test_who_writes_english_is_answered_in_english(house: House) -> None:
    user, payer = await a_patient(house)
    assert "nothing to pay" in await told(house, user, "I want to pay my bill")
    assert (await Payer.get(id=payer.id)).language == "en"
    assert "目前没有待缴费账单" in await told(house, user, "缴费")


async def test_voice_picture_and_menu(house: House) -> None:
    user, _ = await a_patient(house)
    chat, app = house.chat.chat, house.service_app_id
    chat.speak(user, app, "我要缴费。")
    chat.speak(user, app, "")
    chat.show_picture(user, app, "https://picture.test/1.jpg")
    await house.push()
    bills, unclear, photo = house.said(user)[-3:]
    assert "目前没有" in bills
    assert "没有听清" in unclear
    assert "/h/renhe/scan" in photo


async def test_a_message_of_another_sort_is_answered_and_an_unknown_event_is_not(house: House) -> None:
    user, _ = await a_patient(house)
    before = len(house.said(user))
    house.chat.chat.send_place(user, house.service_app_id, 30.5, 114.3, "武汉")
    await house.push()
    assert len(house.said(user)) == before + 1


# ---------------------------------------------------------------- codes


async def test_a_scanned_code_leads_to_its_paper(house: House) -> None:
    site = await house.services.institutions.site(house.institution_id, house.site_id)
    token = await house.services.papers.link(site, house.bill(), origin=PaperCode.HIS_ASKS)
    stranger = house.chat.add_user("李四", phone="19900000002")
    house.chat.chat.follow(stranger, house.service_app_id, token)
    await house.push()
    (welcome,) = house.said(stranger)
    assert welcome.startswith("欢迎关注")
    assert f'<a href="http://house.test/p/{token}">' in welcome

    house.chat.chat._happened(
        house.chat.record.apps[house.service_app_id],
        house.chat.record.users[stranger],
        "SCAN",
        {"EventKey": token, "Ticket": "t"},
        scene="scan",
        text="",
    )
    await house.push()
    assert house.said(stranger)[-1] == f'<a href="http://house.test/p/{token}">请点这里查看这张处方：</a>'


async def test_the_paper_of_another_hospital_is_not_shown(house: House) -> None:
    other = await house.setup.institution(code="other", name_zh="另一家", settings={"paper_code": "his_asks"})
    site = await house.setup.hospital_site(
        other, base_url=HIS_URL, params={"key_id": house.his.key_id, "secret": house.his.keys[house.his.key_id]}
    )
    theirs = await house.services.institutions.site(other, site.id)
    token = await house.services.papers.link(theirs, "B1", origin=PaperCode.HIS_ASKS)
    user = house.chat.add_user("李四", phone="19900000002")
    house.chat.chat.follow(user, house.service_app_id, token)
    await house.push()
    (welcome,) = house.said(user)
    assert "/p/" not in welcome
    assert welcome.startswith("欢迎关注")


# ---------------------------------------------------------------- who can be reached


async def test_who_leaves_is_not_written_to_and_who_comes_back_is(house: House) -> None:
    user, payer = await a_patient(house)
    house.chat.unfollow(user, house.service_app_id)
    await house.push()
    assert not (await Payer.get(id=payer.id)).reachable
    house.clock.advance(timedelta(seconds=3))
    house.chat.follow(user, house.service_app_id)
    await house.push()
    assert (await Payer.get(id=payer.id)).reachable


async def test_what_somebody_did_last_counts_however_late_the_rest_arrives(house: House) -> None:
    user, payer = await a_patient(house)
    house.chat.unfollow(user, house.service_app_id)
    left = house.chat.deliveries.take_due(house.clock.now())
    assert left is not None
    house.clock.advance(timedelta(seconds=3))
    house.chat.follow(user, house.service_app_id)
    await house.push()
    came_back_at = (await Payer.get(id=payer.id)).reachable_at
    assert came_back_at == house.clock.now()
    await house.receive_push(left.url, left.build(house.clock.now()))
    late = await Payer.get(id=payer.id)
    assert (late.reachable, late.reachable_at) == (True, came_back_at)
    house.clock.advance(timedelta(seconds=3))
    house.chat.unfollow(user, house.service_app_id)
    await house.push()
    assert not (await Payer.get(id=payer.id)).reachable


async def test_a_moment_to_come_shuts_nothing_out(house: House) -> None:
    _, payer = await a_patient(house)
    patients, now = house.services.patients, house.clock.now()
    await patients.set_reachable(payer, False, at=now + timedelta(days=900))
    assert (await Payer.get(id=payer.id)).reachable_at == now
    house.clock.advance(timedelta(seconds=1))
    await patients.set_reachable(payer, True, at=house.clock.now())
    assert (await Payer.get(id=payer.id)).reachable


async def test_a_message_that_did_not_arrive_goes_the_next_way(house: House) -> None:
    payer = await house.payer()
    await house.bound(payer)
    house.grant(house.user_of(payer))
    await house.push()
    house.faults.script("wechat.template_user_block")
    house.bill()
    await house.settle()
    await house.push()
    await house.settle()
    told = {(message.delivery, message.status) for message in await Message.filter(kind="new_bill")}
    assert told == {("failed", MessageStatus.SENT), ("", MessageStatus.SENT)}
    assert len(house.chat.inbox(house.chat.open_id(house.user_of(payer), house.mini_app_id))) == 1


# ---------------------------------------------------------------- a slow HIS


async def test_a_slow_hospital_is_said_to_be_asked_and_its_answer_follows_once(house: House) -> None:
    user, _ = await a_patient(house)
    house.bill(total_fen=8650)
    house.transport.hold(HIS_URL)
    before = len(house.said(user))
    say(house, user, "缴费")
    await house.push()
    assert house.said(user)[before:] == [ASKING]
    (message,) = await Message.filter(kind="chat_answer")
    assert message.status is MessageStatus.QUEUED
    house.transport.let_go()
    await house.settle()
    later = house.said(user)[before + 1 :]
    assert len(later) == 1
    assert "¥86.50" in later[0]
    assert (await Message.get(id=message.id)).status is MessageStatus.SENT


async def test_the_hospital_is_asked_once_at_a_time_however_often_somebody_asks(house: House) -> None:
    user, _ = await a_patient(house)
    house.transport.hold(HIS_URL)
    for _ in range(3):
        say(house, user, "缴费")
        await house.push()
    other = house.new_callback(answer_seconds=SHORT)
    say(house, user, "缴费")
    await push_one(house.chat, lambda url, request: house.receive_push(url, request, callback=other))
    assert len(house.transport.sent) == 1
    assert house.transport.most_at_once == 1
    assert await Message.filter(kind="chat_answer").count() == 1
    assert house.said(user)[-4:] == [ASKING] * 4
    house.transport.let_go()
    await house.settle()
    assert house.transport.most_at_once == 1


async def test_where_nothing_may_follow_a_link_is_given(house: House) -> None:
    user, _ = await a_patient(house)
    await house.set_params(customer_messages="off")
    house.transport.hold(HIS_URL)
    assert "正在向医院查询，请点这里查看" in (answer := await told(house, user, "缴费"))
    assert "http://house.test/h/renhe/" in answer
    assert await Message.filter(kind="chat_answer").count() == 0
    house.transport.let_go()


async def test_a_silent_hospital_is_said_to_be_silent(house: House) -> None:
    user, _ = await a_patient(house)
    house.faults.script("hospital.answer_lost", times=1)
    assert "不是没有账单" in await told(house, user, "缴费")


async def test_an_answer_that_nobody_may_send_any_more_is_given_up(house: House) -> None:
    user, _ = await a_patient(house)
    house.transport.hold(HIS_URL)
    say(house, user, "缴费")
    await house.push()
    house.transport.let_go()
    house.clock.advance(timedelta(hours=2))
    await house.settle()
    (message,) = await Message.filter(kind="chat_answer")
    assert (message.status, message.result_code) == (MessageStatus.SKIPPED, "too_late")


# ---------------------------------------------------------------- again and again


async def test_the_same_push_is_answered_alike_and_worked_once_also_by_another_process(house: House) -> None:
    user, _ = await a_patient(house)
    house.bill(total_fen=8650)
    kept: list[tuple[str, Request]] = []

    async def keep(url: str, request: Request) -> Response:
        kept.append((url, request))
        return await house.receive_push(url, request)

    house.transport.hold(HIS_URL)
    house.transport.let_go()
    say(house, user, "缴费")
    await push_one(house.chat, keep)
    ((url, request),) = kept
    asked = len(house.transport.sent)
    other = house.new_callback(answer_seconds=SHORT)
    again = [await house.receive_push(url, request), await house.receive_push(url, request, callback=other)]
    assert all(response.status == 200 and b"<Encrypt>" in response.body for response in again)
    assert len(house.transport.sent) == asked


async def test_a_repeat_while_the_first_is_under_way_waits_for_it(house: House) -> None:
    await house.open_chat(answer_seconds=2)
    user, _ = await a_patient(house)
    house.transport.hold(HIS_URL)
    say(house, user, "缴费")
    delivery = house.chat.deliveries.take_due(house.clock.now())
    assert delivery is not None
    request = delivery.build(house.clock.now())
    other = house.new_callback(answer_seconds=2)
    tasks = [
        asyncio.create_task(house.receive_push(delivery.url, request, callback=at))
        for at in (house.callback, house.callback, other)
    ]
    await asyncio.sleep(0.3)
    assert len(house.transport.sent) == 1
    house.transport.let_go()
    responses = await asyncio.gather(*tasks)
    assert all(b"<Encrypt>" in response.body for response in responses)
    assert house.transport.most_at_once == 1
    assert len(house.transport.sent) == 2  # the HIS knows the elder by two ids, and each was asked for once


async def test_a_hundred_messages_in_a_second_are_answered_with_nothing_and_slow_nobody(house: House) -> None:
    user, _ = await a_patient(house)
    other, _ = await a_patient(house, "王小红")
    house.clock.advance(timedelta(seconds=5))
    before = len(house.said(user))
    for number in range(100):
        say(house, user, f"缴费{number}")
    say(house, other, "缴费")
    assert await house.push() == 101
    assert len(house.said(user)) == before + 5
    assert "目前没有" in house.said(other)[-1]
    assert all(entry["author"] != "system" for entry in house.chat.thread(user, house.service_app_id))


# ---------------------------------------------------------------- fifty people at once


TALK = (
    ("缴费", "账单|没有待缴费|绑定就诊人"),
    ("查询", "缴费"),
    ("人工", "收费窗口"),
    ("绑定", "绑定"),
    ("早上好", "您可以回复"),
    ("我要退款", "缴费"),
    ("💰💰💰", "您可以回复"),
    ("付款" * 5000, "账单|没有待缴费|绑定就诊人"),
)


@pytest.mark.parametrize("seed", [1, 2])
async def test_fifty_dialogues_repeated_and_shuffled_are_answered_once_each(tortoise: object, seed: int) -> None:
    """Every push comes twice or three times, to either of two processes, in any order."""
    house = await House.build(seed=seed)
    await house.open_chat(answer_seconds=30)
    rng = random.Random(seed)
    second = house.new_callback(answer_seconds=30)
    users = [house.chat.add_user(f"人{number}", phone="19900000001") for number in range(50)]
    for user in users:
        house.chat.follow(user, house.service_app_id)
    await house.push()
    for payer in await Payer.filter(institution_id=house.institution_id).limit(10):
        await house.bound(payer, LABOURER if rng.random() < 0.2 else "P10001")
    house.bill()
    lines = {user: rng.sample(TALK, 3) for user in users}
    house.clock.advance(timedelta(seconds=2))
    for user in users:
        for text, _ in lines[user]:
            say(house, user, text)
    sent = []
    while (delivery := house.chat.deliveries.take_due(house.clock.now())) is not None:
        sent.append((delivery, delivery.build(house.clock.now())))
    assert len(sent) == 150
    attempts = [number for number in range(len(sent)) for _ in range(rng.choice((2, 3)))]
    rng.shuffle(attempts)
    answers: dict[int, set[str]] = {number: set() for number in range(len(sent))}

    async def deliver(number: int) -> None:
        delivery, request = sent[number]
        response = await house.receive_push(delivery.url, request, callback=rng.choice((house.callback, second)))
        answers[number].add(decrypted(house, response))

    for start in range(0, len(attempts), 40):
        await asyncio.gather(*(deliver(number) for number in attempts[start : start + 40]))
    for number, texts in answers.items():
        assert len(texts) == 1, (number, texts)
        assert texts != {""}
    assert await Payment.all().count() == 0
    assert await Message.filter(kind="chat_answer").count() == 0


def decrypted(house: House, response: Response) -> str:
    """The text of a sealed reply, empty for success."""
    from simulators.wechat_replies import read_reply

    app = house.chat.record.apps[house.service_app_id]
    callback = app.callback
    assert callback is not None
    if response.body == b"success":
        return ""
    for user in house.chat.record.users:
        try:
            reply = read_reply(
                response.body,
                app=app,
                callback=callback,
                open_id=house.chat.open_id(user, app.app_id),
                now=house.clock.now(),
            )
        except ValueError:
            continue
        return reply.text if reply else ""
    raise AssertionError("nobody's reply")
