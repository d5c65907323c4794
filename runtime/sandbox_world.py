"""The world around the product in the sandbox: counterparties, people and the page, in one process.

It also sets up the institution, because only it knows the counterparties' keys. Their books live in its
memory: what is set up here agrees with them for as long as this process lives, and no longer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from uuid import UUID

import aiohttp
import asyncpg
from yarl import URL

from bot.wechat.client import WechatApi
from bot.wechat.menu import Menu, buttons
from bot.wechat.tokens import AccessTokens
from core.chat_texts import ChatLinks
from core.ids import Ids
from core.memory import MemoryLimiter, MemoryTokenStore
from core.ports import ChatAccount, ChatIdentity
from core.services import Services
from runtime.bootstrap import BoundedBackground, build_services, program_name
from runtime.database import credentials_of, database
from runtime.listening import serving
from runtime.programs import clock_of
from runtime.sandbox_accounts import SandboxAccounts
from runtime.sandbox_books import SandboxBooks
from runtime.sandbox_people import Invitations
from runtime.sandbox_places import Places
from runtime.sandbox_staff import ready_staff
from runtime.settings import Settings
from runtime.setup import Setup
from runtime.supervisor import Ready
from simulators.clock import OffsetClock
from simulators.console.app import LOOPBACK_NAMES, create_console
from simulators.console.asking import LinkAsker
from simulators.console.papers import Printer
from simulators.console.phones import PHONES, Person, Phones
from simulators.console.webview import create_webview
from simulators.console.world import ConsoleWorld, StaffMember
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.kit import ConnectionLost, NeverConnected, Request, Response, create_app, deliver_forever
from simulators.sms import SmsSimulator
from simulators.wechat import App, WechatPlatformSimulator, push_forever
from simulators.wechatpay import WechatPaySimulator
from wire.http import HttpClient, Transport

log = logging.getLogger("zhenfu.sandbox")

SEED = 20260506
INSTITUTION = "renhe"
NAME_ZH, NAME_EN = "仁和医院（演示）", "Renhe Hospital (demonstration)"
MCHID = "1900000109"
METHODS = ("wechatpay/miniprogram/wechat", "wechatpay/jsapi/wechat")
PRIVACY_VERSION = "2026-01"
PAPER_KEY = "paper-key-of-the-sandbox-which-opens-nothing"
CALLBACK_TRIES = 60
PAGES = {"pages/payment/index", "pages/bills/index"}
DELIVERY_SECONDS = 10.0
BALANCE_FEN = 100_000  # the merchant has taken money before today, so a refund never lacks it


@dataclass(kw_only=True)
class World:
    """The counterparties with their books, and the people who play."""

    settings: Settings
    places: Places
    clock: OffsetClock
    faults: Faults
    wechatpay: WechatPaySimulator
    wechat: WechatPlatformSimulator
    sms: SmsSimulator
    hospital: HospitalSimulator
    service: App
    miniprogram: App
    printer: Printer
    door: str
    callback_token: str = ""
    people: tuple[Person, ...] = field(default=())
    staff: tuple[StaffMember, ...] = field(default=())

    @classmethod
    def build(cls, settings: Settings, places: Places, door: str) -> World:
        assert settings.clock_offset_file is not None
        clock = OffsetClock(settings.clock_offset_file)
        faults = Faults(seed=SEED)
        wechat = WechatPlatformSimulator(clock=clock, faults=faults, seed=SEED)
        service = wechat.add_official_account(NAME_ZH)
        wechat.set_web_domain(service.app_id, URL(settings.public_url).authority)
        miniprogram = wechat.add_mini_program(f"{NAME_ZH}缴费", pages=PAGES)
        wechat.link(service.app_id, miniprogram.app_id)
        return cls(
            settings=settings,
            places=places,
            clock=clock,
            faults=faults,
            wechatpay=WechatPaySimulator(clock=clock, faults=faults, seed=SEED),
            wechat=wechat,
            sms=SmsSimulator(clock=clock, faults=faults, seed=SEED),
            hospital=HospitalSimulator(clock=clock, faults=faults, seed=SEED),
            service=service,
            miniprogram=miniprogram,
            printer=Printer(public_url=settings.public_url, institution=INSTITUTION, key=PAPER_KEY.encode()),
            door=door,
        )

    # --- our side of the agreement: what an operator would enter ---

    async def set_up(self, setup: Setup, services: Services) -> ChatAccount:
        """Enter everything; returns the official account as the product knows it."""
        institution_id = await setup.institution(
            code=INSTITUTION,
            name_zh=NAME_ZH,
            name_en=NAME_EN,
            phone="010-00000000",
            settings={
                "merge": True,
                "paper_code": self.printer.mode,
                "paper_factor": self.printer.factor,
                "privacy_version": PRIVACY_VERSION,
            },
        )
        site = await setup.hospital_site(
            institution_id,
            base_url=self.places.url(self.places.hospital),
            params={
                "key_id": self.hospital.key_id,
                "secret": self.hospital.keys[self.hospital.key_id],
                "paper_key": PAPER_KEY,
            },
            capabilities={
                "patient_by_id": True,
                "refund_check": True,
                "refund": True,
                "refund_query": True,
                "partial_refund": True,
                "statement": True,
            },
        )
        self.hospital.events_url = f"{self.settings.public_url}/his/v1/events/{site.event_token}"
        self.staff = await ready_staff(services.staff, institution_id)
        self.callback_token = (await self.accounts().enter(setup, institution_id)).callback_token
        await self._merchant(setup, institution_id)
        self.people = Invitations(self.wechat, self.service, self.miniprogram).all()
        return await self._register_followers(services, institution_id)

    def accounts(self) -> SandboxAccounts:
        return SandboxAccounts(
            wechat=self.wechat,
            sms=self.sms,
            service=self.service,
            miniprogram=self.miniprogram,
            wechat_url=self.places.url(self.places.wechat),
            sms_url=self.places.url(self.places.sms),
            product_url=self.settings.public_url,
        )

    async def publish_menu(self, transport: Transport, account: ChatAccount) -> None:
        """What `zhenfu menu publish` does."""
        clock = clock_of(self.settings)
        tokens = AccessTokens(api=WechatApi(transport=transport), store=MemoryTokenStore(clock=clock), clock=clock)
        links = ChatLinks(f"{self.settings.public_url}/h/{INSTITUTION}")
        await Menu(tokens).publish(account, buttons(account, links, scans=True), replace=True)

    async def open_callback(self) -> None:
        """Enter our address for pushes until the platform has seen it answer: the web process starts meanwhile."""
        for _ in range(CALLBACK_TRIES):
            self.accounts().open_callback(self.callback_token)
            while self.service.callback_state == "checking":  # noqa: ASYNC110 (the simulator tells nobody)
                await asyncio.sleep(0.05)
            if self.service.callback_state == "enabled":
                return
            await asyncio.sleep(0.5)

    async def _merchant(self, setup: Setup, institution_id: UUID) -> None:
        self.wechatpay.bills.base_url = self.places.url(self.places.wechatpay)
        merchant = self.wechatpay.add_merchant(
            MCHID, appids={self.miniprogram.app_id, self.service.app_id}, balance_fen=BALANCE_FEN
        )
        account = await setup.merchant_account(
            institution_id,
            channel="wechatpay",
            merchant_no=MCHID,
            params={
                "app_ids": f"{self.miniprogram.app_id} {self.service.app_id}",
                "merchant_private_key": merchant.private_key_pem,
                "merchant_serial": merchant.serial_no,
                "api_v3_key": str(merchant.api_v3_key),
                "public_key_id": self.wechatpay.public_key.serial,
                "public_key": self.wechatpay.public_key.public_pem,
                "base_url": self.places.url(self.places.wechatpay),
            },
        )
        for code, app in zip(METHODS, (self.miniprogram, self.service), strict=True):
            await setup.payment_method(institution_id, merchant_account_id=account.id, code=code, app_id=app.app_id)

    # --- people ---

    async def _register_followers(self, services: Services, institution_id: UUID) -> ChatAccount:
        """The account's followers of today, as an operator imports them; who signs in later is joined by union id."""
        account = await services.institutions.chat_account_by_app(institution_id, self.service.app_id)
        for user, language in {person.open_id_user_key: person.language for person in self.people}.items():
            identity = ChatIdentity(
                open_id=self.wechat.open_id(user, self.service.app_id), union_id=self.wechat.union_id(user)
            )
            await services.patients.payer_for(account, identity, language=language.partition("-")[0])
        return account

    def console(self, books: SandboxBooks, pool: asyncpg.Pool) -> ConsoleWorld:
        async def choose_paper(mode: str, factor: str) -> None:
            chosen = json.dumps({"paper_code": mode, "paper_factor": factor})
            await pool.execute(
                "UPDATE institution SET settings = settings || $1::jsonb WHERE code = $2", chosen, INSTITUTION
            )

        return ConsoleWorld(
            wechatpay=self.wechatpay,
            wechat=self.wechat,
            sms=self.sms,
            hospital=self.hospital,
            clock=self.clock,
            faults=self.faults,
            product_url=self.settings.public_url,
            platform_url=self.places.url(self.places.wechat),
            institution=INSTITUTION,
            institution_name=NAME_ZH,
            miniprogram_app_id=self.miniprogram.app_id,
            service_app_id=self.service.app_id,
            phones=Phones(self.people),
            browser_ports=tuple(place.getsockname()[1] for place in self.places.browsers),
            printer=self.printer,
            our_books=books.read,
            choose_paper=choose_paper,
            door=self.door,
            staff=self.staff,
        )


class Post:
    """Carries what counterparties send to us over real connections."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, url: str, request: Request) -> Response:
        """Raises NeverConnected or ConnectionLost."""
        try:
            async with self._session.request(
                request.method,
                URL(url, encoded=True),
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
            ) as answer:
                return Response(
                    status=answer.status,
                    headers={name.lower(): value for name, value in answer.headers.items()},
                    body=await answer.read(),
                )
        except aiohttp.ClientConnectorError as error:
            raise NeverConnected(url) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ConnectionLost(url) from error


async def live(settings: Settings, places: Places, door: str, stopping: asyncio.Event, ready: Ready) -> None:
    """Build the world, set up the institution, serve until told to stop."""
    world = World.build(settings, places, door)
    clock = clock_of(settings)
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(HttpClient())
        services = build_services(
            clock=clock,
            ids=Ids(clock),
            keyring=settings.keyring(),
            transport=transport,
            tokens=MemoryTokenStore(clock=clock),
            limiter=MemoryLimiter(clock=clock),
            background=BoundedBackground(),
            public_url=settings.public_url,
            program=program_name("sandbox"),
        )
        async with database(settings.database_url, pool_max=1):
            account = await world.set_up(Setup(services.outside.ids, services.outside.keyring), services)
        pool = await stack.enter_async_context(
            asyncpg.create_pool(**credentials_of(settings.database_url), min_size=1, max_size=2)
        )
        limits = aiohttp.ClientTimeout(total=DELIVERY_SECONDS, connect=2)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=limits, trust_env=False))
        world.printer.ask = LinkAsker(session, world.hospital)
        shown = world.console(SandboxBooks(pool), pool)
        names = LOOPBACK_NAMES | {places.console.getsockname()[0]}
        console_port = places.console.getsockname()[1]
        for app, place in (
            (create_app(world.wechatpay), places.wechatpay),
            (create_app(world.wechat), places.wechat),
            (create_app(world.sms), places.sms),
            (create_app(world.hospital), places.hospital),
            (create_console(shown, host_names=names), places.console),
            *(
                (create_webview(shown, number, host_names=names, console_port=console_port), place)
                for number, place in zip(PHONES, places.browsers, strict=True)
            ),
        ):
            await stack.enter_async_context(serving(app, place))
        tasks = [
            asyncio.create_task(deliver_forever(sender, Post(session))) for sender in (world.wechatpay, world.hospital)
        ]
        tasks.append(asyncio.create_task(push_forever(world.wechat, Post(session))))
        await world.publish_menu(transport, account)
        callback = asyncio.create_task(world.open_callback())
        ready()
        stop = asyncio.create_task(stopping.wait())
        done, _ = await asyncio.wait({*tasks, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, stop, callback):
            task.cancel()
        await asyncio.gather(*tasks, stop, callback, return_exceptions=True)
        for task in done - {stop}:
            task.result()


def run_world(settings: Settings, places: Places, door: str, ready: Ready) -> None:
    """The world's process until SIGTERM; `door` is the secret of the printed address, empty on loopback."""

    async def until_told() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await live(settings, places, door, stopping, ready)

    asyncio.run(until_told())
