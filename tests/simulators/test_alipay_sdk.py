"""Alipay's own Python SDK, written by others, does business with the simulated Alipay."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from simulators.alipay_books import BEIJING
from simulators.kit import Request, exchange
from tests.support.alipay_merchant import MerchantOfTests, a_merchant_of_tests, an_order

sdk = import_module("alipay.aop.api.DefaultAlipayClient")


@pytest.fixture
def us() -> MerchantOfTests:
    return a_merchant_of_tests()


@pytest.fixture
def client(us, monkeypatch) -> Any:
    """The SDK's client; its connection knows no port but 80 and 443, and its time is the machine's: both replaced."""

    def do_post(url: str, query_string: str, headers: Any, params: dict[str, str], charset: str, timeout: int) -> bytes:
        sent = Request(
            method="POST",
            target=f"{urlsplit(url).path}?{query_string}",
            headers={"content-type": f"application/x-www-form-urlencoded;charset={charset}"},
            body=us.form(params).encode(),
        )
        return asyncio.run(exchange(us.simulator, sent)).body

    monkeypatch.setattr(sdk, "do_post", do_post)
    clock = SimpleNamespace(now=lambda: us.clock.now().astimezone(BEIJING))
    monkeypatch.setattr(sdk, "datetime", SimpleNamespace(datetime=clock))
    pem = us.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    config = import_module("alipay.aop.api.AlipayClientConfig").AlipayClientConfig()
    config.server_url = "http://127.0.0.1/gateway.do"
    config.app_id = us.application.app_id
    config.app_private_key = "".join(pem.splitlines()[1:-1])
    config.alipay_public_key = "".join(us.simulator.public_key.public_pem.splitlines()[1:-1])
    return sdk.DefaultAlipayClient(config)


def a_request(name: str, content: dict[str, Any]) -> Any:
    request = getattr(import_module(f"alipay.aop.api.request.{name}"), name)()
    request.biz_content = content
    return request


def test_create_pay_query_and_refund(us, client):
    def execute(name: str, content: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(client.execute(a_request(name, content))))  # raises for a wrong signature

    created = execute("AlipayTradeCreateRequest", an_order("T1"))
    assert us.simulator.pay(created["trade_no"]) == "paid"
    assert execute("AlipayTradeQueryRequest", {"out_trade_no": "T1"})["trade_status"] == "TRADE_SUCCESS"
    refund = {"out_trade_no": "T1", "out_request_no": "R1", "refund_amount": "0.30"}
    assert execute("AlipayTradeRefundRequest", refund)["fund_change"] == "Y"
    missing = execute("AlipayTradeQueryRequest", {"out_trade_no": "T2"})
    assert (missing["code"], missing["sub_code"]) == ("40004", "ACQ.TRADE_NOT_EXIST")


def test_what_a_stranger_has_signed_is_refused_by_the_sdk(us, client):
    us.simulator.faults.script("alipay.answer_forged")
    with pytest.raises(sdk.ResponseException):
        client.execute(a_request("AlipayTradeCreateRequest", an_order("T1")))


def test_a_page_is_opened_by_the_address_the_sdk_makes(us, client):
    url = urlsplit(client.page_execute(a_request("AlipayTradeWapPayRequest", an_order("T1", "wap")), "GET"))
    opened = asyncio.run(exchange(us.simulator, Request(method="GET", target=f"{url.path}?{url.query}")))
    assert us.simulator.pay(opened.headers["location"]) == "paid"
