"""Several bills chosen in the list, looked through, and paid by one tap; without a script until the pay sheet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.models import Payment, PaymentLine, Refund
from core.states import PaymentStatus
from tests.miniprogram_api.conftest import NewPhone, NewWeb
from tests.miniprogram_api.phone import change_settings
from tests.miniprogram_api.web import Web, paper_of
from tests.support.house import LABOURER, House

HOME = "/h/renhe/"


@pytest.fixture
def his() -> dict[str, Any]:
    return {"settings": {"merge": True, "insured_online": "second_tap", "paper_code": "his_asks"}}


async def at_home(house: House, web: Web, his_patient_id: str = "P10001") -> UUID:
    """Signed in, with a patient bound."""
    await web.get(HOME)
    return await house.bound(await web.payer(), his_patient_id)


def chosen(patient: UUID, *bills: str) -> str:
    return f"{HOME}together/{patient}?" + "&".join(f"bill=-/{bill}" for bill in bills)


async def test_all_that_may_go_together_is_paid_by_one_tap(house: House, web: Web) -> None:
    await at_home(house, web)
    bills = [house.bill(total_fen=fen) for fen in (1000, 250, 33)]
    alone = house.bill(total_fen=99, merge_group="")
    unpaid = await web.get(HOME)
    assert unpaid.text_says("可以一起缴的账单", "其他账单")
    assert unpaid.read.scripts == 0
    together = await web.get(unpaid.link("这3张一起缴 ¥12.83"))
    assert together.text_says("为 王*兰 缴费")
    assert together.text_says("合计（3张） ¥12.83")
    assert together.read.scripts == 0
    paying = await web.begins(together)
    assert web.confirms(paying) == "paid"
    await house.settle()
    (payment,) = await Payment.all()
    assert payment.paid_fen == 1283
    assert {line.his_bill_id for line in await PaymentLine.all()} == set(bills)
    assert house.his.books()["bills"][alone]["times_booked"] == 0
    done = await web.get(paying.path)
    assert done.text.count("缴费成功") == 1
    assert len({line.receipt_no for line in await PaymentLine.all()} & set(done.text.split())) == 3


async def test_only_what_is_ticked_is_paid_and_one_bill_is_enough(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    first, second, _ = (house.bill(total_fen=fen) for fen in (1000, 250, 33))
    unpaid = await web.get(HOME)
    assert unpaid.text_says("全部缴费（3张）¥12.83")
    form = unpaid.form(f"/together/{patient}")
    assert (form.method, set(form.ticks)) == ("get", {"bill"})
    none = await web.get(form.action)
    assert none.text_says("请先在要缴的账单前打勾")
    two = await web.get(chosen(patient, second, first))
    assert two.text_says("合计（2张） ¥12.50")
    one = await web.get(chosen(patient, second))
    assert one.text_says("合计（1张） ¥2.50")
    assert web.confirms(await web.begins(one)) == "paid"
    assert {line.his_bill_id for line in await PaymentLine.all()} == {second}


async def test_the_sum_is_the_servers_and_a_changed_one_is_shown_again(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    bills = [house.bill(total_fen=fen) for fen in (1000, 250)]
    together = await web.get(chosen(patient, *bills))
    house.his.change_amount(bills[1], 260)
    changed = await web.submit(together, "/pay")
    assert changed.status == 409
    assert changed.text_says("12.50元变为12.60元")
    again = await web.get(changed.link("查看新的金额"))
    assert again.text_says("合计（2张） ¥12.60")
    assert web.confirms(await web.begins(again)) == "paid"


async def test_one_of_several_is_refused_and_the_page_says_which_and_why(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    kept, lost = house.bill(total_fen=1000), house.bill(total_fen=250, kind="treatment")
    paying = await web.begins(await web.get(chosen(patient, kept, lost)))
    assert web.confirms(paying) == "paid"
    house.his.change_amount(lost, 300, force=True)
    await house.settle(within=timedelta(minutes=1))
    path = paying.path.partition("?")[0]
    page = await web.get(path)
    assert page.text_says("部分已缴费·部分退款中", "部分已缴费·部分已退款")
    assert page.text_says("账单金额有变")
    assert page.text_says("金额与医院不符")
    assert page.text_says("检查检验 ¥2.50 · 医院未入账")
    assert page.text_says("西药处方 ¥10.00 · 已缴费")
    unpaid = await web.get(HOME)
    assert unpaid.text_says("¥3.00")
    assert not unpaid.text_says("¥10.00")
    again = await web.get(chosen(patient, lost))
    assert web.confirms(await web.begins(again)) == "paid"
    await house.settle()
    assert (await web.get(path)).text_says("部分已缴费·部分已退款")
    assert [refund.amount_fen for refund in await Refund.all()] == [250]
    assert house.his.books()["bills"][lost]["times_booked"] == 1


async def test_cancelled_it_leads_back_to_the_same_bills(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    bills = [house.bill(total_fen=fen) for fen in (1000, 250)]
    paying = await web.begins(await web.get(chosen(patient, *bills)))
    resumed = await web.begins(await web.get(chosen(patient, *reversed(bills))))
    assert resumed.path == paying.path
    ended = await web.submit(paying, "/cancel")
    again = await web.get(ended.link("返回这些账单"))
    assert again.text_says("合计（2张） ¥12.50")
    assert web.confirms(await web.begins(again)) == "paid"
    assert {payment.status for payment in await Payment.all()} == {PaymentStatus.CLOSED, PaymentStatus.PENDING}


async def test_bills_of_nothing_alone_and_among_others(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    free = [house.bill(total_fen=0, items=[("免费", 0)]) for _ in range(2)]
    page = await web.get(chosen(patient, *free))
    assert page.form("/pay").buttons[0][2] == "确认（不用付钱）"
    await web.begins(page)
    await house.settle()
    assert house.pay.books()["orders"] == []
    assert [house.his.books()["bills"][bill]["times_booked"] for bill in free] == [1, 1]
    mixed = [house.bill(total_fen=0, items=[("免费", 0)]), house.bill(total_fen=500)]
    assert web.confirms(await web.begins(await web.get(chosen(patient, *mixed)))) == "paid"
    await house.settle()
    assert [house.his.books()["bills"][bill]["times_booked"] for bill in mixed] == [1, 1]
    assert [order["taken_fen"] for order in house.pay.books()["orders"]] == [500]


async def test_an_insured_bill_among_others_needs_the_second_tap(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    bills = [house.bill(total_fen=fen, insured=True) for fen in (1000, 250)]
    page = await web.get(chosen(patient, *bills))
    assert "self_paid" in page.form("/pay").required
    refused = await web.submit(page, "/pay", tick=False)
    assert refused.status == 409
    assert web.confirms(await web.begins(page)) == "paid"


async def test_what_may_not_go_together_is_refused_with_a_way_back(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    grouped, alone, paid = house.bill(total_fen=100), house.bill(total_fen=200, merge_group=""), house.bill()
    other = await web.get(chosen(patient, grouped, alone))
    assert other.status == 409
    assert other.text_says("这些账单不能合并支付，没有扣款")
    house.his.window_pay(paid)
    gone = await web.get(chosen(patient, grouped, paid))
    assert gone.text_says("其中有账单现在不能缴")
    assert not gone.has_form("/pay")
    assert (await web.get(chosen(patient, grouped, house.bill(LABOURER)))).status == 404
    assert (await web.get(f"{HOME}together/{patient}?bill=nonsense")).status == 404
    assert (await web.get(chosen(uuid4(), grouped))).status in {403, 404}
    many = await web.get(chosen(patient, *(f"B{number}" for number in range(21))))
    assert many.status == 400
    assert await Payment.all().count() == 0


async def test_where_the_hospital_has_not_switched_it_on_nothing_is_offered(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    bills = [house.bill(total_fen=fen) for fen in (1000, 250)]
    await change_settings(house, merge=False)
    unpaid = await web.get(HOME)
    assert not unpaid.text_says("一起缴")
    refused = await web.get(chosen(patient, *bills))
    assert (refused.status, refused.text_says("这些账单不能合并支付")) == (409, True)
    assert (await web.get(f"{HOME}together/{patient}?all=1")).path == f"{HOME}?patient={patient}"


async def test_the_chats_link_leads_to_all_or_to_the_list(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    for fen in (1000, 250):
        house.bill(total_fen=fen)
    link = f"{HOME}together/{patient}?all=1"
    assert (await web.get(link)).text_says("合计（2张） ¥12.50")
    for fen in (10, 20):
        house.bill(total_fen=fen, merge_group="another")
    assert (await web.get(link)).path == f"{HOME}?patient={patient}"


async def test_begun_by_a_relative_in_the_mini_program_it_goes_over_to_the_page(
    house: House, web: Web, new_phone: NewPhone, new_web: NewWeb
) -> None:
    patient = await at_home(house, web)
    first, second, third = (house.bill(total_fen=fen) for fen in (1000, 250, 33))
    daughter = await new_phone("王小红", "19900000001")
    bound = await daughter.bind()
    started = await daughter.start(bound, first, second)
    page = await web.get(chosen(patient, second, third))
    assert page.text_says("有人正在为其中的账单付款")
    paying = await web.begins(page)
    assert house.pay.pay(started.body["order_no"], "") == "closed"
    assert web.confirms(paying) == "paid"
    await house.settle()
    assert {bill: house.his.books()["bills"][bill]["times_booked"] for bill in (first, second, third)} == {
        first: 0,
        second: 1,
        third: 1,
    }


async def test_where_the_other_attempt_cannot_be_ended_one_may_go_on(house: House, web: Web) -> None:
    patient = await at_home(house, web)
    bills = [house.bill(total_fen=fen) for fen in (1000, 250)]
    daughter = await house.payer("王小红", "19900000001")
    await house.bound(daughter)
    first = await house.start(daughter, patient, bills[0])
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    told = await web.submit(await web.get(chosen(patient, *bills)), "/pay")
    assert told.status == 409
    assert told.text_says("另一笔付款还没有结果")
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    paying = await web.submit(told, "/pay")
    assert web.confirms(paying) == "paid"
    assert {line.his_bill_id for line in await PaymentLine.filter(claims_bill=True)} == set(bills)


async def test_who_has_opened_a_paper_pays_the_visits_bills_together(house: House, web: Web) -> None:
    """Without having bound the patient; the list is not theirs, and nothing leads there."""
    first, second = house.bill(total_fen=1000), house.bill(total_fen=250)
    page = await web.opens(await paper_of(house, first))
    assert not page.text_says("请一张一张缴费")
    together = await web.get(page.link("这2张一起缴 ¥12.50"))
    paying = await web.begins(together)
    assert web.confirms(paying) == "paid"
    await house.settle()
    assert [house.his.books()["bills"][bill]["times_booked"] for bill in (first, second)] == [1, 1]
    assert (await web.get(paying.path)).text_says("缴费成功", "已缴费")
