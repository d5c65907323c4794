"""Sign-in of pages, the scanner's signature and customer messages of an official account."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from bot.wechat.client import WechatApi
from bot.wechat.official import WechatOfficial
from bot.wechat.tokens import AccessTokens
from core.errors import OutcomeUnknown, Refused
from core.memory import MemoryTokenStore
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome
from simulators.kit import Request, exchange
from tests.support.transports import WatchedTransport
from tests.support.wechat import WechatOfTests

PAGE = "https://pay.hospital.test/h/renhe/back?x=1&y=2"


@pytest.fixture
def world() -> WechatOfTests:
    world = WechatOfTests()
    world.simulator.set_web_domain(world.official.app_id, "pay.hospital.test")
    return world


def official(
    world: WechatOfTests, transport: WatchedTransport, store: MemoryTokenStore | None = None
) -> WechatOfficial:
    store = store or MemoryTokenStore(clock=world.clock)
    api = WechatApi(transport=transport)
    tokens = AccessTokens(api=api, store=store, clock=world.clock)
    return WechatOfficial(api=api, tokens=tokens, store=store, clock=world.clock, nonce=lambda: "Wm3WZYTPz0wzccnW")


async def code_for(world: WechatOfTests, platform: WechatOfficial, account: ChatAccount) -> str:
    """The person's phone follows the address of the sign-in."""
    url = platform.sign_in_url(account, back_to=PAGE, state="abc123")
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}&sandbox_person={world.user}"
    answer = await exchange(world.simulator, Request(method="GET", target=target))
    assert answer.status == 302, answer.body.decode()
    values = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
    assert (values["x"], values["y"], values["state"]) == ("1", "2", "abc123")
    return values["code"]


def test_which_pages_are_inside_the_app(world: WechatOfTests) -> None:
    platform = official(world, world.transport())
    chat = "Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 Mobile/15E148 MicroMessenger/8.0.49 NetType/WIFI Language/zh_CN"
    assert platform.shows(chat)
    assert not platform.shows(f"{chat} miniProgram/wx0123456789abcdef")
    assert not platform.shows("Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 Safari/604.1")
    assert not platform.shows("")


def test_the_address_of_the_sign_in_has_its_parameters_in_the_platforms_order(world: WechatOfTests) -> None:
    platform = official(world, world.transport())
    url = platform.sign_in_url(world.account(world.official), back_to=PAGE, state="abc")
    assert url == (
        f"https://open.weixin.qq.com/connect/oauth2/authorize?appid={world.official.app_id}"
        "&redirect_uri=https%3A%2F%2Fpay.hospital.test%2Fh%2Frenhe%2Fback%3Fx%3D1%26y%3D2"
        "&response_type=code&scope=snsapi_base&state=abc#wechat_redirect"
    )
    for state in ("a-b", "x" * 129, "ä"):
        with pytest.raises(ValueError, match="state"):
            platform.sign_in_url(world.account(world.official), back_to=PAGE, state=state)


async def test_a_page_signs_its_user_in_once_per_code(world: WechatOfTests) -> None:
    platform = official(world, world.transport())
    account = world.account(world.official, open_base_url=world.base_url)
    code = await code_for(world, platform, account)
    assert (await platform.sign_in(account, code)).open_id == world.open_id(world.official)
    with pytest.raises(Refused) as refused:
        await platform.sign_in(account, code)
    assert refused.value.final


async def test_the_made_up_user_of_a_snapshot_is_nobody(world: WechatOfTests) -> None:
    platform, account = official(world, world.transport()), world.account(world.official)
    code = await code_for(world, platform, account)
    world.faults.script("wechat.snapshot_user")
    with pytest.raises(Refused) as refused:
        await platform.sign_in(account, code)
    assert (refused.value.code, refused.value.final) == ("snapshot_user", True)


async def test_pages_get_no_phone(world: WechatOfTests) -> None:
    with pytest.raises(Refused):
        await official(world, world.transport()).phone_number(world.account(world.official), "code")


async def test_the_ticket_is_fetched_once_for_all_processes_and_anew_before_its_end(world: WechatOfTests) -> None:
    store, transport, account = MemoryTokenStore(clock=world.clock), world.transport(), world.account(world.official)

    def fetched() -> int:
        return sum("getticket" in request.url for request in transport.requests)

    first = await official(world, transport, store).page_config(account, f"{PAGE}#top")
    again = await official(world, transport, store).page_config(account, PAGE)
    assert fetched() == 1
    assert first == again
    ticket = (await store.get(f"wechat:ticket:{account.app_id}") or "").split('"')[1]
    text = f"jsapi_ticket={ticket}&noncestr=Wm3WZYTPz0wzccnW&timestamp={first['timestamp']}&url={PAGE}"
    assert first["signature"] == hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    assert set(first) == {"appId", "timestamp", "nonceStr", "signature"}
    world.clock.advance(timedelta(minutes=116))
    await official(world, transport, store).page_config(account, PAGE)
    assert fetched() == 2


async def test_a_store_that_forgets_costs_nothing_while_the_process_lives(world: WechatOfTests) -> None:
    store, transport, account = MemoryTokenStore(clock=world.clock), world.transport(), world.account(world.official)
    platform = official(world, transport, store)
    await platform.page_config(account, PAGE)
    store.forget()
    await platform.page_config(account, PAGE)
    assert sum("getticket" in request.url for request in transport.requests) == 1


# ---------------------------------------------------------------- customer messages


def an_answer(
    world: WechatOfTests, text: str = '您有1张待缴费账单\n<a href="https://a.test/">去缴费</a>'
) -> OutgoingMessage:
    return world.message(world.official, kind=MessageKind.CHAT_ANSWER, text=text, fields={})


async def test_an_answer_that_comes_later_is_a_text_in_the_chat(world: WechatOfTests) -> None:
    messenger, account = world.wire(world.transport()).template, world.account(world.official)
    assert messenger.carries(account, MessageKind.CHAT_ANSWER)
    assert not messenger.carries(world.account(world.official, customer_messages="off"), MessageKind.CHAT_ANSWER)
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    result = await messenger.send(account, an_answer(world))
    assert result.outcome is SendOutcome.ACCEPTED
    last = world.simulator.thread(world.user, world.official.app_id)[-1]
    assert (last["via"], last["text"]) == ("custom", an_answer(world).text)


@pytest.mark.parametrize(
    ("fault", "outcome"), [("custom_45015", SendOutcome.NEVER), ("custom_45047", SendOutcome.LATER)]
)
async def test_an_answer_that_may_not_be_sent(world: WechatOfTests, fault: str, outcome: SendOutcome) -> None:
    messenger, account = world.wire(world.transport()).template, world.account(world.official)
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    world.faults.script(f"wechat.{fault}")
    assert (await messenger.send(account, an_answer(world))).outcome is outcome


async def test_whether_a_busy_platform_has_sent_it_is_unknown(world: WechatOfTests) -> None:
    messenger, account = world.wire(world.transport()).template, world.account(world.official)
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    world.faults.script("wechat.system_busy_-1_after")
    with pytest.raises(OutcomeUnknown):
        await messenger.send(account, an_answer(world))


async def test_a_long_answer_ends_with_a_whole_line(world: WechatOfTests) -> None:
    messenger, account = world.wire(world.transport()).template, world.account(world.official)
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    line = '<a href="https://a.test/">去缴费</a>'
    await messenger.send(account, an_answer(world, "\n".join([line] * 200)))
    text = world.simulator.thread(world.user, world.official.app_id)[-1]["text"]
    assert set(text.split("\n")) == {line}
    assert 1_900 < len(text.encode()) <= 2_048
