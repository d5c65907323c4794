"""Whole tales over HTTP: from sign-in to receipt, and what comes back when the HIS says no."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from core.models import StaffCase, Transfer
from core.ports import Bill
from tests.miniprogram_api.conftest import NewPhone
from tests.miniprogram_api.phone import Phone, Post, change_settings
from tests.support.fakes import held
from tests.support.hospital import INFANT
from tests.support.house import ELDER, LABOURER, METHOD, House


async def test_from_sign_in_to_receipt(house: House, phone: Phone, post: Post) -> None:
    patient = await phone.bind()
    assert await phone.done("GET", "/api/v1/patients") == {
        "patients": [{"patient_id": str(patient), "masked_name": "王*兰"}]
    }
    bill_id = house.bill(total_fen=8650)
    assert await phone.counts(patient) == {
        "to_pay": 1,
        "paid": 0,
        "hospital_part": "complete",
        "hospital_text": None,
        "ticket": None,
    }
    shown = await phone.bills(patient)
    assert shown["count"] == 1
    (bill,) = shown["bills"]
    assert (bill["bill_id"], bill["amount_fen"], bill["amount"], bill["payable"]) == (bill_id, 8650, "86.50", True)
    assert (bill["kind"], bill["kind_text"], bill["title"]) == ("western", "西药费", "西药处方")
    assert (bill["status"], bill["status_text"], bill["reason"]) == ("to_pay", "待缴费", None)
    assert bill["valid_until"] == "2026-05-07T00:00:00+08:00"
    assert bill["valid_until_text"] == "医院在2026年5月7日 00:00前接受缴费"
    detail = await phone.done("GET", f"/api/v1/patients/{patient}/bills/-/{bill_id}")
    assert [item["amount"] for item in detail["items"]] == ["86.50"]
    assert detail["items_count"] == 1
    (method,) = (await phone.done("GET", f"/api/v1/patients/{patient}/methods"))["methods"]
    assert (method["code"], method["title"]) == (METHOD, "微信支付")

    order_no = await phone.pays(patient, bill_id)
    open_still = await phone.bills(patient)
    assert (open_still["bills"][0]["status"], open_still["bills"][0]["order_no"]) == ("paying", order_no)
    payment = await phone.payment(order_no)  # asks the channel: nobody waits for the notice
    assert (payment["status"], payment["status_text"]) == ("confirming", "医院确认中（请勿重复支付）")
    assert (payment["paid_fen"], payment["paid"], payment["refunded_fen"]) == (8650, "86.50", 0)
    waiting = await phone.bills(patient)
    assert waiting["count"] == 0
    assert (waiting["bills"][0]["status"], waiting["bills"][0]["payable"]) == ("confirming", False)
    assert waiting["bills"][0]["reason"] == "already_paid"
    assert (await phone.paid(patient))["paid"][0]["status_text"] == "医院确认中（请勿重复支付）"

    house.clock.advance(timedelta(seconds=2))
    assert await post.deliver() > 0
    await house.settle()
    payment = await phone.payment(order_no)
    assert (payment["status"], payment["status_text"]) == ("paid", "已缴费")
    (line,) = payment["lines"]
    assert line["receipt_no"]
    assert line["guide_text"] == "请到门诊楼1楼西药房3号窗口取药"
    assert line["return_reason"] is None
    assert (await phone.bills(patient))["bills"] == []
    paid = await phone.paid(patient)
    (entry,) = paid["paid"]
    assert (entry["source"], entry["order_no"], entry["status"]) == ("zhenfu", order_no, "paid")
    assert entry["receipt_no"] == line["receipt_no"]
    assert paid["hospital_part"] == "complete"
    assert (await phone.counts(patient))["paid"] == 1
    assert house.his.books()["bills"][bill_id]["times_booked"] == 1
    assert await StaffCase.all().count() == 0


async def test_english_words_for_an_english_phone(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    house.bill(total_fen=8650)
    phone.language = "en-US,en;q=0.9"
    (bill,) = (await phone.bills(patient))["bills"]
    assert bill["status_text"] == "To pay"
    assert bill["valid_until_text"] == "The hospital accepts payment until 2026-05-07 00:00"


async def test_a_bill_without_a_date_shows_the_rule_in_words_only(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    house.bill(total_fen=8650, valid_days=None)
    house.bill(total_fen=100, treat_first=True)
    by_amount = {bill["amount_fen"]: bill for bill in (await phone.bills(patient))["bills"]}
    assert by_amount[8650]["valid_until"] is None
    assert by_amount[8650]["valid_until_text"] == "一般在开单后3天内（2026年5月9日 10:00前）可以缴费，以医院为准"
    assert by_amount[8650]["payable"]
    assert by_amount[100]["treat_first"]
    assert by_amount[100]["valid_until_text"] is None


async def test_a_bill_paid_at_the_window_stands_beside_ours_once(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    ours, window = house.bill(total_fen=8650), house.bill(total_fen=300)
    await phone.pays(patient, ours)
    house.clock.advance(timedelta(minutes=1))
    house.his.window_pay(window)
    await house.settle()
    paid = await phone.paid(patient)
    assert [(entry["bill_id"], entry["source"], entry["paid_by"]) for entry in paid["paid"]] == [
        (window, "hospital", "window"),
        (ours, "zhenfu", "mobile"),
    ]
    assert paid["count"] == 2


async def test_what_the_his_refuses_comes_back_and_says_why(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill_id = house.bill(total_fen=8650)
    order_no = await phone.pays(patient, bill_id)
    house.faults.script("hospital.bill_paid_at_window_meanwhile")
    await house.settle(within=timedelta(seconds=20))
    payment = await phone.payment(order_no)
    assert (payment["status"], payment["status_text"]) == ("returning", "医院未入账·退款中")
    await house.settle()
    payment = await phone.payment(order_no)
    assert (payment["status"], payment["status_text"]) == ("returned", "医院未入账·已退款")
    assert payment["refunded_fen"] == 8650
    assert payment["lines"][0]["return_reason"] == {
        "code": "BILL_PAID",
        "text": "账单已在别处缴费",
        "his_text": "处方已缴费",
    }
    paid = await phone.paid(patient)
    assert [(entry["source"], entry["status"]) for entry in paid["paid"]] == [
        ("hospital", "paid"),
        ("zhenfu", "returned"),
    ]
    assert await Transfer.filter(kind="refunded").count() == 1


async def test_family_members_pay_for_each_other(house: House, new_phone: NewPhone) -> None:
    mother = await new_phone("陈静", "19900000002")
    child = await mother.bind(INFANT)
    bill_id = house.bill(INFANT, total_fen=4200)
    order_no = await mother.pays(child, bill_id)
    await house.settle()
    assert (await mother.payment(order_no))["status"] == "paid"
    (binding,) = (await mother.done("GET", f"/api/v1/patients/{child}/payers"))["payers"]
    assert binding.pop("binding_id")
    assert binding == {
        "is_you": True,
        "platform": "wechat_miniprogram",
        "platform_text": "微信小程序",
        "bound_on": "2026-05-06",
    }
    await mother.done("DELETE", f"/api/v1/patients/{child}")
    assert (await mother.get(f"/api/v1/patients/{child}/bills")).code == "patient_not_bound"
    assert (await mother.payment(order_no))["status"] == "paid"  # her own payment stays hers


async def test_the_patient_sees_and_removes_who_is_bound(house: House, phone: Phone, new_phone: NewPhone) -> None:
    patient = await phone.bind()
    daughter = await new_phone("王小梅", "19900000011")
    house.clock.advance(timedelta(hours=14))  # past midnight in Shanghai, not in Greenwich
    await phone.sign_in()
    await daughter.sign_in()
    assert await daughter.bind() == patient
    path = f"/api/v1/patients/{patient}/payers"
    hers, daughters = (await phone.done("GET", path))["payers"]
    assert [(entry["is_you"], entry["bound_on"]) for entry in (hers, daughters)] == [
        (True, "2026-05-06"),
        (False, "2026-05-07"),
    ]
    assert set(daughters) == {"binding_id", "is_you", "platform", "platform_text", "bound_on"}
    assert [entry["is_you"] for entry in (await daughter.done("GET", path))["payers"]] == [False, True]
    assert (await phone.ask("DELETE", f"{path}/{daughters['binding_id']}")).status == 204
    assert (await phone.ask("DELETE", f"{path}/{daughters['binding_id']}")).code == "not_found"
    for method, address in (("GET", path), ("DELETE", f"{path}/{hers['binding_id']}")):
        assert (await daughter.ask(method, address)).code == "patient_not_bound"
    assert (await daughter.get(f"/api/v1/patients/{patient}/bills")).code == "patient_not_bound"
    assert await daughter.done("GET", "/api/v1/patients") == {"patients": []}
    phone.language = "en"
    assert [entry["platform_text"] for entry in (await phone.done("GET", path))["payers"]] == ["WeChat mini program"]
    assert (await phone.ask("DELETE", f"{path}/{hers['binding_id']}")).status == 204
    assert (await phone.get(path)).code == "patient_not_bound"
    assert await daughter.bind() == patient  # whoever is removed may bind again, with the proof that it takes


async def test_a_state_that_nobody_knows_is_shown_and_not_paid(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill_id = house.bill(total_fen=8650)
    his: Any = held(house.services.outside.hospitals, "rest")
    list_bills, get_bill = his.list_bills, his.get_bill

    async def bills_in_a_new_state(*arguments: Any) -> list[Bill]:
        return [replace(bill, state="unknown") for bill in await list_bills(*arguments)]

    async def bill_in_a_new_state(*arguments: Any) -> Bill:
        bill: Bill = await get_bill(*arguments)
        return replace(bill, state="unknown")

    his.list_bills, his.get_bill = bills_in_a_new_state, bill_in_a_new_state
    (bill,) = (await phone.bills(patient))["bills"]
    assert (bill["payable"], bill["reason"]) == (False, "refused")
    assert bill["reason_text"] == "医院暂不接受这张账单在手机上缴费，请到收费窗口"
    shown = await phone.done("GET", f"/api/v1/patients/{patient}/bills/-/{bill_id}")
    assert shown["reason_text"] == bill["reason_text"]
    error = (await phone.start(patient, bill_id)).error
    assert (error["code"], error["reason"]) == ("bill_not_payable", "refused")
    assert house.pay.books()["orders"] == []


async def test_a_bill_of_nothing_is_booked_without_a_pay_sheet(house: House, new_phone: NewPhone) -> None:
    phone = await new_phone("李大山", "19900000005")
    patient = await phone.bind(LABOURER)
    bill_id = house.bill(LABOURER, total_fen=500, to_pay_fen=0)
    started = await phone.start(patient, bill_id)
    assert (started.status, started.body["pay"], started.body["amount"]) == (201, None, "0.00")
    await house.settle()
    assert (await phone.payment(started.body["order_no"]))["status"] == "paid"
    assert house.pay.books()["orders"] == []


async def test_an_insured_bill_needs_a_second_tap_where_it_is_allowed(house: House, phone: Phone) -> None:
    await change_settings(house, insured_online="second_tap")
    patient = await phone.bind()
    bill_id = house.bill(ELDER, total_fen=900, insured=True)
    (bill,) = (await phone.bills(patient))["bills"]
    assert (bill["insured"], bill["payable"], bill["needs_second_tap"]) == (True, True, True)
    assert bill["second_tap_text"] == "手机支付按自费结算，医保请到窗口"
    first = await phone.start(patient, bill_id)
    assert (first.status, first.code, first.error["reason"]) == (409, "bill_not_payable", "insured")
    assert (await phone.start(patient, bill_id, accept_self_paid=True)).status == 201


async def test_several_bills_in_one_payment_and_one_is_refused(house: House, phone: Phone) -> None:
    await change_settings(house, merge=True)
    patient = await phone.bind()
    kept, lost = house.bill(total_fen=1000), house.bill(total_fen=250)
    assert (await phone.bills(patient))["merge"] == {"allowed": True, "max": 20}
    order_no = await phone.pays(patient, kept, lost)
    house.his.cancel(lost, force=True)
    await house.settle()
    payment = await phone.payment(order_no)
    assert payment["refunded_fen"] == 250
    assert {line["bill_id"]: line["status"] for line in payment["lines"]} == {kept: "paid", lost: "returned"}
    assert (payment["status"], payment["status_text"]) == ("part_returned", "部分已缴费·部分已退款")
