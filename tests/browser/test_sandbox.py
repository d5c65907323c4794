"""A newcomer at the sandbox page, in a real browser: the first bill is paid within a minute and the books agree."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chromium import DESKTOP, PHONE

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page, Response

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

FIRST_BILL_SECONDS = 60.0
WAIT = 20_000  # milliseconds: far more than anything here takes
GUIDE_TEXT = "请到门诊楼1楼西药房3号窗口取药"

UNNAMED_CONTROLS = """
() => [...document.querySelectorAll("button, input, select, summary")]
  .filter((e) => e.offsetParent !== null)
  .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
  .map((e) => e.outerHTML)
"""
WIDER_THAN_SCREEN = "() => document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """`zhenfu sandbox` with a folder and ports of its own; ended by Ctrl-C."""
    # Beside pytest's own folders: each run of root's closes those to PostgreSQL's unprivileged user.
    with tempfile.TemporaryDirectory(prefix="zhenfu-console-") as folder:
        Path(folder).chmod(0o755)
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime.cli", "sandbox", "--folder", f"{folder}/hospital", "--port", "0"],
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
        assert line.startswith("http://127.0.0.1:"), errors
        assert process.returncode == 0, errors
        assert errors == ""


@dataclass
class Visit:
    """One open page and everything that went wrong on it."""

    page: Page
    opened_at: float
    wrong: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.opened_at

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.wrong.append(f"console: {message.text}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {response.url}")

    async def issue(self, person: str = "", **form: str) -> None:
        """The doctor issues a bill for the person who is chosen, or for another one."""
        if person:
            await self.page.get_by_label("就诊人").select_option(label=person)
        for label, value in form.items():
            await self.page.get_by_label(label).fill(value)
        await self.page.get_by_role("button", name="开单", exact=True).click()

    async def guide_says(self, text: str) -> None:
        await self.page.locator("#guide-text", has_text=text).wait_for(timeout=WAIT)

    async def open_message(self) -> None:
        """Tap the banner, then the newest message's card."""
        await self.page.locator(".banner").click(timeout=WAIT)
        await self.page.locator(".message-card").last.click()

    async def to_pay_sheet(self) -> None:
        await self.page.get_by_role("button", name="去缴费").first.click(timeout=WAIT)
        await self.page.get_by_role("button", name="确认支付").click(timeout=WAIT)
        await self.page.get_by_role("dialog", name="微信支付").wait_for(timeout=WAIT)

    async def confirm_sheet(self) -> None:
        sheet = self.page.get_by_role("dialog", name="微信支付")
        await sheet.get_by_role("button", name="确认支付", exact=True).click()
        await self.page.get_by_role("dialog", name="支付成功").get_by_role("button", name="完成").click(timeout=WAIT)

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


@asynccontextmanager
async def visit(browser: Browser, address: str, device: dict[str, Any]) -> AsyncIterator[Visit]:
    page = await browser.new_page(**device)
    began = Visit(page=page, opened_at=time.monotonic())
    began.watch()
    await page.goto(address)
    await began.guide_says("已在手机上绑定")
    yield began
    assert await page.evaluate(UNNAMED_CONTROLS) == []
    assert await page.evaluate(WIDER_THAN_SCREEN) <= 0
    assert began.wrong == []
    await page.close()


async def test_a_newcomer_pays_a_first_bill_within_a_minute(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as newcomer:
        page = newcomer.page
        await newcomer.issue()
        await newcomer.guide_says("手机收到「待缴费通知」")
        message_seconds = newcomer.seconds
        await newcomer.open_message()
        await newcomer.to_pay_sheet()
        await newcomer.confirm_sheet()

        paid = page.locator("[data-paid-bill]").first
        await paid.get_by_text(GUIDE_TEXT).wait_for(timeout=WAIT)
        assert await paid.locator(".state").inner_text() == "已缴费"
        assert await paid.get_by_text("收据号").count() == 1
        await page.locator(".banner", has_text="缴费成功通知").wait_for(timeout=WAIT)
        paid_seconds = newcomer.seconds
        await newcomer.guide_says("三本账一致")
        agree_seconds = newcomer.seconds
        await page.locator(".banner").click()
        message = page.locator(".message-card").last
        assert GUIDE_TEXT in await message.inner_text()

        row = await newcomer.newest_row()
        assert row["verdict"] == "agree"
        assert row["his"] == row["wechatpay"] == row["ours"] != "¥0.00"
        print(
            f"from page open: bill's message {message_seconds:.1f} s,"
            f" paid message {paid_seconds:.1f} s, books agree {agree_seconds:.1f} s"
        )
        assert agree_seconds < FIRST_BILL_SECONDS


async def test_the_same_on_a_phone_one_panel_at_a_time(browser: Browser, address: str) -> None:
    async with visit(browser, address, PHONE) as patient:
        page = patient.page
        assert await page.locator("#phone-screen").is_hidden()
        await patient.issue(**{"金额（元）": "12.80"})
        await patient.guide_says("手机收到「待缴费通知」")
        await page.get_by_role("button", name="看手机").click()
        await patient.open_message()
        await patient.to_pay_sheet()
        assert "12.80" in await page.locator(".sheet-amount").inner_text()
        await patient.confirm_sheet()
        await page.get_by_text(GUIDE_TEXT).first.wait_for(timeout=WAIT)
        await patient.guide_says("三本账一致")
        await page.get_by_role("button", name="看三本账").click()
        assert (await patient.newest_row())["ours"] == "¥12.80"
        for panel in ("时钟·故障", "医生", "手机"):
            await page.get_by_role("button", name=panel, exact=False).first.click()
            assert await page.evaluate(WIDER_THAN_SCREEN) <= 0


async def test_somebody_else_binds_with_one_tap_and_closes_the_sheet(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as migrant:
        page = migrant.page
        await page.get_by_label("就诊人").select_option(label="李大山")
        await migrant.guide_says("点「绑定」")
        await page.get_by_role("button", name="小程序").first.click()
        await page.get_by_role("button", name="绑定", exact=True).click()
        await migrant.guide_says("李大山已在手机上绑定")
        await migrant.issue()
        await page.locator(".banner").wait_for(timeout=WAIT)
        await migrant.to_pay_sheet()
        await page.get_by_role("dialog", name="微信支付").get_by_role("button", name="取消", exact=True).click()
        await page.get_by_text("已取消支付，没有扣款。").wait_for(timeout=WAIT)
        await page.locator("#books tbody").first.get_by_text("没有收款，三本账一致").wait_for(timeout=WAIT)


async def test_a_lost_notice_and_a_moved_clock_end_well(browser: Browser, address: str) -> None:
    async with visit(browser, address, DESKTOP) as player:
        page = player.page
        lost = page.locator('[data-fault="wechatpay.notice_lost"]').first
        await lost.get_by_role("button", name="下一次").click()
        await page.get_by_text("开着 1 个故障").wait_for(timeout=WAIT)
        await player.issue()
        await player.open_message()
        await player.to_pay_sheet()
        await player.confirm_sheet()
        await page.get_by_role("button", name="+1 分钟").click()
        await page.get_by_text("比真实时间快 1 分钟").wait_for(timeout=WAIT)
        await player.guide_says("三本账一致")
        assert (await player.newest_row())["verdict"] == "agree"
        await page.get_by_text("现在没有故障。").wait_for(timeout=WAIT)
