"""Authentic pushes: what they say, what makes two of them one, how they are answered."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from bot.events import TEXT_LENGTH_MAX, ChatEventKind, Delivery, Grant, Reply
from bot.wechat.cipher import is_signed, open_sealed, read_aes_key
from bot.wechat.params import PARAMS, check_account
from bot.wechat.pushes import PUSH_AGE_MAX, REPLY_BYTES_MAX, Push, PushFormat, PushKey, PushKeys, read_push, write_reply
from core.errors import ConfigurationError
from core.ports import ChatAccount, Unverified
from tests.support.pushes import (
    ACCOUNT,
    AES_KEY,
    APP_ID,
    NOW,
    PERSON,
    PREVIOUS_AES_KEY,
    TOKEN,
    a_document,
    a_query,
    accepted,
    an_envelope,
    an_event,
    as_json,
    as_xml,
    keys,
    received,
    sealed_message,
)
from wire.xml import read_xml

KIND = ChatEventKind
BOTH = pytest.mark.parametrize("write", [as_xml, as_json], ids=["xml", "json"])
MODES = pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])


# ---------------------------------------------------------------- what is said


@BOTH
@MODES
def test_a_text_arrives_in_every_mode_and_format(write: Any, mode: str) -> None:
    push = accepted(write(a_document(Content="缴费😀")), mode=mode)
    event = push.event
    assert (event.kind, event.text, event.open_id, event.to) == (KIND.TEXT, "缴费😀", PERSON, ACCOUNT)
    assert event.happened_at == NOW
    assert push.format is (PushFormat.JSON if write is as_json else PushFormat.XML)
    assert push.sealed_with is (None if mode == "plain" else PushKey.CURRENT)


@BOTH
def test_numbers_come_as_numbers_and_as_texts(write: Any) -> None:
    as_numbers = accepted(write(a_document())).event
    as_texts = accepted(write(a_document(CreateTime=str(int(NOW.timestamp())), MsgId="1234567890123456"))).event
    assert as_numbers == as_texts


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ({"MsgType": "voice", "Recognition": "查账单", "MediaId": "m"}, KIND.VOICE, "查账单"),
        ({"MsgType": "voice", "MediaId": "m"}, KIND.VOICE, ""),
        ({"MsgType": "image", "PicUrl": "http://p", "MediaId": "m"}, KIND.IMAGE, ""),
        ({"MsgType": "location", "Label": "x"}, KIND.MEDIA, ""),
        ({"MsgType": "hologram"}, KIND.MEDIA, ""),
        ({"MsgType": "event"}, KIND.OTHER, ""),
        ({"MsgType": "event", "Event": "teleported"}, KIND.OTHER, ""),
        ({"MsgType": "event", "Event": "VIEW", "EventKey": "https://a"}, KIND.OTHER, ""),
        ({"MsgType": "event", "Event": "CLICK", "EventKey": "bills"}, KIND.MENU, "bills"),
        ({"MsgType": "subscribe"}, KIND.MEDIA, ""),  # a message type, not the event of that name
        ({"Content": None}, KIND.TEXT, ""),
        ({"Content": 1234}, KIND.TEXT, "1234"),
    ],
)
def test_kinds(values: dict[str, Any], kind: ChatEventKind, text: str) -> None:
    for write in (as_xml, as_json):
        event = accepted(write(a_document(**values))).event
        assert (event.kind, event.text, event.scene) == (kind, text, "")


@pytest.mark.parametrize(
    ("event", "key", "scene"),
    [
        ("subscribe", "qrscene_b123", "b123"),
        ("subscribe", "qrscene_", ""),
        ("subscribe", "", ""),
        ("subscribe", "last_trade_no_4200000215", ""),  # followed after paying
        ("SCAN", "b123", "b123"),
        ("SCAN", "qrscene_b123", "qrscene_b123"),  # a scene of that very name
        ("SCAN", "s" * 129, ""),  # never a part of it, which would be another one
        ("unsubscribe", "b123", ""),
        ("CLICK", "b123", ""),
    ],
)
def test_scenes(event: str, key: str, scene: str) -> None:
    assert accepted(as_xml(an_event(event, EventKey=key))).event.scene == scene


@pytest.mark.parametrize(
    ("status", "ok"),
    [
        ("success", True),
        ("failed:user block", False),
        ("failed: system failed", False),
        ("failed:freq limit", False),
        ("pending", None),
        ("succeeded", None),
        ("", None),
    ],
)
def test_how_a_template_message_ended(status: str, ok: bool | None) -> None:
    event = accepted(as_xml(an_event("TEMPLATESENDJOBFINISH", MsgID=200163836, Status=status))).event
    assert event.deliveries == (Delivery(platform_message_id="200163836", ok=ok, code=status),)


@pytest.mark.parametrize(
    ("code", "ok"),
    [("0", True), (0, True), ("43101", False), (-1, False), ("x", None), (None, None), ("²", None), ("٣", None)],
)
def test_how_a_subscribe_message_ended(code: str | int | None, ok: bool | None) -> None:
    entry = {"TemplateId": "A", "MsgID": "17008", "ErrorStatus": "success"} | (
        {} if code is None else {"ErrorCode": code}
    )
    (delivery,) = accepted(as_json(an_event("subscribe_msg_sent_event", List=entry))).event.deliveries
    assert (delivery.platform_message_id, delivery.ok) == ("17008", ok)
    assert delivery.code == ("" if code is None else str(code))


def test_a_delivery_without_a_number_tells_nothing() -> None:
    assert accepted(as_xml(an_event("TEMPLATESENDJOBFINISH", Status="success"))).event.deliveries == ()


@pytest.mark.parametrize("wrapper", ["SubscribeMsgPopupEvent", "SubscribeMsgChangeEvent"])
@pytest.mark.parametrize("event", ["subscribe_msg_popup_event", "subscribe_msg_change_event"])
def test_grants_are_found_in_either_wrapper(event: str, wrapper: str) -> None:
    entries = [
        {"TemplateId": "A", "SubscribeStatusString": "accept"},
        {"TemplateId": "B", "SubscribeStatusString": "reject"},
        {"TemplateId": "C", "SubscribeStatusString": "perhaps"},
        {"SubscribeStatusString": "accept"},
    ]
    expected = (
        Grant(template_id="A", accepted=True),
        Grant(template_id="B", accepted=False),
        Grant(template_id="C", accepted=None),
    )
    in_xml = accepted(as_xml(an_event(event, **{wrapper: {"List": entries}}))).event
    in_json = accepted(as_json(an_event(event, List=entries))).event
    assert in_xml.grants == in_json.grants == expected
    assert in_xml.event_id == in_json.event_id
    assert accepted(as_json(an_event(event, List=entries[0]))).event.grants == expected[:1]
    assert accepted(as_json(an_event(event, List="A"))).event.grants == ()
    assert len(accepted(as_json(an_event(event, List=entries * 100))).event.grants) <= 50


# ---------------------------------------------------------------- texts of every kind


@BOTH
def test_a_long_text_is_cut_between_characters(write: Any) -> None:
    event = accepted(write(a_document(Content="😀" * 10_000))).event
    assert event.text == "😀" * TEXT_LENGTH_MAX


def test_halves_of_surrogate_pairs_and_control_characters_do_no_harm() -> None:
    text = "a\ud83d b\x08 c\x00 d\ude00 e\x7f f\u200d g"
    event = accepted(json.dumps(a_document(Content=text)).encode()).event
    assert event.text == "a\ufffd b\x08 c\ufffd d\ufffd e\x7f f\u200d g"
    raw = as_xml(a_document(Content="ONE TWO")).replace(b"ONE", b"\xed\xa0\xbd").replace(b"TWO", b"\x08\x1b")
    assert accepted(raw).event.text == "\ufffd" * 3 + " " + "\ufffd" * 2
    event = accepted(json.dumps(a_document(FromUserName="\ud83d", MsgId="\ud83d")).encode()).event
    assert event.open_id == "\ufffd"
    json.dumps(event.event_id + event.text, ensure_ascii=False).encode()


@pytest.mark.parametrize("content", [True, None, 1.5, ["a"], {"a": "b"}])
def test_what_is_no_text_is_none(content: Any) -> None:
    event = accepted(json.dumps(a_document() | {"Content": content}).encode()).event
    assert (event.kind, event.text) == (KIND.TEXT, "")


def test_raw_control_characters_in_json_are_a_text_too() -> None:
    body = as_json(a_document(Content="one two")).replace(b"one two", b"one\n\x08two\xff")
    assert accepted(body).event.text == "one\n\x08two\ufffd"


def test_nothing_of_a_person_shows() -> None:
    push = accepted(as_xml(a_document(Content="我叫王小明")))
    for shown in (repr(push), repr(keys()), repr(Reply(text="王小明"))):
        assert not any(secret in shown for secret in (PERSON, "王小明", TOKEN, AES_KEY, PREVIOUS_AES_KEY))


# ---------------------------------------------------------------- twice is once


def id_of(document: dict[str, Any]) -> str:
    ids = {
        accepted(write(document), mode=mode).event.event_id for write in (as_xml, as_json) for mode in ("plain", "safe")
    }
    (event_id,) = ids
    assert len(event_id) == 64
    return event_id


def test_a_message_is_known_by_its_number() -> None:
    first = id_of(a_document())
    assert id_of(a_document(Content="other", CreateTime=1)) == first
    assert id_of(a_document(MsgId=2)) != first
    assert id_of(a_document(ToUserName="gh_2")) != first
    assert PERSON not in first


def test_an_event_is_known_by_person_second_and_what_it_is_about() -> None:
    base = {"EventKey": "k", "MsgID": 5, "Ticket": "t"}
    first = id_of(an_event("CLICK", **base))
    assert id_of(an_event("CLICK", **base | {"Ticket": "u"})) == first
    for change in (
        {"FromUserName": "o2"},
        {"CreateTime": 2},
        {"EventKey": "l"},
        {"MsgID": 6},
        {"Event": "VIEW"},
        {"MsgID": None},
        {"EventKey": "k5", "MsgID": None},
    ):
        assert id_of(an_event("CLICK", **base | change)) != first


def test_a_number_alone_does_not_make_two_events_one() -> None:
    one, other = (an_event("CLICK", EventKey=key, MsgId=5) for key in "ab")
    assert id_of(one) != id_of(other)


def test_two_messages_that_ended_in_one_second_are_two_events() -> None:
    def sent(number: str) -> dict[str, Any]:
        return an_event("subscribe_msg_sent_event", List={"TemplateId": "A", "MsgID": number, "ErrorCode": 0})

    one, other = (accepted(as_json(sent(number))).event.event_id for number in ("1", "2"))
    assert one != other


def test_parts_of_an_event_never_run_into_each_other() -> None:
    one = an_event("CLICK", EventKey='a", "b', MsgID=None)
    other = an_event("CLICK", EventKey="a", MsgID="b")
    assert id_of(one) != id_of(other)


# ---------------------------------------------------------------- keys in turn


@BOTH
def test_the_previous_key_still_opens_and_seals_the_answer(write: Any) -> None:
    push = accepted(write(a_document()), aes_key=PREVIOUS_AES_KEY)
    assert push.sealed_with is PushKey.PREVIOUS
    answer = write_reply(keys(), push, Reply(text="好"), now=NOW, nonce="n1")
    envelope: dict[str, Any] = json.loads(answer.body) if write is as_json else read_xml(answer.body)
    inner = open_sealed(envelope["Encrypt"], key=read_aes_key(PREVIOUS_AES_KEY, name="key"), app_id=APP_ID)
    assert "好" in inner.decode()


def test_without_the_previous_key_its_pushes_are_refused() -> None:
    sealed = sealed_message(as_xml(a_document()), aes_key=PREVIOUS_AES_KEY)
    only = replace(keys(), previous_aes_key="")
    assert isinstance(read_push(only, a_query(sealed=sealed), an_envelope(b"<", sealed), "", NOW), Unverified)


# ---------------------------------------------------------------- answers


@BOTH
@MODES
def test_an_answer_has_the_form_of_the_push(write: Any, mode: str) -> None:
    push = accepted(write(a_document()), mode=mode)
    answer = write_reply(keys(mode), push, Reply(text="请点这里 ]]> <a>"), now=NOW, nonce="n1")
    read: Any = json.loads if write is as_json else read_xml
    assert (answer.status, answer.content_type) == (200, "application/json" if write is as_json else "application/xml")
    message: dict[str, Any] = read(answer.body)
    if mode != "plain":
        envelope = message
        assert list(envelope) == ["Encrypt", "MsgSignature", "TimeStamp", "Nonce"]
        assert isinstance(envelope["TimeStamp"], int if write is as_json else str)
        assert is_signed(envelope["MsgSignature"], TOKEN, str(envelope["TimeStamp"]), "n1", envelope["Encrypt"])
        message = read(open_sealed(envelope["Encrypt"], key=read_aes_key(AES_KEY, name="key"), app_id=APP_ID))
    assert {name: str(value) for name, value in message.items()} == {
        "ToUserName": PERSON,
        "FromUserName": ACCOUNT,
        "CreateTime": str(int(NOW.timestamp())),
        "MsgType": "text",
        "Content": "请点这里 ]]> <a>",
    }


@MODES
@pytest.mark.parametrize("reply", [None, Reply(text=""), Reply(text=" \n")])
def test_without_an_answer_the_platform_is_content(mode: str, reply: Reply | None) -> None:
    answer = write_reply(keys(mode), accepted(as_xml(a_document()), mode=mode), reply, now=NOW, nonce="n1")
    assert (answer.status, answer.body, answer.content_type) == (200, b"success", "text/plain")


@BOTH
def test_an_answer_is_cut_between_characters_and_holds_nothing_unwritable(write: Any) -> None:
    push = accepted(write(a_document()), mode="plain")
    text = "\ud83d\x00" + "门😀" * 1_000
    answer = write_reply(keys("plain"), push, Reply(text=text), now=NOW, nonce="n1")
    message: dict[str, Any] = json.loads(answer.body) if write is as_json else read_xml(answer.body)
    content = message["Content"]
    assert REPLY_BYTES_MAX - 4 < len(content.encode()) <= REPLY_BYTES_MAX
    assert content.startswith("\ufffd\ufffd门😀")
    assert set(content) == {"\ufffd", "门", "😀"}


def test_two_answers_are_never_sealed_alike() -> None:
    push = accepted(as_xml(a_document()))
    one, other = (write_reply(keys(), push, Reply(text="好"), now=NOW, nonce="n1").body for _ in range(2))
    assert one != other


# ---------------------------------------------------------------- time


@MODES
def test_a_push_is_taken_up_to_ten_minutes_off_and_no_longer(mode: str) -> None:
    assert timedelta(minutes=10) == PUSH_AGE_MAX
    message = as_xml(a_document())
    for off in (PUSH_AGE_MAX, -PUSH_AGE_MAX, timedelta(seconds=20)):
        assert isinstance(received(message, mode=mode, now=NOW + off), Push)
    for off in (PUSH_AGE_MAX + timedelta(seconds=1), -PUSH_AGE_MAX - timedelta(seconds=1), timedelta(days=400)):
        assert isinstance(received(message, mode=mode, now=NOW + off), Unverified)
    ancient = accepted(as_xml(a_document(CreateTime=1348831860)), mode=mode).event
    assert ancient.happened_at == datetime.fromtimestamp(1348831860, UTC)


# ---------------------------------------------------------------- what an operator enters


def an_account(platform: str = "wechat_service", **params: str) -> ChatAccount:
    return ChatAccount(
        id=UUID(int=1),
        institution_id=UUID(int=2),
        platform=platform,
        app_id=APP_ID,
        params={"secret": "s" * 32} | params,
    )


@pytest.mark.parametrize("platform", PARAMS)
def test_an_account_that_gets_pushes(platform: str) -> None:
    account = an_account(
        platform, push_token=TOKEN, push_aes_key=AES_KEY + "\n", push_previous_aes_key=PREVIOUS_AES_KEY
    )
    check_account(account)
    assert PushKeys.read(account) == keys("safe")
    account = an_account(platform, push_token=TOKEN, push_mode="plain")
    check_account(account)
    assert PushKeys.read(account) == PushKeys(token=TOKEN, app_id=APP_ID, mode="plain")
    check_account(an_account(platform))


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"push_token": TOKEN}, "push_aes_key must be 43"),
        ({"push_token": TOKEN, "push_mode": "compatible"}, "push_aes_key must be 43"),
        ({"push_token": TOKEN, "push_aes_key": AES_KEY[1:]}, "push_aes_key must be 43"),
        ({"push_token": TOKEN, "push_aes_key": AES_KEY, "push_previous_aes_key": "x"}, "push_previous_aes_key must be"),
        ({"push_token": TOKEN, "push_mode": "plain", "push_aes_key": "x"}, "push_aes_key must be 43"),
        ({"push_token": TOKEN, "push_aes_key": AES_KEY, "push_mode": "Safe"}, "plain, compatible, safe"),
        ({"push_aes_key": AES_KEY}, "push_token must be 3 to 32"),
        ({"push_token": "ab", "push_aes_key": AES_KEY}, "push_token must be 3 to 32"),
        ({"push_token": "a" * 33, "push_aes_key": AES_KEY}, "push_token must be 3 to 32"),
        ({"push_token": "token-1", "push_aes_key": AES_KEY}, "push_token must be 3 to 32"),
    ],
)
def test_an_account_that_cannot_get_pushes(params: dict[str, str], problem: str) -> None:
    for check in (check_account, PushKeys.read):
        with pytest.raises(ConfigurationError, match=problem) as refused:
            check(an_account(**params))
        assert not any(value in str(refused.value) for value in params.values() if len(value) > 10)


def test_an_account_without_a_token_gets_no_pushes() -> None:
    with pytest.raises(ConfigurationError, match="push_token"):
        PushKeys.read(an_account())


def test_the_keys_are_secret() -> None:
    for table in PARAMS.values():
        secret = {param.name for param in table if param.secret}
        assert secret >= {"push_token", "push_aes_key", "push_previous_aes_key"}
