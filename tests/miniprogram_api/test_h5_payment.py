"""Paying on a page: one order however often one taps, resumed on any phone, ended, superseded, and told to its end."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from core.errors import OutcomeUnknown
from core.models import Payment, PaymentMethod
from core.states import PaymentStatus
from tests.miniprogram_api.conftest import NewPhone, NewWeb
from tests.miniprogram_api.test_h5_paper import order_in
from tests.miniprogram_api.web import Page, Web, paper_of
from tests.support.fakes import held
from tests.support.house import House


@pytest.fixture
def his() -> dict[str, Any]:
    return {"settings": {"paper_code": "his_asks"}}


async def opened(house: House, web: Web, total_fen: int = 8650) -> tuple[str, Page]:
    """A bill, and the page that offers to pay it."""
    bill_id = house.bill(total_fen=total_fen)
    return bill_id, await web.opens(await paper_of(house, bill_id))


async def test_two_taps_are_one_payment(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    form = page.form("/pay")
    both = await asyncio.gather(*(web.once("POST", form.action, form.fields) for _ in range(2)))
    assert {answer.status for answer in both} <= {202, 303}
    assert any(answer.status == 303 for answer in both)
    again = await web.begins(page)
    assert await Payment.all().count() == 1
    assert web.confirms(again) == "paid"


async def test_a_page_opened_twice_resumes_the_same_payment(house: House, web: Web) -> None:
    bill_id, page = await opened(house, web)
    other_tab = await web.get(page.path)
    assert page.form("/pay").fields["key"] != other_tab.form("/pay").fields["key"]
    first = await web.begins(page)
    second = await web.begins(other_tab)
    assert order_in(first) == order_in(second)
    assert web.sheet(first) == web.sheet(second)
    assert await Payment.all().count() == 1
    assert house.his.bills[bill_id].to_pay_fen == 8650


async def test_another_phone_of_the_same_person_goes_on(house: House, web: Web, new_web: NewWeb) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    tablet = await new_web("tablet", "19900000066")
    tablet.user = web.user
    resumed = await tablet.get(paying.path)
    assert tablet.sheet(resumed) == web.sheet(paying)
    assert tablet.confirms(resumed) == "paid"


async def test_nobody_else_sees_a_payment(house: House, web: Web, new_web: NewWeb) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    stranger = await new_web("stranger", "19900000066")
    for path in (paying.path, paying.path.partition("?")[0] + "/state"):
        assert (await stranger.get(path)).status == 404
    fields = {"form": (await stranger.get("/h/renhe/scan")).form("/scan").fields["form"]}
    cancelled = await stranger.post(paying.path.partition("?")[0] + "/cancel", fields)
    assert cancelled.status == 404
    assert (await Payment.get(order_no=order_in(paying))).status is PaymentStatus.PENDING


async def test_cancelled_is_not_charged_and_can_be_paid_again(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    ended = await web.submit(paying, "/cancel")
    assert "没有付款，没有扣款" in ended.text
    assert ended.read.scripts == 0
    bill = await web.get(ended.link("返回账单"))
    again = await web.begins(bill)
    assert order_in(again) != order_in(paying)
    assert web.confirms(again) == "paid"


async def test_a_payment_that_the_channel_has_not_yet_closed_is_being_cancelled(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    house.faults.rate("wechatpay.not_reached", 1.0)
    closing = await web.submit(paying, "/cancel")
    assert "正在取消这次付款" in closing.text
    assert "时间到了" not in closing.text
    assert "sheet" not in closing.read.data
    house.faults.clear()
    await house.settle(within=timedelta(minutes=10))
    assert "没有付款，没有扣款" in (await web.get(paying.path)).text


async def test_how_it_stands_is_asked_by_a_script(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    assert paying.read.data["payment"]["status"] == "paying"
    assert paying.read.data["sheet"]["opens"] == "yes"
    state = await web.get(paying.read.data["payment"]["state"])
    assert json.loads(state.html) == {"status": "paying", "has_sheet": True}
    web.confirms(paying)
    house.clock.advance(timedelta(seconds=4))
    state = await web.get(paying.read.data["payment"]["state"])
    assert json.loads(state.html)["status"] == "confirming"
    await house.settle()
    state = await web.get(paying.read.data["payment"]["state"])
    assert json.loads(state.html)["status"] == "paid"


async def test_a_pay_sheet_whose_time_is_over_is_not_offered(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    house.clock.advance(timedelta(seconds=280))
    late = await web.get(paying.path)
    assert "sheet" not in late.read.data
    assert "这次付款的时间到了" in late.text
    assert late.has_form("/cancel")
    house.clock.advance(timedelta(minutes=2))
    await house.settle(within=timedelta(minutes=10))
    assert "没有付款，没有扣款" in (await web.get(paying.path)).text


async def test_the_app_that_says_ok_is_not_believed(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    after = await web.get(paying.read.data["payment"]["next"])
    assert "支付中" in after.text
    assert "缴费成功" not in after.text


async def test_a_payment_from_elsewhere_shows_its_own_page(house: House, web: Web) -> None:
    """Opened from a message or the list it stays; only who has just paid goes on to the list."""
    _, page = await opened(house, web)
    paying = await web.begins(page)
    web.confirms(paying)
    house.clock.advance(timedelta(seconds=4))
    await house.settle()
    shown = await web.get(paying.path.partition("?")[0])
    assert shown.hops == ()
    assert "已缴费" in shown.text
    assert "收据号" in shown.text
    assert shown.read.refresh == ""
    assert shown.link("查看已缴费记录") == "/h/renhe/paid"


async def test_an_amount_that_changed_is_shown_before_it_is_paid(house: House, web: Web) -> None:
    bill_id, page = await opened(house, web)
    house.his.change_amount(bill_id, 9000)
    changed = await web.begins(page)
    assert changed.status == 409
    assert "账单金额已由86.50元变为90.00元，没有扣款" in changed.text
    bill = await web.get(changed.link("查看新的金额"))
    assert "确认缴费 ¥90.00" in bill.html
    assert web.confirms(await web.begins(bill)) == "paid"


async def test_a_bill_paid_meanwhile_is_not_paid_again(house: House, web: Web) -> None:
    bill_id, page = await opened(house, web)
    house.his.window_pay(bill_id)
    refused = await web.begins(page)
    assert refused.status == 409
    assert "这张账单已经缴过费，没有再次扣款" in refused.text
    assert await Payment.all().count() == 0


async def test_a_second_tap_after_the_payment_shows_it(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    web.confirms(await web.begins(page))
    house.clock.advance(timedelta(seconds=4))
    again = await web.begins(page)
    assert "医院确认中（请勿重复支付）" in again.text
    assert await Payment.all().count() == 1


async def test_the_page_takes_over_from_the_mini_program(
    house: House, web: Web, new_phone: NewPhone, http: aiohttp.ClientSession
) -> None:
    phone = await new_phone("王女士", "19900000011")
    patient = await phone.bind()
    bill_id, page = await opened(house, web)
    started = (await phone.start(patient, bill_id)).body
    page = await web.get(page.path)
    assert "有人正在为这张账单付款" in page.text
    paying = await web.begins(page)
    assert order_in(paying) != started["order_no"]
    assert (await Payment.get(order_no=started["order_no"])).status is PaymentStatus.CLOSED
    assert house.pay.pay_with(started["pay"]["values"]) == "closed"
    assert web.confirms(paying) == "paid"


async def test_when_the_paper_has_closed_it_is_to_be_scanned_again(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    paying = await web.begins(page)
    bill = (await web.submit(paying, "/cancel")).link("返回账单")
    house.clock.advance(timedelta(hours=25))
    ended = await web.get(paying.path.partition("?")[0])
    assert "请重新扫处方" in ended.text
    assert "返回账单" not in ended.text
    closed = await web.get(bill)
    assert closed.status == 403
    assert "请重新扫处方" in closed.text
    assert closed.link("扫处方上的码") == "/h/renhe/scan"
    stale = page.form("/pay")
    session = await web.get("/h/renhe/scan")
    refused = await web.post(stale.action, {**stale.fields, "form": session.form("/scan").fields["form"]})
    assert refused.status == 403
    assert "请重新扫处方" in refused.text


async def test_what_cannot_be_ended_is_told_and_one_may_go_on(house: House, web: Web, new_phone: NewPhone) -> None:
    phone = await new_phone("王女士", "19900000011")
    patient = await phone.bind()
    bill_id, page = await opened(house, web)
    assert (await phone.start(patient, bill_id)).status == 201
    web.is_patient = False
    channel = held(house.services.outside.channels, "wechatpay")
    channel.fail("query", OutcomeUnknown("silent"))
    asked = await web.begins(page)
    assert asked.status == 409
    assert "您也可以继续支付，万一重复扣款，多收的钱会自动原路退回" in asked.text
    assert asked.form("/pay").fields["despite_open"] == "yes"
    paying = await web.submit(asked, "/pay")
    assert web.confirms(paying) == "paid"


async def test_a_silent_channel_charges_nobody_and_says_so(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    held(house.services.outside.channels, "wechatpay").fail("create", OutcomeUnknown("silent"))
    refused = await web.begins(page)
    assert refused.status == 503
    assert "支付渠道暂时没有回应，没有扣款" in refused.text
    assert "/bills/" in refused.link("再试一次")


async def test_a_tap_that_takes_long_goes_on_by_itself(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    web.is_patient = False
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold("create")
    tap = asyncio.create_task(web.begins(page))
    await channel.reached("create")
    second = await web.begins(page)
    assert second.status == 202
    assert "正在办理" in second.text
    waiting = await web.get(second.read.refresh)
    assert waiting.status == 202
    channel.let_go("create")
    first = await tap
    on = await web.get(waiting.read.refresh)
    assert order_in(on) == order_in(first)
    assert web.sheet(on) == web.sheet(first)


async def test_without_a_way_to_pay_the_window_is_named(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    await PaymentMethod.filter(institution_id=house.institution_id).update(institution_enabled=False)
    refused = await web.begins(page)
    assert refused.status == 422
    assert "到收费窗口办理" in refused.text


@pytest.mark.parametrize(
    "changes", [{"shown_fen": "1e3"}, {"shown_fen": "-1"}, {"shown_fen": "9" * 40}, {"key": ""}, {"key": "x" * 500}]
)
async def test_a_form_that_was_tampered_with_starts_nothing(house: House, web: Web, changes: dict[str, str]) -> None:
    _, page = await opened(house, web)
    refused = await web.submit(page, "/pay", changes)
    assert refused.status == 400
    assert await Payment.all().count() == 0


async def test_the_amount_shown_is_not_taken_from_the_form(house: House, web: Web) -> None:
    _, page = await opened(house, web)
    refused = await web.submit(page, "/pay", shown_fen="1")
    assert refused.status == 409
    assert await Payment.all().count() == 0


async def test_a_bill_of_another_family_cannot_be_paid_by_its_address(house: House, web: Web, new_web: NewWeb) -> None:
    _, page = await opened(house, web)
    stranger = await new_web("stranger", "19900000066")
    token = (await stranger.get("/h/renhe/scan")).form("/scan").fields["form"]
    form = page.form("/pay")
    refused = await stranger.post(form.action, {**form.fields, "form": token})
    assert refused.status == 403
    patient = UUID(form.action.split("/")[4])
    assert (await stranger.get(form.action.removesuffix("/pay"))).status == 403
    assert str(patient) in form.action
    assert await Payment.all().count() == 0


async def test_the_paid_list_of_somebody_unregistered_is_his_own(house: House, web: Web, new_web: NewWeb) -> None:
    _, page = await opened(house, web)
    web.confirms(await web.begins(page))
    house.clock.advance(timedelta(seconds=4))
    await house.settle()
    page = await web.get("/h/renhe/paid")
    assert "您扫处方付的款" in page.text
    assert "已缴费（1）" in page.text
    stranger = await new_web("stranger", "19900000066")
    assert "已缴费（0）" in (await stranger.get("/h/renhe/paid")).text


@pytest.mark.parametrize(
    ("money_by", "moving", "arrived"),
    [
        ("us_original_route", ("退费中", "正在退回 ¥86.50", "1至3个工作日"), ("已退费", "已原路退回 ¥86.50")),
        ("hospital_cash", ("已退费", "窗口已退 ¥86.50"), ("已退费", "窗口已退 ¥86.50")),
    ],
)
async def test_what_the_window_takes_back_says_who_gives_the_money_and_sends_nobody_to_the_pharmacy(
    house: House, web: Web, money_by: str, moving: tuple[str, ...], arrived: tuple[str, ...]
) -> None:
    bill_id, page = await opened(house, web)
    paying = await web.begins(page)
    assert web.confirms(paying) == "paid"
    await house.settle()
    path = paying.path.partition("?")[0]
    assert "接下来请去" in (await web.get(path)).text
    house.faults.rate("wechatpay.refund_slow", 1.0)
    house.his.reverse_at_window(bill_id, money_by=money_by)
    await house.settle(within=timedelta(minutes=2))
    for words in (moving, arrived):
        shown = (await web.get(path)).text
        assert [said for said in words if said not in shown] == []
        assert "接下来请去" not in shown
        assert "电子发票" not in shown
        house.faults.clear()
        await house.settle()
