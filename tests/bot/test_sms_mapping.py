"""What an SMS account must bring along, and how our fields become variables of its templates."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.sms.mapping import (
    CODE_FIELD,
    NOTICE_FIELDS,
    VARIABLE_CHARACTERS_MAX,
    fit,
    mainland_phone,
    template_for,
    template_values,
)
from bot.sms.params import KINDS, PARAMS, check_account
from bot.templates import BadTemplate
from core.errors import ConfigurationError
from core.message_texts import message_fields
from core.ports import NOTICE_KINDS, ChatAccount, MessageKind, OutgoingMessage

PARAMS_GIVEN = {
    "secret_id": "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
    "secret_key": "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
    "sign_name": "仁和医院",
}
PAID = {"id": "1110", "params": ["amount", "=元"]}


def an_account(templates: dict[str, Any] | None = None, app_id: str = "1400006666", **params: str) -> ChatAccount:
    return ChatAccount(
        id=UUID(int=1),
        institution_id=UUID(int=2),
        platform="sms",
        app_id=app_id,
        params={**PARAMS_GIVEN, **params},
        templates={kind: json.dumps(entry) for kind, entry in (templates or {"paid": PAID}).items()},
    )


# ---------------------------------------------------------------- accounts


def test_an_account_needs_its_key_its_sign_and_nothing_else() -> None:
    check_account(an_account())
    check_account(an_account(app_id="仁和短信", sdk_app_id="1400006666"))
    check_account(an_account(base_url="http://127.0.0.1:8000", region="ap-beijing", variable_characters_max="30"))
    code = {"id": "1111", "params": ["code", "=5"]}
    check_account(an_account({**{kind.value: PAID for kind in NOTICE_KINDS}, "phone_code": code}))
    check_account(replace(an_account(), templates={}))


@pytest.mark.parametrize("name", ["secret_id", "secret_key", "sign_name"])
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"chat account sms 1400006666: {name} missing"):
        check_account(an_account(None, **{name: " "}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"app_id": "wx123"}, "is the SdkAppId, digits only"),
        ({"sdk_app_id": "app"}, "is the SdkAppId, digits only"),
        ({"sign_name": "【仁和医院】"}, "sign_name is the approved sign alone"),
        ({"sign_name": "仁" * 21}, "sign_name is the approved sign alone"),
        ({"region": "Guangzhou!"}, "region is a name like ap-guangzhou"),
        ({"base_url": "sms.tencentcloudapi.com"}, "base_url must be https://host"),
        ({"base_url": "http://sms.tencentcloudapi.com"}, "answers are trusted for their TLS alone"),
        ({"base_url": "https://sms.tencentcloudapi.com/v3"}, "base_url must be https://host"),
        ({"base_url": "https://user@sms.tencentcloudapi.com"}, "base_url must be https://host"),
        ({"variable_characters_max": "3"}, "variable_characters_max is a number from 4 to 200"),
        ({"variable_characters_max": "many"}, "variable_characters_max is a number from 4 to 200"),
        ({"app_key": "x"}, "unknown app_key"),
        ({"templates": {"payed": PAID}}, "there is no message 'payed'"),
        ({"templates": {"chat_answer": PAID}}, "there is no message 'chat_answer'"),
    ],
)
def test_a_mistake_is_named_and_no_value_quoted(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        check_account(an_account(**changes))
    for secret in PARAMS_GIVEN.values():
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "entry", "why"),
    [
        ("paid", [], "bad_template"),
        ("paid", {"id": 1110, "params": []}, "bad_template"),
        ("paid", {"id": "SMS_1", "params": []}, "bad_template"),
        ("paid", {"id": "1110"}, "bad_template"),
        ("paid", {"id": "1110", "params": {"1": "amount"}}, "bad_template"),
        ("paid", {"id": "1110", "params": ["="]}, "bad_template"),
        ("paid", {"id": "1110", "params": [""]}, "bad_template"),
        ("paid", {"id": "1110", "params": ["ammount"]}, "unknown_field_ammount"),
        ("paid", {"id": "1110", "params": ["code"]}, "unknown_field_code"),
        ("phone_code", {"id": "1110", "params": ["code", "amount"]}, "unknown_field_amount"),
        ("phone_code", {"id": "1110", "params": ["=123456"]}, "no_code"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(kind: str, entry: Any, why: str) -> None:
    account = an_account({kind: entry})
    with pytest.raises(BadTemplate, match=why):
        template_for(account, MessageKind(kind))
    with pytest.raises(ConfigurationError, match=f"template {kind} needs an id .*{why}"):
        check_account(account)


def test_a_kind_without_a_template_is_told() -> None:
    with pytest.raises(BadTemplate, match="no_template"):
        template_for(an_account(), MessageKind.NEW_BILL)
    with pytest.raises(BadTemplate, match="bad_template"):
        template_for(replace(an_account(), templates={"paid": "not json"}), MessageKind.PAID)


def test_the_key_alone_is_secret() -> None:
    (table,) = PARAMS.values()
    assert [param.name for param in table if param.secret] == ["secret_key"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", ["zh", "en"])
def test_templates_may_name_exactly_the_fields_that_messages_have(kind: MessageKind, language: str) -> None:
    given = set(message_fields(kind, {"amount_fen": 1}, language=language, hospital="仁和医院"))
    wanted = {CODE_FIELD} if kind is MessageKind.PHONE_CODE else set(NOTICE_FIELDS)
    assert wanted <= given


# ---------------------------------------------------------------- variables


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("title", "门诊缴费", "门诊缴费"),
        ("title", "一二三四五六七八九十一二", "一二三四五六七八九十一二"),
        ("title", "一二三四五六七八九十一二三", "一二三四五六七八九十一…"),
        ("title", "  two\n words\t ", "two words"),
        ("title", "😀" * 7, "😀" * 5 + "…"),
        ("title", "\ud800", "无"),
        ("title", "", "无"),
        ("note", "请到【西药房】取药", "请到（西药房）取药"),
        ("note", "详见https://a.example/b?c=1 谢谢", "详见 谢谢"),
        ("note", "WWW.a.example", "无"),
        ("note", "ww¥w.a.example", "无"),
        ("name", "王*明", "王*明"),
        ("name", "", "无"),
        ("amount", "¥19.98", "19.98"),
        ("amount", "￥1234567.00", "1234567.00"),
        ("amount", "¥1234567890.00", ""),
        ("amount", "", ""),
        ("time", "2026年5月6日 12:00", "5月6日 12:00"),
        ("time", "2026年12月31日 23:59", "12月31日 23:59"),
        ("time", "2026-12-31 23:59", "12-31 23:59"),
        ("time", "", ""),
        ("number", "P0123456789", "P0123456789"),
        ("number", "P012345678901", ""),
        ("number", "", "无"),
        ("=在一楼", "在一楼", "在一楼"),
    ],
)
def test_fields_fit_a_variable(name: str, text: str, value: str) -> None:
    assert fit(name, text, VARIABLE_CHARACTERS_MAX) == value


def test_where_there_is_room_a_time_keeps_its_year() -> None:
    assert fit("time", "2026年5月6日 12:00", 20) == "2026年5月6日 12:00"


@given(st.sampled_from([*NOTICE_FIELDS, "=x"]), st.text(max_size=60), st.integers(4, 30))
@example("note", "a" * 30 + "http://x", 4)
@example("title", "😀😀😀", 4)
@example("note", "wwhttp://w.evil.example", 30)
def test_no_text_makes_a_value_that_the_platform_refuses(name: str, text: str, characters_max: int) -> None:
    value = fit(name, text, characters_max)
    assert len(value.encode("utf-16-le")) // 2 <= characters_max
    assert not set(value) & set("【】¥￥★\n\r\t\0")
    assert "http://" not in value.lower()
    assert "www." not in value.lower()
    json.dumps(value, ensure_ascii=False).encode()


def a_code_message(code: str) -> OutgoingMessage:
    return OutgoingMessage(
        message_id=UUID(int=1), kind=MessageKind.PHONE_CODE, address="", language="zh", fields={"code": code}
    )


def test_a_codes_template_takes_digits_alone() -> None:
    account = an_account({"phone_code": {"id": "1", "params": ["code", "=5"]}})
    template = template_for(account, MessageKind.PHONE_CODE)
    assert template_values(template, a_code_message("042137"), characters_max=12) == ["042137", "5"]
    for bad in ("", "12345678", "12 34", "１２３４５６"):
        with pytest.raises(BadTemplate, match="unfit_1"):
            template_values(template, a_code_message(bad), characters_max=12)
    account = an_account({"phone_code": {"id": "1", "params": ["code", "=five"]}})
    with pytest.raises(BadTemplate, match="unfit_2"):
        template_values(template_for(account, MessageKind.PHONE_CODE), a_code_message("042137"), characters_max=12)


def test_an_amount_that_does_not_fit_is_never_shortened() -> None:
    message = replace(a_code_message(""), kind=MessageKind.PAID, fields={"amount": "¥12345678901.00"})
    with pytest.raises(BadTemplate, match="unfit_1"):
        template_values(template_for(an_account(), MessageKind.PAID), message, characters_max=12)


@given(st.text(max_size=20))
def test_a_phone_is_a_mainland_mobile_or_nothing(text: str) -> None:
    phone = mainland_phone(text)
    assert phone == "" or (phone[:4] == "+861" and phone[1:].isascii() and phone[1:].isdigit() and len(phone) == 14)
