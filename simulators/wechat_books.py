"""What the simulated WeChat platform knows: apps, people with their phones, codes, and its made-up words.

Everything that looks random is a hash of the seed and of what it is about; time comes from the clock alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from simulators.clock import Clock

SHANGHAI = ZoneInfo("Asia/Shanghai")
CODE_LIFE = timedelta(minutes=5)
SENDS_PER_DAY = 100_000
PHONE_MESSAGES_MAX = 1000  # a phone keeps its latest

SERVICE, MINI_PROGRAM = "service", "miniprogram"


class Refusal(Exception):
    """The platform says no: HTTP 200 with errcode and errmsg."""

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


@dataclass(frozen=True, kw_only=True)
class Callback:
    """Where an account's pushes go and how they are sealed."""

    url: str
    token: str
    aes_key: str = ""  # EncodingAESKey; may be empty in plain mode
    mode: str = "plain"  # "plain" | "compatible" | "safe"
    format: str = "xml"  # "xml" | "json"
    previous_aes_key: str = ""
    previous_until: datetime | None = None  # some pushes are still sealed with the previous key until then


@dataclass(kw_only=True)
class App:
    """An official account or a mini program."""

    app_id: str
    secret: str
    kind: str
    name: str
    original_id: str = ""  # gh_…, the ToUserName of its pushes
    templates: dict[str, Template] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)  # mini programs that this account may open
    pages: set[str] | None = None  # of a mini program; None: any page exists
    sends_per_day: int = SENDS_PER_DAY
    token_service_key: str = ""  # of the hospital's own token service; empty: there is none
    callback: Callback | None = None
    callback_state: str = "none"  # "none" | "checking" | "enabled" | "failed"
    web_domain: str = ""  # where its pages may sign people in (网页授权域名): host, or host:port on a laptop
    menu: list[dict[str, Any]] = field(default_factory=list)
    media: set[str] = field(default_factory=set)  # pictures that an operator has uploaded
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
    pushed: int = 0  # messages and events of this person
    messages: deque[PhoneMessage] = field(default_factory=lambda: deque(maxlen=PHONE_MESSAGES_MAX))


@dataclass(kw_only=True)
class Code:
    """A code from a phone: 5 minutes, one use."""

    use: str  # "login" | "phone" | "oauth"
    user_id: str
    app_id: str
    made_at: datetime
    spent: bool = False


class Books:
    """Apps, people, codes and the names between them."""

    def __init__(self, *, clock: Clock, seed: int) -> None:
        self.clock = clock
        self.seed = seed
        self.apps: dict[str, App] = {}
        self.users: dict[str, User] = {}
        self.codes: dict[str, Code] = {}
        self.open_ids: dict[str, tuple[str, str]] = {}  # openid → (app, user)

    def add_app(self, kind: str, name: str, app_id: str, secret: str) -> App:
        app_id = app_id or "wx" + self.hex("app", kind, name, length=16)
        if app_id in self.apps:
            raise ValueError(f"there is an app {app_id} already")
        secret = secret or self.hex("secret", app_id, length=32)
        original_id = "gh_" + self.hex("original id", app_id, length=12)
        app = self.apps[app_id] = App(app_id=app_id, secret=secret, kind=kind, name=name, original_id=original_id)
        for user_id in self.users:
            self.open_ids[self.open_id(user_id, app_id)] = (app_id, user_id)
        return app

    def add_user(self, name: str, phone: str, country_code: str, user_id: str) -> str:
        user_id = user_id or "user_" + self.hex("user", name, phone, length=8)
        if user_id in self.users:
            raise ValueError(f"there is a user {user_id} already")
        self.users[user_id] = User(user_id=user_id, name=name, phone=phone, country_code=country_code)
        for app_id in self.apps:
            self.open_ids[self.open_id(user_id, app_id)] = (app_id, user_id)
        return user_id

    def open_id(self, user_id: str, app_id: str) -> str:
        return "o" + self.word("openid", app_id, user_id, length=27)

    def union_id(self, user_id: str) -> str:
        return "oU" + self.word("unionid", user_id, length=26)

    def holder_of(self, app: App, open_id: object) -> User:
        """The person behind this app's openid. Raises Refusal."""
        app_id, user_id = self.open_ids.get(open_id, ("", "")) if isinstance(open_id, str) else ("", "")
        if app_id != app.app_id:
            raise Refusal(40003, "invalid openid")
        return self.users[user_id]

    def new_code(self, use: str, user_id: str, app_id: str) -> str:
        user, now = self.users[user_id], self.clock.now()
        self.codes = {code: each for code, each in self.codes.items() if now - each.made_at < 2 * CODE_LIFE}
        user.codes_made += 1
        code = "0" + self.word(use, app_id, user_id, user.codes_made, length=31)
        self.codes[code] = Code(use=use, user_id=user_id, app_id=self.apps[app_id].app_id, made_at=now)
        return code

    def spend(self, use: str, app: App, code: object) -> User:
        """The person who made this code, which is used up. Raises Refusal."""
        if not code:
            raise Refusal(41008, "missing code")
        entry = self.codes.get(str(code))
        if entry is None or entry.use != use or self.clock.now() - entry.made_at >= CODE_LIFE:
            raise Refusal(40029, "invalid code")
        if entry.app_id != app.app_id:
            raise Refusal(40029, "invalid code, appid not match")
        if entry.spent:
            raise Refusal(40163, "code been used")
        entry.spent = True
        return self.users[entry.user_id]

    # ------------------------------------------------------------ made-up words

    def digest(self, *parts: object) -> bytes:
        return hashlib.sha256("\x1f".join([str(self.seed), *map(str, parts)]).encode()).digest()

    def word(self, *parts: object, length: int) -> str:
        return base64.urlsafe_b64encode(self.digest(*parts)).decode().rstrip("=")[:length]

    def hex(self, *parts: object, length: int) -> str:
        return self.digest(*parts).hex()[:length]

    def number(self, *parts: object) -> int:
        """A positive number that fits into 62 bits, as message ids do."""
        return int.from_bytes(self.digest(*parts)[:8], "big") >> 2
