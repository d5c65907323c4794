"""Whatever is forged, altered, old or malformed is unverified, and never an exception."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from bot.wechat.cipher import signature
from bot.wechat.pushes import PUSH_BYTES_MAX, Echo, Push, read_echo, read_push
from core.ports import Unverified
from tests.support.pushes import (
    ACCOUNT,
    AES_KEY,
    APP_ID,
    NONCE,
    NOW,
    PERSON,
    PREVIOUS_AES_KEY,
    TIMESTAMP,
    TOKEN,
    a_document,
    a_query,
    an_envelope,
    an_event,
    as_json,
    as_xml,
    keys,
    received,
    sealed_message,
)

BOTH = pytest.mark.parametrize("write", [as_xml, as_json], ids=["xml", "json"])
SEALING = pytest.mark.parametrize("mode", ["compatible", "safe"])
MODES = pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
MESSAGE = as_xml(a_document())


def reason_of(result: Any) -> str:
    assert isinstance(result, Unverified), result
    for private in (PERSON, ACCOUNT, TOKEN, AES_KEY, APP_ID, "this is a test"):
        assert private not in result.reason
    return result.reason


# ---------------------------------------------------------------- the envelope


@MODES
@pytest.mark.parametrize("name", ["signature", "msg_signature", "timestamp", "nonce"])
@pytest.mark.parametrize("value", [None, "", "0", "x" * 40, "0" * 40, "门" * 40, "\ud83d", "1" * 5_000, "1\x00"])
def test_a_query_with_anything_else_in_it(mode: str, name: str, value: str | None) -> None:
    sealed = sealed_message(MESSAGE)
    body = MESSAGE if mode == "plain" else an_envelope(MESSAGE, sealed)
    query = a_query(sealed=sealed)
    assert isinstance(read_push(keys(mode), query, body, "text/xml", NOW), Push)
    query = {key: text for key, text in query.items() if key != name} | ({} if value is None else {name: value})
    result = read_push(keys(mode), query, body, "text/xml", NOW)
    if name == ("msg_signature" if mode == "plain" else "signature"):
        assert isinstance(result, Push)  # it proves nothing in this mode, and is not looked at
    else:
        reason_of(result)


@MODES
def test_an_empty_query(mode: str) -> None:
    reason_of(read_push(keys(mode), {}, MESSAGE, "text/xml", NOW))
    reason_of(read_push(keys(mode), {}, b"", "", NOW))


@MODES
def test_another_token(mode: str) -> None:
    sealed = sealed_message(MESSAGE)
    body = MESSAGE if mode == "plain" else an_envelope(MESSAGE, sealed)
    assert "wrong" in reason_of(read_push(keys(mode, token="another"), a_query(sealed=sealed), body, "", NOW))


@SEALING
@BOTH
def test_a_plain_push_where_it_must_be_sealed(mode: str, write: Any) -> None:
    message = write(a_document())
    for query in (a_query(), a_query(sealed=""), a_query(sealed="x")):
        assert reason_of(read_push(keys(mode), query, message, "", NOW)) == "nothing in it is sealed"


@SEALING
@BOTH
def test_only_what_is_sealed_counts(mode: str, write: Any) -> None:
    """Compatible mode sends both; somebody on the way can change the plain part, which no signature covers."""
    true, false = a_document(Content="true"), a_document(Content="false", FromUserName="somebody else")
    sealed = sealed_message(write(true))
    result = read_push(keys(mode), a_query(sealed=sealed), write({**false, "Encrypt": sealed}), "", NOW)
    assert isinstance(result, Push)
    assert (result.event.text, result.event.open_id) == ("true", PERSON)


@BOTH
def test_in_plain_mode_the_plain_part_counts_while_the_platform_already_sends_both(write: Any) -> None:
    sealed = sealed_message(write(a_document()))
    both = write({**a_document(Content="plain"), "Encrypt": sealed})
    result = read_push(keys("plain"), a_query(sealed=sealed), both, "", NOW)
    assert isinstance(result, Push)
    assert (result.event.text, result.sealed_with) == ("plain", None)
    only_sealed = an_envelope(write(a_document()), sealed)
    assert "FromUserName" in reason_of(read_push(keys("plain"), a_query(sealed=sealed), only_sealed, "", NOW))


@SEALING
@pytest.mark.parametrize(
    "body",
    [
        "<xml><Encrypt>{0}</Encrypt><Encrypt>{0}</Encrypt></xml>",
        "<xml><Encrypt><A>{0}</A></Encrypt></xml>",
        "<xml><A><Encrypt>{0}</Encrypt></A></xml>",
        "<xml><encrypt>{0}</encrypt></xml>",
        "<xml><Encrypt/></xml>",
        "<xml><Encrypt>{0}",
        '{{"Encrypt":"{0}","Encrypt":"{0}"}}',
        '{{"Encrypt":["{0}"]}}',
        '{{"Encrypt":{{"Encrypt":"{0}"}}}}',
        '{{"Encrypt":null}}',
        '{{"Encrypt":1}}',
        '{{"Encrypt":"\\ud83d"}}',
        '["{0}"]',
        '"{0}"',
        "{0}",
    ],
)
def test_no_single_encrypt_element(mode: str, body: str) -> None:
    sealed = sealed_message(MESSAGE)
    reason_of(read_push(keys(mode), a_query(sealed=sealed), body.format(sealed).encode(), "", NOW))


def altered(sealed: str, position: int) -> str:
    raw = bytearray(base64.b64decode(sealed))
    raw[position] ^= 1
    return base64.b64encode(raw).decode()


@SEALING
@BOTH
def test_sealed_text_that_was_altered_is_seen_by_its_signature(mode: str, write: Any) -> None:
    sealed = sealed_message(write(a_document()))
    for position in (0, 20, -1):
        body = an_envelope(write({}), altered(sealed, position))
        reason = reason_of(read_push(keys(mode), a_query(sealed=sealed), body, "", NOW))
        assert reason == "its msg_signature is wrong"


@SEALING
@pytest.mark.parametrize(
    ("sealed", "reason"),
    [
        (sealed_message(MESSAGE)[:-1], "no base64"),
        (sealed_message(MESSAGE)[:-4], "whole number"),
        (altered(sealed_message(MESSAGE), -1), "altered"),
        (sealed_message(MESSAGE, app_id="wx00000000000000ab"), "another appid"),
        (sealed_message(MESSAGE, app_id=APP_ID + "x"), "wrong length"),
        (sealed_message(MESSAGE, aes_key="A" * 43), "wrong key|wrong length|another appid"),
        ("A" * 64, "whole number"),
        ("A" * 128, "wrong key|wrong length|another appid"),
    ],
)
def test_what_is_signed_and_does_not_open(mode: str, sealed: str, reason: str) -> None:
    """Somebody has the token and not the key."""
    body = an_envelope(MESSAGE, sealed)
    with_both = reason_of(read_push(keys(mode), a_query(sealed=sealed), body, "", NOW))
    assert with_both.startswith("current key: ")
    assert "; previous key: " in with_both
    one = keys(mode, previous_aes_key="")
    assert re.search(reason, reason_of(read_push(one, a_query(sealed=sealed), body, "", NOW)))


@SEALING
def test_a_sealed_push_of_another_account_with_the_same_token(mode: str) -> None:
    sealed = sealed_message(MESSAGE, aes_key=PREVIOUS_AES_KEY, app_id="wx1")
    reason_of(read_push(keys(mode), a_query(sealed=sealed), an_envelope(MESSAGE, sealed), "", NOW))


@MODES
@pytest.mark.parametrize("timestamp", ["1714112445", "0", "-1", "1e9", "٣", "99999999999", "1" * 12, " 1778040000"])
def test_a_moment_long_ago_or_none_though_rightly_signed(mode: str, timestamp: str) -> None:
    sealed = sealed_message(MESSAGE)
    query = {
        "timestamp": timestamp,
        "nonce": NONCE,
        "signature": signature(TOKEN, timestamp, NONCE),
        "msg_signature": signature(TOKEN, timestamp, NONCE, sealed),
    }
    body = MESSAGE if mode == "plain" else an_envelope(MESSAGE, sealed)
    assert "timestamp" in reason_of(read_push(keys(mode), query, body, "", NOW))


# ---------------------------------------------------------------- the document

LAUGHS = (
    b"<!DOCTYPE x ["
    + b'<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(8))
)
BAD_DOCUMENTS: Mapping[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n",
    "a word": b"success",
    "a DTD": b"<!DOCTYPE xml>" + MESSAGE,
    "billion laughs": LAUGHS + b"]>" + MESSAGE.replace(b"<![CDATA[this is a test]]>", b"&i;"),
    "a file as entity": b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    + MESSAGE.replace(b"<![CDATA[this is a test]]>", b"&f;"),
    "a processing instruction": b"<?x y?>" + MESSAGE,
    "XML in UTF-16": MESSAGE.decode().encode("utf-16"),
    "JSON in UTF-16": as_json(a_document()).decode().encode("utf-16"),
    "JSON in UTF-16 without mark": as_json(a_document()).decode().encode("utf-16-be"),
    "XML that says GBK": b'<?xml version="1.0" encoding="GBK"?>' + MESSAGE,
    "NUL in XML": MESSAGE.replace(b"test", b"te\x00st"),
    "NUL in JSON": as_json(a_document()).replace(b"test", b"te\x00st"),
    "NUL alone": b"\x00" * 1_000,
    "deep XML": b"<xml>" * 10_000 + b"</xml>" * 10_000,
    "deep JSON": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep JSON, lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "many elements": b"<xml>" + b"<a/>" * 100_000 + b"</xml>",
    "a huge number": b'{"MsgId":' + b"9" * 100_000 + b"}",
    "a JSON array": b'[{"ToUserName":"a"}]',
    "JSON cut short": as_json(a_document())[:-1],
    "two JSON objects": as_json(a_document()) * 2,
    "a name twice in JSON": as_json(a_document())[:-1] + b',"FromUserName":"b"}',
    "a name twice in XML": MESSAGE.replace(b"</xml>", b"<FromUserName>b</FromUserName></xml>"),
    "no number of JSON": as_json(a_document()).replace(b"1234567890123456", b"NaN"),
}


@MODES
@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_a_bad_document_though_rightly_signed_and_sealed(mode: str, name: str) -> None:
    reason_of(received(BAD_DOCUMENTS[name], mode=mode))


@SEALING
@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_a_bad_document_in_place_of_the_envelope(mode: str, name: str) -> None:
    reason_of(read_push(keys(mode), a_query(sealed=sealed_message(MESSAGE)), BAD_DOCUMENTS[name], "", NOW))


@MODES
def test_a_body_that_is_too_large(mode: str) -> None:
    huge = b"<xml><A>" + b"x" * PUSH_BYTES_MAX + b"</A></xml>"
    assert "bytes" in reason_of(read_push(keys(mode), a_query(), huge, "text/xml", NOW))
    assert "bytes" in reason_of(read_push(keys(mode), a_query(), b"{" * (PUSH_BYTES_MAX + 1), "", NOW))
    sealed = sealed_message(b"x" * (PUSH_BYTES_MAX - 100))  # fits plain, and not in base64
    assert "bytes" in reason_of(read_push(keys(mode), a_query(sealed=sealed), an_envelope(b"<", sealed), "", NOW))


@MODES
@BOTH
@pytest.mark.parametrize("name", ["ToUserName", "FromUserName", "CreateTime", "MsgType"])
@pytest.mark.parametrize("value", [None, "", " ", {"A": "1"}, "x" * 129])
def test_a_document_without_what_every_push_has(mode: str, write: Any, name: str, value: Any) -> None:
    assert name in reason_of(received(write(a_document(**{name: value})), mode=mode))


@BOTH
@pytest.mark.parametrize("moment", ["-1", "1.5", "1e3", "x", "٣", "9" * 12, "9" * 400, "0x10", "1 2"])
def test_a_moment_that_is_none(write: Any, moment: str) -> None:
    assert "CreateTime" in reason_of(received(write(a_document(CreateTime=moment))))


@pytest.mark.parametrize("moment", [True, None, 1.5, 1e400, [1], {"a": 1}, -5, 10**30])
def test_a_moment_in_json_that_is_none(moment: Any) -> None:
    body = json.dumps(a_document() | {"CreateTime": moment}).replace("Infinity", "1e400").encode()
    assert "CreateTime" in reason_of(received(body))


@pytest.mark.parametrize(
    "value", [None, True, 1.5, [], {}, [[]], [{"MsgID": {}}], "x", {"List": {"List": []}}, [1, "a"]]
)
@pytest.mark.parametrize(
    "event", ["subscribe_msg_popup_event", "subscribe_msg_sent_event", "TEMPLATESENDJOBFINISH", "CLICK", "subscribe"]
)
def test_odd_values_of_what_may_be_missing_are_passed_over(event: str, value: Any) -> None:
    odd = dict.fromkeys(("List", "SubscribeMsgPopupEvent", "Status", "EventKey", "MsgId"), value)
    push = received(json.dumps(an_event(event) | odd).encode())
    assert isinstance(push, Push)
    assert (push.event.deliveries, push.event.grants, push.event.scene) == ((), (), "")


@pytest.mark.parametrize("content_type", ["text/xml; charset=GBK", 'text/xml; charset="utf-16"', "a;CHARSET = latin-1"])
def test_a_header_that_says_another_charset(content_type: str) -> None:
    assert "charset" in reason_of(received(MESSAGE, content_type=content_type))
    for fine in ("", "text/xml", "text/xml; charset=UTF-8", "application/json;charset=utf8", "\ud83d", "x" * 10_000):
        assert isinstance(received(MESSAGE, content_type=fine), Push)


# ---------------------------------------------------------------- the address check


@MODES
def test_the_address_check(mode: str) -> None:
    query = a_query() | {"echostr": "4375120948345356249"}
    assert read_echo(keys(mode), query) == Echo(text="4375120948345356249")
    for wrong in (
        {"signature": "0" * 40},
        {"signature": signature(TOKEN, TIMESTAMP, NONCE, "4375120948345356249")},
        {"timestamp": "1"},
        {"nonce": "1"},
        {"nonce": "\ud83d"},
        {"timestamp": "\ud83d"},
        {"echostr": ""},
        {"echostr": "<script>alert(1)</script>"},
        {"echostr": "1\n"},
        {"echostr": "1" * 257},
        {"echostr": "门"},
    ):
        reason_of(read_echo(keys(mode), query | wrong))
    reason_of(read_echo(keys(mode), {}))
    reason_of(read_echo(keys(mode, token="another"), query))
