"""Patients whose day goes wrong: locked out, on two phones, paying twice, refused, or changing their mind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from core.chat_texts import chat_text
from core.page_texts import PAGE
from core.texts import STATUS_TEXTS
from tests.support.page_checks import LOOKS, Album, Look
from tests.support.patient_phone import Hospital, PatientPhone, a_phone
from tests.support.sandbox_page import WAIT

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ZH, ZH_CARE, EN, EN_CARE = LOOKS
GUIDE = "请到门诊楼1楼西药房3号窗口取药"


async def open_paper(phone: PatientPhone, bill_id: str, look: Look, factor: str) -> None:
    await phone.scan_paper(bill_id)
    await phone.wear(look)
    await phone.reads(phone.t("consent_title"))
    await phone.agree()
    await phone.answer_factor(factor)
    await phone.reads(phone.t("pay_check"))


async def test_a_stranger_guesses_and_the_bound_patient_still_opens_it(browser: Browser, hospital: Hospital) -> None:
    bill_id = await hospital.issue("何佩玲", "33.00")
    album = Album(story="locked-out", look=ZH_CARE)
    async with (
        a_phone(browser, hospital, 2, "林志成", album) as stranger,
        a_phone(browser, hospital, 1, "何佩玲", album) as patient,
    ):
        await patient.bind_in_mini()
        await stranger.scan_paper(bill_id)
        await stranger.wear(ZH_CARE)
        await stranger.agree()
        for left in range(4, -1, -1):
            await stranger.answer_factor(f"999{left}")
            await stranger.reads(f"还可以再试{left}次")
            if left in (4, 0):
                await stranger.step(f"wrong-{left}-left")
        await stranger.answer_factor("9995")
        await stranger.reads(stranger.t("locked_title"))
        await stranger.step("locked")
        await patient.scan_paper(bill_id)
        await patient.wear(ZH_CARE)
        await patient.reads(patient.t("pay_check"))
        assert not await patient.web.locator('input[name="factor"]').count()
        await patient.step("patient-opens-it")


async def test_begun_on_one_phone_and_paid_on_another(browser: Browser, hospital: Hospital) -> None:
    """One person, two phones: the sheet closed, the page opened again, paid elsewhere; the books hold one payment."""
    bill_id = await hospital.issue("陈静", "21.00")
    album = Album(story="two-phones", look=EN)
    async with (
        a_phone(browser, hospital, 1, "李大山", album) as first,
        a_phone(browser, hospital, 2, "李大山", album) as second,
    ):
        await open_paper(first, bill_id, EN, "0002")
        await first.tap_pay("21.00")
        await first.pay(how="cancel")
        await first.reads(first.t("sheet_closed"))
        await first.step("sheet-closed")
        await first.scan_paper(bill_id)
        await first.reads(first.t("open_own_button"))
        await first.step("opened-again")
        await second.scan_paper(bill_id)
        await second.wear(EN)
        await second.reads(second.t("open_own_button"))
        await second.step("other-phone")
        await second.press(second.t("open_own_button"))
        await second.pay()
        await second.reads(GUIDE)
        await second.step("other-phone-paid")
        await first.scan_paper(bill_id)
        await first.reads(STATUS_TEXTS["paid"]["en"])
        assert not await first.web.get_by_text(first.t("open_own_button")).count()
        await first.step("first-phone-sees-it")
        (row,) = await hospital.orders(bill_id)
        assert (row["verdict"], row["ours"]["fen"]) == ("agree", 2100)


async def test_begun_on_the_page_and_taken_over_by_the_mini_program(browser: Browser, hospital: Hospital) -> None:
    bill_id = await hospital.issue("王秀兰", "45.00")
    async with a_phone(browser, hospital, 1, "王秀兰", Album(story="superseded", look=ZH)) as phone:
        while not hospital.bindings():
            await phone.page.wait_for_timeout(100)
        await phone.ask("缴费", has_text="¥45.00")
        await phone.tap_link(chat_text("pay", "zh"))
        await phone.tap_pay("45.00")
        await phone.step("sheet-on-the-page")
        await phone.pay(how="cancel")
        await phone.reads(phone.t("sheet_closed"))
        await phone.go_home()
        await phone.root.locator('[data-row="mini"]').click()
        await phone.to_pay_sheet()
        await phone.step("sheet-in-the-mini-program")
        await phone.pay()
        await phone.root.locator(f'[data-paid-bill="{bill_id}"]').get_by_text(GUIDE).wait_for(timeout=WAIT)
        await phone.scan_paper(bill_id)
        await phone.reads(STATUS_TEXTS["paid"]["zh"])
        assert not await phone.web.get_by_role("button", name=re.compile("确认缴费")).count()
        await phone.step("the-paper-says-paid")
        taken = [row for row in await hospital.orders(bill_id) if row["wechatpay"]["fen"]]
        assert [(row["verdict"], row["his"]["fen"], row["ours"]["fen"]) for row in taken] == [("agree", 4500, 4500)]


async def test_refused_by_the_hospital_and_the_money_comes_back(browser: Browser, hospital: Hospital) -> None:
    bill_id = await hospital.issue("赵国强", "52.00")
    album = Album(story="refused", look=EN_CARE)
    async with a_phone(browser, hospital, 2, "赵国强", album) as phone:
        await open_paper(phone, bill_id, EN_CARE, "0004")
        await hospital.act("faults", name="hospital.refuses_confirm", mode="once")
        await phone.tap_pay("52.00")
        await phone.pay()
        await phone.web.get_by_text("Not booked by the hospital").first.wait_for(timeout=WAIT)
        await phone.step("refused")
        await hospital.until(bill_id, "钱已原路退回")
        await phone.scan_paper(bill_id)
        await phone.reads(STATUS_TEXTS["returned"]["en"])
        await phone.reads("¥52.00")
        assert not await phone.web.get_by_text(PAGE["pay_check"]["en"]).count()
        await phone.step("scanned-again")
        await phone.go_home()
        await phone.open_chat()
        await phone.root.locator(".message-card", has_text="退").last.wait_for(timeout=WAIT)
        await phone.step("told")
        (row,) = await hospital.orders(bill_id)
        assert row["verdict"] == "agree"


@pytest.mark.parametrize("look", [ZH_CARE, EN], ids=str)
async def test_bound_by_a_text_message_and_taken_back_on_the_privacy_page(
    browser: Browser, hospital: Hospital, look: Look
) -> None:
    name, amount = ("周小明", "61.00") if look == ZH_CARE else ("ANNA EXAMPLE", "62.00")
    bill_id = await hospital.issue(name, amount)
    person = next(each for each in (await hospital.world())["people"] if each["name"] == name)
    async with a_phone(browser, hospital, 2, name, Album(story="withdrawn", look=look)) as phone:
        await phone.ask("缴费", has_text=chat_text("not_bound", "zh"))
        await phone.step("not-bound")
        await phone.tap_link(chat_text("bind", "zh"))
        await phone.wear(look)
        await phone.step("bind")
        await phone.web.locator('[name="name"]').fill(person["name"])
        await phone.web.locator('[name="document"]').select_option(person["identifier_type"])
        await phone.web.locator('[name="number"]').fill(person["identifier"])
        await phone.web.locator('[name="phone"]').fill(person["phone"])
        await phone.web.get_by_role("checkbox").check()
        await phone.press(phone.t("bind_next"))
        await phone.reads(phone.t("bind_code_title"))
        await phone.step("code")
        await phone.web.locator('[name="code"]').fill(await code_on(hospital, phone, person["key"]))
        await phone.press(phone.t("bind_submit"))
        await phone.reads(f"¥{amount}")
        await phone.step("list")
        await phone.scan_paper(bill_id)
        await phone.reads(phone.t("pay_check"))
        await phone.press(phone.t("privacy"))
        await phone.reads(phone.t("privacy_given"))
        await phone.press(phone.t("withdraw"))
        await phone.step("withdraw")
        await phone.press(phone.t("withdraw_confirm"))
        await phone.reads(phone.t("withdrawn"))
        await phone.step("withdrawn")
        await phone.scan_paper(bill_id)
        await phone.reads(phone.t("consent_title"))
        assert not await phone.web.get_by_text(f"¥{amount}").count()
        await phone.step("paper-closed")
        await phone.open_chat()
        answers = await phone.root.locator(".bubble-row.theirs", has_text=chat_text("not_bound", "zh")).count()
        await phone.say("缴费")
        await (
            phone.root.locator(".bubble-row.theirs", has_text=chat_text("not_bound", "zh"))
            .nth(answers)
            .wait_for(timeout=WAIT)
        )
        await phone.step("chat-not-bound")


async def code_on(hospital: Hospital, phone: PatientPhone, person: str) -> str:
    """The six digits of the newest text message, once it is there."""
    while True:
        texts = (await hospital.look("state", person=person))["phones"][phone.number - 1]["texts"]
        found = re.findall(r"\d{6}", texts[-1]["text"]) if texts else []
        if found:
            return str(found[0])
        await phone.page.wait_for_timeout(200)
