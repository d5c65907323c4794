"""The WeChat platform (official accounts and mini programs, not WeChat Pay), with people and their phones.

Business errors are HTTP 200 with errcode and errmsg. Everything that looks random is a hash of the seed and
of what it is about; time comes from the clock alone. Each subject has a module of its own (`wechat_*.py`);
here is what people do, and which call goes where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from simulators.clock import Clock
from simulators.faults import Fault, Faults
from simulators.kit import Deliveries, Delivery, Request, Response
from simulators.wechat_api import TOKEN_SERVICE_PREFIX, ServerApi
from simulators.wechat_books import (
    CODE_LIFE,
    MINI_PROGRAM,
    SERVICE,
    SHANGHAI,
    App,
    Books,
    Callback,
    PhoneMessage,
    Template,
    User,
)
from simulators.wechat_chat import Chat, entries_after
from simulators.wechat_cipher import key_bytes
from simulators.wechat_console import Console
from simulators.wechat_custom import Custom
from simulators.wechat_faults import CHAT_FAULTS, FAULTS, NAME
from simulators.wechat_login import Login
from simulators.wechat_menu import Menus
from simulators.wechat_messages import CLIENT_MSG_ID_LIFE, Messages
from simulators.wechat_push_line import push_forever, push_one
from simulators.wechat_pushes import Pushes
from simulators.wechat_qrcodes import QrCodes
from simulators.wechat_threads import SYSTEM_LINE, Threads
from simulators.wechat_tokens import FORCED_REFRESHES_PER_DAY, TOKEN_LIFE, TOKEN_OVERLAP, Tokens

KEY_TRANSITION = timedelta(hours=1)  # how long pushes under the previous EncodingAESKey still come


class WechatPlatformSimulator:
    """The platform's server side. People act through the methods, programs through `handle`."""

    name = NAME

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults,
        seed: int = 0,
        catalogue: Iterable[Fault] = (*FAULTS, *CHAT_FAULTS),
    ) -> None:
        """`catalogue`: the faults that may strike here."""
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
        self._server = ServerApi(self)
        faults.register(catalogue)

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
        if not url.startswith(("http://", "https://")):
            raise ValueError("a callback is an http address")
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
        return self._server.classify(request)

    async def handle(self, request: Request) -> Response:
        if request.path.startswith("/_"):
            return self._console.handle(request)
        return self._server.handle(request)

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """An account's server has answered a push, or has not."""
        self.pushes.delivered(delivery, response)


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
