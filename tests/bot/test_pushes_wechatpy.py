"""wechatpy, which others run against the real platform, plays WeChat's server against us and reads what we answer."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as some
from wechatpy import parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidAppIdException, InvalidSignatureException
from wechatpy.utils import WeChatSigner, check_signature

from bot.events import ChatEventKind, Grant, Reply
from bot.wechat.pushes import Echo, Push, PushKey, read_echo, read_push, write_reply
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
    an_envelope,
    an_event,
    as_xml,
    keys,
    sealed_message,
)
from tests.support.pushes import a_query as our_query
from wire.xml import read_xml, write_xml

CURRENT = WeChatCrypto(TOKEN, AES_KEY, APP_ID)
PREVIOUS = WeChatCrypto(TOKEN, PREVIOUS_AES_KEY, APP_ID)
MODES = pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
LETTERS = some.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))


def push_of(server: WeChatCrypto, document: dict[str, Any], mode: str) -> tuple[dict[str, str], bytes]:
    """Query and body as the platform sends them, every number in them wechatpy's."""
    signer = WeChatSigner()
    signer.add_data(TOKEN, TIMESTAMP, NONCE)
    query = {"signature": signer.signature, "timestamp": TIMESTAMP, "nonce": NONCE}
    message = as_xml(document)
    if mode == "plain":
        return query, message
    sealed: dict[str, Any] = read_xml(server.encrypt_message(message.decode(), NONCE, TIMESTAMP).encode())
    query |= {"encrypt_type": "aes", "msg_signature": sealed["MsgSignature"]}
    beside = document if mode == "compatible" else {"ToUserName": ACCOUNT}
    return query, write_xml({**beside, "Encrypt": sealed["Encrypt"]})


def pushed(server: WeChatCrypto, document: dict[str, Any], mode: str) -> Push:
    query, body = push_of(server, document, mode)
    push = read_push(keys(mode), query, body, "text/xml", NOW)
    assert isinstance(push, Push), push
    return push


def answer_read_by(server: WeChatCrypto, body: bytes) -> Any:
    """Our answer as the platform understands it."""
    envelope: dict[str, Any] = read_xml(body)
    inner = server.decrypt_message(body.decode(), envelope["MsgSignature"], envelope["TimeStamp"], envelope["Nonce"])
    return parse_message(inner)


def test_the_address_check() -> None:
    query, _ = push_of(CURRENT, a_document(), "plain")
    assert read_echo(keys(), query | {"echostr": "4375120948345356249"}) == Echo(text="4375120948345356249")


@MODES
def test_a_text_and_its_answer(mode: str) -> None:
    push = pushed(CURRENT, a_document(Content="我要缴费😀"), mode)
    assert (push.event.kind, push.event.text) == (ChatEventKind.TEXT, "我要缴费😀")
    assert push.sealed_with is (None if mode == "plain" else PushKey.CURRENT)
    answer = write_reply(keys(mode), push, Reply(text="请点 ]]> 这里😀"), now=NOW, nonce="n1")
    message = parse_message(answer.body) if mode == "plain" else answer_read_by(CURRENT, answer.body)
    assert (message.type, message.content) == ("text", "请点 ]]> 这里😀")
    assert (message.source, message.target, message._data["CreateTime"]) == (ACCOUNT, PERSON, TIMESTAMP)


@pytest.mark.parametrize("mode", ["compatible", "safe"])
def test_keys_in_turn(mode: str) -> None:
    """The platform still seals with the key before; only who has that key can read the answer."""
    push = pushed(PREVIOUS, a_document(), mode)
    assert push.sealed_with is PushKey.PREVIOUS
    answer = write_reply(keys(mode), push, Reply(text="好"), now=NOW, nonce="n1")
    assert answer_read_by(PREVIOUS, answer.body).content == "好"
    with pytest.raises((InvalidAppIdException, UnicodeDecodeError, ValueError, IndexError)):
        answer_read_by(CURRENT, answer.body)


@MODES
@pytest.mark.parametrize(
    ("event", "values", "named"),
    [
        ("subscribe", {"EventKey": ""}, "subscribe"),
        ("subscribe", {"EventKey": "qrscene_b12", "Ticket": "T"}, "subscribe_scan"),
        ("SCAN", {"EventKey": "b12", "Ticket": "T"}, "scan"),
        ("CLICK", {"EventKey": "bills"}, "click"),
        ("TEMPLATESENDJOBFINISH", {"MsgID": 17, "Status": "success"}, "templatesendjobfinish"),
    ],
)
def test_both_understand_an_event_alike(mode: str, event: str, values: dict[str, Any], named: str) -> None:
    document = an_event(event, **values)
    theirs, ours = parse_message(as_xml(document)), pushed(CURRENT, document, mode).event
    assert theirs.event == named
    assert (ours.open_id, ours.to) == (theirs.source, theirs.target)
    if named in {"subscribe_scan", "scan"}:
        assert ours.scene == theirs.scene_id == "b12"
    if named == "click":
        assert ours.text == theirs.key == "bills"
    if named == "templatesendjobfinish":
        (delivery,) = ours.deliveries
        assert (delivery.platform_message_id, delivery.code) == (str(theirs.id), theirs.status)


def test_what_they_do_not_know_and_we_do() -> None:
    entry = {"TemplateId": "T", "SubscribeStatusString": "reject"}
    document = an_event("subscribe_msg_change_event", SubscribeMsgChangeEvent={"List": entry})
    assert parse_message(as_xml(document)).type == "unknown"
    assert pushed(CURRENT, document, "safe").event.grants == (Grant(template_id="T", accepted=False),)


@given(some.text(LETTERS, max_size=200))
def test_any_text_from_them_to_us(text: str) -> None:
    push = pushed(CURRENT, a_document(Content=text), "safe")
    assert push.event.text == text


@given(some.text(LETTERS, min_size=1, max_size=200).filter(lambda text: bool(text.strip())))
def test_any_text_from_us_to_them(text: str) -> None:
    """A reader of XML that cuts blanks off, as theirs does, loses those."""
    push = pushed(CURRENT, a_document(), "safe")
    answer = write_reply(keys(), push, Reply(text=text), now=NOW, nonce="n1")
    envelope: dict[str, Any] = read_xml(answer.body)
    inner: Any = CURRENT.decrypt_message(envelope, envelope["MsgSignature"], envelope["TimeStamp"], envelope["Nonce"])
    assert read_xml(inner.encode())["Content"] == read_xml(write_xml({"a": text}))["a"]


@pytest.mark.parametrize("aes_key", [AES_KEY, PREVIOUS_AES_KEY])
def test_they_open_what_we_seal_as_a_platform(aes_key: str) -> None:
    """So the platform of these tests, and with it every test of a refusal, speaks as theirs does."""
    message = as_xml(a_document(Content="门诊"))
    sealed = sealed_message(message, aes_key=aes_key)
    query = our_query(sealed=sealed)
    check_signature(TOKEN, query["signature"], query["timestamp"], query["nonce"])
    server = CURRENT if aes_key == AES_KEY else PREVIOUS
    body = an_envelope(message, sealed).decode()
    opened = server.decrypt_message(body, query["msg_signature"], query["timestamp"], query["nonce"])
    assert opened == message.decode()
    with pytest.raises(InvalidSignatureException):
        server.decrypt_message(body, query["signature"], query["timestamp"], query["nonce"])


def test_what_they_would_take_and_we_do_not() -> None:
    """Padding that is wrong but for its last byte: why we open with code of our own."""
    encryptor = Cipher(AES256(CURRENT.key), CBC(CURRENT.key[:16])).encryptor()
    message = as_xml(a_document())
    plain = b"0123456789abcdef" + len(message).to_bytes(4, "big") + message + APP_ID.encode()
    missing = 32 - len(plain) % 32
    assert missing > 1
    padded = plain + bytes(missing - 1) + bytes([missing])
    sealed = base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()
    query, body = our_query(sealed=sealed), an_envelope(message, sealed)
    theirs = CURRENT.decrypt_message(body.decode(), query["msg_signature"], query["timestamp"], query["nonce"])
    assert theirs == message.decode()
    ours = read_push(keys(), query, body, "", NOW)
    assert isinstance(ours, Unverified)
    assert "altered" in ours.reason
