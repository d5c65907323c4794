"""Whatever is wrong with a payment, the phone is told in both languages, and nothing is booked twice or lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from core.errors import Refused
from core.models import Payment, PaymentLine
from core.states import PaymentStatus
from tests.miniprogram_api.conftest import NewPhone
from tests.miniprogram_api.phone import Answer, Phone, change_settings, in_both_languages
from tests.support.fakes import held
from tests.support.house import LABOURER, MCHID, PAY_URL, House


def orders(house: House) -> list[str]:
    """What the channel has in its books."""
    return [order["out_trade_no"] for order in house.pay.books()["orders"]]


async def statuses() -> list[PaymentStatus]:
    return [payment.status for payment in await Payment.all().order_by("created_at", "id")]


async def no_bill_is_claimed() -> bool:
    return not await PaymentLine.filter(claims_bill=True).exists()


# ---------------------------------------------------------------- the bill


async def test_a_bill_that_has_lapsed(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650, valid_until=house.clock.now() + timedelta(minutes=3))
    house.clock.advance(timedelta(minutes=4))
    error = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert (error["code"], error["reason"]) == ("bill_not_payable", "expired")
    assert error["message"] == "这张账单已过缴费期限，没有扣款。请联系医生重新开单，或到收费窗口咨询。"
    assert orders(house) == []
    assert await statuses() == []


async def test_a_bill_that_is_about_to_lapse(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650, valid_until=house.clock.now() + timedelta(seconds=70))
    error = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert (error["code"], error["reason"]) == ("bill_not_payable", "expired")
    assert orders(house) == []
    assert set(await statuses()) == {PaymentStatus.FAILED}
    await house.settle()
    assert house.his.books()["bills"][bill]["locked_by"] == ""


async def test_a_bill_that_has_been_paid_at_the_window(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    assert (await phone.bills(patient))["count"] == 1
    house.his.window_pay(bill)
    error = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert (error["code"], error["reason"]) == ("bill_not_payable", "paid")
    assert orders(house) == []
    assert house.his.books()["bills"][bill]["times_booked"] == 1


async def test_a_bill_that_has_been_paid_through_us(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    order_no = await phone.pays(patient, bill)
    await phone.payment(order_no)
    before_it_is_booked = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert (before_it_is_booked["code"], before_it_is_booked["order_no"]) == ("already_paid", order_no)
    await house.settle()
    afterwards = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert (afterwards["code"], afterwards["reason"]) == ("bill_not_payable", "paid")
    assert orders(house) == [order_no]
    assert house.his.books()["bills"][bill]["times_booked"] == 1


async def test_a_bill_that_the_doctor_has_cancelled(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    house.his.cancel(bill)
    error = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert (error["code"], error["reason"]) == ("bill_not_payable", "cancelled")


async def test_a_bill_that_is_for_the_window_only(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650, payable_online=False, not_payable_reason="请到特药窗口")
    (shown,) = (await phone.bills(patient))["bills"]
    assert (shown["payable"], shown["reason"]) == (False, "window_only")
    assert shown["reason_text"].endswith("请到特药窗口")
    assert (await phone.start(patient, bill)).error["reason"] == "window_only"


async def test_an_amount_that_changed_between_looking_and_paying(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    shown_fen = (await phone.bills(patient))["bills"][0]["amount_fen"]
    house.his.change_amount(bill, 9650)
    error = await in_both_languages(phone, lambda: phone.start(patient, bill, shown_fen=shown_fen))
    assert (error["code"], error["shown_fen"], error["amount_fen"]) == ("amount_changed", 8650, 9650)
    assert "86.50" in error["message"]
    assert "96.50" in error["message"]
    assert orders(house) == []
    assert (await phone.start(patient, bill, shown_fen=9650)).status == 201


async def test_bills_that_may_not_be_paid_together(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    one, two = house.bill(total_fen=100), house.bill(total_fen=200)
    error = await in_both_languages(phone, lambda: phone.start(patient, one, two))
    assert (error["code"], error["reason"]) == ("bill_not_payable", "not_together")
    assert error["message"] == "这些账单不能合并支付，没有扣款。请逐张支付。"


async def test_a_way_of_paying_that_is_not_offered(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    error = await in_both_languages(phone, lambda: phone.start(patient, bill, method="wechatpay/native/wechat"))
    assert error["code"] == "method_not_available"


async def test_an_amount_above_the_institutions_limit(house: House, phone: Phone) -> None:
    await change_settings(house, amount_max_fen=8000)
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    assert (await phone.bills(patient))["bills"][0]["reason"] == "too_large"
    error = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert error["reason"] == "too_large"


# ---------------------------------------------------------------- the HIS and the channel


@pytest.mark.parametrize("fault", ["not_reached", "request_lost", "error_500", "login_page"])
async def test_a_his_that_is_down_or_talks_nonsense(house: House, phone: Phone, fault: str) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    for path in (f"/api/v1/patients/{patient}/bills", f"/api/v1/patients/{patient}/bills/-/{bill}"):
        house.faults.script(f"hospital.{fault}", times=2)
        error = await in_both_languages(phone, lambda path=path: phone.get(path))  # type: ignore[misc]
        assert error["code"] == "hospital_unavailable"
        house.faults.clear()
    house.faults.script(f"hospital.{fault}")
    assert (await phone.start(patient, bill)).code == "hospital_unavailable"
    assert await statuses() == []
    house.clock.advance(timedelta(minutes=10))  # the breaker closes again
    assert (await phone.bills(patient))["count"] == 1


@pytest.mark.parametrize("fault", ["not_reached", "request_lost", "answer_lost"])
async def test_a_his_that_falls_silent_while_it_should_hold_the_bill(house: House, phone: Phone, fault: str) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    house.faults.script(f"hospital.{fault}", key=None)
    gate = held(house.services.outside.hospitals, "rest")
    gate.hold("lock_bills")
    house.faults.clear()
    begun = asyncio.create_task(phone.start(patient, bill))
    await gate.reached("lock_bills")
    house.faults.script(f"hospital.{fault}")
    gate.let_go("lock_bills")
    assert (await begun).code == "hospital_unavailable"
    assert orders(house) == []
    assert await statuses() == [PaymentStatus.FAILED]
    await house.settle()
    assert house.his.books()["bills"][bill]["locked_by"] == ""
    house.clock.advance(timedelta(minutes=10))
    assert (await phone.start(patient, bill)).status == 201


async def test_a_his_that_refuses_the_question_itself(house: House, phone: Phone, new_phone: NewPhone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    his = held(house.services.outside.hospitals, "rest")
    for call in ("list_bills", "get_bill", "list_paid", "find_patients"):
        his.fail(call, Refused("SIGNATURE_INVALID", "验签未通过"))
    error = await in_both_languages(phone, lambda: phone.get(f"/api/v1/patients/{patient}/bills"))
    assert error["code"] == "hospital_unavailable"
    assert (await phone.start(patient, bill)).code == "hospital_unavailable"
    assert (await phone.paid(patient))["hospital_part"] == "unavailable"
    stranger = await new_phone("李大山", "19900000005")
    assert (await stranger.post("/api/v1/patients", stranger.binding(LABOURER))).code == "hospital_unavailable"
    his.fail("get_bill", Refused("BILL_CANCELLED", "已作废"))
    shown = await phone.get(f"/api/v1/patients/{patient}/bills/-/{bill}")
    assert (shown.code, shown.error["reason"]) == ("bill_not_payable", "cancelled")


async def test_a_silent_his_is_never_nothing_to_pay(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    order_no = await phone.pays(patient, house.bill(total_fen=8650))
    await phone.payment(order_no)
    house.faults.rate("hospital.not_reached", 1.0)
    counts = await phone.counts(patient)
    assert (counts["to_pay"], counts["paid"], counts["hospital_part"]) == (None, 1, "unavailable")
    assert counts["hospital_text"].startswith("医院系统暂时没有回应")
    paid = await phone.paid(patient)
    assert [entry["order_no"] for entry in paid["paid"]] == [order_no]
    assert (paid["hospital_part"], paid["ticket"]) == ("unavailable", None)


async def test_a_channel_that_is_down(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    house.faults.rate("wechatpay.not_reached", 1.0)
    error = await in_both_languages(phone, lambda: phone.start(patient, bill))
    assert error["code"] == "channel_unavailable"
    assert await statuses() == [PaymentStatus.FAILED, PaymentStatus.FAILED]
    assert await no_bill_is_claimed()
    house.faults.clear()
    assert (await phone.start(patient, bill)).status == 201


async def test_a_channel_whose_answers_are_lost(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    house.faults.script("wechatpay.answer_lost", times=2)
    refused = await phone.start(patient, bill, key="one")
    assert refused.code == "channel_unavailable"
    (order_no,) = orders(house)
    assert await statuses() == [PaymentStatus.CREATED]
    again = await phone.start(patient, bill, key="two")
    assert again.status == 201
    assert [order["state"] for order in house.pay.books()["orders"]] == ["CLOSED", "NOTPAY"]
    assert again.body["order_no"] != order_no


# ---------------------------------------------------------------- clicks, phones, apps


async def test_the_same_key_again_is_the_same_payment(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    first, again = await phone.start(patient, bill, key="tap"), await phone.start(patient, bill, key="tap")
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body
    assert orders(house) == [first.body["order_no"]]


async def test_another_key_for_the_same_bill_is_the_same_payment(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    first, again = await phone.start(patient, bill, key="one"), await phone.start(patient, bill, key="two")
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body
    assert orders(house) == [first.body["order_no"]]


async def test_the_same_key_for_another_bill_is_refused(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill, other = house.bill(total_fen=8650), house.bill(total_fen=100)
    first = await phone.start(patient, bill, key="tap")
    error = await in_both_languages(phone, lambda: phone.start(patient, other, key="tap"))
    assert error["code"] == "idempotency_conflict"
    assert orders(house) == [first.body["order_no"]]


async def test_six_taps_at_once_make_one_order(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    taps = await asyncio.gather(*(phone.start(patient, bill, key=f"tap-{number % 2}") for number in range(6)))
    assert sorted({tap.status for tap in taps}) in ([201], [200, 201], [201, 409], [200, 201, 409])
    assert sum(tap.status == 201 for tap in taps) == 1
    assert {tap.code for tap in taps if tap.status >= 400} <= {"still_working"}
    assert len(orders(house)) == 1
    assert [tap.body["order_no"] for tap in taps if tap.status < 300] == orders(house) * sum(
        tap.status < 300 for tap in taps
    )


async def test_a_second_tap_while_the_first_is_under_way(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    gate = held(house.services.outside.channels, "wechatpay")
    gate.hold("create")
    first = asyncio.create_task(phone.start(patient, bill, key="tap"))
    await gate.reached("create")
    same = await in_both_languages(phone, lambda: phone.start(patient, bill, key="tap"))
    other = await phone.start(patient, bill, key="other")
    assert (same["code"], other.code) == ("still_working", "still_working")
    assert other.headers["retry-after"] == "2"
    gate.let_go("create")
    assert (await first).status == 201
    assert len(orders(house)) == 1


async def test_a_second_phone_takes_over(house: House, phone: Phone, new_phone: NewPhone) -> None:
    """The elder has begun to pay; her daughter pays on her own phone. One order can be paid, not two."""
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    elders = await phone.start(patient, bill)
    daughter = await new_phone("王小梅", "19900000011")
    assert await daughter.bind() == patient
    daughters = await daughter.start(patient, bill)
    assert daughters.status == 201
    assert daughters.body["order_no"] != elders.body["order_no"]
    assert house.pay.pay_with(elders.body["pay"]["values"]) == "closed"
    assert house.pay.pay_with(daughters.body["pay"]["values"]) == "paid"
    await house.settle()
    assert (await phone.payment(elders.body["order_no"]))["status"] == "not_paid"
    assert (await daughter.payment(daughters.body["order_no"]))["status"] == "paid"
    assert house.his.books()["bills"][bill]["times_booked"] == 1
    (entry,) = (await phone.paid(patient))["paid"]  # the elder sees that it is paid, but not her daughter's order
    assert (entry["status"], entry["order_no"]) == ("paid", None)


async def test_a_second_phone_when_the_first_has_just_paid(house: House, phone: Phone, new_phone: NewPhone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    await phone.pays(patient, bill)
    daughter = await new_phone("王小梅", "19900000011")
    await daughter.bind()
    assert (await daughter.start(patient, bill)).code == "already_paid"
    await house.settle()
    assert house.his.books()["bills"][bill]["times_booked"] == 1


async def test_an_open_attempt_that_cannot_be_closed(house: House, phone: Phone, new_phone: NewPhone) -> None:
    """The channel is silent about the first attempt: the second phone is told, and may go on knowingly."""
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    elders = await phone.start(patient, bill)
    daughter = await new_phone("王小梅", "19900000011")
    await daughter.bind()
    house.faults.script("wechatpay.request_lost", key=elders.body["order_no"], times=9)
    error = await in_both_languages(daughter, lambda: daughter.start(patient, bill))
    assert error["code"] == "payment_open_elsewhere"
    assert error["until"] in error["message"]
    going_on = await daughter.start(patient, bill, despite_open=True)
    assert going_on.status == 201
    assert orders(house) == [elders.body["order_no"], going_on.body["order_no"]]


@pytest.mark.parametrize("his", [{"no_lock": True}])
async def test_going_on_although_the_first_may_still_be_paid(house: House, phone: Phone, new_phone: NewPhone) -> None:
    """The HIS holds nothing: both pay, one is booked, the other comes back by itself."""
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    elders = await phone.start(patient, bill)
    daughter = await new_phone("王小梅", "19900000011")
    await daughter.bind()
    house.faults.script("wechatpay.request_lost", key=elders.body["order_no"], times=2)
    assert (await daughter.start(patient, bill)).code == "payment_open_elsewhere"
    daughters = await daughter.start(patient, bill, despite_open=True)
    house.faults.clear()
    assert daughters.status == 201
    assert house.pay.pay_with(elders.body["pay"]["values"]) == "paid"
    assert house.pay.pay_with(daughters.body["pay"]["values"]) == "paid"
    await house.settle()
    said = [
        (await phone.payment(elders.body["order_no"])),
        (await daughter.payment(daughters.body["order_no"])),
    ]
    assert sorted(payment["status"] for payment in said) == ["paid", "returned"]
    assert sorted(payment["refunded_fen"] for payment in said) == [0, 8650]
    assert house.his.books()["bills"][bill]["times_booked"] == 1


async def test_a_second_app_of_the_same_hospital(house: House, phone: Phone, new_phone: NewPhone) -> None:
    """Another mini program with a merchant number of its own: the same bill, still one booking."""
    app = house.chat.add_mini_program("仁和医院互联网门诊", pages={"pages/payment/index"})
    await house.setup.chat_account(
        house.institution_id,
        platform="wechat_miniprogram",
        app_id=app.app_id,
        params={"secret": app.secret, "base_url": "https://chat.test"},
    )
    merchant = house.pay.add_merchant("1900000210", appids={app.app_id})
    account = await house.setup.merchant_account(
        house.institution_id,
        channel="wechatpay",
        merchant_no="1900000210",
        params={
            "app_ids": app.app_id,
            "merchant_private_key": merchant.private_key_pem,
            "merchant_serial": merchant.serial_no,
            "api_v3_key": str(merchant.api_v3_key),
            "public_key_id": house.pay.public_key.serial,
            "public_key": house.pay.public_key.public_pem,
            "base_url": PAY_URL,
        },
    )
    await house.setup.payment_method(
        house.institution_id,
        merchant_account_id=account.id,
        code="wechatpay/jsapi/wechat",
        app_id=app.app_id,
    )
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    first = await phone.start(patient, bill)
    other = await new_phone("王小梅", "19900000011", signed_in=False)
    other.app_id = app.app_id
    house.chat.open_id(other.user, app.app_id)
    await other.sign_in()
    await other.bind()
    assert (await other.start(patient, bill)).code == "method_not_available"  # that is the first app's
    second = await other.start(patient, bill, method="wechatpay/jsapi/wechat")
    assert second.status == 201
    assert house.pay.pay_with(first.body["pay"]["values"]) == "closed"
    assert house.pay.pay_with(second.body["pay"]["values"]) == "paid"
    await house.settle()
    assert {order["mchid"]: order["state"] for order in house.pay.books()["orders"]} == {
        MCHID: "CLOSED",
        "1900000210": "SUCCESS",
    }
    assert house.his.books()["bills"][bill]["times_booked"] == 1


async def test_closing_the_pay_sheet_frees_the_bill_at_once(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    started = await phone.start(patient, bill)
    order_no = started.body["order_no"]
    cancelled = await phone.done("POST", f"/api/v1/payments/{order_no}/cancel")
    assert (cancelled["status"], cancelled["status_text"]) == ("not_paid", "未支付")
    assert house.pay.pay_with(started.body["pay"]["values"]) == "closed"
    assert await no_bill_is_claimed()
    assert (await phone.start(patient, bill)).status == 201


async def test_cancelling_what_has_been_paid_shows_that_it_is_paid(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    order_no = await phone.pays(patient, house.bill(total_fen=8650))
    cancelled = await phone.done("POST", f"/api/v1/payments/{order_no}/cancel", {})
    assert cancelled["status"] == "confirming"
    assert cancelled["paid_fen"] == 8650


# ---------------------------------------------------------------- the request


async def test_requests_that_are_not_what_they_should_be(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    good = phone.order(patient, bill)
    key = {"idempotency-key": "k"}

    async def sent(body: object = None, **options: object) -> Answer:
        return await phone.post("/api/v1/payments", body, headers=key, **options)

    wrong: dict[str, tuple[object, str, str]] = {
        "unknown": ({**good, "colour": "red"}, "colour", "is not a known field"),
        "missing": ({name: value for name, value in good.items() if name != "method"}, "method", "is missing"),
        "text": ({**good, "shown_fen": "8650"}, "shown_fen", "has the wrong form"),
        "fraction": ({**good, "shown_fen": 86.5}, "shown_fen", "has the wrong form"),
        "truth": ({**good, "shown_fen": True}, "shown_fen", "has the wrong form"),
        "negative": ({**good, "shown_fen": -1}, "shown_fen", "has the wrong form"),
        "huge": ({**good, "shown_fen": 2**63}, "shown_fen", "has the wrong form"),
        "none": ({**good, "bills": []}, "bills", "has the wrong form"),
        "deep": ({**good, "bills": [{"branch": "", "bill_id": bill, "x": 1}]}, "bills.0.x", "is not a known field"),
        "zero": ({**good, "bills": [{"branch": "", "bill_id": "a\x00b"}]}, "bills.0.bill_id", "has the wrong form"),
        "patient": ({**good, "patient_id": "12"}, "patient_id", "has the wrong form"),
        "list": ([good], "body", "has the wrong form"),
    }
    for name, (body, field, problem) in wrong.items():
        error = await in_both_languages(phone, lambda body=body: sent(body))  # type: ignore[misc]
        assert (name, error["code"], error["field"], error["problem"]) == (name, "invalid_request", field, problem)
    for data in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"patient_id": "\\ud800"}', b"null"):
        answer = await phone.ask(
            "POST", "/api/v1/payments", headers={**key, "content-type": "application/json"}, data=data or b" "
        )
        assert (answer.status, answer.code, answer.error["field"]) == (400, "invalid_request", "body")
    plain = await phone.ask("POST", "/api/v1/payments", headers={**key, "content-type": "text/plain"}, data=b"{}")
    assert plain.error["field"] == "Content-Type"
    assert await statuses() == []
    assert orders(house) == []


async def test_an_idempotency_key_is_compulsory_and_bounded(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    body = phone.order(patient, house.bill(total_fen=8650))
    for headers in ({}, {"idempotency-key": ""}, {"idempotency-key": "x" * 129}, {"idempotency-key": "k\xe9y"}):
        error = await in_both_languages(
            phone,
            lambda headers=headers: phone.post("/api/v1/payments", body, headers=headers),  # type: ignore[misc]
        )
        assert (error["code"], error["field"]) == ("invalid_request", "Idempotency-Key")
    assert await statuses() == []


async def test_a_body_over_one_mebibyte(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    data = b'{"patient_id":"' + b"x" * (1 << 20) + b'"}'
    for path in ("/api/v1/payments", "/api/v1/sessions", "/n/whoever"):
        error = await in_both_languages(phone, lambda path=path: phone.post(path, data=data))  # type: ignore[misc]
        assert error["code"] == "body_too_large"
    assert (await phone.bills(patient))["count"] == 0
