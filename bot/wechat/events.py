"""The document inside a push → ChatEvent. Pure.

Documents: 接收普通消息, 接收事件推送, 模板消息 (事件推送), 订阅通知 (事件推送). XML and JSON come in one shape:
in JSON the wrapper around List is missing, and List is an object where it would hold one entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from bot.events import (
    CODE_LENGTH_MAX,
    ID_LENGTH_MAX,
    LIST_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    ChatEvent,
    ChatEventKind,
    Delivery,
    Grant,
    event_id_of,
    storable,
)

SCENE_PREFIX = "qrscene_"  # only of a person who did not follow before
MOMENT_DIGITS_MAX = 11
_WHOLE_NUMBER = re.compile(r"-?\d+", re.ASCII)

MESSAGE_KINDS: Mapping[str, ChatEventKind] = {
    "text": ChatEventKind.TEXT,
    "voice": ChatEventKind.VOICE,
    "image": ChatEventKind.IMAGE,
}
"""By MsgType in lower case; any other is MEDIA."""

EVENT_KINDS: Mapping[str, ChatEventKind] = {
    "subscribe": ChatEventKind.FOLLOWED,
    "unsubscribe": ChatEventKind.UNFOLLOWED,
    "scan": ChatEventKind.SCANNED,
    "click": ChatEventKind.MENU,
    "templatesendjobfinish": ChatEventKind.DELIVERED,
    "subscribe_msg_sent_event": ChatEventKind.DELIVERED,
    "subscribe_msg_popup_event": ChatEventKind.GRANT,
    "subscribe_msg_change_event": ChatEventKind.GRANT,
}
"""By Event in lower case, where MsgType is event."""

TEXTS: Mapping[ChatEventKind, str] = {
    ChatEventKind.TEXT: "Content",
    ChatEventKind.VOICE: "Recognition",
    ChatEventKind.MENU: "EventKey",
}
"""Which element is the event's text."""

WRAPPERS = ("SubscribeMsgPopupEvent", "SubscribeMsgChangeEvent", "SubscribeMsgSentEvent")
"""All are looked into: the published sample of a change stands in the popup's wrapper."""

GRANT_WORDS: Mapping[str, bool] = {"accept": True, "reject": False}


class BadPush(ValueError):
    """Authentic, yet not what a push is; the message names the element and quotes nothing."""


def event_of(document: Mapping[str, object]) -> ChatEvent:
    """What the push says. An Event that we do not know is OTHER. Raises BadPush."""
    open_id, to = _needed(document, "FromUserName"), _needed(document, "ToUserName")
    message_type, event = _needed(document, "MsgType").lower(), _word(document, "Event").lower()
    is_event = message_type == "event"
    if is_event:
        kind = EVENT_KINDS.get(event, ChatEventKind.OTHER)
    else:
        kind = MESSAGE_KINDS.get(message_type, ChatEventKind.MEDIA)
    scene = _word(document, "EventKey")
    if kind is ChatEventKind.FOLLOWED:
        scene = scene.removeprefix(SCENE_PREFIX) if scene.startswith(SCENE_PREFIX) else ""
    elif kind is not ChatEventKind.SCANNED:
        scene = ""
    return ChatEvent(
        event_id=_event_id(document, is_event=is_event),
        kind=kind,
        open_id=open_id,
        to=to,
        happened_at=_moment(document),
        text=storable(_text(document, TEXTS[kind]), TEXT_LENGTH_MAX) if kind in TEXTS else "",
        scene=scene,
        deliveries=tuple(_deliveries(document)) if kind is ChatEventKind.DELIVERED else (),
        grants=tuple(_grants(document)) if kind is ChatEventKind.GRANT else (),
    )


def _event_id(document: Mapping[str, object], *, is_event: bool) -> str:
    """消息排重: messages by MsgId, events by FromUserName and CreateTime.

    Two events of one person in one second differ in what they are about, so that is part of it.
    """
    to, message_id = _text(document, "ToUserName"), _text(document, "MsgId")
    if message_id and not is_event:
        return event_id_of(to, message_id)
    about = [_text(document, name) for name in ("MsgType", "Event", "EventKey", "MsgID", "MsgId")]
    for entry in _entries(document):
        about += [_text(entry, name) for name in ("TemplateId", "SubscribeStatusString", "MsgID")]
    return event_id_of(to, _text(document, "FromUserName"), _text(document, "CreateTime"), *about)


def _deliveries(document: Mapping[str, object]) -> Iterator[Delivery]:
    if message_id := _word(document, "MsgID"):
        status = _text(document, "Status").strip()
        yield Delivery(platform_message_id=message_id, ok=_finished_well(status), code=_code(status))
    for entry in _entries(document):
        if message_id := _word(entry, "MsgID"):
            code = _text(entry, "ErrorCode").strip()
            ok = code == "0" if _WHOLE_NUMBER.fullmatch(code) else None
            yield Delivery(platform_message_id=message_id, ok=ok, code=_code(code))


def _finished_well(status: str) -> bool | None:
    """Of TEMPLATESENDJOBFINISH: success, or failed: with a reason, of which new ones are seen from time to time."""
    if status == "success":
        return True
    return False if status.startswith("failed:") else None


def _grants(document: Mapping[str, object]) -> Iterator[Grant]:
    for entry in _entries(document):
        if template_id := _word(entry, "TemplateId"):
            word = _word(entry, "SubscribeStatusString").lower()
            yield Grant(template_id=template_id, accepted=GRANT_WORDS.get(word))


def _entries(document: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The entries of List, with and without a wrapper, at most so many."""
    holders = [document, *(holder for name in WRAPPERS for holder in _mappings(document.get(name)))]
    return [entry for holder in holders for entry in _mappings(holder.get("List"))][:LIST_LENGTH_MAX]


def _mappings(value: object) -> list[Mapping[str, object]]:
    """One object, or the objects in an array."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, Mapping)]


def _moment(document: Mapping[str, object]) -> datetime:
    text = _word(document, "CreateTime")
    if not (text.isascii() and text.isdecimal() and len(text) <= MOMENT_DIGITS_MAX):
        raise BadPush("CreateTime missing, or no moment")
    return datetime.fromtimestamp(int(text), UTC)


def _needed(document: Mapping[str, object], name: str) -> str:
    if word := _word(document, name):
        return word
    raise BadPush(f"{name} missing, repeated or too long")


def _word(document: Mapping[str, object], name: str) -> str:
    """An id or a key word; empty when it is missing or longer than any is. Never cut: it would be another one."""
    text = _text(document, name).strip()
    return storable(text, ID_LENGTH_MAX) if len(text) <= ID_LENGTH_MAX else ""


def _code(text: str) -> str:
    return storable(text, CODE_LENGTH_MAX)


def _text(document: Mapping[str, object], name: str) -> str:
    """A text, or a whole number's digits; empty for everything else."""
    value = document.get(name)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
