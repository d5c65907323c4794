"""What the platform sends to an account's server: messages and events, in each mode and format, and what comes back.

Facts relied on (developers.weixin.qq.com, message push and passive reply pages): the query carries signature,
timestamp, nonce, openid and with encryption also encrypt_type and msg_signature; five seconds for an answer,
three attempts in all with the same MsgId and CreateTime; `success` and an empty body say nothing; anything that
cannot be read shows the person a line of the platform's own. Not documented, but met by owners of accounts: an HTTP
status that is no success is repeated, too; here those from 500 on are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from simulators.faults import Faults
from simulators.kit import Deliveries, Delivery, Request, Response
from simulators.wechat_books import App, Books, Callback, User
from simulators.wechat_cipher import seal, signature
from simulators.wechat_faults import NAME
from simulators.wechat_push_line import ANSWER_SECONDS, rendered
from simulators.wechat_replies import read_reply
from simulators.wechat_threads import Threads

ATTEMPTS = 3
DELAY = timedelta(seconds=30)  # of a push that is late
LOG_MAX = 1000
SILENT_EVENTS = frozenset({"VIEW", "view_miniprogram", "unsubscribe", "TEMPLATESENDJOBFINISH"})
"""Events after which the person sees nothing, whatever the account's server does; so are all of subscribe_msg_*."""


@dataclass(kw_only=True)
class Push:
    """A message or an event on its way; each attempt carries the same values."""

    key: str
    app: App
    user: User
    callback: Callback
    aes_key: str
    values: Mapping[str, Any]
    about: str  # MsgType, of an event its name
    shown: bool  # whether a failure is shown to the person
    answer_late: bool = False  # the first answer arrives after the line was dropped
    forged: bool = False  # sent by an outsider who knows no token


class Pushes:
    def __init__(self, books: Books, threads: Threads, deliveries: Deliveries, faults: Faults) -> None:
        self._books = books
        self._threads = threads
        self._deliveries = deliveries
        self._faults = faults
        self._under_way: dict[str, Push] = {}
        self._checks: dict[str, tuple[App, Callback, str]] = {}
        self._made = 0

    def message(self, app: App, user: User, kind: str, values: Mapping[str, Any]) -> None:
        """Something that the person wrote, spoke or showed."""
        user.pushed += 1
        number = self._books.number("MsgId", app.app_id, user.user_id, user.pushed)
        self._push(app, user, kind, {"MsgType": kind, **values, "MsgId": number}, shown=True)

    def event(self, app: App, user: User, name: str, values: Mapping[str, Any]) -> None:
        """Something that happened; nobody is told where the account has no callback."""
        user.pushed += 1
        shown = name not in SILENT_EVENTS and not name.startswith("subscribe_msg_")
        self._push(app, user, name, {"MsgType": "event", "Event": name, **values}, shown=shown)

    def check(self, app: App, callback: Callback) -> None:
        """Ask the new address to echo a word; it is used once it has."""
        echo = str(self._books.number("echostr", app.app_id, callback.url, callback.token))
        now = self._books.clock.now()
        query = self._signed(callback, now, "check") | {"echostr": echo}
        key = self._key("check")
        self._checks[key] = (app, callback, echo)
        app.callback_state = "checking"
        url = _with_query(callback.url, query)
        self._deliveries.schedule(due_at=now, url=url, key=key, build=_builder("GET", url, {}, b""))

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """Read the answer; without one in time, the same push goes out again."""
        if delivery.key in self._checks:
            self._checked(delivery, response)
            return
        push = self._under_way[delivery.key]
        if push.answer_late:
            push.answer_late, response = False, None
        result = self._result(push, response)
        self._log(delivery, push.about, push.user.user_id, response, "forged" if push.forged else result)
        if result == "none" and delivery.attempt < ATTEMPTS and not push.forged:
            self._schedule(push, delivery.due_at + timedelta(seconds=ANSWER_SECONDS), delivery.attempt + 1)
            return
        del self._under_way[delivery.key]
        if push.shown and not push.forged and result in {"none", "unreadable"}:
            self._threads.say_system_line(push.app.app_id, push.user.user_id)

    def _result(self, push: Push, response: Response | None) -> str:
        """What the answer is: "none", "unreadable", "nothing" to say, or a "reply", which is shown."""
        if response is None or response.status >= 500:
            return "none"
        if push.forged:
            return "forged"
        if response.status != 200:
            return "unreadable"
        open_id = self._books.open_id(push.user.user_id, push.app.app_id)
        now = self._books.clock.now()
        try:
            reply = read_reply(response.body, app=push.app, callback=push.callback, open_id=open_id, now=now)
        except ValueError:
            return "unreadable"
        if reply is None or not push.shown:
            return "nothing"
        self._threads.add(
            push.app.app_id,
            push.user.user_id,
            author="account",
            via="reply",
            kind=reply.kind,
            text=reply.text,
            items=reply.items,
            opens=reply.opens,
        )
        return "reply"

    def _checked(self, delivery: Delivery, response: Response | None) -> None:
        app, callback, echo = self._checks.pop(delivery.key)
        fine = response is not None and response.status == 200 and response.body == echo.encode()
        if fine:
            app.callback, app.callback_state = callback, "enabled"
        else:
            app.callback_state = "failed"
        self._log(delivery, "check", "", response, app.callback_state)

    def _push(self, app: App, user: User, about: str, values: Mapping[str, Any], *, shown: bool) -> None:
        if app.callback is None:
            return
        now = self._books.clock.now()
        fault = self._faults.pick(NAME, "push", user.user_id, specific=True)
        struck = fault.name.removeprefix(f"{NAME}.") if fault else ""
        values = {
            "ToUserName": app.original_id,
            "FromUserName": self._books.open_id(user.user_id, app.app_id),
            "CreateTime": int(now.timestamp()),
            **values,
        }

        def one(*, forged: bool = False) -> Push:
            assert app.callback is not None
            push = Push(
                key=self._key("push"),
                app=app,
                user=user,
                callback=app.callback,
                aes_key=self._aes_key(app.callback, now, user.pushed),
                values=values,
                about=about,
                shown=shown,
                forged=forged,
            )
            self._under_way[push.key] = push
            return push

        if struck == "push_forged":
            self._schedule(one(forged=True), now, 1)
        push = one()
        push.answer_late = struck == "push_answer_late"
        self._schedule(push, now + DELAY if struck == "push_delayed" else now, 1)
        if struck == "push_repeated":
            self._schedule(one(), now, 1)

    def _schedule(self, push: Push, due_at: datetime, attempt: int) -> None:
        callback = push.callback
        query = self._signed(callback, due_at, f"{push.key}/{attempt}")
        query["openid"] = str(push.values["FromUserName"])
        plain = rendered(push.values, callback.format)
        body = plain
        if callback.mode != "plain":
            filler = self._books.word("filler", push.key, attempt, length=16).encode()
            sealed = seal(push.aes_key, push.app.app_id, plain, filler)
            query["encrypt_type"] = "aes"
            query["msg_signature"] = signature(callback.token, query["timestamp"], query["nonce"], sealed)
            kept = push.values if callback.mode == "compatible" else {"ToUserName": push.app.original_id}
            body = rendered({**kept, "Encrypt": sealed}, callback.format)
        if push.forged:
            for name in ("signature", "msg_signature"):
                if name in query:
                    query[name] = self._books.hex("forged", push.key, name, length=40)
        content_type = "application/json" if callback.format == "json" else "text/xml"
        url = _with_query(callback.url, query)
        self._deliveries.schedule(
            due_at=due_at,
            url=url,
            key=push.key,
            build=_builder("POST", url, {"content-type": content_type}, body),
            attempt=attempt,
        )

    def _signed(self, callback: Callback, at: datetime, about: str) -> dict[str, str]:
        timestamp = str(int(at.timestamp()))
        nonce = str(self._books.number("nonce", about) % 10_000_000_000)
        return {
            "signature": signature(callback.token, timestamp, nonce),
            "timestamp": timestamp,
            "nonce": nonce,
        }

    @staticmethod
    def _aes_key(callback: Callback, now: datetime, number: int) -> str:
        """After a change of the key every other push is still sealed with the previous one for a while."""
        if callback.previous_until is not None and now < callback.previous_until and number % 2:
            return callback.previous_aes_key
        return callback.aes_key

    def _key(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._made}"

    def _log(self, delivery: Delivery, about: str, user_id: str, response: Response | None, result: str) -> None:
        self._deliveries.log.append(
            {
                "at": self._books.clock.now().isoformat(),
                "key": delivery.key,
                "about": about,
                "user": user_id,
                "attempt": delivery.attempt,
                "status": response.status if response else None,
                "result": result,
            }
        )
        del self._deliveries.log[:-LOG_MAX]


def _builder(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Any:
    parts = urlsplit(url)
    request = Request(method=method, target=f"{parts.path or '/'}?{parts.query}", headers=headers, body=body)

    def build(now: datetime) -> Request:
        return request

    return build


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"
