"""A counterparty that takes its time costs nobody a database connection, and no other institution anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tortoise import Tortoise

from core.models import Confirmation, HospitalSiteRow, Message, Payer, Payment, PaymentEvent
from core.money import Fen
from core.ports import ChatIdentity, Identifier, IdentifierType
from core.starting import StartPayment
from core.states import ConfirmationStatus, PaymentStatus
from runtime.bootstrap import BoundedBackground
from runtime.database import database as opened
from scheduler import worker
from scheduler.loops import Loop, loops
from simulators.clock import ManualClock
from simulators.hospital import HospitalSimulator
from simulators.kit import deliver_one
from tests.support.house import ELDER, METHOD, PAY_URL, House
from tests.support.postgres import Database
from wire.http import HttpReply, HttpRequest, Transport

PAYMENTS = 200
CONNECTIONS = 2
CALLS_MAX = 100  # the most that a HIS may be given; this one answers at once
CHANNEL_SECONDS = 0.5

HANGING_URL = "https://hanging-his.test"
HANG_SECONDS = 60
BATCH = 30
PACE_SECONDS = 0.05
HEALTHY_SECONDS = 15.0
"""Far more than a confirmation takes on a busy machine, far less than what a hanging call takes."""


class SlowChannel:
    """A transport whose calls to the channel take their time, counted from when all of them are under way."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._all_here = asyncio.Event()
        self.under_way = 0

    async def all_here(self, *, seconds: float) -> None:
        """Wait until every payment waits for the channel; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._all_here.wait()

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        if not request.url.startswith(PAY_URL):
            return await self._inner.send(request, deadline_seconds=deadline_seconds)
        self.under_way += 1
        if self.under_way == PAYMENTS:
            self._all_here.set()
        await self._all_here.wait()
        await asyncio.sleep(CHANNEL_SECONDS)
        try:
            return await self._inner.send(request, deadline_seconds=deadline_seconds)
        finally:
            self.under_way -= 1


@asynccontextmanager
async def running(clock: ManualClock) -> AsyncIterator[None]:
    """The house's clock goes with the real one."""

    async def go() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            clock.advance(timedelta(seconds=now - last))
            last = now

    task = asyncio.create_task(go())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# ---------------------------------------------------------------- no connection is held across a remote call


@pytest.fixture
async def narrow_house(database: Database) -> AsyncIterator[House]:
    """Two connections to the database, and a HIS that takes whatever comes."""
    async with opened(database.app_dsn, pool_max=CONNECTIONS):
        house = await House.build(background=BoundedBackground())
        await HospitalSiteRow.filter(institution_id=house.institution_id).update(calls_max=CALLS_MAX)
        house.pay.notice_delay = timedelta(0)
        yield house


@pytest.mark.timeout(240)
async def test_two_connections_serve_two_hundred_payments_that_wait_for_the_channel_at_once(
    narrow_house: House,
) -> None:
    """Whoever kept a connection for the call would keep one of two, and the others would never get there."""
    house, channel = narrow_house, SlowChannel(narrow_house.transport.inner)
    house.transport.inner = channel
    payer = await house.payer()
    patient = await house.bound(payer)
    began = time.monotonic()
    starts = [asyncio.create_task(house.start(payer, patient, house.bill())) for _ in range(PAYMENTS)]
    await channel.all_here(seconds=100)
    pool: Any = Tortoise.get_connection("default")
    assert pool._pool.get_idle_size() == pool._pool.get_size() <= CONNECTIONS
    assert await Payment.filter(status=PaymentStatus.CREATED).count() == PAYMENTS
    started = await asyncio.gather(*starts)
    started_seconds = time.monotonic() - began
    for each in started:
        house.pay_sheet(each, house.chat.open_id(house.user_of(payer), house.mini_app_id))
    await asyncio.gather(*(deliver_all(house) for _ in range(20)))
    await until(lambda: Confirmation.filter(status=ConfirmationStatus.CONFIRMED).count(), PAYMENTS, seconds=100)
    print(
        f"{PAYMENTS} payments on {CONNECTIONS} connections, {CHANNEL_SECONDS} s at the channel each: started after"
        f" {started_seconds:.1f} s, all confirmed after {time.monotonic() - began:.1f} s"
    )
    assert await Payment.filter(status=PaymentStatus.PAID).count() == PAYMENTS
    background = house.services.outside.background
    assert isinstance(background, BoundedBackground)
    await background.finish(seconds=60)


async def deliver_all(house: House) -> None:
    while await deliver_one(house.pay, house.receive):
        pass


async def until(ask: Any, wanted: int, *, seconds: float) -> None:
    """Wait until asking gives what is wanted; fails with what it gave."""
    deadline = time.monotonic() + seconds
    while (found := await ask()) != wanted:
        assert time.monotonic() < deadline, f"{found} of {wanted} after {seconds} s"
        await asyncio.sleep(0.05)


# ---------------------------------------------------------------- a hanging HIS slows down nobody else


@dataclass(kw_only=True)
class Guest:
    """A second institution on the same programs, whose HIS can hang."""

    institution_id: UUID
    his: HospitalSimulator
    payer: Payer
    patient_id: UUID
    method: str = METHOD


async def a_guest(house: House) -> Guest:
    setup, his = house.setup, HospitalSimulator(clock=house.clock, faults=house.faults, seed=8)
    inner: Any = house.transport.inner
    inner.routes[HANGING_URL] = his
    institution_id = await setup.institution(code="xiehe", name_zh="协和医院")
    await setup.hospital_site(
        institution_id,
        base_url=HANGING_URL,
        params={"key_id": his.key_id, "secret": his.keys[his.key_id]},
        deadline_seconds=HANG_SECONDS,
    )
    app = house.chat.add_mini_program("协和医院缴费")
    await setup.chat_account(
        institution_id, platform="wechat_miniprogram", app_id=app.app_id, params={"secret": app.secret}
    )
    merchant = house.pay.add_merchant("1900000208", appids={app.app_id})
    account = await setup.merchant_account(
        institution_id,
        channel="wechatpay",
        merchant_no="1900000208",
        params={
            "app_ids": app.app_id,
            "merchant_private_key": merchant.private_key_pem,
            "merchant_serial": merchant.serial_no,
            "api_v3_key": str(merchant.api_v3_key),
            "public_key_id": house.pay.public_key.serial,
            "public_key": house.pay.public_key.public_pem,
            "base_url": PAY_URL,
        },
    )
    await setup.payment_method(institution_id, merchant_account_id=account.id, code=METHOD, app_id=app.app_id)
    chat_account = await house.services.institutions.chat_account_by_app(institution_id, app.app_id)
    user = house.chat.add_user("李建国", phone="19900000009")
    payer = await house.services.patients.payer_for(
        chat_account, ChatIdentity(open_id=house.chat.open_id(user, app.app_id), union_id=f"union-{user}")
    )
    person = his.patients[ELDER]
    type_, value = person.identifiers[0]
    bound = await house.services.patients.bind(
        payer,
        name=person.name,
        identifier=Identifier(type=IdentifierType(type_), value=value),
        phone=person.phones[0],
    )
    return Guest(institution_id=institution_id, his=his, payer=payer, patient_id=bound.patient_id)


@dataclass(kw_only=True)
class Town:
    """Two institutions, the payers of both, and the payments that wait for their pay sheets."""

    house: House
    guest: Guest
    payer: Payer
    patient_id: UUID

    async def begin_healthy(self) -> list[str]:
        house = self.house
        return [(await house.start(self.payer, self.patient_id, house.bill())).order_no for _ in range(BATCH)]

    async def begin_hanging(self) -> list[str]:
        guest, orders = self.guest, []
        for number in range(BATCH):
            bill = guest.his.issue_bill(ELDER, total_fen=8650)
            started = await self.house.services.starting.start(
                StartPayment(
                    payer_id=guest.payer.id,
                    institution_id=guest.institution_id,
                    patient_id=guest.patient_id,
                    bills=(("", bill),),
                    shown_fen=Fen(8650),
                    method=guest.method,
                    key=f"guest-{number}",
                )
            )
            orders.append(started.order_no)
        return orders

    async def pay(self, orders: Iterable[str], *, pace_seconds: float = 0.0) -> dict[str, datetime]:
        """The payers confirm and the channel says so, one after the other; when we were told."""
        told = {}
        for order_no in orders:
            self.house.pay.pay(order_no)
            assert await deliver_one(self.house.pay, self.house.receive)
            told[order_no] = self.house.clock.now()
            await asyncio.sleep(pace_seconds)
        return told

    async def latencies(self, told: dict[str, datetime], *, seconds: float) -> list[float]:
        """From the notice to the proven booking, sorted; waits until all are booked."""
        payments = await Payment.filter(order_no__in=list(told))
        by_id = {payment.id: payment.order_no for payment in payments}

        def bookings() -> Any:
            return PaymentEvent.filter(payment_id__in=list(by_id), proves="confirmed")

        await until(lambda: bookings().count(), len(told), seconds=seconds)
        return sorted((event.at - told[by_id[event.payment_id]]).total_seconds() for event in await bookings())


@pytest.fixture
async def town(tortoise: object) -> Town:
    house = await House.build()
    house.pay.notice_delay = timedelta(0)
    payer = await house.payer()
    return Town(house=house, guest=await a_guest(house), payer=payer, patient_id=await house.bound(payer))


@asynccontextmanager
async def working(house: House, kinds: Iterable[Loop]) -> AsyncIterator[None]:
    """One worker with these loops, on a clock that goes."""
    async with running(house.clock):
        task = asyncio.create_task(worker.run(house.services, kinds=list(kinds)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            house.transport.let_go()


async def hang(town: Town) -> None:
    """The guest's HIS answers no more, and as many calls as we allow wait for it."""
    orders = await town.begin_hanging()
    town.house.transport.hold(HANGING_URL)
    await town.pay(orders)
    await until(lambda: _soon(len(town.house.transport.sent) > 0), True, seconds=20)


def _soon(value: bool) -> Awaitable[bool]:
    async def say() -> bool:
        return value

    return say()


@pytest.mark.timeout(150)
async def test_a_hanging_his_does_not_slow_another_institutions_confirmations(town: Town) -> None:
    house = town.house
    async with working(house, loops(house.services)):
        alone = await town.latencies(
            await town.pay(await town.begin_healthy(), pace_seconds=PACE_SECONDS), seconds=HEALTHY_SECONDS
        )
        await hang(town)
        beside = await town.latencies(
            await town.pay(await town.begin_healthy(), pace_seconds=PACE_SECONDS), seconds=HEALTHY_SECONDS
        )
        assert await booked(town.guest) == 0
        waiting = house.transport.most_at_once
    print(
        f"confirmations of the healthy institution: p50 {alone[BATCH // 2] * 1000:.0f} ms, p99 {p99(alone):.2f} s;"
        f" beside a hanging HIS, {waiting} calls waiting for it: p50 {beside[BATCH // 2] * 1000:.0f} ms,"
        f" p99 {p99(beside):.2f} s"
    )
    assert p99(beside) < max(4 * p99(alone), HEALTHY_SECONDS / 2)
    assert await Message.filter(institution_id=house.institution_id).exists()


async def test_places_that_all_institutions_share_would_be_taken_by_the_one_that_hangs(town: Town) -> None:
    """The mistake that the test above looks for, made on purpose."""
    house = town.house
    shared = [
        replace(loop, at_once_max=8, per_counterparty_max=8) if loop.table == "confirmation" else loop
        for loop in loops(house.services)
    ]
    async with working(house, shared):
        await hang(town)
        told = await town.pay((await town.begin_healthy())[:5])
        with pytest.raises(AssertionError, match="0 of 5"):
            await town.latencies(told, seconds=3)


def p99(latencies: list[float]) -> float:
    return latencies[int(len(latencies) * 0.99)]


async def booked(guest: Guest) -> int:
    return await Confirmation.filter(institution_id=guest.institution_id, status=ConfirmationStatus.CONFIRMED).count()
