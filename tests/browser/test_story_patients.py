"""Patients on their phones, from the chat or a paper to the receipt, in the languages and sizes in which they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.chat_texts import chat_text
from core.texts import STATUS_TEXTS
from tests.support.chromium import PHONE
from tests.support.page_checks import LOOKS, Album, Look, findings
from tests.support.patient_phone import Hospital, PatientPhone, a_phone
from tests.support.sandbox_page import WAIT

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ZH, ZH_CARE, EN, EN_CARE = LOOKS
WESTERN_GUIDE = "请到门诊楼1楼西药房3号窗口取药"
HERBAL_GUIDE = "中药房2号窗口"


async def open_paper(phone: PatientPhone, bill_id: str, look: Look, factor: str = "") -> None:
    """Scanned, read, agreed to, and opened by what the hospital knows of the patient."""
    await phone.scan_paper(bill_id)
    await phone.wear(look)
    await phone.reads(phone.t("consent_title"))
    await phone.step("consent")
    await phone.agree()
    if factor:
        await phone.reads(phone.t("factor_title"))
        await phone.step("factor")
        await phone.answer_factor(factor)
    await phone.reads(phone.t("pay_check"))
    await phone.step("bill")


async def pay_paper(phone: PatientPhone, amount: str, guide: str = WESTERN_GUIDE) -> None:
    """The tap, the sheet, and the end of it."""
    await phone.tap_pay(amount)
    await phone.step("sheet")
    await phone.pay()
    await phone.reads(guide)
    await phone.reads(phone.t("receipt_no"))
    await phone.step("paid")


# ---------------------------------------------------------------- registered, in the chat


@pytest.mark.parametrize("look", [ZH, EN_CARE], ids=str)
async def test_asked_in_the_chat_paid_and_told(browser: Browser, hospital: Hospital, look: Look) -> None:
    """The elder writes 缴费, taps the link, pays, waits for the hospital, and sees where to go."""
    album = Album(story="chat", look=look)
    async with a_phone(browser, hospital, 1, "王秀兰", album) as phone:
        while not hospital.bindings():
            await phone.page.wait_for_timeout(100)
        amount = "86.50" if look == ZH else "12.80"
        bill_id = await hospital.issue("王秀兰", amount)
        await hospital.act("faults", name="hospital.books_slowly", mode="once")
        await phone.ask("缴费", has_text=f"¥{amount}")
        await phone.step("asked")
        await phone.tap_link(chat_text("pay", "zh"))
        await phone.wear(look)
        await phone.reads(phone.t("pay_check"))
        await phone.step("bill")
        await phone.tap_pay(amount)
        assert amount in await phone.sheet.locator(".sheet-amount").inner_text()
        await phone.step("sheet")
        await phone.pay()
        await phone.reads(STATUS_TEXTS["confirming"][look.language])
        await phone.step("confirming")
        await hospital.act("clock", minutes=1)
        await phone.reads(WESTERN_GUIDE)
        await phone.reads(phone.t("paid_just_now"))
        await phone.step("paid")
        await phone.open_chat()
        await phone.root.locator(".message-card", has_text=WESTERN_GUIDE).last.wait_for(timeout=WAIT)
        await phone.step("told")
        await phone.ask("查询", has_text=f"¥{amount}")
        await phone.tap_link(chat_text("all_paid", "zh"))
        await phone.reads(WESTERN_GUIDE)
        await phone.step("paid-list")
        (row,) = await hospital.orders(bill_id)
        assert row["verdict"] == "agree"


# ---------------------------------------------------------------- a paper


async def test_a_paper_and_the_last_four_of_the_phone(browser: Browser, hospital: Hospital) -> None:
    bill_id = await hospital.issue("陈静", "19.50")
    async with a_phone(browser, hospital, 2, "李大山", Album(story="paper-phone", look=ZH_CARE)) as phone:
        await open_paper(phone, bill_id, ZH_CARE, "0002")
        await pay_paper(phone, "19.50")


async def test_a_paper_and_a_document_that_ends_in_a_letter(browser: Browser, hospital: Hospital) -> None:
    bill_id = await hospital.issue("赵国强", "28.99")
    tail = next(each["identifier"] for each in (await hospital.world())["people"] if each["name"] == "赵国强")[-4:]
    assert tail.endswith("X")
    async with a_phone(browser, hospital, 2, "MARTIN EXAMPLE", Album(story="paper-letter", look=EN)) as phone:
        await open_paper(phone, bill_id, EN, tail.lower())
        await pay_paper(phone, "28.99")


async def test_a_paper_alone_is_enough_except_in_a_sensitive_department(browser: Browser, hospital: Hospital) -> None:
    await hospital.act("desk/paper", factor="none")
    hospital.change(sensitive_departments=["中医科门诊"])
    try:
        plain = await hospital.issue("何佩玲", "14.33")
        sensitive = await hospital.issue("何佩玲", "9.90", kind="chinese")
        async with a_phone(browser, hospital, 2, "周小明", Album(story="paper-alone", look=EN_CARE)) as phone:
            await open_paper(phone, plain, EN_CARE)
            await pay_paper(phone, "14.33")
            await phone.scan_paper(sensitive)
            await phone.reads(phone.t("factor_title"))
            await phone.step("sensitive")
            await phone.answer_factor("0008")
            await phone.reads(phone.t("pay_check"))
            await pay_paper(phone, "9.90", HERBAL_GUIDE)
    finally:
        hospital.change(sensitive_departments=[])
        await hospital.act("desk/paper", factor="last_four")


# ---------------------------------------------------------------- outside


@pytest.mark.parametrize("path", ["paper", "unknown"])
async def test_opened_outside_wechat_or_with_an_unknown_code(browser: Browser, hospital: Hospital, path: str) -> None:
    """An ordinary browser: where to open it; a code that is none of ours: a page that says so."""
    product = str((await hospital.world())["product_url"])
    address = await hospital.paper(await hospital.issue("林志成", "20")) if path == "paper" else "/p/unknown"
    for look in LOOKS:
        page = await browser.new_page(**{**PHONE, "locale": "zh-CN" if look.language == "zh" else "en-GB"})
        cookie = {"name": "zhenfu_care", "value": "on" if look.care else "off", "url": product}
        await page.context.add_cookies([cookie])  # type: ignore[list-item]
        await page.goto(product + address)
        said = {
            "paper": {"zh": "请用微信打开", "en": "Please open this in WeChat"},
            "unknown": {"zh": "没有找到", "en": "Not found"},
        }[path][look.language]
        assert said in await page.get_by_role("heading").first.inner_text()
        assert await page.locator(".zf-qr svg").count() == (1 if path == "paper" else 0)
        await Album(story=f"outside-{path}", look=look).keep(page, "opened")
        assert await findings(page) == []
        await page.close()
