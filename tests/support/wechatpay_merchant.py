"""A merchant who talks to the simulated WeChat Pay without a socket, by hand-made requests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from simulators.clock import ManualClock
from simulators.kit import Deliveries, Request, Response, deliver_one, exchange
from simulators.wechatpay import Merchant, WechatPaySimulator
from simulators.wechatpay_keys import (
    aead_decrypt,
    answer_message,
    build_authorization,
    pay_sign_message,
    read_public_key,
    rsa_key,
    sign,
    verify,
)

MCHID = "1900000109"
APPID = "wxd678efh567hg6787"
OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
NOTIFY_URL = "https://pay.hospital.example/n/abc"
NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)


@dataclass(kw_only=True)
class MerchantOfTests:
    simulator: WechatPaySimulator
    merchant: Merchant
    clock: ManualClock
    serial: str | None = None  # what `Wechatpay-Serial` names; None: the header is not sent
    received: list[Request] = field(default_factory=list)
    answer_status: int = 204
    calls: int = 0

    @property
    def key(self) -> RSAPrivateKey:
        return rsa_key(f"merchant {self.merchant.mchid}")  # as the simulator made it; reading the PEM is slow

    def request(self, method: str, target: str, body: object = None, **changes: Any) -> Request:
        """A correct request; `changes` replace headers (None drops one) or the time, the key, the bytes."""
        data = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        data = changes.pop("data", data)
        self.calls += 1
        at = changes.pop("at", self.clock.now())
        headers: dict[str, str | None] = {
            "accept": "application/json",
            "user-agent": "hospital/1",
            "content-type": "application/json" if data else None,
            "wechatpay-serial": self.serial,
            "authorization": build_authorization(
                self.key,
                mchid=changes.pop("mchid", self.merchant.mchid),
                serial_no=changes.pop("serial_no", self.merchant.serial_no),
                method=method,
                target=target,
                timestamp=str(int(at.timestamp())),
                nonce=f"NONCE{self.calls:027d}",
                body=data,
            ),
        }
        for name, value in changes.items():
            headers[name.replace("_", "-")] = value
        return Request(
            method=method,
            target=target,
            headers={name: value for name, value in headers.items() if value is not None},
            body=data,
        )

    async def send(self, method: str, target: str, body: object = None, **changes: Any) -> Response:
        return await exchange(self.simulator, self.request(method, target, body, **changes))

    async def create(self, out_trade_no: str, product: str = "jsapi", **changes: Any) -> Response:
        return await self.send("POST", f"/v3/pay/transactions/{product}", an_order(out_trade_no, product, **changes))

    async def query(self, out_trade_no: str) -> Response:
        target = f"/v3/pay/transactions/out-trade-no/{out_trade_no}?mchid={self.merchant.mchid}"
        return await self.send("GET", target)

    async def close(self, out_trade_no: str) -> Response:
        target = f"/v3/pay/transactions/out-trade-no/{out_trade_no}/close"
        return await self.send("POST", target, {"mchid": self.merchant.mchid})

    async def refund(self, out_refund_no: str, out_trade_no: str, fen: int, **changes: Any) -> Response:
        body = {
            "out_trade_no": out_trade_no,
            "out_refund_no": out_refund_no,
            "notify_url": NOTIFY_URL,
            "amount": {"refund": fen, "total": changes.pop("total", 100), "currency": "CNY"},
        }
        return await self.send("POST", "/v3/refund/domestic/refunds", body | changes)

    async def query_refund(self, out_refund_no: str) -> Response:
        return await self.send("GET", f"/v3/refund/domestic/refunds/{out_refund_no}")

    async def paid(self, out_trade_no: str, **changes: Any) -> None:
        await self.create(out_trade_no, **changes)
        assert self.simulator.pay(out_trade_no) == "paid"

    def pay_params(self, prepay_id: str) -> dict[str, Any]:
        timestamp, nonce, package = str(int(self.clock.now().timestamp())), "N" * 32, f"prepay_id={prepay_id}"
        return {
            "timeStamp": timestamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": sign(self.key, pay_sign_message(APPID, timestamp, nonce, package)),
        }

    def verifies(self, message: Request | Response) -> bool:
        """Is this answer or notice signed by the key its serial names, and fresh?"""
        headers = message.headers
        keys = {
            self.simulator.public_key.serial: self.simulator.public_key.public_pem,
            self.simulator.certificate.serial: self.simulator.certificate.certificate_pem,
        }
        pem = keys.get(headers.get("wechatpay-serial", ""))
        if pem is None:
            return False
        timestamp = headers["wechatpay-timestamp"]
        if abs(int(timestamp) - self.clock.now().timestamp()) > 300:
            return False
        signed = answer_message(timestamp, headers["wechatpay-nonce"], message.body)
        return verify(read_public_key(pem), signed, headers["wechatpay-signature"])

    async def take(self, url: str, request: Request) -> Response:
        """Our side of a notice: refuse what does not verify, keep the rest."""
        if not self.verifies(request):
            return Response(status=401)
        self.received.append(request)
        return Response(status=self.answer_status)

    async def deliver(self, *, within: timedelta = timedelta(minutes=2)) -> int:
        """Let time pass and notices arrive; returns how many were sent."""
        end, sent = self.clock.now() + within, 0
        while (due_at := self.simulator.deliveries.next_due_at()) is not None and due_at <= end:
            self.clock.advance(max(due_at - self.clock.now(), timedelta(0)))
            sent += await deliver_one(self.simulator, self.take)
        self.clock.advance(max(end - self.clock.now(), timedelta(0)))
        return sent

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """Event types and decrypted contents of the notices that verified."""
        result = []
        for request in self.received:
            envelope = request.json()
            resource = envelope["resource"]
            assert self.merchant.api_v3_key is not None
            plaintext = aead_decrypt(
                self.merchant.api_v3_key,
                nonce=resource["nonce"],
                associated_data=resource["associated_data"],
                ciphertext=resource["ciphertext"],
            )
            result.append((envelope["event_type"], json.loads(plaintext)))
        return result


def an_order(out_trade_no: str, product: str = "jsapi", **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "appid": APPID,
        "mchid": MCHID,
        "description": "门诊缴费",
        "out_trade_no": out_trade_no,
        "notify_url": NOTIFY_URL,
        "amount": {"total": 100, "currency": "CNY"},
    }
    if product == "jsapi":
        body["payer"] = {"openid": OPENID}
    if product == "h5":
        body["scene_info"] = {"payer_client_ip": "14.23.150.211", "h5_info": {"type": "Wap"}}
    return body | changes


def a_merchant_of_tests(*, seed: int = 7, **merchant: Any) -> MerchantOfTests:
    clock = ManualClock(NOON)
    simulator = WechatPaySimulator(clock=clock, seed=seed)
    assert isinstance(simulator.deliveries, Deliveries)
    return MerchantOfTests(
        simulator=simulator,
        merchant=simulator.add_merchant(MCHID, appids={APPID}, **merchant),
        clock=clock,
        serial=simulator.public_key.serial,
    )
