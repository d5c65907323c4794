"""Several bills in one payment, on a patient's phone: from the chat, from the list, and one of them refused."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from core.chat_texts import chat_text
from core.texts import STATUS_TEXTS
from tests.browser.test_story_every_page import a_gallery
from tests.miniprogram_api.phone import change_settings
from tests.support.chromium import DESKTOP
from tests.support.house import PUBLIC_URL
from tests.support.page_checks import LOOKS, Album, Look, findings
from tests.support.patient_phone import Hospital, a_phone
from tests.support.sandbox_page import WAIT

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from runtime.embedded_postgres import EmbeddedPostgres

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ZH, ZH_CARE, EN, EN_CARE = LOOKS
HOME = "/h/renhe/"


async def test_the_chat_leads_to_all_bills_and_one_of_them_is_refused(browser: Browser, hospital: Hospital) -> None:
    async with a_phone(browser, hospital, 1, "王秀兰", Album(story="merged", look=ZH)) as phone:
        while not hospital.bindings():
            await phone.page.wait_for_timeout(100)
        bills = [await hospital.issue("王秀兰", amount) for amount in ("45.00", "12.30")]
        answer = await phone.ask("缴费", has_text="可一起缴")
        assert re.search(r"王\*兰 \d+张可一起缴", await answer.inner_text())
        await phone.tap_link(chat_text("pay_together", "zh"))
        await phone.reads("为 王*兰 缴费")
        await phone.step("all-bills")
        await phone.press(phone.t("to_bills"))
        await phone.reads(phone.t("together_title"))
        for amount in ("¥45.00", "¥12.30"):
            await phone.web.get_by_role("checkbox", name=amount).check(timeout=WAIT)
        await phone.step("ticked")
        await phone.press(phone.t("together_chosen"))
        await phone.reads(phone.t("together_sum", count=2))
        await phone.step("looked-through")
        await hospital.act("faults", name="hospital.refuses_confirm", mode="once")
        await phone.tap_pay("57.30")
        await phone.pay()
        await phone.web.get_by_text("部分已缴费").first.wait_for(timeout=WAIT)
        await phone.step("one-refused")
        for bill_id in bills:
            (row,) = await hospital.orders(bill_id)
            assert row["wechatpay"]["fen"] in {5730, 5730 - 4500, 5730 - 1230}
        await phone.press(phone.t("to_paid"))
        await phone.web.locator(".zf-done", has_text="账单已被取消").wait_for(timeout=WAIT)
        await phone.step("paid-list")


@pytest.mark.parametrize("look", [ZH_CARE, EN], ids=str)
async def test_the_pages_of_several_bills_in_every_state(
    postgres: EmbeddedPostgres, browser: Browser, look: Look
) -> None:
    async with a_gallery(postgres, browser, look, "merged") as it:
        house = it.house
        await change_settings(house, merge=True, insured_online="second_tap")
        web = await it.person()
        await web.get(HOME)
        patient = await house.bound(await web.payer())
        kept, lost = house.bill(total_fen=1000), house.bill(total_fen=250, kind="treatment")
        await it.see("list-all-together", await web.get(HOME))
        house.bill(total_fen=99, merge_group="")
        insured = [house.bill(total_fen=fen, insured=True) for fen in (300, 301)]
        await it.see("list-in-groups", await web.get(f"{HOME}?patient={patient}&chosen=none"))
        both = await web.get(f"{HOME}together/{patient}?bill=-/{kept}&bill=-/{lost}")
        await it.see("looked-through", both)
        await it.see("insured", await web.get(f"{HOME}together/{patient}?bill=-/{insured[0]}&bill=-/{insured[1]}"))
        paying = await web.begins(both)
        assert web.confirms(paying) == "paid"
        house.his.cancel(lost, force=True)
        path = paying.path.partition("?")[0]
        house.faults.rate("wechatpay.refund_slow", 1.0)
        await house.settle(within=timedelta(seconds=10))
        page = await it.see("one-going-back", await web.get(path))
        assert STATUS_TEXTS["part_returning"][look.language] in page.text
        house.faults.clear()
        await house.settle()
        page = await it.see("one-returned", await web.get(path))
        assert STATUS_TEXTS["part_returned"][look.language] in page.text
        await it.see("some-cannot", await web.get(f"{HOME}together/{patient}?bill=-/{kept}&bill=-/{lost}"))
        wide = await browser.new_page(**DESKTOP)
        await wide.route("**/*", it.answer)
        for name, address in (("list", HOME), ("together", f"{HOME}together/{patient}?bill=-/{insured[0]}")):
            it.shown = await web.get(address)
            await wide.goto(f"{PUBLIC_URL}/")
            await it.album.keep(wide, f"{name}-wide")
            assert await findings(wide) == []
        assert it.wrong == {}
