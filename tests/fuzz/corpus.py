"""What the mutated bodies are made from: published and own documents in XML and JSON, and pieces that hurt parsers."""

from __future__ import annotations

from typing import Any

from tests.support.pushes import ACCOUNT, PERSON, a_document, an_event, as_json, as_xml
from tests.support.vectors import read_vectors
from wire.xml import read_xml


def documents() -> tuple[dict[str, Any], ...]:
    published = read_vectors("wechat", "messages/oa_events.json")["cases"]
    entries = [{"TemplateId": f"T{number}", "SubscribeStatusString": "accept"} for number in range(5)]
    sent = {"TemplateId": "T", "MsgID": "17008", "ErrorCode": 0, "ErrorStatus": "success"}
    return (
        *(read_xml(case["xml"].encode()) if "xml" in case else case["json"] for case in published),
        a_document(Content="我要缴费😀 ]]> <b> &amp;"),
        a_document(Content="长" * 700),
        a_document(MsgType="voice", Recognition="查账单", MediaId="m"),
        a_document(MsgType="image", PicUrl="http://p/1", MediaId="m"),
        an_event("subscribe_msg_popup_event", SubscribeMsgPopupEvent={"List": entries}),
        an_event("subscribe_msg_popup_event", List=entries),
        an_event("subscribe_msg_sent_event", List=sent),
    )


def bodies() -> tuple[bytes, ...]:
    """Every document in both formats, and some that are written differently."""
    written = [write(document) for document in documents() for write in (as_xml, as_json)]
    plain = f"<ToUserName>{ACCOUNT}</ToUserName>\n<FromUserName>{PERSON}</FromUserName>\n<CreateTime>1</CreateTime>"
    return (
        *written,
        f'<?xml version="1.0" encoding="UTF-8"?>\n<xml>\n{plain}\n<MsgType>text</MsgType></xml>\n'.encode(),
        f'<xml a="1">{plain}<!-- c --><MsgType>event</MsgType><Event>&#x43;LICK</Event></xml>'.encode(),
    )


PIECES: tuple[bytes, ...] = (
    b"<!DOCTYPE xml>",
    b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
    b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x">',
    b"<?xml version='1.0' encoding='UTF-16'?>",
    b"<?php x ?>",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"&lt;",
    b"&b;",
    b"&#0;",
    b"&#xD83D;",
    b"&#1114111;",
    b"<xml>",
    b"</xml>",
    b"<List>",
    b"</List>",
    b"<Encrypt>x</Encrypt>",
    b"<FromUserName>o</FromUserName>",
    b"<a/>",
    b"<a b='c'>",
    b'"Encrypt":"x",',
    b'"FromUserName":"o",',
    b'"List":[[]],',
    b'"MsgType":null,',
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"\\ud83d",
    b"\\u0000",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1",
    b"9" * 50,
    b"9" * 5_000,
    b"\x00",
    b"\x08",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\xf4\x90\x80\x80",
    b"\r\n",
    b"A" * 200,
)

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    " ",
    "0",
    "\ud83d",
    "a\x00b",
    "\u0663",
    "]]>",
    "x" * 129,
    "\U0001f600" * 3_000,
    [],
    {},
    [[]],
    ["a"],
    {"List": []},
    {"List": {"MsgID": 1, "TemplateId": "T", "SubscribeStatusString": "reject"}},
    [{"MsgID": "1", "ErrorCode": "x"}] * 60,
)
