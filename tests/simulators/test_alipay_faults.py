"""Every named fault of the simulated Alipay: what it does, and what it leaves in the books."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from simulators.alipay import FAULTS
from simulators.alipay_faults import API_CALLS
from simulators.kit import ConnectionLost, NeverConnected, Request, exchange
from tests.support.alipay_merchant import OPEN_ID, MerchantOfTests, a_merchant_of_tests, an_order

CREATE = "alipay_trade_create_response"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def us() -> MerchantOfTests:
    return a_merchant_of_tests()


def script(us: MerchantOfTests, name: str) -> None:
    us.simulator.faults.script(f"alipay.{name}")


def taken(us: MerchantOfTests) -> list[int]:
    return [order["taken_fen"] for order in us.simulator.books()["orders"]]


def test_the_catalogue_is_complete_and_says_how_each_ends():
    assert len(FAULTS) >= 25
    assert all(fault.ends.endswith(".") and fault.title_zh for fault in FAULTS)
    assert {fault.name for fault in FAULTS if fault.needs_person} == {
        "alipay.notice_wrong_amount",
        "alipay.refund_payer_account_closed",
        "alipay.refund_trade_frozen",
    }


async def test_the_line(us):
    for name, error, booked in (
        ("not_reached", NeverConnected, 0),
        ("request_lost", ConnectionLost, 0),
        ("answer_lost", ConnectionLost, 1),
    ):
        script(us, name)
        with pytest.raises(error):
            await us.create("T1")
        assert len(taken(us)) == booked
    for name, status, booked in (
        ("error_500_before", 500, 1),
        ("error_500_after", 500, 2),
        ("bad_gateway", 502, 2),
        ("html_answer", 200, 2),
    ):
        script(us, name)
        response = await us.send("create", an_order("T2"))
        assert (response.status, response.body[:1], len(taken(us))) == (status, b"<", booked)
    script(us, "answer_garbled")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        json.loads((await us.send("create", an_order("T2"))).body)


@pytest.mark.parametrize("name", ["unsigned", "forged", "sha1", "altered"])
@pytest.mark.parametrize("certificate_mode", [False, True])
async def test_answers_that_must_not_be_believed(name, certificate_mode):
    us = a_merchant_of_tests(certificate_mode=certificate_mode)
    script(us, f"answer_{name}")
    response = await us.send("create", an_order("T1"))
    assert response.status == 200
    assert not us.verifies(response, CREATE)
    assert ("sign" in json.loads(response.body)) == (name != "unsigned")
    assert len(taken(us)) == 1
    assert us.verifies(await us.send("create", an_order("T1")), CREATE)


async def test_a_node_twice_and_a_node_of_another_method(us):
    script(us, "answer_node_twice")
    response = await us.send("create", an_order("T1"))
    assert response.body.count(CREATE.encode()) == 2
    script(us, "answer_of_another_method")
    response = await us.send("create", an_order("T1"))
    assert CREATE.encode() not in response.body
    assert "sign" in json.loads(response.body)


@pytest.mark.parametrize(
    ("name", "refusal", "booked"),
    [
        ("unavailable", ("20000", "isp.unknow-error"), 0),
        ("unavailable_accepted", ("20000", "aop.ACQ.SYSTEM_ERROR"), 1),
        ("system_error", ("40004", "ACQ.SYSTEM_ERROR"), 0),
        ("system_error_accepted", ("40004", "ACQ.SYSTEM_ERROR"), 1),
        ("call_limited", ("40005", "isv.app-call-limited"), 0),
        ("unknown_sub_code", ("40004", "ACQ.SOMETHING_NEW"), 1),
    ],
)
async def test_refusals_after_and_before_acceptance(us, name, refusal, booked):
    await us.paid("T1")
    script(us, name)
    answer = await us.refund("T1", "R1", "0.30")
    assert (answer["code"], answer["sub_code"]) == refusal
    assert len(us.simulator.books()["refunds"]) == booked
    assert (await us.refund("T1", "R1", "0.30"))["fund_change"] == ("N" if booked else "Y")
    assert us.merchant.balance_fen == 70


async def test_the_cancels_own_spelling_and_its_retry_flag(us):
    await us.create("T1")
    script(us, "system_error")
    assert (await us.call("cancel", {"out_trade_no": "T1"}))["sub_code"] == "AQC.SYSTEM_ERROR"
    script(us, "cancel_again")
    assert (await us.call("cancel", {"out_trade_no": "T1"}))["retry_flag"] == "Y"
    assert us.simulator.open("T1") is None
    assert (await us.call("cancel", {"out_trade_no": "T1"}))["retry_flag"] == "N"
    assert us.simulator.open("T1") == "closed"


async def test_an_accepted_trade_may_be_in_process(us):
    script(us, "in_process")
    answer = await us.create("T1")
    assert (answer["code"], len(taken(us))) == ("10003", 1)


async def test_queries_that_lag_do_not_find_or_say_what_nobody_knows(us):
    await us.paid("T1")
    for name, expected in (
        ("unknown_trade_state", "TRADE_PENDING"),
        ("query_lags", "WAIT_BUYER_PAY"),
        ("query_does_not_find", None),
    ):
        script(us, name)
        assert (await us.query("T1")).get("trade_status") == expected
    us.clock.advance(timedelta(seconds=10))
    for name in ("query_lags", "query_does_not_find"):
        script(us, name)
        assert (await us.query("T1"))["trade_status"] == "TRADE_SUCCESS"


async def test_the_payer_is_quicker_than_the_close_or_just_later(us):
    await us.create("T1")
    script(us, "paid_just_before_close")
    assert (await us.call("close", {"out_trade_no": "T1"}))["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    await us.create("T2", "precreate")
    script(us, "opened_just_after_close")
    assert (await us.call("close", {"out_trade_no": "T2"}))["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert taken(us) == [100, 0]
    us.clock.advance(timedelta(seconds=1))
    assert taken(us) == [100, 100]


class TestNotices:
    async def test_lost_late_and_three_times(self, us):
        script(us, "notice_lost")
        await us.paid("T1")
        assert await us.deliver(within=timedelta(days=2)) == 0
        script(us, "notice_delayed")
        await us.paid("T2")
        assert await us.deliver(within=MINUTE) == 0
        assert await us.deliver(within=90 * MINUTE) == 1
        script(us, "notice_duplicated")
        await us.paid("T3")
        assert await us.deliver() == 3
        assert len({fields["notify_id"] for fields in us.received[1:]}) == 2

    @pytest.mark.parametrize("name", ["bad_signature", "sha1", "signed_with_type"])
    async def test_a_flawed_notice_is_refused_and_comes_again_in_order(self, us, name):
        script(us, f"notice_{name}")
        await us.paid("T1")
        assert await us.deliver(within=5 * MINUTE) == 2
        assert us.statuses() == ["TRADE_SUCCESS"]
        assert [entry["accepted"] for entry in us.simulator.deliveries.log] == [False, True]

    @pytest.mark.parametrize(
        ("name", "field", "wrong"),
        [
            ("of_another_app", "app_id", "2021000000009999"),
            ("wrong_amount", "total_amount", "11.00"),
            ("wrong_seller", "seller_id", "2088999999999999"),
            ("unknown_state", "trade_status", "TRADE_PENDING"),
        ],
    )
    async def test_a_signed_notice_about_something_else_comes_first(self, us, name, field, wrong):
        script(us, f"notice_{name}")
        us.answer = b"fail"
        await us.paid("T1")
        await us.deliver(within=5 * MINUTE)
        first, second = us.received
        assert (first[field], second[field] != wrong) == (wrong, True)

    async def test_in_gbk_it_is_in_order(self, us):
        script(us, "notice_in_gbk")
        await us.paid("T1")
        await us.deliver()
        assert (us.received[0]["charset"], us.received[0]["subject"]) == ("gbk", "门诊缴费")

    async def test_who_believes_a_flawed_notice_is_found_out(self, us, monkeypatch):
        monkeypatch.setattr(us, "notice_fields", lambda request: {})
        script(us, "notice_bad_signature")
        await us.paid("T1")
        await us.deliver()
        assert "flawed_notice_accepted" in [event["kind"] for event in us.simulator.books()["events"]]

    @pytest.mark.parametrize("product", ["create", "precreate", "wap"])
    async def test_a_stranger_claims_that_an_unpaid_order_is_paid(self, us, product):
        script(us, "notice_forged")
        await (us.open_page("T1") if product == "wap" else us.create("T1", product))
        assert await us.deliver(within=timedelta(days=1)) == 1
        assert (us.received, taken(us)) == ([], [0])

    async def test_a_refunds_notice_comes_although_its_answer_never_did(self, us):
        await us.paid("T1")
        await us.deliver()
        script(us, "notice_before_answer")
        with pytest.raises(ConnectionLost):
            await us.refund("T1", "R1", "0.30")
        assert await us.deliver(within=timedelta(0)) == 1
        assert us.received[-1]["out_biz_no"] == "R1"


async def test_the_pay_sheet_is_a_hint(us):
    for number, name, said, paid in (
        ("T1", "sheet_says_unknown", "6004", 100),
        ("T2", "sheet_says_processing", "8000", 100),
        ("T3", "sheet_says_paid", "9000", 0),
    ):
        trade_no = (await us.create(number))["trade_no"]
        script(us, name)
        assert us.simulator.trade_pay(trade_no, OPEN_ID) == {"resultCode": said}
        assert taken(us)[-1] == paid


class TestRefunds:
    async def test_n_is_no_failure_and_no_success(self, us):
        await us.paid("T1")
        script(us, "refund_nothing_moved")
        assert (await us.refund("T1", "R1", "0.30"))["fund_change"] == "N"
        us.clock.advance(MINUTE)
        assert "refund_status" not in await us.query_refund("T1", "R1")
        assert us.merchant.balance_fen == 100
        script(us, "refund_says_nothing_moved")
        assert (await us.refund("T1", "R1", "0.30"))["fund_change"] == "N"
        us.clock.advance(MINUTE)
        assert (await us.query_refund("T1", "R1"))["refund_status"] == "REFUND_SUCCESS"
        assert us.merchant.balance_fen == 70

    async def test_a_refund_query_may_say_nothing_or_what_nobody_knows(self, us):
        await us.paid("T1")
        await us.refund("T1", "R1", "0.30")
        us.clock.advance(MINUTE)
        for name, expected in (("refund_query_says_nothing", None), ("unknown_refund_state", "REFUND_SETTLING")):
            script(us, name)
            assert (await us.query_refund("T1", "R1")).get("refund_status") == expected
        assert (await us.query_refund("T1", "R1"))["refund_status"] == "REFUND_SUCCESS"

    async def test_a_refund_may_be_shown_days_later(self, us):
        await us.paid("T1")
        script(us, "refund_shown_late")
        assert (await us.refund("T1", "R1", "0.30"))["fund_change"] == "Y"
        us.clock.advance(timedelta(days=2, seconds=-1))
        assert "refund_status" not in await us.query_refund("T1", "R1")
        us.clock.advance(timedelta(seconds=1))
        assert (await us.query_refund("T1", "R1"))["refund_status"] == "REFUND_SUCCESS"

    async def test_refunds_that_are_refused(self, us):
        await us.paid("T1")
        for name, sub_code in (
            ("refund_not_enough_balance", "ACQ.SELLER_BALANCE_NOT_ENOUGH"),
            ("refund_trade_frozen", "ACQ.REASON_TRADE_BEEN_FREEZEN"),
            ("refund_payer_account_closed", "ACQ.BUYER_NOT_EXIST"),
        ):
            script(us, name)
            assert (await us.refund("T1", "R1", "0.30"))["sub_code"] == sub_code
        assert us.merchant.balance_fen == 100


async def test_a_bills_address_may_be_dead_at_once(us):
    await us.paid("T1")
    us.clock.advance(timedelta(days=1))
    script(us, "bill_link_expired")
    url = (await us.call("bill", {"bill_type": "trade", "bill_date": "2026-05-06"}))["bill_download_url"]
    target = url.removeprefix("http://dwbillcenter.alipay.com")
    page = await exchange(us.simulator, Request(method="GET", target=target))
    assert page.body.startswith(b"<!DOCTYPE")


class TestReplay:
    async def test_ids_depend_on_seed_and_number_not_on_what_else_happens(self):
        async def a_run(numbers: list[str], seed: int) -> dict[str, Any]:
            us = a_merchant_of_tests(seed=seed)
            for number in numbers:
                await us.create(number)
            (order,) = [order for order in us.simulator.books()["orders"] if order["out_trade_no"] == "T1"]
            return dict(order)

        assert await a_run(["T1"], 7) == await a_run(["T2", "T1"], 7)
        assert (await a_run(["T1"], 7))["trade_no"] != (await a_run(["T1"], 8))["trade_no"]

    async def test_a_rate_strikes_by_the_business_it_is_about(self, us):
        us.simulator.faults.rate("alipay.system_error", 0.5)
        first = [(await us.query(f"T{number}")).get("sub_code") for number in range(12)]
        again = a_merchant_of_tests()
        again.simulator.faults.rate("alipay.system_error", 0.5)
        second = [(await again.query(f"T{number}")).get("sub_code") for number in reversed(range(12))]
        assert first == second[::-1]
        assert len(set(first)) == 2

    async def test_calls_are_named_with_the_business_they_are_about(self, us):
        trade_no = (await us.create("T1"))["trade_no"]
        named = {
            ("create", "T1"): ("create", an_order("T1")),
            ("wap", "T1"): ("wap", an_order("T1", "wap")),
            ("query", "T1"): ("query", {"trade_no": trade_no}),
            ("refund", "R1"): ("refund", {"out_trade_no": "T1", "out_request_no": "R1"}),
            ("refund", "T1"): ("refund", {"out_trade_no": "T1"}),
            ("query_refund", "R1"): ("query_refund", {"trade_no": trade_no, "out_request_no": "R1"}),
            ("bill", "2026-05-05"): ("bill", {"bill_date": "2026-05-05"}),
        }
        for expected, (call, content) in named.items():
            assert us.simulator.classify(us.request(us.params(call, content))) == expected
        assert {call for call, _ in named} - {"wap"} <= API_CALLS
