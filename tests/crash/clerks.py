"""What people of the hospital do with money that has been booked: ask for it back, approve, decline, take back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

from core.actors import Actor, Role
from core.errors import HospitalUnavailable, NotFound, RequestError, StaffError
from core.models import Decision, Refund
from core.money import Fen
from core.services import Services
from core.tenancy import scoped
from simulators.hospital_books import Booked, HisBill, Refusal
from tests.crash.asking import Asker, GaveUp
from tests.crash.world import World

T = TypeVar("T")

CLERKS = ("clerk", "head", "deputy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counter:
    """How much of this happens on a day; drawn apart, so that a day without it is the same as ever."""

    requests: int
    windows: int
    handed_out: float  # how often a bill's goods are with the patient before anybody asks

    @classmethod
    def of(cls, seed: int) -> Counter:
        draw = random.Random(f"{seed}/counter")
        busy = draw.random() < 0.6
        return cls(
            requests=draw.randint(1, 4) if busy else 0,
            windows=draw.choice((0, 1, 1, 2)) if busy else 0,
            handed_out=draw.choice((0.0, 0.3)),
        )


async def at_the_counter(world: World) -> None:
    """All that clerks and cashiers do this day; returns when the counter closes."""
    counter = Counter.of(world.day.seed)
    async with asyncio.TaskGroup() as group:
        for number in range(counter.requests):
            draw = random.Random(f"{world.day.seed}/request/{number}")
            group.create_task(_ask_back(world, draw, f"request{number}", counter))
        for number in range(counter.windows):
            group.create_task(_take_back(world, random.Random(f"{world.day.seed}/window/{number}")))


async def _ask_back(world: World, draw: random.Random, key: str, counter: Counter) -> None:
    """A clerk looks for a bill that was paid by phone and asks for it back, or for a part of it."""
    await asyncio.sleep(draw.uniform(120, 700))
    clerk = _Clerk(world, draw, key)
    try:
        for _ in range(3):
            found = _booked_by_phone(world, draw)
            if found is None:
                await clerk.pause(30, 120)
                continue
            bill, booked = found
            if draw.random() < counter.handed_out:
                await world.scheduler.gate("pharmacy hands out", bill.bill_id)
                world.his.dispense(bill.bill_id)
            refund_no = await clerk.request(bill, booked.order_no)
            if refund_no:
                await clerk.decide(refund_no)
                return
            await clerk.pause(20, 120)
    except GaveUp:
        world.scheduler.counts["clerk gave up"] += 1


async def _take_back(world: World, draw: random.Random) -> None:
    """A cashier takes back what was paid by phone, and says who gives the money."""
    await asyncio.sleep(draw.uniform(120, 800))
    found = _booked_by_phone(world, draw)
    if found is None:
        return
    bill, booked = found
    left = booked.amount_fen - booked.returned_fen
    amount = draw.randint(1, left) if left > 1 and draw.random() < 0.5 else None
    money_by = draw.choice(("us_original_route", "us_original_route", "hospital_cash"))
    await world.scheduler.gate("window takes back", bill.bill_id)
    try:
        number = world.his.refunds.reverse_at_window(
            bill.bill_id, money_by=money_by, amount_fen=amount, confirm_no=booked.confirm_no
        )
    except Refusal as refusal:
        world.scheduler.counts[f"hospital refused itself: {refusal.code}"] += 1
    else:
        world.scheduler.counts[f"window took back: {money_by}"] += 1
        for _ in range(draw.choice((0, 0, 1, 2))):  # a HIS that tells of it again, as an event of its own
            await asyncio.sleep(draw.uniform(0, 90))
            world.his.tell_refunded(bill, number)


def _booked_by_phone(world: World, draw: random.Random) -> tuple[HisBill, Booked] | None:
    found = [
        (bill, booked)
        for _, bill in sorted(world.his.bills.items())
        for booked in bill.booked
        if booked.paid_by == "mobile" and not booked.reversed and booked.amount_fen > booked.returned_fen
    ]
    return draw.choice(found) if found else None


class _Clerk(Asker):
    """One refund, from the wish to the decision."""

    def __init__(self, world: World, draw: random.Random, key: str) -> None:
        super().__init__(world, world.phones[0], draw, key)
        self.actors = {name: actor(world, name) for name in CLERKS}

    async def do(self, work: Callable[[Services], Awaitable[T]], what: str) -> T | Exception:
        """What our server says, a refusal too. Raises GaveUp."""

        async def tried(services: Services) -> T | Exception:
            try:
                return await work(services)
            except StaffError as problem:
                return problem

        try:
            return await self.ask(tried, what)
        except RequestError as problem:
            return problem

    async def request(self, bill: HisBill, order_no: str) -> str:
        """The refund's number, or nothing when it came to nothing."""
        clerk = self.actors["clerk"]
        options = await self.do(lambda services: services.staff_refunds.options(clerk, order_no), "options")
        if isinstance(options, Exception):
            self._note(options)
            return ""
        option = next((one for one in options if one.his_bill_id == bill.bill_id and one.allowed_fen), None)
        if option is None:
            self.world.scheduler.counts["clerk sees: nothing may go back"] += 1
            return ""
        part = self._part(option.line_id, option.allowed_fen, [one.item_id for one in option.items if one.refundable])
        click = f"{self.key}/{self.asked}"
        twice = 2 if self.draw.random() < 0.2 else 1
        answers = await asyncio.gather(
            *(
                self.do(
                    lambda services: services.staff_refunds.request(
                        clerk, order_no, [part], reason="不想要了", key=click
                    ),
                    "request",
                )
                for _ in range(twice)
            )
        )
        for answer in answers:
            if isinstance(answer, Refund):
                self.world.scheduler.counts[f"clerk asked: {answer.status}"] += 1
                return answer.refund_no
            self._note(answer)
        return ""

    def _part(self, line_id: UUID, allowed_fen: Fen, items: list[str]) -> tuple[UUID, Fen | None, list[str]]:
        what = self.draw.random()
        if what < 0.5:
            return line_id, None, []
        if what < 0.75 and items:
            return line_id, None, [self.draw.choice(items)]
        return line_id, Fen(self.draw.randint(1, allowed_fen)), []

    async def decide(self, refund_no: str) -> None:
        """Others look at it; the clerk himself may not."""
        await self.pause(5, 200)
        approve = [self.draw.choice(CLERKS) for _ in range(self.draw.choice((1, 1, 2)))]
        if self.draw.random() < 0.2:
            answers = [await self._decline(refund_no, "head")]
        else:
            answers = await asyncio.gather(*(self._approve(refund_no, name) for name in approve))
        for answer in answers:
            if isinstance(answer, Exception):
                self._note(answer)

    async def _approve(self, refund_no: str, name: str) -> Refund | Exception:
        return await self.do(
            lambda services: services.staff_refunds.approve(self.actors[name], refund_no), f"approve {name}"
        )

    async def _decline(self, refund_no: str, name: str) -> Refund | Exception:
        return await self.do(
            lambda services: services.staff_refunds.decline(self.actors[name], refund_no, reason="不同意"), "decline"
        )

    def _note(self, problem: object) -> None:
        if not isinstance(problem, StaffError | HospitalUnavailable | NotFound):
            self.world.mistakes.append(f"a clerk was told {problem!r}")
            return
        reason = problem.values.get("reason", "")
        self.world.scheduler.counts[f"told the clerk: {problem.code} {reason}".rstrip()] += 1


def actor(world: World, name: str) -> Actor:
    return Actor(staff_id=world.clerks[name], institution_id=world.institution_id, code=name, roles=frozenset(Role))


def told_again(world: World) -> None:
    """Somebody at the HIS repeats what was unclear; it may then wait for two people, as any red receipt."""
    unclear = (
        "SELECT subject FROM staff_case WHERE status = 'open' AND kind = 'hospital_refund_unclear' ORDER BY subject"
    )
    for (number,) in world.postgres.query(unclear):
        ((bill, _), *_) = world.his.refunds.red_receipts[number]
        world.his.tell_refunded(bill, number)


async def in_the_evening(world: World) -> None:
    """Nothing is left undecided: requests are declined, red receipts above the cap are released or kept by two."""
    clerk = _Clerk(world, random.Random(f"{world.day.seed}/evening of clerks"), "evening")
    waiting = world.postgres.query("SELECT refund_no, origin FROM refund WHERE status = 'requested' ORDER BY refund_no")
    for refund_no, origin in waiting:
        if origin == "staff":
            await clerk._decline(refund_no, "head")
            continue
        keeps = clerk.draw.random() < 0.3
        if keeps:
            ((number,),) = world.postgres.query("SELECT red_receipt_no FROM refund WHERE refund_no = %s", refund_no)
            world.kept.add(number)
        await clerk.do(partial(_decide, world, refund_no, keeps), "decide")
    for number, reversing in sorted(world.his.refunds.reversings.items()):
        if reversing.state == "unclear":
            world.his.refunds.resolve(number, take_back=clerk.draw.random() < 0.5)


async def _decide(world: World, refund_no: str, keeps: bool, services: Services) -> Refund:
    refund = await scoped(world.institution_id).get(Refund, refund_no=refund_no)
    two = Decision(proposed_by=world.clerks["head"], decided_by=world.clerks["deputy"])
    if keeps:
        return await services.staff_refunds.keep(refund, two, text="收据有误")
    return await services.staff_refunds.release(refund, two)
