"""Many people at once at one house: their chats, their browsers, everything that is pushed to us, and a clock.

The server is real and answers on loopback; the counterparties' pushes, notices and events reach it by HTTP, each one
to three times; the worker's loops run beside it. Time goes in small steps, faster than on the wall.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from bot.conversation import Conversation
from bot.turnstile import BOOKKEEPING_PLACES, Places
from bot.wechat.callback import Callback, blueprint
from core.models import HospitalSiteRow
from core.ports import ChatIdentity, Identifier, IdentifierType
from miniprogram_api.app import build_app
from scheduler import worker
from simulators.hospital_stock import Person as HisPerson
from simulators.kit import Delivers, Request, Response, deliver_one
from simulators.wechat_push_line import push_one
from simulators.wechat_replies import read_reply
from tests.miniprogram_api.web import H5_METHOD, Page, Web
from tests.support.house import PUBLIC_URL, House
from tests.support.serving import serve
from wire.http import HttpReply, HttpRequest, Transport

SESSION_KEY = b"k" * 32
TICK_SECONDS = 0.05
STEP = timedelta(seconds=0.1)
PATIENCE = timedelta(minutes=5)  # of the house's time; who waits longer has been forgotten
AT_ONCE = 20
PATIENT_SECONDS = 30.0
"""In place of the 1.5 in which a push finds a place, the five of the platform and the eight of a page: nobody is to go
without an answer because this computer is busy."""

REFUND_DELAY = timedelta(seconds=3)

TIMES = (1, 1, 2, 3)


class SlowForSome:
    """A transport on which the questions about some patients wait until they are let go."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._waiting: dict[bytes, asyncio.Event] = {}

    def hold(self, his_patient_id: str) -> asyncio.Event:
        """Set the event to let them go."""
        return self._waiting.setdefault(f'"{his_patient_id}"'.encode(), asyncio.Event())

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        for wanted, free in self._waiting.items():
            if wanted in request.body:
                await free.wait()
        return await self._inner.send(request, deadline_seconds=deadline_seconds)


@dataclass(kw_only=True)
class EagerWeb(Web):
    """A browser whose owner reloads pages and taps buttons again; every address that it asks for is kept."""

    rng: random.Random
    addresses: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)  # session cookies and the words of forms
    answers: list[Page] = field(default_factory=list)  # to the form sent last

    async def once(self, method: str, address: str, fields: Any = None, **headers: str) -> Page:
        self.addresses.append(address)
        page = await super().once(method, address, fields, **headers)
        self.secrets |= {cookie.value for cookie in self.http.cookie_jar if len(cookie.value) > 8}
        self.secrets |= {form.fields["form"] for form in page.read.forms if "form" in form.fields}
        return page

    async def _go(self, method: str, address: str, fields: Any, **headers: str) -> Page:
        times = self.rng.choice(TIMES)
        if method == "GET":
            for _ in range(times - 1):
                await self._rested(await super()._go(method, address, fields, **headers))
            return await self._rested(await super()._go(method, address, fields, **headers))
        if self.rng.random() < 0.5:
            self.answers = await asyncio.gather(*(self.once(method, address, fields, **headers) for _ in range(times)))
        else:
            self.answers = [await self.once(method, address, fields, **headers) for _ in range(times)]
        best = min(self.answers, key=lambda page: (page.status >= 400, page.status not in (302, 303), page.status))
        if best.status in (302, 303):
            return await self.get(await self._follow(best.url, best.headers["location"]))
        return await self._rested(best)

    async def _rested(self, page: Page) -> Page:
        """The page that comes by itself after one that only says that we ask the hospital; a form that is sent again
        by itself is sent by who had filled it in."""
        while page.read.refresh and (page.status == 202 or "ticket=" in page.read.refresh):
            await asyncio.sleep(0.2)
            page = await super()._go("GET", page.read.refresh, None)
        return page


@dataclass(kw_only=True)
class Crowd:
    """One hospital, its server, and everybody there."""

    house: House
    base_url: str
    http: aiohttp.ClientSession
    rng: random.Random
    slow: SlowForSome
    routes: set[str]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    pushes: int = 0
    posts: int = 0
    pushed_twice: list[str] = field(default_factory=list)  # what went wrong with repeats

    # ------------------------------------------------------------ time

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        end = self.house.clock.now() + PATIENCE
        while not condition():
            assert self.house.clock.now() < end, f"nobody came: {what}"
            await asyncio.sleep(0.03)

    async def pause(self, seconds: float) -> None:
        """So many seconds of the house's time."""
        end = self.house.clock.now() + timedelta(seconds=seconds)
        await self.until(lambda: self.house.clock.now() >= end, "time itself")

    def patience(self) -> datetime:
        return self.house.clock.now() + PATIENCE

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.house.clock.advance(STEP)

    # ------------------------------------------------------------ what counterparties send

    async def deliver(self) -> None:
        """Pushes, notices and events, as they fall due."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(simulator: Delivers) -> None:
            async with room:
                if simulator is self.house.chat:
                    await push_one(simulator, self.push, deadline_seconds=4 * PATIENT_SECONDS)
                else:
                    await deliver_one(simulator, self.post)

        while True:
            for simulator in (self.house.pay, self.house.his, self.house.chat):
                self.house.pay.advance()
                now = self.house.clock.now()
                for _ in [each for each in simulator.deliveries.waiting if each.due_at <= now]:
                    task = asyncio.create_task(one(simulator))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(TICK_SECONDS)

    async def post(self, url: str, request: Request) -> Response:
        """One to three times at once; the counterparty reads the best answer."""
        times = self.rng.choice(TIMES)
        self.posts += times
        answers = await asyncio.gather(*(self._sent(url, request) for _ in range(times)))
        return min(answers, key=lambda answer: answer.status)

    async def push(self, url: str, request: Request) -> Response:
        """One to three times, at once or one after the other; whoever is answered is answered alike."""
        times = self.rng.choice(TIMES)
        self.pushes += times
        if self.rng.random() < 0.5:
            answers = await asyncio.gather(*(self._sent(url, request) for _ in range(times)))
        else:
            answers = [await self._sent(url, request) for _ in range(times)]
        if any(answer.status != 200 for answer in answers):
            self.pushed_twice.append(f"answered with {sorted({answer.status for answer in answers})}")
        texts = [self.reply_in(url, answer) for answer in answers]
        if len({text for text in texts if text}) > 1:
            self.pushed_twice.append(f"answered differently: {texts}")
        return next((answer for answer, text in zip(answers, texts, strict=True) if text), answers[0])

    def reply_in(self, url: str, answer: Response) -> str:
        """The text of a sealed reply, empty for none."""
        app = self.house.chat.record.apps[self.house.service_app_id]
        assert app.callback is not None
        open_id = urlsplit(url).query.rpartition("openid=")[2].partition("&")[0]
        reply = read_reply(answer.body, app=app, callback=app.callback, open_id=open_id, now=self.house.clock.now())
        return reply.text if reply else ""

    async def _sent(self, url: str, request: Request) -> Response:
        async with self.http.request(
            request.method,
            self.base_url + request.target,
            data=request.body,
            headers={name: value for name, value in request.headers.items() if name != "host"},
        ) as answer:
            return Response(status=answer.status, headers=dict(answer.headers), body=await answer.read())

    # ------------------------------------------------------------ who is known

    async def register(self, user: str, person: HisPerson, *, language: str = "zh") -> None:
        """This follower has bound himself before."""
        house = self.house
        account = await house.services.institutions.chat_account_by_app(house.institution_id, house.service_app_id)
        payer = await house.services.patients.payer_for(
            account,
            ChatIdentity(open_id=house.chat.open_id(user, house.service_app_id), union_id=house.chat.union_id(user)),
            language=language,
        )
        kind, number = person.identifiers[0]
        await house.services.patients.bind(
            payer,
            name=person.name,
            identifier=Identifier(type=IdentifierType(kind), value=number),
            phone=person.phones[0],
        )


@asynccontextmanager
async def a_crowd(*, seed: int) -> AsyncIterator[Crowd]:
    """Open a database context first, as for a House."""
    house = await House.build(seed=seed, settings={"paper_code": "his_asks"}, sms=True)
    slow = SlowForSome(house.transport.inner)
    house.transport.inner = slow
    house.pay.refund_delay = REFUND_DELAY
    await house.open_chat()
    conversation = Conversation(
        house.services,
        house.tokens,
        places=Places(wait_seconds=PATIENT_SECONDS),
        bookkeeping=Places(BOOKKEEPING_PLACES, wait_seconds=PATIENT_SECONDS),
    )
    house.callback = Callback(
        house.services, conversation, house.transport, lambda: secrets.token_hex(8), push_seconds=2 * PATIENT_SECONDS
    )
    await HospitalSiteRow.filter(id=house.site_id).update(calls_max=32, deadline_seconds=60)
    house.chat.set_web_domain(house.service_app_id, urlsplit(PUBLIC_URL).netloc)
    await house.setup.payment_method(
        house.institution_id,
        merchant_account_id=house.merchant_account_id,
        code=H5_METHOD,
        app_id=house.service_app_id,
    )
    app = build_app(
        house.services, session_key=SESSION_KEY, tap_wait_seconds=PATIENT_SECONDS, more=[blueprint(house.callback)]
    )
    async with serve(app) as base_url, aiohttp.ClientSession() as http:
        crowd = Crowd(
            house=house,
            base_url=base_url,
            http=http,
            rng=random.Random(f"crowd/{seed}"),
            slow=slow,
            routes={f"/{route.path}" for route in app.router.routes},
        )
        work = [
            asyncio.create_task(each)
            for each in (crowd.tick(), crowd.deliver(), worker.run(house.services, kinds=house.loops()))
        ]
        try:
            yield crowd
        finally:
            for task in (*work, *crowd.tasks):
                task.cancel()
            await asyncio.gather(*work, *crowd.tasks, return_exceptions=True)
