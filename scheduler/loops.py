"""Every kind of due row and who works it; read this first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.due import LEASE_MARGIN, DueRow, claim
from core.services import Services
from core.tenancy import across_institutions
from core.transactions import rows

CALLS_MAX = 4
"""A unit of work makes at most so many calls to counterparties, one after the other."""

CALL_SECONDS = 20
HOSPITAL_CALL_SECONDS = 60
"""The longest deadline that a hospital may be given; the database holds it too."""

LEASE = timedelta(seconds=CALLS_MAX * CALL_SECONDS) + LEASE_MARGIN
HOSPITAL_LEASE = timedelta(seconds=CALLS_MAX * HOSPITAL_CALL_SECONDS) + LEASE_MARGIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Loop:
    """One kind of due row."""

    table: str
    work: Callable[[DueRow], Awaitable[Any]]
    counterparty: str  # the column that says who is asked
    at_once_max: int  # rows of this kind under way in one program
    per_counterparty_max: int  # of them for one counterparty
    lease: timedelta = LEASE


def loops(services: Services) -> tuple[Loop, ...]:
    """All loops, in the order in which a payment meets them."""
    return (
        Loop(
            table="inbound",
            work=services.inbounds.work,
            counterparty="account_id",
            at_once_max=64,
            per_counterparty_max=32,
            lease=HOSPITAL_LEASE,
        ),
        Loop(
            table="payment",
            work=services.payments.work,
            counterparty="merchant_account_id",
            at_once_max=64,
            per_counterparty_max=20,
        ),
        Loop(
            table="confirmation",
            work=services.confirmations.work,
            counterparty="site_id",
            at_once_max=128,
            per_counterparty_max=8,
            lease=HOSPITAL_LEASE,
        ),
        Loop(
            table="his_lock",
            work=services.locks.work,
            counterparty="site_id",
            at_once_max=64,
            per_counterparty_max=4,
            lease=HOSPITAL_LEASE,
        ),
        Loop(
            table="payment_line",
            work=services.refunds.work_line,
            counterparty="institution_id",
            at_once_max=32,
            per_counterparty_max=16,
        ),
        Loop(
            table="refund",
            work=services.refunds.work,
            counterparty="institution_id",
            at_once_max=64,
            per_counterparty_max=16,
            lease=HOSPITAL_LEASE,
        ),
        Loop(
            table="message",
            work=services.messages.work,
            counterparty="institution_id",
            at_once_max=128,
            per_counterparty_max=32,
        ),
        Loop(
            table="hospital_site",
            work=services.new_bills.work,
            counterparty="id",
            at_once_max=32,
            per_counterparty_max=1,
            lease=HOSPITAL_LEASE,
        ),
    )


async def claim_due(
    loop: Loop, services: Services, *, batch_max: int | None = None, skip: Sequence[UUID] = ()
) -> list[DueRow]:
    """The rows of this kind that we hold from now on; none of the counterparties in `skip`."""
    return await claim(
        loop.table,
        now=services.outside.clock.now(),
        holder=services.outside.lease_name(),
        lease=loop.lease,
        batch_max=loop.at_once_max if batch_max is None else batch_max,
        counterparty=loop.counterparty,
        per_counterparty_max=loop.per_counterparty_max,
        skip=skip,
    )


async def next_due_at(loop: Loop) -> datetime | None:
    """When the earliest row of this kind is due."""
    with across_institutions("a worker sleeps until anything is due"):
        found = await rows(f"SELECT min(due_at) AS due_at FROM {loop.table} WHERE due_at IS NOT NULL")
    due_at: datetime | None = found[0]["due_at"]
    return due_at
