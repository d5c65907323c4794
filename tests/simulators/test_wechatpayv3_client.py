"""A published client, written by others, does business with the simulated WeChat Pay over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from wechatpayv3 import WeChatPay, WeChatPayType

from simulators.clock import OffsetClock
from simulators.kit import Request, Response, create_app, deliver_one
from simulators.wechatpay import Merchant, WechatPaySimulator
from tests.support.wechatpay_merchant import APPID, MCHID, NOTIFY_URL, OPENID

AMOUNT = {"total": 100, "currency": "CNY"}
HOSPITAL, SISTER, HOSPITALS_APP = "1900000302", "1900000303", "wx0000000000000sub"


class Client:
    """wechatpayv3 is synchronous: each call runs in a thread beside the server's loop."""

    def __init__(
        self, simulator: WechatPaySimulator, merchant: Merchant, base_url: str, *, partner_mode: bool = False
    ) -> None:
        self.simulator = simulator
        self.client = WeChatPay(
            wechatpay_type=WeChatPayType.MINIPROG,
            mchid=merchant.mchid,
            private_key=merchant.private_key_pem,
            cert_serial_no=merchant.serial_no,
            appid=APPID,
            apiv3_key=merchant.api_v3_key,
            notify_url=NOTIFY_URL,
            public_key=simulator.public_key.public_pem,
            public_key_id=simulator.public_key.serial,
            partner_mode=partner_mode,
        )
        self.client._core._gate_way = base_url  # it has no option for this
        self.told: list[dict[str, Any]] = []

    async def __call__(self, name: str, **arguments: Any) -> tuple[int, Any]:
        status, text = await asyncio.to_thread(getattr(self.client, name), **arguments)
        return status, json.loads(text) if text else None

    async def take(self, url: str, request: Request) -> Response:
        told = self.client.callback(headers=request.headers, body=request.body)
        if not told:
            return Response(status=401)
        self.told.append(told)
        return Response(status=204)

    def sign_pay_params(self, prepay_id: str, appid: str = APPID) -> dict[str, str]:
        package = f"prepay_id={prepay_id}"
        signature = self.client.sign([appid, "1770000000", "nonce", package])
        return {
            "timeStamp": "1770000000",
            "nonceStr": "nonce",
            "package": package,
            "signType": "RSA",
            "paySign": signature,
        }


@pytest.fixture
async def client(tmp_path: Path, serve: Callable[[Any], AbstractAsyncContextManager[str]]) -> AsyncIterator[Client]:
    simulator = WechatPaySimulator(
        clock=OffsetClock(tmp_path / "offset"), notice_delay=timedelta(0), refund_delay=timedelta(0)
    )
    merchant = simulator.add_merchant(MCHID, appids={APPID})
    async with serve(create_app(simulator)) as base_url:
        yield Client(simulator, merchant, base_url)


@pytest.fixture
async def partner(tmp_path: Path, serve: Callable[[Any], AbstractAsyncContextManager[str]]) -> AsyncIterator[Client]:
    """The same client for a service provider with two hospitals."""
    simulator = WechatPaySimulator(
        clock=OffsetClock(tmp_path / "offset"), notice_delay=timedelta(0), refund_delay=timedelta(0)
    )
    provider = simulator.add_service_provider(MCHID, appids={APPID})
    for mchid in (HOSPITAL, SISTER):
        simulator.add_sub_merchant(mchid, provider=provider, appids={HOSPITALS_APP})
    async with serve(create_app(simulator)) as base_url:
        yield Client(simulator, provider, base_url, partner_mode=True)


async def test_a_mini_program_order_from_placing_to_refund(client):
    status, placed = await client(
        "pay", description="门诊", out_trade_no="T00001", amount=AMOUNT, payer={"openid": OPENID}
    )
    assert status == 200
    assert client.simulator.pay_with(client.sign_pay_params(placed["prepay_id"]), OPENID) == "paid"

    status, trade = await client("query", out_trade_no="T00001")
    assert (status, trade["trade_state"], trade["amount"]["total"]) == (200, "SUCCESS", 100)
    status, by_id = await client("query", transaction_id=trade["transaction_id"])
    assert (status, by_id) == (200, trade)
    status, refused = await client("close", out_trade_no="T00001")
    assert (status, refused["code"]) == (400, "ORDER_PAID")

    amount = {"refund": 30, "total": 100, "currency": "CNY"}
    status, refund = await client("refund", out_refund_no="R1", out_trade_no="T00001", amount=amount)
    assert status == 200
    status, settled = await client("query_refund", out_refund_no="R1")
    assert (status, settled["status"], settled["refund_id"]) == (200, "SUCCESS", refund["refund_id"])

    while await deliver_one(client.simulator, client.take):
        pass
    assert [told["event_type"] for told in client.told] == ["TRANSACTION.SUCCESS", "REFUND.SUCCESS"]
    assert client.told[0]["resource"] == trade
    assert client.told[1]["resource"]["amount"]["refund"] == 30


async def test_a_native_order_is_scanned_or_closed(client):
    placed: dict[str, str] = {}
    for number in ("T00001", "T00002"):
        status, placed = await client(
            "pay", description="门诊", out_trade_no=number, amount=AMOUNT, pay_type=WeChatPayType.NATIVE
        )
        assert status == 200
        assert placed["code_url"].startswith("weixin://wxpay/bizpayurl")
    assert client.simulator.pay(placed["code_url"], "o-a-passer-by") == "paid"
    assert await client("close", out_trade_no="T00001") == (204, None)
    assert (await client("query", out_trade_no="T00001"))[1]["trade_state"] == "CLOSED"
    assert (await client("query", out_trade_no="T00002"))[1]["payer"] == {"openid": "o-a-passer-by"}


async def test_refusals_reach_it_unsigned_and_a_forged_answer_does_not_pass(client):
    status, refused = await client("query", out_trade_no="T99999")
    assert (status, refused["code"]) == (404, "ORDER_NOT_EXIST")
    for name in ("answer_forged", "answer_signtest"):
        client.simulator.faults.script(f"wechatpay.{name}")
        with pytest.raises(Exception, match="failed to verify the signature"):
            await client("pay", description="门诊", out_trade_no="T00001", amount=AMOUNT, payer={"openid": OPENID})
    client.simulator.faults.script("wechatpay.answer_lost")
    with pytest.raises(OSError, match="Connection aborted"):
        await client("close", out_trade_no="T00001")
    assert client.simulator.books()["orders"][0]["state"] == "CLOSED"


async def test_a_flawed_notice_is_refused_and_the_next_one_passes(client):
    client.simulator.faults.script("wechatpay.notice_signtest")
    await client("pay", description="门诊", out_trade_no="T00001", amount=AMOUNT, payer={"openid": OPENID})
    assert client.simulator.pay("T00001") == "paid"
    assert await deliver_one(client.simulator, client.take)
    assert client.told == []
    client.simulator.clock.advance(timedelta(seconds=15))
    assert await deliver_one(client.simulator, client.take)
    assert len(client.told) == 1


async def test_with_platform_certificates_it_downloads_them_itself(client):
    """The way of older merchants: no public key, the certificate comes encrypted from the API."""
    core = client.client._core
    core._public_key, core._public_key_id = None, None
    client.simulator.merchants[MCHID].public_key_share = 0.0
    await asyncio.to_thread(core._init_certificates)
    status, _ = await client("pay", description="门诊", out_trade_no="T00001", amount=AMOUNT, payer={"openid": OPENID})
    assert status == 200
    assert client.simulator.pay("T00001") == "paid"
    assert await deliver_one(client.simulator, client.take)
    assert client.told[0]["resource"]["out_trade_no"] == "T00001"


@pytest.mark.parametrize(
    ("appid", "payer", "apps"),
    [
        (HOSPITALS_APP, {"sub_openid": OPENID}, {"sub_appid": HOSPITALS_APP}),
        (APPID, {"sp_openid": OPENID}, {}),
    ],
)
async def test_a_service_providers_order_from_placing_to_refund(partner, appid, payer, apps):
    hospital = {"sub_mchid": HOSPITAL}
    status, placed = await partner(
        "pay", description="门诊", out_trade_no="T00001", amount=AMOUNT, payer=payer, **apps, **hospital
    )
    assert status == 200
    params = partner.sign_pay_params(placed["prepay_id"], appid)
    assert partner.simulator.check_pay_params(params, appid=appid) is None
    assert partner.simulator.pay_with(params, OPENID) == "paid"

    status, trade = await partner("query", out_trade_no="T00001", **hospital)
    assert (status, trade["trade_state"], trade["amount"]["total"]) == (200, "SUCCESS", 100)
    assert (trade["sp_mchid"], trade["sub_mchid"], trade["sp_appid"]) == (MCHID, HOSPITAL, APPID)
    assert trade["payer"].items() >= payer.items()
    status, by_id = await partner("query", transaction_id=trade["transaction_id"], **hospital)
    assert (status, by_id) == (200, trade)
    status, refused = await partner("close", out_trade_no="T00001", **hospital)
    assert (status, refused["code"]) == (400, "ORDER_PAID")

    amount = {"refund": 30, "total": 100, "currency": "CNY"}
    status, refund = await partner("refund", out_refund_no="R1", out_trade_no="T00001", amount=amount, **hospital)
    assert status == 200
    status, settled = await partner("query_refund", out_refund_no="R1", **hospital)
    assert (status, settled["status"], settled["refund_id"]) == (200, "SUCCESS", refund["refund_id"])

    while await deliver_one(partner.simulator, partner.take):
        pass
    assert [told["event_type"] for told in partner.told] == ["TRANSACTION.SUCCESS", "REFUND.SUCCESS"]
    assert partner.told[0]["resource"] == trade
    assert partner.told[1]["resource"].items() >= {"sp_mchid": MCHID, "sub_mchid": HOSPITAL}.items()


async def test_a_service_providers_native_order_is_closed(partner):
    hospital = {"sub_mchid": HOSPITAL}
    status, placed = await partner(
        "pay", description="门诊", out_trade_no="T00001", amount=AMOUNT, pay_type=WeChatPayType.NATIVE, **hospital
    )
    assert status == 200
    assert await partner("close", out_trade_no="T00001", **hospital) == (204, None)
    assert (await partner("query", out_trade_no="T00001", **hospital))[1]["trade_state"] == "CLOSED"
    assert partner.simulator.pay(placed["code_url"]) == "closed"


async def test_a_service_provider_is_refused_for_another_hospitals_order_and_as_a_direct_merchant(partner):
    native = {"description": "门诊", "out_trade_no": "T00001", "amount": AMOUNT, "pay_type": WeChatPayType.NATIVE}
    assert (await partner("pay", sub_mchid=HOSPITAL, **native))[0] == 200
    status, refused = await partner("query", out_trade_no="T00001", sub_mchid=SISTER)
    assert (status, refused["code"]) == (403, "NO_AUTH")
    status, refused = await partner("pay", sub_mchid="1999999999", **native)
    assert (status, refused["code"]) == (400, "MCH_NOT_EXISTS")
    partner.client._partner_mode = False
    status, refused = await partner("pay", **native)
    assert (status, refused["code"], refused["message"]) == (400, "PARAM_ERROR", "受理机构必须传入sub_mch_id")
