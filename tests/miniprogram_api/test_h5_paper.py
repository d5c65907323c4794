"""The page behind the code on a paper: consent, factor, bill, payment, and what scanning again shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from core.errors import HospitalUnavailable
from core.models import Consent, Payment
from tests.miniprogram_api.conftest import NewWeb
from tests.miniprogram_api.phone import change_settings
from tests.miniprogram_api.web import Page, Web, paper_of
from tests.support.fakes import Held, held
from tests.support.house import ELDER, House


@pytest.fixture
def his() -> dict[str, Any]:
    return {"settings": {"paper_code": "his_asks"}}


def order_in(page: Page) -> str:
    return page.path.partition("?")[0].rpartition("/")[2]


async def test_from_the_paper_to_the_receipt(house: House, web: Web) -> None:
    bill_id = house.bill(total_fen=8650)
    token = await paper_of(house, bill_id)

    page = await web.get(f"/p/{token}")
    assert (page.status, page.read.language) == (200, "zh-CN")
    for said in ("仁和医院", "王*兰", "2026年5月6日"):
        assert said in page.text
    assert "86.50" not in page.html
    assert page.form("/consent").ticks == {"agreed": False}

    page = await web.submit(page, "/consent")
    assert "86.50" not in page.html
    (consent,) = await Consent.all()
    assert (consent.kind, consent.version, consent.way) == ("personal", "1", "h5")

    page = await web.submit(page, "/factor", factor="0001")
    assert (page.status, page.path) == (200, f"/p/{token}")
    for said in ("¥86.50", "为 王*兰 缴费", "医院在2026年5月7日 00:00前接受缴费", "确认缴费 ¥86.50"):
        assert said in page.html or said in page.text

    page = await web.begins(page)
    assert page.status == 200
    assert "支付中" in page.text
    order_no = order_in(page)
    assert web.confirms(page) == "paid"

    house.clock.advance(timedelta(seconds=3))  # the channel is not asked more often
    page = await web.get(page.read.data["payment"]["next"])
    assert "医院确认中（请勿重复支付）" in page.text
    assert page.read.refresh.endswith(f"/payments/{order_no}?watch=1")
    house.clock.advance(timedelta(seconds=2))
    await house.settle()

    page = await web.get(page.read.refresh)
    assert page.path == f"/h/renhe/paid?order={order_no}"
    assert "缴费成功 ¥86.50" in page.text
    assert "请到门诊楼1楼西药房3号窗口取药" in page.text
    payment = await Payment.get(order_no=order_no)
    assert (payment.method, payment.app_id) == ("wechatpay/jsapi/wechat", house.service_app_id)
    again = await web.get(f"/p/{token}")
    assert "您为这张处方付过款" in again.text
    assert "已缴费" in again.text
    assert not again.has_form("/pay")


async def test_nothing_goes_on_without_a_tick_of_ones_own(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.submit(await web.get(f"/p/{token}"), "/consent", tick=False)
    assert page.status == 422
    assert "请先在方框里打勾" in page.text
    assert page.form("/consent").ticks == {"agreed": False}
    assert await Consent.all().count() == 0
    factor = {"form": page.form("/consent").fields["form"], "factor": "0001"}
    refused = await web.post(f"/p/{token}/factor", factor)
    assert refused.status == 422
    assert "86.50" not in refused.html


async def test_a_notice_that_changed_meanwhile_is_shown_again(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.get(f"/p/{token}")
    await change_settings(house, paper_code="his_asks", privacy_version="2")
    page = await web.submit(page, "/consent")
    assert page.status == 422
    assert page.form("/consent").fields["version"] == "2"
    assert (await web.submit(page, "/consent")).has_form("/factor")


async def test_wrong_characters_are_counted_and_the_window_is_named(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.submit(await web.get(f"/p/{token}"), "/consent")
    for left in (4, 3, 2, 1, 0):
        page = await web.submit(page, "/factor", factor=f"999{left}")
        assert page.status == 422
        assert f"还可以再试{left}次" in page.text
        assert "王*兰" in page.text
        assert "86.50" not in page.html
    page = await web.submit(page, "/factor", factor="0001")
    assert page.status == 429
    assert "请到窗口" in page.text
    assert "15分钟后再试" in page.text
    assert page.link("查看待缴费账单") == "/h/renhe/"
    house.clock.advance(timedelta(minutes=16))
    page = await web.submit(await web.get(f"/p/{token}"), "/factor", factor="0001")
    assert page.has_form("/pay")


async def test_an_odd_factor_is_told_and_costs_no_try(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.submit(await web.get(f"/p/{token}"), "/consent")
    page = await web.submit(page, "/factor", factor="12")
    assert page.status == 400
    assert "需要4位数字或字母" in page.text
    page = await web.submit(page, "/factor", factor="9999")
    assert "还可以再试4次" in page.text


async def test_the_last_four_of_a_document_open_it_too_in_small_letters(house: House, web: Web) -> None:
    person = house.his.patients[ELDER]
    number = dict(person.identifiers)["id_card"]
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.submit(await web.get(f"/p/{token}"), "/consent")
    page = await web.submit(page, "/factor", factor=number[-4:].lower())
    assert page.has_form("/pay")


async def test_where_nothing_can_be_compared_the_window_helps(house: House, web: Web) -> None:
    house.his.patients[ELDER] = replace(house.his.patients[ELDER], phones=(), identifiers=())
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.get(f"/p/{token}")
    assert page.status == 200
    assert "请带上处方到收费窗口缴费" in page.text
    assert page.read.forms[1:] == []


@pytest.mark.parametrize("token", ["unknown", "h1.AAAA.BBBB", "x" * 600, "%E5%A4%84"])
async def test_an_address_that_is_none_of_ours_has_a_clear_page(web: Web, token: str) -> None:
    page = await web.get(f"/p/{token}")
    assert page.status == 404
    assert "没有找到" in page.text


async def test_cancelled_lapsed_and_paid_elsewhere_are_said(house: House, web: Web) -> None:
    cancelled, lapsed, paid = (house.bill(total_fen=fen) for fen in (100, 200, 300))
    tokens = [await paper_of(house, bill_id) for bill_id in (cancelled, lapsed, paid)]
    await web.opens(tokens[0])
    house.his.cancel(cancelled)
    house.his.window_pay(paid)
    house.clock.advance(timedelta(hours=15))
    for token, said in zip(tokens, ("已被医院取消", "已过缴费期限", "已缴费"), strict=True):
        page = await web.get(f"/p/{token}")
        assert page.status == 200
        assert said in page.text
        assert not page.has_form("/pay")


async def test_the_other_bills_of_the_visit_are_paid_one_by_one(house: House, web: Web) -> None:
    first, second = house.bill(total_fen=8650), house.bill(total_fen=1200, kind="treatment")
    page = await web.opens(await paper_of(house, first))
    assert "本次就诊的其他账单" in page.text
    assert "¥12.00" in page.text
    (address,) = [url for url, _ in page.read.links if url.endswith(second)]
    page = await web.get(address)
    assert "为 王*兰 缴费" in page.text
    page = await web.begins(page)
    assert web.confirms(page) == "paid"
    assert (await Payment.get(order_no=order_in(page))).asked_fen == 1200


async def test_a_bill_without_anything_to_pay_is_confirmed_by_a_tap(house: House, web: Web) -> None:
    page = await web.opens(await paper_of(house, house.bill(total_fen=500, to_pay_fen=0)))
    assert "确认（不用付钱）" in page.text
    page = await web.begins(page)
    assert "医院确认中" in page.text
    await house.settle()
    page = await web.get(page.read.refresh)
    assert "缴费成功" in page.text


async def test_insured_bills_are_self_paid_only_after_a_tick(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650, insured=True))
    page = await web.opens(token)
    assert "医保请到窗口" in page.text
    assert not page.has_form("/pay")
    await change_settings(house, paper_code="his_asks", insured_online="second_tap")
    page = await web.get(f"/p/{token}")
    assert page.form("/pay").ticks == {"self_paid": False}
    refused = await web.submit(page, "/pay", tick=False)
    assert refused.status == 409
    assert "医保请到窗口" in refused.text
    assert web.confirms(await web.submit(page, "/pay")) == "paid"


async def test_what_the_hospital_refused_is_returned_and_whoever_paid_sees_it_on_the_paper(
    house: House, web: Web, new_web: NewWeb
) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.begins(await web.opens(token))
    assert web.confirms(page) == "paid"
    house.faults.script("hospital.bill_paid_at_window_meanwhile")
    await house.settle()
    mine = await web.get(f"/p/{token}")
    for said in ("您为这张处方付过款", "医院未入账·已退款", "账单已在别处缴费", "已原路退回 ¥86.50"):
        assert said in mine.text
    stranger = await new_web("李雷", "19900000099")
    theirs = await stranger.opens(token)
    assert "您为这张处方付过款" not in theirs.text
    assert "退回" not in theirs.text


async def test_why_a_bill_cannot_be_paid_is_said_beside_the_payment_that_was_returned(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    assert web.confirms(await web.begins(await web.opens(token))) == "paid"
    house.faults.script("hospital.refuses_confirm")
    await house.settle()
    page = await web.get(f"/p/{token}")
    assert "医院未入账·已退款" in page.text
    assert not page.has_form("/pay")
    assert "已被医院取消" in page.text


async def test_a_paper_scanned_while_its_payment_is_open_goes_on(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.begins(await web.opens(token))
    again = await web.get(f"/p/{token}")
    assert not again.has_form("/pay")
    resumed = await web.get(again.link("继续付款"))
    assert web.sheet(resumed) == web.sheet(page)
    assert await Payment.all().count() == 1


async def test_a_slow_hospital_is_said_to_be_asked_and_the_page_goes_on(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    await web.opens(token)
    web.is_patient = False
    his = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    page = await web.get(f"/p/{token}")
    assert page.status == 202
    assert "正在向医院查询" in page.text
    assert page.read.refresh.startswith(f"/p/{token}?ticket=")
    still = await web.get(page.read.refresh)
    assert (still.status, still.read.refresh) == (202, page.read.refresh)
    his.let_go("get_bill")
    page = await web.get(page.read.refresh)
    assert "¥86.50" in page.text
    assert his.calls["get_bill"] == 1


async def slow_to_compare(house: House, web: Web, factor: str) -> tuple[Held, Page]:
    """A paper whose digits were sent to a hospital that does not answer now; the page that waits."""
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.submit(await web.get(f"/p/{token}"), "/consent")
    web.is_patient = False
    his = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    page = await web.submit(page, "/factor", factor=factor)
    assert page.status == 202
    assert "正在向医院查询" in page.text
    assert "重复扣款" not in page.text
    assert page.form("/factor").fields["factor"] == factor
    return his, page


async def test_a_hospital_that_is_slow_to_compare_is_waited_for(house: House, web: Web) -> None:
    his, page = await slow_to_compare(house, web, "0001")
    page = await web.submit(page, "/factor")
    assert page.status == 202
    his.let_go("get_bill")
    assert (await web.submit(page, "/factor")).has_form("/pay")


async def test_a_wrong_factor_is_told_when_the_slow_hospital_answers_and_counts_once(house: House, web: Web) -> None:
    his, page = await slow_to_compare(house, web, "9999")
    for _ in range(2):
        page = await web.submit(page, "/factor")
        assert page.status == 202
    his.let_go("get_bill")
    told, twice = [await web.submit(page, "/factor") for _ in range(2)]  # the waiting page may come twice
    for answer in (told, twice):
        assert answer.status == 422
        assert "还可以再试4次" in answer.text
    assert told.form("/factor").fields["factor"] == ""
    again = await web.submit(told, "/factor", factor="9999")  # typed once more: the same try
    assert "还可以再试4次" in again.text
    other = await web.submit(again, "/factor", factor="9998")
    assert "还可以再试3次" in other.text


async def test_one_who_is_locked_out_is_told_when_the_slow_hospital_answers(house: House, web: Web) -> None:
    his, page = await slow_to_compare(house, web, "9999")
    his.let_go("get_bill")
    page = await web.submit(page, "/factor")
    for number in range(4):
        page = await web.submit(page, "/factor", factor=f"888{number}")
    assert "还可以再试0次" in page.text
    his.hold("get_bill")
    page = await web.submit(page, "/factor", factor="0001")
    assert page.status == 202
    his.let_go("get_bill")
    page = await web.submit(page, "/factor")
    assert page.status == 429
    assert "请到窗口" in page.text


async def test_a_wrong_factor_is_told_though_the_paper_cannot_be_shown_again(house: House, web: Web) -> None:
    his, page = await slow_to_compare(house, web, "9999")
    his.hold("get_patient")
    his.let_go("get_bill")
    await his.reached("get_patient")
    his.fail("get_bill", HospitalUnavailable())
    his.let_go("get_patient")
    page = await web.submit(page, "/factor")
    assert page.status == 422
    assert "还可以再试4次" in page.text
    assert page.link("再试一次").startswith("/p/")


async def test_a_silent_hospital_is_not_an_empty_bill(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    await web.opens(token)
    house.faults.script("hospital.request_lost", times=3)
    page = await web.get(f"/p/{token}")
    assert page.status == 503
    assert "医院系统暂时没有回应，没有扣款" in page.text
    assert page.link("再试一次") == f"/p/{token}"


async def test_in_english_for_an_english_phone(house: House, web: Web) -> None:
    web.language = "en-GB,en;q=0.9"
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.get(f"/p/{token}")
    assert page.read.language == "en"
    assert "Before we begin" in page.text
    page = await web.submit(await web.submit(page, "/consent"), "/factor", factor="9999")
    assert "Tries left: 4" in page.text
    page = await web.submit(page, "/factor", factor="0001")
    assert "Paying for 王*兰" in page.text
    assert "Pay ¥86.50" in page.text
    assert "Payment open" in (await web.begins(page)).text


async def test_papers_switched_off_open_nothing(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    await change_settings(house, paper_code="off")
    assert (await web.get(f"/p/{token}")).status == 404
