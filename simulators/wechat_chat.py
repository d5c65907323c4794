"""What people do with the accounts in their phones: follow, scan, write, speak, click; each is pushed and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulators.wechat_books import App, Books, User
from simulators.wechat_menu import Menus
from simulators.wechat_pushes import Pushes
from simulators.wechat_qrcodes import QrCodes
from simulators.wechat_threads import Threads


class Chat:
    """The person's side of the threads. Raises KeyError for who or what is not there, ValueError for what fails."""

    def __init__(self, books: Books, threads: Threads, pushes: Pushes, qrcodes: QrCodes) -> None:
        self._books = books
        self._threads = threads
        self._pushes = pushes
        self._qrcodes = qrcodes

    def follow(self, user_id: str, app_id: str, scene: str = "", ticket: str = "") -> None:
        user, app = self._books.users[user_id], self._books.apps[app_id]
        if app_id in user.follows:
            return
        user.follows.add(app_id)
        values = {"EventKey": f"qrscene_{scene}", "Ticket": ticket} if scene else {"EventKey": ""}
        self._happened(app, user, "subscribe", values, scene="subscribe", text="关注了公众号")

    def unfollow(self, user_id: str, app_id: str) -> None:
        user, app = self._books.users[user_id], self._books.apps[app_id]
        if app_id not in user.follows:
            return
        user.follows.discard(app_id)
        self._threads.close(app_id, user_id)
        self._happened(app, user, "unsubscribe", {"EventKey": ""}, scene="", text="取消了关注")

    def scan(self, user_id: str, read: str) -> str:
        """Scan a code with a scene, given its ticket or content; who does not follow yet does now.

        Returns the account's app id.
        """
        ticket, code = self._qrcodes.scanned(read)
        user, app = self._books.users[user_id], self._books.apps[code.app_id]
        if code.app_id in user.follows:
            values = {"EventKey": code.scene, "Ticket": ticket}
            self._happened(app, user, "SCAN", values, scene="scan", text="扫描了二维码")
        else:
            self.follow(user_id, code.app_id, code.scene, ticket)
        return code.app_id

    def say(self, user_id: str, app_id: str, text: str, *, menu_item: str = "") -> None:
        """Write a text, or choose an item of a menu message, which the app sends as its text."""
        user, app = self._follower(user_id, app_id)
        values: dict[str, Any] = {"Content": text}
        if menu_item:
            values["bizmsgmenuid"] = menu_item
        self._said(app, user, "text", values, text, scene="menu" if menu_item else "message")

    def speak(self, user_id: str, app_id: str, recognition: str) -> None:
        user, app = self._follower(user_id, app_id)
        media = self._media(user, app)
        values = {"MediaId": media, "Format": "amr", "Recognition": recognition}
        self._said(app, user, "voice", values, recognition)

    def show_picture(self, user_id: str, app_id: str, url: str) -> None:
        user, app = self._follower(user_id, app_id)
        self._said(app, user, "image", {"PicUrl": url, "MediaId": self._media(user, app)}, url)

    def send_place(self, user_id: str, app_id: str, latitude: float, longitude: float, label: str) -> None:
        user, app = self._follower(user_id, app_id)
        values = {"Location_X": latitude, "Location_Y": longitude, "Scale": 16, "Label": label}
        self._said(app, user, "location", values, label)

    def click(self, user_id: str, app_id: str, key: str, *, scanned: str = "") -> dict[str, str]:
        """Press the menu button with this key, address or name; returns what opens on the phone.

        `scanned` is what a button that scans has read.
        """
        user, app = self._follower(user_id, app_id)
        button = Menus.button(app, key)
        name, kind = button["name"], button["type"]
        if kind == "view":
            values: dict[str, Any] = {"EventKey": button["url"], "MenuId": Menus.number(self._books, app)}
            self._happened(app, user, "VIEW", values, scene="", text=name)
            return {"url": button["url"]}
        if kind == "miniprogram":
            values = {"EventKey": button["pagepath"], "MenuId": Menus.number(self._books, app)}
            self._happened(app, user, "view_miniprogram", values, scene="", text=name)
            return {"appid": button["appid"], "pagepath": button["pagepath"]}
        values = {"EventKey": button["key"]}
        if kind.startswith("scancode_"):
            values["ScanCodeInfo"] = {"ScanType": "qrcode", "ScanResult": scanned}
        self._happened(app, user, "CLICK" if kind == "click" else kind, values, scene="menu", text=name)
        return {}

    def _said(
        self, app: App, user: User, kind: str, values: Mapping[str, Any], text: str, *, scene: str = "message"
    ) -> None:
        self._threads.add(app.app_id, user.user_id, author="person", via="message", kind=kind, text=text)
        self._threads.acted(app.app_id, user.user_id, scene)
        self._pushes.message(app, user, kind, values)

    def _happened(self, app: App, user: User, name: str, values: Mapping[str, Any], *, scene: str, text: str) -> None:
        self._threads.add(app.app_id, user.user_id, author="person", via="event", kind=name, text=text)
        if scene:
            self._threads.acted(app.app_id, user.user_id, scene)
        self._pushes.event(app, user, name, values)

    def _follower(self, user_id: str, app_id: str) -> tuple[User, App]:
        user, app = self._books.users[user_id], self._books.apps[app_id]
        if app_id not in user.follows:
            raise ValueError(f"{user_id} does not follow {app_id}")
        return user, app

    def _media(self, user: User, app: App) -> str:
        return self._books.word("media", app.app_id, user.user_id, user.pushed, length=64)


def entries_after(threads: Threads, app_id: str, user_id: str, number: int) -> list[dict[str, Any]]:
    """The thread as values, from the entry after this number on."""
    return [entry.shown() for entry in threads.of(app_id, user_id).entries if entry.number > number]


__all__ = ["Chat", "entries_after"]
