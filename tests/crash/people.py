"""What patients, relatives, doctors and cashiers do, sensible or not."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from core.errors import (
    AlreadyPaid,
    AmountChanged,
    BillNotPayable,
    ChannelUnavailable,
    HospitalUnavailable,
    NotFound,
    PaymentOpenElsewhere,
    StillWorking,
)
from core.money import Fen
from core.payments import Started
from core.services import Services
from core.starting import StartPayment
from simulators.faults import chance
from simulators.hospital_books import Refusal
from tests.crash.asking import TRIES_MAX, Asker, GaveUp
from tests.crash.chats import chat
from tests.crash.papers import Paper
from tests.crash.world import MCHID, Phone, World

KINDS = ("western", "chinese", "treatment", "nutrition")


async def visits(world: World) -> None:
    """All visits of the day; returns when everybody has gone home."""
    async with asyncio.TaskGroup() as group:
        for number in range(world.day.visits):
            draw = random.Random(f"{world.day.seed}/visit/{number}")
            group.create_task(_visit(world, number, draw))


async def _visit(world: World, number: int, draw: random.Random) -> None:
    """A doctor prescribes, somebody pays, others meddle."""
    await asyncio.sleep(draw.uniform(0, 240))
    patient = draw.choice(sorted({his_id for phone in world.phones for his_id in phone.patients}))
    payers = [phone for phone in world.phones if patient in phone.patients]
    several, often = (draw.randint(2, 4), 0.8) if world.day.merge else (2, 0.4)
    bills = [await _prescribe(world, patient, draw) for _ in range(several if draw.random() < often else 1)]
    first = draw.choice(payers)
    together = world.day.merge and len(bills) > 1 and draw.random() < 0.7
    groups = [tuple(bills)] if together else [(bill,) for bill in bills]
    async with asyncio.TaskGroup() as group:
        for part, wanted in enumerate(groups):
            key = f"visit{number}.{part}"
            if len(wanted) == 1 and draw.random() < world.day.strangers:
                group.create_task(_pay_by_paper(world, patient, wanted[0], draw, key))
                continue
            group.create_task(_pay(world, first, patient, wanted, draw, key))
            if draw.random() < world.day.rivals:  # a relative, or the same person on another device
                theirs = _rivals_choice(world, bills, wanted, draw)
                group.create_task(_pay(world, draw.choice(payers), patient, theirs, draw, f"{key}b"))
        for question in range(3):
            if draw.random() < world.day.chats:
                group.create_task(_ask_in_chat(world, draw.choice(payers).name, draw, f"visit{number}.chat{question}"))
        for bill in bills:
            if draw.random() < world.day.meddling:
                group.create_task(_meddle(world, bill, draw))


def _rivals_choice(world: World, bills: list[str], wanted: tuple[str, ...], draw: random.Random) -> tuple[str, ...]:
    """The same bills in another order, fewer, or others of the visit: {B, A} or {B, C} against {A, B}."""
    if not world.day.merge or len(bills) == 1:
        return wanted
    return tuple(draw.sample(bills, draw.randint(1, len(bills))))


async def _prescribe(world: World, patient: str, draw: random.Random) -> str:
    await world.scheduler.gate("doctor prescribes", patient)
    options: dict[str, Any] = {"kind": draw.choice(KINDS)}
    if draw.random() < 0.06:
        options["total_fen"] = draw.choice((0, 1))
    if world.day.insured and draw.random() < 0.3:
        options["insured"] = True
    world.scheduler.counts["bills"] += 1
    return world.his.issue_bill(patient, **options)


async def _meddle(world: World, bill: str, draw: random.Random) -> None:
    """Something happens to a bill that somebody may be paying."""
    await asyncio.sleep(draw.uniform(0, 150))
    what = draw.choice(("cancels", "takes the money at the window", "changes the amount"))
    force = draw.random() < 0.3  # a HIS that does not keep its own locks
    await world.scheduler.gate(f"hospital {what}", bill)
    try:
        if what == "cancels":
            world.his.cancel(bill, force=force)
        elif what == "changes the amount":
            world.his.change_amount(bill, world.his.bills[bill].to_pay_fen + 100, force=force)
        else:
            world.his.window_pay(bill, force=force)
    except Refusal as refusal:
        world.scheduler.counts[f"hospital refused itself: {refusal.code}"] += 1
    else:
        world.scheduler.counts[f"hospital {what}"] += 1


async def _pay(world: World, phone: Phone, patient: str, bills: tuple[str, ...], draw: random.Random, key: str) -> None:
    """One person pays these bills, or tries to."""
    await asyncio.sleep(draw.uniform(0, 60))
    payer = _Payer(world, phone, patient, bills, draw, key)
    try:
        await payer.pay()
        if len(bills) > 1 and draw.random() < 0.6:
            await payer.pay_what_came_back(f"{key}r")
    except GaveUp:
        world.scheduler.counts["gave up"] += 1


async def _ask_in_chat(world: World, person: str, draw: random.Random, key: str) -> None:
    await asyncio.sleep(draw.uniform(0, 200))
    await chat(world, person, draw, key)


async def _pay_by_paper(world: World, patient: str, bill: str, draw: random.Random, key: str) -> None:
    """Somebody who has bound nobody scans the paper, shows that he may, and pays."""
    await asyncio.sleep(draw.uniform(0, 60))
    phone = draw.choice(world.strangers)
    paper = Paper(world, replace(phone, patients={}), patient, bill, draw, f"{key}p")
    try:
        patient_id = await paper.opened()
        payer = _Payer(world, replace(phone, patients={patient: patient_id}), patient, (bill,), draw, f"{key}p")
        await payer.pay()
        await paper.scanned_again()
    except GaveUp:
        world.scheduler.counts["gave up"] += 1


class _Payer(Asker):
    def __init__(
        self, world: World, phone: Phone, patient: str, bills: tuple[str, ...], draw: random.Random, key: str
    ) -> None:
        super().__init__(world, phone, draw, key)
        self.bills = bills
        self.patient_id: UUID = phone.patients[patient]
        self.despite_open = False

    async def pay(self) -> None:
        for attempt in range(1, TRIES_MAX + 1):
            started = await self._start(attempt)
            if started is None:
                continue
            if started.pay is None or await self._at_the_sheet(started):
                return
        raise GaveUp

    async def pay_what_came_back(self, key: str) -> None:
        """Of several bills the hospital may have refused some: a while later those are paid once more."""
        await self.pause(40, 240)
        if self._leave_out_what_has_ended():
            self.key = key
            self.world.scheduler.counts["phone pays again"] += 1
            await self.pay()

    def _leave_out_what_has_ended(self) -> bool:
        """Keep the bills that are unpaid at the HIS; False when none is left."""
        now = self.world.scheduler.clock.now()
        self.bills = tuple(bill for bill in self.bills if self.world.his.bills[bill].state(now) == "unpaid")
        return bool(self.bills)

    async def _start(self, attempt: int) -> Started | None:
        """A pay sheet; None when this attempt came to nothing."""
        shown = await self._look()
        idempotency_key = f"{self.key}/{attempt}"
        self.world.scheduler.counts[f"starts for {len(self.bills)}"] += 1

        async def start(services: Services) -> Started:
            return await services.starting.start(
                StartPayment(
                    payer_id=self.phone.payer_id,
                    institution_id=self.world.institution_id,
                    patient_id=self.patient_id,
                    bills=tuple(("", bill) for bill in self.bills),
                    shown_fen=Fen(shown),
                    method=self.phone.method,
                    accept_self_paid=True,
                    despite_open=self.despite_open,
                    key=idempotency_key,
                )
            )

        try:
            if self.draw.random() < 0.15:  # a second tap before the first has an answer
                answers = await asyncio.gather(
                    self.ask(start, "start"), self.ask(start, "start again"), return_exceptions=True
                )
                good = [answer for answer in answers if isinstance(answer, Started)]
                bad = [answer for answer in answers if isinstance(answer, BaseException)]
                if not good:
                    raise bad[0]
                started = good[-1]
            else:
                started = await self.ask(start, "start")
        except (AlreadyPaid, BillNotPayable, NotFound) as problem:
            self.note(problem)
            if isinstance(problem, BillNotPayable) and problem.values.get("reason") in {"busy", "refused", "expired"}:
                await self.pause(20, 90)
                return None
            before = len(self.bills)
            if self._leave_out_what_has_ended() and len(self.bills) < before:
                return None  # the others of a merged payment
            raise GaveUp from problem
        except (AmountChanged, HospitalUnavailable, ChannelUnavailable, StillWorking) as problem:
            self.note(problem)
            await self.pause(3, 60)
            return None
        except PaymentOpenElsewhere as problem:
            self.note(problem)
            if self.draw.random() < 0.6:
                self.despite_open = True
                self.world.knowingly.update(self.bills)
            await self.pause(3, 60)
            return None
        return started

    async def _at_the_sheet(self, started: Started) -> bool:
        """True when this person is done."""
        what = self.draw.choices(
            ("pays", "pays late", "pays much too late", "cancels", "forgets", "asks and pays"), (10, 3, 2, 2, 1, 3)
        )[0]
        self.world.scheduler.counts[f"phone {what}"] += 1
        if what == "pays":
            await self.pause(2, 40)
        elif what == "pays late":
            left = (started.expires_at - self.world.scheduler.clock.now()).total_seconds()
            await asyncio.sleep(max(left + self.draw.uniform(-3, 1), 0))
        elif what == "pays much too late":
            await self.pause(200, 500)
        elif what == "cancels":
            await self.pause(2, 30)
            await self.attempt(lambda services: services.payments.cancel(*self._mine(started)), "cancel")
            if self.draw.random() < 0.4:  # … and taps "pay" after all
                await self._confirm(started)
            return self.draw.random() < 0.3
        elif what == "forgets":
            return True
        else:
            await self.pause(1, 5)
            await self.attempt(lambda services: services.payments.refreshed(*self._mine(started)), "look")
        paid = await self._confirm(started)
        for _ in range(self.draw.randint(0, 2)):
            await self.pause(0.9, 1.3)  # just when the channel's notice arrives
            await self.attempt(lambda services: services.payments.refreshed(*self._mine(started)), "look")
        return paid or self.draw.random() < 0.5

    async def _confirm(self, started: Started) -> bool:
        assert started.pay is not None
        await self.world.scheduler.gate("phone confirms", started.order_no)
        self._twist(started.order_no)
        result = self.world.pay.pay_with(dict(started.pay.values), self.phone.open_id)
        self.world.scheduler.counts[f"sheet: {result}"] += 1
        return result in {"paid", "already_paid"}

    def _twist(self, order_no: str) -> None:
        """What no document provides for: another amount than was asked for, a closed order that can be paid."""
        order = self.world.pay.orders[MCHID, order_no]
        unpaid = order.paid_at is None and order.closed_at is None
        if unpaid and chance(self.world.day.seed, "twist", order_no) < self.world.day.wrong_amounts:
            amount = order.asked["amount"]
            order.asked = order.asked | {"amount": amount | {"total": amount["total"] + 7}}
            self.world.scheduler.counts["wrong amounts taken"] += 1
        gone = order.paid_at is None and order.closed_at is not None
        told = "wechatpay.notice_lost" not in self.world.day.rates  # else only a statement could tell us
        if gone and told and chance(self.world.day.seed, "revive", order_no) < self.world.day.revivals:
            order.closed_at = None
            soon = self.world.scheduler.clock.now() + timedelta(minutes=1)
            for reference in self.world.pay.references.values():
                if reference.order is order:
                    reference.valid_until = max(reference.valid_until, soon)
            self.world.knowingly.update(self.bills)
            self.world.scheduler.counts["closed orders revived"] += 1

    async def _look(self) -> int:
        """What the page shows for these bills now."""
        shown = sum(self.world.his.bills[bill].to_pay_fen for bill in self.bills)
        if self.draw.random() < 0.3:
            await self.attempt(self._list, "list")
        return shown

    async def _list(self, services: Services) -> None:
        """Whatever is unpaid at the HIS the whole time must be on the page."""
        before = self._unpaid()
        shown = await services.bills.unpaid(self.world.institution_id, self.phone.payer_id, self.patient_id)
        missing = before & self._unpaid() - {one.bill.his_bill_id for one in shown}
        if missing:
            self.world.mistakes.append(f"the page does not show {sorted(missing)}")

    def _unpaid(self) -> set[str]:
        now = self.world.scheduler.clock.now()
        return {
            bill.bill_id
            for bill in self.world.his.bills.values()
            if bill.patient_id in self.phone.patients and bill.state(now) == "unpaid"
        }

    def _mine(self, started: Started) -> tuple[UUID, UUID, str]:
        return (self.phone.payer_id, self.world.institution_id, started.order_no)
