"""What an account's server answers to a push, read as strictly as the platform reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from simulators.wechat_books import App, Callback
from simulators.wechat_cipher import signature, unseal

REPLY_BYTES_MAX = 1 << 16
TEXT_BYTES_MAX = 2048


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A passive reply as the phone shows it; `kind` is its MsgType."""

    kind: str
    text: str
    items: Sequence[Mapping[str, str]] = ()
    opens: Mapping[str, str] = field(default_factory=dict)


def read_reply(body: bytes, *, app: App, callback: Callback, open_id: str, now: datetime) -> Reply | None:
    """The reply in this answer; None when it says that there is none. Raises ValueError: the person sees a line."""
    text = body.decode()
    if text in {"", "success"}:
        return None
    if len(body) > REPLY_BYTES_MAX:
        raise ValueError("too long")
    values = _parse(text, callback.format)
    if "Encrypt" in values:
        values = _parse(_opened(values, app, callback, now), callback.format)
    elif callback.mode == "safe":
        raise ValueError("a plain reply in safe mode")
    if values.get("ToUserName") != open_id or values.get("FromUserName") != app.original_id:
        raise ValueError("for or from somebody else")
    if not re.fullmatch(r"\d{1,12}", str(values.get("CreateTime"))):
        raise ValueError("CreateTime is no whole number")
    return _shown(values)


def _parse(text: str, form: str) -> dict[str, Any]:
    if form == "json":
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
        return values
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("a document type is refused")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no document type, so no entities; and bounded above
    except ElementTree.ParseError as error:
        raise ValueError("no XML") from error
    if root.tag != "xml":
        raise ValueError("the root is not <xml>")
    parsed = _element(root)
    if not isinstance(parsed, dict):
        raise ValueError("an empty document")
    return parsed


def _element(element: ElementTree.Element) -> Any:
    if not len(element):
        return element.text or ""
    if all(child.tag == "item" for child in element):
        return [_element(child) for child in element]
    return {child.tag: _element(child) for child in element}


def _opened(values: Mapping[str, Any], app: App, callback: Callback, now: datetime) -> str:
    if callback.mode == "plain":
        raise ValueError("a sealed reply in plain mode")
    sealed = str(values["Encrypt"])
    if not {"MsgSignature", "TimeStamp", "Nonce"} <= values.keys():
        raise ValueError("a sealed reply without its signature")
    expected = signature(callback.token, str(values["TimeStamp"]), str(values["Nonce"]), sealed)
    if values["MsgSignature"] != expected:
        raise ValueError("wrong MsgSignature")
    keys = [callback.aes_key]
    if callback.previous_until is not None and now < callback.previous_until:
        keys.append(callback.previous_aes_key)
    for key in keys:
        try:
            return unseal(key, app.app_id, sealed).decode()
        except ValueError:
            continue
    raise ValueError("sealed with an unknown key")


def _shown(values: Mapping[str, Any]) -> Reply:
    kind = values.get("MsgType")
    match kind:
        case "text":
            content = values.get("Content")
            if not isinstance(content, str) or not content or len(content.encode()) > TEXT_BYTES_MAX:
                raise ValueError("Content is missing or too long")
            return Reply(kind=kind, text=content)
        case "image" | "voice":
            media = values.get(kind.capitalize())
            if not isinstance(media, dict) or not media.get("MediaId"):
                raise ValueError("MediaId is missing")
            return Reply(kind=kind, text=str(media["MediaId"]))
        case "video" | "music":
            media = values.get(kind.capitalize())
            if not isinstance(media, dict) or not (media.get("MediaId") or media.get("ThumbMediaId")):
                raise ValueError("the media are missing")
            return Reply(kind=kind, text=str(media.get("Title", "")))
        case "news":
            return _news(values)
        case "transfer_customer_service":
            return Reply(kind=kind, text="")
        case _:
            raise ValueError(f"unknown MsgType {kind!r}")


def _news(values: Mapping[str, Any]) -> Reply:
    articles = values.get("Articles")
    if not isinstance(articles, list) or not articles or str(values.get("ArticleCount")) != str(len(articles)):
        raise ValueError("ArticleCount is not the number of articles")
    first = articles[0]  # the platform shows one
    if not isinstance(first, dict) or not first.get("Title") or not first.get("Url"):
        raise ValueError("an article without Title or Url")
    item = {
        "title": str(first["Title"]),
        "text": str(first.get("Description", "")),
        "picture": str(first.get("PicUrl", "")),
        "url": str(first["Url"]),
    }
    return Reply(kind="news", text=f"{item['title']}\n{item['text']}", items=(item,), opens={"url": item["url"]})
