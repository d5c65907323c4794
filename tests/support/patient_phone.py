"""A patient's phone that fills the screen, at the whole sandbox: steps are looked at and kept as pictures."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psycopg
from playwright.async_api import TimeoutError as NotSeen

from core.page_texts import page_text
from runtime.embedded_postgres import APP_ROLE
from runtime.sandbox import DATABASE
from tests.support.chromium import PHONE
from tests.support.page_checks import Album, Look, findings
from tests.support.sandbox_page import WAIT, PhoneOnPage

if TYPE_CHECKING:
    from playwright.async_api import Browser, Frame, Locator, Route

ASKED_AGAIN = 2
ANSWER_WAIT = 20_000  # milliseconds

STATE = re.compile(r"/payments/[^/]+/state$")


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """A running sandbox from behind its desk."""

    address: str  # of its page, without a slash
    folder: Path  # the sandbox's

    async def act(self, path: str, **asked: Any) -> dict[str, Any]:
        async with aiohttp.ClientSession() as http, http.post(f"{self.address}/api/{path}", json=asked) as answer:
            said: dict[str, Any] = await answer.json()
            assert answer.status == 200, said
            return said

    async def look(self, path: str, **asked: str) -> dict[str, Any]:
        async with aiohttp.ClientSession() as http, http.get(f"{self.address}/api/{path}", params=asked) as answer:
            said: dict[str, Any] = await answer.json()
            assert answer.status == 200, said
            return said

    async def world(self) -> dict[str, Any]:
        """What the page's scripts know: people, addresses, ports."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.address}/phone/1") as answer:
            found = re.search(r'id="world">(.*?)</script>', await answer.text(), re.DOTALL)
        assert found
        world: dict[str, Any] = json.loads(found[1])
        return world

    async def person(self, name: str) -> str:
        """Their key on the page."""
        return next(str(each["key"]) for each in (await self.world())["people"] if each["name"] == name)

    async def issue(self, name: str, amount: str, *, kind: str = "western") -> str:
        """The doctor writes a bill; its number."""
        said = await self.act("desk/issue", person=await self.person(name), kind=kind, amount=amount)
        return str(said["bill_id"])

    async def paper(self, bill_id: str) -> str:
        """The path behind the code on this bill's paper."""
        papers = (await self.look("papers"))["papers"]
        content = next(str(paper["content"]) for paper in papers if paper["bill_id"] == bill_id)
        return content.removeprefix(str((await self.world())["product_url"]))

    async def until(self, bill_id: str, said: str) -> None:
        """Return once the three books say this of an order of the bill."""
        while not any(said in str(row["said"]) for row in await self.orders(bill_id)):
            await asyncio.sleep(0.2)

    async def orders(self, bill_id: str) -> list[dict[str, Any]]:
        """Every order of this bill that took money, with what each of the three books says."""
        rows = (await self.look("state", person=await self.person("王秀兰")))["rows"]
        return [row for row in rows if bill_id in json.dumps(row, ensure_ascii=False)]

    def change(self, **settings: Any) -> None:
        """The hospital decides something else for itself."""
        port = (self.folder / "postgres" / "port").read_text()
        with psycopg.connect(f"postgres://{APP_ROLE}@127.0.0.1:{port}/{DATABASE}", autocommit=True) as connection:
            connection.execute("UPDATE institution SET settings = settings || %s::jsonb", [json.dumps(settings)])

    def bindings(self) -> int:
        port = (self.folder / "postgres" / "port").read_text()
        with psycopg.connect(f"postgres://{APP_ROLE}@127.0.0.1:{port}/{DATABASE}") as connection:
            row = connection.execute("SELECT count(*) FROM binding").fetchone()
        assert row is not None
        return int(row[0])


@dataclass
class PatientPhone(PhoneOnPage):
    """One phone alone, at 390 × 844."""

    hospital: Hospital
    album: Album
    language: str = "zh"
    care: bool = False
    wrong: list[str] = field(default_factory=list)

    @property
    def frame(self) -> Frame:
        found = self.page.frame(name=f"web-{self.number}")
        assert found is not None, "no page is open on this phone"
        return found

    def t(self, key: str, **values: str | int) -> str:
        """A page's sentence in the language in which this phone shows it."""
        return page_text(key, self.language, **values)

    # ------------------------------------------------------------ WeChat

    async def scan_paper(self, bill_id: str) -> None:
        """WeChat's own scanner over this bill's paper on the desk."""
        await self.go_home()
        await self.root.get_by_role("button", name="扫一扫").click()
        await self.scan(bill_id)

    async def bind_in_mini(self) -> None:
        await self.go_home()
        await self.root.locator('[data-row="mini"]').click()
        await self.root.get_by_role("button", name="绑定", exact=True).click(timeout=WAIT)
        await self.root.get_by_role("tab", name="待缴费").wait_for(timeout=WAIT)
        await self.go_home()

    async def ask(self, text: str, *, has_text: str) -> Locator:
        """Write it, and once more when nothing comes back: the platform itself may have given up."""
        await self.open_chat()
        for _ in range(ASKED_AGAIN):
            await self.say(text)
            with suppress(NotSeen):
                await self.root.locator(".bubble-row.theirs", has_text=has_text).last.wait_for(timeout=ANSWER_WAIT)
                break
        return await self.last_answer(has_text=has_text)

    # ------------------------------------------------------------ the page that is open

    async def reads(self, text: str) -> None:
        await self.web.get_by_text(text).first.wait_for(timeout=WAIT)

    async def press(self, text: str) -> None:
        """A button, or a link that looks like one."""
        await self.web.locator("a, button, summary").filter(has_text=text).first.click(timeout=WAIT)

    async def wear(self, look: Look) -> None:
        """Choose this look by the buttons at the head of the page that is open."""
        await self.web.locator("body.zf").wait_for(timeout=WAIT)
        shown = await self.web.locator("html").get_attribute("lang")
        if (shown == "en") is not (look.language == "en"):
            await self.press(page_text("language_other", "en" if shown == "en" else "zh"))
            await self.web.locator(f'html[lang^="{look.language}"]').wait_for(timeout=WAIT)
        self.language = look.language
        if bool(await self.web.locator("body.zf-care").count()) is not look.care:
            await self.press(self.t("care_on" if look.care else "care_off"))
            await self.web.locator("body.zf-care" if look.care else "body.zf:not(.zf-care)").wait_for(timeout=WAIT)

    async def agree(self) -> None:
        await self.web.get_by_role("checkbox").check(timeout=WAIT)
        await self.press(self.t("consent_button"))

    async def answer_factor(self, characters: str) -> None:
        await self.web.locator('input[name="factor"]').fill(characters, timeout=WAIT)
        await self.press(self.t("factor_button"))

    async def tap_pay(self, amount: str) -> None:
        """The button of the bill that is open; the pay sheet comes."""
        await self.press(self.t("pay_button", amount=amount))
        await self.sheet.wait_for(timeout=WAIT)

    # ------------------------------------------------------------ looking

    async def step(self, name: str) -> None:
        """A picture of the screen, and the page on it looked at; a page that waits does not go on meanwhile."""
        await self.page.route(STATE, _never)
        if await self.root.locator("[data-web]").is_visible():
            await self.frame.wait_for_load_state("load")
            self.wrong += [f"{name}: {found}" for found in await findings(self.frame)]
        await self.album.keep(self.page, name)
        await self.page.unroute(STATE)


async def _never(route: Route) -> None:
    await route.abort()


@asynccontextmanager
async def a_phone(
    browser: Browser, hospital: Hospital, number: int, person: str, album: Album
) -> AsyncIterator[PatientPhone]:
    """This phone in the hands of this person; fails afterwards for whatever was wrong with the pages of its steps."""
    page = await browser.new_page(**PHONE)
    page.set_default_timeout(WAIT)
    phone = PatientPhone(page, number, hospital, album)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await hospital.act("phone/hand", number=number, person=await hospital.person(person))
    await page.goto(f"{hospital.address}/phone/{number}")
    await phone.root.locator("[data-phone-owner]", has_text=f"{person}的手机").wait_for(timeout=WAIT)
    try:
        yield phone
    except Exception:
        await album.keep(page, "failed")
        raise
    assert phone.wrong == []
    assert errors == []
    await page.close()
