"""What the in-app browser changes in a page on its way to the screen, and nothing else: pure functions.

The page believes that it was opened at the product's own address. On this computer the browser stands before
the product at an address of its own, so addresses are exchanged; the app's scripts come before the page's; and a
policy that forbids frames lets exactly one frame show it, because here a webview is a frame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from urllib.parse import urljoin

JS_SDK = re.compile(r"https?://res2?\.wx\.qq\.com/open/js/jweixin-[0-9.]+\.js")
HEAD = re.compile(r"<head(\s[^>]*)?>", re.IGNORECASE)
NONCE = re.compile(r"'nonce-([A-Za-z0-9+/_=-]+)'")
TEXT_TYPES = ("text/html", "application/json", "text/javascript", "application/javascript")
UPGRADES = frozenset({"upgrade-insecure-requests", "block-all-mixed-content"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """Which address stands for which; none of them ends with a slash."""

    product: str
    platform: str
    browser: str  # where the frame finds this browser
    app: str  # the page that shows the frame
    prefix: str  # the app's own paths in this browser

    def shown(self, text: str) -> str:
        """A text from the product with the addresses that the frame can reach."""
        return (
            JS_SDK.sub(f"{self.browser}{self.prefix}/jweixin.js", text)
            .replace(self.platform, f"{self.browser}{self.prefix}/platform")
            .replace(self.product, self.browser)
        )

    def believed(self, url: str) -> str:
        """An address of the frame as the product knows it: of Origin, Referer and the JS-SDK's signature."""
        return self.product + url.removeprefix(self.browser) if _under(url, self.browser) else url

    def of_redirect(self, location: str, at: str) -> str:
        """Where a redirect from the product's or platform's address `at` leads, in full."""
        return urljoin(at, location)

    def is_product(self, url: str) -> bool:
        return _under(url, self.product)

    def is_platform(self, url: str) -> bool:
        return _under(url, self.platform)

    def in_browser(self, url: str) -> str:
        """Path and query of a product's address, for a redirect inside the frame."""
        return url.removeprefix(self.product) or "/"


def with_app_scripts(html: str, addresses: Addresses, policy: str) -> str:
    """The page with the app's bridge before its own scripts."""
    nonce = NONCE.search(policy)
    attributes = f' nonce="{escape(nonce[1])}"' if nonce else ""
    script = f'<script src="{addresses.prefix}/bridge.js" data-app="{escape(addresses.app)}"{attributes}></script>'
    head = HEAD.search(html)
    at = head.end() if head else 0
    return html[:at] + script + html[at:]


def relaxed(policy: str, addresses: Addresses) -> str:
    """A Content-Security-Policy as a webview applies it: our frame may show the page, the app's scripts may run."""
    kept: list[str] = []
    for directive in filter(None, (part.strip() for part in policy.split(";"))):
        name, _, sources = directive.partition(" ")
        name = name.lower()
        if name in UPGRADES or name == "frame-ancestors":
            continue
        sources = addresses.shown(sources)
        if name in {"script-src", "script-src-elem"} and "'self'" not in sources.split():
            sources = f"{sources} 'self'".replace("'none' ", "")
        kept.append(f"{name} {sources}".strip())
    return "; ".join([*kept, f"frame-ancestors {addresses.app}"])


def is_text(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() in TEXT_TYPES


def is_page(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "text/html"


def _under(url: str, base: str) -> bool:
    return url == base or url.startswith((f"{base}/", f"{base}?"))
