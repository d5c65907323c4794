"""Signing in on pages: silently inside the app, a clear page everywhere else; forms that nobody else can send."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from core.errors import OutcomeUnknown
from core.models import Consent, Payer
from miniprogram_api.limits import ASK
from simulators.kit import Request, exchange
from tests.miniprogram_api.conftest import NewWeb
from tests.miniprogram_api.web import BROWSER, OPEN_URL, Page, Web, paper_of
from tests.support.fakes import held
from tests.support.house import PUBLIC_URL, House

HOME = "/h/renhe/"


@pytest.fixture
def his() -> dict[str, Any]:
    return {"settings": {"paper_code": "his_asks"}}


async def a_code(web: Web, location: str) -> str:
    """The platform's answer to where a page has sent its user: a path on our server."""
    target = location.removeprefix(OPEN_URL).partition("#")[0]
    request = Request(method="GET", target=target, headers={"cookie": f"sandbox_person={web.user}"})
    answer = await exchange(web.house.chat, request)
    return answer.headers["location"].removeprefix(PUBLIC_URL)


def cookies_of(page: Page) -> str:
    return page.headers.get("set-cookie", "")


async def test_a_page_inside_the_app_signs_its_reader_in_without_a_word(house: House, web: Web) -> None:
    first = await web.once("GET", HOME)
    assert first.status == 302
    said = parse_qs(urlsplit(first.headers["location"]).query)
    assert said["appid"] == [house.service_app_id]
    assert said["scope"] == ["snsapi_base"]
    assert said["redirect_uri"] == [f"{PUBLIC_URL}/h/renhe/back"]
    (state,) = said["state"]
    assert state.isalnum()
    assert len(state) <= 64
    for part in ("HttpOnly", "SameSite=Lax", "Path=/"):
        assert part in cookies_of(first)
    back = await web.once("GET", await a_code(web, first.headers["location"]))
    assert (back.status, back.headers["location"]) == (303, HOME)
    for part in ("zhenfu_session=z1.", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert part in cookies_of(back)
    assert "Secure" not in cookies_of(back)  # this house has no https
    assert (await web.once("GET", HOME)).status == 200
    payer = await web.payer()
    assert payer.language == "zh"


async def test_the_page_that_was_wanted_opens_after_the_sign_in(web: Web) -> None:
    page = await web.get(f"{HOME}paid?x=1")
    assert page.path == "/h/renhe/paid?x=1"
    assert len(page.hops) == 2


async def test_an_ordinary_browser_is_told_where_to_open_the_page(house: House, new_web: NewWeb) -> None:
    plain = await new_web("anybody", "19900000077", agent=BROWSER)
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await plain.get(f"/p/{token}")
    assert page.status == 403
    assert "请用微信打开" in page.text
    assert "<svg" in page.html
    assert "王*兰" not in page.text
    plain.language = "en"
    assert "Please open this in WeChat" in (await plain.get(HOME)).text
    assert await Payer.all().count() == 0


async def test_a_hospital_without_an_account_on_this_app_says_so(house: House, web: Web) -> None:
    code = "elsewhere"
    await house.setup.institution(code=code, name_zh="别处医院")
    page = await web.get(f"/h/{code}/")
    assert page.status == 403
    assert "别处医院" in page.text
    assert "医院没有开通在这里缴费" in page.text


async def test_somebody_elses_way_back_is_refused(web: Web, new_web: NewWeb) -> None:
    """A link with the code of another person must not sign this one in as him."""
    other = await new_web("other", "19900000077")
    theirs = await a_code(other, (await other.once("GET", HOME)).headers["location"])
    page = await web.once("GET", theirs)
    assert page.status == 401
    assert "没有登录成功" in page.text
    await web.once("GET", HOME)  # with a state of his own
    page = await web.once("GET", theirs)
    assert page.status == 401
    assert "zhenfu_session" not in cookies_of(page)


async def test_a_code_works_once_and_the_page_says_how_to_go_on(web: Web) -> None:
    first = await web.once("GET", f"{HOME}paid")
    back = await a_code(web, first.headers["location"])
    kept = cookies_of(first).partition(";")[0]
    assert (await web.once("GET", back)).status == 303
    web.http.cookie_jar.clear()
    again = await web.once("GET", back, None, cookie=kept)
    assert again.status == 401
    assert again.link("再试一次") == "/h/renhe/paid"
    assert (await web.get(again.link("再试一次"))).status == 200


async def test_a_request_that_the_app_sends_twice_is_no_failure(web: Web) -> None:
    """The second copy of the way back finds the session that the first has brought."""
    first = await web.once("GET", HOME)
    back = await a_code(web, first.headers["location"])
    assert (await web.once("GET", back)).status == 303
    again = await web.once("GET", back)
    assert again.status == 303


@pytest.mark.parametrize(
    ("fault", "said"),
    [("code_used_40163", "没有登录成功"), ("snapshot_user", "使用完整服务"), ("answer_lost", "再试一次")],
)
async def test_a_platform_that_does_not_say_who_it_is_leads_to_no_loop(
    house: House, web: Web, fault: str, said: str
) -> None:
    house.faults.script(f"{house.chat.name}.{fault}", times=2)
    page = await web.get(f"{HOME}paid")
    assert page.status == 401
    assert said in page.text
    assert await Payer.all().count() == 0
    house.faults.clear()
    assert (await web.get(page.link("再试一次"))).status == 200


async def test_a_platform_that_is_silent_is_not_waited_for_long(house: House, web: Web) -> None:
    first = await web.once("GET", HOME)
    back = await a_code(web, first.headers["location"])
    held(house.services.outside.platforms, "wechat_service").fail("sign_in", OutcomeUnknown("silent"))
    page = await web.once("GET", back)
    assert page.status == 401
    assert page.link("再试一次") == HOME


async def test_on_https_no_other_host_can_set_the_cookies_of_a_session(house: House, web: Web) -> None:
    object.__setattr__(house.services.outside, "public_url", PUBLIC_URL.replace("http:", "https:"))
    first = await web.once("GET", HOME)
    begun = cookies_of(first).partition(";")[0]
    back = (await a_code(web, first.headers["location"])).removeprefix(PUBLIC_URL.replace("http:", "https:"))
    assert (await web.once("GET", back, None, cookie=begun.removeprefix("__Host-"))).status == 401
    done = await web.once("GET", back, None, cookie=begun)
    assert done.status == 303
    for page, cookie in ((first, "__Host-zhenfu_sign_in="), (done, "__Host-zhenfu_session=z1.")):
        (said,) = (line for line in cookies_of(page).splitlines() if line.startswith(cookie))
        assert {"Path=/", "Secure", "HttpOnly"} <= {part.strip() for part in said.split(";")}
        assert "domain" not in said.lower()
    session = next(line for line in cookies_of(done).splitlines() if "session" in line).partition(";")[0]
    assert (await web.once("GET", HOME, None, cookie=session)).status == 200
    assert (await web.once("GET", HOME, None, cookie=session.removeprefix("__Host-"))).status == 302


@pytest.mark.parametrize("name", ["zhenfu_sign_in", "zhenfu_session"])
@pytest.mark.parametrize("value", ["状态.L2gvcmVuaGUv", "é", "z1.é.é", '"\\351"'])
async def test_a_cookie_that_nobody_of_ours_wrote_is_no_failure(web: Web, name: str, value: str) -> None:
    page = await web.once("GET", f"{HOME}back?state=abc&code=abc", None, cookie=f"{name}={value}")
    assert page.status == 401
    assert (await web.once("GET", HOME, None, cookie=f"{name}={value}")).status == 302


async def test_a_session_of_another_hospital_opens_nothing_here(house: House, web: Web) -> None:
    await web.get(HOME)
    other = await house.setup.institution(code="other", name_zh="别处医院")
    official = house.chat.add_official_account("别处医院")
    house.chat.set_web_domain(official.app_id, "house.test")
    await house.setup.chat_account(
        other, platform="wechat_service", app_id=official.app_id, params={"secret": official.secret}
    )
    once = await web.once("GET", "/h/other/")
    assert once.status == 302
    assert f"appid={official.app_id}" in once.headers["location"]


async def test_a_session_ends_and_is_begun_again(house: House, web: Web) -> None:
    await web.get(HOME)
    house.clock.advance(timedelta(hours=13))
    page = await web.get(f"{HOME}privacy")
    assert page.status == 200
    assert len(page.hops) == 2


# ---------------------------------------------------------------- forms


async def test_forms_are_bound_to_their_session(house: House, web: Web, new_web: NewWeb) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.get(f"/p/{token}")
    other = await (await new_web("other", "19900000077")).get(f"/p/{token}")
    fields = {**page.form("/consent").fields, "agreed": "yes"}
    for stolen in ("", "0" * 64, other.form("/consent").fields["form"], "中"):
        refused = await web.post(f"/p/{token}/consent", {**fields, "form": stolen})
        assert refused.status == 403
        assert "页面打开太久了" in refused.text
    assert await Consent.all().count() == 0


@pytest.mark.parametrize(
    ("header", "value"),
    [("origin", "https://evil.test"), ("referer", "https://evil.test/x"), ("sec-fetch-site", "cross-site")],
)
async def test_a_form_on_somebody_elses_page_is_refused(house: House, web: Web, header: str, value: str) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.get(f"/p/{token}")
    fields = {**page.form("/consent").fields, "agreed": "yes"}
    refused = await web.post(f"/p/{token}/consent", fields, **{header: value})
    assert refused.status == 403
    assert await Consent.all().count() == 0
    look = await web.once("POST", "/h5/look", {"back": HOME, "care": "on"}, **{header: value})
    assert look.status == 403


@pytest.mark.parametrize("origin", ["null", PUBLIC_URL])
async def test_our_own_pages_may_send_forms(house: House, web: Web, origin: str) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.get(f"/p/{token}")
    fields = {**page.form("/consent").fields, "agreed": "yes"}
    sent = {"origin": origin, "sec-fetch-site": "same-origin"}
    assert (await web.post(f"/p/{token}/consent", fields, **sent)).has_form("/factor")


async def test_a_form_sent_after_the_session_has_ended_comes_back_to_its_page(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.get(f"/p/{token}")
    house.clock.advance(timedelta(hours=13))
    page = await web.submit(page, "/consent")
    assert page.path == f"/p/{token}"
    assert page.has_form("/consent")
    assert await Consent.all().count() == 0


# ---------------------------------------------------------------- how pages look, what they may do


async def test_large_type_and_language_are_kept(web: Web) -> None:
    page = await web.get(f"{HOME}paid")
    assert 'data-weui-mode="care"' not in page.html
    page = await web.submit(page, "/h5/look")
    assert page.path == "/h/renhe/paid"
    assert 'data-weui-mode="care"' in page.html
    form = page.form("/h5/look")
    page = await web.post("/h5/look", {**form.fields, "language": "en"})
    assert page.read.language == "en"
    assert 'data-weui-mode="care"' in page.html
    assert "Normal type" in page.text


@pytest.mark.parametrize("target", ["//evil.test/", "https://evil.test/h/x/", "/api/docs", "/h//evil", "/h/a\r\nx: y"])
async def test_the_way_back_leads_to_our_pages_only(web: Web, target: str) -> None:
    answer = await web.once("POST", "/h5/look", {"back": target, "care": "on"})
    assert answer.headers["location"] == "/"


async def test_every_page_says_what_it_may_load_and_is_kept_nowhere(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    opened = await web.opens(token)
    paying = await web.begins(opened)
    pages = [opened, paying, await web.get("/p/unknown")]
    pages += [await web.get(f"{HOME}{path}") for path in ("", "paid", "scan", "bind", "patients", "privacy", "nowhere")]
    for page in pages:
        policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["style-src"] == "'self'"
        assert "unsafe" not in page.headers["content-security-policy"]
        assert (page.read.scripts > 0) == policy["script-src"].startswith("'self'")
        if page.status == 200:
            assert policy["form-action"] == f"'self' {OPEN_URL}"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.read.styled == []
        assert all(url.startswith("/h5/static/") for url in page.read.loaded if not url.startswith("data:"))
        assert page.read.title.endswith("仁和医院") or page.status == 404
        assert len(page.html) < 12_000


async def test_styles_and_scripts_come_packed_and_stay(web: Web) -> None:
    page = await web.get(f"{HOME}scan")
    addresses = [url for url in page.read.loaded if not url.startswith("data:")]
    assert len(addresses) == 3
    for address in addresses:
        answer = await web.once("GET", address)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        name = address.rpartition("/")[2]
        assert (await web.once("GET", f"/h5/static/000000000000/{name}")).status == 404


async def test_nothing_personal_in_logs_and_addresses(house: House, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bill_id = house.bill(total_fen=8650)
    paying = await web.begins(await web.opens(await paper_of(house, bill_id)))
    said = "\n".join(f"{record.getMessage()} {record.__dict__.get('fields', '')}" for record in caplog.records)
    addresses = "\n".join([paying.path, *paying.hops, *(url for url, _ in paying.read.links)])
    person = house.his.patients["P10001"]
    open_id = house.chat.open_id(web.user, house.service_app_id)
    for secret in (person.name, *person.phones, *(value for _, value in person.identifiers), open_id, "P10001"):
        assert secret not in said
        assert secret not in addresses
        assert secret not in paying.html


async def test_who_asks_too_often_is_told_to_wait(house: House, web: Web) -> None:
    await web.get(HOME)
    payer = await web.payer()
    for _ in range(ASK.most):
        await house.services.outside.limiter.allow(f"api:{ASK.name}:{payer.id}", limit=ASK.most, per=ASK.per)
    page = await web.get(HOME)
    assert page.status == 429
    assert "操作太频繁" in page.text
