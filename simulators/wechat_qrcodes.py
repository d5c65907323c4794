"""QR codes with a scene, their pictures, and links that open a mini program."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from simulators.kit import Response
from simulators.wechat_books import App, Books, Refusal

EXPIRE_SECONDS_DEFAULT = 60
EXPIRE_SECONDS_MAX = 2_592_000
SCENE_ID_MAX = (1 << 32) - 1
PERMANENT_SCENE_ID_MAX = 100_000
SCENE_CHARACTERS_MAX = 64
LINK_DAYS_MAX = 30
ACTIONS = {"QR_SCENE": "scene_id", "QR_STR_SCENE": "scene_str"}
PERMANENT_ACTIONS = {"QR_LIMIT_SCENE": "scene_id", "QR_LIMIT_STR_SCENE": "scene_str"}


@dataclass(frozen=True, kw_only=True)
class QrCode:
    app_id: str
    scene: str
    content: str  # what a scanner reads
    until: datetime | None  # None: it never expires


@dataclass(frozen=True, kw_only=True)
class Link:
    """A URL Link: opened by any number of people until its time is over."""

    app_id: str
    path: str
    query: str
    until: datetime


class QrCodes:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._codes: dict[str, QrCode] = {}  # by ticket
        self._links: dict[str, Link] = {}

    def create(self, app: App, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Refusal."""
        action = body.get("action_name")
        field = {**ACTIONS, **PERMANENT_ACTIONS}.get(str(action))
        if field is None:
            raise Refusal(40052, "invalid action name")
        info = body.get("action_info")
        scene = info.get("scene") if isinstance(info, dict) else None
        value = scene.get(field) if isinstance(scene, dict) else None
        permanent = action in PERMANENT_ACTIONS
        if field == "scene_id":
            most = PERMANENT_SCENE_ID_MAX if permanent else SCENE_ID_MAX
            fine = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
        else:
            fine = isinstance(value, str) and 1 <= len(value) <= SCENE_CHARACTERS_MAX
        if not fine:
            raise Refusal(40053, "invalid action info")
        seconds = body.get("expire_seconds", EXPIRE_SECONDS_DEFAULT)
        if not permanent and (not isinstance(seconds, int) or not 1 <= seconds <= EXPIRE_SECONDS_MAX):
            raise Refusal(40053, "invalid expire_seconds")
        now = self._books.clock.now()
        number = len(self._codes)
        ticket = "gQ" + self._books.word("ticket", app.app_id, number, value, length=43) + "=="
        self._codes[ticket] = QrCode(
            app_id=app.app_id,
            scene=str(value),
            content=f"http://weixin.qq.com/q/{self._books.word('qr', ticket, length=22)}",
            until=None if permanent else now + timedelta(seconds=seconds),
        )
        answer: dict[str, Any] = {"ticket": ticket, "url": self._codes[ticket].content}
        return answer if permanent else answer | {"expire_seconds": seconds}

    def scanned(self, read: str) -> tuple[str, QrCode]:
        """The ticket and code for a ticket, or for what a scanner read. Raises KeyError, ValueError."""
        ticket = next((ticket for ticket, code in self._codes.items() if read in {ticket, code.content}), "")
        code = self._codes[ticket or read]
        if code.until is not None and code.until <= self._books.clock.now():
            raise ValueError("this code has expired")
        return ticket, code

    def picture(self, ticket: str) -> Response:
        """What mp.weixin.qq.com/cgi-bin/showqrcode shows."""
        code = self._codes.get(ticket)
        if code is None:
            return Response(status=404)
        import segno  # late: only whoever looks at a code needs it

        picture = io.BytesIO()
        segno.make_qr(code.content).save(picture, kind="png", scale=8)
        return Response(status=200, headers={"content-type": "image/png"}, body=picture.getvalue())

    def new_link(self, app: App, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Refusal."""
        path = str(body.get("path", ""))
        if app.pages is not None and path and path not in app.pages:
            raise Refusal(40165, "invalid weapp pagepath")
        days = body.get("expire_interval", LINK_DAYS_MAX)
        if not isinstance(days, int) or not 1 <= days <= LINK_DAYS_MAX:
            raise Refusal(85401, "expire_interval is more than 30 days")
        url = "https://wxaurl.cn/" + self._books.word("link", app.app_id, len(self._links), length=11)
        self._links[url] = Link(
            app_id=app.app_id,
            path=path,
            query=str(body.get("query", "")),
            until=self._books.clock.now() + timedelta(days=days),
        )
        return {"errcode": 0, "errmsg": "ok", "url_link": url}

    def opened(self, url: str) -> dict[str, str]:
        """What a phone opens at this link. Raises KeyError, ValueError."""
        link = self._links[url.partition("?")[0]]
        if link.until <= self._books.clock.now():
            raise ValueError("this link has expired")
        page = f"{link.path}?{link.query}" if link.query else link.path
        return {"appid": link.app_id, "pagepath": page}
