"""The simulated platform, which shares no code with us, pushes; we read, answer, and its phone shows the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from bot.events import ChatEventKind, Reply
from bot.wechat.pushes import Echo, Push, PushKey, PushKeys, read_echo, read_push, write_reply
from core.ports import Unverified
from simulators.kit import Request, Response, deliver_one
from tests.support.pushes import AES_KEY, PREVIOUS_AES_KEY, TOKEN
from tests.support.wechat import WechatOfTests

BOTH = pytest.mark.parametrize("form", ["xml", "json"])
MODES = pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])


@dataclass(kw_only=True)
class Account:
    """Our side of the line, without a socket. `late_seconds` is how much our clock is ahead."""

    world: WechatOfTests
    mode: str
    form: str
    previous_aes_key: str = ""
    late_seconds: int = 0
    pushes: list[Push] = field(default_factory=list)
    unverified: list[Unverified] = field(default_factory=list)

    @property
    def app_id(self) -> str:
        return self.world.official.app_id

    @property
    def keys(self) -> PushKeys:
        return PushKeys(
            token=TOKEN,
            aes_key=AES_KEY,
            previous_aes_key=self.previous_aes_key,
            app_id=self.app_id,
            mode=self.mode,
        )

    async def post(self, url: str, request: Request) -> Response:
        query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        now = self.world.clock.now() + timedelta(seconds=self.late_seconds)
        if request.method == "GET":
            echo = read_echo(self.keys, query)
            assert isinstance(echo, Echo)
            return Response(status=200, body=echo.text.encode())
        push = read_push(self.keys, query, request.body, request.headers["content-type"], now)
        if isinstance(push, Unverified):
            self.unverified.append(push)
            return Response(status=403)
        self.pushes.append(push)
        reply = Reply(text=f"收到 {push.event.text} ]]>") if push.event.kind is ChatEventKind.TEXT else None
        answer = write_reply(self.keys, push, reply, now=now, nonce="n1")
        return Response(status=answer.status, headers={"content-type": answer.content_type}, body=answer.body)

    def enter(self, aes_key: str = AES_KEY) -> None:
        self.world.simulator.set_callback(
            self.app_id, url="http://ours.test/w", token=TOKEN, aes_key=aes_key, mode=self.mode, format=self.form
        )

    async def push(self) -> None:
        while await deliver_one(self.world.simulator, self.post):
            pass

    def shown(self) -> list[str]:
        thread = self.world.simulator.thread(self.world.user, self.app_id)
        return [entry["text"] for entry in thread if entry["author"] == "account" and entry["via"] == "reply"]


async def an_account(mode: str, form: str) -> Account:
    account = Account(world=WechatOfTests(), mode=mode, form=form)
    account.enter()
    await account.push()
    return account


@BOTH
@MODES
async def test_a_text_is_read_and_its_answer_shown(mode: str, form: str) -> None:
    account = await an_account(mode, form)
    world = account.world
    world.simulator.chat.say(world.user, account.app_id, "我要缴费 <]]> & 😀")
    await account.push()
    (push,) = account.pushes
    assert (push.event.kind, push.event.text) == (ChatEventKind.TEXT, "我要缴费 <]]> & 😀")
    assert push.event.open_id == world.open_id(world.official)
    assert push.event.to == world.official.original_id
    assert push.event.happened_at == world.clock.now()
    assert (push.format, push.sealed_with) == (form, None if mode == "plain" else PushKey.CURRENT)
    assert account.shown() == ["收到 我要缴费 <]]> & 😀 ]]>"]


@BOTH
@MODES
async def test_follows_and_what_is_repeated(mode: str, form: str) -> None:
    account = await an_account(mode, form)
    world = account.world
    world.simulator.chat.unfollow(world.user, account.app_id)
    world.faults.script("wechat.push_repeated")
    world.simulator.chat.follow(world.user, account.app_id)
    await account.push()
    kinds = [push.event.kind for push in account.pushes]
    assert kinds == [ChatEventKind.UNFOLLOWED, ChatEventKind.FOLLOWED, ChatEventKind.FOLLOWED]
    left, first, second = (push.event.event_id for push in account.pushes)
    assert first == second != left


@BOTH
@MODES
async def test_a_forged_push_and_one_that_is_old_are_refused(mode: str, form: str) -> None:
    account = await an_account(mode, form)
    world = account.world
    world.faults.script("wechat.push_forged")
    world.simulator.chat.say(world.user, account.app_id, "one")
    await account.push()
    assert len(account.unverified) == len(account.pushes) == 1
    account.late_seconds = 601
    world.simulator.chat.say(world.user, account.app_id, "two")
    await account.push()
    assert len(account.pushes) == 1
    assert "seconds off" in account.unverified[-1].reason


@BOTH
@pytest.mark.parametrize("mode", ["compatible", "safe"])
async def test_while_the_key_changes_both_are_answered(mode: str, form: str) -> None:
    account = Account(world=WechatOfTests(), mode=mode, form=form, previous_aes_key=PREVIOUS_AES_KEY)
    account.enter(PREVIOUS_AES_KEY)
    await account.push()
    account.enter(AES_KEY)
    await account.push()
    world = account.world
    for text in ("一", "二", "三", "四"):
        world.simulator.chat.say(world.user, account.app_id, text)
    await account.push()
    assert {push.sealed_with for push in account.pushes} == {PushKey.CURRENT, PushKey.PREVIOUS}
    assert account.shown() == ["收到 一 ]]>", "收到 二 ]]>", "收到 三 ]]>", "收到 四 ]]>"]
