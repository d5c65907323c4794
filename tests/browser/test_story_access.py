"""A paper paid without a finger on the screen, and opened where no script runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.page_texts import page_text
from tests.support.chromium import PHONE
from tests.support.page_checks import LOOKS, Album, Look
from tests.support.patient_phone import Hospital, PatientPhone, a_phone
from tests.support.sandbox_page import WAIT

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ZH, ZH_CARE, EN, EN_CARE = LOOKS
GUIDE = "请到门诊楼1楼西药房3号窗口取药"
TABS_MAX = 30

FOCUSED = """
() => {
  const focused = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(focused);
  return {
    says: (focused.labels?.[0] ?? focused).innerText ?? "",
    name: focused.name ?? "",
    seen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
  };
}
"""


async def tab_to(phone: PatientPhone, says: str = "", *, name: str = "") -> None:
    """Press Tab until the focus is on the control that says this, or has this name; it is seen there."""
    await phone.frame.wait_for_load_state("load")
    await phone.frame.evaluate("() => window.focus()")
    for _ in range(TABS_MAX):
        await phone.page.keyboard.press("Tab")
        focused = await phone.frame.evaluate(FOCUSED)
        if says in focused["says"] and name in (focused["name"], ""):
            assert focused["seen"], focused
            return
    raise AssertionError(f"the Tab key does not reach {says or name}")


async def test_a_paper_is_paid_by_keyboard_alone(browser: Browser, hospital: Hospital) -> None:
    bill_id = await hospital.issue("陈静", "27.00")
    async with a_phone(browser, hospital, 1, "李大山", Album(story="keyboard", look=ZH)) as phone:
        press = phone.page.keyboard.press
        await phone.scan_paper(bill_id)
        await phone.reads(phone.t("consent_title"))
        await tab_to(phone, phone.t("consent_box"))
        await press("Space")
        assert await phone.web.get_by_role("checkbox").is_checked()
        await phone.step("agreed")
        await tab_to(phone, phone.t("consent_button"))
        await press("Enter")
        await phone.reads(phone.t("factor_title"))
        await tab_to(phone, name="factor")
        await phone.page.keyboard.type("0002")
        await phone.step("factor")
        await press("Enter")
        await phone.reads(phone.t("pay_check"))
        await tab_to(phone, phone.t("pay_button", amount="27.00"))
        await phone.step("pay-button")
        await press("Space")
        await phone.sheet.wait_for(timeout=WAIT)
        await phone.page.keyboard.type("246810")
        await phone.root.get_by_role("dialog", name="支付成功").wait_for(timeout=WAIT)
        await press("Enter")
        await phone.reads(GUIDE)
        await phone.step("paid")
        await tab_to(phone, phone.t("tab_unpaid"))
        await press("Enter")
        await phone.reads(phone.t("no_patient"))


@pytest.mark.parametrize("look", [ZH_CARE, EN], ids=str)
async def test_without_scripts_all_works_up_to_the_pay_sheet(browser: Browser, hospital: Hospital, look: Look) -> None:
    """The in-app browser on its own, scripts switched off: forms and links do it all, and the end says what to do."""
    payer = "林志成" if look == ZH_CARE else "ANNA EXAMPLE"

    def t(key: str, **values: str | int) -> str:
        return page_text(key, look.language, **values)

    path = await hospital.paper(await hospital.issue("赵国强", "31.00"))
    await hospital.act("phone/hand", number=2, person=await hospital.person(payer))
    port = (await hospital.world())["browser_ports"][1]
    page = await browser.new_page(**PHONE, java_script_enabled=False)
    album = Album(story="no-scripts", look=look)
    await page.goto(f"http://127.0.0.1:{port}{path}")
    if look.care:
        await page.get_by_role("button", name=t("care_on")).click()
    await page.get_by_role("checkbox").check()
    await album.keep(page, "consent")
    await page.get_by_role("button", name=t("consent_button")).click()
    await page.locator('input[name="factor"]').fill("9999")
    await page.get_by_role("button", name=t("factor_button")).click()
    await page.get_by_role("alert").wait_for(timeout=WAIT)
    await page.locator('input[name="factor"]').fill("0004")
    await page.get_by_role("button", name=t("factor_button")).click()
    await page.get_by_text(t("pay_check")).wait_for(timeout=WAIT)
    await album.keep(page, "bill")
    await page.get_by_role("button", name=t("pay_button", amount="31.00")).click()
    said = page.locator("#sheet noscript p")  # its text is not found by its words
    await said.wait_for(timeout=WAIT)
    assert await said.inner_text() == t("sheet_no_script")
    assert not await page.locator("#sheet-button").is_visible()
    await album.keep(page, "no-sheet")
    await page.get_by_role("button", name=t("cancel_button")).click()
    await page.get_by_text(t("not_paid_text")).wait_for(timeout=WAIT)
    await album.keep(page, "cancelled")
    await page.close()
