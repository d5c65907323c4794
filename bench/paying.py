"""People who pay when they come, whether or not the ones before them are through (an open model)."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg

from bench.town import ANSWER_SECONDS, METHOD, TOTAL_FEN, Person, Town
from runtime.database import credentials_of

NOTICE_SECONDS = 0.1
"""The channel sends its notice so long after the pay sheet."""

LOOK_SECONDS = 0.1
STILL_WORKING_SECONDS = 0.5  # after which the page sends the same again
DONE = (
    "SELECT count(*) FROM message WHERE status <> 'queued' AND payment_id IN"
    " (SELECT id FROM payment WHERE order_no = ANY ($1::text[]))"
)
BOOKED = (
    "SELECT p.order_no, e.at FROM payment_event e JOIN payment p ON p.id = e.payment_id"
    " WHERE e.proves = 'confirmed' AND p.order_no = ANY ($1::text[])"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One payment that somebody will make."""

    person: int
    bills: tuple[str, ...]

    @property
    def start_seconds(self) -> float:
        """What the counterparties take of a start: each bill is asked for, all are locked together, one order."""
        return ANSWER_SECONDS["hospital"] * (len(self.bills) + 1) + ANSWER_SECONDS["wechatpay"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tapped:
    """A payment whose pay sheet has been confirmed. `added` is what the start took beyond the counterparties."""

    order_no: str
    added_seconds: float
    paid_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What became of some payments."""

    planned: int
    tapped: tuple[Tapped, ...]
    failed: tuple[str, ...]
    done: int  # told the payer
    added_seconds: tuple[float, ...]  # per booked payment: start and booking, without the counterparties; sorted
    took_seconds: float

    @property
    def complete(self) -> bool:
        return self.done == len(self.added_seconds) == self.planned


class Street:
    """Where people come from: their phones, and a look into the database at how it ended."""

    def __init__(self, town: Town, http: aiohttp.ClientSession, look: asyncpg.Pool) -> None:
        self._town, self._http, self._look = town, http, look
        self._keys = itertools.count()

    async def pay(self, planned: Sequence[Planned], *, rate: float, rng: random.Random, patience: float) -> Run:
        """All of them, coming at random with `rate` a second on average; waits `patience` seconds for the last."""
        began = time.monotonic() + 0.05
        at, tasks = began, []
        for each in planned:
            at += rng.expovariate(rate)
            await asyncio.sleep(max(at - time.monotonic(), 0))
            tasks.append(asyncio.create_task(self._tap(each, at)))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        tapped = tuple(result for result in results if isinstance(result, Tapped))
        failed = tuple(f"{type(result).__name__}: {result}" for result in results if isinstance(result, BaseException))
        done = await self._wait(tapped, patience)
        return Run(
            planned=len(planned),
            tapped=tapped,
            failed=failed,
            done=done,
            added_seconds=tuple(sorted(await self._added(tapped))),
            took_seconds=time.monotonic() - began,
        )

    async def pay_alone(self, planned: Iterable[Planned]) -> list[tuple[float, float, float]]:
        """One after the other; for each when it began, when it was ordered and when its payer had been told."""
        moments = []
        for each in planned:
            began = time.monotonic()
            order_no = await self._order(each)
            ordered = time.monotonic()
            await self._pay_sheet(each, order_no)
            assert await self._wait_for([order_no], 30, every=0.005) == 1, f"{order_no} was not told"
            await asyncio.sleep(0.05)  # what is written after the last statement that we look for
            moments.append((began, ordered, time.monotonic()))
        return moments

    async def _tap(self, planned: Planned, due: float) -> Tapped:
        """Measured from the moment when it was due, so that a sender that is late hides nothing."""
        order_no = await self._order(planned)
        added = time.monotonic() - due - planned.start_seconds
        await self._pay_sheet(planned, order_no)
        return Tapped(order_no=order_no, added_seconds=added, paid_at=datetime.now(UTC))

    async def _order(self, planned: Planned) -> str:
        person: Person = self._town.people[planned.person]
        body = {
            "patient_id": str(person.patient_id),
            "bills": [{"branch": "", "bill_id": bill} for bill in planned.bills],
            "shown_fen": TOTAL_FEN * len(planned.bills),
            "method": METHOD,
        }
        headers = {"authorization": f"Bearer {person.token}", "idempotency-key": str(uuid4())}
        url = f"{self._town.url('web')}/api/v1/payments"
        while True:
            async with self._http.post(url, json=body, headers=headers) as answer:
                said: Any = await answer.json()
            if answer.status in {200, 201}:
                return str(said["order_no"])
            code = said.get("error", {}).get("code")
            if code != "still_working":
                raise RuntimeError(f"HTTP {answer.status} {code}")
            await asyncio.sleep(STILL_WORKING_SECONDS)

    async def _pay_sheet(self, planned: Planned, order_no: str) -> None:
        asked = {"reference": order_no, "payer_openid": self._town.people[planned.person].open_id}
        async with self._http.post(f"{self._town.url('wechatpay')}/_pay", json=asked) as answer:
            said = await answer.json()
            if said != {"result": "paid"}:
                raise RuntimeError(f"the pay sheet said {said}")

    async def _wait(self, tapped: Sequence[Tapped], patience: float) -> int:
        return await self._wait_for([each.order_no for each in tapped], patience, every=LOOK_SECONDS)

    async def _wait_for(self, orders: list[str], patience: float, *, every: float) -> int:
        deadline = time.monotonic() + patience
        while True:
            done = int(await self._look.fetchval(DONE, orders))
            if done >= len(orders) or time.monotonic() > deadline:
                return done
            await asyncio.sleep(every)

    async def _added(self, tapped: Sequence[Tapped]) -> list[float]:
        by_order = {each.order_no: each for each in tapped}
        counterparties = NOTICE_SECONDS + ANSWER_SECONDS["hospital"]
        return [
            by_order[row["order_no"]].added_seconds
            + max((row["at"] - by_order[row["order_no"]].paid_at).total_seconds() - counterparties, 0)
            for row in await self._look.fetch(BOOKED, list(by_order))
        ]


@asynccontextmanager
async def open_street(town: Town, name: str) -> AsyncIterator[Street]:
    """A street that leads to our programs on the database `name`."""
    credentials = credentials_of(town.settings.owner_database_url) | {"database": name}
    async with (
        asyncpg.create_pool(**credentials, min_size=1, max_size=2) as look,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        yield Street(town, http, look)


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values; not a number when there are none."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else float("nan")
