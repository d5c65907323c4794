"""Sign-in and phone on the mini program, against the simulated platform."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bot.wechat.mapping import ERRCODES, Meaning
from bot.wechat.platform import open_encrypted_data, phone_of
from core.errors import NotReached, OutcomeUnknown, Refused
from simulators.kit import create_app
from tests.support.wechat import PHONE, WechatOfTests
from wire.http import HttpClient, HttpReply, HttpRequest


@pytest.fixture
def world() -> WechatOfTests:
    return WechatOfTests()


class Says:
    """A platform with one answer to everything but the question for a token."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self._reply = HttpReply(status=status, body=body)
        self.calls = 0

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        if "stable_token" in request.url:
            return HttpReply(status=200, body=b'{"access_token":"t","expires_in":7200}')
        self.calls += 1
        return self._reply


async def test_sign_in_and_phone_over_loopback(serve: Any) -> None:
    world = WechatOfTests()
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:
        world.base_url = base_url
        platform, account = world.wire(http).platform, world.account(world.mini)
        identity = await platform.sign_in(account, world.simulator.new_login_code(world.user, account.app_id))
        phone = await platform.phone_number(account, world.simulator.new_phone_code(world.user, account.app_id))
    assert identity.open_id == world.open_id(world.mini)
    assert identity.open_id != world.open_id(world.official)
    assert identity.union_id == world.simulator.union_id(world.user)
    assert phone == PHONE


async def test_a_code_works_once(world: WechatOfTests) -> None:
    platform, account = world.wire(world.transport()).platform, world.account(world.mini)
    code = world.simulator.new_login_code(world.user, account.app_id)
    await platform.sign_in(account, code)
    with pytest.raises(Refused) as refused:
        await platform.sign_in(account, code)
    assert (refused.value.code, refused.value.final) == ("40163", True)


async def test_a_code_lives_five_minutes_and_only_for_its_purpose(world: WechatOfTests) -> None:
    platform, account = world.wire(world.transport()).platform, world.account(world.mini)
    login = world.simulator.new_login_code(world.user, account.app_id)
    phone = world.simulator.new_phone_code(world.user, account.app_id)
    with pytest.raises(Refused) as refused:
        await platform.phone_number(account, login)
    assert (refused.value.code, refused.value.final) == ("40029", True)
    world.clock.advance(timedelta(minutes=5))
    for attempt in (platform.sign_in(account, login), platform.phone_number(account, phone)):
        with pytest.raises(Refused) as refused:
            await attempt
        assert (refused.value.code, refused.value.final) == ("40029", True)


@pytest.mark.parametrize("code", ["", " ", "a b", "x" * 257, "码", "a\r\nb"])
async def test_what_cannot_be_a_code_is_refused_without_a_call(world: WechatOfTests, code: str) -> None:
    transport = world.transport()
    platform, account = world.wire(transport).platform, world.account(world.mini)
    for attempt in (platform.sign_in(account, code), platform.phone_number(account, code)):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.final
    assert transport.requests == []


@pytest.mark.parametrize("errcode", [*sorted(set(ERRCODES) - {0}), 99999])
async def test_every_code_of_the_table_at_sign_in(world: WechatOfTests, errcode: int) -> None:
    final = {40029, 40163, 41008, 40226, 40003, 43004, 43101, 45015, 48002}
    transport = Says(b'{"errcode":%d,"errmsg":"x rid: 1a-2b-3c"}' % errcode)
    platform, account = world.wire(transport).platform, world.account(world.mini)
    with pytest.raises(OutcomeUnknown if errcode == -1 else Refused) as raised:
        await platform.sign_in(account, "code")
    if isinstance(raised.value, Refused):
        assert raised.value.code == str(errcode)
        assert raised.value.final == (errcode in final)
        assert "1a-2b-3c" in raised.value.message
    assert transport.calls == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"<html>"),
        (502, b'{"errcode":0}'),
        (403, b'{"errcode":40029}'),
        (200, b""),
        (200, b"{"),
        (200, b"[]"),
        (200, b"[" * 100_000),
        (200, b"\xff\xfe"),
        (200, b"{}"),
        (200, b'{"errcode":0}'),
        (200, b'{"errcode":"0","openid":"o"}'),
        (200, b'{"errcode":true,"openid":"o"}'),
        (200, b'{"openid":""}'),
        (200, b'{"openid":7,"session_key":"k"}'),
        (200, b'{"openid":"o"}'),
        (200, b'{"phone_info":[]}'),
        (200, b'{"phone_info":{"purePhoneNumber":"","watermark":{"appid":"APPID"}}}'),
    ],
)
async def test_what_is_not_the_platforms_own_yes_or_no_is_unknown(
    world: WechatOfTests, status: int, body: bytes
) -> None:
    account = world.account(world.mini)
    body = body.replace(b"APPID", account.app_id.encode())
    platform = world.wire(Says(body, status)).platform
    for attempt in (platform.sign_in(account, "code"), platform.phone_number(account, "code")):
        with pytest.raises(OutcomeUnknown):
            await attempt


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        ("not_reached", NotReached),
        ("request_lost", OutcomeUnknown),
        ("answer_lost", OutcomeUnknown),
        ("error_500_before", OutcomeUnknown),
        ("error_500_after", OutcomeUnknown),
        ("garbled", OutcomeUnknown),
        ("system_busy_-1", OutcomeUnknown),
        ("rate_45011", Refused),
        ("code_40029", Refused),
    ],
)
async def test_every_fault_of_a_sign_in_ends_as_the_catalogue_says(
    world: WechatOfTests, fault: str, ends: type[Exception]
) -> None:
    platform, account = world.wire(world.transport()).platform, world.account(world.mini)
    code = world.simulator.new_login_code(world.user, account.app_id)
    world.faults.script(f"wechat.{fault}")
    with pytest.raises(ends):
        await platform.sign_in(account, code)
    fresh = world.simulator.new_login_code(world.user, account.app_id)
    assert (await platform.sign_in(account, fresh)).open_id == world.open_id(world.mini)


async def test_a_phone_call_survives_a_rotated_token(world: WechatOfTests) -> None:
    platform, account = world.wire(world.transport()).platform, world.account(world.mini)
    world.faults.script("wechat.token_rotated")
    code = world.simulator.new_phone_code(world.user, account.app_id)
    assert await platform.phone_number(account, code) == PHONE


async def test_an_account_without_secret_is_refused_but_not_for_ever(world: WechatOfTests) -> None:
    platform, account = world.wire(world.transport()).platform, world.account(world.mini, secret="")
    with pytest.raises(Refused) as refused:
        await platform.sign_in(account, "code")
    assert (refused.value.code, refused.value.final) == ("no_secret", False)


# ---------------------------------------------------------------- phones


@pytest.mark.parametrize(
    ("pure", "country", "phone"),
    [
        ("13900001234", "86", "13900001234"),
        ("139 0000 1234", "+86", "13900001234"),
        ("61234567", "852", "85261234567"),
        (13900001234, 86, "13900001234"),
    ],
)
def test_a_phone_is_digits_without_86(pure: object, country: object, phone: str) -> None:
    info = {"purePhoneNumber": pure, "countryCode": country, "watermark": {"appid": "wx1"}}
    assert phone_of(info, "wx1") == phone


@pytest.mark.parametrize("watermark", [None, {}, {"appid": "wx2"}, "wx1"])
def test_a_phone_with_another_apps_watermark_is_refused(watermark: object) -> None:
    with pytest.raises(Refused) as refused:
        phone_of({"purePhoneNumber": "13900001234", "watermark": watermark}, "wx1")
    assert (refused.value.code, refused.value.final) == ("watermark", True)


# ---------------------------------------------------------------- the old way


async def test_encrypted_data_opens_with_the_session_key_for_our_app_and_now(world: WechatOfTests) -> None:
    platform, account = world.wire(world.transport()).platform, world.account(world.mini)
    code = world.simulator.new_login_code(world.user, account.app_id)
    session = await platform.open_session(account, code)
    sealed, iv = world.simulator.encrypted_phone(world.user, account.app_id)
    good: dict[str, Any] = {
        "session_key": session.session_key,
        "iv": iv,
        "encrypted_data": sealed,
        "app_id": account.app_id,
        "now": world.clock.now(),
    }
    assert phone_of(open_encrypted_data(**good), account.app_id) == PHONE
    bad: list[dict[str, Any]] = [
        {"app_id": "wx0000000000000000"},
        {"now": world.clock.now() + timedelta(minutes=6)},
        {"now": world.clock.now() - timedelta(minutes=6)},
        {"session_key": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"session_key": "short"},
        {"iv": "!"},
        {"encrypted_data": sealed[:-4]},
        {"encrypted_data": "A" * 100_000},
        {"encrypted_data": ""},
    ]
    for change in bad:
        with pytest.raises(Refused) as refused:
            open_encrypted_data(**{**good, **change})
        assert refused.value.final
        assert refused.value.__cause__ is None


def test_every_meaning_is_used() -> None:
    assert set(ERRCODES.values()) == set(Meaning) - {Meaning.UNKNOWN}
