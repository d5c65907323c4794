"""A merchant who talks to the simulated Alipay without a socket, by hand-made requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote_plus

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from simulators.alipay import AlipaySimulator, Application, Merchant
from simulators.alipay_books import beijing_time
from simulators.alipay_keys import NOTICE_WITHOUT, encrypt, node_text, rsa_key, sign, signed_text, verify
from simulators.clock import ManualClock
from simulators.kit import Request, Response, deliver_one, exchange

PID = "2088000000000001"
APP_ID = "2021000000000001"
MINI_APP = "2021000000000002"
OPEN_ID = "074a1CcTG1LelxKe4xQC0zgNdId0nxi95b5lsNpazWYoCo5"
NOTIFY_URL = "https://pay.hospital.example/n/abc"
NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)

METHODS = {
    "create": "alipay.trade.create",
    "precreate": "alipay.trade.precreate",
    "wap": "alipay.trade.wap.pay",
    "query": "alipay.trade.query",
    "close": "alipay.trade.close",
    "cancel": "alipay.trade.cancel",
    "refund": "alipay.trade.refund",
    "query_refund": "alipay.trade.fastpay.refund.query",
    "bill": "alipay.data.dataservice.bill.downloadurl.query",
    "certificate": "alipay.open.app.alipaycert.download",
}
PRODUCT_CODES = {"create": "JSAPI_PAY", "precreate": "QR_CODE_OFFLINE", "wap": "QUICK_WAP_WAY"}


@dataclass(kw_only=True)
class MerchantOfTests:
    simulator: AlipaySimulator
    merchant: Merchant
    application: Application
    clock: ManualClock
    charset: str = "utf-8"
    received: list[dict[str, str]] = field(default_factory=list)
    answer: bytes = b"success"

    @property
    def key(self) -> RSAPrivateKey:
        return rsa_key(f"application {self.application.app_id}")  # as the simulator made it

    def params(self, call: str, content: object, **changes: str | None) -> dict[str, str]:
        """Correct parameters; `changes` replace some before they are signed (None drops one)."""
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        params: dict[str, str | None] = {
            "app_id": self.application.app_id,
            "method": METHODS.get(call, call),
            "format": "json",
            "charset": self.charset,
            "sign_type": "RSA2",
            "timestamp": beijing_time(self.clock.now()),
            "version": "1.0",
            "notify_url": NOTIFY_URL if call in PRODUCT_CODES else None,
            "biz_content": text,
        }
        if self.application.certificate_mode:
            params["app_cert_sn"] = self.application.cert_sn
            params["alipay_root_cert_sn"] = self.simulator.root_cert_sn
        params |= changes
        return {name: value for name, value in params.items() if value is not None}

    def signed(self, params: Mapping[str, str]) -> dict[str, str]:
        return {**params, "sign": sign(self.key, signed_text(params).encode(self.charset))}

    def request(self, params: Mapping[str, str]) -> Request:
        """As the SDKs send it: biz_content in the body, all else in the query."""
        query = {name: value for name, value in params.items() if name != "biz_content"}
        return Request(
            method="POST",
            target="/gateway.do?" + self.form(query),
            headers={"content-type": f"application/x-www-form-urlencoded;charset={self.charset}"},
            body=self.form({"biz_content": params.get("biz_content", "")}).encode(),
        )

    def form(self, values: Mapping[str, str]) -> str:
        return "&".join(f"{name}={quote_plus(value, encoding=self.charset)}" for name, value in values.items())

    async def send(self, method: str, content: object, **changes: str | None) -> Response:
        return await exchange(self.simulator, self.request(self.signed(self.params(method, content, **changes))))

    async def call(self, method: str, content: object, **changes: str | None) -> dict[str, Any]:
        """The node of the answer, whose signature must be right."""
        response = await self.send(method, content, **changes)
        return self.read(response, method)

    def read(self, response: Response, method: str = "") -> dict[str, Any]:
        body = response.body.decode(self.charset)
        node = f"{METHODS.get(method, method).replace('.', '_')}_response"
        node = node if f'"{node}"' in body else "error_response"
        assert self.verifies(response, node), body
        value = json.loads(body)[node]
        assert isinstance(value, dict)
        return value

    def verifies(self, response: Response, node: str) -> bool:
        body = response.body.decode(self.charset)
        envelope = json.loads(body)
        key = self.simulator.public_key
        if self.application.certificate_mode:
            key = self.simulator.certificate
            if envelope.get("alipay_cert_sn") != key.cert_sn:
                return False
        message = node_text(body, node).encode(self.charset)
        return verify(key.private_key.public_key(), message, envelope.get("sign", ""))

    async def create(self, number: str, product: str = "create", **changes: Any) -> dict[str, Any]:
        return await self.call(product, an_order(number, product, **changes))

    async def query(self, number: str, **more: Any) -> dict[str, Any]:
        return await self.call("query", {"out_trade_no": number, **more})

    async def refund(self, number: str, request_no: str, amount: str, **more: Any) -> dict[str, Any]:
        content = {"out_trade_no": number, "out_request_no": request_no, "refund_amount": amount}
        return await self.call("refund", content | more)

    async def query_refund(self, number: str, request_no: str) -> dict[str, Any]:
        return await self.call("query_refund", {"out_trade_no": number, "out_request_no": request_no})

    async def paid(self, number: str, **changes: Any) -> None:
        assert (await self.create(number, **changes))["code"] == "10000"
        assert self.simulator.pay(number) == "paid"

    async def open_page(self, number: str, **changes: Any) -> Response:
        return await self.send("wap", an_order(number, "wap", **changes), return_url="https://h.example/back?x=1")

    def encrypted(self, content: object) -> str:
        return encrypt(self.application.aes_key, json.dumps(content, ensure_ascii=False), self.charset)

    # --- notices

    def notice_fields(self, request: Request) -> dict[str, str] | None:
        """What a notice says, or None when it is not signed by the rule of payment notices."""
        charset = "gbk" if "gbk" in request.headers["content-type"].lower() else "utf-8"
        fields = dict(parse_qsl(request.body.decode(), encoding=charset, strict_parsing=True))
        key = self.simulator.certificate if self.application.certificate_mode else self.simulator.public_key
        message = signed_text(fields, without=NOTICE_WITHOUT).encode(charset)
        return fields if verify(key.private_key.public_key(), message, fields["sign"]) else None

    async def take(self, url: str, request: Request) -> Response:
        """Our side of a notice: refuse what does not verify, keep the rest."""
        fields = self.notice_fields(request)
        if fields is None:
            return Response(status=200, body=b"fail")
        self.received.append(fields)
        return Response(status=200, body=self.answer)

    async def deliver(self, *, within: timedelta = timedelta(minutes=2)) -> int:
        """Let time pass and notices arrive; returns how many were sent."""
        end, sent = self.clock.now() + within, 0
        while (due_at := self.simulator.deliveries.next_due_at()) is not None and due_at <= end:
            self.clock.advance(max(due_at - self.clock.now(), timedelta(0)))
            sent += await deliver_one(self.simulator, self.take)
        self.clock.advance(max(end - self.clock.now(), timedelta(0)))
        self.simulator.advance()  # what time itself ends is told too
        while await deliver_one(self.simulator, self.take):
            sent += 1
        return sent

    def statuses(self) -> list[str]:
        return [fields["trade_status"] for fields in self.received]


def an_order(number: str, product: str = "create", **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "out_trade_no": number,
        "total_amount": "1.00",
        "subject": "门诊缴费",
        "product_code": PRODUCT_CODES[product],
    }
    if product == "create":
        content |= {"op_app_id": MINI_APP, "buyer_open_id": OPEN_ID}
    content |= changes
    return {name: value for name, value in content.items() if value is not None}


def a_merchant_of_tests(*, seed: int = 7, charset: str = "utf-8", **application: Any) -> MerchantOfTests:
    clock = ManualClock(NOON)
    simulator = AlipaySimulator(clock=clock, seed=seed)
    merchant = simulator.add_merchant(PID, mini_apps={MINI_APP})
    return MerchantOfTests(
        simulator=simulator,
        merchant=merchant,
        application=simulator.add_application(APP_ID, merchant=merchant, **application),
        clock=clock,
        charset=charset,
    )
