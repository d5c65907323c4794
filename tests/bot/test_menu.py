"""The menu that is put into an official account, on the simulated platform with its own rules."""

from __future__ import annotations

import dataclasses

import pytest

from bot.wechat.menu import BILLS_PAGE, Menu, as_text, buttons
from core.chat_texts import ChatLinks
from core.errors import ConfigurationError
from core.ports import ChatAccount
from tests.support.wechat import WechatOfTests

LINKS = ChatLinks("https://pay.hospital.test/h/renhe")


@pytest.fixture
def world() -> WechatOfTests:
    return WechatOfTests()


def an_account(world: WechatOfTests, **params: str) -> ChatAccount:
    return world.account(world.official, **({"connection": "own"} | params))


def the_menu(world: WechatOfTests) -> Menu:
    return Menu(world.wire(world.transport()).tokens)


async def test_a_menu_is_published_shown_and_removed(world: WechatOfTests) -> None:
    account, menu = an_account(world), the_menu(world)
    assert await menu.show(account) == []
    wanted = buttons(account, LINKS, scans=True)
    await menu.publish(account, wanted, replace=False)
    await menu.publish(account, wanted, replace=False)
    assert as_text(await menu.show(account)) == "\n".join(
        (
            "缴费 → view https://pay.hospital.test/h/renhe/",
            "查询 → click zhenfu.paid",
            "更多",
            "  绑定就诊人 → view https://pay.hospital.test/h/renhe/patients",
            "  扫处方 → view https://pay.hospital.test/h/renhe/scan",
            "  人工 → click zhenfu.staff",
        )
    )
    await menu.remove(account, wanted, replace=False)
    assert as_text(await menu.show(account)) == "no menu"
    await menu.remove(account, wanted, replace=False)


async def test_the_mini_program_opens_where_there_is_one(world: WechatOfTests) -> None:
    account, menu = an_account(world, miniprogram_app_id=world.mini.app_id), the_menu(world)
    assert world.mini.pages is not None
    world.mini.pages.add(BILLS_PAGE)
    await menu.publish(account, buttons(account, LINKS, scans=False), replace=False)
    pay = (await menu.show(account))[0]
    assert (pay["type"], pay["appid"], pay["pagepath"]) == ("miniprogram", world.mini.app_id, BILLS_PAGE)
    assert pay["url"] == LINKS.bills()


def test_where_nobody_answers_every_button_opens_a_page(world: WechatOfTests) -> None:
    text = as_text(buttons(an_account(world, connection="none"), LINKS, scans=False))
    assert "click" not in text
    assert "/paid" in text
    assert "人工" not in text
    assert "/scan" not in text


async def test_somebody_elses_buttons_are_not_taken_away_unasked(world: WechatOfTests) -> None:
    account, menu = an_account(world), the_menu(world)
    await menu.publish(account, [{"type": "view", "name": "挂号", "url": "https://other.test/"}], replace=False)
    wanted = buttons(account, LINKS, scans=True)
    with pytest.raises(ConfigurationError, match="挂号"):
        await menu.publish(account, wanted, replace=False)
    with pytest.raises(ConfigurationError, match="挂号"):
        await menu.remove(account, wanted, replace=False)
    assert "挂号" in as_text(await menu.show(account))
    await menu.publish(account, wanted, replace=True)
    assert "挂号" not in as_text(await menu.show(account))
    await menu.publish(account, [{"type": "view", "name": "挂号", "url": "https://other.test/"}], replace=True)
    await menu.remove(account, wanted, replace=True)
    assert await menu.show(account) == []


@pytest.mark.parametrize("name", ["六个汉字太长", "x" * 17])
def test_a_name_that_is_too_long_is_refused_before_it_is_sent(world: WechatOfTests, name: str) -> None:
    with pytest.raises(ConfigurationError, match="16 are allowed"):
        buttons(an_account(world, menu_pay_name=name), LINKS, scans=True)
    fits = buttons(an_account(world, menu_pay_name="五个汉字名"), LINKS, scans=True)
    assert fits[0]["name"] == "五个汉字名"


def test_an_address_that_is_too_long_is_refused(world: WechatOfTests) -> None:
    long = dataclasses.replace(LINKS, base="https://a.test/" + "x" * 1100)
    with pytest.raises(ConfigurationError, match="too long"):
        buttons(an_account(world), long, scans=True)
