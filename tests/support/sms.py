"""A hospital with an SMS application on the simulated platform, and our adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bot.sms.client import SmsApi
from bot.sms.messenger import SmsMessenger
from core.ports import ChatAccount, MessageKind, OutgoingMessage
from simulators.clock import ManualClock
from simulators.faults import Faults
from simulators.sms import SmsSimulator
from tests.support.transports import InProcessTransport, WatchedTransport
from wire.http import HttpReply, HttpRequest, Transport

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
PHONE = "13900001234"
SIGN = "仁和医院"
FIELDS = {
    "hospital": "仁和医院",
    "title": "门诊缴费",
    "amount": "¥19.98",
    "time": "2026年5月6日 12:00",
    "name": "王*明",
    "number": "P0123456789",
    "status": "缴费成功",
    "note": "请到门诊一楼药房2号窗口取药",
}


@dataclass(kw_only=True)
class SmsOfTests:
    """A hospital with an SMS application, and our adapter over one Transport."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    faults: Faults = field(default_factory=Faults)
    base_url: str = "https://sms.test"
    simulator: SmsSimulator = field(init=False)
    paid: str = field(init=False)
    code: str = field(init=False)

    def __post_init__(self) -> None:
        self.simulator = SmsSimulator(
            clock=self.clock, faults=self.faults, slow_seconds=0.2, per_30_seconds=1, per_hour=5, per_day=10
        )
        self.simulator.approve_sign(SIGN)
        self.paid = self.simulator.approve_template("您已缴费{1}元，时间{2}，{3}。")
        self.code = self.simulator.approve_template("验证码{1}，{2}分钟内有效。", kind="code")

    def account(self, templates: Mapping[str, str] | None = None, **params: str) -> ChatAccount:
        account = self.simulator.account
        return ChatAccount(
            id=UUID(int=1),
            institution_id=UUID(int=2),
            platform="sms",
            app_id=account.sdk_app_id,
            params={
                "secret_id": account.secret_id,
                "secret_key": account.secret_key,
                "sign_name": SIGN,
                "base_url": self.base_url,
                **params,
            },
            templates={
                "paid": json.dumps({"id": self.paid, "params": ["amount", "time", "note"]}),
                "phone_code": json.dumps({"id": self.code, "params": ["code", "=5"]}),
            }
            if templates is None
            else templates,
        )

    def transport(self) -> WatchedTransport:
        return WatchedTransport(InProcessTransport({self.base_url: self.simulator}))

    def messenger(self, transport: Transport | None = None, *, call_seconds: float = 10) -> SmsMessenger:
        api = SmsApi(transport=transport or self.transport(), clock=self.clock, call_seconds=call_seconds)
        return SmsMessenger(api=api, clock=self.clock)

    def texts(self, phone: str = PHONE) -> list[str]:
        return [message.text for message in self.simulator.messages(phone)]


def a_message(number: int = 1, *, kind: MessageKind = MessageKind.PAID, address: str = PHONE) -> OutgoingMessage:
    fields = {**FIELDS, "code": "042137"} if kind is MessageKind.PHONE_CODE else FIELDS
    return OutgoingMessage(message_id=UUID(int=number), kind=kind, address=address, language="zh", fields=fields)


class Says:
    """A platform with one answer to every call."""

    def __init__(self, body: bytes | Mapping[str, Any], status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps({"Response": body}).encode()
        self._reply = HttpReply(status=status, body=data)
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        self.requests.append(request)
        return self._reply


def a_status(code: str, **changes: Any) -> dict[str, Any]:
    status = {
        "SerialNo": "5000:1045710669157053657849499619" if code == "Ok" else "",
        "PhoneNumber": f"+86{PHONE}",
        "Fee": 1,
        "SessionContext": UUID(int=1).hex,
        "Code": code,
        "Message": f"about +86{PHONE}",
        "IsoCode": "CN",
    }
    return {"SendStatusSet": [{**status, **changes}], "RequestId": "a0aabda6-cf91-4f3e-a81f-9198114a2279"}


def an_error(code: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": f"about +86{PHONE}"}, "RequestId": "ed93f3cb-f35e-473f"}
