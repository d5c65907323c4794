"""The menu at the bottom of an official account, with the platform's own rules for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from simulators.wechat_books import App, Books, Refusal

BUTTONS_MAX = 3
SUB_BUTTONS_MAX = 5
NAME_BYTES_MAX, SUB_NAME_BYTES_MAX = 16, 60
KEY_BYTES_MAX = 128
URL_BYTES_MAX = 1024
KEYED = frozenset(
    {
        "click",
        "scancode_push",
        "scancode_waitmsg",
        "pic_sysphoto",
        "pic_photo_or_album",
        "pic_weixin",
        "location_select",
    }
)

_TOP = {"count": 40016, "type": 40017, "name": 40018, "key": 40019, "url": 40020}
_SUB = {"count": 40023, "type": 40024, "name": 40025, "key": 40026, "url": 40027}
_WORDS = {"count": "size", "type": "type", "name": "name size", "key": "key size", "url": "url size"}


class Menus:
    def __init__(self, books: Books) -> None:
        self._books = books

    def create(self, app: App, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the whole menu. Raises Refusal."""
        buttons = body.get("button")
        if not isinstance(buttons, list) or not 1 <= len(buttons) <= BUTTONS_MAX:
            raise _refused("count", sub=False)
        app.menu = [self._button(app, button, sub=False) for button in buttons]
        return {"errcode": 0, "errmsg": "ok"}

    @staticmethod
    def get(app: App) -> dict[str, Any]:
        """Raises Refusal."""
        if not app.menu:
            raise Refusal(46003, "menu no exist")
        return {"menu": {"button": app.menu}}

    @staticmethod
    def delete(app: App) -> dict[str, Any]:
        app.menu = []
        return {"errcode": 0, "errmsg": "ok"}

    @staticmethod
    def button(app: App, key: str) -> dict[str, Any]:
        """The button with this key, address, page or name. Raises KeyError."""
        for button in _leaves(app.menu):
            if key in {button.get("key"), button.get("url"), button.get("pagepath"), button["name"]}:
                return button
        raise KeyError(key)

    @staticmethod
    def number(books: Books, app: App) -> int:
        return books.number("menu", app.app_id, json.dumps(app.menu, sort_keys=True)) % 1_000_000_000

    def _button(self, app: App, button: object, *, sub: bool) -> dict[str, Any]:
        if not isinstance(button, dict):
            raise _refused("type", sub=sub)
        name = button.get("name")
        most = SUB_NAME_BYTES_MAX if sub else NAME_BYTES_MAX
        if not isinstance(name, str) or not 1 <= len(name.encode()) <= most:
            raise _refused("name", sub=sub)
        below = button.get("sub_button")
        if below:
            if sub:
                raise Refusal(40022, "invalid sub button level")
            if not isinstance(below, list) or len(below) > SUB_BUTTONS_MAX:
                raise _refused("count", sub=True)
            return {"name": name, "sub_button": [self._button(app, each, sub=True) for each in below]}
        kind = button.get("type")
        kept: dict[str, Any] = {"type": kind, "name": name, "sub_button": []}
        if kind in KEYED:
            return kept | {"key": _text(button, "key", KEY_BYTES_MAX, sub=sub)}
        if kind == "view":
            return kept | {"url": _address(button, sub=sub)}
        if kind == "miniprogram":
            url = _address(button, sub=sub)
            if button.get("appid") not in app.linked:
                raise Refusal(40166, "invalid weapp appid")
            page = button.get("pagepath")
            pages = self._books.apps[str(button["appid"])].pages
            if not isinstance(page, str) or (pages is not None and page.partition("?")[0] not in pages):
                raise Refusal(40165, "invalid weapp pagepath")
            return kept | {"url": url, "appid": button["appid"], "pagepath": page}
        raise _refused("type", sub=sub)


def _leaves(buttons: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for button in buttons:
        if button.get("sub_button"):
            yield from _leaves(button["sub_button"])
        else:
            yield button


def _text(button: Mapping[str, Any], name: str, most: int, *, sub: bool) -> str:
    value = button.get(name)
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= most:
        raise _refused(name, sub=sub)
    return value


def _address(button: Mapping[str, Any], *, sub: bool) -> str:
    url = _text(button, "url", URL_BYTES_MAX, sub=sub)
    if not url.startswith(("http://", "https://")):
        raise _refused("url", sub=sub)
    return url


def _refused(what: str, *, sub: bool) -> Refusal:
    code = (_SUB if sub else _TOP)[what]
    return Refusal(code, f"invalid {'sub ' if sub else ''}button {_WORDS[what]}")
