"""Where a flow is played: one House, its people, and the fault that is to strike."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
from tortoise.exceptions import OperationalError

from core.actors import Actor
from core.errors import AlreadyPaid, RequestError, ServiceUnavailable
from core.models import Payer
from core.payments import Started
from core.transactions import rows
from scheduler.loops import claim_due
from simulators.faults import Effect, Fault
from simulators.kit import ConnectionLost, Request, Response, deliver_one
from tests.support.house import House
from wire.http import HttpReply, HttpRequest, Transport

TRIES_MAX = 24
STEPS_MAX = 600
TRY_AGAIN = timedelta(seconds=20)


class Died(BaseException):
    """This program is killed here; another one goes on."""


GONE = (
    Died,
    ServiceUnavailable,
    OperationalError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that was cut while nobody used it
    ConnectionError,
)
"""What ends a piece of work when a program or its database dies under it."""


class Aim:
    """Every call of a flow that one of the armed faults can strike is struck once."""

    def __init__(self) -> None:
        self.armed: list[Fault] = []
        self.struck: Counter[str] = Counter()
        self.only_looks = self.rests = False
        self.could_strike: set[str] = set()
        self._hit: set[tuple[str, str]] = set()

    def at(self, faults: Sequence[Fault]) -> None:
        self.armed = sorted(faults, key=lambda fault: fault.name)
        self.struck.clear()
        self._hit.clear()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """A part of a flow in which nothing strikes."""
        self.rests = True
        try:
            yield
        finally:
            self.rests = False

    def pick(self, counterparty: str, call: str, key: str, *, specific: bool) -> Fault | None:
        """In the place of Faults.pick."""
        if self.rests:
            return None
        for fault in self.armed:
            if fault.counterparty != counterparty or (fault.effect is Effect.SPECIFIC) != specific:
                continue
            if fault.calls and call not in fault.calls:
                continue
            if self.only_looks:
                self.could_strike.add(fault.name)
            elif (fault.name, call) not in self._hit:
                self._hit.add((fault.name, call))
                self.struck[fault.name] += 1
                return fault
        return None


CallHook = Callable[[str, HttpRequest, Callable[[], Awaitable[HttpReply]]], Awaitable[HttpReply]]


class Hooked:
    """A transport of which an act may take hold, call by call."""

    def __init__(self, inner: Transport, house: House) -> None:
        self.inner, self.house = inner, house
        self.hook: CallHook | None = None

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        async def carry() -> HttpReply:
            return await self.inner.send(request, deadline_seconds=deadline_seconds)

        if self.hook is None:
            return await carry()
        return await self.hook(call_name(request), request, carry)


def call_name(request: HttpRequest) -> str:
    """Which call of which counterparty this is, as far as acts care."""
    path = request.url.partition("?")[0]
    if "pay.test" in path:
        if path.endswith("/close"):
            return "close"
        if "refund" in path:
            return "refund" if request.method == "POST" else "query_refund"
        return "create" if request.method == "POST" else "query"
    if "his.test" in path:
        return "his " + path.rpartition("/")[2]
    return "chat " + path.rpartition("/")[2]


@dataclass(kw_only=True)
class Stage:
    """What a flow plays with; `moment` is where an act may step in."""

    house: House
    payer: Payer
    relative: Payer
    stranger: Payer
    texter: Payer  # whom only text messages reach
    patient_id: UUID
    clerk: Actor
    head: Actor
    superuser: asyncpg.Connection
    hooked: Hooked
    aim: Aim = field(default_factory=Aim)
    act: Callable[[Stage], Awaitable[bool]] | None = None
    act_moment: str = ""
    acted: int = 0
    bills: list[str] = field(default_factory=list)
    started: Started | None = None  # the payment at hand
    at_hand: tuple[Payer, UUID, tuple[str, ...]] | None = None
    patience: timedelta = timedelta(hours=8)

    @property
    def struck(self) -> int:
        return self.aim.struck.total() + self.acted

    async def moment(self, name: str) -> None:
        if self.act is not None and self.act_moment == name:
            act, self.act = self.act, None
            done = await act(self)
            self.acted += done

    # ------------------------------------------------------------ people

    def bill(self, **changes: Any) -> str:
        number = self.house.bill(**changes)
        self.bills.append(number)
        return number

    async def again(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What a person asks for, again when a page says so; None when it comes to nothing."""
        for _ in range(TRIES_MAX):
            try:
                return await ask()
            except AlreadyPaid:
                return None
            except (RequestError, *GONE):
                self.house.clock.advance(TRY_AGAIN)
                await self.work_due()
        return None

    async def open_sheet(
        self, *bills: str, payer: Payer | None = None, patient_id: UUID | None = None
    ) -> Started | None:
        """The pay sheet of these bills, whatever it takes."""
        who, whose = payer or self.payer, patient_id or self.patient_id
        self.at_hand = (who, whose, bills)

        async def start() -> Started:
            amount = sum(self.house.his.bills[bill].to_pay_fen for bill in bills)
            keys = tuple(("", bill) for bill in bills)
            return await self.house.start(who, whose, bills[0], bills=keys, shown_fen=amount)

        self.started = await self.again(start)
        if self.started is not None:
            await self.moment("sheet")
        return self.started

    async def pay(self, *bills: str, payer: Payer | None = None, patient_id: UUID | None = None) -> None:
        """Open the pay sheet and confirm it; a sheet that cannot be used any more is opened anew."""
        for _ in range(TRIES_MAX):
            if await self.open_sheet(*bills, payer=payer, patient_id=patient_id) is None or self.started is None:
                break
            if self.started.pay is None or self.house.pay_sheet(self.started) in {"paid", "already_paid"}:
                break
            self.house.clock.advance(TRY_AGAIN)
            await self.work_due()
        await self.moment("paid")

    # ------------------------------------------------------------ time passes

    async def work_due(self) -> bool:
        """Everything that is due now, once; False when nothing was. Work that dies is left to its lease."""
        moved, house = False, self.house
        for simulator in (house.pay, house.his):
            while await deliver_one(simulator, self._receive):
                moved = True
        now = house.clock.now()
        for table, due_at in (await self._next_dues()).items():
            if due_at > now:
                continue
            for loop in house.loops():
                if loop.table == table:
                    for row in await claim_due(loop, house.services):
                        moved = True
                        with suppress(*GONE):
                            await loop.work(row)
        return moved

    async def _receive(self, url: str, request: Request) -> Response:
        try:
            return await self.house.receive(url, request)
        except GONE as error:
            raise ConnectionLost("the program died") from error

    async def _next_dues(self) -> dict[str, Any]:
        """When each table has something for a loop: what a dead program holds is nobody's before its lease ends."""
        sql = " UNION ALL ".join(
            f"SELECT '{loop.table}' AS name, min(greatest(due_at, lease_until)) AS due_at FROM {loop.table}"
            " WHERE due_at IS NOT NULL"
            for loop in self.house.loops()
        )
        for _ in range(TRIES_MAX):
            try:
                return {row["name"]: row["due_at"] for row in await rows(sql) if row["due_at"] is not None}
            except GONE:
                await asyncio.sleep(0)
        raise AssertionError("the database does not come back")

    async def rest(self, within: timedelta | None = None) -> None:
        """Let time pass until nothing is due any more, or patience is over."""
        end = self.house.clock.now() + (self.patience if within is None else within)
        for _ in range(STEPS_MAX):
            if await self.work_due():
                continue
            moments = [*(await self._next_dues()).values()]
            piles = (self.house.pay.deliveries, self.house.his.deliveries)
            moments += [at for pile in piles if (at := pile.next_due_at()) is not None]
            if not moments or min(moments) > end:
                return
            self.house.clock.advance(max(min(moments) - self.house.clock.now(), timedelta(0)))
        raise AssertionError("the house does not come to rest")
