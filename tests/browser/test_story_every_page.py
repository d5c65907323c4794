"""Every patient page in every state that it has, in both languages and both sizes of type: seen, and looked at."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from tortoise.context import TortoiseContext

from core.evidence import Evidence
from core.models import ChatAccountRow, Institution
from core.states import ProofKind
from miniprogram_api.app import build_app
from runtime.database import configuration
from tests.miniprogram_api.web import BROWSER, H5_METHOD, Page, Web, paper_of
from tests.support.chromium import PHONE, SCREENSHOTS
from tests.support.fakes import Held, held
from tests.support.house import LABOURER, PUBLIC_URL, House
from tests.support.page_checks import LOOKS, Album, Look, findings, keyboard_findings
from tests.support.postgres import a_migrated_database
from tests.support.serving import serve

if TYPE_CHECKING:
    from playwright.async_api import Browser, Route
    from playwright.async_api import Page as Screen

    from runtime.embedded_postgres import EmbeddedPostgres

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

HOME = "/h/renhe/"
SETTINGS = {"paper_code": "his_asks"}
PAGE_WAIT_SECONDS = 1.0


@dataclass(kw_only=True)
class Gallery:
    """Pages as our server answers them over HTTP, on a phone's screen; nothing there goes on by itself."""

    house: House
    base_url: str
    stack: AsyncExitStack
    screen: Screen
    look: Look
    album: Album
    wrong: dict[str, list[str]] = field(default_factory=dict)
    shown: Page | None = None

    async def person(self, name: str = "王秀兰", phone: str = "19900000001", *, agent: str = "") -> Web:
        """Somebody's browser, set to this look."""
        jar = aiohttp.CookieJar(unsafe=True)
        http = await self.stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
        web = Web(house=self.house, base_url=self.base_url, http=http, user=self.house.chat.add_user(name, phone=phone))
        web.agent = agent or web.agent
        looks = {"care": "on" if self.look.care else "off", "language": self.look.language}
        for name_, value in looks.items():
            await web.once("POST", "/h5/look", {"back": HOME, name_: value}, origin=PUBLIC_URL)
        return web

    async def answer(self, route: Route) -> None:
        """Our server's answers, in the place of a network."""
        path = urlsplit(route.request.url).path
        if self.shown is not None and route.request.is_navigation_request():
            await route.fulfill(status=200, headers=dict(self.shown.headers), body=self.shown.html)
        elif path.startswith("/h5/static/"):
            async with aiohttp.ClientSession() as http, http.get(f"{self.base_url}{path}") as answer:
                await route.fulfill(status=answer.status, content_type=answer.content_type, body=await answer.read())
        else:
            await route.abort()

    async def see(self, name: str, page: Page, *, status: int = 200) -> Page:
        """Look at a page that was answered, with all that can be unfolded open."""
        assert page.status == status, (name, page.status, page.text)
        assert page.read.language == ("zh-CN" if self.look.language == "zh" else "en")
        assert ("zf-care" in page.html) is self.look.care
        self.shown = replace(page, html=re.sub(r'<meta http-equiv="refresh"[^>]*>', "", page.html))
        await self.screen.goto(f"{PUBLIC_URL}/", wait_until="load")
        await self.screen.evaluate("() => document.querySelectorAll('details').forEach((each) => (each.open = true))")
        await self.album.keep(self.screen, name)
        found = [*await keyboard_findings(self.screen), *await findings(self.screen)]
        if found:
            self.wrong[name] = found
        return page


BOTH = (LOOKS[0], LOOKS[-1])
"""Both languages and both sizes of type; where pictures are kept (ZHENFU_SCREENSHOTS), all four looks."""

Tour = Callable[[Gallery], Awaitable[None]]


@asynccontextmanager
async def a_gallery(postgres: EmbeddedPostgres, browser: Browser, look: Look, room: str) -> AsyncIterator[Gallery]:
    """A hospital of its own for each room."""
    async with AsyncExitStack() as stack:
        database = stack.enter_context(a_migrated_database(postgres))
        context = await stack.enter_async_context(TortoiseContext())
        await context.init(configuration(database.app_dsn))
        house = await House.build(settings=SETTINGS, sms=True)
        house.chat.set_web_domain(house.service_app_id, urlsplit(PUBLIC_URL).netloc)
        await house.setup.payment_method(
            house.institution_id,
            merchant_account_id=house.merchant_account_id,
            code=H5_METHOD,
            app_id=house.service_app_id,
        )
        await Institution.filter(id=house.institution_id).update(name_en="Renhe Hospital", phone="010-12345678")
        app = build_app(
            house.services,
            session_key=b"k" * 32,
            page_wait_seconds=PAGE_WAIT_SECONDS,
            tap_wait_seconds=PAGE_WAIT_SECONDS,
        )
        base_url = await stack.enter_async_context(serve(app))
        screen = await browser.new_page(**PHONE)
        stack.push_async_callback(screen.close)
        made = Gallery(
            house=house,
            base_url=base_url,
            stack=stack,
            screen=screen,
            look=look,
            album=Album(story=f"pages-{room}", look=look),
        )
        await screen.route("**/*", made.answer)
        yield made


async def change_settings(house: House, **settings: Any) -> None:
    await Institution.filter(id=house.institution_id).update(settings={**SETTINGS, **settings})


async def code_on(house: House, phone: str) -> str:
    await house.settle(within=timedelta(seconds=30))
    found = re.search(r"验证码(\d{6})", house.sms.messages(phone)[-1].text)
    assert found
    return found[1]


def typed(house: House, his_patient_id: str, **changes: str) -> dict[str, str]:
    person = house.his.patients[his_patient_id]
    kind, number = person.identifiers[0]
    return {"name": person.name, "document": kind, "number": number, "phone": person.phones[0], **changes}


# ---------------------------------------------------------------- the rooms of the gallery


async def outside(it: Gallery) -> None:
    web = await it.person()
    await it.see("unknown-paper", await web.get("/p/unknown"), status=404)
    await it.see("unknown-hospital", await web.get("/h/nobody/"), status=404)
    token = await paper_of(it.house, it.house.bill())
    stranger = await it.person("路人", "19900000098", agent=BROWSER)
    await it.see("outside-wechat", await stranger.get(f"/p/{token}"), status=403)
    await it.house.setup.institution(code="bare", name_zh="没有公众号的医院", settings={})
    await it.see("no-account", await web.get("/h/bare/"), status=403)
    await it.see("not-signed-in", await web.get(f"{HOME}back?state=other&code=other"), status=401)


async def papers(it: Gallery) -> None:
    house, web = it.house, await it.person()
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await it.see("paper-consent", await web.get(f"/p/{token}"))
    page = await it.see("paper-not-agreed", await web.submit(page, "/consent", tick=False), status=422)
    page = await it.see("paper-factor", await web.submit(page, "/consent"))
    page = await it.see("paper-factor-wrong", await web.submit(page, "/factor", factor="9999"), status=422)
    page = await it.see("paper-open", await web.submit(page, "/factor", factor="0001"))
    house.bill(total_fen=1200, kind="treatment")
    house.bill(total_fen=2350, kind="chinese")
    await it.see("paper-with-others", await web.get(f"/p/{token}"))
    thief = await it.person("路人", "19900000098")
    page = await thief.submit(await thief.get(f"/p/{token}"), "/consent")
    for number in range(5):
        page = await thief.submit(page, "/factor", factor=f"999{number}")
    await it.see("paper-locked", await thief.submit(page, "/factor", factor="0001"), status=429)
    person = house.his.patients[LABOURER]
    house.his.patients[LABOURER] = replace(person, phones=(), identifiers=())
    await it.see("paper-to-window", await web.get(f"/p/{await paper_of(house, house.bill(LABOURER))}"))
    house.his.patients[LABOURER] = replace(person, phones=())
    only_card = await paper_of(house, house.bill(LABOURER))
    await it.see("paper-document-only", await web.get(f"/p/{only_card}"))
    house.his.patients[LABOURER] = replace(person, identifiers=())
    await it.see("paper-phone-only", await web.get(f"/p/{only_card}"))


async def paying(it: Gallery) -> None:
    house, web = it.house, await it.person()
    token = await paper_of(house, bill := house.bill(total_fen=8650))
    page = await web.opens(token)
    changed = page
    house.his.change_amount(bill, 9650)
    await it.see("amount-changed", await web.submit(changed, "/pay"), status=409)
    page = await it.see("pay-sheet", await web.begins(await web.get(f"/p/{token}")))
    order = page.path.partition("?")[0]
    await it.see("paper-being-paid", await web.get(f"/p/{token}"))
    other = await it.person("王丽", "19900000011")
    theirs = await it.see("paper-paid-by-other", await other.opens(token, factor="0011"))
    house.faults.script("wechatpay.request_lost", key=order.rpartition("/")[2], times=9)
    await it.see("open-elsewhere", await other.begins(theirs), status=409)
    house.faults.clear()
    await it.see("cancelled", await web.submit(await web.get(order), "/cancel"))
    page = await web.begins(await web.get(f"/p/{token}"))
    assert web.confirms(page) == "paid"
    house.clock.advance(timedelta(seconds=4))
    waiting = page.path.partition("?")[0]
    await it.see("confirming", await web.get(waiting))
    await it.see("paper-confirming", await web.get(f"/p/{token}"))
    await house.settle()
    await it.see("paid", await web.get(waiting))
    await it.see("paper-paid", await web.get(f"/p/{token}"))
    await it.see("just-paid", await web.get(f"{waiting}?watch=1"))


async def money_back(it: Gallery) -> None:
    house, web = it.house, await it.person()
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.begins(await web.opens(token))
    assert web.confirms(page) == "paid"
    house.faults.script("hospital.bill_paid_at_window_meanwhile")
    house.faults.script("wechatpay.refund_slow")
    await house.settle(within=timedelta(minutes=30))
    order = page.path.partition("?")[0]
    await it.see("returning", await web.get(order))
    await house.settle(within=timedelta(days=9))
    await it.see("returned", await web.get(order))
    await it.see("paper-returned", await web.get(f"/p/{token}"))
    page = await web.get(f"/p/{await paper_of(house, house.bill(total_fen=1200))}")
    page = await web.begins(await web.submit(page, "/factor", factor="0001"))
    held_order = page.path.partition("?")[0]
    payment = await house.payment(held_order.rpartition("/")[2])
    await house.services.applier.apply(
        Evidence(
            order_no=payment.order_no,
            kind="trade",
            source="wechatpay",
            proves="paid",
            proof_kind=ProofKind.VERIFIED_NOTICE,
            facts={"ever_paid": True, "paid_fen": 1100, "paid_at": "2026-05-06T03:00:00+00:00"},
        )
    )
    await it.see("checking", await web.get(held_order))


async def bills(it: Gallery) -> None:
    house, web = it.house, await it.person()
    await it.see("list-nobody", await web.get(HOME))
    await it.see("paid-nobody", await web.get(f"{HOME}paid"))
    await it.see("patients-none", await web.get(f"{HOME}patients"))
    page = await it.see("bind", await web.get(f"{HOME}bind"))
    wrong = typed(house, "P10001", number="110101199003070000")
    page = await it.see("bind-wrong", await web.submit(page, "/bind", wrong), status=400)
    page = await it.see("bind-code", await web.submit(page, "/bind", typed(house, "P10001")))
    code = await code_on(house, "19900000001")
    other = "000000" if code != "000000" else "000001"
    page = await it.see("bind-code-wrong", await web.submit(page, "/bind/code", code=other), status=422)
    await it.see("list-nothing", await web.submit(page, "/bind/code", code=code))
    house.clock.advance(timedelta(minutes=2))
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", typed(house, LABOURER))
    await web.submit(page, "/bind/code", code=await code_on(house, "19900000005"))
    first, second, lapsed = house.bill(total_fen=8650), house.bill(total_fen=123456, insured=True), house.bill()
    house.his.cancel(lapsed)
    page = await it.see("list", await web.get(HOME))
    address = {bill: next(url for url, _ in page.read.links if url.endswith(bill)) for bill in (first, second)}
    await it.see("bill", await web.get(address[first]))
    await it.see("bill-insured", await web.get(address[second]))
    await change_settings(house, insured_online="second_tap")
    await it.see("bill-second-tap", await web.get(address[second]))
    await it.see("bill-cancelled", await web.get(address[first].replace(first, lapsed)))
    page = await web.begins(await web.get(address[first]))
    assert web.confirms(page) == "paid"
    house.his.window_pay(second)
    await house.settle()
    await it.see("list-all-paid", await web.get(HOME))
    await it.see("paid-list", await web.get(f"{HOME}paid"))
    await it.see("patients", await web.get(f"{HOME}patients"))


async def privacy(it: Gallery) -> None:
    house, web = it.house, await it.person()
    page = await it.see("privacy-none", await web.get(f"{HOME}privacy"))
    await it.see("sms-not-agreed", await web.submit(page, "/privacy/sms", tick=False, phone="19900000001"), status=422)
    page = await it.see("sms-code", await web.submit(page, "/privacy/sms", phone="19900000001"))
    page = await it.see("sms-code-wrong", await web.submit(page, "/privacy/code", code="abc"), status=422)
    page = await web.submit(page, "/privacy/code", code=await code_on(house, "19900000001"))
    page = await it.see("privacy-sms-on", page)
    await it.see("privacy-withdrawn", await web.submit(page, "/withdraw"))


async def waiting(it: Gallery) -> None:
    house, web = it.house, await it.person()
    page = await it.see("scan", await web.get(f"{HOME}scan"))
    await it.see("scan-unknown", await web.submit(page, "/scan", number="NOSUCHBILL"), status=404)
    bill = house.bill(total_fen=8650)
    token = await paper_of(house, bill)
    opened = await web.opens(token)
    his: Held = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    web.is_patient = False  # a page that waits is shown as it is
    await it.see("scan-asking", await web.submit(page, "/scan", number=bill), status=202)
    await it.see("paper-asking", await web.get(f"/p/{token}"), status=202)
    his.let_go("get_bill")
    his.hold("lock_bills")
    await it.see("tap-working", await web.begins(opened), status=202)
    his.let_go("lock_bills")
    web.is_patient = True
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", typed(house, LABOURER))
    page = await web.submit(page, "/bind/code", code=await code_on(house, "19900000005"))
    his.hold("list_bills")
    web.is_patient = False
    await it.see("list-asking", await web.get(page.path))
    his.let_go("list_bills")
    house.faults.rate("hospital.request_lost", 1.0)
    await it.see("list-silent", await web.get(page.path))
    await it.see("paper-silent", await web.get(f"/p/{await paper_of(house, house.bill())}"), status=503)
    house.faults.clear()
    form = {"form": "old", "agreed": "yes"}
    await it.see("form-stale", await web.post(f"/p/{token}/consent", form), status=403)
    await change_settings(house, paper_code="off")
    await it.see("scan-off", await web.get(f"{HOME}scan"))
    await ChatAccountRow.filter(institution_id=house.institution_id, platform="sms").update(templates={})
    await it.see("bind-without-sms", await web.get(f"{HOME}bind"))


ROOMS: tuple[Tour, ...] = (outside, papers, paying, money_back, bills, privacy, waiting)


@pytest.mark.parametrize("look", LOOKS if SCREENSHOTS else BOTH, ids=str)
async def test_every_page_can_be_used_by_everybody(postgres: EmbeddedPostgres, browser: Browser, look: Look) -> None:
    wrong: dict[str, list[str]] = {}
    for room in ROOMS:
        async with a_gallery(postgres, browser, look, room.__name__) as gallery:
            await room(gallery)
            wrong |= gallery.wrong
    assert wrong == {}
