"""Asking a HIS for a page: the counterparty's silence in words that the patient understands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.errors import (
    BillNotPayable,
    ChannelUnavailable,
    HospitalUnavailable,
    NotReached,
    OutcomeUnknown,
    Refused,
)

REFUSAL_REASONS = {
    "BILL_PAID": "paid",
    "BILL_CANCELLED": "cancelled",
    "BILL_EXPIRED": "expired",
    "NOT_PAYABLE_ONLINE": "window_only",
    "LOCK_HELD_BY_OTHER": "busy",
    "MERGE_NOT_ALLOWED": "not_together",
}


@asynccontextmanager
async def asking_hospital() -> AsyncIterator[None]:
    """Raises HospitalUnavailable or BillNotPayable instead of the counterparty's errors.

    A question that the HIS refuses for a reason that says nothing of a bill has not been answered.
    """
    try:
        yield
    except Refused as refused:
        reason = REFUSAL_REASONS.get(refused.code)
        if reason is None:
            raise HospitalUnavailable() from refused
        raise BillNotPayable(reason=reason, his_text=refused.message) from refused
    except (NotReached, OutcomeUnknown) as silent:
        raise HospitalUnavailable() from silent


@asynccontextmanager
async def asking_channel() -> AsyncIterator[None]:
    """Raises ChannelUnavailable instead of the channel's errors."""
    try:
        yield
    except (NotReached, OutcomeUnknown, Refused) as problem:
        raise ChannelUnavailable() from problem
