"""What is particular to WeChat Pay: its params, its closed list, its certificates, its self-test."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from channels.wechatpay import PARAMS, WechatPay
from channels.wechatpay.mapping import DEFINITE, FINAL, Call, order_body, time_text
from channels.wechatpay.params import Credentials
from channels.wechatpay.parties import Parties
from core.errors import ConfigurationError, OutcomeUnknown, Refused
from core.money import Fen
from core.ports import MerchantAccount, Notice, RefundOrder, Unverified
from simulators.kit import Request, Response, deliver_one
from simulators.wechatpay_keys import private_pem, rsa_key
from tests.channels.contract import TOTAL, Trouble
from tests.channels.wechatpay_counterparty import MINI_APP, SERVICE_APP, WechatPayCounterparty
from tests.support.transports import InProcessTransport
from wire.http import HttpReply

BASE_URL = "http://127.0.0.1"
CERTIFICATES_URL = f"{BASE_URL}/v3/certificates"


@pytest.fixture
def counterparty() -> WechatPayCounterparty:
    return WechatPayCounterparty()


@pytest.fixture
def channel(counterparty: WechatPayCounterparty) -> WechatPay:
    return counterparty.connect(InProcessTransport({BASE_URL: counterparty.simulator}), BASE_URL)


@pytest.fixture
def account(counterparty: WechatPayCounterparty) -> MerchantAccount:
    """The public key alone, as new merchants have it."""
    return counterparty.one_key_accounts()[0]


@pytest.fixture
def certificate_account(counterparty: WechatPayCounterparty) -> MerchantAccount:
    return counterparty.one_key_accounts()[1]


def downloads(counterparty: WechatPayCounterparty) -> int:
    return sum(request.url == CERTIFICATES_URL for request in counterparty.requests())


async def a_notice(counterparty: WechatPayCounterparty, params: Any) -> Request:
    assert await counterparty.pay(params)
    counterparty.pass_time(timedelta(minutes=1))
    requests: list[Request] = []

    async def post(url: str, request: Request) -> Response:
        requests.append(request)
        return Response(status=204)

    assert await deliver_one(counterparty.simulator, post)
    return requests[0]


# ---------------------------------------------------------------- what is sent


async def test_what_leaves_names_itself_and_the_key_that_shall_answer(channel, account, counterparty):
    await channel.create(account, counterparty.an_order("PHEADERS"))
    (request,) = counterparty.requests()
    assert request.headers["Accept"] == "application/json"
    assert request.headers["User-Agent"]
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Wechatpay-Serial"] == account.params["public_key_id"]
    assert request.headers["Authorization"].startswith("WECHATPAY2-SHA256-RSA2048 mchid=")
    assert json.loads(request.body) == {
        "amount": {"currency": "CNY", "total": 1234},
        "appid": MINI_APP,
        "description": "门诊缴费",
        "mchid": "1900000109",
        "notify_url": account.notify_url,
        "out_trade_no": "PHEADERS",
        "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
        "time_expire": "2026-05-06T09:35:00+08:00",
    }


async def test_a_refund_always_says_where_its_notice_goes(channel, account, counterparty):
    await counterparty.pay(await channel.create(account, counterparty.an_order("PNOTIFY")))
    refund = RefundOrder(
        refund_no="R1", order_no="PNOTIFY", channel_trade_no="", amount_fen=Fen(1), total_fen=TOTAL, reason=""
    )
    await channel.refund(account, refund)
    assert json.loads(counterparty.requests()[-1].body) == {
        "amount": {"currency": "CNY", "refund": 1, "total": 1234},
        "notify_url": account.notify_url,
        "out_refund_no": "R1",
        "out_trade_no": "PNOTIFY",
    }


async def test_numbers_are_percent_encoded_before_they_are_signed(channel, account, counterparty):
    order = counterparty.an_order("P|A*B_C-D")
    await counterparty.pay(await channel.create(account, order))
    assert (await channel.query(account, order.order_no)).ever_paid
    assert "/P%7CA%2AB_C-D?" in counterparty.requests()[-1].url


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 5, 6, 1, 35, tzinfo=UTC), "2026-05-06T09:35:00+08:00"),
        (datetime(2026, 12, 31, 16, 0, 0, 999_999, tzinfo=UTC), "2027-01-01T00:00:00+08:00"),
    ],
)
def test_an_expiry_is_whole_seconds_and_never_late(moment, text):
    assert time_text(moment) == text


def test_long_texts_are_cut_between_characters(counterparty):
    order = replace(counterparty.an_order("PLONG01"), description="药" * 100)
    body = order_body(order, parties=Parties.direct("1", ["a"]), app_id="a", notify_url="https://n")
    assert body["description"] == "药" * 42


async def test_an_app_of_somebody_else_is_our_mistake_and_nothing_is_sent(channel, account, counterparty):
    with pytest.raises(ConfigurationError, match="wxelse"):
        await channel.create(account, replace(counterparty.an_order("PAPP001"), app_id="wxelse"))
    assert counterparty.requests() == []


@pytest.mark.parametrize("change", [{"instrument": "pos"}, {"payer_open_id": None}, {"payer_open_id": ""}])
async def test_an_impossible_order_is_our_mistake_and_nothing_is_sent(channel, account, counterparty, change):
    with pytest.raises(ValueError, match=r"instrument|openid"):
        await channel.create(account, replace(counterparty.an_order("PBAD001"), **change))
    assert counterparty.requests() == []


# ---------------------------------------------------------------- what is believed


def test_the_closed_list():
    """Adding a pair is a decision about money: it says that nothing happened and nothing will."""
    assert {
        Call.CREATE: {
            (400, "PARAM_ERROR"),
            (400, "APPID_MCHID_NOT_MATCH"),
            (400, "MCH_NOT_EXISTS"),
            (401, "SIGN_ERROR"),
            (403, "NO_AUTH"),
            (403, "RULE_LIMIT"),
        },
        Call.REFUND: {(400, "PARAM_ERROR"), (403, "USER_ACCOUNT_ABNORMAL")},
    } == FINAL
    assert all(pairs <= DEFINITE for pairs in FINAL.values())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<xml><return_code>SUCCESS</return_code></xml>"),
        (302, b""),
        (400, b""),
        (403, b"<html>a firewall</html>"),
        (404, b'{"message":"no code"}'),
        (403, b'{"code":17}'),
        (502, b'{"code":"PARAM_ERROR","message":""}'),
    ],
)
async def test_what_is_not_their_format_is_unknown(channel, account, counterparty, status, body):
    counterparty.transport.answer_next(HttpReply(status=status, body=body))
    with pytest.raises(OutcomeUnknown):
        await channel.create(account, counterparty.an_order("PFORMAT"))


async def test_an_answer_that_says_later_is_unknown_though_signed(channel, account, counterparty):
    counterparty.transport.alter_next(lambda reply: replace(reply, status=202))
    with pytest.raises(OutcomeUnknown, match="202"):
        await channel.create(account, counterparty.an_order("PLATER1"))


async def test_the_same_code_with_another_status_is_not_the_listed_one(channel, account, counterparty):
    counterparty.refuse_next(status=400, code="ORDER_NOT_EXIST")
    with pytest.raises(Refused) as refused:
        await channel.query(account, "PSTATUS")
    assert not refused.value.final
    counterparty.refuse_next(status=403, code="PARAM_ERROR")
    with pytest.raises(OutcomeUnknown):
        await channel.create(account, counterparty.an_order("PSTATUS"))


async def test_a_payer_without_an_account_is_refused_for_good(channel, account, counterparty):
    await counterparty.pay(await channel.create(account, counterparty.an_order("PGONE01")))
    counterparty.simulator.faults.script("wechatpay.refund_payer_account_closed")
    refund = RefundOrder(
        refund_no="R2", order_no="PGONE01", channel_trade_no="", amount_fen=TOTAL, total_fen=TOTAL, reason="x"
    )
    with pytest.raises(Refused) as refused:
        await channel.refund(account, refund)
    assert (refused.value.code, refused.value.final) == ("USER_ACCOUNT_ABNORMAL", True)


async def test_a_query_that_lags_behind_moves_nothing(channel, account, counterparty):
    await counterparty.pay(await channel.create(account, counterparty.an_order("PLAG001")))
    counterparty.let(Trouble.QUERY_LAGS)
    assert not (await channel.query(account, "PLAG001")).ever_paid
    assert (await channel.query(account, "PLAG001")).ever_paid


async def test_a_coupon_does_not_change_what_the_merchant_gets(channel, account, counterparty):
    params = await channel.create(account, counterparty.an_order("PCOUPON", "native"))
    assert counterparty.simulator.pay(params.values["code_url"], coupon_fen=234) == "paid"
    assert (await channel.query(account, "PCOUPON")).paid_fen == TOTAL


async def test_a_notice_for_an_app_that_is_not_ours_is_unverified(channel, account, counterparty):
    params = await channel.create(account, counterparty.an_order("PNOTAPP"))
    request = await a_notice(counterparty, params)
    other = replace(account, params={**account.params, "app_ids": SERVICE_APP})
    assert isinstance(await channel.read_notice(account, request.headers, request.body), Notice)
    read = await channel.read_notice(other, request.headers, request.body)
    assert read == Unverified(reason="appid is not ours")


async def test_a_strangers_notice_with_the_same_key_is_told_by_its_merchant_number(channel, account, counterparty):
    params = await channel.create(account, counterparty.an_order("PSTRANGE"))
    request = await a_notice(counterparty, params)
    read = await channel.read_notice(counterparty.stranger(), request.headers, request.body)
    assert read == Unverified(reason="mchid is not ours")


async def test_a_huge_notice_is_not_even_read(channel, account):
    assert isinstance(await channel.read_notice(account, {}, b"x" * (1 << 20)), Unverified)


def test_notices_are_acknowledged_as_documented(channel):
    assert (channel.acknowledge(accepted=True).status, channel.acknowledge(accepted=True).body) == (204, b"")
    refused = channel.acknowledge(accepted=False)
    assert refused.status == 500
    assert json.loads(refused.body)["code"] == "FAIL"


# ---------------------------------------------------------------- certificates


async def test_a_public_key_alone_never_downloads_certificates(channel, account, counterparty):
    await channel.query(account, "PNOCERTS")
    counterparty.pass_time(timedelta(days=2))
    await channel.query(account, "PNOCERTS")
    assert downloads(counterparty) == 0


async def test_certificates_are_renewed_on_the_way_before_twelve_hours_are_over(
    channel, certificate_account, counterparty
):
    await channel.query(certificate_account, "PCERT01")
    await channel.query(certificate_account, "PCERT01")
    assert downloads(counterparty) == 1
    counterparty.pass_time(timedelta(hours=11, minutes=30))
    await channel.query(certificate_account, "PCERT01")
    assert downloads(counterparty) == 2


async def test_a_new_certificate_comes_in_without_restart(channel, certificate_account, counterparty):
    counterparty.sign_with(1)
    await channel.query(certificate_account, "PCERT02")
    new = counterparty.simulator.rotate_certificate()
    order = counterparty.an_order("PCERT02", "native")
    request = await a_notice(counterparty, await channel.create(certificate_account, order))
    sent = len(counterparty.requests())
    assert request.headers["wechatpay-serial"] == new.serial
    read = await channel.read_notice(certificate_account, request.headers, request.body)
    assert read == Unverified(reason="signed with an unknown serial")
    assert len(counterparty.requests()) == sent
    assert new.serial in await channel.refresh_keys(certificate_account)
    assert isinstance(await channel.read_notice(certificate_account, request.headers, request.body), Notice)
    await channel.query(certificate_account, "PCERT02")
    assert counterparty.requests()[-1].headers["Wechatpay-Serial"] in (
        new.serial,
        counterparty.simulator.certificate.serial,
    )


async def test_an_answer_with_an_unknown_serial_asks_for_certificates_once_a_minute(
    channel, certificate_account, counterparty
):
    await channel.query(certificate_account, "PCERT03")
    counterparty.pass_time(timedelta(minutes=2))
    order = counterparty.an_order("PCERT03")
    for expected in (2, 2):
        counterparty.simulator.faults.script("wechatpay.answer_unknown_serial", key="PCERT03")
        with pytest.raises(OutcomeUnknown, match="unknown serial"):
            await channel.create(certificate_account, order)
        assert downloads(counterparty) == expected


@pytest.mark.parametrize("fault", ["answer_forged", "answer_unsigned", "answer_clock_skewed", "answer_garbled"])
async def test_a_download_that_cannot_be_believed_changes_nothing(channel, certificate_account, counterparty, fault):
    counterparty.simulator.rotate_certificate()
    counterparty.simulator.faults.script(f"wechatpay.{fault}")
    with pytest.raises(OutcomeUnknown):
        await channel.refresh_keys(certificate_account)
    counterparty.pass_time(timedelta(hours=12))
    counterparty.simulator.faults.script(f"wechatpay.{fault}")
    # The download on the way fails again; the call itself goes on.
    assert not (await channel.query(certificate_account, "PCERT04")).exists


async def test_certificates_encrypted_for_somebody_else_are_not_taken(channel, certificate_account, counterparty):
    wrong = replace(
        certificate_account,
        params={**certificate_account.params, "api_v3_key": "another key of 32 characters ..."},
    )
    with pytest.raises(OutcomeUnknown, match="cannot be decrypted"):
        await channel.refresh_keys(wrong)


async def test_when_every_certificate_has_expired_the_operator_is_told(channel, certificate_account, counterparty):
    counterparty.pass_time(timedelta(days=365 * 5 + 2))
    with pytest.raises(ConfigurationError, match="expired"):
        await channel.query(certificate_account, "PCERT05")


# ---------------------------------------------------------------- the self-test


async def test_the_check_says_how_far_the_clocks_are_apart(channel, account, counterparty):
    theirs = counterparty.clock.now() + timedelta(seconds=90)
    counterparty.transport.alter_next(
        lambda reply: replace(reply, headers={**reply.headers, "date": format_datetime(theirs, usegmt=True)})
    )
    assert "OUR CLOCK IS 90 SECONDS SLOW" in await channel.check(account)
    assert "clocks differ by 0 s" in await channel.check(account)


async def test_the_check_says_so_when_only_the_way_there_can_be_tried(channel, account, counterparty):
    counterparty.refuse_next(status=403, code="NO_AUTH")
    assert "not open to this merchant" in await channel.check(account)


async def test_the_check_fails_with_a_wrong_merchant_key(channel, account, counterparty):
    wrong = replace(account, params={**account.params, "merchant_private_key": private_pem(rsa_key("wrong"))})
    with pytest.raises(Refused) as refused:
        await channel.check(wrong)
    assert refused.value.code == "SIGN_ERROR"
    assert "clock" in refused.value.message


# ---------------------------------------------------------------- params


def test_every_param_is_in_the_table_and_only_keys_are_secret(account):
    partner = {"service_provider_no", "service_provider_app_id"}
    assert {param.name for param in PARAMS} == set(account.params) | partner
    assert [param.name for param in PARAMS if param.secret] == ["merchant_private_key", "api_v3_key"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"app_ids": " "}, "app_ids"),
        ({"merchant_private_key": "SECRET"}, "merchant_private_key"),
        ({"merchant_serial": "SECRET"}, "merchant_serial"),
        ({"api_v3_key": "SECRET"}, "api_v3_key"),
        ({"api_v3_key": "王" * 32}, "api_v3_key"),
        ({"public_key": "SECRET"}, "public_key"),
        ({"public_key": ""}, "public_key"),
        ({"public_key": "", "public_key_id": ""}, "platform_certificates"),
        ({"public_key_id": "ONE TWO"}, "public_key"),
        ({"platform_certificates": "SECRET"}, "platform_certificates"),
        ({"base_url": "http://api.mch.weixin.qq.com"}, "base_url"),
        ({"base_url": "https://api.mch.weixin.qq.com/v3"}, "base_url"),
        ({"base_url": "SECRET"}, "base_url"),
        ({"apiv3_key": "SECRET"}, "apiv3_key"),
    ],
)
def test_a_wrong_param_is_named_and_never_quoted(account, change, told):
    with pytest.raises(ConfigurationError, match=told) as raised:
        Credentials.read(replace(account, params={**account.params, **change}))
    assert account.merchant_no in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_wechat_pay_itself_is_the_default(account):
    credentials = Credentials.read(replace(account, params={**account.params, "base_url": ""}))
    assert credentials.base_url == "https://api.mch.weixin.qq.com"
