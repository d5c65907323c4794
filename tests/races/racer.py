"""One process of races: `python -m tests.races.racer`; databases and tasks come on its input, outcomes go back.

A task is a line of JSON: what to do, how often at once, and at which moment of the computer's clock to begin. All
programs have counterparties of their own that were made from the same seed, so bills and keys are the same in each;
the database is the one thing that they share, and the one thing that a race is about.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import tests.support.house as house_module
from core.actors import Actor, Role
from core.evidence import Evidence, trade_evidence
from core.models import HospitalSiteRow, Institution, MerchantAccountRow
from core.money import Fen
from core.ports import Trade
from core.starting import StartPayment
from core.states import ProofKind
from core.tenancy import across_institutions
from runtime.database import database
from tests.support.house import METHOD, House

Work = Callable[[int], Awaitable[str]]


class FoundSetup:
    """In the place of runtime.setup.Setup: everything has been set up by whoever runs the race."""

    def __init__(self, *arguments: object) -> None:
        pass

    async def institution(self, **values: object) -> UUID:
        return (await Institution.all().first()).id  # type: ignore[union-attr]

    async def hospital_site(self, *values: object, **more: object) -> HospitalSiteRow:
        return await HospitalSiteRow.all().get()

    async def merchant_account(self, *values: object, **more: object) -> MerchantAccountRow:
        return await MerchantAccountRow.all().get()

    async def chat_account(self, *values: object, **more: object) -> None:
        pass

    async def payment_method(self, *values: object, **more: object) -> None:
        pass


async def a_house() -> House:
    """A program in the house that is there already; its random numbers are its own."""
    setattr(house_module, "Setup", FoundSetup)  # noqa: B010
    setattr(house_module, "seeded_bytes", lambda seed: os.urandom)  # noqa: B010
    with across_institutions("there is one institution"):
        return await House.build()


def paid(order_no: str, paid_fen: int, proof: ProofKind) -> Evidence:
    trade = Trade(
        order_no=order_no,
        exists=True,
        ever_paid=True,
        paid_fen=Fen(paid_fen),
        paid_at=datetime.fromisoformat("2026-05-06T03:00:00+00:00"),
        channel_trade_no=f"T{order_no}",
        state_text="SUCCESS",
    )
    return trade_evidence(trade, source="wechatpay", proof=proof)


def closed(order_no: str) -> Evidence:
    trade = Trade(order_no=order_no, exists=True, ever_paid=False, closed=True, state_text="CLOSED")
    return trade_evidence(trade, source="wechatpay", proof=ProofKind.AUTHENTICATED_CLOSE)


def work_of(house: House, task: dict[str, Any]) -> Work:
    """What one of the racers of this task does; the outcome is a word."""
    services = house.services

    async def notice(number: int) -> str:
        said = await services.inbounds.receive_notice(task["token"], task["headers"], bytes.fromhex(task["body"]))
        return f"answered {said.status}"

    async def pay_or_close(number: int) -> str:
        order = task["orders"][number % len(task["orders"])]
        kinds = (ProofKind.VERIFIED_NOTICE, ProofKind.AUTHENTICATED_QUERY)
        said = closed(order["no"]) if number % 3 == 2 else paid(order["no"], order["fen"], kinds[number % 2])
        payment = await services.applier.apply(said)
        return f"is {payment.status if payment else 'unknown'}"

    async def start(number: int) -> str:
        bills = task["bills"] if (number + task["turn"]) % 2 else task["bills"][::-1]
        started = await services.starting.start(
            StartPayment(
                payer_id=UUID(task["payer"]),
                institution_id=house.institution_id,
                patient_id=UUID(task["patient"]),
                bills=tuple(("", bill) for bill in bills),
                shown_fen=Fen(task["fen"]),
                method=METHOD,
                key=f"{os.getpid()}/{number}",
            )
        )
        return f"started {started.order_no}"

    async def request_refund(number: int) -> str:
        refund = await services.staff_refunds.request(
            _actor(task["clerk"]),
            task["order_no"],
            [(UUID(task["line"]), Fen(task["part"]), ())],
            reason="药品未取",
            key=f"{os.getpid()}/{number}",
        )
        return f"accepted {refund.amount_fen}"

    async def approve(number: int) -> str:
        refund = await services.staff_refunds.approve(_actor(task["heads"][number]), task["refund_no"])
        return f"is {refund.status}"

    works: dict[str, Work] = {
        "notice": notice,
        "pay_or_close": pay_or_close,
        "start": start,
        "request_refund": request_refund,
        "approve": approve,
    }
    return works[task["do"]]


def _actor(values: dict[str, Any]) -> Actor:
    return Actor(
        staff_id=UUID(values["id"]),
        institution_id=UUID(values["institution"]),
        code=values["code"],
        roles=frozenset(Role(role) for role in values["roles"]),
    )


async def run(house: House, task: dict[str, Any]) -> dict[str, Any]:
    """All at the same moment; outcomes by word, errors by their class."""
    house.clock.advance(datetime.fromisoformat(task["now"]) - house.clock.now())
    for name, value in pickle.loads(bytes.fromhex(task["his"])).items():  # noqa: S301  (our own parent's)
        setattr(house.his, name, value)
    work = work_of(house, task)
    await asyncio.sleep(max(task["at"] - time.time(), 0))
    began = time.monotonic()
    outcomes = await asyncio.gather(*(work(number) for number in range(task["times"])), return_exceptions=True)
    words = Counter(type(one).__name__ if isinstance(one, BaseException) else one for one in outcomes)
    return {"seconds": time.monotonic() - began, "words": dict(words)}


async def main() -> None:
    """One race's database after the other."""
    while opening := await _order():
        async with database(opening["open"]):
            house = await a_house()
            _say({"ready": os.getpid()})
            while "do" in (task := await _order()):
                _say(await run(house, task))
        _say({"closed": os.getpid()})


async def _order() -> dict[str, Any]:
    """The next one; nothing when there is none any more."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else {}


def _say(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
