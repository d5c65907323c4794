"""What the simulated platform pushes, read by wechatpy at the end of a real line, and what it makes of answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from wechatpy import events, messages, replies
from wechatpy.crypto import WeChatCrypto

from simulators.faults import Faults
from simulators.kit import create_app
from simulators.wechat import SYSTEM_LINE, WechatPlatformSimulator, push_forever
from simulators.wechat_faults import API_CALLS, CHAT_FAULTS, FAULTS
from tests.support.wechat import WechatOfTests
from tests.support.wechat_account_server import AES_KEY, NEW_AES_KEY, TOKEN, Pushing, pushing
from wire.http import HttpClient, HttpRequest

MODES = ["plain", "compatible", "safe"]


@pytest.fixture
async def line() -> AsyncIterator[Pushing]:
    async with pushing(WechatOfTests()) as line:
        yield line


def said(line: Pushing, author: str = "account") -> list[str]:
    return [entry["text"] for entry in line.thread() if entry["author"] == author]


@pytest.mark.parametrize("mode", MODES)
async def test_wechatpy_reads_every_push_and_its_replies_are_understood(line: Pushing, mode: str) -> None:
    await line.enter_callback(mode=mode)
    line.server.answer = lambda message: f"收到 {message.type}"
    chat, user, app_id = line.simulator.chat, line.world.user, line.world.official.app_id
    chat.say(user, app_id, "我要缴费 <]]> & ü")
    chat.speak(user, app_id, "查一下费用")
    chat.show_picture(user, app_id, "http://pictures.test/1.jpg")
    chat.send_place(user, app_id, 23.134521, 113.358803, "门诊楼")
    assert await line.push() == 4
    text, voice, image, place = line.server.messages
    assert isinstance(text, messages.TextMessage)
    assert (text.content, text.source) == ("我要缴费 <]]> & ü", line.world.open_id(line.world.official))
    assert text.target == line.world.official.original_id
    assert int(text.id) > 0
    assert isinstance(voice, messages.VoiceMessage)
    assert voice.recognition == "查一下费用"
    assert isinstance(image, messages.ImageMessage)
    assert image.image == "http://pictures.test/1.jpg"
    assert isinstance(place, messages.LocationMessage)
    assert (place.location, place.label) == (("23.134521", "113.358803"), "门诊楼")
    assert said(line) == ["收到 text", "收到 voice", "收到 image", "收到 location"]
    assert {entry["via"] for entry in line.thread() if entry["author"] == "account"} == {"reply"}
    for kept in line.server.raw:
        assert kept["query"]["openid"] == line.world.open_id(line.world.official)
        assert ("encrypt_type" in kept["query"]) == (mode != "plain")
        assert ("<FromUserName>" in kept["body"]) == (mode != "safe")
        assert ("<Encrypt>" in kept["body"]) == (mode != "plain")


@pytest.mark.parametrize("mode", MODES)
async def test_wechatpy_reads_every_event(line: Pushing, mode: str) -> None:
    world, chat = line.world, line.simulator.chat
    user, app_id = world.user, world.official.app_id
    await line.enter_callback(mode=mode)
    token = line.simulator.tokens.renewed(world.official)["access_token"]
    menu = {
        "button": [
            {"type": "click", "name": "待缴费", "key": "BILLS"},
            {"type": "view", "name": "缴费", "url": "http://hospital.test/pay"},
            {
                "name": "更多",
                "sub_button": [
                    {"type": "scancode_waitmsg", "name": "扫一扫", "key": "SCAN"},
                    {
                        "type": "miniprogram",
                        "name": "小程序",
                        "url": "http://hospital.test/",
                        "appid": world.mini.app_id,
                        "pagepath": "pages/bill/index",
                    },
                ],
            },
        ]
    }
    assert (await world.ask("POST", f"/cgi-bin/menu/create?access_token={token}", menu))["errcode"] == 0
    made = await world.ask(
        "POST",
        f"/cgi-bin/qrcode/create?access_token={token}",
        {"action_name": "QR_STR_SCENE", "action_info": {"scene": {"scene_str": "b7f2"}}, "expire_seconds": 600},
    )
    chat.unfollow(user, app_id)
    assert chat.scan(user, made["ticket"]) == app_id
    assert chat.scan(user, made["url"]) == app_id
    assert chat.click(user, app_id, "BILLS") == {}
    assert chat.click(user, app_id, "缴费") == {"url": "http://hospital.test/pay"}
    assert chat.click(user, app_id, "SCAN", scanned="http://hospital.test/q/1") == {}
    assert chat.click(user, app_id, "小程序") == {"appid": world.mini.app_id, "pagepath": "pages/bill/index"}
    chat.unfollow(user, app_id)
    chat.follow(user, app_id)
    await line.push()
    kinds = [
        events.UnsubscribeEvent,
        events.SubscribeScanEvent,
        events.ScanEvent,
        events.ClickEvent,
        events.ViewEvent,
        events.ScanCodeWaitMsgEvent,
        events.ViewMiniProgramEvent,
        events.UnsubscribeEvent,
        events.SubscribeEvent,
    ]
    got = line.server.messages
    assert [type(each) for each in got] == kinds
    assert (got[1].scene_id, got[1].ticket) == ("b7f2", made["ticket"])
    assert (got[2].scene_id, got[2].ticket) == ("b7f2", made["ticket"])
    assert (got[3].key, got[4].url) == ("BILLS", "http://hospital.test/pay")
    assert (got[5].key, got[5].scan_result) == ("SCAN", "http://hospital.test/q/1")


async def test_after_a_send_the_platform_tells_what_became_of_it(line: Pushing) -> None:
    world = line.world
    await line.enter_callback(mode="safe")
    token = line.simulator.tokens.renewed(world.official)["access_token"]
    body = {
        "touser": world.open_id(world.official),
        "template_id": world.template,
        "data": {
            "thing1": {"value": "西药费"},
            "amount2": {"value": "¥19.98"},
            "time3": {"value": "12:00"},
            "name4": {"value": "王*明"},
            "character_string5": {"value": "P1"},
            "phrase6": {"value": "待缴费"},
        },
    }
    sent = []
    for fault in ("", "wechat.template_user_block", "wechat.template_system_failed"):
        if fault:
            world.faults.script(fault)
        sent.append(await world.ask("POST", f"/cgi-bin/message/template/send?access_token={token}", body))
    await line.push()
    assert [each["errcode"] for each in sent] == [0, 0, 0]
    told = line.server.messages
    assert all(isinstance(each, events.TemplateSendJobFinishEvent) for each in told)
    assert [int(each.id) for each in told] == [each["msgid"] for each in sent]
    assert [each.status for each in told] == ["success", "failed:user block", "failed: system failed"]
    assert len(line.simulator.inbox(world.open_id(world.official))) == 1
    assert [entry["via"] for entry in line.thread()] == ["template"]
    line.server.answer = lambda message: "谁在那里"  # an answer to such an event is shown to nobody
    await world.ask("POST", f"/cgi-bin/message/template/send?access_token={token}", body)
    await line.push()
    assert [entry["via"] for entry in line.thread()] == ["template", "template"]


@pytest.mark.parametrize("form", ["xml", "json"])
async def test_subscription_events_in_both_formats(line: Pushing, form: str) -> None:
    world = line.world
    line.server.app_id = world.mini.app_id
    line.simulator.set_callback(world.mini.app_id, url=line.url, token=TOKEN, aes_key=AES_KEY, mode="safe", format=form)
    await line.push()
    line.simulator.grant(world.user, world.mini.app_id, world.one_time)
    line.simulator.refuse(world.user, world.mini.app_id, world.one_time)
    await line.push()
    popup, change = line.server.messages
    if form == "json":
        assert popup["List"] == {
            "TemplateId": world.one_time,
            "SubscribeStatusString": "accept",
            "PopupScene": "0",
        }
        assert (change["Event"], change["List"]["SubscribeStatusString"]) == ("subscribe_msg_change_event", "reject")
        assert isinstance(popup["CreateTime"], int)
    else:
        choice = popup._data["SubscribeMsgPopupEvent"]["List"]
        assert (choice["TemplateId"], choice["SubscribeStatusString"]) == (world.one_time, "accept")
        assert change._data["SubscribeMsgChangeEvent"]["List"]["SubscribeStatusString"] == "reject"


async def test_in_json_a_sealed_reply_is_json_as_well(line: Pushing) -> None:
    await line.enter_callback(mode="safe", form="json")
    world = line.world
    crypto = WeChatCrypto(TOKEN, AES_KEY, world.official.app_id)

    def answer(message: Any) -> bytes:
        reply = {
            "ToUserName": message["FromUserName"],
            "FromUserName": message["ToUserName"],
            "CreateTime": message["CreateTime"],
            "MsgType": "text",
            "Content": f"收到 {message['Content']}",
        }
        document = crypto.encrypt_message(json.dumps(reply), "n1", "1700000000")
        sealed = dict(re.findall(r"<(\w+)><!\[CDATA\[([^]]+)", document))
        return json.dumps({**sealed, "TimeStamp": 1700000000}).encode()

    line.server.answer = answer
    line.simulator.chat.say(world.user, world.official.app_id, "缴费")
    await line.push()
    assert (said(line), said(line, "system")) == (["收到 缴费"], [])
    line.server.answer = lambda message: answer(message).replace(b'"n1"', b'"n2"')  # not what was signed
    line.simulator.chat.say(world.user, world.official.app_id, "缴费")
    await line.push()
    assert said(line, "system") == [SYSTEM_LINE]


async def test_news_is_shown_with_what_it_opens(line: Pushing) -> None:
    await line.enter_callback(mode="safe")

    def answer(message: Any) -> replies.ArticlesReply:
        reply = replies.ArticlesReply(message=message)
        reply.add_article({"title": "待缴费", "description": "1 张单", "image": "", "url": "http://hospital.test/b/1"})
        return reply

    line.server.answer = answer
    line.simulator.chat.say(line.world.user, line.world.official.app_id, "缴费")
    await line.push()
    entry = line.thread()[-1]
    assert (entry["kind"], entry["opens"]) == ("news", {"url": "http://hospital.test/b/1"})
    assert entry["items"][0]["title"] == "待缴费"


async def test_success_and_nothing_are_shown_as_nothing(line: Pushing) -> None:
    for mode in MODES:
        await line.enter_callback(mode=mode)
        for body in (b"success", b""):
            line.server.answer = lambda message, body=body: body  # type: ignore[misc]
            line.simulator.chat.say(line.world.user, line.world.official.app_id, "你好")
            assert await line.push() == 1
    assert [entry["author"] for entry in line.thread()] == ["person"] * 6


def rendered(reply: replies.BaseReply) -> bytes:
    return str(reply.render()).encode()


def to_somebody_else(message: Any) -> bytes:
    return rendered(replies.TextReply(content="x", source=message.target, target="o0"))


def with_an_entity(message: Any) -> bytes:
    return b'<!DOCTYPE xml [<!ENTITY a "b">]>' + rendered(replies.TextReply(content="x", message=message))


UNREADABLE: list[Callable[[Any], bytes]] = [
    lambda message: b'{"MsgType": "text"}',
    lambda message: b"<xml><a>",
    lambda message: b"ok",
    lambda message: b"Success",
    lambda message: replies.TextReply(content="", message=message).render().encode(),
    lambda message: replies.TextReply(content="字" * 700, message=message).render().encode(),
    lambda message: replies.TextReply(content="x", message=message).render().replace("text", "poem").encode(),
    to_somebody_else,
    with_an_entity,
]


async def test_an_answer_that_cannot_be_read_shows_the_platforms_own_line(line: Pushing) -> None:
    await line.enter_callback()
    for count, answer in enumerate(UNREADABLE, start=1):
        line.server.answer = answer
        line.simulator.chat.say(line.world.user, line.world.official.app_id, "你好")
        assert await line.push() == 1
        assert (said(line), said(line, "system")) == ([], [SYSTEM_LINE] * count), count


async def test_a_plain_reply_in_safe_mode_and_a_wrong_status_show_the_line(line: Pushing) -> None:
    await line.enter_callback(mode="safe")
    user, app_id = line.world.user, line.world.official.app_id
    line.server.answer = lambda message: replies.TextReply(content="x", message=message).render().encode()
    line.simulator.chat.say(user, app_id, "你好")
    await line.push()
    line.server.statuses = [404]
    line.server.answer = lambda message: "好"
    line.simulator.chat.say(user, app_id, "你好")
    await line.push()
    assert (said(line), said(line, "system")) == ([], [SYSTEM_LINE] * 2)


async def test_a_server_in_trouble_gets_the_same_push_again(line: Pushing) -> None:
    await line.enter_callback(mode="safe")
    user, app_id = line.world.user, line.world.official.app_id
    line.server.answer = lambda message: "好"
    for statuses, shown in (([503, 500], []), ([503, 503, 503], [SYSTEM_LINE])):
        line.server.statuses = list(statuses)
        line.simulator.chat.say(user, app_id, "你好")
        for _ in range(4):
            await line.push()
            line.world.clock.advance(timedelta(seconds=5))
        assert (said(line), said(line, "system")) == (["好"], shown)
    assert len({message.id for message in line.server.messages}) == 2
    assert len(line.server.messages) == 6


async def test_a_slow_server_gets_the_same_push_three_times_and_then_the_person_a_line(line: Pushing) -> None:
    await line.enter_callback(mode="compatible")
    line.server.wait_seconds = [0.4] * 3
    line.server.answer = lambda message: "太晚了"
    line.simulator.chat.say(line.world.user, line.world.official.app_id, "你好")
    for _ in range(4):
        await line.push(deadline_seconds=0.15)
        line.world.clock.advance(timedelta(seconds=5))
    assert len(line.server.messages) == 3
    assert len({message.id for message in line.server.messages}) == 1
    assert len({message.create_time for message in line.server.messages}) == 1
    assert len({kept["query"]["signature"] for kept in line.server.raw}) == 3
    assert (said(line), said(line, "system")) == ([], [SYSTEM_LINE])
    assert [each["attempt"] for each in line.simulator.deliveries.log[1:]] == [1, 2, 3]


async def test_the_answer_to_a_second_attempt_is_shown(line: Pushing) -> None:
    await line.enter_callback()
    line.server.wait_seconds = [0.4, 0.0]
    line.server.answer = lambda message: "赶上了"
    line.simulator.chat.say(line.world.user, line.world.official.app_id, "你好")
    await line.push(deadline_seconds=0.15)
    line.world.clock.advance(timedelta(seconds=5))
    await line.push(deadline_seconds=0.15)
    assert (said(line), said(line, "system")) == (["赶上了"], [])


async def test_a_server_that_nobody_reaches(line: Pushing) -> None:
    await line.enter_callback()
    line.simulator.set_callback(
        line.world.official.app_id, url="http://127.0.0.1:1/wechat", token=TOKEN, aes_key=AES_KEY, check=False
    )
    line.simulator.chat.say(line.world.user, line.world.official.app_id, "你好")
    for _ in range(3):
        await line.push()
        line.world.clock.advance(timedelta(seconds=5))
    assert said(line, "system") == [SYSTEM_LINE]


async def test_an_address_that_does_not_echo_is_not_used(line: Pushing) -> None:
    app_id = line.world.official.app_id
    line.simulator.set_callback(app_id, url=line.url, token="another1", aes_key=AES_KEY)
    assert line.world.official.callback_state == "checking"
    await line.push()
    assert (line.world.official.callback, line.world.official.callback_state) == (None, "failed")
    line.simulator.chat.say(line.world.user, app_id, "你好")
    assert await line.push() == 0
    for name, value in (("token", "a b"), ("aes_key", "short"), ("mode", "secret"), ("format", "yaml"), ("url", "x")):
        values: dict[str, Any] = {"url": line.url, "token": TOKEN, name: value}
        with pytest.raises(ValueError, match=r"."):
            line.simulator.set_callback(app_id, **values)


async def test_a_new_key_is_used_while_the_old_one_still_comes(line: Pushing) -> None:
    await line.enter_callback(mode="safe")
    await line.enter_callback(mode="safe", aes_key=NEW_AES_KEY)
    line.server.answer = lambda message: "好"
    user, app_id = line.world.user, line.world.official.app_id
    for keys, count in (([NEW_AES_KEY], 1), ([AES_KEY], 2), ([NEW_AES_KEY, AES_KEY], 4)):
        line.server.aes_keys = keys
        line.simulator.chat.say(user, app_id, "一")
        line.simulator.chat.say(user, app_id, "二")
        await line.push()
        assert said(line) == ["好"] * count
    line.world.clock.advance(timedelta(hours=1))
    line.server.aes_keys = [NEW_AES_KEY]
    line.simulator.chat.say(user, app_id, "一")
    line.simulator.chat.say(user, app_id, "二")
    await line.push()
    assert said(line) == ["好"] * 6


async def test_named_faults_of_pushes(line: Pushing) -> None:
    await line.enter_callback(mode="safe")
    line.server.answer = lambda message: message.content
    faults, clock = line.world.faults, line.world.clock

    async def say(text: str, fault: str) -> None:
        faults.script(f"wechat.{fault}")
        line.simulator.chat.say(line.world.user, line.world.official.app_id, text)
        await line.push()
        assert faults.struck[f"wechat.{fault}"] == 1

    await say("一", "push_repeated")
    assert len(line.server.messages) == 2
    assert len({message.id for message in line.server.messages}) == 1
    await say("二", "push_answer_late")
    assert said(line) == ["一", "一"]
    clock.advance(timedelta(seconds=5))
    await line.push()
    assert said(line) == ["一", "一", "二"]
    await say("三", "push_delayed")
    assert len(said(line)) == 3
    clock.advance(timedelta(seconds=30))
    await line.push()
    assert said(line)[-1] == "三"
    await say("四", "push_forged")
    assert (line.server.refused, said(line)[-1], said(line, "system")) == (1, "四", [])


def test_the_faults_of_chats_have_a_catalogue_of_their_own() -> None:
    names = [fault.name for fault in (*FAULTS, *CHAT_FAULTS)]
    assert len(set(names)) == len(names)
    for fault in CHAT_FAULTS:
        assert fault.calls
        assert fault.calls <= API_CALLS | {"push", "authorize"}
        assert fault.ends.endswith(".")
    without, faults = WechatOfTests(), Faults()
    WechatPlatformSimulator(clock=without.clock, faults=faults, catalogue=FAULTS)
    assert set(without.faults.catalogue) - set(faults.catalogue) == {fault.name for fault in CHAT_FAULTS}


async def test_one_slow_answer_holds_up_nobody_else(line: Pushing) -> None:
    await line.enter_callback()
    world, app_id = line.world, line.world.official.app_id
    other = line.simulator.add_user("李四", phone="13700000000")
    line.simulator.follow(other, app_id)
    await line.push()
    line.server.wait_seconds = [0.5, 0.0]
    line.server.answer = lambda message: "好"
    line.simulator.chat.say(world.user, app_id, "慢")
    line.simulator.chat.say(other, app_id, "快")
    pushes = asyncio.create_task(push_forever(line.simulator, line.post, idle_seconds=0.01))
    try:
        async with asyncio.timeout(3):
            while not [entry for entry in line.simulator.thread(other, app_id) if entry["author"] == "account"]:
                await asyncio.sleep(0.01)
            assert said(line) == []
            while not said(line):
                await asyncio.sleep(0.01)
    finally:
        pushes.cancel()
        await asyncio.gather(pushes, return_exceptions=True)


async def test_an_account_without_a_callback_pushes_nothing(line: Pushing) -> None:
    line.simulator.chat.say(line.world.user, line.world.official.app_id, "有人吗")
    assert await line.push() == 0
    assert [entry["text"] for entry in line.thread()] == ["有人吗"]


async def test_everything_can_be_done_over_the_control_endpoints(line: Pushing, serve: Any) -> None:
    async with serve(create_app(line.simulator)) as platform_url, HttpClient() as http:

        async def control(method: str, path: str, body: object = None) -> Any:
            data = b"" if body is None else json.dumps(body).encode()
            request = HttpRequest(method=method, url=platform_url + path, body=data)
            return json.loads((await http.send(request, deadline_seconds=5)).body)

        await a_day_over_the_control_endpoints(line, control)


async def a_day_over_the_control_endpoints(line: Pushing, control: Callable[..., Any]) -> None:
    world, app_id = line.world, line.world.official.app_id
    who = {"user": world.user, "appid": app_id}
    line.server.answer = lambda message: "好"
    callback = {"appid": app_id, "url": line.url, "token": TOKEN, "aes_key": AES_KEY, "mode": "plain"}
    assert await control("POST", "/_callback", callback) == {}
    await line.push()
    (account, _) = await control("GET", "/_accounts")
    assert account["callback"] == {"state": "enabled", "url": line.url, "mode": "plain", "format": "xml"}
    assert await control("POST", "/_mode", {"appid": app_id, "mode": "safe"}) == {}
    token = line.simulator.tokens.renewed(world.official)["access_token"]
    menu = {"button": [{"type": "view", "name": "缴费", "url": "http://hospital.test/"}]}
    await world.ask("POST", f"/cgi-bin/menu/create?access_token={token}", menu)
    made = await world.ask(
        "POST",
        f"/cgi-bin/qrcode/create?access_token={token}",
        {"action_name": "QR_LIMIT_STR_SCENE", "action_info": {"scene": {"scene_str": "window1"}}},
    )
    assert await control("POST", "/_unfollow", who) == {}
    assert await control("POST", "/_scan", {"user": world.user, "ticket": made["ticket"]}) == {"appid": app_id}
    assert await control("POST", "/_say", who | {"text": "缴费"}) == {}
    assert await control("POST", "/_choose", who | {"id": "101", "text": "第一张"}) == {}
    assert await control("POST", "/_speak", who | {"recognition": "缴费"}) == {}
    assert await control("POST", "/_picture", who | {"url": "http://p.test/1.jpg"}) == {}
    place = {"latitude": 23.1, "longitude": 113.3, "label": "门诊楼"}
    assert await control("POST", "/_place", who | place) == {}
    assert await control("POST", "/_click", who | {"key": "缴费"}) == {"url": "http://hospital.test/"}
    assert "error" in await control("POST", "/_click", who | {"key": "nothing"})
    await line.push()
    thread = await control("GET", f"/_thread?user={world.user}&appid={app_id}")
    assert (thread["follows"], thread["account"]) == (True, "示范医院")
    kinds = [entry["kind"] for entry in thread["entries"] if entry["author"] == "person"]
    assert kinds == ["subscribe", "unsubscribe", "subscribe", "text", "text", "voice", "image", "location", "VIEW"]
    assert [entry["text"] for entry in thread["entries"] if entry["author"] == "account"] == ["好"] * 6
    assert line.server.messages[3]._data["bizmsgmenuid"] == "101"
    last = thread["entries"][-1]["number"]
    assert (await control("GET", f"/_thread?user={world.user}&appid={app_id}&after={last}"))["entries"] == []
    assert (await control("GET", "/_people"))[0]["user"] == world.user
    assert (await control("GET", "/_pushes"))[-1]["result"] == "nothing"
    assert json.dumps(await control("GET", "/_books"))
