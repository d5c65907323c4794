"""Customer messages: what an account may write by itself for a while after a person did something."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from simulators.wechat_books import App, Books, Refusal, User
from simulators.wechat_threads import Threads

TEXT_BYTES_MAX = 2048
TYPING_LIFE = timedelta(seconds=15)
TYPING_AFTER = timedelta(seconds=30)  # the person wrote not longer ago than this


class Custom:
    def __init__(self, books: Books, threads: Threads) -> None:
        self._books = books
        self._threads = threads

    def send(self, app: App, body: Mapping[str, Any], struck: str) -> dict[str, Any]:
        """Raises Refusal."""
        user = self._follower(app, body)
        shown = self._shown(app, body)
        if struck == "custom_45015":
            self._threads.close(app.app_id, user.user_id)
        allowances = self._threads.left(app.app_id, user.user_id)
        if not allowances:
            raise Refusal(45015, "response out of time limit or subscription is canceled")
        usable = next((each for each in allowances if each.left > 0), None)
        if usable is None or struck == "custom_45047":
            raise Refusal(45047, "out of response count limit")
        usable.left -= 1
        self._threads.add(app.app_id, user.user_id, author="account", via="custom", kind=str(body["msgtype"]), **shown)
        if struck == "system_busy_-1_after":
            raise Refusal(-1, "system error")
        return {"errcode": 0, "errmsg": "ok"}

    def typing(self, app: App, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Refusal."""
        user = self._follower(app, body)
        thread, now = self._threads.of(app.app_id, user.user_id), self._books.clock.now()
        command = body.get("command")
        if command == "CancelTyping":
            thread.typing_until = None
        elif command != "Typing":
            raise Refusal(45072, "invalid command")
        elif thread.heard_at is None or now - thread.heard_at > TYPING_AFTER:
            raise Refusal(45080, "need sending message to the user within 30 seconds")
        elif thread.typing_until is not None and now < thread.typing_until:
            raise Refusal(45081, "typing already")
        else:
            thread.typing_until = now + TYPING_LIFE
        return {"errcode": 0, "errmsg": "ok"}

    def _follower(self, app: App, body: Mapping[str, Any]) -> User:
        user = self._books.holder_of(app, body.get("touser"))
        if app.app_id not in user.follows:
            raise Refusal(43004, "require subscribe")
        return user

    def _shown(self, app: App, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the phone shows of it: text, items, opens."""
        kind = body.get("msgtype")
        if kind not in {"text", "msgmenu", "miniprogrampage", "news"}:
            raise Refusal(40008, "invalid message type")
        content = body.get(str(kind))
        if not isinstance(content, dict):
            raise Refusal(44004, "empty content")
        if kind == "text":
            return {"text": _text(content, "content")}
        if kind == "msgmenu":
            return _menu(content)
        if kind == "news":
            return _news(content)
        return self._page(app, content)

    def _page(self, app: App, content: Mapping[str, Any]) -> dict[str, Any]:
        title = _text(content, "title")
        if content.get("appid") not in app.linked:
            raise Refusal(40013, "invalid appid of miniprogram, not linked")
        page = str(content.get("pagepath", ""))
        pages = self._books.apps[str(content["appid"])].pages
        if page.startswith("/") or (pages is not None and page.partition("?")[0] not in pages):
            raise Refusal(40165, "invalid weapp pagepath")
        if content.get("thumb_media_id") not in app.media:
            raise Refusal(40007, "invalid media_id")
        return {"text": title, "opens": {"appid": str(content["appid"]), "pagepath": page}}


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not value:
        raise Refusal(44004, "empty content")
    if len(value.encode()) > TEXT_BYTES_MAX:
        raise Refusal(45002, "content size out of limit")
    return value


def _menu(content: Mapping[str, Any]) -> dict[str, Any]:
    choices = content.get("list")
    if not isinstance(choices, list) or not choices:
        raise Refusal(47003, "argument invalid! msgmenu.list is empty")
    items = []
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("id"), str):
            raise Refusal(47003, "argument invalid! msgmenu.list.id")
        items.append({"id": choice["id"], "text": _text(choice, "content")})
    head, tail = str(content.get("head_content", "")), str(content.get("tail_content", ""))
    return {"text": "\n".join(part for part in (head, tail) if part), "items": tuple(items)}


def _news(content: Mapping[str, Any]) -> dict[str, Any]:
    articles = content.get("articles")
    if not isinstance(articles, list) or not articles:
        raise Refusal(44003, "empty news data")
    if len(articles) > 1:
        raise Refusal(45008, "article size out of limit")
    article = articles[0]
    if not isinstance(article, dict):
        raise Refusal(44003, "empty news data")
    item = {
        "title": _text(article, "title"),
        "text": str(article.get("description", "")),
        "picture": str(article.get("picurl", "")),
        "url": _text(article, "url"),
    }
    return {"text": f"{item['title']}\n{item['text']}", "items": (item,), "opens": {"url": item["url"]}}
