"""The town that `make bench` measures in: one hospital, its counterparties in a process of their own, our programs.

Everything is on this machine and real: PostgreSQL, a Redis server, HTTP on loopback. The counterparties answer
after a fixed time each, so that calls overlap as they do in life and that time can be subtracted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
from sanic import Sanic
from sanic.request import Request as SanicRequest

from core.ids import Ids
from core.models import Payer
from core.ports import NOTICE_KINDS, ChatIdentity, Identifier, IdentifierType
from core.tenancy import scoped
from miniprogram_api.auth import Tokens
from runtime.child_processes import LOOPBACK
from runtime.database import database, migrate
from runtime.embedded_postgres import APP_ROLE, OWNER_ROLE, EmbeddedPostgres
from runtime.embedded_redis import EmbeddedRedis
from runtime.listening import serving
from runtime.programs import wire
from runtime.sandbox_world import Post
from runtime.settings import Settings
from runtime.setup import Setup, mark_deployment
from runtime.sockets import reserve
from runtime.supervisor import Ready
from simulators.clock import OffsetClock
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.hospital_stock import READY_PEOPLE
from simulators.kit import create_app, deliver_forever
from simulators.wechat import WechatPlatformSimulator
from simulators.wechatpay import WechatPaySimulator

ANSWER_SECONDS = {"hospital": 0.02, "wechatpay": 0.04, "wechat": 0.02}
"""How long each counterparty thinks."""

DATABASE = "bench"
PEOPLE = 240
"""Enough that nobody meets the bound on starts per minute."""

MCHID, METHOD = "1900000109", "wechatpay/miniprogram/wechat"
TOTAL_FEN = 8650
MERGED_BILLS = 3
DELIVERERS = 8  # a channel sends its notices over several connections
TEMPLATE_FIELDS = {"thing1": "项目", "amount2": "金额", "thing3": "提示"}
TEMPLATE_ENTRY = {"thing1": "title", "amount2": "amount", "thing3": "note"}


@dataclass(frozen=True, kw_only=True)
class Person:
    """A payer with an access token, his patient, and who he is to the channel."""

    payer_id: UUID
    patient_id: UUID
    open_id: str
    token: str


@dataclass(kw_only=True)
class Town:
    postgres: EmbeddedPostgres
    hospital: HospitalSimulator
    wechat: WechatPlatformSimulator
    wechatpay: WechatPaySimulator
    sockets: dict[str, socket.socket]
    settings: Settings
    users: list[str] = field(default_factory=list)
    his_ids: list[str] = field(default_factory=list)  # of each user's patient
    mini_app_id: str = ""
    service_app_id: str = ""
    people: list[Person] = field(default_factory=list)

    @classmethod
    def build(cls, folder: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Town:
        """Sockets are taken and books opened before any process begins, so that all of them know them."""
        postgres.create_database(DATABASE)
        address = redis.start()
        sockets = {name: reserve(LOOPBACK, 0) for name in ("web", *ANSWER_SECONDS)}
        for each in sockets.values():
            each.set_inheritable(True)
        host, port = sockets["web"].getsockname()[:2]
        settings = Settings(
            database_url=postgres.dsn(DATABASE, APP_ROLE),
            owner_database_url=postgres.dsn(DATABASE, OWNER_ROLE),
            deployment_id="bench",
            redis_url=f"redis://{address.host}:{address.port}/0",
            public_url=f"http://{host}:{port}",
            host=host,
            port=port,
            keys={"k": os.urandom(32)},
            current_key="k",
            lookup_key=os.urandom(32),
            session_key=os.urandom(32),
        )
        clock, faults = OffsetClock(folder / "offset"), Faults()
        town = cls(
            postgres=postgres,
            hospital=HospitalSimulator(clock=clock, faults=faults, seed=1),
            wechat=WechatPlatformSimulator(clock=clock, faults=faults, seed=1),
            wechatpay=WechatPaySimulator(clock=clock, faults=faults, seed=1, notice_delay=timedelta(seconds=0.1)),
            sockets=sockets,
            settings=settings,
        )
        town._people_and_apps()
        return town

    def url(self, name: str) -> str:
        host, port = self.sockets[name].getsockname()[:2]
        return f"http://{host}:{port}"

    def on(self, name: str) -> Settings:
        """The programs' settings with another database of the same cluster."""
        return replace(self.settings, database_url=self.postgres.dsn(name, APP_ROLE))

    def _people_and_apps(self) -> None:
        official = self.wechat.add_official_account("仁和医院")
        mini = self.wechat.add_mini_program("仁和医院缴费", pages={"pages/payment/index", "pages/bills/index"})
        self.wechat.link(official.app_id, mini.app_id)
        for app in (official, mini):
            self.wechat.add_template(app.app_id, "缴费通知", TEMPLATE_FIELDS, long_term=True)
        (template,) = mini.templates
        ready = [person for person in READY_PEOPLE if person.phones and person.identifiers[0][0] == "id_card"]
        for number in range(PEOPLE):
            user = self.wechat.add_user(f"付{number}", phone=f"199{number:08d}")
            self.wechat.grant(user, mini.app_id, template)
            self.users.append(user)
            self.his_ids.append(ready[number % len(ready)].patient_id)
        self.service_app_id, self.mini_app_id = official.app_id, mini.app_id

    def issue(self, person: int, *, bills: int = 1) -> tuple[str, ...]:
        """Bills of one visit for this person, to be paid together; only before the world's process begins."""
        visit = f"V{len(self.hospital.bills)}"
        return tuple(
            self.hospital.issue_bill(
                self.his_ids[person], total_fen=TOTAL_FEN, visit_no=visit, merge_group=visit, valid_days=2
            )
            for _ in range(bills)
        )

    # ------------------------------------------------------------ the counterparties' process

    def world(self, ready: Ready) -> None:
        async def live() -> None:
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            async with AsyncExitStack() as stack:
                for name in ANSWER_SECONDS:
                    app = create_app(getattr(self, name))
                    think(app, ANSWER_SECONDS[name])
                    await stack.enter_async_context(serving(app, self.sockets[name]))
                session = await stack.enter_async_context(aiohttp.ClientSession())
                tasks = [
                    asyncio.create_task(deliver_forever(self.wechatpay, Post(session), idle_seconds=0.02))
                    for _ in range(DELIVERERS)
                ]
                ready()
                await stop.wait()
                for task in tasks:
                    task.cancel()

        asyncio.run(live())

    # ------------------------------------------------------------ our rows

    async def set_up(self) -> None:
        """One institution with everything it needs; the world need not run yet."""
        settings, keyring = self.settings, self.settings.keyring()
        await migrate(settings.owner_database_url)
        await mark_deployment(settings.owner_database_url, settings.deployment_id, keyring)
        wired = wire(settings, "bench")
        async with database(settings.database_url, pool_max=1):
            await self._institution(Setup(Ids(wired.services.outside.clock), keyring))
        await wired.finish()

    async def _institution(self, setup: Setup) -> None:
        institution_id = await setup.institution(code="renhe", name_zh="仁和医院", settings={"merge": True})
        his = self.hospital
        await setup.hospital_site(
            institution_id,
            base_url=self.url("hospital"),
            params={"key_id": his.key_id, "secret": his.keys[his.key_id]},
            capabilities={"confirm_unit": "payment", "poll_bills": False},  # all bills of a run are there before it
            calls_max=100,
        )
        for platform, app_id in (("wechat_service", self.service_app_id), ("wechat_miniprogram", self.mini_app_id)):
            app = self.wechat.record.apps[app_id]
            (template,) = app.templates
            entry = json.dumps({"id": template, "fields": TEMPLATE_ENTRY})
            await setup.chat_account(
                institution_id,
                platform=platform,
                app_id=app_id,
                params={
                    "secret": app.secret,
                    "base_url": self.url("wechat"),
                    "miniprogram_app_id": self.mini_app_id,
                },
                templates={kind.value: entry for kind in NOTICE_KINDS},
            )
        merchant = self.wechatpay.add_merchant(MCHID, appids={self.mini_app_id})
        account = await setup.merchant_account(
            institution_id,
            channel="wechatpay",
            merchant_no=MCHID,
            params={
                "app_ids": self.mini_app_id,
                "merchant_private_key": merchant.private_key_pem,
                "merchant_serial": merchant.serial_no,
                "api_v3_key": str(merchant.api_v3_key),
                "public_key_id": self.wechatpay.public_key.serial,
                "public_key": self.wechatpay.public_key.public_pem,
                "base_url": self.url("wechatpay"),
            },
        )
        await setup.payment_method(institution_id, merchant_account_id=account.id, code=METHOD, app_id=self.mini_app_id)

    async def register(self) -> None:
        """Everybody signs in and binds a patient; the world runs."""
        wired = wire(self.settings, "bench")
        services = wired.services
        tokens = Tokens.of_secret(services.outside.clock, self.settings.session_key)
        async with database(self.settings.database_url, pool_max=1):
            profile = await services.institutions.profile_by_code("renhe")
            account = await services.institutions.chat_account_by_app(profile.id, self.mini_app_id)
            for user, his_id in zip(self.users, self.his_ids, strict=True):
                open_id = self.wechat.open_id(user, self.mini_app_id)
                payer = await services.patients.payer_for(
                    account, ChatIdentity(open_id=open_id, union_id=self.wechat.union_id(user)), language="zh"
                )
                self.people.append(await self._bound(services, payer, his_id, open_id, tokens))
            assert await scoped(profile.id).of(Payer).count() == PEOPLE
        await wired.finish()

    async def _bound(self, services: Any, payer: Payer, his_id: str, open_id: str, tokens: Tokens) -> Person:
        patient = self.hospital.patients[his_id]
        type_, value = patient.identifiers[0]
        bound = await services.patients.bind(
            payer,
            name=patient.name,
            identifier=Identifier(type=IdentifierType(type_), value=value),
            phone=patient.phones[0],
        )
        token, _ = tokens.issue(payer_id=payer.id, institution_id=payer.institution_id)
        return Person(payer_id=payer.id, patient_id=bound.patient_id, open_id=open_id, token=token)


def think(app: Sanic[Any, Any], seconds: float) -> None:
    """The counterparty answers after so long; what only the console page asks for comes at once."""

    async def wait(request: SanicRequest) -> None:
        if not request.path.startswith("/_"):
            await asyncio.sleep(seconds)

    app.register_middleware(wait, "request")
