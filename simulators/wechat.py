"""The WeChat platform (official accounts and mini programs, not WeChat Pay), with people and their phones.

Business errors are HTTP 200 with errcode and errmsg. Everything that looks random is a hash of the seed and
of what it is about; time comes from the clock alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from simulators.clock import Clock
from simulators.faults import Faults
from simulators.kit import Deliveries, Delivery, Request, Response
from simulators.wechat_faults import FAULTS, NAME, WITH_TOKEN
from simulators.wechat_values import problem_of

SHANGHAI = ZoneInfo("Asia/Shanghai")
TOKEN_LIFE = timedelta(seconds=7200)
TOKEN_OVERLAP = timedelta(minutes=5)
FORCED_REFRESH_SPACING = timedelta(seconds=30)
FORCED_REFRESHES_PER_DAY = 20
CODE_LIFE = timedelta(minutes=5)
CLIENT_MSG_ID_LIFE = timedelta(minutes=10)
SENDS_PER_DAY = 100_000
PHONE_MESSAGES_MAX = 1000  # a phone keeps its latest
TOKENS_REMEMBERED_MAX = 1000  # to tell an expired token from one that never was

SERVICE, MINI_PROGRAM = "service", "miniprogram"

_CALLS = {
    "/cgi-bin/token": ("GET", "token"),
    "/cgi-bin/stable_token": ("POST", "stable_token"),
    "/cgi-bin/ticket/getticket": ("GET", "jsapi_ticket"),
    "/sns/jscode2session": ("GET", "code2session"),
    "/wxa/business/getuserphonenumber": ("POST", "phone_number"),
    "/cgi-bin/message/template/send": ("POST", "template_send"),
    "/cgi-bin/message/subscribe/send": ("POST", "subscribe_send"),
    "/cgi-bin/message/subscribe/bizsend": ("POST", "subscribe_bizsend"),
}
_KIND_OF_CALL = {
    "jsapi_ticket": SERVICE,
    "template_send": SERVICE,
    "subscribe_bizsend": SERVICE,
    "subscribe_send": MINI_PROGRAM,
    "phone_number": MINI_PROGRAM,
}
TOKEN_SERVICE_PREFIX = "/token-service/"


class _Refusal(Exception):
    def __init__(self, errcode: int, errmsg: str) -> None:
        self.errcode = errcode
        self.errmsg = errmsg
        super().__init__(errcode, errmsg)


@dataclass(kw_only=True)
class Template:
    """A message template in an account's list; `fields` maps its keys to the labels that a phone shows."""

    template_id: str
    title: str
    fields: Mapping[str, str]
    long_term: bool = False
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of const and enum keys


@dataclass(kw_only=True)
class App:
    """An official account or a mini program."""

    app_id: str
    secret: str
    kind: str
    name: str
    templates: dict[str, Template] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)  # mini programs that this account may open
    pages: set[str] | None = None  # of a mini program; None: any page exists
    sends_per_day: int = SENDS_PER_DAY
    token_service_key: str = ""  # of the hospital's own token service; empty: there is none
    stable: str = ""
    plain: str = ""
    tokens: dict[str, datetime] = field(default_factory=dict)  # token → when it dies; oldest first
    tokens_made: int = 0
    forced_at: datetime | None = None
    forced: Counter[str] = field(default_factory=Counter)  # per Shanghai day


@dataclass(frozen=True, kw_only=True)
class PhoneMessage:
    """One message as the phone shows it."""

    at: datetime
    msgid: int
    app_id: str
    sender: str  # name of the account
    title: str
    lines: tuple[tuple[str, str], ...]  # label, value
    opens: Mapping[str, str]  # {"appid", "pagepath"} or {"url"} or nothing
    client_msg_id: str = ""

    @property
    def text(self) -> str:
        return "\n".join([self.title, *(f"{label}：{value}" for label, value in self.lines)])

    def shown(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(),
            "msgid": self.msgid,
            "appid": self.app_id,
            "from": self.sender,
            "title": self.title,
            "lines": [list(line) for line in self.lines],
            "text": self.text,
            "opens": dict(self.opens),
            "client_msg_id": self.client_msg_id,
        }


@dataclass(kw_only=True)
class User:
    """A person with a phone."""

    user_id: str
    name: str
    phone: str
    country_code: str
    follows: set[str] = field(default_factory=set)
    grants: Counter[tuple[str, str]] = field(default_factory=Counter)  # (app, template) → sends left
    long_grants: set[tuple[str, str]] = field(default_factory=set)
    session_keys: dict[str, str] = field(default_factory=dict)
    codes_made: int = 0
    received: int = 0
    messages: deque[PhoneMessage] = field(default_factory=lambda: deque(maxlen=PHONE_MESSAGES_MAX))


@dataclass(kw_only=True)
class _Code:
    use: str  # "login" | "phone"
    user_id: str
    app_id: str
    made_at: datetime
    spent: bool = False


class WechatPlatformSimulator:
    """The platform's server side. People act through the methods, programs through `handle`."""

    name = NAME

    def __init__(self, *, clock: Clock, faults: Faults, seed: int = 0) -> None:
        self.clock = clock
        self.faults = faults
        self.deliveries = Deliveries()
        self.calls: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self._seed = seed
        self._apps: dict[str, App] = {}
        self._users: dict[str, User] = {}
        self._codes: dict[str, _Code] = {}
        self._open_ids: dict[str, tuple[str, str]] = {}  # openid → (app, user)
        self._client_msg_ids: dict[tuple[str, str], tuple[datetime, int]] = {}
        self._sent: Counter[tuple[str, str, str]] = Counter()  # (app, call, day)
        faults.register(FAULTS)

    # ------------------------------------------------------------ set-up

    def add_official_account(self, name: str, *, app_id: str = "", secret: str = "") -> App:
        return self._add_app(SERVICE, name, app_id, secret)

    def add_mini_program(self, name: str, *, app_id: str = "", secret: str = "", pages: set[str] | None = None) -> App:
        app = self._add_app(MINI_PROGRAM, name, app_id, secret)
        app.pages = pages
        return app

    def link(self, account_app_id: str, mini_program_app_id: str) -> None:
        """Let the official account's messages open pages of the mini program."""
        self._apps[account_app_id].linked.add(mini_program_app_id)

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
        app = self._apps[app_id]
        template_id = template_id or self._word("template", app_id, title, len(app.templates), length=43)
        app.templates[template_id] = Template(
            template_id=template_id,
            title=title,
            fields=dict(fields),
            long_term=long_term,
            values=values or {},
        )
        return template_id

    def open_token_service(self, app_id: str) -> tuple[str, str]:
        """Let a hospital's own service hand out this app's token; returns path and key, sent as Bearer."""
        app = self._apps[app_id]
        app.token_service_key = self._word("token service", app_id, length=32)
        return TOKEN_SERVICE_PREFIX + app_id, app.token_service_key

    def reset_secret(self, app_id: str) -> str:
        """An operator resets the secret: a new one, and every token is dead."""
        app = self._apps[app_id]
        app.secret = self._hex("secret", app_id, app.secret, length=32)
        self._kill_tokens(app)
        return app.secret

    def rotate_token(self, app_id: str) -> None:
        """Some other program with the same secret forces a refresh: the tokens we hold die."""
        app = self._apps[app_id]
        self._kill_tokens(app)
        app.stable = self._new_token(app)

    # ------------------------------------------------------------ people

    def add_user(self, name: str, *, phone: str, country_code: str = "86", user_id: str = "") -> str:
        """A person with a phone; returns the user id for the other methods."""
        user_id = user_id or "user_" + self._hex("user", name, phone, length=8)
        if user_id in self._users:
            raise ValueError(f"there is a user {user_id} already")
        self._users[user_id] = User(user_id=user_id, name=name, phone=phone, country_code=country_code)
        for app_id in self._apps:
            self._open_ids[self.open_id(user_id, app_id)] = (app_id, user_id)
        return user_id

    def open_id(self, user_id: str, app_id: str) -> str:
        return "o" + self._word("openid", app_id, user_id, length=27)

    def union_id(self, user_id: str) -> str:
        return "oU" + self._word("unionid", user_id, length=26)

    def follow(self, user_id: str, app_id: str) -> None:
        self._users[user_id].follows.add(self._apps[app_id].app_id)

    def unfollow(self, user_id: str, app_id: str) -> None:
        self._users[user_id].follows.discard(app_id)

    def grant(self, user_id: str, app_id: str, template_id: str, *, times: int = 1) -> None:
        """The person accepts: `times` sends of a one-time template, any number of a long-term one."""
        user, template = self._users[user_id], self._apps[app_id].templates[template_id]
        if template.long_term:
            user.long_grants.add((app_id, template_id))
        else:
            user.grants[(app_id, template_id)] += times

    def refuse(self, user_id: str, app_id: str, template_id: str) -> None:
        """The person switches this template off in the settings."""
        user = self._users[user_id]
        user.long_grants.discard((app_id, template_id))
        user.grants.pop((app_id, template_id), None)

    def new_login_code(self, user_id: str, app_id: str) -> str:
        """What wx.login gives: 5 minutes, one use."""
        return self._new_code("login", user_id, app_id)

    def new_phone_code(self, user_id: str, app_id: str) -> str:
        """What the phone button gives: 5 minutes, one use."""
        return self._new_code("phone", user_id, app_id)

    def encrypted_phone(self, user_id: str, app_id: str) -> tuple[str, str]:
        """The old way of the phone button: (encryptedData, iv) under this person's latest session key."""
        user = self._users[user_id]
        values = {**self._phone_info(user, app_id)}
        padder = PKCS7(128).padder()
        padded = padder.update(json.dumps(values, separators=(",", ":")).encode()) + padder.finalize()
        iv = self._bytes("iv", app_id, user_id, user.codes_made)[:16]
        encryptor = Cipher(AES(base64.b64decode(user.session_keys[app_id])), CBC(iv)).encryptor()
        sealed = encryptor.update(padded) + encryptor.finalize()
        return base64.b64encode(sealed).decode(), base64.b64encode(iv).decode()

    def inbox(self, open_id: str) -> tuple[PhoneMessage, ...]:
        """What this person's phone shows from this app, oldest first."""
        app_id, user_id = self._open_ids[open_id]
        return tuple(message for message in self._users[user_id].messages if message.app_id == app_id)

    def books(self) -> dict[str, Any]:
        """Everything that people and programs have done here, for the console and for an oracle."""
        return {
            "apps": [
                {
                    "appid": app.app_id,
                    "kind": app.kind,
                    "name": app.name,
                    "templates": {each.template_id: each.title for each in app.templates.values()},
                    "tokens_made": app.tokens_made,
                }
                for app in self._apps.values()
            ],
            "users": [
                {
                    "user": user.user_id,
                    "name": user.name,
                    "open_ids": {app_id: self.open_id(user.user_id, app_id) for app_id in self._apps},
                    "follows": sorted(user.follows),
                    "grants": [[*grant, left] for grant, left in sorted(user.grants.items()) if left],
                    "long_grants": [list(grant) for grant in sorted(user.long_grants)],
                    "received": user.received,
                    "messages": [message.shown() for message in user.messages],
                }
                for user in self._users.values()
            ],
            "calls": dict(sorted(self.calls.items())),
            "answers": {str(code): count for code, count in sorted(self.answers.items())},
        }

    # ------------------------------------------------------------ simulators.kit

    def classify(self, request: Request) -> tuple[str, str]:
        if request.path.startswith(TOKEN_SERVICE_PREFIX):
            return "token_service", request.path.removeprefix(TOKEN_SERVICE_PREFIX)
        call = _CALLS.get(request.path, ("", "console"))[1]
        query = dict(parse_qsl(request.query))
        try:
            body = request.json()
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else {}
        for key in ("touser", "code", "appid"):
            if isinstance(body.get(key), str):
                return call, body[key]
        return call, query.get("js_code") or query.get("appid") or ""

    async def handle(self, request: Request) -> Response:
        if request.path.startswith("/_"):
            return self._console(request)
        if request.path.startswith(TOKEN_SERVICE_PREFIX):
            return self._token_service(request)
        if request.path not in _CALLS:
            return Response(status=404)
        method, call = _CALLS[request.path]
        self.calls[call] += 1
        _, key = self.classify(request)
        try:
            if request.method != method:
                raise _Refusal(43001 if method == "GET" else 43002, f"require {method} method")
            answer = self._answer(call, key, request)
        except _Refusal as refusal:
            self.answers[refusal.errcode] += 1
            return Response.of_json(
                {"errcode": refusal.errcode, "errmsg": f"{refusal.errmsg} rid: {self._rid(call, key)}"}
            )
        self.answers[0] += 1
        return Response.of_json(answer)

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """Nothing is pushed yet, so nothing is sent again."""

    # ------------------------------------------------------------ the calls

    def _answer(self, call: str, key: str, request: Request) -> dict[str, Any]:
        fault = self.faults.pick(self.name, call, key, specific=True)
        struck = fault.name.removeprefix(f"{self.name}.") if fault else ""
        query = dict(parse_qsl(request.query))
        if struck == "system_busy_-1":
            raise _Refusal(-1, "system error")
        if struck == "ip_40164":
            raise _Refusal(40164, "invalid ip 203.0.113.9, not in whitelist")
        if call in WITH_TOKEN:
            if struck == "token_rotated" and (holder := self._holder(query.get("access_token", ""))):
                self.rotate_token(holder.app_id)
            app = self._app_of_token(call, query.get("access_token", ""))
            if struck == "token_refused":
                raise _Refusal(40001, "invalid credential, access_token is invalid or not latest")
        else:
            app = None
        if struck == "rate_45011":
            raise _Refusal(45011, "api minute-quota reach limit")
        if struck == "code_40029":
            raise _Refusal(40029, "invalid code")
        if call == "token":
            return self._plain_token(query)
        if call == "code2session":
            return self._code2session(query)
        if call == "jsapi_ticket":
            assert app is not None
            ticket = self._word("ticket", app.app_id, self.clock.now().strftime("%Y%m%d%H"), length=86)
            return {"errcode": 0, "errmsg": "ok", "ticket": ticket, "expires_in": 7200}
        body = self._object(request)
        if call == "stable_token":
            return self._stable_token(body)
        assert app is not None
        if call == "phone_number":
            return self._phone_number(app, body)
        return self._send(call, app, body, struck)

    @staticmethod
    def _object(request: Request) -> dict[str, Any]:
        try:
            body = request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise _Refusal(47001, "data format error")
        return body

    def _plain_token(self, query: Mapping[str, str]) -> dict[str, Any]:
        app = self._proven(query)
        now = self.clock.now()
        if app.plain in app.tokens:
            app.tokens[app.plain] = min(app.tokens[app.plain], now + TOKEN_OVERLAP)
        app.plain = self._new_token(app)
        return {"access_token": app.plain, "expires_in": int(TOKEN_LIFE.total_seconds())}

    def _stable_token(self, body: Mapping[str, Any]) -> dict[str, Any]:
        app = self._proven(body)
        now = self.clock.now()
        if body.get("force_refresh") is True:
            day = now.astimezone(SHANGHAI).date().isoformat()
            if app.forced[day] >= FORCED_REFRESHES_PER_DAY:
                raise _Refusal(45009, "reach max api daily quota limit")
            if app.forced_at is None or now - app.forced_at >= FORCED_REFRESH_SPACING:  # sooner: no refresh
                app.forced[day] += 1
                app.forced_at = now
                app.tokens.pop(app.stable, None)
        self._renew_stable(app)
        return {"access_token": app.stable, "expires_in": int((app.tokens[app.stable] - now).total_seconds())}

    def _renew_stable(self, app: App) -> None:
        """A new token when there is none or it is in its last five minutes; the old one lives on for five."""
        now = self.clock.now()
        ends_at = app.tokens.get(app.stable, now)
        if ends_at - now > TOKEN_OVERLAP:
            return
        if ends_at > now:
            app.tokens[app.stable] = now + TOKEN_OVERLAP
        app.stable = self._new_token(app)

    def _token_service(self, request: Request) -> Response:
        self.calls["token_service"] += 1
        app = self._apps.get(request.path.removeprefix(TOKEN_SERVICE_PREFIX))
        if app is None or not app.token_service_key:
            return Response(status=404)
        if request.headers.get("authorization") != f"Bearer {app.token_service_key}":
            return Response.of_json({"error": "key"}, status=401)
        self._renew_stable(app)
        left = app.tokens[app.stable] - self.clock.now()
        return Response.of_json({"access_token": app.stable, "expires_in": int(left.total_seconds())})

    def _code2session(self, query: Mapping[str, str]) -> dict[str, Any]:
        app = self._proven(query, grant_type="authorization_code")
        user = self._spend("login", app, query.get("js_code"))
        key = base64.b64encode(self._bytes("session", app.app_id, user.user_id, user.codes_made)[:16]).decode()
        user.session_keys[app.app_id] = key
        return {
            "session_key": key,
            "openid": self.open_id(user.user_id, app.app_id),
            "unionid": self.union_id(user.user_id),
        }

    def _phone_number(self, app: App, body: Mapping[str, Any]) -> dict[str, Any]:
        user = self._spend("phone", app, body.get("code"))
        return {"errcode": 0, "errmsg": "ok", "phone_info": self._phone_info(user, app.app_id)}

    def _phone_info(self, user: User, app_id: str) -> dict[str, Any]:
        domestic = user.country_code == "86"
        return {
            "phoneNumber": user.phone if domestic else f"+{user.country_code}{user.phone}",
            "purePhoneNumber": user.phone,
            "countryCode": user.country_code,
            "watermark": {"timestamp": int(self.clock.now().timestamp()), "appid": app_id},
        }

    def _send(self, call: str, app: App, body: Mapping[str, Any], struck: str) -> dict[str, Any]:
        day = self.clock.now().astimezone(SHANGHAI).date().isoformat()
        if struck == "quota_45009" or self._sent[(app.app_id, call, day)] >= app.sends_per_day:
            raise _Refusal(45009, "reach max api daily quota limit")
        self._sent[(app.app_id, call, day)] += 1
        to_user = body.get("touser")
        holder_app, user_id = self._open_ids.get(to_user, ("", "")) if isinstance(to_user, str) else ("", "")
        if holder_app != app.app_id:
            raise _Refusal(40003, "invalid openid")
        user = self._users[user_id]
        template = app.templates.get(str(body.get("template_id")))
        if template is None:
            raise _Refusal(40037, "invalid template_id")
        if struck == "unfollowed_43004":
            user.follows.discard(app.app_id)
        if struck == "refused_43101":
            self.refuse(user_id, app.app_id, template.template_id)
        grant = (app.app_id, template.template_id)
        if call == "template_send":
            if app.app_id not in user.follows:
                raise _Refusal(43004, "require subscribe")
        elif not (grant in user.long_grants if template.long_term else user.grants[grant] > 0):
            raise _Refusal(43101, "user refuse to accept the msg")
        opens = self._target(call, app, body)
        lines = self._lines(template, body.get("data"))
        client_msg_id = body.get("client_msg_id") if call == "template_send" else None
        client_msg_id = client_msg_id if isinstance(client_msg_id, str) else ""
        msgid = self._deliver(app, user, template, lines, opens, client_msg_id)
        if call != "template_send" and not template.long_term:
            user.grants[grant] -= 1
        if struck == "system_busy_-1_after":
            raise _Refusal(-1, "system error")
        answer: dict[str, Any] = {"errcode": 0, "errmsg": "ok"}
        return answer | {"msgid": msgid} if call == "template_send" else answer

    def _deliver(
        self,
        app: App,
        user: User,
        template: Template,
        lines: tuple[tuple[str, str], ...],
        opens: Mapping[str, str],
        client_msg_id: str,
    ) -> int:
        now = self.clock.now()
        guard = (self.open_id(user.user_id, app.app_id), client_msg_id)
        if client_msg_id:
            self._client_msg_ids = {
                key: entry for key, entry in self._client_msg_ids.items() if now - entry[0] < CLIENT_MSG_ID_LIFE
            }
            if guard in self._client_msg_ids:
                return self._client_msg_ids[guard][1]
        user.received += 1
        msgid = int.from_bytes(self._bytes("msgid", *guard, user.received)[:8], "big") >> 2
        user.messages.append(
            PhoneMessage(
                at=now,
                msgid=msgid,
                app_id=app.app_id,
                sender=app.name,
                title=template.title,
                lines=lines,
                opens=opens,
                client_msg_id=client_msg_id,
            )
        )
        if client_msg_id:
            self._client_msg_ids[guard] = (now, msgid)
        return msgid

    def _target(self, call: str, app: App, body: Mapping[str, Any]) -> dict[str, str]:
        """What a tap on the message opens."""
        mini_program = body.get("miniprogram")
        if call == "subscribe_send":
            state = body.get("miniprogram_state", "formal")
            if state not in {"developer", "trial", "formal"}:
                raise _Refusal(40097, "invalid args miniprogram_state")
            if body.get("lang", "zh_CN") not in {"zh_CN", "en_US", "zh_HK", "zh_TW"}:
                raise _Refusal(40097, "invalid args lang")
            mini_program = {"appid": app.app_id, "pagepath": body["page"]} if body.get("page") else None
        elif mini_program is not None and (
            not isinstance(mini_program, dict) or mini_program.get("appid") not in app.linked
        ):
            raise _Refusal(40013, "invalid appid of miniprogram, not linked")
        if isinstance(mini_program, dict):
            page = str(mini_program.get("pagepath", ""))
            pages = self._apps[str(mini_program["appid"])].pages
            if page.startswith("/") or (pages is not None and page.partition("?")[0] not in pages):
                raise _Refusal(41030, "invalid page")
            return {"appid": str(mini_program["appid"]), "pagepath": page}
        url = body.get("url" if call == "template_send" else "page")
        return {"url": str(url)} if url else {}

    @staticmethod
    def _lines(template: Template, data: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(data, dict):
            raise _Refusal(47003, "argument invalid! data is not an object")
        lines = []
        for key, label in template.fields.items():
            entry = data.get(key, {"value": ""})
            value = entry.get("value") if isinstance(entry, dict) else None
            if problem := problem_of(key, value, template.values.get(key)):
                raise _Refusal(47003, f"argument invalid! {problem}")
            lines.append((label, str(value).strip()))
        return tuple(lines)

    # ------------------------------------------------------------ the console

    def _console(self, request: Request) -> Response:
        """What a person does with a phone, as JSON: for the sandbox's console, never struck by a fault."""
        query = dict(parse_qsl(request.query))
        try:
            body = request.json() if request.method == "POST" else None
            if request.method == "GET":
                return Response.of_json(self._look(request.path, query))
            if not isinstance(body, dict):
                return Response.of_json({"error": "a JSON object is expected"}, status=400)
            return Response.of_json(self._act(request.path, {str(key): value for key, value in body.items()}))
        except (KeyError, ValueError, TypeError) as error:
            return Response.of_json({"error": f"{type(error).__name__}: {error}"}, status=404)

    def _look(self, path: str, query: Mapping[str, str]) -> Any:
        if path == "/_inbox":
            if "openid" in query:
                return [message.shown() for message in self.inbox(query["openid"])]
            return [message.shown() for message in self._users[query["user"]].messages]
        if path == "/_books":
            return self.books()
        raise KeyError(path)

    def _act(self, path: str, body: Mapping[str, Any]) -> Any:
        acts: dict[str, Callable[..., Any]] = {
            "/_add_user": lambda name, phone: {"user": self.add_user(name, phone=phone)},
            "/_login_code": lambda user, appid: {"code": self.new_login_code(user, appid)},
            "/_phone_code": lambda user, appid: {"code": self.new_phone_code(user, appid)},
            "/_follow": lambda user, appid: self.follow(user, appid),
            "/_unfollow": lambda user, appid: self.unfollow(user, appid),
            "/_grant": lambda user, appid, template, times=1: self.grant(user, appid, template, times=times),
            "/_refuse": lambda user, appid, template: self.refuse(user, appid, template),
            "/_rotate_token": lambda appid: self.rotate_token(appid),
        }
        return acts[path](**body) or {}

    # ------------------------------------------------------------ tokens, codes, names

    def _add_app(self, kind: str, name: str, app_id: str, secret: str) -> App:
        app_id = app_id or "wx" + self._hex("app", kind, name, length=16)
        if app_id in self._apps:
            raise ValueError(f"there is an app {app_id} already")
        secret = secret or self._hex("secret", app_id, length=32)
        app = self._apps[app_id] = App(app_id=app_id, secret=secret, kind=kind, name=name)
        for user_id in self._users:
            self._open_ids[self.open_id(user_id, app_id)] = (app_id, user_id)
        return app

    def _proven(self, values: Mapping[str, Any], *, grant_type: str = "client_credential") -> App:
        """The app that these credentials belong to."""
        if values.get("grant_type") != grant_type:
            raise _Refusal(40002, "invalid grant_type")
        if not values.get("appid"):
            raise _Refusal(41002, "appid missing")
        if not values.get("secret"):
            raise _Refusal(41004, "appsecret missing")
        app = self._apps.get(str(values["appid"]))
        if app is None:
            raise _Refusal(40013, "invalid appid")
        if values["secret"] != app.secret:
            raise _Refusal(40125, "invalid appsecret")
        return app

    def _holder(self, token: str) -> App | None:
        return next((app for app in self._apps.values() if token in app.tokens), None)

    def _app_of_token(self, call: str, token: str) -> App:
        if not token:
            raise _Refusal(41001, "access_token missing")
        app = self._holder(token)
        if app is None:
            raise _Refusal(40001, "invalid credential, access_token is invalid or not latest")
        if app.tokens[token] <= self.clock.now():
            raise _Refusal(42001, "access_token expired")
        if app.kind != _KIND_OF_CALL[call]:
            raise _Refusal(48001, "api unauthorized")
        return app

    def _new_token(self, app: App) -> str:
        app.tokens_made += 1
        token = f"{app.tokens_made}_" + "".join(
            self._word("token", app.app_id, app.tokens_made, part, length=43) for part in range(3)
        )
        app.tokens[token] = self.clock.now() + TOKEN_LIFE
        while len(app.tokens) > TOKENS_REMEMBERED_MAX:
            del app.tokens[next(iter(app.tokens))]
        return token

    @staticmethod
    def _kill_tokens(app: App) -> None:
        app.tokens.clear()
        app.stable = app.plain = ""

    def _new_code(self, use: str, user_id: str, app_id: str) -> str:
        user, now = self._users[user_id], self.clock.now()
        self._codes = {code: each for code, each in self._codes.items() if now - each.made_at < 2 * CODE_LIFE}
        user.codes_made += 1
        code = "0" + self._word(use, app_id, user_id, user.codes_made, length=31)
        self._codes[code] = _Code(use=use, user_id=user_id, app_id=self._apps[app_id].app_id, made_at=now)
        return code

    def _spend(self, use: str, app: App, code: object) -> User:
        if not code:
            raise _Refusal(41008, "missing code")
        entry = self._codes.get(str(code))
        if entry is None or entry.use != use or self.clock.now() - entry.made_at >= CODE_LIFE:
            raise _Refusal(40029, "invalid code")
        if entry.app_id != app.app_id:
            raise _Refusal(40029, "invalid code, appid not match")
        if entry.spent:
            raise _Refusal(40163, "code been used")
        entry.spent = True
        return self._users[entry.user_id]

    def _rid(self, call: str, key: str) -> str:
        text = self._hex("rid", call, key, self.calls[call], length=24)
        return f"{text[:8]}-{text[8:16]}-{text[16:]}"

    def _bytes(self, *parts: object) -> bytes:
        return hashlib.sha256("\x1f".join([str(self._seed), *map(str, parts)]).encode()).digest()

    def _word(self, *parts: object, length: int) -> str:
        return base64.urlsafe_b64encode(self._bytes(*parts)).decode().rstrip("=")[:length]

    def _hex(self, *parts: object, length: int) -> str:
        return self._bytes(*parts).hex()[:length]
