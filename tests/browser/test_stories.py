"""The guided stories of the sandbox as somebody plays them, through the product's own chat and pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import DESKTOP
from tests.support.sandbox_page import WAIT, visit

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


async def test_a_word_in_the_chat_leads_to_a_paid_bill(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as player:
        phone = player.phone(1)
        await player.issue(**{"金额（元）": "33.40"})
        await phone.open_chat()
        await phone.say("缴费")
        answer = await phone.last_answer(has_text="33.40")
        assert "王*兰" in await answer.inner_text()
        assert "王秀兰" not in await answer.inner_text()
        await phone.tap_link("去缴费")
        await phone.web.get_by_role("button", name="确认缴费 ¥33.40").click(timeout=WAIT)
        await phone.pay()
        await phone.web.get_by_text("缴费成功").first.wait_for(timeout=WAIT)
        await player.guide_says("三本账一致")
        assert (await player.newest_row())["ours"] == "¥33.40"


async def test_a_stranger_pays_from_a_paper(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as player:
        phone = player.phone(2)
        await player.begin_story("paper")
        await player.guide_says("李大山没有绑定过")
        bill_id = await player.issue(**{"金额（元）": "45.00"})
        assert "/p/h1." in await player.paper(bill_id)
        await player.scan_with(2)
        await player.guide_says("手机尾号 0005")
        await phone.web.get_by_role("checkbox").check(timeout=WAIT)
        assert await phone.web.get_by_text("45.00").count() == 0
        await phone.web.get_by_role("button", name="同意并继续").click()
        await phone.web.locator("[name=factor]").fill("0005")
        await phone.web.get_by_role("button", name="核对并查看").click()
        await phone.web.get_by_role("button", name="确认缴费 ¥45.00").click(timeout=WAIT)
        await player.guide_says("任意六位数字")
        await phone.pay(how="notice_late")
        await phone.web.get_by_text("缴费成功").first.wait_for(timeout=WAIT)
        await player.guide_says("三本账一致")
        row = await player.newest_row()
        assert row == {"verdict": "agree", "his": "¥45.00", "wechatpay": "¥45.00", "ours": "¥45.00"}

        await player.begin_story("paper")
        await player.guide_says("何佩玲没有绑定过")


async def test_a_patient_binds_by_a_code_that_comes_as_a_text_message(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as player:
        phone = player.phone(2)
        await phone.hand_to("赵国强")
        await phone.root.locator("summary", has_text="资料").click()
        identity = await phone.root.locator("[data-who] dd").all_inner_texts()
        await phone.root.locator("summary", has_text="资料").click()
        await phone.open_chat()
        await phone.press_menu("更多", "绑定就诊人")
        await phone.web.get_by_role("link", name="绑定就诊人").click(timeout=WAIT)
        for label, value in zip(("就诊人姓名", "证件号码", "在医院登记的手机号"), identity, strict=True):
            await phone.web.get_by_label(label).fill(value)
        await phone.web.get_by_role("checkbox").check()
        await phone.web.get_by_role("button", name="发送验证码").click()
        banner = phone.root.locator(".banner", has_text="验证码")
        await banner.wait_for(timeout=WAIT)
        code = re.search(r"验证码(\d{6})", await banner.inner_text())
        assert code is not None
        await phone.web.locator("[name=code]").fill(code[1])
        await phone.web.locator("main form button").first.click()
        await phone.web.get_by_text("赵*强").first.wait_for(timeout=WAIT)


async def test_a_barcode_is_scanned_in_the_page_where_the_hospital_prints_no_address(
    browser: Browser, address: str
) -> None:
    async with visit(browser, address, DESKTOP) as player:
        page, phone = player.page, player.phone(2)
        await page.get_by_text("纸上的码怎么来").click()
        await page.get_by_label("纸上的码", exact=True).select_option("barcode")
        await page.get_by_text("已改").wait_for(timeout=WAIT)
        bill_id = await player.issue("林志成")
        await phone.hand_to("王丽")
        assert await player.paper(bill_id) == bill_id
        await phone.open_chat()
        await phone.press_menu("更多", "扫处方")
        await phone.web.get_by_role("button", name="扫一扫").click(timeout=WAIT)
        await phone.scan(bill_id)
        await phone.web.get_by_text("林*成").wait_for(timeout=WAIT)
        await page.get_by_label("纸上的码", exact=True).select_option("his_makes")
        await page.locator(f'[data-paper="{bill_id}"][data-content^="http"]').wait_for(timeout=WAIT)


async def test_of_two_bills_paid_together_the_hospital_refuses_one(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as player:
        page, phone = player.page, player.phone(1)
        await player.begin_story("refused")
        await player.guide_says("第一张")
        await player.issue(**{"金额（元）": "10.00"})
        await player.guide_says("第二张")
        await player.issue(kind="检查检验", **{"金额（元）": "20.00"})
        await page.get_by_text("开着 1 个故障").wait_for(timeout=WAIT)
        await phone.go_home()
        await phone.root.locator('[data-row="mini"]').click()
        for amount in ("10.00元", "20.00元"):
            await phone.root.get_by_role("checkbox", name=amount).check(timeout=WAIT)
        await phone.root.get_by_role("button", name="合并支付").click()
        await phone.pay()
        await player.guide_says("正在原路退回")
        await page.get_by_role("button", name="+10 分钟").click()
        await player.guide_says("已原路退回")
        row = await player.newest_row()
        assert row["verdict"] == "agree"
        assert row["his"] == row["wechatpay"] == row["ours"]
        assert row["ours"] in {"¥10.00", "¥20.00"}
        await page.locator('#books tbody [data-book="ours"]').first.get_by_text("部分已退款").wait_for(timeout=WAIT)
