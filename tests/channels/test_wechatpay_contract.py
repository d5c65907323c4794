"""The adapter keeps the promises of Channel against the simulated WeChat Pay: over sockets and without, for a direct
merchant and for a hospital behind a service provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from channels.wechatpay import WechatPay
from core.ports import Channel, MerchantAccount
from simulators.kit import create_app
from tests.channels.contract import ChannelContract, Counterparty
from tests.channels.wechatpay_counterparty import PartnerCounterparty, WechatPayCounterparty
from tests.support.serving import serve
from tests.support.transports import InProcessTransport
from wire.http import HttpClient


class WechatPayContract(ChannelContract):
    @pytest.fixture
    async def account(self, channel: WechatPay, counterparty: WechatPayCounterparty) -> MerchantAccount:
        account = counterparty.account()
        await channel.refresh_keys(account)  # now, so that no fault meets the download instead of the call
        counterparty.requests().clear()
        return account


class DirectMerchant(WechatPayContract):
    @pytest.fixture
    def counterparty(self) -> WechatPayCounterparty:
        return WechatPayCounterparty()


class SubMerchant(WechatPayContract):
    @pytest.fixture
    def counterparty(self) -> WechatPayCounterparty:
        return PartnerCounterparty()


if TYPE_CHECKING:

    def _the_adapter_fits_its_port(channel: WechatPay) -> Channel:
        return channel

    def _the_driver_fits_the_contract(counterparty: WechatPayCounterparty) -> Counterparty:
        return counterparty


class OverSockets:
    @pytest.fixture
    async def channel(self, counterparty: WechatPayCounterparty) -> AsyncIterator[WechatPay]:
        async with serve(create_app(counterparty.simulator)) as base_url, HttpClient() as client:
            yield counterparty.connect(client, base_url)


class WithoutSockets:
    @pytest.fixture
    def channel(self, counterparty: WechatPayCounterparty) -> WechatPay:
        base_url = "http://127.0.0.1"
        return counterparty.connect(InProcessTransport({base_url: counterparty.simulator}), base_url)


class TestOverSockets(OverSockets, DirectMerchant):
    pass


class TestWithoutSockets(WithoutSockets, DirectMerchant):
    pass


class TestBehindAServiceProviderOverSockets(OverSockets, SubMerchant):
    pass


class TestBehindAServiceProviderWithoutSockets(WithoutSockets, SubMerchant):
    pass
