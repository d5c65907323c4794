"""The page behind the code on a paper: consent, factor, bill, payment, and what scanning again shows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from core.models import Consent, Payment
from tests.miniprogram_api.web import Web, paper_of
from tests.support.house import House

PAPERS = {"settings": {"paper_code": "his_asks"}}


@pytest.fixture
def his() -> dict[str, Any]:
    return PAPERS


async def test_from_the_paper_to_the_receipt(house: House, web: Web) -> None:
    bill_id = house.bill(total_fen=8650)
    token = await paper_of(house, bill_id)

    page = await web.get(f"/p/{token}")
    assert (page.status, page.read.language) == (200, "zh-CN")
    assert "仁和医院" in page.text
    assert "王*兰" in page.text
    assert "2026-05-06" in page.text
    assert "86.50" not in page.html
    assert page.form("/consent").ticks == {"agreed": False}

    page = await web.submit(page, "/consent")
    assert "86.50" not in page.html
    (consent,) = await Consent.all()
    assert (consent.kind, consent.version, consent.way) == ("personal", "1", "h5")

    page = await web.submit(page, "/factor", factor="0001")
    assert (page.status, page.path) == (200, f"/p/{token}")
    assert "¥86.50" in page.text
    assert "为 王*兰 缴费" in page.text
    assert "医院在2026年5月7日 00:00前接受缴费" in page.text

    page = await web.begins(page)
    assert page.status == 200
    assert "支付中" in page.text
    order_no = page.path.partition("?")[0].rpartition("/")[2]
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
