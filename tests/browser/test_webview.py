"""WeChat's in-app browser of the sandbox without a browser: whose it is, what it keeps, what it changes in a page."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from yarl import URL

from simulators.clock import Clock, OffsetClock
from simulators.console.app import create_console
from simulators.console.papers import Printer, paper_token
from simulators.console.phones import Jar, Person, Phones
from simulators.console.rewriting import Addresses, relaxed, with_app_scripts
from simulators.console.webview import create_webview
from simulators.console.world import ConsoleWorld
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.kit import Deliveries, Request, Response, create_app
from simulators.sms import SmsSimulator
from simulators.wechat import WechatPlatformSimulator
from simulators.wechatpay import WechatPaySimulator
from tests.support.serving import serve

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
HERE = Addresses(
    product="https://pay.example",
    platform="http://127.0.0.1:8803",
    browser="http://127.0.0.1:8806",
    app="http://127.0.0.1:8800",
    prefix="/__wechat__",
)

# ---------------------------------------------------------------- pure


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", "frame-ancestors http://127.0.0.1:8800"),
        (
            "default-src 'self'; frame-ancestors 'none'; upgrade-insecure-requests",
            "default-src 'self'; frame-ancestors http://127.0.0.1:8800",
        ),
        (
            "script-src 'nonce-abc'; form-action https://pay.example",
            "script-src 'nonce-abc' 'self'; form-action http://127.0.0.1:8806; frame-ancestors http://127.0.0.1:8800",
        ),
        (
            "script-src 'none'; object-src 'none'",
            "script-src 'self'; object-src 'none'; frame-ancestors http://127.0.0.1:8800",
        ),
    ],
)
def test_a_policy_is_relaxed_for_one_frame_and_the_apps_scripts_only(policy: str, expected: str) -> None:
    assert relaxed(policy, HERE) == expected


def test_the_apps_bridge_runs_before_the_pages_own_scripts() -> None:
    page = with_app_scripts("<html><head><script>1</script></head></html>", HERE, "script-src 'nonce-a+b/c='")
    assert page == (
        '<html><head><script src="/__wechat__/bridge.js" data-app="http://127.0.0.1:8800" nonce="a+b/c="></script>'
        "<script>1</script></head></html>"
    )


def test_addresses_stand_for_each_other_and_for_nothing_else() -> None:
    assert HERE.shown('href="https://pay.example/p/1" src="https://res.wx.qq.com/open/js/jweixin-1.6.0.js"') == (
        'href="http://127.0.0.1:8806/p/1" src="http://127.0.0.1:8806/__wechat__/jweixin.js"'
    )
    assert HERE.believed("http://127.0.0.1:8806/h/x?a=1") == "https://pay.example/h/x?a=1"
    assert HERE.believed("http://127.0.0.1:88061/h") == "http://127.0.0.1:88061/h"
    assert not HERE.is_product("https://pay.example.evil/p")


def test_a_jar_keeps_cookies_by_path_and_until_their_end() -> None:
    jar = Jar()
    jar.take("__Host-session=a.b; Path=/; Secure; HttpOnly; Max-Age=60", NOON)
    jar.take("look=big; Path=/h", NOON)
    assert jar.header("/p/1", NOON) == "__Host-session=a.b"
    assert jar.header("/h/renhe/", NOON) == "__Host-session=a.b; look=big"
    assert jar.header("/h2", NOON) == "__Host-session=a.b"
    assert jar.header("/p/1", NOON + timedelta(seconds=60)) == ""
    jar.take("look=; Path=/h; Expires=Thu, 01 Jan 1970 00:00:00 GMT", NOON)
    jar.take("nonsense without a name", NOON)
    assert jar.header("/h/renhe/", NOON) == "__Host-session=a.b"


@pytest.mark.parametrize(
    ("branch", "bill_id", "token"),
    [
        ("", "CF2026050600012", "h1.cmVuaGUKCkNGMjAyNjA1MDYwMDAxMg.bwgrbHCeBkMSjh-sKsvtYg"),
        ("main", "2026/05/06+处方 #7", "h1.cmVuaGUKbWFpbgoyMDI2LzA1LzA2K-WkhOaWuSAjNw.ZRGE1Iei0-b-pSNO2Pm3yg"),
    ],
)
def test_a_paper_is_sealed_as_the_document_says(branch: str, bill_id: str, token: str) -> None:
    """The examples of docs/connect-a-hospital.md."""
    assert paper_token(b"demo-paper-key-for-this-document-only-01", "renhe", branch, bill_id) == token


# ---------------------------------------------------------------- a phone's browser before a product


class Product:
    """Signs visitors in at the platform, and keeps what reached it."""

    name = "product"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self.clock, self.faults, self.deliveries = clock, faults, Deliveries()
        self.got: list[Request] = []
        self.sign_in_at = ""

    def classify(self, request: Request) -> tuple[str, str]:
        return "console", ""

    async def handle(self, request: Request) -> Response:
        self.got.append(request)
        if request.path == "/h/sign-in":
            return Response(status=302, headers={"location": self.sign_in_at})
        if request.path == "/h/back":
            headers = {"location": "/h/home?a=%2F#x", "set-cookie": "session=s1; Path=/; HttpOnly; Secure"}
            return Response(status=303, headers=headers)
        if request.path == "/h/away":
            return Response(status=302, headers={"location": "https://his.example.invalid/receipt"})
        if request.path == "/h/data":
            return Response.of_json({"next": f"http://{request.headers['host']}/h/home"})
        headers = {
            "content-type": "text/html; charset=utf-8",
            "x-frame-options": "DENY",
            "content-security-policy": "default-src 'self'; frame-ancestors 'none'",
            "strict-transport-security": "max-age=1",
        }
        return Response(status=200, headers=headers, body="<html><head></head><body>缴费</body></html>".encode())


@dataclass
class Opened:
    url: str
    http: aiohttp.ClientSession
    product: Product
    world: ConsoleWorld

    async def get(self, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        url = URL(self.url + path, encoded=True)
        async with self.http.get(url, headers=headers, allow_redirects=False) as answer:
            found = {str(name).lower(): value for name, value in answer.headers.items()}
            return answer.status, await answer.text(), found


@asynccontextmanager
async def opened(folder: Path, *, product_is_down: bool = False, door: str = "") -> AsyncIterator[Opened]:
    clock, faults = OffsetClock(folder / "offset"), Faults()
    product = Product(clock, faults)
    wechat = WechatPlatformSimulator(clock=clock, faults=faults)
    service = wechat.add_official_account("示范医院")
    mini = wechat.add_mini_program("示范医院缴费")

    def person(name: str, phone: str, language: str) -> Person:
        user = wechat.add_user(name, phone=phone)
        return Person(
            name=name,
            phone=phone,
            identifier_type="id_card",
            identifier="X",
            his_patient_ids=(phone,),
            open_id_user_key=user,
            language=language,
        )

    async def nothing(*values: str) -> dict[str, str]:
        return {}

    async def no_choice(mode: str, factor: str) -> None: ...

    async with serve(create_app(product)) as product_url, serve(create_app(wechat)) as platform_url:
        wechat.set_web_domain(service.app_id, urlsplit(product_url).netloc)
        product.sign_in_at = (
            f"{platform_url}/connect/oauth2/authorize?appid={service.app_id}"
            f"&redirect_uri={quote(product_url + '/h/back', safe='')}&response_type=code&scope=snsapi_base&state=abc"
            "#wechat_redirect"
        )
        world = ConsoleWorld(
            wechatpay=WechatPaySimulator(clock=clock, faults=faults),
            wechat=wechat,
            sms=SmsSimulator(clock=clock, faults=faults),
            hospital=HospitalSimulator(clock=clock, faults=faults, seed=1),
            clock=clock,
            faults=faults,
            product_url="http://127.0.0.1:1" if product_is_down else product_url,
            platform_url=platform_url,
            institution="demo",
            miniprogram_app_id=mini.app_id,
            service_app_id=service.app_id,
            phones=Phones((person("张秀英", "19900000001", "zh-CN"), person("EXAMPLE", "19900000002", "en-US"))),
            browser_ports=(9001, 9002),
            printer=Printer(public_url=product_url, institution="demo", key=b"k"),
            our_books=nothing,
            choose_paper=no_choice,
            door=door,
        )
        webview = create_webview(world, 2, host_names=frozenset({"127.0.0.1"}), console_port=8800)
        async with serve(webview) as url, aiohttp.ClientSession() as http:
            yield Opened(url, http, product, world)


async def test_a_page_is_shown_to_our_frame_as_wechat_would_show_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        status, page, headers = await it.get("/h/demo/?q=%2F", cookie="session=of-the-browser", **{"x-own": "1"})
        assert status == 200
        assert page.startswith('<html><head><script src="/__wechat__/bridge.js" data-app="http://127.0.0.1:8800">')
        assert set(headers).isdisjoint({"x-frame-options", "strict-transport-security"})
        assert headers["content-security-policy"] == "default-src 'self'; frame-ancestors http://127.0.0.1:8800"
        (got,) = it.product.got
        assert got.target == "/h/demo/?q=%2F"
        assert "MicroMessenger/8" in got.headers["user-agent"]
        assert got.headers["user-agent"].endswith("Language/en_US")
        assert got.headers["accept-language"] == "en-US,en;q=0.9"
        assert "cookie" not in got.headers
        assert got.headers["x-own"] == "1"


async def test_whoever_holds_the_phone_is_signed_in_and_stays_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        status, _, headers = await it.get("/h/sign-in")
        assert status == 302
        location = urlsplit(headers["location"])
        assert (location.netloc, location.path) == ("", "/h/back")
        found = re.fullmatch(r"code=(\w[\w-]+)&state=abc", location.query)
        assert found is not None
        code = it.world.wechat.record.codes[found[1]]
        assert code.user_id == it.world.phones.holder(2).open_id_user_key

        status, _, headers = await it.get(location.geturl())
        assert (status, headers["location"]) == (303, "/h/home?a=%2F#x")
        assert "set-cookie" not in headers
        await it.get("/h/home")
        assert it.product.got[-1].headers["cookie"] == "session=s1"

        it.world.phones.hand(2, it.world.phones.people[0])
        await it.get("/h/home")
        assert "cookie" not in it.product.got[-1].headers
        it.world.phones.hand(2, it.world.phones.people[1])
        await it.get("/h/home")
        assert it.product.got[-1].headers["cookie"] == "session=s1"


async def test_origins_and_addresses_in_values_are_exchanged(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        _, text, _ = await it.get("/h/data")
        assert json.loads(text) == {"next": f"{it.url}/h/home"}
        form = {"origin": it.url, "referer": f"{it.url}/h/demo/"}
        async with it.http.post(f"{it.url}/h/demo/pay", data={"a": "1"}, headers=form) as answer:
            assert answer.status == 200
        got = it.product.got[-1]
        assert (got.method, got.body) == ("POST", b"a=1")
        product = it.world.product_url
        assert (got.headers["origin"], got.headers["referer"]) == (product, f"{product}/h/demo/")


async def test_nobody_else_uses_a_phones_browser(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        assert (await it.get("/", host="evil.example"))[0] == 403
        assert (await it.get("/", origin="http://evil.example"))[0] == 403
        assert it.product.got == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/n/token",
        "/his/v1/events/token",
        "/wx/token",
        "/api/v1/sessions",
        "/health",
        "/h",
        "/h/../n/token",
        "/h/%2e%2E/n/token",
        "/h/..%2Fn/token",
        "//h/../n/token",
        "/__wechat__/platform/_people",
        "/__wechat__/platform/_accounts",
        "/__wechat__/platform/_books",
        "/__wechat__/platform/cgi-bin/token",
        "/__wechat__/platform/connect/oauth2/authorize/../../../_people",
        "/__wechat__/platform/connect/oauth2/authorize%2F..%2F..%2F..%2F_people",
    ],
)
async def test_a_phones_browser_opens_pages_and_nothing_else(tmp_path: Path, path: str) -> None:
    async with opened(tmp_path) as it:
        status, text, _ = await it.get(path)
        assert status == 404
        assert "张秀英" not in text
        async with it.http.post(URL(it.url + path, encoded=True), data={"a": "1"}) as answer:
            assert answer.status in {404, 405}
        assert it.product.got == []


async def test_a_phones_browser_does_what_pages_do_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        async with it.http.put(f"{it.url}/h/demo/", data=b"1") as answer:
            assert answer.status == 404
        assert it.product.got == []
        for path in ("/p/h1.x", "/h/demo/", "/h5/static/1/pay.js"):
            assert (await it.get(path))[0] == 200
        path = URL(it.product.sign_in_at).raw_path_qs
        status, _, headers = await it.get(f"/__wechat__/platform{path}")
        assert (status, headers["location"].startswith("/h/back?code=")) == (302, True)


async def test_a_page_sends_nobody_to_the_platforms_console(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        it.product.sign_in_at = f"{it.world.platform_url}/_people"
        status, text, _ = await it.get("/h/sign-in")
        assert (status, "演示环境里没有这个网站" in text, "张秀英" in text) == (200, True, False)


async def test_real_phones_come_in_by_the_printed_address_only(tmp_path: Path) -> None:
    async with opened(tmp_path, door="of-the-door") as it:
        names = frozenset({"127.0.0.1"})
        async with serve(create_console(it.world, host_names=names)) as console, aiohttp.ClientSession() as phone:

            async def look(base: str, path: str) -> tuple[int, str]:
                async with phone.get(base + path) as answer:
                    return answer.status, await answer.text()

            everywhere = [
                *((console, path) for path in ("/", "/phone/1", "/api/state", "/static/api.js", "/phone-api/api/v1/x")),
                *((it.url, path) for path in ("/h/demo/", "/__wechat__/bridge.js", "/h/demo/?door=of-the-door")),
                *((console, path) for path in ("/?door=wrong", "/?door=", "/?door=%E9%97%A8")),
            ]
            for base, path in everywhere:
                status, text = await look(base, path)
                assert (status, "打印的完整地址" in text) == (403, True), path
            async with phone.post(f"{console}/api/clock", json={"minutes": 1}) as answer:
                assert answer.status == 403
            assert it.product.got == []

            async with phone.get(f"{console}/phone/1?door=of-the-door", allow_redirects=False) as answer:
                assert (answer.status, answer.headers["location"]) == (303, "/phone/1")
                (cookie,) = answer.headers.getall("set-cookie")
            assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
            given = {"cookie": cookie.partition(";")[0]}
            for base, path in ((console, "/phone/1"), (console, "/static/api.js"), (it.url, "/h/demo/")):
                async with it.http.get(base + path, headers=given) as answer:
                    assert answer.status == 200, path
            async with it.http.post(f"{console}/api/clock", json={"minutes": 1}, headers=given) as answer:
                assert answer.status == 200
            assert "cookie" not in it.product.got[-1].headers


async def test_what_lies_outside_is_said_and_never_opened(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        status, page, headers = await it.get("/h/away")
        assert status == 200
        assert "演示环境里没有这个网站" in page
        assert "his.example.invalid" in page
        assert headers["content-security-policy"].endswith("frame-ancestors http://127.0.0.1:8800")


async def test_without_the_product_the_phone_has_no_network(tmp_path: Path) -> None:
    async with opened(tmp_path, product_is_down=True) as it:
        status, page, _ = await it.get("/h/demo/")
        assert status == 504
        assert "网络不给力" in page
