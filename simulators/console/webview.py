"""WeChat's in-app browser of one phone: a small proxy on an address of its own, shown in a frame of the page.

It plays the app around the page: the app's user agent and language, a cookie jar for each person's phone, the silent
sign-in at the WeChat platform as whoever holds the phone, and the scripts that the app puts into pages. It opens
the product's pages and the platform's sign-in, no counterparty's or console's address. Nothing that passes through
is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from sanic import Sanic
from sanic.request import Request
from sanic.response import HTTPResponse, html, raw
from sanic.response import json as json_response
from yarl import URL

from simulators.console.door import keep_door
from simulators.console.rewriting import Addresses, is_page, is_text, relaxed, with_app_scripts
from simulators.console.world import WECHAT_PREFIX, ConsoleWorld

SCRIPTS = Path(__file__).parent / "static" / "webview"
BODY_BYTES_MAX = 1 << 20
TIMEOUT_SECONDS = 65.0
REDIRECTS_MAX = 5
USER_AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
    " MicroMessenger/8.0.50(0x18003237) NetType/4G Language/{language}"
)
NOT_PASSED_ON = frozenset(
    {
        "accept-encoding", "accept-language", "connection", "content-length", "cookie", "forwarded", "host",
        "keep-alive", "origin", "proxy-authorization", "referer", "te", "trailer", "transfer-encoding", "upgrade",
        "user-agent", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
    }
)  # fmt: skip
NOT_PASSED_BACK = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-security-policy",
        "content-security-policy-report-only", "content-type", "cross-origin-embedder-policy", "keep-alive", "location",
        "set-cookie", "strict-transport-security", "transfer-encoding", "x-frame-options",
    }
)  # fmt: skip
REDIRECTS = frozenset({301, 302, 303, 307, 308})
PAGES = ("/p/", "/h/", "/h5/")  # of the product; the last holds what the pages load
PAGE_METHODS = frozenset({"GET", "HEAD", "POST"})
SIGN_IN = "/connect/oauth2/authorize"  # the platform's only page


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """An answer with its body, before anything is changed in it."""

    url: str
    status: int
    headers: Mapping[str, str]  # lower-case names
    set_cookies: tuple[str, ...]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "application/octet-stream")


def create_webview(
    world: ConsoleWorld, number: int, *, host_names: frozenset[str], console_port: int
) -> Sanic[Any, Any]:
    """The browser of this phone, answering only under `host_names`."""
    app: Sanic[Any, Any] = Sanic(f"simulator_webview_{number}", configure_logging=False)
    app.config.ACCESS_LOG = False
    app.config.REQUEST_MAX_SIZE = BODY_BYTES_MAX
    app.static(f"{WECHAT_PREFIX}/bridge.js", SCRIPTS / "bridge.js", name="bridge")
    app.static(f"{WECHAT_PREFIX}/jweixin.js", SCRIPTS / "jweixin.js", name="jweixin")
    browser = Webview(world, number, console_port=console_port)

    @app.before_server_start
    async def open_line(app: Sanic[Any, Any]) -> None:
        await browser.open()

    @app.after_server_stop
    async def close_line(app: Sanic[Any, Any]) -> None:
        await browser.close()

    @app.on_request
    async def only_this_computer(request: Request) -> HTTPResponse | None:
        host = request.headers.get("host", "")
        if (urlsplit(f"//{host}").hostname or "") not in host_names:
            return json_response({"error": "unknown host"}, status=403)
        origin = request.headers.get("origin")
        if origin not in (None, "null") and urlsplit(origin).netloc != host:
            return json_response({"error": "another origin"}, status=403)
        return None

    keep_door(app, world.door, opens=False)

    @app.get(f"{WECHAT_PREFIX}/platform/<path:path>", name="platform", unquote=False)
    async def platform(request: Request, path: str) -> HTTPResponse:
        target = request.raw_url.decode("latin-1").removeprefix(f"{WECHAT_PREFIX}/platform")
        return await browser.show_platform(request, target)

    @app.route("/<path:path>", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], unquote=False)
    async def any_page(request: Request, path: str) -> HTTPResponse:
        return await browser.show(request)

    return app


class Webview:
    """One phone's browser."""

    def __init__(self, world: ConsoleWorld, number: int, *, console_port: int) -> None:
        self._world = world
        self._number = number
        self._console_port = console_port
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, connect=5)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def show(self, request: Request) -> HTTPResponse:
        addresses = self._addresses(request)
        target = request.raw_url.decode("latin-1")
        if request.method not in PAGE_METHODS or not _is_page(target):
            return _no_page(addresses)
        url = self._world.product_url + target
        headers = self._headers(request, addresses)
        try:
            fetched = await self._fetch(request.method, url, headers, request.body)
            return await self._answer(fetched, addresses)
        except (aiohttp.ClientError, TimeoutError):
            return _no_network(addresses)

    async def show_platform(self, request: Request, target: str) -> HTTPResponse:
        """An address of the WeChat platform that stands in a page."""
        addresses = self._addresses(request)
        if not _is_sign_in(target):
            return _no_page(addresses)
        try:
            fetched = await self._fetch(
                "GET", self._world.platform_url + target, self._headers(request, addresses), b""
            )
            return await self._answer(fetched, addresses)
        except (aiohttp.ClientError, TimeoutError):
            return _no_network(addresses)

    async def _answer(self, fetched: Fetched, addresses: Addresses) -> HTTPResponse:
        """What the frame gets: redirects within the product, after the platform's have been followed."""
        for _ in range(REDIRECTS_MAX):
            location = fetched.headers.get("location", "")
            if fetched.status not in REDIRECTS or not location:
                return self._page(fetched, addresses)
            target = addresses.of_redirect(location, fetched.url)
            if addresses.is_product(target):
                return self._passed(fetched, b"", addresses, location=addresses.in_browser(target))
            if not addresses.is_platform(target) or not _is_sign_in(target.removeprefix(addresses.platform)):
                return _elsewhere(addresses, target)
            fetched = await self._fetch("GET", target, self._plain_headers(), b"")
        return _no_network(addresses)

    def _page(self, fetched: Fetched, addresses: Addresses) -> HTTPResponse:
        body = fetched.body
        if is_text(fetched.content_type):
            try:
                text = addresses.shown(body.decode())
            except UnicodeDecodeError:
                return self._passed(fetched, body, addresses)
            if is_page(fetched.content_type):
                text = with_app_scripts(text, addresses, fetched.headers.get("content-security-policy", ""))
            body = text.encode()
        return self._passed(fetched, body, addresses)

    def _passed(self, fetched: Fetched, body: bytes, addresses: Addresses, *, location: str = "") -> HTTPResponse:
        headers = {name: value for name, value in fetched.headers.items() if name not in NOT_PASSED_BACK}
        headers["content-security-policy"] = relaxed(fetched.headers.get("content-security-policy", ""), addresses)
        if location:
            headers["location"] = location
        return raw(body, status=fetched.status, headers=headers, content_type=fetched.content_type)

    async def _fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Fetched:
        """Raises aiohttp.ClientError, TimeoutError."""
        assert self._session is not None
        now, jar = self._world.clock.now(), self._world.phones.jar(self._number)
        headers = dict(headers)
        if url.startswith(f"{self._world.platform_url}/"):
            headers["cookie"] = f"sandbox_person={self._world.phones.holder(self._number).open_id_user_key}"
        elif cookie := jar.header(urlsplit(url).path, now):
            headers["cookie"] = cookie
        async with self._session.request(
            method, URL(url, encoded=True), headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            fetched = Fetched(
                url=url,
                status=answer.status,
                headers={name.lower(): value for name, value in answer.headers.items()},
                set_cookies=tuple(answer.headers.getall("set-cookie", ())),
                body=await answer.read(),
            )
        if url.startswith(self._world.product_url):
            for set_cookie in fetched.set_cookies:
                jar.take(set_cookie, now)
        return fetched

    def _headers(self, request: Request, addresses: Addresses) -> dict[str, str]:
        passed = {
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower() not in NOT_PASSED_ON and not name.lower().startswith("sec-")
        }
        for name in ("origin", "referer"):
            if name in request.headers:
                passed[name] = addresses.believed(request.headers[name])
        return passed | self._plain_headers()

    def _plain_headers(self) -> dict[str, str]:
        language = self._world.phones.holder(self._number).language
        return {
            "user-agent": USER_AGENT.format(language=language.replace("-", "_")),
            "accept-language": f"{language},{language.partition('-')[0]};q=0.9",
        }

    def _addresses(self, request: Request) -> Addresses:
        host = urlsplit(f"//{request.headers['host']}")
        name = f"[{host.hostname}]" if ":" in (host.hostname or "") else host.hostname
        return Addresses(
            product=self._world.product_url,
            platform=self._world.platform_url,
            browser=f"http://{host.netloc}",
            app=f"http://{name}:{self._console_port}",
            prefix=WECHAT_PREFIX,
        )


def _is_page(target: str) -> bool:
    """Whether an app's web view opens this path of the product."""
    path = unquote(target.partition("?")[0]).replace("\\", "/")
    return path.startswith(PAGES) and not {".", ".."} & set(path.split("/"))


def _is_sign_in(target: str) -> bool:
    return target.partition("#")[0].partition("?")[0] == SIGN_IN


def _no_page(addresses: Addresses) -> HTTPResponse:
    return _own_page(addresses, "没有这个网页", "", status=404)


def _no_network(addresses: Addresses) -> HTTPResponse:
    return _own_page(addresses, "网络不给力", "请检查网络，稍后再试。", status=504)


def _elsewhere(addresses: Addresses, target: str) -> HTTPResponse:
    name = urlsplit(target).hostname or ""
    return _own_page(addresses, "演示环境里没有这个网站", name, status=200)


def _own_page(addresses: Addresses, title: str, text: str, *, status: int) -> HTTPResponse:
    page = (
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><title>微信</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
        f"<body><h3>{title}</h3><p>{escape(text)}</p></body></html>"
    )
    policy = f"default-src 'self'; frame-ancestors {addresses.app}"
    return html(with_app_scripts(page, addresses, policy), status=status, headers={"content-security-policy": policy})
