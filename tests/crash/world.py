"""One hospital's day: programs, counterparties with books, people with phones, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from bot.conversation import Conversation
from channels.wechatpay import params as wechatpay_params
from core.errors import RequestError, ServiceUnavailable
from core.ids import Ids
from core.keyring import Keyring
from core.memory import MemoryLimiter, MemoryTokenStore
from core.models import Payer, Staff
from core.ports import NOTICE_KINDS, ChatIdentity, Identifier, IdentifierType
from core.services import Services
from runtime.bootstrap import BoundedBackground, build_services
from runtime.setup import Setup
from scheduler.loops import Loop, loops
from scheduler.worker import ERROR_PAUSE_SECONDS, run_once
from simulators import wechat_faults
from simulators.faults import Fault, Faults, chance
from simulators.hospital import HospitalSimulator
from simulators.hospital_books import Fields
from simulators.kit import ConnectionLost, Deliveries, Delivers, NeverConnected, Request, Response, deliver_one
from simulators.wechat import App, WechatPlatformSimulator
from simulators.wechatpay import WechatPaySimulator
from simulators.wechatpay_books import Merchant
from tests.crash.bells import DUE, ENDLESS, Bells
from tests.crash.database import Postgres
from tests.crash.day import Day
from tests.crash.network import Network, Weather
from tests.crash.programs import Program
from tests.crash.scheduler import Chaos, Life, Scheduler, current_business, current_life
from tests.crash.watching import Unanswered

T = TypeVar("T")

PAY_URL, HIS_URL, CHAT_URL = "https://pay.test", "https://his.test", "https://chat.test"
PUBLIC_URL = "http://zhenfu.test"
MCHID = "1900000109"
METHOD = "wechatpay/miniprogram/wechat"
PAGE_METHOD = "wechatpay/jsapi/wechat"
PAPER_KEY = "the key of printed papers, 32 signs"
TEMPLATE = "缴费通知"
TEMPLATE_FIELDS = {"thing1": "项目", "amount2": "金额", "thing3": "提示"}
TEMPLATE_ENTRY = {"thing1": "title", "amount2": "amount", "thing3": "note"}
PEOPLE = {  # name → phone, the HIS's number of the patient whom they have bound
    "daughter": ("19900000011", "P10001"),
    "elder": ("19900000001", "P10001"),
    "mother": ("19900000002", "P10003"),
    "labourer": ("19900000005", "P10005"),
}
FOLLOWERS = frozenset({"daughter", "mother"})  # the others get the mini program's messages
STRANGERS = {"neighbour": "19900000021", "nurse": "19900000022"}  # name → phone; they have bound nobody
DELIVERY_SECONDS = 5.0  # a counterparty waits so long for our answer to what it tells us
BALANCE_FEN = 100_000
SAME_EVERY_DAY = 1  # the seed of what never changes: apps, keys, people
STAGE = "hospital"

HALF_DONE = {
    "a payment that is paid, and what it took is not in the ledger": (
        "SELECT order_no FROM payment p WHERE status = 'paid' AND paid_fen <> (SELECT coalesce(sum(amount_fen), 0)"
        " FROM transfer t WHERE t.payment_id = p.id AND t.kind IN ('paid', 'paid_more'))"
    ),
    "a payment that is not paid and took something": (
        "SELECT order_no FROM payment WHERE status <> 'paid' AND (paid_fen > 0 OR refund_reserved_fen > 0)"
    ),
    "a refund that is not reserved": (
        "SELECT order_no FROM payment p WHERE refund_reserved_fen <> (SELECT coalesce(sum(amount_fen), 0)"
        " FROM refund r WHERE r.payment_id = p.id AND r.status NOT IN ('dead', 'declined'))"
    ),
    "a line of which more goes back than it has, or not what its refunds say": (
        "SELECT l.id FROM payment_line l WHERE l.refunded_fen <> (SELECT coalesce(sum(part.amount_fen), 0)"
        " FROM refund_line part JOIN refund r ON r.id = part.refund_id WHERE part.line_id = l.id"
        " AND r.origin <> 'automatic' AND r.status NOT IN ('dead', 'declined'))"
    ),
    "money of a booked line on its way without the HIS's proof": (
        "SELECT refund_no FROM refund WHERE origin <> 'automatic' AND replaces_id IS NULL AND his_proof_id IS NULL"
        " AND status IN ('sending', 'pending', 'stuck', 'refunded', 'dead')"
    ),
    "money that went back and is not in the ledger": (
        "SELECT order_no FROM payment p WHERE refunded_fen <> (SELECT coalesce(sum(amount_fen), 0)"
        " FROM transfer t WHERE t.payment_id = p.id AND t.kind = 'refunded')"
    ),
    "a confirmed line that is not in the ledger": (
        "SELECT l.id FROM payment_line l WHERE l.status = 'confirmed' AND l.amount_fen > 0 AND NOT EXISTS"
        " (SELECT FROM transfer t WHERE t.cause = l.id::text AND t.kind = 'confirmed')"
    ),
    "an ended payment that still claims a bill": (
        "SELECT l.id FROM payment_line l JOIN payment p ON p.id = l.payment_id"
        " WHERE l.claims_bill AND p.status NOT IN ('created', 'pending')"
    ),
    "an open payment that nobody will ask about": (
        "SELECT order_no FROM payment WHERE status IN ('created', 'pending') AND due_at IS NULL"
    ),
    "a paid line that nobody will look at": (
        "SELECT l.id FROM payment_line l JOIN payment p ON p.id = l.payment_id WHERE p.status = 'paid'"
        " AND l.status IN ('waiting', 'held', 'surplus', 'rejected') AND l.due_at IS NULL"
    ),
    "an open confirmation that nobody will send": (
        "SELECT confirm_no FROM confirmation WHERE status = 'open' AND due_at IS NULL"
    ),
    "an open refund that nobody will send": (
        "SELECT refund_no FROM refund WHERE status NOT IN ('requested', 'refunded', 'dead', 'declined')"
        " AND due_at IS NULL"
    ),
    "a confirming line without its open confirmation": (
        "SELECT l.id FROM payment_line l WHERE l.status = 'confirming' AND NOT EXISTS"
        " (SELECT FROM confirmation c WHERE c.id = l.confirmation_id AND c.status = 'open')"
    ),
}

_names = vars(wechatpay_params)
_names["read_private_key"] = cache(_names["read_private_key"])
"""Checking a key takes longer than a whole payment, and every life of a program reads it again."""


class WatchedHospital(HospitalSimulator):
    """Remembers what it refused, by number: the HIS's own word, for the oracle."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.refused: defaultdict[str, list[str]] = defaultdict(list)

    def _outcome(self, operation: str, request: Request, now: datetime, fault: Fault | None) -> Fields:
        fields = super()._outcome(operation, request, now, fault)
        if fields["outcome"] == "refused" and operation in {"confirm_payment", "lock_bills"}:
            number = str(request.json().get("confirm_no", ""))
            self.refused[number].append(str(fields["code"]))
        return fields


class Draws:
    """Random bytes for numbers: a stream for each piece of business, so that other business does not shift it."""

    def __init__(self, seed: int, use: str) -> None:
        self._seed, self._use = seed, use
        self._drawn: Counter[str] = Counter()

    def __call__(self, length: int) -> bytes:
        name = current_business() or current_life().name
        data = b""
        while len(data) < length:
            self._drawn[name] += 1
            text = f"{self._seed}/{self._use}/{name}/{self._drawn[name]}"
            data += hashlib.blake2b(text.encode()).digest()
        return data[:length]


@dataclass(kw_only=True)
class Phone:
    """A person who pays."""

    name: str
    payer_id: UUID
    open_id: str
    patients: dict[str, UUID]  # HIS id → our id
    draw: random.Random
    method: str = METHOD


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Our rows as an operator and the people have made them before the day begins; the same every day."""

    rows: dict[str, bytes]
    institution_id: UUID
    event_token: str
    payers: dict[str, UUID]
    strangers: dict[str, UUID]
    patients: dict[str, UUID]  # HIS id → our id
    clerks: dict[str, UUID]


@dataclass(kw_only=True)
class World:
    scheduler: Scheduler
    postgres: Postgres
    day: Day
    faults: Faults
    pay: WechatPaySimulator
    his: WatchedHospital
    chat: WechatPlatformSimulator
    network: Network
    bells: Bells
    tokens: MemoryTokenStore
    keyring: Keyring
    ids: Ids
    nonces: Draws
    official: App
    mini: App
    merchant: Merchant
    users: dict[str, str]  # person → the platform's user
    institution_id: UUID = field(init=False)
    clerks: dict[str, UUID] = field(init=False)  # members of staff → our id
    kept: set[str] = field(default_factory=set)  # red receipts that two people have decided not to pay
    servers: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    phones: list[Phone] = field(default_factory=list)
    strangers: list[Phone] = field(default_factory=list)
    knowingly: set[str] = field(default_factory=set)  # bills that somebody goes on to pay although another may have
    unanswered: Unanswered = field(default_factory=Unanswered)
    mistakes: list[str] = field(default_factory=list)  # what our programs met and did not expect
    delivering: int = 0  # notices and events under way to us

    @classmethod
    def build(cls, scheduler: Scheduler, postgres: Postgres) -> World:
        """The counterparties with empty books; nothing of ours yet."""
        seed, clock = scheduler.seed, scheduler.clock
        faults = Faults(seed=seed)
        pay = WechatPaySimulator(clock=clock, faults=faults, seed=SAME_EVERY_DAY)
        his = WatchedHospital(clock=clock, faults=faults, seed=seed)
        chat = WechatPlatformSimulator(clock=clock, faults=faults, seed=SAME_EVERY_DAY, catalogue=wechat_faults.FAULTS)
        official = chat.add_official_account("仁和医院")
        mini = chat.add_mini_program("仁和医院缴费", pages={"pages/payment/index", "pages/bills/index"})
        chat.link(official.app_id, mini.app_id)
        users = {}
        for app in (official, mini):
            chat.add_template(app.app_id, TEMPLATE, TEMPLATE_FIELDS, long_term=True)
        for name, (phone, _) in PEOPLE.items():
            users[name] = chat.add_user(name, phone=phone)
            if name in FOLLOWERS:
                chat.follow(users[name], official.app_id)
            (template,) = mini.templates
            chat.grant(users[name], mini.app_id, template)
        for name, phone in STRANGERS.items():
            users[name] = chat.add_user(name, phone=phone)
        merchant = pay.add_merchant(MCHID, appids={mini.app_id, official.app_id}, balance_fen=BALANCE_FEN)
        pay.seed = seed
        day = Day.of(seed, faults.catalogue.values())
        pay.refund_delay = timedelta(seconds=day.refund_delay_seconds)
        his.no_lock, his.no_events, his.weak = day.no_lock, day.no_events, day.weak
        his.confirm_unit, his.lock_seconds = day.confirm_unit, day.lock_seconds
        return cls(
            scheduler=scheduler,
            postgres=postgres,
            day=day,
            faults=faults,
            pay=pay,
            his=his,
            chat=chat,
            network=Network(scheduler, {PAY_URL: pay, HIS_URL: his, CHAT_URL: chat}),
            bells=Bells(scheduler, postgres),
            tokens=MemoryTokenStore(clock=clock),
            keyring=Keyring(
                current="k1", keys={"k1": b"1" * 32}, lookup_key=b"2" * 32, random_bytes=Draws(seed, "seal")
            ),
            ids=Ids(clock, Draws(seed, "ids")),
            nonces=Draws(seed, "nonce"),
            official=official,
            mini=mini,
            merchant=merchant,
            users=users,
        )

    # ------------------------------------------------------------ what is there when the day begins

    @classmethod
    def stage(cls, scheduler: Scheduler, postgres: Postgres) -> Stage:
        """Made once per process, in a run of its own."""
        postgres.empty()
        world = cls.build(scheduler, postgres)
        life = scheduler.new_life("setup")
        postgres.open(life)

        async def furnish() -> Stage:
            return await life.spawn(world._furnish(life), key="setup")

        return scheduler.run(furnish())

    async def _furnish(self, life: Life) -> Stage:
        services, setup = self.services(life), Setup(self.ids, self.keyring)
        institution_id = await setup.institution(code="renhe", name_zh="仁和医院")
        site = await setup.hospital_site(
            institution_id,
            base_url=HIS_URL,
            params={
                "key_id": self.his.key_id,
                "secret": self.his.keys[self.his.key_id],
                "paper_key": PAPER_KEY,
            },
        )
        for app, platform in ((self.official, "wechat_service"), (self.mini, "wechat_miniprogram")):
            (template,) = app.templates
            entry = json.dumps({"id": template, "fields": TEMPLATE_ENTRY})
            await setup.chat_account(
                institution_id,
                platform=platform,
                app_id=app.app_id,
                params={"secret": app.secret, "base_url": CHAT_URL, "miniprogram_app_id": self.mini.app_id},
                templates={kind.value: entry for kind in NOTICE_KINDS},
            )
        account = await setup.merchant_account(
            institution_id,
            channel="wechatpay",
            merchant_no=MCHID,
            params={
                "app_ids": f"{self.mini.app_id} {self.official.app_id}",
                "merchant_private_key": self.merchant.private_key_pem,
                "merchant_serial": self.merchant.serial_no,
                "api_v3_key": str(self.merchant.api_v3_key),
                "public_key_id": self.pay.public_key.serial,
                "public_key": self.pay.public_key.public_pem,
                "base_url": PAY_URL,
            },
        )
        for method, app in ((METHOD, self.mini), (PAGE_METHOD, self.official)):
            await setup.payment_method(institution_id, merchant_account_id=account.id, code=method, app_id=app.app_id)
        payers, patients = {}, {}
        for name in PEOPLE:
            payers[name], his_id, patient_id = await self._bind(services, institution_id, name)
            patients[his_id] = patient_id
        strangers = {
            name: (await self._signed_in(services, institution_id, name, self.official)).id for name in STRANGERS
        }
        clerks = {}
        for name in ("clerk", "head", "deputy"):
            row = await Staff.create(
                id=self.ids.uuid(),
                institution_id=institution_id,
                code=name,
                created_at=self.scheduler.clock.now(),
            )
            clerks[name] = row.id
        return Stage(
            clerks=clerks,
            rows=self.postgres.save(),
            institution_id=institution_id,
            event_token=site.event_token,
            payers=payers,
            strangers=strangers,
            patients=patients,
        )

    async def _bind(self, services: Services, institution_id: UUID, name: str) -> tuple[UUID, str, UUID]:
        """Somebody follows the account, opens the mini program and binds a patient."""
        phone, his_patient_id = PEOPLE[name]
        people = [await self._signed_in(services, institution_id, name, app) for app in (self.official, self.mini)]
        person = self.his.patients[his_patient_id]
        type_, value = person.identifiers[0]
        identifier = Identifier(type=IdentifierType(type_), value=value)
        bound = await services.patients.bind(people[-1], name=person.name, identifier=identifier, phone=phone)
        return people[-1].id, his_patient_id, bound.patient_id

    async def _signed_in(self, services: Services, institution_id: UUID, name: str, app: App) -> Payer:
        account = await services.institutions.chat_account_by_app(institution_id, app.app_id)
        identity = ChatIdentity(
            open_id=self.chat.open_id(self.users[name], app.app_id), union_id=self.chat.union_id(self.users[name])
        )
        return await services.patients.payer_for(account, identity, language="zh")

    def furnish(self) -> None:
        """Our rows of this morning, with what this day's HIS can do."""
        stage: Stage = self.postgres.stages[STAGE]
        self.postgres.load(stage.rows)
        self.institution_id, self.clerks = stage.institution_id, stage.clerks
        settings = {
            "merge": self.day.merge,
            "insured_online": "second_tap" if self.day.insured else "blocked",
            "poll_seconds": 300,
            "paper_code": self.day.paper_code,
            "paper_factor": self.day.paper_factor,
            "refund_approve_above_fen": self.day.refund_approve_above_fen,
            "refund_daily_cap_fen": self.day.refund_daily_cap_fen,
        }
        capabilities = {
            "lock": not self.day.no_lock,
            "lock_query": not self.day.no_lock,
            "events": not self.day.no_events,
            "confirm_unit": self.day.confirm_unit,
            "poll_bills": self.day.polls,
            "refund_check": True,
            "refund": True,
            "refund_query": True,
            "partial_refund": True,
        }
        self.postgres.execute("UPDATE institution SET settings = %s", json.dumps(settings))
        self.postgres.execute("UPDATE hospital_site SET capabilities = %s", json.dumps(capabilities))
        self.his.events_url = f"{PUBLIC_URL}/his/v1/events/{stage.event_token}"
        for name, (_, his_patient_id) in PEOPLE.items():
            self.phones.append(
                Phone(
                    name=name,
                    payer_id=stage.payers[name],
                    open_id=self.chat.open_id(self.users[name], self.mini.app_id),
                    patients={his_patient_id: stage.patients[his_patient_id]},
                    draw=random.Random(f"{self.day.seed}/phone/{name}"),
                )
            )
        for name, payer_id in stage.strangers.items():
            self.strangers.append(
                Phone(
                    name=name,
                    payer_id=payer_id,
                    open_id=self.chat.open_id(self.users[name], self.official.app_id),
                    patients={},
                    draw=random.Random(f"{self.day.seed}/phone/{name}"),
                    method=PAGE_METHOD,
                )
            )

    # ------------------------------------------------------------ programs

    def services(self, life: Life) -> Services:
        """What one life of a program is made of."""
        services = build_services(
            clock=self.scheduler.clock,
            ids=self.ids,
            keyring=self.keyring,
            transport=self.network.transport(life),
            tokens=self.tokens,
            limiter=MemoryLimiter(clock=self.scheduler.clock),
            background=BoundedBackground(),
            public_url=PUBLIC_URL,
            program=str(life),
            nonce=lambda: self.nonces(16).hex(),
        )
        for adapters in (services.outside.channels, services.outside.hospitals, services.outside.messengers):
            for name, adapter in adapters.items():
                cast("dict[str, Any]", adapters)[name] = self.unanswered.watch(adapter)
        return services

    async def _serve(self, life: Life) -> None:
        services = life.things["services"] = self.services(life)
        life.things["conversation"] = Conversation(services, self.tokens)
        life.things["ready"] = True

    async def _work(self, life: Life) -> None:
        services = self.services(life)
        for loop in loops(services):
            life.spawn(self._loop(loop, services))

    async def _loop(self, loop: Loop, services: Services) -> None:
        """scheduler.worker.run_loop, with bells in the place of naps."""
        while True:
            try:
                worked = await run_once(loop, services)
            except Exception as error:
                self.mistake(f"loop {loop.table}", error)
                await asyncio.sleep(ERROR_PAUSE_SECONDS)
                continue
            if not worked:
                await self.bells.wait(loop.table)

    def open(self) -> None:
        """Start all programs; from now on things go wrong."""
        for name, rate in self.day.rates.items():
            self.faults.rate(name, rate)
        self.scheduler.chaos = self.day.chaos
        self.network.weather = self.day.weather
        self.scheduler.step_microseconds = self.day.step_microseconds
        for number in range(self.day.servers):
            self.servers.append(Program(self.scheduler, self.postgres, f"server{number + 1}", self._serve))
        for number in range(self.day.workers):
            self.workers.append(Program(self.scheduler, self.postgres, f"worker{number + 1}", self._work))
        for program in (*self.servers, *self.workers):
            program.start()
        self.scheduler.on_crash.append(lambda life: self.mistakes.extend(half_done(self.postgres)))

    async def house(self) -> None:
        """What happens to the machines: the database restarts, Redis is emptied."""
        draw = random.Random(f"{self.day.seed}/house")
        moments = [(draw.uniform(5, 500), "database") for _ in range(self.day.outages)]
        moments += [(draw.uniform(5, 500), "redis") for _ in range(self.day.forgettings)]
        begin = self.scheduler.clock.now()
        for seconds, what in sorted(moments):
            passed = (self.scheduler.clock.now() - begin).total_seconds()
            await asyncio.sleep(max(seconds - passed, 0.0))
            await self.scheduler.gate(f"{what} trouble")
            if what == "redis":
                self.tokens.forget()
            else:
                self.scheduler.outage(draw.choice((0.5, 5.0, 60.0)))
                self.mistakes.extend(half_done(self.postgres))

    def mistake(self, where: str, error: BaseException) -> None:
        """An error that a program met and did not expect."""
        if current_life().dead:
            return
        self.scheduler.counts[f"error in a program: {type(error).__name__}"] += 1
        lost = ServiceUnavailable | asyncpg.PostgresConnectionError | asyncpg.InterfaceError | ConnectionRefusedError
        broken = isinstance(error, lost)
        if not (broken and (self.day.chaos.lose or self.day.outages)):
            self.mistakes.append(f"{where}: {error!r}")

    # ------------------------------------------------------------ what counterparties send to us

    def deliver(self) -> None:
        """From now on whatever a counterparty schedules goes out when its time has come."""
        for simulator in (self.pay, self.his):
            self._watch(simulator, simulator.deliveries)

    def _watch(self, simulator: Delivers, deliveries: Deliveries) -> None:
        schedule = deliveries.schedule
        clock, loop = self.scheduler.clock, self.scheduler.loop

        def watched(**options: Any) -> None:
            schedule(**options)
            seconds = max((options["due_at"] - clock.now()).total_seconds(), 0.0)
            loop.call_later(seconds, go)

        async def deliver() -> None:
            self.delivering += 1
            try:
                await deliver_one(simulator, self._post)
            finally:
                self.delivering -= 1

        def go() -> None:
            self.scheduler.world.spawn(deliver())

        deliveries.schedule = watched  # type: ignore[method-assign]

    async def _post(self, url: str, request: Request) -> Response:
        """A counterparty tells our server something. Raises NeverConnected, ConnectionLost."""
        _, kind, token = urlsplit(url).path.rsplit("/", 2)
        there, back = self.network.seconds("inbound", token)

        async def receive(life: Life) -> Response:
            inbounds = life.things["services"].inbounds
            handle = inbounds.receive_notice if kind == "n" else inbounds.receive_event
            answer = await handle(token, request.headers, request.body)
            return Response(status=answer.status, body=answer.body)

        await asyncio.sleep(there)
        self.scheduler.counts["told by counterparties"] += 1
        try:
            async with asyncio.timeout(DELIVERY_SECONDS):
                response = await self.request(receive, key=f"inbound/{self.scheduler.counts['told by counterparties']}")
                await asyncio.sleep(back)
        except TimeoutError:
            raise ConnectionLost("no answer in time") from None
        self.scheduler.counts[f"… answered {response.status}"] += 1
        return response

    async def request(self, work: Callable[[Life], Awaitable[T]], *, key: str) -> T:
        """A request to one of the servers. Raises RequestError, NeverConnected or ConnectionLost (5xx of ours too)."""
        number = int(chance(self.day.seed, "server", key) * len(self.servers))
        try:
            return await self.servers[number].call(work, key=key)
        except Exception as error:
            expected = isinstance(error, NeverConnected | ConnectionLost | RequestError)
            if expected and not isinstance(error, ServiceUnavailable):
                raise
            self.mistake("request", error)
            raise ConnectionLost("500") from error

    # ------------------------------------------------------------ the end of the day

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.faults.clear()
        self.scheduler.chaos = Chaos(seed=self.day.seed)
        self.network.weather = Weather()
        self.postgres.rise()

    async def rest(self, within: timedelta) -> bool:
        """Let time pass until nothing is due; False when it does not come to that in time."""
        clock = self.scheduler.clock
        end = clock.now() + within
        tables = [table for table in DUE if table != ENDLESS]
        while clock.now() < end:
            moments = [self.bells.next_due(*tables)]
            moments += [pile.next_due_at() for pile in (self.pay.deliveries, self.his.deliveries)]
            next_at = min((moment for moment in moments if moment is not None), default=None)
            if next_at is None and not self.delivering:
                return True
            if next_at is None:
                next_at = clock.now()  # something is on its way to us
            await asyncio.sleep(max((next_at - clock.now()).total_seconds(), 0.0) + 5.0)
        return False

    def staff(self) -> None:
        """People do what only people can: settle what the HIS did not know, name another account for a refund."""
        for number, confirm in list(self.his.confirms.items()):
            if confirm.state == "unclear":
                paid = any(self.his.bills[line["bill_id"]].booked for line in confirm.content["bills"])
                self.his.resolve(number, book=not paid and chance(self.day.seed, "resolve", number) < 0.5)
        for (mchid, number), refund in list(self.pay.refunds.items()):
            if refund.state == "ABNORMAL":
                self.pay.handle_abnormal(mchid, number)


def half_done(postgres: Postgres) -> list[str]:
    """What must be true of our rows at any moment, however many programs have just died."""
    return [
        f"half done: {what}: {rows}" for what, statement in HALF_DONE.items() if (rows := postgres.query(statement))
    ]


class MistakesLogged(logging.Handler):
    """Errors that our programs catch and log are mistakes all the same."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self._world.mistake(f"{record.getMessage()} {getattr(record, 'fields', '')}", error)
        else:
            self._world.mistakes.append(record.getMessage())
