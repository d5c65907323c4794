"""What the chat says when not everybody answers, and when not all fits."""

from __future__ import annotations

from uuid import uuid4

import pytest

from core.chat_texts import ChatLinks, ChatQuestion, OwedBill, fit_lines, owed_text
from core.money import Fen
from tests.support.house import ELDER, LABOURER, House

LINKS = ChatLinks("https://zhenfu.test/h/renhe")


def owed(amount_fen: int, *, payable: bool = True) -> OwedBill:
    return OwedBill(masked_name="王*兰", amount_fen=Fen(amount_fen), url=LINKS.bill(uuid4(), "", "B1"), payable=payable)


def test_a_bill_for_the_window_says_so() -> None:
    text = owed_text([owed(100), owed(200, payable=False)], LINKS, "zh")
    first, second = text.splitlines()[1:3]
    assert "去缴费" in first
    assert "请到窗口" not in first
    assert "请到窗口" in second
    assert "去缴费" not in second


def test_what_is_cut_is_never_the_way_to_all() -> None:
    text = owed_text([owed(number) for number in range(1, 7)], LINKS, "zh")
    cut = fit_lines(text, 400)
    assert len(cut.encode()) <= 400
    assert cut.splitlines()[0] == text.splitlines()[0]
    assert cut.splitlines()[-1] == text.splitlines()[-1]
    assert cut.count("<a href") == cut.count("</a>")
    assert fit_lines(text, 10_000) == text


async def test_one_silent_patient_hides_nobody_else(house: House) -> None:
    payer = await house.payer()
    await house.bound(payer)
    await house.bound(payer, LABOURER)
    house.bill(ELDER, total_fen=1234)
    house.bill(LABOURER, total_fen=5678)
    house.faults.script("hospital.not_reached", key=LABOURER)
    text = await house.services.answers.text(payer, ChatQuestion.OWED)
    assert "12.34" in text
    assert "56.78" not in text
    assert "有就诊人的账单暂时查不到" in text
    assert "没有待缴费" not in text


async def test_when_nobody_is_told_nothing_is_said_of_owing_nothing(house: House) -> None:
    payer = await house.payer()
    await house.bound(payer)
    house.faults.script("hospital.not_reached", key=ELDER)
    text = await house.services.answers.text(payer, ChatQuestion.OWED)
    assert "医院系统暂时没有回应" in text
    assert "没有待缴费" not in text


async def test_bills_that_go_together_have_a_link_of_their_own(tortoise: None) -> None:
    house = await House.build(settings={"merge": True})
    payer = await house.payer()
    patient = await house.bound(payer)
    house.bill(total_fen=1000)
    assert "可一起缴" not in await house.services.answers.text(payer, ChatQuestion.OWED)
    house.bill(total_fen=250)
    house.bill(total_fen=99, merge_group="")
    text = await house.services.answers.text(payer, ChatQuestion.OWED)
    assert text.splitlines()[0] == "您有3张待缴费账单，共¥13.49："
    assert text.splitlines()[1] == (
        f'王*兰 2张可一起缴 ¥12.50 <a href="http://house.test/h/renhe/together/{patient}?all=1">一起缴费</a>'
    )


@pytest.fixture
async def house(tortoise: None) -> House:
    return await House.build()
