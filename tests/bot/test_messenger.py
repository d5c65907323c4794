"""Template and subscribe messages: what leaves us, what every answer means, what a phone shows in the end."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.wechat.mapping import ERRCODES, Meaning, Unfit, fit, not_before, send_result
from bot.wechat.messenger import SubscribeMessenger, TemplateMessenger
from core.errors import NotReached, OutcomeUnknown
from core.ports import MessageKind, SendOutcome, SendResult
from simulators.kit import create_app
from simulators.wechat_faults import FAULTS
from simulators.wechat_values import problem_of
from tests.support.wechat import PAGE, WechatOfTests
from wire.http import HttpClient, HttpReply, HttpRequest


@pytest.fixture
def world() -> WechatOfTests:
    return WechatOfTests()


class Says:
    """A platform with one answer to every send."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self._reply = HttpReply(status=status, body=body)
        self.bodies: list[Any] = []

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        if "stable_token" in request.url:
            return HttpReply(status=200, body=b'{"access_token":"t","expires_in":7200}')
        self.bodies.append(json.loads(request.body))
        return self._reply


# ---------------------------------------------------------------- what arrives


async def test_a_template_message_shows_on_the_phone_and_opens_the_mini_program(serve: Any) -> None:
    world = WechatOfTests()
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:
        world.base_url = base_url
        account = world.account(world.official, miniprogram_app_id=world.mini.app_id)
        result = await world.wire(http).template.send(account, world.message(world.official))
    (shown,) = world.simulator.inbox(world.open_id(world.official))
    assert result == SendResult(outcome=SendOutcome.ACCEPTED, platform_message_id=str(shown.msgid))
    assert shown.text == (
        "待缴费通知\n项目：西药费\n金额：¥19.98\n时间：2026年5月6日 12:00\n姓名：王*明\n单号：P0123456789\n状态：待缴费"
    )
    assert shown.opens == {"appid": world.mini.app_id, "pagepath": PAGE}


async def test_a_subscribe_message_shows_once_per_grant(serve: Any) -> None:
    world = WechatOfTests()
    world.simulator.grant(world.user, world.mini.app_id, world.one_time)
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:
        world.base_url = base_url
        account = world.account(world.mini, world.one_time)
        messenger = world.wire(http).subscribe
        first = await messenger.send(account, world.message(world.mini, page="/" + PAGE))
        second = await messenger.send(account, world.message(world.mini, number=2))
    assert first.outcome is SendOutcome.ACCEPTED
    assert (second.outcome, second.code) == (SendOutcome.NEVER, "43101")
    (shown,) = world.simulator.inbox(world.open_id(world.mini))
    assert shown.opens == {"appid": world.mini.app_id, "pagepath": PAGE}


async def test_a_long_term_grant_lasts_until_it_is_switched_off(world: WechatOfTests) -> None:
    world.simulator.grant(world.user, world.mini.app_id, world.long_term)
    account, messenger = world.account(world.mini, world.long_term), world.wire(world.transport()).subscribe
    for number in range(3):
        result = await messenger.send(account, world.message(world.mini, number=number))
        assert result.outcome is SendOutcome.ACCEPTED
    world.simulator.refuse(world.user, world.mini.app_id, world.long_term)
    assert (await messenger.send(account, world.message(world.mini))).code == "43101"


async def test_without_a_mini_program_a_template_message_opens_our_page(world: WechatOfTests) -> None:
    messenger = world.wire(world.transport()).template
    page = "https://pay.hospital.example/h/renhe/paid"
    account = world.account(world.official)
    await messenger.send(account, world.message(world.official, url=page))
    await messenger.send(account, world.message(world.official, number=2))
    first, second = world.simulator.inbox(world.open_id(world.official))
    assert first.opens == {"url": page}
    assert second.opens == {}


async def test_a_subscribe_message_says_which_language_and_which_version(world: WechatOfTests) -> None:
    transport = Says(b'{"errcode":0,"errmsg":"ok"}')
    messenger = world.wire(transport).subscribe
    await messenger.send(world.account(world.mini), world.message(world.mini))
    await messenger.send(world.account(world.mini, miniprogram_state="trial"), world.message(world.mini, language="en"))
    assert [(body["miniprogram_state"], body["lang"]) for body in transport.bodies] == [
        ("formal", "zh_CN"),
        ("trial", "en_US"),
    ]


async def test_who_does_not_follow_cannot_be_reached(world: WechatOfTests) -> None:
    world.simulator.unfollow(world.user, world.official.app_id)
    result = await world.wire(world.transport()).template.send(
        world.account(world.official), world.message(world.official)
    )
    assert (result.outcome, result.code) == (SendOutcome.NEVER, "43004")


# ---------------------------------------------------------------- twice is once


async def test_a_template_message_sent_again_inside_the_window_shows_once(world: WechatOfTests) -> None:
    account, messenger = world.account(world.official), world.wire(world.transport()).template
    world.faults.script("wechat.answer_lost", key=world.open_id(world.official))
    with pytest.raises(OutcomeUnknown):
        await messenger.send(account, world.message(world.official))
    world.clock.advance(messenger.resend_window)
    result = await messenger.send(account, world.message(world.official))
    assert result.outcome is SendOutcome.ACCEPTED
    assert len(world.simulator.inbox(world.open_id(world.official))) == 1


async def test_outside_its_window_the_platform_would_show_it_twice(world: WechatOfTests) -> None:
    account, messenger = world.account(world.official), world.wire(world.transport()).template
    for _ in range(2):
        await messenger.send(account, world.message(world.official))
        world.clock.advance(timedelta(minutes=10))
    assert len(world.simulator.inbox(world.open_id(world.official))) == 2


def test_windows_are_declared() -> None:
    assert timedelta(minutes=9) < TemplateMessenger.resend_window < timedelta(minutes=10)
    assert SubscribeMessenger.resend_window == timedelta(0)


# ---------------------------------------------------------------- answers

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
NEVER = {40003, 40226, 43004, 43101, 45015, 48002}
LATER = {
    43116: NOON + timedelta(minutes=10),
    43117: NOON + timedelta(minutes=10),
    44990: NOON + timedelta(minutes=10),
    45047: NOON + timedelta(minutes=10),
    45011: NOON + timedelta(minutes=1),
    45009: datetime(2026, 5, 6, 16, 5, tzinfo=UTC),  # five past midnight in Shanghai
}


@pytest.mark.parametrize("errcode", [*sorted(ERRCODES), 99999, -2])
async def test_every_code_of_the_table(world: WechatOfTests, errcode: int) -> None:
    transport = Says(b'{"errcode":%d,"errmsg":"text rid: 1-2-3","msgid":200228332}' % errcode)
    adapters = world.wire(transport)
    for messenger, app in ((adapters.template, world.official), (adapters.subscribe, world.mini)):
        send = messenger.send(world.account(app), world.message(app))
        if errcode in {-1, -2, 99999}:
            with pytest.raises(OutcomeUnknown):
                await send
            continue
        result = await send
        if errcode == 0:
            assert result == SendResult(outcome=SendOutcome.ACCEPTED, platform_message_id="200228332")
        elif errcode in NEVER:
            assert result == SendResult(outcome=SendOutcome.NEVER, code=str(errcode))
        elif errcode in LATER:
            assert result == SendResult(outcome=SendOutcome.LATER, code=str(errcode), not_before=LATER[errcode])
        else:
            assert result == SendResult(outcome=SendOutcome.MISCONFIGURED, code=str(errcode))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (502, b'{"errcode":0}'),
        (404, b'{"errcode":43101}'),
        (302, b""),
        (200, b""),
        (200, b"{}"),
        (200, b'{"msgid":1}'),
        (200, b'{"errcode":"43101"}'),
        (200, b'{"errcode":null}'),
        (200, b'{"errcode":0'),
        (200, b"<html>"),
    ],
)
async def test_anything_but_the_platforms_own_word_is_unknown(world: WechatOfTests, status: int, body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        await world.wire(Says(body, status)).subscribe.send(world.account(world.mini), world.message(world.mini))


def test_the_days_quota_returns_after_midnight_in_shanghai() -> None:
    just_before = datetime(2026, 12, 31, 15, 59, 59, tzinfo=UTC)
    assert not_before(Meaning.LATER_DAY, just_before) == datetime(2026, 12, 31, 16, 5, tzinfo=UTC)
    just_after = datetime(2026, 12, 31, 16, 0, tzinfo=UTC)
    assert not_before(Meaning.LATER_DAY, just_after) == datetime(2027, 1, 1, 16, 5, tzinfo=UTC)


def test_no_code_is_both_open_and_definite() -> None:
    for errcode, meaning in ERRCODES.items():
        result = send_result(errcode, NOON)
        assert (result is None) == (meaning is Meaning.BUSY)
        later = result is not None and result.outcome is SendOutcome.LATER
        assert later == (not_before(meaning, NOON) is not None)


@pytest.mark.parametrize("fault", [fault.name for fault in FAULTS])
@pytest.mark.parametrize("road", ["template", "subscribe"])
async def test_every_fault_ends_as_the_catalogue_says(world: WechatOfTests, fault: str, road: str) -> None:
    """As the outbox does: again after NotReached, when due after LATER, after silence in the window only."""
    app = world.official if road == "template" else world.mini
    world.simulator.grant(world.user, world.mini.app_id, world.long_term)
    adapters = world.wire(world.transport())
    account = world.account(app, "" if app is world.official else world.long_term)
    await adapters.tokens.get(account)
    messenger: TemplateMessenger | SubscribeMessenger = getattr(adapters, road)
    strikes = f"{road}_send" in world.faults.catalogue[fault].calls
    world.faults.script(fault, key=world.open_id(app))
    outcome = ""
    for _ in range(3):
        try:
            result = await messenger.send(account, world.message(app))
        except NotReached:
            world.clock.advance(timedelta(minutes=1))
            continue
        except OutcomeUnknown:
            outcome = "unknown"
            if not messenger.resend_window:
                break
            world.clock.advance(timedelta(minutes=1))
            continue
        outcome = result.outcome
        if result.not_before is None:
            break
        world.clock.advance(result.not_before - world.clock.now())
    name = fault.removeprefix("wechat.")
    shown = len(world.simulator.inbox(world.open_id(app)))
    silent = {"request_lost", "answer_lost", "error_500_before", "error_500_after", "garbled"}
    silent |= {"system_busy_-1", "system_busy_-1_after"}
    sent_though_silent = {"answer_lost", "error_500_after", "garbled", "system_busy_-1_after"}
    if not strikes:
        assert (outcome, shown) == ("accepted", 1)
    elif name in {"refused_43101", "unfollowed_43004"}:
        assert (outcome, shown) == ("never", 0)
    elif name == "ip_40164":
        assert (outcome, shown) == ("misconfigured", 0)
    elif name in silent and road == "subscribe":
        assert (outcome, shown) == ("unknown", int(name in sent_though_silent))
    else:
        assert (outcome, shown) == ("accepted", 1)


async def test_a_used_up_token_quota_makes_the_message_wait(world: WechatOfTests) -> None:
    world.faults.script("wechat.ip_40164", key=world.official.app_id)
    messenger, account = world.wire(world.transport()).template, world.account(world.official)
    result = await messenger.send(account, world.message(world.official))
    assert (result.outcome, result.code) == (SendOutcome.MISCONFIGURED, "40164")
    result = await messenger.send(world.account(world.official, secret=""), world.message(world.official))
    assert (result.outcome, result.code) == (SendOutcome.MISCONFIGURED, "no_secret")
    assert world.simulator.inbox(world.open_id(world.official)) == ()


# ---------------------------------------------------------------- templates


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (None, "no_template"),
        ("", "no_template"),
        ("abc", "bad_template"),
        ("[]", "bad_template"),
        ('{"id":"t"}', "bad_template"),
        ('{"id":"","fields":{"thing1":"title"}}', "bad_template"),
        ('{"id":"t","fields":{}}', "bad_template"),
        ('{"id":"t","fields":{"thing1":1}}', "bad_template"),
        ('{"id":"t","fields":{"time2":"title"}}', "unfit_time2"),
        ('{"id":"t","fields":{"amount2":"nothing_of_that_name"}}', "unfit_amount2"),
    ],
)
async def test_a_template_that_cannot_be_used_is_for_an_operator_and_nothing_is_sent(
    world: WechatOfTests, entry: str | None, code: str
) -> None:
    transport = world.transport()
    account = world.account(world.official)
    templates: dict[str, str] = {} if entry is None else {MessageKind.NEW_BILL: entry}
    result = await world.wire(transport).template.send(
        replace(account, templates=templates), world.message(world.official)
    )
    assert (result.outcome, result.code) == (SendOutcome.MISCONFIGURED, code)
    assert transport.requests == []


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("key_type", "text", "value"),
    [
        ("thing", "西药费", "西药费"),
        ("thing", "一二三四五六七八九十一二三四五六七八九十", "一二三四五六七八九十一二三四五六七八九十"),
        ("thing", "一二三四五六七八九十一二三四五六七八九十多", "一二三四五六七八九十一二三四五六七八九…"),
        ("thing", "  two\n words\t ", "two words"),
        ("thing", "abcdefghijklmnopqr stuvw", "abcdefghijklmnopqr…"),
        ("thing", "😀" * 11, "😀" * 9 + "…"),
        ("thing", " ", "无"),
        ("name", "王*明", "王*明"),
        ("name", "一二三四五六七八九十多", "一二三四五六七八九…"),
        ("name", "Wolfeschlegelsteinhausen", "Wolfeschlegelsteinh…"),
        ("name", "", "无"),
        ("phrase", "已缴费(门诊)成功啦", "已缴费门诊"),
        ("phrase", "paid", "无"),
        ("character_string", "单号 P01-23", "P01-23"),
        ("character_string", "", "-"),
        ("phone_number", "139****1234", "139****1234"),
        ("phone_number", "0755 1234 5678", "075512345678"),
        ("character_string", "0123456789" * 4, "01234567890123456789012345678..."),
        ("car_number", "粤B12345", "粤B12345"),
        ("letter", "a1b2", "ab"),
        ("letter", "", "NA"),
        ("symbol", "a!?", "!?"),
        ("symbol", "", "-"),
        ("number", "1,234.50", "1234.50"),
        ("amount", "19.98", "¥19.98"),
        ("amount", "￥1,234.50元", "￥1234.50"),
        ("amount", "0.00", "¥0.00"),
        ("date", "2020-03-09", "2020年3月9日"),
        ("date", "2020年03月19日 08:05", "2020年3月19日 08:05"),
        ("time", "9:05", "09:05"),
        ("time", "2026-05-06 08:05:59", "2026年5月6日 08:05"),
        ("time", "2026-05-06T00:05:00+00:00", "2026年5月6日 08:05"),
        ("time", "2026-05-06T16:05:00Z", "2026年5月7日 00:05"),
        ("time", "2026年5月6日 08:05~09:05", "2026年5月6日 08:05~09:05"),
        ("const", " 门诊 ", "门诊"),
        ("keyword", "x", "x"),
    ],
)
def test_values_are_fitted_to_their_type(key_type: str, text: str, value: str) -> None:
    assert fit(key_type, text) == value
    assert problem_of(f"{key_type}1", value) == ""
    assert fit(key_type, value) == value


@pytest.mark.parametrize(
    ("key_type", "text"),
    [
        ("amount", ""),
        ("amount", "-1"),
        ("amount", "12345678901"),
        ("amount", "123456789.00"),
        ("amount", "1.234"),
        ("amount", "1,23"),
        ("amount", "十元"),
        ("time", ""),
        ("time", "soon"),
        ("time", "25:00"),
        ("time", "08:05+08:00"),
        ("date", "08:05"),
        ("date", "2026-02-30"),
        ("date", "2026-13-01"),
        ("number", ""),
        ("number", "1" * 33),
        ("const", ""),
        ("phone_number", "0755-12345678 ext. 123456"),
    ],
)
def test_what_must_not_be_guessed_is_unfit(key_type: str, text: str) -> None:
    with pytest.raises(Unfit) as unfit:
        fit(key_type, text)
    assert not text or text not in str(unfit.value)


TYPES = ["thing", "name", "phrase", "car_number", "character_string", "letter", "symbol"]
STRICT = ["number", "amount", "time", "date", "phone_number"]


@given(st.sampled_from(TYPES), st.text())
@example("thing", "\ud800" * 30)
@example("name", "\u200b")
def test_free_text_always_becomes_a_value_that_the_platform_takes(key_type: str, text: str) -> None:
    assert problem_of(f"{key_type}1", fit(key_type, text)) == ""


@given(st.sampled_from(STRICT), st.text() | st.from_regex(r"[¥0-9,.:~年月日 T+Z-]{0,24}", fullmatch=True))
def test_a_strict_type_fits_or_is_refused(key_type: str, text: str) -> None:
    try:
        value = fit(key_type, text)
    except Unfit:
        return
    assert problem_of(f"{key_type}1", value) == ""


@given(st.integers(0, 99_999_999), st.integers(0, 4_000_000_000))
def test_our_own_amounts_and_times_always_fit(fen: int, seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    assert fit("amount", f"{fen // 100}.{fen % 100:02d}").startswith("¥")
    for text in (f"{moment:%Y-%m-%d %H:%M}", moment.isoformat()):
        assert fit("time", text)
        assert fit("date", text)
