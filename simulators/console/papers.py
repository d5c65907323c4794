"""The HIS's printer: the code on a paper prescription, made as docs/connect-a-hospital.md tells a HIS to.

It plays the HIS, so it computes the address by itself and shares no code with the product that reads it.
"""

from __future__ import annotations

import base64
import hmac
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MODES = {
    "his_makes": "医院系统自己算出地址（离线）",
    "his_asks": "医院系统开单时向诊付要地址",
    "barcode": "医院原有条形码",
    "off": "纸上没有码",
}
FACTORS = {"last_four": "要后四位", "none": "不要后四位"}


QUIET_MODULES = 10

Ask = Callable[[str], Awaitable[str]]
"""The address of a bill's paper, asked of the product when the bill is issued; empty when it gives none."""


@dataclass(kw_only=True)
class Printer:
    """How this hospital's papers are printed now; `mode` and `factor` are the product's settings too."""

    public_url: str
    institution: str
    key: bytes  # that HIS and product share for papers
    branch: str = ""
    mode: str = "his_makes"
    factor: str = "last_four"
    ask: Ask | None = None
    _asked: dict[str, str] = field(default_factory=dict)

    async def content(self, bill_id: str) -> str:
        """What a scanner reads on this bill's paper; empty when there is no code on it."""
        if self.mode == "his_makes":
            return f"{self.public_url}/p/{paper_token(self.key, self.institution, self.branch, bill_id)}"
        if self.mode == "his_asks" and self.ask is not None:
            if bill_id not in self._asked and (address := await self.ask(bill_id)):
                self._asked[bill_id] = address
            return self._asked.get(bill_id, "")
        return bill_id if self.mode == "barcode" else ""


def paper_token(key: bytes, institution: str, branch: str, bill_id: str) -> str:
    """h1.<what it names>.<its seal>: three lines of text and the first 16 bytes of an HMAC-SHA256, as base64url."""
    named = "\n".join((institution, branch, bill_id)).encode()
    seal = hmac.digest(key, b"zhenfu-paper-1\n" + named, "sha256")[:16]
    return f"h1.{_base64url(named)}.{_base64url(seal)}"


def qr_svg(content: str) -> bytes:
    """A picture of the content, readable at arm's length from paper or screen."""
    import segno  # late: only whoever looks at a code needs it

    picture = io.BytesIO()
    segno.make_qr(content, error="m").save(picture, kind="svg", scale=4, border=4, xmldecl=False, svgns=True)
    return picture.getvalue()


def bars_svg(text: str) -> bytes:
    """The text as Code 128, for a scanner; ASCII only, as bill numbers are."""
    import barcode  # type: ignore[import-untyped]

    bars = barcode.get("code128", text).build()[0]
    width = len(bars) + 2 * QUIET_MODULES
    drawn = "".join(
        f'<rect x="{place + QUIET_MODULES}" width="1.02" height="24"/>' for place, bar in enumerate(bars) if bar == "1"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 24" preserveAspectRatio="none"'
        f' shape-rendering="crispEdges">{drawn}</svg>'
    ).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
