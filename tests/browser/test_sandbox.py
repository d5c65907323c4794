"""A newcomer at the sandbox page, in a real browser: the first bill is paid within a minute and the books agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import DESKTOP, PHONE
from tests.support.sandbox_page import WAIT, WIDER_THAN_SCREEN, PhoneOnPage, visit

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

FIRST_BILL_SECONDS = 60.0
GUIDE_TEXT = "请到门诊楼1楼西药房3号窗口取药"


async def test_a_newcomer_pays_a_first_bill_within_a_minute(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as newcomer:
        page, phone = newcomer.page, newcomer.phone(1)
        await newcomer.issue()
        await newcomer.guide_says("收到「待缴费通知」")
        message_seconds = newcomer.seconds
        await phone.open_message()
        await phone.to_pay_sheet()
        await newcomer.guide_says("任意六位数字")
        await phone.pay()

        paid = phone.root.locator("[data-paid-bill]").first
        await paid.get_by_text(GUIDE_TEXT).wait_for(timeout=WAIT)
        assert await paid.locator(".state").inner_text() == "已缴费"
        assert await paid.get_by_text("收据号").count() == 1
        await phone.root.locator(".banner", has_text="缴费成功通知").wait_for(timeout=WAIT)
        paid_seconds = newcomer.seconds
        await newcomer.guide_says("三本账一致")
        agree_seconds = newcomer.seconds
        await phone.root.locator(".banner").click()
        message = phone.root.locator(".message-card").last
        assert GUIDE_TEXT in await message.inner_text()

        row = await newcomer.newest_row()
        assert row["verdict"] == "agree"
        assert row["his"] == row["wechatpay"] == row["ours"] != "¥0.00"
        print(
            f"from page open: bill's message {message_seconds:.1f} s,"
            f" paid message {paid_seconds:.1f} s, books agree {agree_seconds:.1f} s"
        )
        assert agree_seconds < FIRST_BILL_SECONDS
        assert await page.locator("#guide-totals").inner_text() == f"三本账一致\n{row['ours']}"


async def test_the_same_on_a_phone_one_panel_at_a_time(browser: Browser, address: str) -> None:
    async with visit(browser, address, PHONE) as patient:
        page, phone = patient.page, patient.phone(1)
        assert await phone.root.is_hidden()
        await patient.issue(**{"金额（元）": "12.80"})
        await patient.guide_says("收到「待缴费通知」")
        await page.get_by_role("button", name="看手机1").click()
        await phone.open_message()
        await phone.to_pay_sheet()
        assert "12.80" in await phone.sheet.locator(".sheet-amount").inner_text()
        await phone.pay()
        await page.get_by_text(GUIDE_TEXT).first.wait_for(timeout=WAIT)
        await patient.guide_says("三本账一致")
        await page.get_by_role("button", name="看三本账").click()
        assert (await patient.newest_row())["ours"] == "¥12.80"
        for panel in ("时钟·故障", "医生", "手机2", "手机1"):
            await page.get_by_role("button", name=panel, exact=False).first.click()
            assert await page.evaluate(WIDER_THAN_SCREEN) <= 0


async def test_somebody_else_binds_with_one_tap_and_closes_the_sheet(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as migrant:
        page, phone = migrant.page, migrant.phone(2)
        await page.get_by_label("就诊人").select_option(label="李大山")
        await phone.root.locator('[data-row="mini"]').click()
        await phone.root.get_by_role("button", name="绑定", exact=True).click()
        await migrant.guide_says("李大山已在手机上绑定")
        await migrant.issue()
        await phone.root.locator(".banner").wait_for(timeout=WAIT)
        await phone.to_pay_sheet()
        await phone.pay(how="cancel")
        await phone.root.get_by_text("已取消支付，没有扣款。").wait_for(timeout=WAIT)
        await page.locator("#books tbody").first.get_by_text("没有收款，三本账一致").wait_for(timeout=WAIT)


async def test_a_lost_notice_and_a_moved_clock_end_well(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as player:
        page, phone = player.page, player.phone(1)
        lost = page.locator('[data-fault="wechatpay.notice_lost"]').first
        await lost.get_by_role("button", name="下一次").click()
        await page.get_by_text("开着 1 个故障").wait_for(timeout=WAIT)
        await player.issue()
        await phone.open_message()
        await phone.to_pay_sheet()
        await phone.pay()
        await page.get_by_role("button", name="+1 分钟").click()
        await page.get_by_text("比真实时间快 1 分钟").wait_for(timeout=WAIT)
        await player.guide_says("三本账一致")
        assert (await player.newest_row())["verdict"] == "agree"
        await page.get_by_text("现在没有故障。").wait_for(timeout=WAIT)


async def test_one_phone_alone_fills_a_real_phones_screen(browser: Browser, address: str) -> None:
    page = await browser.new_page(**PHONE)
    await page.goto(f"{address}phone/2")
    phone = PhoneOnPage(page, 2)
    await phone.hand_to("陈静")
    await phone.open_chat()
    await phone.say("人工")
    await phone.last_answer(has_text="010-00000000")
    box = await phone.root.locator(".phone").bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 390)
    assert await page.get_by_text("演示环境").is_visible()
    assert await page.evaluate(WIDER_THAN_SCREEN) <= 0
    await page.close()
