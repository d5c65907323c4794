"""The simulated WeChat Pay for service providers: who may speak for whom, and what is said of both."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from simulators.kit import Response
from simulators.wechatpay import Merchant, WechatPaySimulator
from tests.support.wechatpay_merchant import (
    APPID,
    MCHID,
    NOTIFY_URL,
    OPENID,
    MerchantOfTests,
    a_merchant_of_tests,
    an_order,
)

PROVIDER, HOSPITAL, SISTER, FOREIGN = "1900000301", "1900000302", "1900000303", "1900000304"
PROVIDERS_APP, HOSPITALS_APP = "wx00000000000000sp", "wx0000000000000sub"
PAY = "/v3/pay/partner/transactions"
REFUNDS = "/v3/refund/domestic/refunds"


class ProviderOfTests(MerchantOfTests):
    """A service provider who speaks for HOSPITAL unless a call names another."""

    async def create(self, out_trade_no: str, product: str = "jsapi", **changes: Any) -> Response:
        return await self.send("POST", f"{PAY}/{product}", a_partner_order(out_trade_no, product, **changes))

    async def query(self, out_trade_no: str, sub_mchid: str = HOSPITAL) -> Response:
        target = f"{PAY}/out-trade-no/{out_trade_no}?sp_mchid={PROVIDER}&sub_mchid={sub_mchid}"
        return await self.send("GET", target)

    async def close(self, out_trade_no: str, sub_mchid: str = HOSPITAL) -> Response:
        body = {"sp_mchid": PROVIDER, "sub_mchid": sub_mchid}
        return await self.send("POST", f"{PAY}/out-trade-no/{out_trade_no}/close", body)

    async def refund(self, out_refund_no: str, out_trade_no: str, fen: int, **changes: Any) -> Response:
        return await super().refund(out_refund_no, out_trade_no, fen, **{"sub_mchid": HOSPITAL, **changes})

    async def query_refund(self, out_refund_no: str, sub_mchid: str = HOSPITAL) -> Response:
        return await self.send("GET", f"{REFUNDS}/{out_refund_no}?sub_mchid={sub_mchid}")


def a_partner_order(out_trade_no: str, product: str = "jsapi", **changes: Any) -> dict[str, Any]:
    """`changes` with the value None drop a field."""
    body = an_order(out_trade_no, product) | {
        "sp_appid": PROVIDERS_APP,
        "sp_mchid": PROVIDER,
        "sub_appid": HOSPITALS_APP,
        "sub_mchid": HOSPITAL,
    }
    del body["appid"], body["mchid"]
    if product == "jsapi":
        body["payer"] = {"sub_openid": OPENID}
    return {name: value for name, value in (body | changes).items() if value is not None}


@pytest.fixture
def direct() -> MerchantOfTests:
    """A direct merchant at the same server."""
    return a_merchant_of_tests()


@pytest.fixture
def simulator(direct: MerchantOfTests) -> WechatPaySimulator:
    return direct.simulator


@pytest.fixture
def provider(simulator: WechatPaySimulator) -> Merchant:
    provider = simulator.add_service_provider(PROVIDER, appids={PROVIDERS_APP})
    for mchid in (HOSPITAL, SISTER):
        simulator.add_sub_merchant(mchid, provider=provider, appids={HOSPITALS_APP})
    other = simulator.add_service_provider("1900000305", appids={PROVIDERS_APP})
    simulator.add_sub_merchant(FOREIGN, provider=other, appids={HOSPITALS_APP})
    return provider


@pytest.fixture
def us(direct: MerchantOfTests, provider: Merchant) -> ProviderOfTests:
    return ProviderOfTests(
        simulator=direct.simulator, merchant=provider, clock=direct.clock, serial=direct.simulator.public_key.serial
    )


def said(response: Response) -> tuple[int, str, str]:
    value = json.loads(response.body)
    return response.status, value["code"], value["message"]


def number(response: Response) -> str:
    return response.headers["request-id"].rpartition("-")[2]


class TestWhoMaySpeakForWhom:
    async def test_direct_paths_refuse_a_service_provider(self, us, simulator):
        order = an_order("T00001", appid=PROVIDERS_APP, mchid=PROVIDER)
        target = f"/v3/pay/transactions/out-trade-no/T00001?mchid={PROVIDER}&sub_mchid={HOSPITAL}"
        responses = [
            await us.send("POST", "/v3/pay/transactions/jsapi", order),
            await us.send("GET", target),
            await us.send("POST", "/v3/pay/transactions/out-trade-no/T00001/close", {"mchid": PROVIDER}),
            await us.refund("R1", "T00001", 1, sub_mchid=PROVIDER),
            await us.send("GET", f"{REFUNDS}/R1"),
        ]
        for response in (*responses[:3], responses[4]):
            assert said(response) == (400, "PARAM_ERROR", "受理机构必须传入sub_mch_id")
            assert number(response) == "268443704"
        assert number(responses[3]) == "268443705"
        assert simulator.books()["orders"] == []

    async def test_partner_paths_refuse_a_direct_merchant(self, us, direct, simulator):
        order = a_partner_order("T00001", sp_mchid=MCHID, sp_appid=APPID)
        target = f"{PAY}/out-trade-no/T00001?sp_mchid={MCHID}&sub_mchid={HOSPITAL}"
        close = {"sp_mchid": MCHID, "sub_mchid": HOSPITAL}
        for response in (
            await direct.send("POST", f"{PAY}/jsapi", order),
            await direct.send("GET", target),
            await direct.send("POST", f"{PAY}/out-trade-no/T00001/close", close),
            await direct.refund("R1", "T00001", 1, sub_mchid=HOSPITAL),
            await direct.send("GET", f"{REFUNDS}/R1?sub_mchid={HOSPITAL}"),
        ):
            assert said(response) == (400, "PARAM_ERROR", "普通商户不允许传sub_mch_id")
        assert simulator.books()["orders"] == []

    @pytest.mark.parametrize(
        ("sub_mchid", "refusal", "ends"),
        [
            (FOREIGN, (403, "NO_AUTH", "特约子商户商户号未授权服务商的产品权限"), "268443701"),
            (MCHID, (403, "NO_AUTH", "特约子商户商户号未授权服务商的产品权限"), "268443701"),
            ("1999999999", (400, "MCH_NOT_EXISTS", "商户号不存在"), "0"),
            (PROVIDER, (400, "PARAM_ERROR", "子商户号不能与服务商商户号相同"), "268443705"),
        ],
    )
    async def test_a_sub_merchant_of_nobody_or_somebody_else_is_refused(self, us, simulator, sub_mchid, refusal, ends):
        for response in (
            await us.create("T00001", sub_mchid=sub_mchid),
            await us.query("T00001", sub_mchid),
            await us.close("T00001", sub_mchid),
            await us.refund("R1", "T00001", 1, sub_mchid=sub_mchid),
            await us.query_refund("R1", sub_mchid),
        ):
            assert said(response) == refusal
            assert number(response) == ends
        assert simulator.books()["orders"] == []

    async def test_numbers_that_are_missing_or_not_the_signers_are_refused(self, us):
        target = f"{PAY}/out-trade-no/T00001"
        for query in ("", f"?sub_mchid={HOSPITAL}", f"?sp_mchid={PROVIDER}"):
            assert said(await us.send("GET", target + query))[:2] == (400, "PARAM_ERROR")
        response = await us.create("T00001", sub_mchid=None)
        assert json.loads(response.body)["detail"]["field"] == "/sub_mchid"
        response = await us.create("T00001", sp_mchid="1900000305")
        assert said(response)[:2] == (400, "INVALID_REQUEST")

    async def test_a_sub_merchant_has_no_key_to_sign_with(self, us, simulator):
        response = await us.send("GET", f"{PAY}/out-trade-no/T00001?mchid={HOSPITAL}", mchid=HOSPITAL)
        assert said(response)[:2] == (401, "SIGN_ERROR")
        with pytest.raises(ValueError, match="no service provider"):
            simulator.add_sub_merchant("1900000306", provider=simulator.merchants[MCHID])
        with pytest.raises(ValueError, match="exists"):
            simulator.add_sub_merchant(HOSPITAL, provider=simulator.merchants[PROVIDER])

    async def test_one_hospitals_order_is_hidden_from_another_of_the_same_provider(self, us):
        await us.create("T00001")
        assert us.simulator.pay("T00001") == "paid"
        await us.refund("R1", "T00001", 1)
        mismatch = (403, "NO_AUTH", "商户号或子商户号与订单号不匹配")
        for response in (
            await us.query("T00001", SISTER),
            await us.close("T00001", SISTER),
            await us.refund("R2", "T00001", 1, sub_mchid=SISTER),
            await us.query_refund("R1", SISTER),
            await us.refund("R1", "T00001", 1, sub_mchid=SISTER),
        ):
            assert said(response) == mismatch
            assert number(response) == "268447845"
        assert said(await us.create("T00001", sub_mchid=SISTER))[:2] == (403, "OUT_TRADE_NO_USED")
        assert (await us.query("T00001")).status == 200

    async def test_refunds_need_the_hospitals_leave(self, us, simulator):
        await us.create("T00001")
        simulator.pay("T00001")
        simulator.merchants[HOSPITAL].refunds_authorised = False
        assert said(await us.refund("R1", "T00001", 1))[:2] == (403, "NO_AUTH")
        assert simulator.books()["refunds"] == []


class TestOrders:
    @pytest.mark.parametrize(
        ("change", "refusal"),
        [
            ({"sp_appid": HOSPITALS_APP}, (400, "APPID_MCHID_NOT_MATCH")),
            ({"sub_appid": PROVIDERS_APP}, (400, "APPID_MCHID_NOT_MATCH")),
            ({"payer": {}}, (400, "PARAM_ERROR")),
            ({"payer": {"openid": OPENID}}, (400, "PARAM_ERROR")),
            ({"sub_appid": None}, (400, "PARAM_ERROR")),
            ({"mchid": PROVIDER}, (400, "PARAM_ERROR")),
            ({"amount": {"total": 0}}, (400, "PARAM_ERROR")),
        ],
    )
    async def test_what_does_not_fit_is_refused_and_nothing_is_booked(self, us, simulator, change, refusal):
        assert said(await us.create("T00001", **change))[:2] == refusal
        assert simulator.books()["orders"] == []

    async def test_a_payer_of_the_hospitals_app(self, us, simulator):
        await us.create("T00001")
        unpaid = json.loads((await us.query("T00001")).body)
        assert (unpaid["trade_state"], unpaid["payer"]) == ("NOTPAY", {})
        assert simulator.pay("T00001", OPENID) == "paid"
        paid = json.loads((await us.query("T00001")).body)
        assert {name: paid[name] for name in ("sp_appid", "sp_mchid", "sub_appid", "sub_mchid")} == {
            "sp_appid": PROVIDERS_APP,
            "sp_mchid": PROVIDER,
            "sub_appid": HOSPITALS_APP,
            "sub_mchid": HOSPITAL,
        }
        assert paid["payer"]["sub_openid"] == OPENID
        assert paid["payer"]["sp_openid"] not in ("", OPENID)
        assert not {"appid", "mchid"} & set(paid)
        target = f"{PAY}/id/{paid['transaction_id']}?sp_mchid={PROVIDER}&sub_mchid={HOSPITAL}"
        assert json.loads((await us.send("GET", target)).body) == paid

    async def test_a_payer_of_the_providers_app(self, us, simulator):
        await us.create("T00001", sub_appid=None, payer={"sp_openid": OPENID})
        assert simulator.pay("T00001", "o-someone-else") == "wrong_payer"
        assert simulator.pay("T00001", OPENID) == "paid"
        paid = json.loads((await us.query("T00001")).body)
        assert paid["payer"] == {"sp_openid": OPENID}
        assert "sub_appid" not in paid

    async def test_every_product_and_reentry(self, us, simulator):
        for product, name in (("jsapi", "prepay_id"), ("app", "prepay_id"), ("native", "code_url"), ("h5", "h5_url")):
            first = json.loads((await us.create(f"T{product}0001", product)).body)
            again = json.loads((await us.create(f"T{product}0001", product)).body)
            assert list(first) == list(again) == [name]
            assert simulator.pay(again[name]) == "paid"
        assert len(simulator.books()["orders"]) == 4

    async def test_the_money_is_the_hospitals_and_its_books_say_so(self, us, simulator):
        await us.create("T00001")
        simulator.pay("T00001", mchid=HOSPITAL)
        (order,) = simulator.books()["orders"]
        assert (order["mchid"], order["sp_mchid"], order["sub_mchid"]) == (HOSPITAL, PROVIDER, HOSPITAL)
        assert order["taken_fen"] == simulator.merchants[HOSPITAL].balance_fen == 100
        assert simulator.merchants[PROVIDER].balance_fen == 0

    async def test_direct_and_partner_orders_share_a_number_and_nothing_else(self, us, direct, simulator):
        await us.create("T00001")
        assert (await direct.create("T00001")).status == 200
        with pytest.raises(ValueError, match="several merchants"):
            simulator.pay("T00001")
        assert simulator.pay("T00001", mchid=SISTER) == "unknown"
        assert simulator.pay("T00001", mchid=PROVIDER) == "paid"
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "SUCCESS"
        assert json.loads((await direct.query("T00001")).body)["trade_state"] == "NOTPAY"
        assert said(await us.close("T00001"))[:2] == (400, "ORDER_PAID")
        assert (await direct.close("T00001")).status == 204


class TestRefundsAndNotices:
    async def test_a_refund_comes_out_of_the_hospitals_balance(self, us, simulator):
        await us.create("T00001")
        simulator.pay("T00001")
        simulator.merchants[PROVIDER].balance_fen = 1000
        simulator.merchants[HOSPITAL].balance_fen = 0
        assert said(await us.refund("R1", "T00001", 30))[:2] == (403, "NOT_ENOUGH")
        assert simulator.top_up(HOSPITAL, 100) == 100
        accepted = json.loads((await us.refund("R1", "T00001", 30)).body)
        assert not {"mchid", "sp_mchid", "sub_mchid"} & set(accepted)
        assert json.loads((await us.refund("R1", "T00001", 30)).body) == accepted
        assert (simulator.merchants[HOSPITAL].balance_fen, simulator.merchants[PROVIDER].balance_fen) == (70, 1000)
        us.clock.advance(timedelta(minutes=1))
        assert json.loads((await us.query_refund("R1")).body)["status"] == "SUCCESS"

    async def test_notices_are_the_providers_and_name_both(self, us, simulator):
        await us.create("T00001")
        simulator.pay("T00001")
        await us.deliver()
        await us.refund("R1", "T00001", 30)
        await us.deliver()
        (paid_event, paid), (refund_event, refund) = us.told()
        assert (paid_event, refund_event) == ("TRANSACTION.SUCCESS", "REFUND.SUCCESS")
        assert paid["payer"]["sub_openid"] == OPENID
        for value in (paid, refund):
            assert (value["sp_mchid"], value["sub_mchid"]) == (PROVIDER, HOSPITAL)
            assert "mchid" not in value
        assert [request.target for request in us.received] == ["/n/abc", "/n/abc"]
        assert NOTIFY_URL.endswith("/n/abc")

    async def test_staff_of_the_hospital_and_of_the_provider_refund_by_hand(self, us, simulator):
        await us.create("T00001")
        simulator.pay("T00001")
        numbers = [simulator.refund_by_hand(mchid, "T00001", 10) for mchid in (HOSPITAL, PROVIDER)]
        for each in numbers:
            assert json.loads((await us.query_refund(each)).body)["amount"]["refund"] == 10
        with pytest.raises(KeyError):
            simulator.refund_by_hand(SISTER, "T00001", 10)

    async def test_an_abnormal_refund_is_handled_with_the_hospitals_number(self, us, simulator):
        await us.create("T00001")
        simulator.pay("T00001")
        simulator.faults.script("wechatpay.refund_abnormal")
        refund_id = json.loads((await us.refund("R1", "T00001", 30)).body)["refund_id"]
        us.clock.advance(timedelta(minutes=1))
        target = f"{REFUNDS}/{refund_id}/apply-abnormal-refund"
        body = {"out_refund_no": "R1", "type": "MERCHANT_BANK_CARD"}
        assert said(await us.send("POST", target, body))[:2] == (400, "PARAM_ERROR")
        handled = await us.send("POST", target, body | {"sub_mchid": HOSPITAL})
        assert json.loads(handled.body)["status"] == "PROCESSING"

    async def test_certificates_and_the_echo_are_the_providers(self, us):
        assert len(json.loads((await us.send("GET", "/v3/certificates")).body)["data"]) == 1
        response = await us.send("POST", "/v3/security/echo", {"echo_message": "你好"})
        assert json.loads(response.body) == {"echo_message": "你好"}
