"""What doctor says about an official account: its callback, its templates, the domain's proof."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bot.wechat.client import WechatApi
from bot.wechat.tokens import AccessTokens
from core.memory import MemoryTokenStore
from core.ports import NOTICE_KINDS, ChatAccount
from runtime.doctor_chat import Finding, callback_settings, domain, templates
from tests.support.transports import WatchedTransport
from tests.support.wechat import SOURCES, WechatOfTests
from wire.http import HttpReply

PUBLIC = "https://pay.hospital.test"
PUSHES = {"connection": "own", "push_token": "tokenOfTests", "push_aes_key": "a" * 43}
FILE = {"verify_file_name": "MP_verify_abc.txt", "verify_file_text": "abc"}


@pytest.fixture
def world() -> WechatOfTests:
    return WechatOfTests()


def look(account: ChatAccount) -> Finding:
    (finding,) = callback_settings(account, public_url=PUBLIC)
    return finding


def test_the_callback_is_there_and_well_formed(world: WechatOfTests) -> None:
    assert look(world.account(world.official, **PUSHES)).state == "ok"
    for app, opens in ((world.official, True), (world.mini, False)):
        nobody = look(world.account(app))
        assert (nobody.state, "nobody pushes" in nobody.detail, "menu" in nobody.detail) == ("ok", True, opens)
    assert look(world.account(world.mini, **PUSHES)).state == "ok"
    unused = look(world.account(world.mini, **(PUSHES | {"connection": "none"})))
    assert (unused.state, "404" in unused.detail) == ("warn", True)
    broken = look(world.account(world.mini, **(PUSHES | {"push_aes_key": "short"})))
    assert (broken.state, "push_aes_key" in broken.detail) == ("fail", True)
    plain = look(world.account(world.official, **(PUSHES | {"push_mode": "plain"})))
    assert (plain.state, "安全模式" in plain.what_to_do) == ("warn", True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"push_token": "a-b"},
        {"push_aes_key": "tooFewOfThem"},
        {"connection": "sometimes"},
        {"connection": "forwarded", "forward_url": "https://other.test/"},
        {"forward_url": "other.test"},
        {"forward_url": "http://other.test/wx"},
        {"forward_url": "http://10.0.0.1/wx"},
        {"forward_url": f"{PUBLIC}/wx/abc"},
        {"forward_url": f"{PUBLIC.upper().replace('HTTPS', 'https')}:8443/%77x/abc"},
        {"base_url": "http://api.weixin.qq.com"},
        {"open_base_url": "http://192.168.1.1"},
        {"token_url": "http://tokens.hospital.test/t"},
        {"token_url": "http://8.8.8.8/t"},
        {"token_url": "http://169.254.169.254/t"},
        {"token_url": "ftp://10.0.0.1/t"},
        {"token_url": "http://[/t"},
        {"verify_file_name": "MP_verify_abc.txt"},
        {"verify_file_name": "../etc/passwd", "verify_file_text": "x"},
        {"verify_file_name": "MP_verify_abc.txt", "verify_file_text": "<script>"},
        {"customer_messages": "perhaps"},
        {"menu_pay_name": "六个汉字太长"},
    ],
)
def test_what_is_malformed_is_named(world: WechatOfTests, wrong: dict[str, str]) -> None:
    finding = look(world.account(world.official, **(PUSHES | wrong)))
    assert finding.state == "fail"
    assert next(iter(wrong)) in finding.detail or "verify_file" in finding.detail or "forward_url" in finding.detail
    assert "tooFewOfThem" not in finding.detail


@pytest.mark.parametrize(
    "right",
    [
        {"forward_url": "https://other.test/wx/abc"},
        {"forward_url": f"{PUBLIC}/other/abc"},
        {"forward_url": "http://127.0.0.1:8000/wx"},
        {"base_url": "http://localhost:8000", "open_base_url": "http://[::1]:8000"},
        {"token_url": "https://tokens.hospital.test/t"},
        *({"token_url": f"http://{host}:81/t"} for host in ("10.1.2.3", "172.31.0.1", "192.168.1.1", "[fd00::1]")),
    ],
)
def test_an_address_that_is_called_is_safe(world: WechatOfTests, right: dict[str, str]) -> None:
    assert look(world.account(world.official, **(PUSHES | right))).state == "ok"


async def test_templates_that_the_platform_does_not_have_are_named(world: WechatOfTests) -> None:
    api = WechatApi(transport=world.transport())
    tokens = AccessTokens(api=api, store=MemoryTokenStore(clock=world.clock), clock=world.clock)
    for app, template in ((world.official, world.template), (world.mini, world.one_time)):
        account = world.account(app, template)
        (fine,) = await templates(account, tokens)
        assert (fine.state, fine.detail) == ("ok", f"the platform has all {len(NOTICE_KINDS)}")
        other = json.dumps({"id": "gone", "fields": SOURCES})
        (gone,) = await templates(
            dataclasses.replace(account, templates=dict(account.templates) | {"paid": other}), tokens
        )
        assert (gone.state, gone.detail) == ("fail", "the platform has no such template for paid")
    nothing = dataclasses.replace(world.account(world.official), templates={})
    assert await templates(nothing, tokens) == []


async def test_the_domains_proof_is_fetched_and_the_console_is_told_word_for_word(world: WechatOfTests) -> None:
    account = world.account(world.official, **FILE)
    transport = WatchedTransport(world.transport())
    transport.answer_next(HttpReply(status=200, body=b"abc\n"))
    (fine,) = await domain(account, PUBLIC, transport)
    assert transport.requests[0].url == f"{PUBLIC}/MP_verify_abc.txt"
    assert fine.state == "ok"
    assert "enter pay.hospital.test as 网页授权域名" in fine.detail
    assert "https://pay.hospital.test/p/ and https://pay.hospital.test/h/ as JSAPI支付授权目录" in fine.detail
    for reply, problem in (
        (HttpReply(status=404, body=b"abc"), "HTTP 404"),
        (HttpReply(status=200, body=b"<html>"), "another text"),
    ):
        transport.answer_next(reply)
        (wrong,) = await domain(account, PUBLIC, transport)
        assert (wrong.state, problem in wrong.detail, "网页授权域名" in wrong.what_to_do) == ("fail", True, True)
    (silent,) = await domain(account, PUBLIC, transport)
    assert (silent.state, "NotReached" in silent.detail) == ("fail", True)
    (missing,) = await domain(world.account(world.official), PUBLIC, transport)
    assert (missing.state, "MP_verify_" in missing.what_to_do) == ("warn", True)
    assert await domain(world.account(world.mini), PUBLIC, transport) == []
