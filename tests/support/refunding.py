"""Members of staff, and payments that they may give back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from core.actors import Actor, Role
from core.invariants import Outcome, check_invariants
from core.models import Payment, PaymentLine, Refund, Staff, Transfer
from core.money import Fen
from core.services import Services
from core.tenancy import scoped
from tests.support.house import House
from tests.support.postgres import Database

CLERK = frozenset({Role.LOOK, Role.REQUEST_REFUND})
HEAD = frozenset({Role.LOOK, Role.REQUEST_REFUND, Role.APPROVE_REFUND})

_keys = itertools.count(1)


async def staff(house: House, code: str, roles: frozenset[Role] = HEAD) -> Actor:
    """A member of staff of the house's institution."""
    row = await Staff.create(
        id=house.services.outside.ids.uuid(),
        institution_id=house.institution_id,
        code=code,
        roles=sorted(role.value for role in roles),
        created_at=house.clock.now(),
    )
    return Actor(staff_id=row.id, institution_id=house.institution_id, code=code, roles=roles)


async def booked(house: House, *totals: int, who: str = "王秀兰", **bill: Any) -> tuple[Payment, list[PaymentLine]]:
    """A payment that the HIS has booked; several bills are paid together."""
    payer = await house.payer(who)
    patient = await house.bound(payer)
    bills = [house.bill(total_fen=total, **bill) for total in totals or (8650,)]
    started = await house.start(
        payer,
        patient,
        bills[0],
        bills=tuple(("", each) for each in bills),
        shown_fen=Fen(sum(house.his.bills[each].to_pay_fen for each in bills)),
    )
    house.pay_sheet(started)
    await house.settle(within=timedelta(hours=1))
    return await house.payment(started.order_no), await house.lines(started.order_no)


async def request(
    services: Services,
    actor: Actor,
    payment: Payment,
    *parts: tuple[UUID, int | None] | tuple[UUID, int | None, Sequence[str]],
    key: str = "",
) -> Refund:
    asked = [(part[0], None if part[1] is None else Fen(part[1]), part[2] if len(part) > 2 else ()) for part in parts]
    return await services.staff_refunds.request(
        actor, payment.order_no, asked, reason="药品未取", key=key or f"click {next(_keys)}"
    )


async def accounts(payment: Payment) -> dict[str, int]:
    """What lies in each account of the payment's ledger, debits less credits."""
    found: dict[str, int] = {}
    for transfer in await scoped(payment.institution_id).find(Transfer, payment_id=payment.id):
        found[transfer.debit] = found.get(transfer.debit, 0) + transfer.amount_fen
        found[transfer.credit] = found.get(transfer.credit, 0) - transfer.amount_fen
    return {account: fen for account, fen in found.items() if fen}


async def off(database: Database) -> list[Outcome]:
    """The identities that do not hold."""
    connection = await asyncpg.connect(**database.superuser_credentials)
    try:
        return [outcome for outcome in await check_invariants(connection) if not outcome.ok]
    finally:
        await connection.close()


def given_back(house: House, order_no: str) -> int:
    """What the channel has given back of an order."""
    (order,) = [order for order in house.pay.books()["orders"] if order["out_trade_no"] == order_no]
    assert not order["returning_fen"]
    return int(order["refunded_fen"])


def taken_back(house: House, bill_id: str) -> list[int]:
    """What the HIS has taken back of a bill, red receipt by red receipt."""
    return [red["amount_fen"] for red in house.his.books()["bills"][bill_id]["red_receipts"]]
