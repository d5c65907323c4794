"""The platform's server API: which call goes where, whose token makes it, and which fault strikes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from simulators.kit import Request, Response
from simulators.wechat_books import MINI_PROGRAM, SERVICE, App, Refusal
from simulators.wechat_faults import WITH_TOKEN

if TYPE_CHECKING:
    from simulators.wechat import WechatPlatformSimulator

TOKEN_SERVICE_PREFIX = "/token-service/"

_BOTH = frozenset({SERVICE, MINI_PROGRAM})
_CALLS: Mapping[str, tuple[str, str, frozenset[str]]] = {
    "/cgi-bin/token": ("GET", "token", _BOTH),
    "/cgi-bin/stable_token": ("POST", "stable_token", _BOTH),
    "/cgi-bin/ticket/getticket": ("GET", "jsapi_ticket", frozenset({SERVICE})),
    "/cgi-bin/user/info": ("GET", "user_info", frozenset({SERVICE})),
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

    name: str
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


class ServerApi:
    def __init__(self, platform: WechatPlatformSimulator) -> None:
        self._platform = platform
        self._answers = self._table()

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

    def handle(self, request: Request) -> Response:
        if request.path.startswith(TOKEN_SERVICE_PREFIX):
            return self._token_service(request)
        call, key = self.classify(request)
        if call == "console":
            return Response(status=404)
        self._platform.calls[call] += 1
        if call == "authorize":
            return self._platform.login.authorize(request)
        if call == "showqrcode":
            return self._platform.qrcodes.picture(key)
        try:
            method = _CALLS[request.path][0]
            if request.method != method:
                raise Refusal(43001 if method == "GET" else 43002, f"require {method} method")
            answer = self._answer(call, key, request)
        except Refusal as refusal:
            self._platform.answers[refusal.errcode] += 1
            return Response.of_json(
                {"errcode": refusal.errcode, "errmsg": f"{refusal.errmsg} rid: {self._rid(call, key)}"}
            )
        self._platform.answers[0] += 1
        return Response.of_json(answer)

    def _table(self) -> Mapping[str, Callable[[_Call], dict[str, Any]]]:
        platform = self._platform
        return {
            "token": lambda call: platform.tokens.plain(call.query),
            "stable_token": lambda call: platform.tokens.stable(call.body),
            "user_info": lambda call: platform.login.user_info(call.holder, call.query),
            "code2session": lambda call: platform.login.code2session(call.query),
            "page_token": lambda call: platform.login.page_token(call.query, call.struck),
            "phone_number": lambda call: platform.login.phone_number(call.holder, call.body),
            "jsapi_ticket": self._jsapi_ticket,
            "template_send": self._send,
            "subscribe_send": self._send,
            "subscribe_bizsend": self._send,
            "template_list": lambda call: platform.messages.list_private(call.holder),
            "subscribe_template_list": lambda call: platform.messages.list_subscribe(call.holder),
            "custom_send": lambda call: platform.custom.send(call.holder, call.body, call.struck),
            "typing": lambda call: platform.custom.typing(call.holder, call.body),
            "qrcode_create": lambda call: platform.qrcodes.create(call.holder, call.body),
            "urllink": lambda call: platform.qrcodes.new_link(call.holder, call.body),
            "menu_create": lambda call: platform.menus.create(call.holder, call.body),
            "menu_get": lambda call: platform.menus.get(call.holder),
            "menu_delete": lambda call: platform.menus.delete(call.holder),
        }

    def _answer(self, call: str, key: str, request: Request) -> dict[str, Any]:
        fault = self._platform.faults.pick(self._platform.name, call, key, specific=True)
        struck = fault.name.removeprefix(f"{self._platform.name}.") if fault else ""
        query = dict(parse_qsl(request.query))
        if struck == "system_busy_-1":
            raise Refusal(-1, "system error")
        if struck == "ip_40164":
            raise Refusal(40164, "invalid ip 203.0.113.9, not in whitelist")
        app = None
        if call in WITH_TOKEN:
            token = query.get("access_token", "")
            if struck == "token_rotated" and (holder := self._platform.tokens.holder(token)):
                self._platform.tokens.rotate(holder)
            app = self._platform.tokens.app_of(token, _CALLS[request.path][2])
            if struck == "token_refused":
                raise Refusal(40001, "invalid credential, access_token is invalid or not latest")
        if struck == "rate_45011":
            raise Refusal(45011, "api minute-quota reach limit")
        if struck == "code_40029":
            raise Refusal(40029, "invalid code")
        return self._answers[call](_Call(name=call, app=app, query=query, request=request, struck=struck))

    def _send(self, call: _Call) -> dict[str, Any]:
        return self._platform.messages.send(call.name, call.holder, call.body, call.struck)

    def _jsapi_ticket(self, call: _Call) -> dict[str, Any]:
        if call.query.get("type", "jsapi") != "jsapi":
            raise Refusal(40097, "invalid args type")
        hour = self._platform.clock.now().strftime("%Y%m%d%H")
        ticket = self._platform.record.word("ticket", call.holder.app_id, hour, length=86)
        return {"errcode": 0, "errmsg": "ok", "ticket": ticket, "expires_in": 7200}

    def _token_service(self, request: Request) -> Response:
        self._platform.calls["token_service"] += 1
        app = self._platform.record.apps.get(request.path.removeprefix(TOKEN_SERVICE_PREFIX))
        if app is None or not app.token_service_key:
            return Response(status=404)
        if request.headers.get("authorization") != f"Bearer {app.token_service_key}":
            return Response.of_json({"error": "key"}, status=401)
        return Response.of_json(self._platform.tokens.renewed(app))

    def _rid(self, call: str, key: str) -> str:
        text = self._platform.record.hex("rid", call, key, self._platform.calls[call], length=24)
        return f"{text[:8]}-{text[8:16]}-{text[16:]}"
