"""The simulated WeChat Pay: its gate, its books, its notices, the payer's phone and every named fault."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from simulators.kit import ConnectionLost, NeverConnected, Response, exchange
from simulators.wechatpay import FAULTS, RESEND_AFTER
from simulators.wechatpay_keys import (
    aead_decrypt,
    oaep_decrypt,
    oaep_encrypt,
    read_public_key,
)
from tests.support.wechatpay_merchant import (
    APPID,
    MCHID,
    OPENID,
    MerchantOfTests,
    a_merchant_of_tests,
    an_order,
)

CREATE = "/v3/pay/transactions/jsapi"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def us() -> MerchantOfTests:
    return a_merchant_of_tests()


def code(response: Response) -> tuple[int, str]:
    return response.status, json.loads(response.body)["code"]


def order_in_books(us: MerchantOfTests, out_trade_no: str) -> dict[str, Any]:
    (order,) = [order for order in us.simulator.books()["orders"] if order["out_trade_no"] == out_trade_no]
    return dict(order)


class TestGate:
    async def test_unknown_path_and_wrong_method_come_before_everything_and_have_no_body(self, us):
        for method, target, status in (
            ("GET", "/v3/nothing", 404),
            ("GET", CREATE, 405),
            ("POST", "/v3/certificates", 405),
            ("GET", "/v3/pay/transactions/out-trade-no/", 404),
        ):
            response = await us.send(method, target, authorization=None, user_agent=None)
            assert (response.status, response.body) == (status, b"")

    async def test_missing_accept_or_user_agent_matters_outside_pay_only(self, us):
        for header in ({"user_agent": None}, {"accept": None}):
            response = await us.send("GET", "/v3/certificates", authorization=None, **header)
            assert code(response) == (400, "INVALID_REQUEST")
            assert (await us.send("POST", CREATE, an_order("T00001"), **header)).status == 200

    @pytest.mark.parametrize("value", [None, "Bearer x", "WECHATPAY2-SHA256-RSA2048 mchid=1", 'x mchid="1"'])
    async def test_a_malformed_authorization_is_refused_unsigned(self, us, value):
        pay = await us.send("POST", CREATE, an_order("T00001"), authorization=value)
        other = await us.send("GET", "/v3/certificates", authorization=value)
        assert code(pay) == code(other) == (401, "SIGN_ERROR")
        assert "wechatpay-signature" not in pay.headers
        assert "request-id" not in pay.headers
        assert other.headers["request-id"].endswith("-268443699")

    async def test_the_clock_is_checked_before_the_signature(self, us):
        for seconds in (-301, 301):
            at = us.clock.now() + timedelta(seconds=seconds)
            response = await us.send("POST", CREATE, an_order("T00001"), at=at, mchid="1")
            assert "5分钟" in json.loads(response.body)["message"]
        for seconds in (-300, 300):
            at = us.clock.now() + timedelta(seconds=seconds)
            assert (await us.send("POST", CREATE, an_order("T00001"), at=at)).status == 200

    async def test_foreign_merchant_serial_or_changed_bytes_fail_the_signature(self, us):
        request = us.request("POST", CREATE, an_order("T00001"))
        changed = type(request)(
            method="POST", target=CREATE, headers=request.headers, body=request.body.replace(b"100", b"101")
        )
        assert code(await exchange(us.simulator, changed)) == (401, "SIGN_ERROR")
        assert code(await us.send("POST", CREATE, an_order("T00001"), mchid="1")) == (401, "SIGN_ERROR")
        assert code(await us.send("POST", CREATE, an_order("T00001"), serial_no="AB")) == (401, "SIGN_ERROR")
        assert us.simulator.books()["orders"] == []

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"surprise": 1}, "/surprise"),
            ({"amount": {"total": 0}}, "/amount/total"),
            ({"amount": {"total": "100"}}, "/amount/total"),
            ({"amount": {"total": True}}, "/amount/total"),
            ({"amount": {"total": 1, "currency": "USD"}}, "/amount/currency"),
            ({"out_trade_no": "T1"}, "/out_trade_no"),
            ({"out_trade_no": "T0000 1"}, "/out_trade_no"),
            ({"attach": ""}, "/attach"),
            ({"description": "长" * 128}, "/description"),
            ({"notify_url": "https://a.example/n?x=1"}, "/notify_url"),
            ({"payer": {}}, "/payer/openid"),
            ({"time_expire": "2026-05-06 12:00"}, "/time_expire"),
            ({"time_expire": "2026-06-06T12:00:00+08:00"}, "/time_expire"),
        ],
    )
    async def test_a_bad_field_is_named_and_nothing_is_booked(self, us, change, field):
        response = await us.send("POST", CREATE, an_order("T00001") | change)
        assert code(response) == (400, "PARAM_ERROR")
        assert json.loads(response.body)["detail"]["field"] == field
        assert us.simulator.books()["orders"] == []

    async def test_an_unknown_field_has_its_own_number(self, us):
        response = await us.create("T00001", surprise=1)
        assert response.headers["request-id"].endswith("-270924358")

    async def test_a_body_that_is_no_json_object_is_refused(self, us):
        for data in (b"[]", b"{", b"\xff"):
            assert code(await us.send("POST", CREATE, data=data)) == (400, "PARAM_ERROR")

    async def test_an_answer_is_signed_with_the_key_that_the_request_names(self, us):
        for key in (us.simulator.public_key, us.simulator.certificate):
            us.serial = key.serial
            response = await us.create("T00001")
            assert response.headers["wechatpay-serial"] == key.serial
            assert us.verifies(response)
        us.serial = None
        assert (await us.create("T00001")).headers["wechatpay-serial"] == us.simulator.certificate.serial
        us.serial = "PUB_KEY_ID_0000"
        assert code(await us.create("T00001")) == (400, "PARAM_ERROR")

    async def test_a_rotated_key_signs_and_the_one_before_still_answers_by_name(self, us):
        old = us.simulator.certificate
        new = us.simulator.rotate_certificate()
        us.serial = None
        assert (await us.create("T00001")).headers["wechatpay-serial"] == new.serial != old.serial
        us.serial = old.serial
        assert (await us.create("T00001")).headers["wechatpay-serial"] == old.serial
        assert len(json.loads((await us.send("GET", "/v3/certificates")).body)["data"]) == 2
        assert us.simulator.rotate_public_key().serial != us.serial

    async def test_certificates_come_encrypted(self, us):
        response = await us.send("GET", "/v3/certificates")
        (entry,) = json.loads(response.body)["data"]
        sealed = entry["encrypt_certificate"]
        values = {name: sealed[name] for name in ("nonce", "associated_data", "ciphertext")}
        pem = aead_decrypt(us.merchant.api_v3_key, **values)
        assert read_public_key(pem) == us.simulator.certificate.private_key.public_key()
        with pytest.raises(InvalidTag):
            aead_decrypt("x" * 32, **values)

    async def test_a_new_merchant_has_no_certificates(self):
        us = a_merchant_of_tests(public_key_only=True)
        assert code(await us.send("GET", "/v3/certificates")) == (404, "RESOURCE_NOT_EXISTS")
        us.serial = None
        assert (await us.create("T00001")).headers["wechatpay-serial"] == us.simulator.public_key.serial


class TestOrders:
    async def test_the_same_order_again_gives_a_fresh_id_and_a_changed_one_is_refused(self, us):
        first, second = await us.create("T00001"), await us.create("T00001")
        assert first.status == second.status == 200
        assert json.loads(first.body)["prepay_id"] != json.loads(second.body)["prepay_id"]
        for change in ({"description": "别的"}, {"amount": {"total": 101, "currency": "CNY"}}):
            assert code(await us.create("T00001", **change)) == (403, "OUT_TRADE_NO_USED")
        native = an_order("T00001", "native")
        response = await us.send("POST", "/v3/pay/transactions/native", native)
        assert code(response) == (403, "OUT_TRADE_NO_USED")
        assert len(us.simulator.books()["orders"]) == 1

    async def test_each_product_gives_its_own_reference(self, us):
        for product, name in (
            ("jsapi", "prepay_id"),
            ("app", "prepay_id"),
            ("native", "code_url"),
            ("h5", "h5_url"),
        ):
            value = json.loads((await us.create(f"T{product}0001", product)).body)
            assert list(value) == [name]
            assert us.simulator.pay(value[name]) == "paid"
        types = {order.out_trade_no: order.product for order in us.simulator.orders.values()}
        assert len(types) == 4
        assert len(json.loads((await us.create("T00002")).body)["prepay_id"]) == 36

    async def test_a_foreign_appid_or_merchant_is_refused(self, us):
        assert code(await us.create("T00001", appid="wx0")) == (400, "APPID_MCHID_NOT_MATCH")
        assert code(await us.create("T00001", mchid="1900000110")) == (400, "INVALID_REQUEST")

    async def test_two_merchants_may_use_the_same_number(self, us):
        other = us.simulator.add_merchant("1900000110", appids={APPID})
        await us.create("T00001")
        them = MerchantOfTests(simulator=us.simulator, merchant=other, clock=us.clock)
        assert (await them.create("T00001", mchid=other.mchid)).status == 200
        with pytest.raises(ValueError, match="several merchants"):
            us.simulator.pay("T00001")
        assert us.simulator.pay("T00001", mchid=other.mchid) == "paid"
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "NOTPAY"
        assert json.loads((await them.query("T00001")).body)["trade_state"] == "SUCCESS"

    async def test_an_unpaid_and_a_paid_order_as_the_query_shows_them(self, us):
        await us.create("T00001", attach="门诊")
        unpaid = json.loads((await us.query("T00001")).body)
        assert unpaid["trade_state"] == "NOTPAY"
        assert unpaid["amount"]["total"] == 100
        assert "transaction_id" not in unpaid
        assert us.simulator.pay("T00001", coupon_fen=30) == "paid"
        paid = json.loads((await us.query("T00001")).body)
        assert paid["trade_state"] == "SUCCESS"
        assert paid["trade_type"] == "JSAPI"
        assert paid["attach"] == "门诊"
        assert paid["payer"] == {"openid": OPENID}
        assert paid["success_time"] == "2026-05-06T12:00:00+08:00"
        assert paid["amount"] == {"total": 100, "payer_total": 70, "currency": "CNY", "payer_currency": "CNY"}
        assert paid["promotion_detail"][0]["amount"] == 30
        assert len(paid["transaction_id"]) == 28
        by_id = await us.send("GET", f"/v3/pay/transactions/id/{paid['transaction_id']}?mchid={MCHID}")
        assert json.loads(by_id.body) == paid

    async def test_queries_for_nothing_and_without_merchant_are_refused(self, us):
        assert code(await us.query("T99999")) == (404, "ORDER_NOT_EXIST")
        target = "/v3/pay/transactions/id/4200000000000000000000000000?mchid=" + MCHID
        assert code(await us.send("GET", target)) == (404, "ORDER_NOT_EXIST")
        assert code(await us.send("GET", "/v3/pay/transactions/out-trade-no/T00001")) == (400, "PARAM_ERROR")

    async def test_a_number_may_hold_a_bar_that_clients_percent_encode(self, us):
        await us.create("T0|*01")
        target = f"/v3/pay/transactions/out-trade-no/T0%7C*01?mchid={MCHID}"
        assert json.loads((await us.send("GET", target)).body)["out_trade_no"] == "T0|*01"

    async def test_close_is_204_signed_and_reentrant(self, us):
        await us.create("T00001")
        for _ in range(2):
            response = await us.close("T00001")
            assert (response.status, response.body) == (204, b"")
            assert us.verifies(response)
        assert us.simulator.pay("T00001") == "closed"
        assert code(await us.create("T00001")) == (400, "ORDER_CLOSED")
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "CLOSED"
        assert code(await us.close("T99999")) == (404, "ORDER_NOT_EXIST")

    async def test_a_paid_order_cannot_be_closed_or_placed_again(self, us):
        await us.paid("T00001")
        assert code(await us.close("T00001")) == (400, "ORDER_PAID")
        assert (await us.create("T00001")).status == 400
        assert order_in_books(us, "T00001")["closed_at"] is None

    async def test_an_expired_order_stays_unpaid_and_closes_by_itself_after_seven_days(self, us):
        await us.create("T00001", time_expire="2026-05-06T12:05:00+08:00")
        us.clock.advance(5 * MINUTE)
        assert us.simulator.pay("T00001") == "expired"
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "NOTPAY"
        us.clock.advance(timedelta(days=7))
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "CLOSED"
        assert order_in_books(us, "T00001")["closed_at"] == "2026-05-13T12:00:00+08:00"

    async def test_an_expiry_in_the_past_is_raised_to_a_minute(self, us):
        await us.create("T00001", time_expire="2026-05-06T11:00:00+08:00")
        us.clock.advance(timedelta(seconds=59))
        assert us.simulator.pay("T00001") == "paid"


class TestPhone:
    async def test_paying(self, us):
        prepay_id = json.loads((await us.create("T00001")).body)["prepay_id"]
        assert us.simulator.pay("wx0") == "unknown"
        assert us.simulator.pay(prepay_id, "o-someone-else") == "wrong_payer"
        assert us.simulator.pay(prepay_id, OPENID, confirm=False) == "cancelled"
        assert order_in_books(us, "T00001")["taken_fen"] == 0
        assert us.simulator.pay(prepay_id, OPENID) == "paid"
        assert us.simulator.pay(prepay_id, OPENID) == "already_paid"
        assert order_in_books(us, "T00001")["taken_fen"] == 100
        assert us.merchant.balance_fen == 100

    async def test_a_reference_dies_after_two_hours_and_a_fresh_one_pays(self, us):
        old = json.loads((await us.create("T00001")).body)["prepay_id"]
        us.clock.advance(timedelta(hours=2))
        assert us.simulator.pay(old) == "expired"
        assert us.simulator.pay(json.loads((await us.create("T00001")).body)["prepay_id"]) == "paid"

    async def test_an_older_code_url_no_longer_works(self, us):
        old, new = [json.loads((await us.create("T00001", "native")).body)["code_url"] for _ in range(2)]
        assert us.simulator.pay(old, "o1") == "expired"
        assert us.simulator.pay(new, "o1") == "paid"

    async def test_pay_params_are_checked_as_the_phone_does(self, us):
        params = us.pay_params(json.loads((await us.create("T00001")).body)["prepay_id"])
        check = us.simulator.check_pay_params
        assert check(params) is None
        assert check(params | {"appId": APPID}) is None
        assert check(params, appid="wx-another") == "appid does not match the order"
        assert check(params | {"timeStamp": 1}) == "timeStamp missing or not text"
        assert check(params | {"nonceStr": "x"}) == "支付验证签名失败"
        assert check(params | {"package": params["package"][10:]}) == "no such prepay_id"
        assert check(params | {"signType": "MD5"}) == "signType must be RSA"
        assert us.simulator.pay_with(params | {"paySign": "AAAA"}) == "支付验证签名失败"
        assert us.simulator.pay_with(params, OPENID) == "paid"


class TestRefunds:
    async def test_a_partial_refund_turns_the_order_and_settles_later(self, us):
        await us.paid("T00001")
        accepted = json.loads((await us.refund("R1", "T00001", 30)).body)
        assert accepted["status"] == "PROCESSING"
        assert "success_time" not in accepted
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "REFUND"
        us.clock.advance(us.simulator.refund_delay)
        settled = json.loads((await us.query_refund("R1")).body)
        assert settled["status"] == "SUCCESS"
        assert settled["success_time"] == "2026-05-06T12:00:30+08:00"
        assert settled["amount"]["refund"] == 30
        order = order_in_books(us, "T00001")
        assert (order["taken_fen"], order["refunded_fen"], order["returning_fen"]) == (100, 30, 0)
        assert us.merchant.balance_fen == 70

    async def test_the_same_number_refunds_once(self, us):
        await us.paid("T00001")
        first = await us.refund("R1", "T00001", 30)
        assert (await us.refund("R1", "T00001", 30)).body == first.body
        assert code(await us.refund("R1", "T00001", 31)) == (400, "INVALID_REQUEST")
        assert us.merchant.balance_fen == 70

    async def test_refusals_change_nothing(self, us):
        await us.create("T00001")
        assert code(await us.refund("R1", "T00001", 1)) == (404, "RESOURCE_NOT_EXISTS")
        assert code(await us.refund("R1", "T99999", 1)) == (404, "RESOURCE_NOT_EXISTS")
        us.simulator.pay("T00001")
        assert code(await us.refund("R1", "T00001", 101)) == (400, "INVALID_REQUEST")
        assert code(await us.refund("R1", "T00001", 1, total=99)) == (400, "INVALID_REQUEST")
        assert code(await us.refund("R1", "T00001", 1, transaction_id="42")) == (400, "PARAM_ERROR")
        assert code(await us.query_refund("R1")) == (404, "RESOURCE_NOT_EXISTS")
        us.simulator.top_up(MCHID, -100)
        assert code(await us.refund("R1", "T00001", 1)) == (403, "NOT_ENOUGH")
        assert us.simulator.books()["refunds"] == []
        us.simulator.top_up(MCHID, 1)
        assert (await us.refund("R1", "T00001", 1)).status == 200
        assert us.merchant.balance_fen == 0

    async def test_refunds_of_one_order_keep_a_minute_apart_and_end_at_fifty(self, us):
        await us.paid("T00001")
        for number in range(50):
            assert (await us.refund(f"R{number}", "T00001", 1)).status == 200
            assert code(await us.refund("R-soon", "T00001", 1)) in (
                (429, "FREQUENCY_LIMITED"),
                (400, "INVALID_REQUEST"),
            )
            us.clock.advance(MINUTE)
        assert code(await us.refund("R50", "T00001", 1)) == (400, "INVALID_REQUEST")
        assert order_in_books(us, "T00001")["refunded_fen"] == 50

    async def test_after_a_year_it_is_too_late(self, us):
        await us.paid("T00001")
        us.clock.advance(timedelta(days=365, seconds=1))
        assert code(await us.refund("R1", "T00001", 1)) == (403, "TRADE_OVERDUE")

    async def test_a_closed_refund_gives_the_money_back_to_the_merchant(self, us):
        await us.paid("T00001")
        us.simulator.faults.script("wechatpay.refund_closed", key="R1")
        await us.refund("R1", "T00001", 100)
        await us.deliver()
        assert [kind for kind, _ in us.told()] == ["TRANSACTION.SUCCESS", "REFUND.CLOSED"]
        assert us.merchant.balance_fen == 100
        assert (await us.refund("R2", "T00001", 100)).status == 200

    async def test_an_abnormal_refund_waits_for_a_person(self, us):
        await us.paid("T00001")
        us.simulator.faults.script("wechatpay.refund_abnormal", key="R1")
        refund_id = json.loads((await us.refund("R1", "T00001", 100)).body)["refund_id"]
        await us.deliver()
        assert json.loads((await us.query_refund("R1")).body)["status"] == "ABNORMAL"
        assert order_in_books(us, "T00001")["returning_fen"] == 100
        key = us.simulator.public_key.private_key.public_key()
        body = {
            "out_refund_no": "R1",
            "type": "USER_BANK_CARD",
            "bank_type": "ICBC_DEBIT",
            "bank_account": oaep_encrypt(key, "6222000000000000"),
            "real_name": oaep_encrypt(key, "张三"),
        }
        target = f"/v3/refund/domestic/refunds/{refund_id}/apply-abnormal-refund"
        assert code(await us.send("POST", target, body | {"real_name": "AAAA"})) == (400, "PARAM_ERROR")
        assert json.loads((await us.send("POST", target, body)).body)["status"] == "PROCESSING"
        await us.deliver()
        assert [kind for kind, _ in us.told()][1:] == ["REFUND.ABNORMAL", "REFUND.SUCCESS"]
        assert order_in_books(us, "T00001")["refunded_fen"] == 100

    async def test_a_refund_by_hand_is_seen_and_not_told(self, us):
        await us.paid("T00001")
        number = us.simulator.refund_by_hand(MCHID, "T00001", 40)
        await us.deliver()
        assert [kind for kind, _ in us.told()] == ["TRANSACTION.SUCCESS"]
        assert json.loads((await us.query_refund(number)).body)["status"] == "SUCCESS"
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "REFUND"


class TestNotices:
    async def test_a_payment_is_told_once_with_the_query_s_own_words(self, us):
        await us.paid("T00001")
        assert await us.deliver() == 1
        ((kind, value),) = us.told()
        assert kind == "TRANSACTION.SUCCESS"
        assert value == json.loads((await us.query("T00001")).body)
        request = us.received[0]
        assert request.target == "/n/abc"
        assert us.simulator.deliveries.waiting == []

    async def test_a_refund_is_told(self, us):
        await us.paid("T00001")
        await us.refund("R1", "T00001", 30)
        await us.deliver()
        kind, value = us.told()[1]
        assert kind == "REFUND.SUCCESS"
        assert value["refund_status"] == "SUCCESS"
        assert value["amount"] == {"total": 100, "refund": 30, "payer_total": 100, "payer_refund": 30}

    async def test_what_is_not_acknowledged_comes_again_by_the_schedule_signed_afresh(self, us):
        us.answer_status = 500
        await us.paid("T00001")
        paid_at = us.clock.now()
        assert await us.deliver(within=timedelta(days=2)) == 16
        times = [int(request.headers["wechatpay-timestamp"]) for request in us.received]
        assert times[0] == paid_at.timestamp() + 1
        assert [later - sooner for sooner, later in pairwise(times)] == [wait.total_seconds() for wait in RESEND_AFTER]
        assert sum(RESEND_AFTER, timedelta(0)) == timedelta(hours=24, minutes=4)
        assert len({request.headers["wechatpay-signature"] for request in us.received}) == 16
        assert len({request.json()["id"] for request in us.received}) == 1

    async def test_nothing_is_told_while_the_key_is_unset(self):
        us = a_merchant_of_tests(api_v3_key=None)
        await us.paid("T00001")
        assert await us.deliver() == 0

    async def test_notices_move_to_the_public_key_by_share(self):
        for share, used in ((0.0, 1), (1.0, 1), (0.5, 2)):
            us = a_merchant_of_tests(public_key_share=share)
            for number in range(20):
                await us.paid(f"T{number:05d}")
            await us.deliver()
            assert len(us.received) == 20
            assert len({request.headers["wechatpay-serial"] for request in us.received}) == used

    async def test_the_echo_checks_everything_without_a_payment(self, us):
        key = us.simulator.public_key.private_key.public_key()
        body = {
            "echo_message": "你好",
            "encrypted_echo_message": oaep_encrypt(key, "秘密"),
            "notify_url": "https://a.example/n",
        }
        response = await us.send("POST", "/v3/security/echo", body)
        value = json.loads(response.body)
        assert value["echo_message"] == "你好"
        assert oaep_decrypt(us.key, value["encrypted_echo_message"]) == "秘密"
        await us.deliver()
        assert us.told() == [("SECURITY_ECHO.SUCCESS", {"echo_message": "你好"})]
        us.serial = None
        assert code(await us.send("POST", "/v3/security/echo", body)) == (400, "PARAM_ERROR")


class TestFaults:
    def script(self, us: MerchantOfTests, name: str) -> None:
        us.simulator.faults.script(f"wechatpay.{name}")

    def test_the_catalogue_is_complete_and_says_how_each_ends(self):
        assert len(FAULTS) >= 30
        assert all(fault.ends.endswith(".") and fault.title_zh for fault in FAULTS)
        assert {fault.name for fault in FAULTS if fault.needs_person} == {
            "wechatpay.refund_abnormal",
            "wechatpay.refund_payer_account_closed",
        }

    async def test_the_line(self, us):
        for name, error, booked in (
            ("not_reached", NeverConnected, 0),
            ("request_lost", ConnectionLost, 0),
            ("answer_lost", ConnectionLost, 1),
        ):
            self.script(us, name)
            with pytest.raises(error):
                await us.create("T00001")
            assert len(us.simulator.books()["orders"]) == booked
        for name, booked in (("error_500_before", 1), ("error_500_after", 2)):
            self.script(us, name)
            assert (await us.create("T00002")).status == 500
            assert len(us.simulator.books()["orders"]) == booked
        self.script(us, "answer_garbled")
        assert not us.verifies(await us.create("T00002"))
        assert us.verifies(await us.create("T00002"))

    @pytest.mark.parametrize("name", ["unsigned", "forged", "signtest", "clock_skewed", "unknown_serial"])
    async def test_answers_that_must_not_be_believed(self, us, name):
        self.script(us, f"answer_{name}")
        response = await us.create("T00001")
        assert response.status == 200
        assert not us.verifies(response)
        assert ("wechatpay-signature" in response.headers) == (name != "unsigned")
        assert us.verifies(await us.query("T00001"))

    @pytest.mark.parametrize(
        ("name", "refusal", "booked"),
        [
            ("rate_limited", (429, "RATELIMIT_EXCEEDED"), 0),
            ("rate_limited_accepted", (429, "FREQUENCY_LIMITED"), 1),
            ("system_error", (500, "SYSTEM_ERROR"), 0),
            ("system_error_accepted", (500, "SYSTEM_ERROR"), 1),
        ],
    )
    async def test_refusals_after_and_before_acceptance(self, us, name, refusal, booked):
        await us.paid("T00001")
        self.script(us, name)
        assert code(await us.refund("R1", "T00001", 30)) == refusal
        assert len(us.simulator.books()["refunds"]) == booked
        assert (await us.refund("R1", "T00001", 30)).status == 200
        assert us.merchant.balance_fen == 70

    async def test_states_nobody_knows_and_a_query_that_lags(self, us):
        await us.paid("T00001")
        self.script(us, "unknown_trade_state")
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "SETTLING"
        self.script(us, "query_lags")
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "NOTPAY"
        us.clock.advance(timedelta(seconds=10))
        self.script(us, "query_lags")
        assert json.loads((await us.query("T00001")).body)["trade_state"] == "SUCCESS"
        await us.refund("R1", "T00001", 1)
        self.script(us, "unknown_refund_state")
        assert json.loads((await us.query_refund("R1")).body)["status"] == "SETTLING"

    async def test_the_payer_is_quicker_than_the_close(self, us):
        await us.create("T00001")
        self.script(us, "paid_just_before_close")
        assert code(await us.close("T00001")) == (400, "ORDER_PAID")
        assert order_in_books(us, "T00001")["taken_fen"] == 100

    async def test_a_lost_notice_never_comes(self, us):
        self.script(us, "notice_lost")
        await us.paid("T00001")
        assert await us.deliver(within=timedelta(days=2)) == 0

    async def test_a_delayed_notice_comes_late(self, us):
        self.script(us, "notice_delayed")
        await us.paid("T00001")
        assert await us.deliver(within=MINUTE) == 0
        assert await us.deliver(within=timedelta(minutes=90)) == 1

    async def test_a_duplicated_notice_comes_three_times_under_two_ids(self, us):
        self.script(us, "notice_duplicated")
        await us.paid("T00001")
        assert await us.deliver() == 3
        assert len({request.json()["id"] for request in us.received}) == 2

    @pytest.mark.parametrize("name", ["stale", "bad_signature", "signtest", "unknown_serial"])
    async def test_a_flawed_notice_is_refused_and_comes_again_in_order(self, us, name):
        self.script(us, f"notice_{name}")
        await us.paid("T00001")
        assert await us.deliver() == 2
        assert len(us.received) == 1
        assert [entry["accepted"] for entry in us.simulator.deliveries.log] == [False, True]

    async def test_who_believes_a_flawed_notice_is_found_out(self, us, monkeypatch):
        monkeypatch.setattr(us, "verifies", lambda message: True)
        self.script(us, "notice_bad_signature")
        await us.paid("T00001")
        await us.deliver()
        kinds = [event["kind"] for event in us.simulator.books()["events"]]
        assert "flawed_notice_accepted" in kinds

    async def test_the_certificate_s_signature_is_genuine_too(self, us):
        self.script(us, "notice_signed_old_serial")
        await us.paid("T00001")
        assert await us.deliver() == 1
        assert us.received[0].headers["wechatpay-serial"] == us.simulator.certificate.serial

    async def test_a_stranger_claims_that_an_unpaid_order_is_paid(self, us):
        self.script(us, "notice_forged")
        await us.create("T00001")
        assert await us.deliver(within=timedelta(days=1)) == 1
        assert us.received == []
        assert order_in_books(us, "T00001")["taken_fen"] == 0

    async def test_a_refund_s_notice_comes_although_its_answer_never_did(self, us):
        await us.paid("T00001")
        await us.deliver()
        self.script(us, "notice_before_answer")
        with pytest.raises(ConnectionLost):
            await us.refund("R1", "T00001", 30)
        assert await us.deliver(within=timedelta(0)) == 1
        assert us.told()[1][0] == "REFUND.SUCCESS"

    async def test_refunds_that_are_refused_or_slow(self, us):
        await us.paid("T00001")
        self.script(us, "refund_not_enough_balance")
        assert code(await us.refund("R1", "T00001", 30)) == (403, "NOT_ENOUGH")
        self.script(us, "refund_payer_account_closed")
        assert code(await us.refund("R1", "T00001", 30)) == (403, "USER_ACCOUNT_ABNORMAL")
        assert us.merchant.balance_fen == 100
        self.script(us, "refund_slow")
        assert (await us.refund("R1", "T00001", 30)).status == 200
        us.clock.advance(timedelta(days=1))
        assert json.loads((await us.query_refund("R1")).body)["status"] == "PROCESSING"
        us.clock.advance(timedelta(days=1))
        assert json.loads((await us.query_refund("R1")).body)["status"] == "SUCCESS"


class TestReplay:
    async def test_ids_depend_on_seed_and_number_not_on_what_else_happens(self):
        async def a_run(numbers: list[str], seed: int) -> dict[str, Any]:
            us = a_merchant_of_tests(seed=seed)
            for number in numbers:
                await us.paid(number)
                await us.refund(f"R{number}", number, 30)
            await us.deliver()
            books = us.simulator.books()
            seen = {order["out_trade_no"]: order for order in books["orders"]}
            seen |= {refund["out_refund_no"]: refund for refund in books["refunds"]}
            seen |= {value.get("out_refund_no", value["out_trade_no"]) + kind: value for kind, value in us.told()}
            return seen

        forwards = await a_run(["T00001", "T00002", "T00003"], 1)
        assert forwards == await a_run(["T00003", "T00001", "T00002"], 1)
        assert forwards != await a_run(["T00001", "T00002", "T00003"], 2)

    async def test_the_same_seed_signs_the_same_bytes(self):
        async def a_run() -> list[tuple[dict[str, str], bytes]]:
            us = a_merchant_of_tests()
            responses = [await us.create("T00001"), await us.query("T00001"), await us.close("T00001")]
            return [(dict(response.headers), response.body) for response in responses]

        assert await a_run() == await a_run()

    async def test_books_always_balance(self):
        us = a_merchant_of_tests(balance_fen=5)
        for name in ("refund_closed", "refund_abnormal", "refund_slow", "rate_limited_accepted"):
            us.simulator.faults.rate(f"wechatpay.{name}", 0.3)
        for number in range(40):
            await us.paid(f"T{number:05d}")
            await us.refund(f"R{number}", f"T{number:05d}", 1 + number)
        await us.deliver()
        books = us.simulator.books()
        kept = sum(o["taken_fen"] - o["returning_fen"] - o["refunded_fen"] for o in books["orders"])
        assert us.merchant.balance_fen == 5 + kept
        assert {refund["state"] for refund in books["refunds"]} == {
            "SUCCESS",
            "CLOSED",
            "ABNORMAL",
            "PROCESSING",
        }


class TestConsole:
    async def ask(self, us: MerchantOfTests, method: str, target: str, body: object = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        request = us.request(method, target, data=data, authorization=None)
        response = await exchange(us.simulator, request)
        return json.loads(response.body) if response.body else response.status

    async def test_the_sandbox_s_own_routes(self, us):
        prepay_id = json.loads((await us.create("T00001")).body)["prepay_id"]
        params = us.pay_params(prepay_id)
        assert await self.ask(us, "POST", "/_check_pay_params", {"params": params}) == {"refused": None}
        assert await self.ask(us, "POST", "/_pay", {"reference": prepay_id}) == {"result": "paid"}
        assert (await self.ask(us, "GET", "/_books"))["orders"][0]["taken_fen"] == 100
        assert len((await self.ask(us, "GET", "/_deliveries"))["waiting"]) == 1
        assert set(await self.ask(us, "GET", "/_keys")) == {
            us.simulator.public_key.serial,
            us.simulator.certificate.serial,
        }
        asked = {"mchid": MCHID, "out_trade_no": "T00001", "refund_fen": 1}
        assert "out_refund_no" in await self.ask(us, "POST", "/_refund_by_hand", asked)
        assert "error" in await self.ask(us, "POST", "/_refund_by_hand", asked | {"refund_fen": 100})
        assert "error" in await self.ask(us, "POST", "/_pay", {"nonsense": 1})
        assert await self.ask(us, "GET", "/_nothing") == 404
        assert await self.ask(us, "POST", "/_faults", {"name": "wechatpay.answer_lost"}) == {}
        with pytest.raises(ConnectionLost):
            await us.query("T00001")
        assert len(await self.ask(us, "GET", "/_faults")) == len(FAULTS)
