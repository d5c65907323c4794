"""What every patient page must be in a real browser: accessible, readable at twice the text size, kept as a picture.

It looks at pages from outside, in Chromium: axe-core's rules, and the places of words and controls on the screen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.chromium import SCREENSHOTS

if TYPE_CHECKING:
    from playwright.async_api import Frame, Page

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
TOUCH_PIXELS_MIN = 44  # of a button or field: a finger that trembles
TWICE = "200%"

AXE_FINDINGS = """
async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations
    .filter((found) => found.impact === "serious" || found.impact === "critical")
    .flatMap((found) => found.nodes.map((node) => `${found.id}: ${node.target.join(" ")} ${node.failureSummary}`));
}
"""

GEOMETRY_FINDINGS = """
({ size, touch }) => {
  const root = document.documentElement;
  root.style.fontSize = size;
  const found = [];
  const width = window.innerWidth;
  if (root.scrollWidth > width) {
    const wide = [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > width + 0.5);
    const which = wide.map((e) => `${e.localName}.${e.className}`).slice(0, 6).join(", ");
    found.push(`${root.scrollWidth} px wide on a screen of ${width} px: ${which}`);
  }
  const name = (e) => `${e.localName} "${(e.innerText || e.value || e.name || "").trim().slice(0, 30)}"`;
  const shown = (e) => e.checkVisibility() && e.getClientRects().length > 0 && e.type !== "hidden";
  const controls = [...document.querySelectorAll("a[href], button, input, select, textarea, summary")].filter(shown);
  for (const control of controls) {
    const box = control.getBoundingClientRect();
    if (box.left < -0.5 || box.right > width + 0.5) found.push(`${name(control)} leaves the screen`);
    const scrolls = control.localName === "input" && !(control.maxLength > 0 && control.maxLength <= 6);
    if (control.localName !== "a" && control.localName !== "summary" && !scrolls) {
      if (control.scrollWidth > control.clientWidth + 1) found.push(`${name(control)} is cut off at its side`);
      if (control.scrollHeight > control.clientHeight + 1) found.push(`${name(control)} is cut off below`);
    }
    const target = control.type === "checkbox" ? control.closest("label") : control;
    const place = target.getBoundingClientRect();
    if (touch && (place.height < touch || place.width < touch)) {
      found.push(`${name(control)} is ${Math.round(place.width)} × ${Math.round(place.height)} px small`);
    }
  }
  const boxes = [];
  const add = (owner, says, list) => {
    for (const box of list) {
      const spare = box.height / 4; // a line's box is taller than its letters
      if (box.width > 1 && box.height > 1) {
        boxes.push({ owner, says, left: box.left, right: box.right, top: box.top + spare, bottom: box.bottom - spare });
      }
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.textContent.trim() || !shown(node.parentElement)) continue;
    if (node.parentElement.closest("noscript, option, svg")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    add(node, node.textContent.trim().slice(0, 20), range.getClientRects());
  }
  for (const control of controls) {
    if (["input", "select"].includes(control.localName)) add(control, name(control), [control.getBoundingClientRect()]);
  }
  boxes.forEach((one, at) => {
    if (one.right > width + 0.5 || one.left < -0.5) found.push(`"${one.says}" leaves the screen`);
    for (const other of boxes.slice(at + 1)) {
      if (other.owner === one.owner) continue;
      const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
      if (across > 1 && down > 1) found.push(`"${one.says}" lies over "${other.says}"`);
    }
  });
  root.style.fontSize = "";
  return [...new Set(found)];
}
"""

CONTROLS = """
() => {
  const all = [...document.querySelectorAll("a[href], button, input, select, summary")];
  const shown = all.filter((e) => e.checkVisibility() && e.type !== "hidden" && !e.disabled);
  window.visited = [];
  document.addEventListener("focusin", ({ target }) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(target);
    const isSeen = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
    window.visited.push([shown.indexOf(target), isSeen ? "" : target.outerHTML.slice(0, 120)]);
  });
  return shown.length;
}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How a patient has the pages shown."""

    language: str  # "zh" | "en"
    care: bool

    def __str__(self) -> str:
        return f"{'care' if self.care else 'normal'}-{self.language}"


LOOKS = tuple(Look(language=language, care=care) for language in ("zh", "en") for care in (False, True))


@cache
def axe_source() -> str:
    return AXE.read_text()


async def findings(frame: Frame | Page) -> list[str]:
    """What is wrong with the page as it stands; empty is good."""
    if not await frame.evaluate("() => 'axe' in window"):
        await frame.evaluate(axe_source())
    found: list[Any] = await frame.evaluate(AXE_FINDINGS)
    found += await frame.evaluate(GEOMETRY_FINDINGS, {"size": "", "touch": TOUCH_PIXELS_MIN})
    twice = await frame.evaluate(GEOMETRY_FINDINGS, {"size": TWICE, "touch": 0})
    return [*map(str, found), *(f"at twice the text size: {each}" for each in twice)]


async def keyboard_findings(page: Page) -> list[str]:
    """Whether the Tab key visits every control of a page that has just been opened, in order, and shows where it is."""
    count: int = await page.evaluate(CONTROLS)
    for _ in range(count):
        await page.keyboard.press("Tab")
    visited: list[tuple[int, str]] = await page.evaluate("() => window.visited")
    found = [f"the focus is not seen on {unseen}" for _, unseen in visited if unseen]
    order = [place for place, _ in visited]
    return found + ([] if order == list(range(count)) else [f"Tab goes {order} through {count} controls"])


@dataclass(kw_only=True)
class Album:
    """Pictures of one story in one look, in the order in which they were taken, if anybody wants them."""

    story: str
    look: Look
    count: int = 0

    @property
    def folder(self) -> Path:
        return Path(SCREENSHOTS) / self.story

    async def keep(self, page: Page, step: str) -> None:
        """The whole page, however long it is."""
        self.count += 1
        if not SCREENSHOTS:
            return
        await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        path = self.folder / f"{self.count:02}-{step}-{self.look}.png"
        await page.screenshot(path=path, full_page=True, animations="disabled", scale="css")
