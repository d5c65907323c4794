"""The platform's side of a push, as far as tests need it: any document, signed and sealed as the keys say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bot.wechat.cipher import read_aes_key, seal, signature
from bot.wechat.pushes import Push, PushKeys, read_push
from wire.xml import write_xml

NOW = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
TIMESTAMP = str(int(NOW.timestamp()))
NONCE = "415670741"
SALT = b"0123456789abcdef"
PERSON = "oia2TjuEGTNoeX76QEjQNrcURxG8"
ACCOUNT = "gh_7f083739789a"
APP_ID = "wx00000000000000aa"
TOKEN = "tokenOfTests"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
PREVIOUS_AES_KEY = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"


def keys(mode: str = "safe", **values: str) -> PushKeys:
    given = {"token": TOKEN, "aes_key": AES_KEY, "previous_aes_key": PREVIOUS_AES_KEY, "app_id": APP_ID} | values
    return PushKeys(mode=mode, **given)


def a_document(**values: Any) -> dict[str, Any]:
    """A text message; None takes a name away."""
    document = {
        "ToUserName": ACCOUNT,
        "FromUserName": PERSON,
        "CreateTime": int(NOW.timestamp()),
        "MsgType": "text",
        "Content": "this is a test",
        "MsgId": 1234567890123456,
    } | values
    return {name: value for name, value in document.items() if value is not None}


def an_event(event: str, **values: Any) -> dict[str, Any]:
    return a_document(**({"MsgType": "event", "Event": event, "Content": None, "MsgId": None} | values))


def as_xml(document: Mapping[str, Any]) -> bytes:
    return write_xml(document)


def as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def a_query(*, timestamp: str = TIMESTAMP, nonce: str = NONCE, sealed: str | None = None) -> dict[str, str]:
    query = {"signature": signature(TOKEN, timestamp, nonce), "timestamp": timestamp, "nonce": nonce, "openid": PERSON}
    if sealed is not None:
        query |= {"encrypt_type": "aes", "msg_signature": signature(TOKEN, timestamp, nonce, sealed)}
    return query


def sealed_message(message: bytes, *, aes_key: str = AES_KEY, app_id: str = APP_ID) -> str:
    return seal(message, key=read_aes_key(aes_key, name="key"), app_id=app_id, random_bytes=SALT)


def an_envelope(message: bytes, sealed: str) -> bytes:
    """In the format of the message, as safe mode has it."""
    envelope = {"ToUserName": ACCOUNT, "Encrypt": sealed}
    return as_json(envelope) if message.lstrip().startswith(b"{") else as_xml(envelope)


def received(message: bytes, *, mode: str = "safe", content_type: str = "", now: datetime = NOW, **values: str) -> Any:
    """What we make of an authentic push whose document is this."""
    if mode == "plain":
        return read_push(keys(mode), a_query(), message, content_type, now)
    sealed = sealed_message(message, **values)
    return read_push(keys(mode), a_query(sealed=sealed), an_envelope(message, sealed), content_type, now)


def accepted(message: bytes, **values: Any) -> Push:
    push = received(message, **values)
    assert isinstance(push, Push), push
    return push
