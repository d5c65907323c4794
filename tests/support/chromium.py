"""Debian's Chromium through Playwright, as a patient's phone or a staff member's screen."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, async_playwright

SCREENSHOTS = os.environ.get("ZHENFU_SCREENSHOTS", "")
"""The folder for pictures; empty: nobody wants any."""

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2 if SCREENSHOTS else 1,  # four times the points to paint, for those who look
    "reduced_motion": "reduce",
    "is_mobile": True,
    "has_touch": True,
    "locale": "zh-CN",
    "timezone_id": "Asia/Shanghai",
}
DESKTOP: dict[str, Any] = {
    "viewport": {"width": 1280, "height": 800},
    "reduced_motion": "reduce",
    "locale": "zh-CN",
    "timezone_id": "Asia/Shanghai",
}


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """`await browser.new_page(**PHONE)` opens a page in a fresh profile. It can reach loopback only."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("chromium is missing; `make test` installs Debian's chromium and fonts-noto-cjk")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            chromium_sandbox=False,  # containers and root have no user namespaces to build one with
            args=[
                "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
            ],
        )
        try:
            yield browser
        finally:
            await browser.close()
