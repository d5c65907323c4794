"""The simulated WeChat Pay, driven in the words of the contract."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from channels.wechatpay import WechatPay
from core.money import Fen
from core.ports import MerchantAccount, PayParams, TradeOrder
from simulators.clock import ManualClock
from simulators.kit import Request, Response, deliver_one
from simulators.wechatpay import Merchant, PlatformKey, WechatPaySimulator
from simulators.wechatpay_keys import (
    SIGNTEST_PREFIX,
    aead_decrypt,
    aead_encrypt,
    answer_message,
    private_pem,
    rsa_key,
    sign,
)
from tests.channels.contract import TOTAL, Letter, Spoiling, Trouble
from tests.support.remembered import remember_private_keys
from tests.support.transports import WatchedTransport
from wire.http import HttpReply, HttpRequest, Transport

MORNING = datetime(2026, 5, 6, 1, 30, tzinfo=UTC)
MCHID, STRANGERS_MCHID, PROVIDERS_MCHID = "1900000109", "1900000210", "1900000301"
SERVICE_APP, MINI_APP = "wxd678efh567hg6787", "wx0123456789abcdef"
OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
ACCOUNT_ID = UUID("0190a0a0-0000-7000-8000-000000000001")

TROUBLES = {
    Trouble.REQUEST_LOST: "request_lost",
    Trouble.ANSWER_LOST: "answer_lost",
    Trouble.ERROR_PAGE_UNDONE: "error_500_before",
    Trouble.ERROR_PAGE_DONE: "error_500_after",
    Trouble.SYSTEM_ERROR_UNDONE: "system_error",
    Trouble.SYSTEM_ERROR_DONE: "system_error_accepted",
    Trouble.ANSWER_CUT_OFF: "answer_garbled",
    Trouble.ANSWER_UNSIGNED: "answer_unsigned",
    Trouble.ANSWER_BY_STRANGER: "answer_forged",
    Trouble.ANSWER_PROBE: "answer_signtest",
    Trouble.ANSWER_OLD: "answer_clock_skewed",
    Trouble.ANSWER_UNKNOWN_KEY: "answer_unknown_serial",
    Trouble.TOO_OFTEN: "rate_limited",
    Trouble.TOO_OFTEN_YET_DONE: "rate_limited_accepted",
    Trouble.STRANGE_TRADE_WORD: "unknown_trade_state",
    Trouble.STRANGE_REFUND_WORD: "unknown_refund_state",
    Trouble.PAID_WHILE_CLOSING: "paid_just_before_close",
    Trouble.QUERY_LAGS: "query_lags",
    Trouble.REFUND_STUCK: "refund_abnormal",
    Trouble.REFUND_DEAD: "refund_closed",
    Trouble.NO_BALANCE: "refund_not_enough_balance",
    Trouble.NOTICE_TWICE: "notice_duplicated",
}

remember_private_keys()


class WechatPayCounterparty:
    """One merchant with both kinds of verification key, one stranger with the same APIv3 key."""

    def __init__(self, *, seed: int = 3) -> None:
        self.clock = ManualClock(MORNING)
        self.simulator = WechatPaySimulator(clock=self.clock, seed=seed)
        self.merchant, self._stranger = self._merchants()
        self.transport: WatchedTransport | None = None
        self.base_url = "http://127.0.0.1"
        self._nonces = itertools.count(1)
        signer = self.merchant.signer
        assert signer.api_v3_key is not None
        self.secrets = (signer.api_v3_key, signer.private_key_pem.splitlines()[1], OPENID)

    def _merchants(self) -> tuple[Merchant, Merchant]:
        self._names = _THEIR_NAMES
        ours = self.simulator.add_merchant(MCHID, appids={SERVICE_APP, MINI_APP})
        return ours, self.simulator.add_merchant(STRANGERS_MCHID, appids={SERVICE_APP}, api_v3_key=ours.api_v3_key)

    def connect(self, transport: Transport, base_url: str) -> WechatPay:
        """The adapter, talking to the simulator through `transport`."""
        self.transport = WatchedTransport(transport)
        self.base_url = base_url
        return WechatPay(self.transport, self.clock, lambda: f"{next(self._nonces):032d}")

    def account(self, merchant: Merchant | None = None, **params: str) -> MerchantAccount:
        merchant = merchant or self.merchant
        signer = merchant.signer
        assert signer.api_v3_key is not None
        return MerchantAccount(
            id=ACCOUNT_ID if merchant is self.merchant else UUID(int=ACCOUNT_ID.int + 1),
            institution_id=UUID("0190a0a0-0000-7000-8000-00000000000f"),
            channel="wechatpay",
            merchant_no=merchant.mchid,
            notify_url="https://pay.hospital.example/n/3f9c",
            params={
                "app_ids": f"{SERVICE_APP} {MINI_APP}",
                "merchant_private_key": signer.private_key_pem,
                "merchant_serial": signer.serial_no,
                "api_v3_key": signer.api_v3_key,
                "public_key_id": self.simulator.public_key.serial,
                "public_key": self.simulator.public_key.public_pem,
                "platform_certificates": self.simulator.certificate.certificate_pem,
                "base_url": self.base_url,
                **params,
            },
        )

    # --- Counterparty

    def an_order(self, order_no: str, instrument: str = "") -> TradeOrder:
        instrument = instrument or "miniprogram"
        return TradeOrder(
            order_no=order_no,
            amount_fen=TOTAL,
            description="门诊缴费",
            instrument=instrument,
            app_id={"miniprogram": MINI_APP, "jsapi": SERVICE_APP}.get(instrument),
            payer_open_id=None if instrument == "native" else OPENID,
            expires_at=self.clock.now() + timedelta(minutes=5),
        )

    def a_hopeless_order(self, order_no: str) -> TradeOrder:
        return replace(self.an_order(order_no), amount_fen=Fen(0))

    def let(self, trouble: Trouble, key: str | None = None) -> None:
        if trouble is Trouble.NOT_REACHED:
            self._watched.unreachable_next()
        else:
            self.simulator.faults.script(f"wechatpay.{TROUBLES[trouble]}", key=key)

    def refuse_next(self, *, status: int, code: str, after: int = 0) -> None:
        body = json.dumps({"code": code, "message": "请稍后再试"}).encode()
        self._watched.answer_next(
            HttpReply(status=status, headers={"content-type": "application/json"}, body=body), after=after
        )

    def say_next(self, **changes: object) -> None:
        def alter(reply: HttpReply) -> HttpReply:
            value = json.loads(reply.body)
            for name, new in changes.items():
                _change(value, self._names[name], new)
            body = json.dumps(value).encode()
            return replace(reply, body=body, headers={**reply.headers, **self._signed(self.simulator.public_key, body)})

        self._watched.alter_next(alter)

    def add_next(self, **fields: object) -> None:
        """The next answer says this as well, and is signed again."""

        def alter(reply: HttpReply) -> HttpReply:
            body = json.dumps({**json.loads(reply.body), **fields}).encode()
            return replace(reply, body=body, headers={**reply.headers, **self._signed(self.simulator.public_key, body)})

        self._watched.alter_next(alter)

    async def pay(self, params: PayParams) -> bool:
        if params.kind == "qr_code":
            return self.simulator.pay(params.values["code_url"]) == "paid"
        return self.simulator.pay_with(dict(params.values)) == "paid"

    def pass_time(self, by: timedelta) -> None:
        self.clock.advance(by)
        self.simulator.advance()

    async def notices(self, *, accepted: bool = True) -> list[Letter]:
        letters: list[Letter] = []

        async def post(url: str, request: Request) -> Response:
            letters.append(Letter(headers=request.headers, body=request.body))
            answer = WechatPay(self._watched, self.clock, str).acknowledge(accepted=accepted)
            return Response(status=answer.status, body=answer.body)

        while await deliver_one(self.simulator, post):
            pass
        return letters

    def spoil(self, letter: Letter, how: Spoiling) -> Letter:
        headers, body = dict(letter.headers), letter.body
        match how:
            case Spoiling.BODY_ALTERED:
                body = body.replace(b'"summary"', b'"Summary"')
                assert body != letter.body
            case Spoiling.SIGNED_BY_STRANGER:
                stranger = replace(self.simulator.public_key, private_key=rsa_key("somebody else"))
                headers |= self._signed(stranger, body)
            case Spoiling.SIGNATURE_MISSING:
                del headers["wechatpay-signature"]
            case Spoiling.SIGNATURE_PROBE:
                headers["wechatpay-signature"] = SIGNTEST_PREFIX + headers["wechatpay-signature"]
            case Spoiling.UNKNOWN_KEY:
                headers["wechatpay-serial"] = headers["wechatpay-serial"].lower() + "0"
            case Spoiling.OTHER_CONTENT_SEALED_WRONG:
                envelope = json.loads(body)
                resource = envelope["resource"]
                resource["ciphertext"] = aead_encrypt(
                    "0" * 32,
                    nonce=resource["nonce"],
                    associated_data=resource["associated_data"],
                    plaintext=b"{}",
                )
                body = json.dumps(envelope).encode()
                headers |= self._signed(self.simulator.public_key, body)
            case Spoiling.OLDER_PROTOCOL:
                headers = {"content-type": "text/xml"}
                body = b"<xml><return_code>SUCCESS</return_code><req_info>T87GAHG1</req_info></xml>"
        return Letter(headers=headers, body=body)

    def taken_fen(self, order_no: str) -> int:
        return sum(order["taken_fen"] for order in self._orders() if order["out_trade_no"] == order_no)

    def given_back_fen(self, order_no: str) -> int:
        return sum(
            order["returning_fen"] + order["refunded_fen"]
            for order in self._orders()
            if order["out_trade_no"] == order_no
        )

    def orders(self) -> list[str]:
        return [order["out_trade_no"] for order in self._orders()]

    def requests(self) -> list[HttpRequest]:
        return self._watched.requests

    def stranger(self) -> MerchantAccount:
        return self.account(self._stranger)

    def new_key(self, account: MerchantAccount) -> MerchantAccount:
        new = self.simulator.rotate_public_key()
        return replace(
            account,
            params={
                **account.params,
                "public_key_id": f"{new.serial} {account.params['public_key_id']}",
                "public_key": new.public_pem + account.params["public_key"],
            },
        )

    def one_key_accounts(self) -> tuple[MerchantAccount, MerchantAccount]:
        return (
            replace(self.account(platform_certificates=""), id=UUID(int=ACCOUNT_ID.int + 2)),
            replace(self.account(public_key_id="", public_key=""), id=UUID(int=ACCOUNT_ID.int + 3)),
        )

    def sign_with(self, kind: int) -> None:
        self.merchant.signer.public_key_share = 1.0 - kind

    # --- inside

    @property
    def _watched(self) -> WatchedTransport:
        assert self.transport is not None, "connect() first"
        return self.transport

    def _orders(self) -> list[dict[str, Any]]:
        orders: list[dict[str, Any]] = self.simulator.books()["orders"]
        return orders

    def _signed(self, key: PlatformKey, body: bytes) -> Mapping[str, str]:
        timestamp, nonce = str(int(self.clock.now().timestamp())), "ANONCE"
        return {
            "wechatpay-timestamp": timestamp,
            "wechatpay-nonce": nonce,
            "wechatpay-signature": sign(key.private_key, answer_message(timestamp, nonce, body)),
            "wechatpay-serial": key.serial,
        }

    def retell(self, letter: Letter, change: Callable[[dict[str, Any]], object]) -> Letter:
        """The same notice with another inside, sealed and signed as WeChat Pay would."""
        key, envelope = self.merchant.signer.api_v3_key, json.loads(letter.body)
        assert key is not None
        resource = envelope["resource"]
        sealed = {name: resource[name] for name in ("nonce", "associated_data")}
        value = json.loads(aead_decrypt(key, ciphertext=resource["ciphertext"], **sealed))
        change(value)
        resource["ciphertext"] = aead_encrypt(key, plaintext=json.dumps(value).encode(), **sealed)
        body = json.dumps(envelope).encode()
        return Letter(headers={**letter.headers, **self._signed(self.simulator.public_key, body)}, body=body)


class PartnerCounterparty(WechatPayCounterparty):
    """A hospital behind a service provider, whose keys serve another of his hospitals as well.

    Patients pay in the hospital's mini program and in the provider's official account.
    """

    def _merchants(self) -> tuple[Merchant, Merchant]:
        self._names = {**_THEIR_NAMES, "merchant_no": ("sub_mchid",), "provider_no": ("sp_mchid",)}
        provider = self.simulator.add_service_provider(PROVIDERS_MCHID, appids={SERVICE_APP})
        ours = self.simulator.add_sub_merchant(MCHID, provider=provider, appids={MINI_APP})
        return ours, self.simulator.add_sub_merchant(STRANGERS_MCHID, provider=provider, appids={MINI_APP})

    def account(self, merchant: Merchant | None = None, **params: str) -> MerchantAccount:
        partner = {"service_provider_no": PROVIDERS_MCHID, "service_provider_app_id": SERVICE_APP}
        return super().account(merchant, **{**partner, **params})


_THEIR_NAMES: Mapping[str, tuple[str, ...]] = {
    "order_no": ("out_trade_no",),
    "merchant_no": ("mchid",),
    "channel_trade_no": ("transaction_id",),
    "paid_at": ("success_time",),
    "paid_fen": ("amount", "total"),
    "refund_fen": ("amount", "refund"),
    "total_fen": ("amount", "total"),
}


def _change(value: dict[str, Any], where: tuple[str, ...], new: object) -> None:
    *way, last = where
    for step in way:
        value = value[step]
    assert last in value
    if new is None:
        del value[last]
    else:
        value[last] = new


__all__ = ["MCHID", "MINI_APP", "OPENID", "SERVICE_APP", "PartnerCounterparty", "WechatPayCounterparty", "private_pem"]
