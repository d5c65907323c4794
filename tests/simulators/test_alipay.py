"""The simulated Alipay: its gate, its trades, its refunds, and the payer's phone."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession
from cryptography.x509 import load_pem_x509_certificates

from simulators.alipay_books import beijing_time
from simulators.alipay_calls import ApiError, Call
from simulators.alipay_keys import decrypt, node_text
from simulators.alipay_routes import Route
from simulators.kit import Request, Response, create_app, exchange
from tests.support.alipay_merchant import (
    APP_ID,
    MINI_APP,
    NOON,
    OPEN_ID,
    PID,
    MerchantOfTests,
    a_merchant_of_tests,
    an_order,
)

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def us() -> MerchantOfTests:
    return a_merchant_of_tests()


def code(node: dict[str, Any]) -> tuple[str, str]:
    return node["code"], node.get("sub_code", "")


def failed(name: str) -> tuple[str, str]:
    return "40004", f"ACQ.{name}"


def in_books(us: MerchantOfTests, number: str) -> dict[str, Any]:
    (order,) = [order for order in us.simulator.books()["orders"] if order["out_trade_no"] == number]
    return dict(order)


def body(response: Response) -> dict[str, Any]:
    value = json.loads(response.body)
    assert isinstance(value, dict)
    return value


class TestGate:
    async def test_an_answer_is_text_with_escaped_slashes_and_a_trace_id(self, us):
        response = await us.send("precreate", an_order("T1", "precreate"))
        assert response.status == 200
        assert response.headers["content-type"] == "text/html;charset=utf-8"
        assert len(response.headers["trace_id"]) == 29
        assert b'"qr_code":"https:\\/\\/qr.alipay.com\\/bax' in response.body
        assert us.verifies(response, "alipay_trade_precreate_response")

    async def test_an_unknown_app_is_refused_unsigned_before_the_signature(self, us):
        for sign in ("", "rubbish"):
            params = us.params("query", {}, app_id="2021999999999999", sign=sign or None)
            value = body(await exchange(us.simulator, us.request(params)))
            assert list(value) == ["error_response"]
            assert code(value["error_response"]) == ("40002", "isv.invalid-app-id")

    async def test_a_wrong_signature_is_refused_signed_and_tells_the_escaped_string(self, us):
        params = us.signed(us.params("query", {"out_trade_no": "T1"})) | {"version": "1.1"}
        response = await exchange(us.simulator, us.request(params))
        node = us.read(response, "query")
        assert code(node) == ("40002", "isv.invalid-signature")
        assert f"app_id={APP_ID}&amp;biz_content=" in node["sub_msg"]
        assert "&amp;version=1.1" in node["sub_msg"]
        assert "&sign_type" not in node["sub_msg"]

    async def test_parameters_may_stand_in_query_or_body_but_the_charset_in_the_query(self, us):
        params = us.signed(us.params("create", an_order("T1")))
        form = {"content-type": "application/x-www-form-urlencoded"}
        in_query = Request(method="POST", target="/gateway.do?" + us.form(params))
        assert us.read(await exchange(us.simulator, in_query), "create")["code"] == "10000"
        split = Request(
            method="POST", target="/gateway.do?charset=utf-8", headers=form,
            body=us.form({name: value for name, value in params.items() if name != "charset"}).encode(),
        )  # fmt: skip
        assert us.read(await exchange(us.simulator, split), "create")["code"] == "10000"
        params = us.signed(us.params("create", an_order("T2")))
        in_body = Request(method="POST", target="/gateway.do", headers=form, body=us.form(params).encode())
        await exchange(us.simulator, in_body)
        assert in_books(us, "T2")["subject"] == "门诊缴费".encode().decode("gbk")  # garbled

    async def test_gbk_is_signed_and_answered_in_gbk(self):
        us = a_merchant_of_tests(charset="gbk")
        assert (await us.create("T1"))["code"] == "10000"
        response = await us.send("query", {"out_trade_no": "T2"})
        assert "交易不存在".encode("gbk") in response.body

    async def test_bytes_that_are_no_text_are_refused_like_any_wrong_signature(self):
        us = a_merchant_of_tests(charset="gbk")
        request = us.request(us.signed(us.params("query", {"out_trade_no": "T1"})))
        broken = replace(request, body=request.body + b"%FF%FF")
        response = await exchange(us.simulator, broken)
        assert code(us.read(response, "query")) == ("40002", "isv.invalid-signature")

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"sign_type": None}, ("40001", "isv.missing-signature-type")),
            ({"sign_type": "RSA"}, ("40002", "isv.invalid-signature-type")),
            ({"timestamp": None}, ("40001", "isv.missing-timestamp")),
            ({"timestamp": "2026-05-06T12:00:00"}, ("40002", "isv.invalid-timestamp")),
            ({"timestamp": "2026-05-06 11:49:59"}, ("40002", "isv.invalid-timestamp")),
            ({"version": None}, ("40001", "isv.missing-version")),
            ({"format": "xml"}, ("40002", "isv.invalid-format")),
            ({"charset": "latin1"}, ("40002", "isv.invalid-charset")),
            ({"method": "alipay.trade.nothing"}, ("40002", "isv.invalid-method")),
            ({"method": None}, ("40001", "isv.missing-method")),
            ({"app_cert_sn": "0" * 32}, ("40002", "isv.invalid-parameter")),
            ({"app_auth_token": "nobody's"}, ("20001", "aop.invalid-app-auth-token")),
            ({"biz_content": "{"}, ("40002", "isv.illegal-json")),
            ({"encrypt_type": "AES"}, ("40001", "isv.missing-encrypt-key")),
        ],
    )
    async def test_common_parameters_are_checked(self, us, changes, expected):
        params = us.signed(us.params("query", {"out_trade_no": "T1"}, **changes))
        response = await exchange(us.simulator, us.request(params))
        assert code(us.read(response, params.get("method", ""))) == expected

    async def test_a_parameter_given_twice_is_refused(self, us):
        request = us.request(us.signed(us.params("query", {"out_trade_no": "T1"})))
        doubled = replace(request, target=request.target + "&version=1.0")
        assert code(us.read(await exchange(us.simulator, doubled), "query")) == ("40002", "isv.invalid-parameter")

    async def test_certificate_mode_names_both_numbers_and_the_answers_key(self):
        us = a_merchant_of_tests(certificate_mode=True)
        assert (await us.create("T1"))["code"] == "10000"
        assert code(await us.call("query", {}, app_cert_sn=None)) == ("40001", "isv.missing-app-cert-sn")
        assert code(await us.call("query", {}, alipay_root_cert_sn=None)) == (
            "40001",
            "isv.missing-alipay-root-cert-sn",
        )
        assert code(await us.call("query", {}, alipay_root_cert_sn="1")) == ("40002", "isv.invalid-parameter")

    async def test_a_renewed_certificate_keeps_the_key_and_can_be_fetched(self):
        us = a_merchant_of_tests(certificate_mode=True)
        old = us.simulator.certificate
        new = us.simulator.rotate_certificate()
        assert (old.cert_sn != new.cert_sn, old.public_pem) == (True, new.public_pem)
        answer = await us.call("certificate", {"alipay_cert_sn": new.cert_sn})
        leaf, between = load_pem_x509_certificates(base64.b64decode(answer["alipay_cert_content"]))
        root = load_pem_x509_certificates(us.simulator.root_certificates.encode())[1]
        leaf.verify_directly_issued_by(between)
        between.verify_directly_issued_by(root)
        assert us.simulator.root_cert_sn.count("_") == 0  # the root on a curve has no number

    @pytest.mark.parametrize("charset", ["utf-8", "gbk"])
    async def test_content_is_encrypted_both_ways_and_signed_with_its_quotes(self, charset):
        us = a_merchant_of_tests(aes_key="aa4BtZ4tspm2wnXLb1ThQA==", charset=charset)
        response = await us.send("create", us.encrypted(an_order("T1")), encrypt_type="AES")
        text = node_text(response.body.decode(), "alipay_trade_create_response")
        assert json.loads(decrypt(us.application.aes_key, json.loads(text)))["out_trade_no"] == "T1"
        assert us.verifies(response, "alipay_trade_create_response")
        assert in_books(us, "T1")["subject"] == "门诊缴费"
        wrong = await us.call("create", "bm90IGVuY3J5cHRlZA==", encrypt_type="AES")
        assert code(wrong) == ("40003", "isv.decryption-error-unknown")

    async def test_a_service_provider_calls_with_the_merchants_token(self, us):
        clinic = us.simulator.add_merchant("2088000000000002", mini_apps={MINI_APP})
        theirs = us.simulator.add_application("2021000000000009", merchant=clinic, public_key=us.key.public_key())
        token = us.simulator.authorise(us.application, theirs)
        assert (await us.call("create", an_order("T1"), app_auth_token=token))["code"] == "10000"
        assert us.simulator.pay("T1") == "paid"
        assert (us.merchant.balance_fen, clinic.balance_fen) == (0, 100)
        await us.deliver()
        assert (us.received[0]["app_id"], us.received[0]["auth_app_id"]) == (APP_ID, theirs.app_id)

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"surprise": "1"}, "INVALID_PARAMETER"),
            ({"total_amount": 1}, "INVALID_PARAMETER"),
            ({"total_amount": "1"}, "INVALID_PARAMETER"),
            ({"total_amount": "0.00"}, "INVALID_PARAMETER"),
            ({"total_amount": "01.00"}, "INVALID_PARAMETER"),
            ({"total_amount": "100000000.01"}, "TOTAL_FEE_EXCEED"),
            ({"out_trade_no": "T-1"}, "INVALID_PARAMETER"),
            ({"subject": "a=b"}, "INVALID_PARAMETER"),
            ({"subject": None}, "INVALID_PARAMETER"),
            ({"buyer_open_id": None}, "INVALID_PARAMETER"),
            ({"buyer_open_id": None, "buyer_id": PID}, "BUYER_SELLER_EQUAL"),
            ({"op_app_id": "2021000000000003"}, "UNBOUND_APPLICATION"),
            ({"op_app_id": None}, "INVALID_PARAMETER"),
            ({"product_code": "QUICK_WAP_WAY"}, "ACCESS_FORBIDDEN"),
            ({"product_code": None}, "ACCESS_FORBIDDEN"),
            ({"seller_id": "2088000000000009"}, "SELLER_NOT_EXIST"),
            ({"time_expire": "2026-05-06 12:00:00"}, "NOW_TIME_AFTER_EXPIRE_TIME_ERROR"),
            ({"time_expire": "2026-05-21 12:00:01"}, "INVALID_PARAMETER"),
            ({"timeout_express": "16d"}, "INVALID_PARAMETER"),
            ({"goods_detail": [{"goods_id": "1"}]}, "INVALID_PARAMETER"),
        ],
    )
    async def test_fields_are_checked_and_nothing_is_kept(self, us, changes, expected):
        assert code(await us.create("T1", **changes)) == failed(expected)
        assert us.simulator.books()["orders"] == []

    async def test_other_services_answer_behind_the_same_gate(self, us):
        def token(call: Call) -> dict[str, Any]:
            if call.parameters.get("code") != "good":
                raise ApiError("40002", "isv.code-invalid", "授权码code无效")
            return {"access_token": "a", "open_id": OPEN_ID}

        method = "alipay.system.oauth.token"
        us.simulator.serve(method, Route(call="oauth", fields={}, bare=True), token)
        answer = await us.send(method, "{}", grant_type="authorization_code", code="good")
        assert body(answer)["alipay_system_oauth_token_response"] == {"access_token": "a", "open_id": OPEN_ID}
        refused = await us.send(method, "{}", grant_type="authorization_code", code="bad")
        assert code(us.read(refused)) == ("40002", "isv.code-invalid")
        assert list(body(refused)) == ["error_response", "sign"]


class TestTrades:
    async def test_a_created_trade_exists_at_once_and_is_paid_by_its_buyer(self, us):
        created = await us.create("T1")
        assert len(created["trade_no"]) == 28
        assert (await us.query("T1"))["trade_status"] == "WAIT_BUYER_PAY"
        assert us.simulator.trade_pay(created["trade_no"], "somebody else") == {"resultCode": "4"}
        assert us.simulator.trade_pay(created["trade_no"], OPEN_ID, confirm=False) == {"resultCode": "6001"}
        assert us.simulator.trade_pay(created["trade_no"], OPEN_ID) == {"resultCode": "9000"}
        assert us.simulator.trade_pay(created["trade_no"]) == {"resultCode": "4000"}
        trade = await us.query("T1")
        assert (trade["trade_status"], trade["total_amount"], trade["buyer_open_id"]) == (
            "TRADE_SUCCESS",
            "1.00",
            OPEN_ID,
        )
        assert us.merchant.balance_fen == 100

    async def test_the_same_number_is_the_same_trade_until_it_ends(self, us):
        first = await us.create("T1")
        assert await us.create("T1") == first
        assert code(await us.create("T1", total_amount="2.00")) == failed("CONTEXT_INCONSISTENT")
        assert code(await us.create("T1", buyer_open_id="x")) == failed("TRADE_BUYER_NOT_MATCH")
        us.simulator.pay("T1")
        assert code(await us.create("T1")) == failed("TRADE_HAS_SUCCESS")
        await us.create("T2")
        await us.call("close", {"out_trade_no": "T2"})
        assert code(await us.create("T2")) == failed("TRADE_HAS_CLOSE")

    async def test_a_code_begins_a_trade_when_it_is_scanned_and_never_before(self, us):
        code_of_t1 = (await us.create("T1", "precreate"))["qr_code"]
        for method in ("query", "close"):
            assert code(await us.call(method, {"out_trade_no": "T1"})) == failed("TRADE_NOT_EXIST")
        refused = await us.create("T1", "precreate")
        assert code(refused) == failed("APPLY_PC_MERCHANT_CODE_ERROR")
        assert us.simulator.open(code_of_t1) is None
        assert (await us.query("T1"))["trade_status"] == "WAIT_BUYER_PAY"
        assert us.simulator.pay(code_of_t1, "2088123412341234") == "paid"
        assert (await us.query("T1"))["buyer_user_id"] == "2088123412341234"

    async def test_a_code_lives_two_hours_at_most_and_then_never_begins_one(self, us):
        await us.create("T1", "precreate")
        await us.create("T2", "precreate", time_expire="2026-05-06 12:05:00")
        us.clock.advance(5 * MINUTE)
        assert us.simulator.pay("T2") == "expired"
        us.clock.advance(115 * MINUTE)
        assert us.simulator.pay("T1") == "expired"
        assert code(await us.query("T1")) == failed("TRADE_NOT_EXIST")

    async def test_a_page_begins_a_trade_when_the_cashier_is_reached(self, us):
        response = await us.open_page("T1")
        assert code(await us.query("T1")) == failed("TRADE_NOT_EXIST")
        cashier = response.headers["location"]
        shown = await exchange(us.simulator, Request(method="GET", target=cashier))
        assert "¥1.00" in shown.body.decode()
        assert (await us.query("T1"))["trade_status"] == "WAIT_BUYER_PAY"
        left = await exchange(us.simulator, Request(method="POST", target=cashier, body=b"how=pay"))
        assert left.headers["location"].startswith("https://h.example/back?x=1&app_id=")
        assert (await us.query("T1"))["trade_status"] == "TRADE_SUCCESS"
        again = await us.open_page("T1")
        assert "TRADE_HAS_SUCCESS" in again.body.decode("gbk")

    async def test_a_page_that_is_refused_is_html_in_gbk(self, us):
        for changes, sub_code in (({"total_amount": "0.00"}, "ACQ.INVALID_PARAMETER"), ({}, "")):
            response = await us.open_page("T1", **changes)
            assert response.status == (200 if sub_code else 302)
            if sub_code:
                assert response.headers["content-type"] == "text/html;charset=GBK"
                assert f"错误代码 {sub_code}" in response.body.decode("gbk")
        params = us.params("wap", an_order("T2", "wap"), app_id="1", sign="x")
        response = await exchange(us.simulator, us.request(params))
        assert "isv.invalid-app-id" in response.body.decode("gbk")

    async def test_time_ends_a_trade_at_its_second(self, us):
        await us.create("T1", time_expire="2026-05-06 12:05:00", timeout_express="1m")
        await us.create("T2", timeout_express="1c")
        us.clock.advance(5 * MINUTE - SECOND)
        assert us.simulator.open("T1") is None
        us.clock.advance(SECOND)
        assert us.simulator.pay("T1") == "closed"
        assert (await us.query("T1"))["trade_status"] == "TRADE_CLOSED"
        us.clock.advance(timedelta(hours=11, minutes=55))
        assert in_books(us, "T2")["closed_at"] == "2026-05-07 00:00:00"

    async def test_close_ends_unpaid_trades_only(self, us):
        await us.create("T1")
        assert (await us.call("close", {"out_trade_no": "T1"}))["code"] == "10000"
        assert us.simulator.pay("T1") == "closed"
        assert code(await us.call("close", {"out_trade_no": "T1"})) == failed("REASON_TRADE_STATUS_INVALID")
        await us.paid("T2")
        assert code(await us.call("close", {"out_trade_no": "T2"})) == failed("TRADE_STATUS_ERROR")

    async def test_cancel_ends_whatever_there_is_within_a_day(self, us):
        await us.create("T1")
        assert (await us.call("cancel", {"out_trade_no": "T1"}))["action"] == "close"
        await us.paid("T2")
        for _ in range(2):
            answer = await us.call("cancel", {"out_trade_no": "T2"})
            assert (answer["action"], answer["retry_flag"]) == ("refund", "N")
        assert us.merchant.balance_fen == 0
        nothing = await us.call("cancel", {"out_trade_no": "T3"})
        assert (nothing["code"], nothing["retry_flag"], "action" in nothing) == ("10000", "N", False)
        await us.create("T4", "precreate")
        assert "trade_no" not in await us.call("cancel", {"out_trade_no": "T4"})
        assert us.simulator.pay("T4") == "closed"
        await us.paid("T5")
        await us.create("T6")
        us.clock.advance(timedelta(hours=24, seconds=1))
        for number in ("T5", "T6"):
            assert code(await us.call("cancel", {"out_trade_no": number})) == failed("TRADE_CANCEL_TIME_OUT")

    async def test_a_partly_refunded_or_finished_trade_is_not_cancelled(self, us):
        await us.paid("T1")
        await us.refund("T1", "R1", "0.30")
        assert code(await us.call("cancel", {"out_trade_no": "T1"})) == failed("REASON_TRADE_REFUND_FEE_ERR")
        us.merchant.refundable = False
        await us.paid("T2")
        assert code(await us.call("cancel", {"out_trade_no": "T2"})) == failed("TRADE_HAS_FINISHED")
        assert us.merchant.balance_fen == 170

    async def test_only_what_is_asked_for_is_told_of_the_funds(self, us):
        await us.create("T1")
        us.simulator.pay("T1", coupon_fen=30)
        plain, full = await us.query("T1"), await us.query("T1", query_options=["fund_bill_list"])
        assert "fund_bill_list" not in plain
        assert [entry["amount"] for entry in full["fund_bill_list"]] == ["0.30", "0.70"]
        assert (plain["receipt_amount"], plain["buyer_pay_amount"]) == ("1.00", "0.70")

    async def test_trade_no_wins_and_a_stranger_finds_nothing(self, us):
        trade_no = (await us.create("T1"))["trade_no"]
        assert (await us.call("query", {"trade_no": trade_no, "out_trade_no": "T9"}))["out_trade_no"] == "T1"
        other = us.simulator.add_merchant("2088000000000002")
        stranger = us.simulator.add_application("2021000000000003", merchant=other, public_key=us.key.public_key())
        params = us.signed(us.params("query", {"trade_no": trade_no}, app_id=stranger.app_id))
        response = await exchange(us.simulator, us.request(params))
        assert code(us.read(response, "query")) == failed("TRADE_NOT_EXIST")


class TestRefunds:
    async def test_a_refund_is_made_once_and_told_as_a_sum(self, us):
        await us.paid("T1")
        first = await us.refund("T1", "R1", "0.30")
        assert (first["fund_change"], first["refund_fee"]) == ("Y", "0.30")
        again = await us.refund("T1", "R1", "0.30")
        assert (again["code"], again["fund_change"], again["refund_fee"]) == ("10000", "N", "0.30")
        assert code(await us.refund("T1", "R1", "0.31")) == failed("DISCORDANT_REPEAT_REQUEST")
        us.clock.advance(3 * SECOND)
        second = await us.refund("T1", "R2", "0.20", query_options=["refund_detail_item_list"])
        assert (second["refund_fee"], second["send_back_fee"]) == ("0.50", "0.20")
        assert us.merchant.balance_fen == 50

    async def test_two_refunds_need_three_seconds_and_the_rest(self, us):
        await us.paid("T1")
        await us.refund("T1", "R1", "0.30")
        us.clock.advance(timedelta(seconds=2.9))
        assert code(await us.refund("T1", "R2", "0.30")) == failed("SYSTEM_ERROR")
        us.clock.advance(timedelta(seconds=0.1))
        assert code(await us.refund("T1", "R2", "0.71")) == failed("REASON_TRADE_REFUND_FEE_ERR")
        assert (await us.refund("T1", "R2", "0.70"))["fund_change"] == "Y"
        assert (await us.query("T1"))["trade_status"] == "TRADE_CLOSED"
        us.clock.advance(3 * SECOND)
        assert code(await us.refund("T1", "R3", "0.01")) == failed("TRADE_HAS_CLOSE")
        assert us.merchant.balance_fen == 0

    async def test_what_cannot_be_refunded(self, us):
        assert code(await us.refund("T1", "R1", "0.30")) == failed("TRADE_NOT_EXIST")
        await us.create("T1")
        assert code(await us.refund("T1", "R1", "0.30")) == failed("TRADE_STATUS_ERROR")
        us.simulator.pay("T1")
        without = {"out_trade_no": "T1", "refund_amount": "0.30"}
        assert code(await us.call("refund", without)) == failed("INVALID_PARAMETER")
        us.simulator.top_up(PID, -50)
        assert code(await us.refund("T1", "R1", "0.60")) == failed("SELLER_BALANCE_NOT_ENOUGH")
        assert us.simulator.books()["refunds"] == []

    async def test_without_a_number_the_whole_goes_back_under_the_orders(self, us):
        await us.paid("T1")
        assert (await us.call("refund", {"out_trade_no": "T1", "refund_amount": "1.00"}))["fund_change"] == "Y"
        us.clock.advance(10 * SECOND)
        assert (await us.query_refund("T1", "T1"))["refund_status"] == "REFUND_SUCCESS"

    async def test_a_refund_query_knows_it_ten_seconds_later_and_nothing_is_no_proof(self, us):
        assert code(await us.query_refund("T1", "R1")) == ("40004", "TRADE_NOT_EXIST")
        await us.paid("T1")
        await us.refund("T1", "R1", "0.30")
        assert await us.query_refund("T1", "R1") == {"code": "10000", "msg": "Success"}
        assert in_books(us, "T1")["returning_fen"] == 30
        us.clock.advance(10 * SECOND)
        found = await us.query_refund("T1", "R1")
        assert (found["refund_status"], found["refund_amount"]) == ("REFUND_SUCCESS", "0.30")
        assert await us.query_refund("T1", "R2") == {"code": "10000", "msg": "Success"}
        assert (in_books(us, "T1")["returning_fen"], in_books(us, "T1")["refunded_fen"]) == (0, 30)

    async def test_the_buyers_own_money_goes_back_first(self, us):
        await us.create("T1")
        us.simulator.pay("T1", coupon_fen=30)
        answer = await us.refund("T1", "R1", "0.80", query_options=["refund_detail_item_list"])
        assert [entry["amount"] for entry in answer["refund_detail_item_list"]] == ["0.70", "0.10"]

    async def test_after_the_refund_period_a_trade_is_finished(self, us):
        await us.paid("T1")
        us.clock.advance(timedelta(days=365))
        assert (await us.query("T1"))["trade_status"] == "TRADE_FINISHED"
        assert code(await us.refund("T1", "R1", "0.30")) == failed("TRADE_HAS_FINISHED")
        with pytest.raises(ValueError, match="more than"):
            us.simulator.refund_by_hand(PID, "T1", 1)

    async def test_staff_refund_by_hand(self, us):
        await us.paid("T1")
        number = us.simulator.refund_by_hand(PID, "T1", 40)
        assert us.simulator.books()["refunds"][0]["by_hand"] is True
        us.clock.advance(10 * SECOND)
        assert (await us.query_refund("T1", number))["refund_amount"] == "0.40"


async def test_the_console_shows_the_books_and_pays(us):
    await us.create("T1")
    paid = Request(method="POST", target="/_pay", body=json.dumps({"reference": "T1"}).encode())
    assert body(await exchange(us.simulator, paid)) == {"result": "paid"}
    books = body(await exchange(us.simulator, Request(method="GET", target="/_books")))
    assert (books["orders"][0]["taken_fen"], books["merchants"][0]["balance_fen"]) == (100, 100)
    assert [event["kind"] for event in books["events"]] == ["order_asked", "trade_created", "order_paid"]
    assert books["events"][0]["at"] == beijing_time(NOON)


async def test_over_real_http_a_browser_is_led_through_the_cashier(us, serve):
    params = us.signed(us.params("wap", an_order("T1", "wap"), return_url="https://h.example/back"))
    async with serve(create_app(us.simulator)) as base_url, ClientSession() as browser:
        async with browser.get(f"{base_url}/gateway.do", params=params) as shown:
            assert (shown.status, shown.url.path) == (200, "/h5pay/cashier")
            assert "确认付款" in await shown.text()
        async with browser.post(shown.url, data={"how": "pay"}, allow_redirects=False) as left:
            assert left.headers["location"].startswith("https://h.example/back?app_id=")
        query = us.signed(us.params("query", {"out_trade_no": "T1"}))
        url = f"{base_url}/gateway.do?charset={query.pop('charset')}"
        async with browser.post(url, data=query) as answer:
            node = (await answer.json(content_type="text/html"))["alipay_trade_query_response"]
        assert node["trade_status"] == "TRADE_SUCCESS"
