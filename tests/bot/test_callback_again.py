"""What the platform is told to send again, and what it gets then; what must never be lost in a crowd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from bot.conversation import Conversation
from bot.events import ChatEventKind
from bot.turnstile import EVENTS_PER_SECOND_MAX, PLACES
from bot.wechat import callback as callback_module
from bot.wechat.callback import Callback
from core.memory import MemoryTokenStore
from core.models import Message, Payer
from runtime.bootstrap import BoundedBackground, build_callback
from simulators.kit import Request, Response
from tests.support.house import HIS_URL, PUBLIC_URL, House

LATE = 0.3  # seconds in place of 4.4


@pytest.fixture
async def house(tortoise: object) -> House:
    house = await House.build()
    await house.open_chat()
    return house


async def a_follower(house: House) -> str:
    user = house.chat.add_user("王秀兰", phone="19900000001")
    house.chat.follow(user, house.service_app_id)
    await house.push()
    await house.bound(await Payer.all().order_by("-created_at").first() or pytest.fail("nobody"))
    house.clock.advance(timedelta(seconds=2))
    return user


def conversation_of(callback: Callback | None) -> Conversation:
    assert callback is not None
    return callback._conversation


def next_push(house: House) -> tuple[str, Request]:
    delivery = house.chat.deliveries.take_due(house.clock.now())
    assert delivery is not None
    return delivery.url, delivery.build(house.clock.now())


def is_sent_away(response: Response) -> bool:
    """With nothing but the wish to be asked again; a vendor between us is told that he may answer."""
    return (response.status, response.body, response.headers.get("zhenfu-handled")) == (503, b"", "no")


@pytest.fixture
async def crowd(house: House) -> Callable[[], None]:
    """Every place for people's messages is taken; call it, and they are free."""
    places = conversation_of(house.callback).places(ChatEventKind.TEXT)
    for _ in range(PLACES):
        assert await places.take()

    def leave() -> None:
        for _ in range(PLACES):
            places.give()

    return leave


async def test_whoever_finds_no_place_is_told_at_once_where_the_pages_are(
    house: House, crowd: Callable[[], None]
) -> None:
    user = await a_follower(house)
    house.chat.chat.say(user, house.service_app_id, "缴费")
    await house.push()
    assert house.said(user)[-1].startswith("现在咨询的人很多")
    assert f"{PUBLIC_URL}/h/renhe/" in house.said(user)[-1]
    house.chat.chat.say(user, house.service_app_id, "how do I pay?")
    await house.push()
    assert house.said(user)[-1].startswith("Many people are asking")


async def test_what_is_not_ours_and_finds_no_place_comes_again_and_is_answered_then(
    house: House, crowd: Callable[[], None]
) -> None:
    user = await a_follower(house)
    house.chat.chat.say(user, house.service_app_id, "你好")
    url, request = next_push(house)
    began = asyncio.get_running_loop().time()
    assert is_sent_away(await house.receive_push(url, request))
    assert asyncio.get_running_loop().time() - began < 5
    crowd()
    answer = await house.receive_push(url, request)
    assert (answer.status, answer.body != b"success") == (200, True)


async def test_no_crowd_pushes_out_who_follows_and_who_has_left(house: House, crowd: Callable[[], None]) -> None:
    user = house.chat.add_user("王秀兰", phone="19900000001")
    house.chat.follow(user, house.service_app_id)
    await house.push()
    assert house.said(user)[0].startswith("欢迎关注")
    house.clock.advance(timedelta(seconds=1))
    house.chat.unfollow(user, house.service_app_id)
    await house.push()
    assert not (await Payer.all())[0].reachable


async def test_too_many_tasks_are_sent_away_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await a_follower(house)
    house.chat.unfollow(user, house.service_app_id)
    url, request = next_push(house)
    with monkeypatch.context() as full:
        full.setattr(callback_module, "TASKS_MAX", 0)
        assert is_sent_away(await house.receive_push(url, request))
    assert (await Payer.all())[0].reachable
    assert (await house.receive_push(url, request)).status == 200
    assert not (await Payer.all())[0].reachable


async def test_an_answer_that_comes_too_late_is_fetched_by_the_repeat(house: House) -> None:
    user = await a_follower(house)
    house.bill(total_fen=8650)
    slow = build_callback(
        house.services, transport=house.transport, tokens=house.tokens, answer_seconds=30, push_seconds=LATE
    )
    house.transport.hold(HIS_URL)
    house.chat.chat.say(user, house.service_app_id, "缴费")
    url, request = next_push(house)
    assert is_sent_away(await house.receive_push(url, request, callback=slow))
    assert is_sent_away(await house.receive_push(url, request, callback=slow))
    house.transport.let_go()
    await slow.finish(seconds=5)
    asked = len(house.transport.sent)
    answer = await house.receive_push(url, request, callback=slow)
    assert (answer.status, b"<Encrypt>" in answer.body) == (200, True)
    elsewhere = await house.receive_push(url, request)
    assert (elsewhere.status, b"<Encrypt>" in elsewhere.body) == (200, True)
    assert len(house.transport.sent) == asked
    assert await Message.filter(kind="chat_answer").count() == 0


async def test_what_another_process_is_still_at_is_asked_for_again(house: House) -> None:
    user = await a_follower(house)
    first, second = house.new_callback(answer_seconds=30), house.new_callback(answer_seconds=LATE)
    house.transport.hold(HIS_URL)
    house.chat.chat.say(user, house.service_app_id, "缴费")
    url, request = next_push(house)
    working = asyncio.create_task(house.receive_push(url, request, callback=first))
    await asyncio.sleep(0.2)
    assert is_sent_away(await house.receive_push(url, request, callback=second))
    house.transport.let_go()
    assert (await working).status == 200
    answer = await house.receive_push(url, request, callback=second)
    assert (answer.status, b"<Encrypt>" in answer.body) == (200, True)


async def test_what_is_beyond_one_persons_limit_is_dropped_for_good_and_said_to_be_not_ours(house: House) -> None:
    await house.set_params(connection="forwarded")
    user = await a_follower(house)
    responses = []
    for number in range(EVENTS_PER_SECOND_MAX + 1):
        house.chat.chat.say(user, house.service_app_id, f"查询{number}")
        responses.append(await house.receive_push(*next_push(house)))
    assert [response.status for response in responses] == [200] * len(responses)
    handled = [response.headers["zhenfu-handled"] for response in responses]
    assert handled == ["yes"] * EVENTS_PER_SECOND_MAX + ["no"]
    assert responses[-1].body == b"success"


class _SlowStore(MemoryTokenStore):
    """A store that takes its time to write."""

    def __init__(self, house: House) -> None:
        super().__init__(clock=house.clock)
        self.free = asyncio.Event()

    async def set(self, key: str, value: str, *, life: timedelta) -> None:
        if not value.isalnum():  # a kept answer, no mark
            await self.free.wait()
        await super().set(key, value, life=life)


async def test_keeping_the_answer_does_not_hold_it_up(tortoise: object) -> None:
    background = BoundedBackground()
    house = await House.build(background=background)
    await house.open_chat()
    user = await a_follower(house)
    store = _SlowStore(house)
    slow = build_callback(house.services, transport=house.transport, tokens=store, push_seconds=2)
    house.chat.chat.say(user, house.service_app_id, "查询")
    url, request = next_push(house)
    assert (await house.receive_push(url, request, callback=slow)).status == 200
    store.free.set()
    await background.finish(seconds=2)
    assert [value.isalnum() for key, (value, _) in store._values.items() if key.startswith("chat:")] == [False]
