"""A hospital on the simulated WeChat platform: official account, mini program, one patient, our adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bot.wechat.client import WechatApi
from bot.wechat.messenger import SubscribeMessenger, TemplateMessenger
from bot.wechat.platform import WechatMiniProgram
from bot.wechat.tokens import AccessTokens
from core.memory import MemoryTokenStore
from core.ports import NOTICE_KINDS, ChatAccount, MessageKind, OutgoingMessage, TokenStore
from simulators.clock import ManualClock
from simulators.faults import Faults
from simulators.kit import Request, Response, exchange
from simulators.wechat import App, WechatPlatformSimulator
from tests.support.transports import InProcessTransport, WatchedTransport
from wire.http import Transport

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
PHONE = "13900001234"
FIELDS = {
    "thing1": "项目",
    "amount2": "金额",
    "time3": "时间",
    "name4": "姓名",
    "character_string5": "单号",
    "phrase6": "状态",
}
SOURCES = {
    "thing1": "title",
    "amount2": "amount",
    "time3": "time",
    "name4": "name",
    "character_string5": "number",
    "phrase6": "=待缴费",
}
PAGE = "pages/bill/index?b=abc"


@dataclass(kw_only=True)
class WechatOfTests:
    """Everything that a test of the WeChat platform needs, wired over one Transport."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    faults: Faults = field(default_factory=Faults)
    base_url: str = "https://platform.test"
    simulator: WechatPlatformSimulator = field(init=False)
    official: App = field(init=False)
    mini: App = field(init=False)
    user: str = field(init=False)
    template: str = field(init=False)
    one_time: str = field(init=False)
    long_term: str = field(init=False)

    def __post_init__(self) -> None:
        self.simulator = WechatPlatformSimulator(clock=self.clock, faults=self.faults, seed=7)
        self.official = self.simulator.add_official_account("示范医院")
        self.mini = self.simulator.add_mini_program("示范医院缴费", pages={"pages/bill/index"})
        self.simulator.link(self.official.app_id, self.mini.app_id)
        self.template = self.simulator.add_template(self.official.app_id, "待缴费通知", FIELDS)
        self.one_time = self.simulator.add_template(self.mini.app_id, "缴费通知", FIELDS)
        self.long_term = self.simulator.add_template(self.mini.app_id, "就医服务通知", FIELDS, long_term=True)
        self.user = self.simulator.add_user("王小明", phone=PHONE)
        self.simulator.follow(self.user, self.official.app_id)

    def transport(self) -> WatchedTransport:
        """Straight into the simulator, without a socket."""
        return WatchedTransport(InProcessTransport({self.base_url: self.simulator}))

    def wire(self, transport: Transport, store: TokenStore | None = None) -> Adapters:
        api = WechatApi(transport=transport)
        tokens = AccessTokens(api=api, store=store or MemoryTokenStore(clock=self.clock), clock=self.clock)
        return Adapters(
            tokens=tokens,
            platform=WechatMiniProgram(api=api, tokens=tokens),
            template=TemplateMessenger(tokens=tokens, clock=self.clock),
            subscribe=SubscribeMessenger(tokens=tokens, clock=self.clock),
        )

    def account(self, app: App, template: str = "", **params: str) -> ChatAccount:
        entry = json.dumps({"id": template or self.template, "fields": SOURCES})
        return ChatAccount(
            id=UUID(int=1),
            institution_id=UUID(int=2),
            platform="wechat_service" if app is self.official else "wechat_miniprogram",
            app_id=app.app_id,
            params={"secret": app.secret, "base_url": self.base_url, **params},
            templates=dict.fromkeys(NOTICE_KINDS, entry),
        )

    def open_id(self, app: App) -> str:
        return self.simulator.open_id(self.user, app.app_id)

    def message(self, app: App, *, number: int = 1, **changes: Any) -> OutgoingMessage:
        fields: Mapping[str, str] = {
            "title": "西药费",
            "amount": "19.98",
            "time": "2026-05-06 12:00",
            "name": "王*明",
            "number": "P0123456789",
            **changes.pop("fields", {}),
        }
        values: dict[str, Any] = {
            "message_id": UUID(int=number),
            "kind": MessageKind.NEW_BILL,
            "address": self.open_id(app),
            "language": "zh",
            "page": PAGE,
            **changes,
        }
        return OutgoingMessage(fields=fields, **values)

    async def ask(self, method: str, target: str, body: object = None, **headers: str) -> Any:
        """A hand-made request to the simulator; its JSON answer."""
        return (await self.response(method, target, body, **headers)).body_json()

    async def response(self, method: str, target: str, body: object = None, **headers: str) -> JsonResponse:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return JsonResponse(
            await exchange(self.simulator, Request(method=method, target=target, headers=headers, body=data))
        )


@dataclass(frozen=True)
class JsonResponse:
    response: Response

    @property
    def status(self) -> int:
        return self.response.status

    def body_json(self) -> Any:
        return json.loads(self.response.body)


@dataclass(frozen=True, kw_only=True)
class Adapters:
    tokens: AccessTokens
    platform: WechatMiniProgram
    template: TemplateMessenger
    subscribe: SubscribeMessenger
