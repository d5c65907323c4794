"""What people do from the first word to the receipt: one person, and the scripts that he may follow."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from core.money import Fen, yuan_text
from simulators.hospital_stock import Person as HisPerson
from tests.miniprogram_api.web import Page, paper_of
from tests.support.crowd import Crowd, EagerWeb
from tests.support.house import PUBLIC_URL

HOME = "/h/renhe/"
WAITING = frozenset({"paying", "confirming", "returning"})
ASKING = ("正在向医院查询", "Asking the hospital")
CHOICES = ("您可以回复", "You can reply")
PAY_LINK = re.compile(r'<a href="([^"]+)">(?:去缴费|Pay)</a>')
BILL_WORDS = ("缴费", "我要交费！", "帳單", "付款" * 5000)
FACTOR_LOOKS_MAX = 30
NOISE = ("👍👍🙏", "……", "啊" * 10_000, "qwerty", "你们好呀", "<xml></xml>", "😷")


@dataclass(kw_only=True)
class Talker:
    """One person: a patient of the hospital with one bill, who has the chat app."""

    crowd: Crowd
    number: int
    rng: random.Random
    his: HisPerson
    user: str
    web: EagerWeb
    english: bool
    amount_fen: int
    bill_id: str = ""
    papers: list[str] = field(default_factory=list)  # tokens
    codes: list[str] = field(default_factory=list)  # read in text messages
    orders_wanted: int = 0  # in the channel's books
    paid_wanted: int = 0
    returned: bool = False
    end: str = ""

    @property
    def amount(self) -> str:
        return f"¥{yuan_text(Fen(self.amount_fen))}"

    @property
    def app_id(self) -> str:
        return self.crowd.house.service_app_id

    # ------------------------------------------------------------ the chat

    async def follows(self) -> None:
        welcome = await self.told(lambda: self.crowd.house.chat.follow(self.user, self.app_id))
        assert "仁和医院" in welcome, welcome

    async def says(self, text: str) -> str:
        return await self.told(lambda: self.crowd.house.chat.chat.say(self.user, self.app_id, text))

    async def told(self, act: Callable[[], object]) -> str:
        """What is said to this in the end, also when the hospital has to be asked for long."""
        house = self.crowd.house
        await self.crowd.pause(0.5)
        before = len(house.said(self.user))
        act()
        await self.crowd.until(lambda: len(house.said(self.user)) > before, "an answer in the chat")
        if house.said(self.user)[before].startswith(ASKING):
            await self.crowd.until(lambda: len(house.said(self.user)) > before + 1, "the hospital's answer")
            before += 1
        return house.said(self.user)[before]

    async def chatters(self) -> None:
        """Now and then, things that mean nothing to us."""
        chat = self.crowd.house.chat.chat
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            if self.rng.random() < 0.3:
                picture = f"https://picture.test/{self.number}.jpg"
                said = await self.told(lambda: chat.show_picture(self.user, self.app_id, picture))  # noqa: B023
                assert "/h/renhe/scan" in said, said
            else:
                said = await self.says(self.rng.choice(NOISE))
                assert said.startswith(CHOICES), said

    async def asks_for_bills(self) -> str:
        """By text, by voice or from the menu."""
        chat = self.crowd.house.chat.chat
        if self.english:
            return await self.says("I want to pay my bill")
        way = self.rng.choice(("text", "voice", "menu"))
        if way == "text":
            return await self.says(self.rng.choice(BILL_WORDS))
        if way == "voice":
            return await self.told(lambda: chat.speak(self.user, self.app_id, "我要缴费。"))
        return await self.told(lambda: chat.click(self.user, self.app_id, "zhenfu.owed"))

    async def opens_link(self, answer: str) -> Page:
        """The bill that the chat has named."""
        assert self.amount in answer, answer
        (address,) = [url for url in PAY_LINK.findall(answer) if url.endswith(self.bill_id)]
        page = await self.web.get(address.removeprefix(PUBLIC_URL))
        assert (page.status, self.amount in page.text) == (200, True), page.text
        return page

    async def asks_for_payments(self, words: tuple[str, ...]) -> None:
        answer = await self.says("my payment history" if self.english else "查询")
        assert self.amount in answer, answer
        assert any(word in answer for word in words), answer

    # ------------------------------------------------------------ pages

    async def begins(self, page: Page) -> Page:
        """Tap on the button to pay, perhaps more than once; the page with the pay sheet."""
        page = await self.web.begins(page)
        assert page.status == 200, [(answer.status, answer.text) for answer in self.web.answers]
        named = {path_of(answer.headers["location"]) for answer in self.web.answers if answer.status == 303}
        self.orders_wanted += 1
        while "sheet" not in page.read.data:
            await self.crowd.pause(2)
            page = await self.web.get(page.path)
        assert page.read.data["payment"]["status"] == "paying", page.text
        assert named <= {path_of(page.path)}, named  # a tap that was still being worked has named none
        return page

    async def pays(self, page: Page) -> Page:
        """From a page with the form to the end of the payment."""
        return await self.confirms(await self.begins(page))

    async def confirms(self, page: Page) -> Page:
        assert self.web.confirms(page) == "paid"
        self.paid_wanted += 1
        return await self.watches(page.read.data["payment"]["next"])

    async def watches(self, address: str) -> Page:
        """Until the payment has ended."""
        end = self.crowd.patience()
        while self.crowd.house.clock.now() < end:
            page = await self.web.get(address)
            if page.path.startswith(f"{HOME}paid?order=") or page.read.data["payment"]["status"] not in WAITING:
                return page
            await self.crowd.pause(3)
        raise AssertionError(f"{self.number}: the payment has no end")

    def has_receipt(self, page: Page) -> None:
        (booked,) = self.crowd.house.his.bills[self.bill_id].booked
        assert page.path.startswith(f"{HOME}paid?order="), page.path
        assert self.amount in page.text, page.text
        assert booked.receipt_no in page.text, page.text
        assert page.read.language == ("en" if self.english else "zh-CN")
        self.end = "receipt"

    async def cancels(self, page: Page) -> Page:
        page = await self.watches((await self.web.submit(page, "/cancel")).path)
        assert page.read.data["payment"]["status"] == "not_paid", page.text
        return page

    async def opens_paper(self) -> Page:
        """Consent, a wrong try, the right one; nothing of the bill is seen before."""
        page = await self.web.get(f"/p/{self.papers[0]}")
        assert self.amount not in page.text
        page = await self.web.submit(page, "/consent")
        wrong = "0000" if self.his.phones[0][-4:] != "0000" else "1111"
        page = await self.web.submit(page, "/factor", factor=wrong)
        assert page.has_form("/factor")
        assert self.amount not in page.text
        number = self.his.identifiers[0][1]
        factors = (self.his.phones[0][-4:], number[-4:].lower())
        page = await self.web.submit(page, "/factor", factor=self.rng.choice(factors))
        for _ in range(FACTOR_LOOKS_MAX):
            if not page.has_form("/factor"):
                break  # until then a slow hospital is still comparing what was typed
            await self.crowd.pause(1)
            page = await self.web.get(f"/p/{self.papers[0]}")
        assert (page.status, self.amount in page.text) == (200, True), page.text
        return page

    async def reads_code(self) -> str:
        """The digits of the next text message."""
        house, phone = self.crowd.house, self.his.phones[0]
        await self.crowd.until(lambda: len(house.sms.messages(phone)) > len(self.codes), "a text message")
        found = re.search(r"验证码(\d{6})", house.sms.messages(phone)[-1].text)
        assert found
        self.codes.append(found[1])
        return found[1]

    async def binds(self) -> Page:
        """By a code in a text message; the list of bills that follows."""
        page = await self.binds_as(self.his)
        if page.path == f"{HOME}patients":  # a second tap came after the first had bound
            page = await self.web.get(HOME)
        assert (page.status, self.amount in page.text) == (200, True), page.text
        return page

    async def binds_as(self, person: HisPerson) -> Page:
        """With this person's name and document and one's own phone, once with a wrong code perhaps."""
        kind, number = person.identifiers[0]
        typed = {"name": person.name, "document": kind, "number": number, "phone": self.his.phones[0]}
        page = await self.web.submit(await self.web.get(f"{HOME}bind"), "/bind", typed)
        assert page.status == 200, page.text
        code = await self.reads_code()
        wrong = "000000" if code != "000000" else "111111"
        if self.rng.random() < 0.5:
            await self.web.submit(page, "/bind/code", code=wrong)
        return await self.web.submit(page, "/bind/code", code=code)


def path_of(address: str) -> str:
    return address.partition("?")[0]


# ---------------------------------------------------------------- scripts


async def registered(me: Talker) -> None:
    await me.crowd.register(me.user, me.his, language="en" if me.english else "zh")
    await me.follows()
    await me.chatters()
    answer = await me.asks_for_bills()
    await me.chatters()
    me.has_receipt(await me.pays(await me.opens_link(answer)))
    await me.asks_for_payments(("已缴费", "Paid"))


async def with_paper(me: Talker) -> None:
    me.papers.append(await paper_of(me.crowd.house, me.bill_id))
    if me.rng.random() < 0.5:
        await me.follows()
        await me.chatters()
    page = await me.opens_paper()
    me.has_receipt(await me.pays(page))
    again = await me.web.get(f"/p/{me.papers[0]}")
    assert not again.has_form("/pay")
    assert me.amount in again.text


async def cancels(me: Talker) -> None:
    await me.crowd.register(me.user, me.his)
    await me.follows()
    page = await me.begins(await me.opens_link(await me.asks_for_bills()))
    await me.chatters()
    await me.cancels(page)
    assert me.amount in await me.says("缴费")
    me.end = "cancelled"


async def pays_at_the_second_go(me: Talker) -> None:
    me.papers.append(await paper_of(me.crowd.house, me.bill_id))
    page = await me.cancels(await me.begins(await me.opens_paper()))
    page = await me.web.get(page.link("Back to the bill" if me.english else "返回账单"))
    me.has_receipt(await me.pays(page))


async def refused_by_the_hospital(me: Talker) -> None:
    """The doctor takes the prescription back while the pay sheet is open."""
    await me.crowd.register(me.user, me.his)
    await me.follows()
    page = await me.begins(await me.opens_link(await me.asks_for_bills()))
    me.crowd.house.his.cancel(me.bill_id, force=True)
    me.returned = True
    page = await me.confirms(page)
    assert page.read.data["payment"]["status"] == "returned", page.text
    await me.asks_for_payments(("退",))
    me.end = "returned"


async def with_a_slow_hospital(me: Talker) -> None:
    house = me.crowd.house
    await me.crowd.register(me.user, me.his)
    await me.follows()
    free = me.crowd.slow.hold(me.his.patient_id)
    before = len(house.said(me.user))
    house.chat.chat.say(me.user, me.app_id, "缴费")
    await me.crowd.until(lambda: len(house.said(me.user)) > before, "that the hospital is asked")
    assert house.said(me.user)[before].startswith(ASKING), house.said(me.user)[before]
    free.set()
    await me.crowd.until(lambda: len(house.said(me.user)) > before + 1, "the slow hospital's answer")
    me.has_receipt(await me.pays(await me.opens_link(house.said(me.user)[before + 1])))
    assert len(house.said(me.user)) == before + 2


async def binds_on_a_page(me: Talker) -> None:
    await me.follows()
    assert "/h/renhe/bind" in await me.asks_for_bills()
    page = await me.binds()
    (address,) = {url for url, _ in page.read.links if url.endswith(me.bill_id)}
    me.has_receipt(await me.pays(await me.web.get(address)))
    await me.asks_for_payments(("已缴费", "Paid"))


async def unbinds(me: Talker) -> None:
    await me.follows()
    await me.binds()
    page = await me.web.get(f"{HOME}patients")
    page = await me.web.submit(page, "/patients")
    assert me.amount not in (await me.web.get(HOME)).text
    await me.chatters()
    answer = await me.says("缴费")
    assert me.amount not in answer
    assert "/h/renhe/bind" in answer
    me.end = "unbound"


SCRIPTS: Mapping[Callable[[Talker], Awaitable[None]], int] = {
    registered: 14,
    with_paper: 12,
    cancels: 3,
    pays_at_the_second_go: 5,
    refused_by_the_hospital: 4,
    with_a_slow_hospital: 3,
    binds_on_a_page: 6,
    unbinds: 3,
}
"""How many of fifty follow each on the average; everyone is followed by somebody."""

ENGLISH = frozenset({registered, with_paper, pays_at_the_second_go})
"""Scripts that a person with an English phone may follow."""
