"""The sandbox page in a real browser, for stories: its desk, its two phones, and everything that went wrong on it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, FrameLocator, Locator, Page, Response

WAIT = 60_000  # milliseconds: far more than anything here takes, on a busy computer too

UNNAMED_CONTROLS = """
() => [...document.querySelectorAll("button, input, select, summary")]
  .filter((e) => e.offsetParent !== null)
  .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
  .map((e) => e.outerHTML)
"""
WIDER_THAN_SCREEN = "() => document.documentElement.scrollWidth - window.innerWidth"


@contextmanager
def a_sandbox_folder() -> Iterator[Path]:
    """Where sandboxes that follow one another keep their keys and the migrated database."""
    # Beside pytest's own folders: each run of root's closes those to PostgreSQL's unprivileged user.
    with tempfile.TemporaryDirectory(prefix="zhenfu-console-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "hospital"


@contextmanager
def running_sandbox(folder: Path) -> Iterator[str]:
    """`zhenfu sandbox` with free ports and books that are empty; yields the page's address, ends it by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.cli", "sandbox", "--folder", str(folder), "--port", "0"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    try:
        if line:
            yield line
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert line.startswith("http://"), errors
    assert process.returncode == 0, errors
    assert errors == ""


@dataclass
class PhoneOnPage:
    """One of the phones."""

    page: Page
    number: int

    @property
    def root(self) -> Locator:
        return self.page.locator(f'[data-phone="{self.number}"]')

    @property
    def web(self) -> FrameLocator:
        """The page that is open in this phone's in-app browser."""
        return self.root.frame_locator("iframe")

    @property
    def sheet(self) -> Locator:
        return self.root.get_by_role("dialog", name="微信支付")

    async def hand_to(self, person: str) -> None:
        await self.root.locator("[data-holder]").select_option(label=person)

    async def go_home(self) -> None:
        """WeChat's first screen, from wherever the phone is."""
        for name in ("关闭网页，回到微信", "关闭小程序，回到微信", "返回"):
            button = self.root.get_by_role("button", name=name, exact=True)
            while await button.count():
                await button.first.click()

    async def open_chat(self) -> None:
        await self.go_home()
        await self.root.locator('[data-row="chat"]').click()

    async def say(self, text: str) -> None:
        """Write to the official account; the chat is open."""
        line, to_write = self.root.get_by_label("写消息"), self.root.get_by_label("打字")
        await line.or_(to_write).first.wait_for(timeout=WAIT)
        if await to_write.count():
            await to_write.click()
        await line.fill(text)
        await self.root.get_by_role("button", name="发送").click()

    async def last_answer(self, *, has_text: str) -> Locator:
        """The newest bubble of the account's that holds this text."""
        bubble = self.root.locator(".bubble-row.theirs", has_text=has_text).last
        await bubble.wait_for(timeout=WAIT)
        return bubble

    async def tap_link(self, text: str) -> None:
        """A link in the newest answer that has one with this text."""
        await self.root.locator(".bubble-link", has_text=text).last.click(timeout=WAIT)

    async def press_menu(self, name: str, below: str = "") -> None:
        await self.root.locator(".menu-button", has_text=name).first.click()
        if below:
            await self.root.locator(".menu-below").get_by_role("button", name=below).click()

    async def open_message(self) -> None:
        """Tap the banner, then the newest message's card."""
        await self.root.locator(".banner").click(timeout=WAIT)
        await self.root.locator(".message-card").last.click()

    async def to_pay_sheet(self) -> None:
        """From the mini program's list of bills."""
        await self.root.get_by_role("button", name="去缴费").first.click(timeout=WAIT)
        await self.root.get_by_role("button", name="确认支付").click(timeout=WAIT)
        await self.sheet.wait_for(timeout=WAIT)

    async def pay(self, *, how: str = "confirm") -> None:
        """Answer the open sheet; `how` as in simulators/console/paying.py."""
        await self.sheet.wait_for(timeout=WAIT)
        if how == "cancel":
            await self.sheet.get_by_role("button", name="取消支付").click()
            return
        await self.sheet.get_by_label("怎么付（演示）").select_option(how)
        for digit in "246810":
            await self.sheet.get_by_role("button", name=digit, exact=True).click()
        if how == "fail":
            await self.root.get_by_role("button", name="知道了").click(timeout=WAIT)
        else:
            done = self.root.get_by_role("dialog", name="支付成功")
            await done.get_by_role("button", name="完成").click(timeout=WAIT)

    async def scan(self, bill_id: str) -> None:
        """Choose this paper in the scanner that is open."""
        await self.root.locator(f'[data-scan="{bill_id}"]').click(timeout=WAIT)


@dataclass
class SandboxPage:
    """One open page and everything that went wrong on it."""

    page: Page
    opened_at: float
    wrong: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.opened_at

    def phone(self, number: int) -> PhoneOnPage:
        return PhoneOnPage(self.page, number)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and BUSY not in message.text:
            self.wrong.append(f"console: {message.text}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and str(response.status) not in BUSY:
            self.wrong.append(f"{response.status} {response.url}")

    async def issue(self, person: str = "", kind: str = "", **form: str) -> str:
        """The doctor issues a bill for the person who is chosen, or for another one; returns its number."""
        if person:
            await self.page.get_by_label("就诊人", exact=True).select_option(label=person)
        if kind:
            await self.page.get_by_role("radio", name=kind).check()
        for label, value in form.items():
            await self.page.get_by_label(label, exact=True).fill(value)
        async with self.page.expect_response("**/api/desk/issue") as answered:
            await self.page.get_by_role("button", name="开单", exact=True).click()
        bill: dict[str, Any] = await (await answered.value).json()
        return str(bill["bill_id"])

    async def paper(self, bill_id: str) -> str:
        """The printed prescription on the desk, once it is there: what a scanner reads on it."""
        paper = self.page.locator(f'[data-paper="{bill_id}"]')
        await paper.wait_for(timeout=WAIT)
        return await paper.get_attribute("data-content") or ""

    async def scan_with(self, number: int) -> None:
        """WeChat's own scanner of this phone, over the paper on the desk."""
        await self.page.locator(f'[data-scan-with="{number}"]').click(timeout=WAIT)

    async def guide_says(self, text: str) -> None:
        await self.page.locator("#guide-text", has_text=text).wait_for(timeout=WAIT)

    async def begin_story(self, key: str) -> None:
        """message | paper | refused"""
        await self.page.locator(f'[data-story="{key}"]').click()

    async def newest_row(self) -> dict[str, Any]:
        """The newest order in the three books: verdict, and the amount that each book shows."""
        value: dict[str, Any] = await self.page.evaluate(
            """() => {
              const row = document.querySelector("#books tbody");
              const amount = (book) => row.querySelector(`[data-book=${book}] b`).textContent;
              const amounts = {his: amount("his"), wechatpay: amount("wechatpay"), ours: amount("ours")};
              return {verdict: row.dataset.verdict, ...amounts};
            }"""
        )
        return value


BUSY = "the server responded with a status of 503"
"""A HIS that bears few calls at once may be busy for a moment: phones say so and ask again."""


@asynccontextmanager
async def visit(browser: Browser, address: str, device: dict[str, Any]) -> AsyncIterator[SandboxPage]:
    """The page with the first story told: 王秀兰 holds phone 1 and is bound, 李大山 holds phone 2.

    Fails afterwards for any error in the browser, a control without a name, or content wider than the screen.
    """
    page = await browser.new_page(**device)
    began = SandboxPage(page=page, opened_at=time.monotonic())
    began.watch()
    await page.goto(address)
    await began.guide_says("已在手机上绑定")
    yield began
    assert await page.evaluate(UNNAMED_CONTROLS) == []
    assert await page.evaluate(WIDER_THAN_SCREEN) <= 0
    assert began.wrong == []
    await page.close()
