"""The WeChat platform (official accounts and mini programs, not WeChat Pay), with people and their phones.

Business errors are HTTP 200 with errcode and errmsg. Everything that looks random is a hash of the seed and
of what it is about; time comes from the clock alone. Each subject has a module of its own (`wechat_*.py`);
here is what people do, and which call goes where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from simulators.clock import Clock
from simulators.faults import Faults
from simulators.kit import Deliveries, Delivery, Request, Response
from simulators.wechat_books import (
    CODE_LIFE,
    MINI_PROGRAM,
    SERVICE,
    SHANGHAI,
    App,
    Books,
    Callback,
    PhoneMessage,
    Refusal,
    Template,
    User,
)
from simulators.wechat_chat import Chat, entries_after
from simulators.wechat_cipher import key_bytes
from simulators.wechat_console import Console
from simulators.wechat_custom import Custom
from simulators.wechat_faults import CHAT_FAULTS, FAULTS, NAME, WITH_TOKEN
from simulators.wechat_login import Login
from simulators.wechat_menu import Menus
from simulators.wechat_messages import CLIENT_MSG_ID_LIFE, Messages
from simulators.wechat_pushes import Pushes, push_forever, push_one
from simulators.wechat_qrcodes import QrCodes
from simulators.wechat_threads import SYSTEM_LINE, Threads
from simulators.wechat_tokens import FORCED_REFRESHES_PER_DAY, TOKEN_LIFE, TOKEN_OVERLAP, Tokens

TOKEN_SERVICE_PREFIX = "/token-service/"
KEY_TRANSITION = timedelta(hours=1)  # how long pushes under the previous EncodingAESKey still come

_BOTH = frozenset({SERVICE, MINI_PROGRAM})
_CALLS: Mapping[str, tuple[str, str, frozenset[str]]] = {
    "/cgi-bin/token": ("GET", "token", _BOTH),
    "/cgi-bin/stable_token": ("POST", "stable_token", _BOTH),
    "/cgi-bin/ticket/getticket": ("GET", "jsapi_ticket", frozenset({SERVICE})),
    "/sns/jscode2session": ("GET", "code2session", _BOTH),
    "/sns/oauth2/access_token": ("GET", "page_token", _BOTH),
    "/wxa/business/getuserphonenumber": ("POST", "phone_number", frozenset({MINI_PROGRAM})),
    "/wxa/generate_urllink": ("POST", "urllink", frozenset({MINI_PROGRAM})),
    "/cgi-bin/message/template/send": ("POST", "template_send", frozenset({SERVICE})),
    "/cgi-bin/message/subscribe/send": ("POST", "subscribe_send", frozenset({MINI_PROGRAM})),
    "/cgi-bin/message/subscribe/bizsend": ("POST", "subscribe_bizsend", frozenset({SERVICE})),
    "/cgi-bin/message/custom/send": ("POST", "custom_send", frozenset({SERVICE})),
    "/cgi-bin/message/custom/typing": ("POST", "typing", frozenset({SERVICE})),
    "/cgi-bin/template/get_all_private_template": ("GET", "template_list", frozenset({SERVICE})),
    "/wxaapi/newtmpl/gettemplate": ("GET", "subscribe_template_list", _BOTH),
    "/cgi-bin/qrcode/create": ("POST", "qrcode_create", frozenset({SERVICE})),
    "/cgi-bin/menu/create": ("POST", "menu_create", frozenset({SERVICE})),
    "/cgi-bin/menu/get": ("GET", "menu_get", frozenset({SERVICE})),
    "/cgi-bin/menu/delete": ("GET", "menu_delete", frozenset({SERVICE})),
}
"""Path → method, name of the call, kinds of app that may make it."""

AUTHORIZE, SHOW_QRCODE = "/connect/oauth2/authorize", "/cgi-bin/showqrcode"


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call of the server API; `app` is the token's, for the calls that need one."""

    app: App | None
    query: Mapping[str, str]
    request: Request
    struck: str  # name of the fault, "" for none

    @property
    def holder(self) -> App:
        assert self.app is not None
        return self.app

    @property
    def body(self) -> dict[str, Any]:
        """Raises Refusal."""
        try:
            body = self.request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refusal(47001, "data format error")
        return body


class WechatPlatformSimulator:
    """The platform's server side. People act through the methods, programs through `handle`."""

    name = NAME

    def __init__(self, *, clock: Clock, faults: Faults, seed: int = 0) -> None:
        self.clock = clock
        self.faults = faults
        self.deliveries = Deliveries()
        self.calls: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.record = Books(clock=clock, seed=seed)
        self.threads = Threads(clock)
        self.tokens = Tokens(self.record)
        self.login = Login(self.record)
        self.pushes = Pushes(self.record, self.threads, self.deliveries, faults)
        self.messages = Messages(self.record, self.threads, self.pushes)
        self.custom = Custom(self.record, self.threads)
        self.menus = Menus(self.record)
        self.qrcodes = QrCodes(self.record)
        self.chat = Chat(self.record, self.threads, self.pushes, self.qrcodes)
        self._console = Console(self)
        self._answers = self._table()
        faults.register(FAULTS)
        faults.register(CHAT_FAULTS)

    # ------------------------------------------------------------ set-up

    def add_official_account(self, name: str, *, app_id: str = "", secret: str = "") -> App:
        return self.record.add_app(SERVICE, name, app_id, secret)

    def add_mini_program(self, name: str, *, app_id: str = "", secret: str = "", pages: set[str] | None = None) -> App:
        app = self.record.add_app(MINI_PROGRAM, name, app_id, secret)
        app.pages = pages
        return app

    def link(self, account_app_id: str, mini_program_app_id: str) -> None:
        """Let the official account's messages open pages of the mini program."""
        self.record.apps[account_app_id].linked.add(mini_program_app_id)

    def add_template(
        self,
        app_id: str,
        title: str,
        fields: Mapping[str, str],
        *,
        template_id: str = "",
        long_term: bool = False,
        values: Mapping[str, Sequence[str]] | None = None,
    ) -> str:
        """Add a template, e.g. fields={"thing1": "项目", "amount2": "金额"}; returns its id."""
        app = self.record.apps[app_id]
        template_id = template_id or self.record.word("template", app_id, title, len(app.templates), length=43)
        app.templates[template_id] = Template(
            template_id=template_id,
            title=title,
            fields=dict(fields),
            long_term=long_term,
            values=values or {},
        )
        return template_id

    def add_picture(self, app_id: str, name: str) -> str:
        """An operator uploads a picture; returns its media_id."""
        media_id = self.record.word("picture", app_id, name, length=64)
        self.record.apps[app_id].media.add(media_id)
        return media_id

    def set_web_domain(self, app_id: str, domain: str) -> None:
        """Where this account's pages may sign people in: a host, or host:port."""
        self.record.apps[app_id].web_domain = domain

    def set_callback(
        self,
        app_id: str,
        *,
        url: str,
        token: str,
        aes_key: str = "",
        mode: str = "plain",
        format: str = "xml",
        check: bool = True,
    ) -> None:
        """An operator enters the address for pushes; it is used once it has echoed a word, at once without `check`.

        A new EncodingAESKey replaces the previous one slowly: for an hour every other push is sealed with the old.
        Raises ValueError.
        """
        if mode not in {"plain", "compatible", "safe"} or format not in {"xml", "json"}:
            raise ValueError(f"no such mode or format: {mode}, {format}")
        if aes_key or mode != "plain":
            key_bytes(aes_key)
        if not (3 <= len(token) <= 32 and token.isascii() and token.isalnum()):
            raise ValueError("a token is 3 to 32 letters and digits")
        app = self.record.apps[app_id]
        callback = Callback(url=url, token=token, aes_key=aes_key, mode=mode, format=format)
        old = app.callback
        if old is not None and old.aes_key and old.aes_key != aes_key:
            callback = replace(callback, previous_aes_key=old.aes_key, previous_until=self.clock.now() + KEY_TRANSITION)
        if check:
            self.pushes.check(app, callback)
        else:
            app.callback, app.callback_state = callback, "enabled"

    def open_token_service(self, app_id: str) -> tuple[str, str]:
        """Let a hospital's own service hand out this app's token; returns path and key, sent as Bearer."""
        app = self.record.apps[app_id]
        app.token_service_key = self.record.word("token service", app_id, length=32)
        return TOKEN_SERVICE_PREFIX + app_id, app.token_service_key

    def reset_secret(self, app_id: str) -> str:
        """An operator resets the secret: a new one, and every token is dead."""
        app = self.record.apps[app_id]
        app.secret = self.record.hex("secret", app_id, app.secret, length=32)
        self.tokens.kill(app)
        return app.secret

    def rotate_token(self, app_id: str) -> None:
        """Some other program with the same secret forces a refresh: the tokens we hold die."""
        self.tokens.rotate(self.record.apps[app_id])

    # ------------------------------------------------------------ people

    def add_user(self, name: str, *, phone: str, country_code: str = "86", user_id: str = "") -> str:
        """A person with a phone; returns the user id for the other methods."""
        return self.record.add_user(name, phone, country_code, user_id)

    def open_id(self, user_id: str, app_id: str) -> str:
        return self.record.open_id(user_id, app_id)

    def union_id(self, user_id: str) -> str:
        return self.record.union_id(user_id)

    def follow(self, user_id: str, app_id: str) -> None:
        self.chat.follow(user_id, app_id)

    def unfollow(self, user_id: str, app_id: str) -> None:
        self.chat.unfollow(user_id, app_id)

    def grant(
        self, user_id: str, app_id: str, template_id: str, *, times: int = 1, popup_scene: int | None = None
    ) -> None:
        """The person accepts: `times` sends of a one-time template, any number of a long-term one."""
        app = self.record.apps[app_id]
        scene = popup_scene if popup_scene is not None else int(app.kind == SERVICE)  # 1: a page in WeChat
        self.messages.accept(self.record.users[user_id], app, app.templates[template_id], times, scene)

    def refuse(self, user_id: str, app_id: str, template_id: str) -> None:
        """The person switches this template off in the settings."""
        app = self.record.apps[app_id]
        self.messages.refuse(self.record.users[user_id], app, app.templates[template_id])

    def new_login_code(self, user_id: str, app_id: str) -> str:
        """What wx.login gives: 5 minutes, one use."""
        return self.record.new_code("login", user_id, app_id)

    def new_phone_code(self, user_id: str, app_id: str) -> str:
        """What the phone button gives: 5 minutes, one use."""
        return self.record.new_code("phone", user_id, app_id)

    def encrypted_phone(self, user_id: str, app_id: str) -> tuple[str, str]:
        """The old way of the phone button: (encryptedData, iv) under this person's latest session key."""
        return self.login.encrypted_phone(self.record.users[user_id], app_id)

    def inbox(self, open_id: str) -> tuple[PhoneMessage, ...]:
        """What this person's phone shows from this app in its service notices, oldest first."""
        app_id, user_id = self.record.open_ids[open_id]
        return tuple(message for message in self.record.users[user_id].messages if message.app_id == app_id)

    def thread(self, user_id: str, app_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """The chat between this person and this account, oldest first, from the entry after this number on."""
        return entries_after(self.threads, app_id, user_id, after)

    def books(self) -> dict[str, Any]:
        """Everything that people and programs have done here, for the console and for an oracle."""
        return self._console.books() | {
            "calls": dict(sorted(self.calls.items())),
            "answers": {str(code): count for code, count in sorted(self.answers.items())},
        }

    # ------------------------------------------------------------ simulators.kit

    def classify(self, request: Request) -> tuple[str, str]:
        if request.path.startswith(TOKEN_SERVICE_PREFIX):
            return "token_service", request.path.removeprefix(TOKEN_SERVICE_PREFIX)
        query = dict(parse_qsl(request.query))
        if request.path == AUTHORIZE:
            return "authorize", query.get("appid", "")
        if request.path == SHOW_QRCODE:
            return "showqrcode", query.get("ticket", "")
        call = _CALLS[request.path][1] if request.path in _CALLS else "console"
        try:
            body = request.json()
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else {}
        for key in ("touser", "code", "appid"):
            if isinstance(body.get(key), str):
                return call, body[key]
        return call, query.get("js_code") or query.get("code") or query.get("appid") or ""

    async def handle(self, request: Request) -> Response:
        if request.path.startswith("/_"):
            return self._console.handle(request)
        if request.path.startswith(TOKEN_SERVICE_PREFIX):
            return self._token_service(request)
        call, key = self.classify(request)
        if call in {"authorize", "showqrcode"}:
            self.calls[call] += 1
            return self.login.authorize(request) if call == "authorize" else self.qrcodes.picture(key)
        if request.path not in _CALLS:
            return Response(status=404)
        self.calls[call] += 1
        try:
            method = _CALLS[request.path][0]
            if request.method != method:
                raise Refusal(43001 if method == "GET" else 43002, f"require {method} method")
            answer = self._answer(call, key, request)
        except Refusal as refusal:
            self.answers[refusal.errcode] += 1
            return Response.of_json(
                {"errcode": refusal.errcode, "errmsg": f"{refusal.errmsg} rid: {self._rid(call, key)}"}
            )
        self.answers[0] += 1
        return Response.of_json(answer)

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """An account's server has answered a push, or has not."""
        self.pushes.delivered(delivery, response)

    # ------------------------------------------------------------ the calls

    def _table(self) -> Mapping[str, Callable[[_Call], dict[str, Any]]]:
        return {
            "token": lambda call: self.tokens.plain(call.query),
            "stable_token": lambda call: self.tokens.stable(call.body),
            "code2session": lambda call: self.login.code2session(call.query),
            "page_token": lambda call: self.login.page_token(call.query, call.struck),
            "phone_number": lambda call: self.login.phone_number(call.holder, call.body),
            "jsapi_ticket": self._jsapi_ticket,
            "template_send": lambda call: self.messages.send("template_send", call.holder, call.body, call.struck),
            "subscribe_send": lambda call: self.messages.send("subscribe_send", call.holder, call.body, call.struck),
            "subscribe_bizsend": lambda call: self.messages.send(
                "subscribe_bizsend", call.holder, call.body, call.struck
            ),
            "template_list": lambda call: self.messages.list_private(call.holder),
            "subscribe_template_list": lambda call: self.messages.list_subscribe(call.holder),
            "custom_send": lambda call: self.custom.send(call.holder, call.body, call.struck),
            "typing": lambda call: self.custom.typing(call.holder, call.body),
            "qrcode_create": lambda call: self.qrcodes.create(call.holder, call.body),
            "urllink": lambda call: self.qrcodes.new_link(call.holder, call.body),
            "menu_create": lambda call: self.menus.create(call.holder, call.body),
            "menu_get": lambda call: self.menus.get(call.holder),
            "menu_delete": lambda call: self.menus.delete(call.holder),
        }

    def _answer(self, call: str, key: str, request: Request) -> dict[str, Any]:
        fault = self.faults.pick(self.name, call, key, specific=True)
        struck = fault.name.removeprefix(f"{self.name}.") if fault else ""
        query = dict(parse_qsl(request.query))
        if struck == "system_busy_-1":
            raise Refusal(-1, "system error")
        if struck == "ip_40164":
            raise Refusal(40164, "invalid ip 203.0.113.9, not in whitelist")
        app = None
        if call in WITH_TOKEN:
            token = query.get("access_token", "")
            if struck == "token_rotated" and (holder := self.tokens.holder(token)):
                self.tokens.rotate(holder)
            app = self.tokens.app_of(token, _CALLS[request.path][2])
            if struck == "token_refused":
                raise Refusal(40001, "invalid credential, access_token is invalid or not latest")
        if struck == "rate_45011":
            raise Refusal(45011, "api minute-quota reach limit")
        if struck == "code_40029":
            raise Refusal(40029, "invalid code")
        return self._answers[call](_Call(app=app, query=query, request=request, struck=struck))

    def _jsapi_ticket(self, call: _Call) -> dict[str, Any]:
        if call.query.get("type", "jsapi") != "jsapi":
            raise Refusal(40097, "invalid args type")
        hour = self.clock.now().strftime("%Y%m%d%H")
        ticket = self.record.word("ticket", call.holder.app_id, hour, length=86)
        return {"errcode": 0, "errmsg": "ok", "ticket": ticket, "expires_in": 7200}

    def _token_service(self, request: Request) -> Response:
        self.calls["token_service"] += 1
        app = self.record.apps.get(request.path.removeprefix(TOKEN_SERVICE_PREFIX))
        if app is None or not app.token_service_key:
            return Response(status=404)
        if request.headers.get("authorization") != f"Bearer {app.token_service_key}":
            return Response.of_json({"error": "key"}, status=401)
        return Response.of_json(self.tokens.renewed(app))

    def _rid(self, call: str, key: str) -> str:
        text = self.record.hex("rid", call, key, self.calls[call], length=24)
        return f"{text[:8]}-{text[8:16]}-{text[16:]}"


__all__ = [
    "App",
    "CLIENT_MSG_ID_LIFE",
    "CODE_LIFE",
    "FORCED_REFRESHES_PER_DAY",
    "MINI_PROGRAM",
    "PhoneMessage",
    "SERVICE",
    "SHANGHAI",
    "SYSTEM_LINE",
    "TOKEN_LIFE",
    "TOKEN_OVERLAP",
    "TOKEN_SERVICE_PREFIX",
    "Template",
    "User",
    "WechatPlatformSimulator",
    "push_forever",
    "push_one",
]
