"""A hospital behind a service provider: what is sent in its name, and what is believed about it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from channels.wechatpay import WechatPay
from channels.wechatpay.params import Credentials
from channels.wechatpay.parties import Parties
from core.errors import ConfigurationError, OutcomeUnknown, Refused
from core.money import Fen
from core.ports import MerchantAccount, Notice, RefundOrder, RefundState, Unverified
from tests.channels.contract import TOTAL, Letter
from tests.channels.wechatpay_counterparty import (
    MCHID,
    MINI_APP,
    OPENID,
    PROVIDERS_MCHID,
    SERVICE_APP,
    STRANGERS_MCHID,
    PartnerCounterparty,
    WechatPayCounterparty,
)
from tests.support.transports import InProcessTransport

BASE_URL = "http://127.0.0.1"
ORDERS = f"{BASE_URL}/v3/pay/partner/transactions"
REFUNDS = f"{BASE_URL}/v3/refund/domestic/refunds"


@pytest.fixture
def counterparty() -> PartnerCounterparty:
    return PartnerCounterparty()


@pytest.fixture
def channel(counterparty: PartnerCounterparty) -> WechatPay:
    return counterparty.connect(InProcessTransport({BASE_URL: counterparty.simulator}), BASE_URL)


@pytest.fixture
def account(counterparty: PartnerCounterparty) -> MerchantAccount:
    return counterparty.one_key_accounts()[0]


def a_refund(order_no: str, refund_no: str = "R1", amount_fen: int = 1) -> RefundOrder:
    return RefundOrder(
        refund_no=refund_no,
        order_no=order_no,
        channel_trade_no="",
        amount_fen=Fen(amount_fen),
        total_fen=TOTAL,
        reason="",
    )


async def a_letter(counterparty: WechatPayCounterparty) -> Letter:
    counterparty.pass_time(timedelta(minutes=1))
    (letter,) = await counterparty.notices()
    return letter


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    ("instrument", "product", "parties"),
    [
        (
            "miniprogram",
            "jsapi",
            {"sp_appid": SERVICE_APP, "sub_appid": MINI_APP, "payer": {"sub_openid": OPENID}},
        ),
        ("jsapi", "jsapi", {"sp_appid": SERVICE_APP, "payer": {"sp_openid": OPENID}}),
        ("native", "native", {"sp_appid": SERVICE_APP}),
    ],
)
async def test_an_order_names_both_numbers_and_the_payer_in_his_own_app(
    channel, account, counterparty, instrument, product, parties
):
    await channel.create(account, counterparty.an_order("PORDER1", instrument))
    (request,) = counterparty.requests()
    assert (request.method, request.url) == ("POST", f"{ORDERS}/{product}")
    assert json.loads(request.body) == {
        "amount": {"currency": "CNY", "total": 1234},
        "description": "门诊缴费",
        "notify_url": account.notify_url,
        "out_trade_no": "PORDER1",
        "sp_mchid": PROVIDERS_MCHID,
        "sub_mchid": MCHID,
        "time_expire": "2026-05-06T09:35:00+08:00",
        **parties,
    }


async def test_queries_closes_and_refunds_name_the_hospital_as_documented(channel, account, counterparty):
    await counterparty.pay(await channel.create(account, counterparty.an_order("P|ORDER")))
    await channel.refund(account, a_refund("P|ORDER"))
    await channel.query_refund(account, "R@1")
    await channel.create(account, counterparty.an_order("PORDER2"))
    assert (await channel.close(account, "PORDER2")).closed
    refund, refund_query, _, query, close, _ = counterparty.requests()[1:]
    assert json.loads(refund.body) == {
        "amount": {"currency": "CNY", "refund": 1, "total": 1234},
        "notify_url": account.notify_url,
        "out_refund_no": "R1",
        "out_trade_no": "P|ORDER",
        "sub_mchid": MCHID,
    }
    assert refund.url == REFUNDS
    assert refund_query.url == f"{REFUNDS}/R%401?sub_mchid={MCHID}"
    assert query.url == f"{ORDERS}/out-trade-no/PORDER2?sp_mchid={PROVIDERS_MCHID}&sub_mchid={MCHID}"
    assert close.url == f"{ORDERS}/out-trade-no/PORDER2/close"
    assert json.loads(close.body) == {"sp_mchid": PROVIDERS_MCHID, "sub_mchid": MCHID}


async def test_the_provider_signs_everything(channel, account, counterparty):
    await channel.check(account)
    await channel.create(account, counterparty.an_order("PSIGNED"))
    await channel.close(account, "PSIGNED")
    for request in counterparty.requests():
        assert f'mchid="{PROVIDERS_MCHID}"' in request.headers["Authorization"]
        assert f'serial_no="{counterparty.merchant.signer.serial_no}"' in request.headers["Authorization"]


async def test_the_pay_sheet_is_signed_for_the_app_that_shows_it(channel, account, counterparty):
    mini = await channel.create(account, counterparty.an_order("PSHEET1", "miniprogram"))
    page = await channel.create(account, counterparty.an_order("PSHEET2", "jsapi"))
    check = counterparty.simulator.check_pay_params
    assert check(dict(mini.values), appid=MINI_APP) is None
    assert check(dict(mini.values), appid=SERVICE_APP) == "支付验证签名失败"
    assert (page.values["appId"], check(dict(page.values), appid=SERVICE_APP)) == (SERVICE_APP, None)
    assert check(dict(page.values), appid=MINI_APP) == "appid does not match the order"


async def test_the_money_is_the_hospitals(channel, account, counterparty):
    await counterparty.pay(await channel.create(account, counterparty.an_order("PMONEY1")))
    await channel.refund(account, a_refund("PMONEY1", amount_fen=234))
    assert counterparty.merchant.balance_fen == TOTAL - 234
    assert counterparty.merchant.signer.balance_fen == 0


async def test_an_app_that_the_hospital_does_not_list_is_our_mistake(channel, account, counterparty):
    """The provider's own app too is listed only where patients pay in it."""
    account = replace(account, params={**account.params, "app_ids": MINI_APP})
    with pytest.raises(ConfigurationError, match=SERVICE_APP):
        await channel.create(account, counterparty.an_order("PAPP001", "jsapi"))
    assert counterparty.requests() == []
    params = await channel.create(account, counterparty.an_order("PAPP002", "native"))
    assert json.loads(counterparty.requests()[0].body)["sub_appid"] == MINI_APP
    assert await counterparty.pay(params)


# ---------------------------------------------------------------- what is believed


@pytest.mark.parametrize("name", ["provider_no", "merchant_no"])
@pytest.mark.parametrize("new", ["1999999999", None])
async def test_an_answer_must_name_both_numbers(channel, account, counterparty, name, new):
    await counterparty.pay(await channel.create(account, counterparty.an_order("PBOTH01")))
    counterparty.say_next(**{name: new})
    with pytest.raises(OutcomeUnknown, match=r"mchid is (not ours|missing)"):
        await channel.query(account, "PBOTH01")
    assert (await channel.query(account, "PBOTH01")).ever_paid


@pytest.mark.parametrize("name", ["sp_mchid", "sub_mchid"])
async def test_a_refund_answer_need_not_name_anybody_but_us(channel, account, counterparty, name):
    await counterparty.pay(await channel.create(account, counterparty.an_order("PREFUND")))
    counterparty.add_next(**{name: "1999999999"})
    with pytest.raises(OutcomeUnknown, match=f"{name} is not ours"):
        await channel.refund(account, a_refund("PREFUND"))
    counterparty.add_next(**{name: "1999999999"})
    with pytest.raises(OutcomeUnknown, match=f"{name} is not ours"):
        await channel.query_refund(account, "R1")
    counterparty.add_next(sp_mchid=PROVIDERS_MCHID, sub_mchid=MCHID)
    assert (await channel.query_refund(account, "R1")).refund_no == "R1"


@pytest.mark.parametrize("kind", ["trade", "refund"])
@pytest.mark.parametrize("name", ["sp_mchid", "sub_mchid"])
@pytest.mark.parametrize("new", ["1999999999", None])
async def test_a_notice_must_name_both_numbers(channel, account, counterparty, kind, name, new):
    letter = await notice_of_kind(channel, account, counterparty, kind)
    read = await channel.read_notice(account, letter.headers, letter.body)
    assert isinstance(read, Notice)
    assert read.kind == kind
    other = counterparty.retell(letter, lambda value: put(value, name, new))
    read = await channel.read_notice(account, other.headers, other.body)
    assert read == Unverified(reason=f"{name} is {'not ours' if new else 'missing or no text'}")


@pytest.mark.parametrize(
    ("name", "new", "reason"),
    [
        ("sp_appid", "wxelse", "sp_appid is not ours"),
        ("sub_appid", "wxelse", "sub_appid is not ours"),
        ("sp_appid", None, "sp_appid is missing or no text"),
    ],
)
async def test_a_notice_about_an_app_that_is_not_ours_is_unverified(channel, account, counterparty, name, new, reason):
    letter = await notice_of_kind(channel, account, counterparty, "trade")
    other = counterparty.retell(letter, lambda value: put(value, name, new))
    assert await channel.read_notice(account, other.headers, other.body) == Unverified(reason=reason)


async def test_a_notice_without_the_hospitals_app_is_read(channel, account, counterparty):
    """The documents promise it only where it was sent."""
    letter = await notice_of_kind(channel, account, counterparty, "trade")
    other = counterparty.retell(letter, lambda value: put(value, "sub_appid", None))
    assert isinstance(await channel.read_notice(account, other.headers, other.body), Notice)


@pytest.mark.parametrize("kind", ["trade", "refund"])
async def test_another_hospital_of_the_same_provider_is_told_by_its_number(channel, account, counterparty, kind):
    """Its account has the same keys: the number alone tells them apart."""
    letter = await notice_of_kind(channel, account, counterparty, kind)
    read = await channel.read_notice(counterparty.stranger(), letter.headers, letter.body)
    assert read == Unverified(reason="sub_mchid is not ours")


async def test_a_notice_in_the_other_modes_form_is_unverified(channel, account, counterparty):
    def direct(value: dict[str, Any]) -> None:
        value["mchid"] = value.pop("sub_mchid")
        del value["sp_mchid"]

    letter = await notice_of_kind(channel, account, counterparty, "refund")
    other = counterparty.retell(letter, direct)
    assert isinstance(await channel.read_notice(account, other.headers, other.body), Unverified)
    plain = replace(account, params={**account.params, "service_provider_no": "", "service_provider_app_id": ""})
    read = await channel.read_notice(plain, letter.headers, letter.body)
    assert read == Unverified(reason="mchid is missing or no text")


async def test_a_hospital_sees_only_its_own_orders(channel, account, counterparty):
    await counterparty.pay(await channel.create(account, counterparty.an_order("POWN001")))
    with pytest.raises(Refused) as refused:
        await channel.query(counterparty.stranger(), "POWN001")
    assert (refused.value.code, refused.value.final) == ("NO_AUTH", False)
    with pytest.raises(Refused) as refused:
        await channel.refund(counterparty.stranger(), a_refund("POWN001"))
    assert (refused.value.code, refused.value.final) == ("NO_AUTH", False)
    assert counterparty.given_back_fen("POWN001") == 0


# ---------------------------------------------------------------- who may do what


async def test_a_hospital_that_is_not_the_providers_is_refused_and_nothing_stands(channel, account, counterparty):
    other = counterparty.simulator.add_service_provider("1900000302", appids={SERVICE_APP})
    counterparty.simulator.add_sub_merchant("1900000110", provider=other, appids={MINI_APP})
    account = replace(account, merchant_no="1900000110")
    with pytest.raises(Refused) as refused:
        await channel.create(account, counterparty.an_order("PALIEN1"))
    assert (refused.value.code, refused.value.final) == ("NO_AUTH", True)
    with pytest.raises(Refused, match="NO_AUTH"):
        await channel.check(account)
    assert counterparty.orders() == []


async def test_refunds_wait_until_the_hospital_lets_its_provider_refund(channel, account, counterparty):
    await counterparty.pay(await channel.create(account, counterparty.an_order("PLEAVE1")))
    counterparty.merchant.refunds_authorised = False
    with pytest.raises(Refused) as refused:
        await channel.refund(account, a_refund("PLEAVE1"))
    assert (refused.value.code, refused.value.final) == ("NO_AUTH", False)
    counterparty.merchant.refunds_authorised = True
    assert (await channel.refund(account, a_refund("PLEAVE1"))).state is RefundState.PROCESSING
    assert counterparty.given_back_fen("PLEAVE1") == 1


async def test_a_provider_entered_as_a_direct_merchant_is_refused(channel, account, counterparty):
    params = {**account.params, "service_provider_no": "", "service_provider_app_id": ""}
    with pytest.raises(Refused) as refused:
        await channel.create(
            replace(account, merchant_no=PROVIDERS_MCHID, params=params), counterparty.an_order("PDIRECT")
        )
    assert (refused.value.code, refused.value.message) == ("PARAM_ERROR", "受理机构必须传入sub_mch_id")
    assert counterparty.orders() == []


async def test_a_direct_merchant_entered_as_a_provider_is_refused(channel, counterparty):
    direct = counterparty.simulator.add_merchant("1900000111", appids={SERVICE_APP, MINI_APP})
    account = replace(counterparty.account(direct, service_provider_no="1900000111"), merchant_no=STRANGERS_MCHID)
    with pytest.raises(Refused) as refused:
        await channel.create(account, counterparty.an_order("PNOTSP1"))
    assert (refused.value.code, refused.value.message) == ("PARAM_ERROR", "普通商户不允许传sub_mch_id")
    assert counterparty.orders() == []


async def test_the_check_names_both_numbers(channel, account):
    assert f"sp_mchid {PROVIDERS_MCHID}, sub_mchid {MCHID}" in await channel.check(account)


# ---------------------------------------------------------------- params


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"service_provider_no": ""}, "need each other"),
        ({"service_provider_app_id": ""}, "need each other"),
        ({"service_provider_no": "SECRET"}, "service_provider_no has digits only"),
        ({"service_provider_no": MCHID}, "service_provider_no is somebody else's"),
    ],
)
def test_a_wrong_param_is_named_and_never_quoted(account, change, told):
    with pytest.raises(ConfigurationError, match=told) as raised:
        Credentials.read(replace(account, params={**account.params, **change}))
    assert MCHID in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_the_parties_of_both_modes():
    direct = Parties.direct("1", ["wxA", "wxB"])
    assert (direct.signer_no, direct.order_query, direct.refund_query) == ("1", "?mchid=1", "")
    assert list(direct.apps) == ["wxA", "wxB"]
    partner = Parties.partner("1", ["wxA", "wxS"], provider_no="9", provider_app_id="wxS")
    assert partner.signer_no == "9"
    assert parse_qs(urlsplit(partner.order_query).query) == {"sp_mchid": ["9"], "sub_mchid": ["1"]}
    assert partner.refund_query == "?sub_mchid=1"
    assert {app_id: app.names for app_id, app in partner.apps.items()} == {
        "wxA": {"sp_appid": "wxS", "sub_appid": "wxA"},
        "wxS": {"sp_appid": "wxS"},
    }
    assert [app.open_id_name for app in partner.apps.values()] == ["sub_openid", "sp_openid"]


# ---------------------------------------------------------------- the way there


async def notice_of_kind(
    channel: WechatPay, account: MerchantAccount, counterparty: WechatPayCounterparty, kind: str
) -> Letter:
    await counterparty.pay(await channel.create(account, counterparty.an_order("PNOTICE")))
    letter = await a_letter(counterparty)
    if kind == "trade":
        return letter
    await channel.refund(account, a_refund("PNOTICE"))
    return await a_letter(counterparty)


def put(value: dict[str, Any], name: str, new: str | None) -> None:
    assert name in value
    if new is None:
        del value[name]
    else:
        value[name] = new
