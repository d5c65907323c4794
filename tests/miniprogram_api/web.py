"""A phone's browser inside the chat app: keeps cookies, follows redirects, reads pages, fills in forms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from core.models import ChatAccountRow, Payer
from simulators.kit import Request, exchange
from tests.support.house import PUBLIC_URL, House

WECHAT = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Mobile MicroMessenger/8.0.50 Language/zh_CN"
BROWSER = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36"
OPEN_URL = "https://open.weixin.qq.com"
CODE = "renhe"
H5_METHOD = "wechatpay/jsapi/wechat"
REDIRECTS_MAX = 12
WAITING = ("正在向医院查询", "正在办理", "Asking the hospital", "Working on it")
_VOID = frozenset({"input", "meta", "link", "br", "hr", "img"})


@dataclass(kw_only=True)
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    ticks: dict[str, bool] = field(default_factory=dict)  # check boxes, and whether they were ticked for us
    buttons: list[tuple[str, str, str]] = field(default_factory=list)  # name, value, words
    labelled: set[str] = field(default_factory=set)
    required: set[str] = field(default_factory=set)


class Reader(HTMLParser):
    """A page as a person and a program may read it; a tag that is not closed is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words: list[str] = []
        self.forms: list[Form] = []
        self.links: list[tuple[str, str]] = []  # address, words
        self.title = ""
        self.language = ""
        self.refresh = ""
        self.loaded: list[str] = []  # styles and scripts
        self.scripts = 0
        self.styled: list[str] = []
        self.data: dict[str, dict[str, str]] = {}  # id → data-… of that element
        self._link: tuple[str, list[str]] | None = None
        self._button: tuple[str, str, list[str]] | None = None
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        names = {name for name, _ in attrs}
        if tag not in _VOID:
            self.open.append(tag)
        if "style" in names or any(name.startswith("on") for name in names):
            self.styled.append(tag)
        if "id" in has:
            self.data[has["id"]] = {name[5:]: value for name, value in has.items() if name.startswith("data-")}
        match tag:
            case "html":
                self.language = has.get("lang", "")
            case "meta" if has.get("http-equiv") == "refresh":
                self.refresh = has["content"].partition("url=")[2]
            case "link":
                self.loaded.append(has["href"])
            case "script":
                self.scripts += 1
                self.loaded.append(has["src"])
            case "form":
                self.forms.append(Form(action=has["action"], method=has.get("method", "get")))
            case "a":
                self._link = (has["href"], [])
            case "button":
                self._button = (has.get("name", ""), has.get("value", ""), [])
            case "select" | "textarea" | "input":
                self._field(tag, has, names)
            case "option" if self._select and (self._select not in self.forms[-1].fields or "selected" in names):
                self.forms[-1].fields[self._select] = has["value"]

    def _field(self, tag: str, has: Mapping[str, str], names: set[str]) -> None:
        form, name = self.forms[-1], has["name"]
        if "label" in self.open or has.get("type") == "hidden":
            form.labelled.add(name)
        if "required" in names:
            form.required.add(name)
        if has.get("type") == "checkbox":
            form.ticks[name] = "checked" in names
        elif tag == "select":
            self._select = name
        else:
            form.fields[name] = has.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"<{self.open[-1]}> is not closed before </{tag}>"
        self.open.pop()
        if tag == "a" and self._link:
            self.links.append((self._link[0], "".join(self._link[1]).strip()))
            self._link = None
        elif tag == "button" and self._button:
            name, value, words = self._button
            if self.forms and "form" in self.open:
                self.forms[-1].buttons.append((name, value, "".join(words).strip()))
            self._button = None
        elif tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if "title" in self.open and "svg" not in self.open:
            self.title += data
        elif "body" in self.open:
            self.words.append(data)
        if self._link:
            self._link[1].append(data)
        if self._button:
            self._button[2].append(data)


@dataclass(frozen=True, kw_only=True)
class Page:
    status: int
    url: str
    headers: Mapping[str, str]
    html: str
    read: Reader
    hops: tuple[str, ...]  # every address on the way here

    @property
    def text(self) -> str:
        """The words of the page, blanks made one."""
        return " ".join(" ".join(self.read.words).split())

    def text_says(self, *texts: str) -> bool:
        return any(text in self.text for text in texts)

    @property
    def path(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def form(self, ending: str) -> Form:
        found = [form for form in self.read.forms if form.action.endswith(ending)]
        assert len(found) == 1, (ending, [form.action for form in self.read.forms], self.text)
        return found[0]

    @property
    def waiting_form(self) -> Form | None:
        """The form that a page sends again by itself while the hospital is asked."""
        return next((form for form in self.read.forms if "ticket" in form.fields), None)

    def has_form(self, ending: str) -> bool:
        return any(form.action.endswith(ending) for form in self.read.forms)

    def link(self, words: str) -> str:
        found = {address for address, said in self.read.links if words in said}
        assert len(found) == 1, (words, self.read.links)
        return found.pop()


@dataclass(kw_only=True)
class Web:
    """One person's browser. `user` is the person on the chat platform, empty for an ordinary browser."""

    house: House
    base_url: str
    http: aiohttp.ClientSession
    user: str = ""
    agent: str = WECHAT
    language: str = "zh-CN,zh;q=0.9"
    is_patient: bool = True  # waits with a page that waits for the hospital

    async def get(self, address: str) -> Page:
        return await self._go("GET", address, None)

    async def post(self, address: str, fields: Mapping[str, str], **headers: str) -> Page:
        return await self._go("POST", address, fields, **headers)

    async def submit(
        self, page: Page, ending: str, values: Mapping[str, str] | None = None, *, tick: bool = True, **named: str
    ) -> Page:
        """Fill in the form whose address ends so, tick its boxes, and press its first button."""
        form = page.form(ending)
        assert form.method == "post"
        fields = {**form.fields, **(values or {}), **named}
        fields |= dict.fromkeys(form.ticks, "yes") if tick else {}
        name, value, _ = form.buttons[0]
        if name:
            fields[name] = value
        answer = await self.post(urljoin(page.path, form.action), fields)
        while self.is_patient and answer.status == 202 and (waiting := answer.waiting_form):
            await asyncio.sleep(0.2)
            answer = await self.post(waiting.action, waiting.fields)
        return answer

    async def once(self, method: str, address: str, fields: Mapping[str, str] | None = None, **headers: str) -> Page:
        """A single request, without going on."""
        url = address if address.startswith("http") else self.base_url + address
        sent = {"user-agent": self.agent, "accept-language": self.language, **headers}
        async with self.http.request(method, url, data=fields, headers=sent, allow_redirects=False) as answer:
            html = await answer.text()
            read = Reader()
            if answer.headers.get("content-type", "").startswith("text/html") and html:
                read.feed(html)
                read.close()
                assert read.open == [], read.open
            return Page(
                status=answer.status,
                url=url,
                headers={name.lower(): "\n".join(answer.headers.getall(name)) for name in answer.headers},
                html=html,
                read=read,
                hops=(),
            )

    async def _go(self, method: str, address: str, fields: Mapping[str, str] | None, **headers: str) -> Page:
        hops: list[str] = []
        for _ in range(REDIRECTS_MAX):
            page = await self.once(method, address, fields, **headers)
            method, fields, headers = "GET", None, {}
            if self.is_patient and page.read.refresh and page.text_says(*WAITING):
                await asyncio.sleep(0.2)
                address = page.read.refresh
                continue
            if page.status not in (302, 303):
                return Page(**{**page.__dict__, "hops": tuple(hops)})
            address = await self._follow(page.url, page.headers["location"])
            hops.append(address)
        raise AssertionError(f"round and round: {hops}")

    async def _follow(self, url: str, location: str) -> str:
        """The next address on our server; the platform's own sign-in is passed on the way."""
        if not location.startswith(OPEN_URL):
            return urljoin(url, location)
        target = location.removeprefix(OPEN_URL).partition("#")[0]
        request = Request(method="GET", target=target, headers={"cookie": f"sandbox_person={self.user}"})
        answer = await exchange(self.house.chat, request)
        assert answer.status == 302, answer.body.decode()
        return self.base_url + answer.headers["location"].removeprefix(PUBLIC_URL)

    # ------------------------------------------------------------ what a person does

    async def payer(self) -> Payer:
        """Who this person is to us, once signed in."""
        account = await ChatAccountRow.get(institution_id=self.house.institution_id, platform="wechat_service")
        open_id = self.house.chat.open_id(self.user, self.house.service_app_id)
        lookup = self.house.services.outside.keyring.lookup(open_id, place="payer.open_id")
        return await Payer.get(
            institution_id=self.house.institution_id, chat_account_id=account.id, open_id_lookup=lookup
        )

    async def opens(self, token: str, factor: str = "0001") -> Page:
        """A paper, up to its bill."""
        page = await self.get(f"/p/{token}")
        page = await self.submit(page, "/consent")
        assert page.status == 200, page.text
        if page.has_form("/factor"):
            page = await self.submit(page, "/factor", factor=factor)
        assert page.status == 200, page.text
        return page

    async def begins(self, page: Page) -> Page:
        """Tap on the button to pay; the page with the pay sheet."""
        return await self.submit(page, "/pay")

    def sheet(self, page: Page) -> dict[str, Any]:
        """What the page hands to the app's pay sheet."""
        values = json.loads(page.read.data["sheet"]["values"])
        assert isinstance(values, dict)
        return values

    def confirms(self, page: Page) -> str:
        """The person confirms the pay sheet."""
        return str(self.house.pay.pay_with(self.sheet(page)))


async def paper_of(house: House, bill_id: str) -> str:
    """The token that a HIS which asks us would print for this bill."""
    site = await house.services.institutions.site(house.institution_id, house.site_id)
    return await house.services.papers.link(site, bill_id)
