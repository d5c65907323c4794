"""What follows from evidence, done at once by the program that received it; the worker does what is left over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from core.confirmations import Confirmations
from core.due import DueRow, take
from core.messages import Messages
from core.outside import Outside
from core.refunds import Refunds
from core.transactions import rows

LEASE = timedelta(seconds=90)
ROWS_MAX = 50


@dataclass(frozen=True, slots=True)
class FollowUp:
    outside: Outside
    confirmations: Confirmations
    refunds: Refunds
    messages: Messages

    async def of(self, institution_id: UUID, payment_id: UUID) -> None:
        """Work the due rows of one payment, in the order in which one follows from the other."""
        steps: tuple[tuple[str, Callable[[DueRow], Awaitable[Any]]], ...] = (
            ("confirmation", self.confirmations.work),
            ("payment_line", self.refunds.work_line),
            ("refund", self.refunds.work),
            ("message", self.messages.work),
        )
        for table, work in steps:
            found = await rows(
                # Not ordered there: the primary key of a table that grows is no way to the few rows that are due.
                f"SELECT id FROM {table} WHERE institution_id = $1 AND payment_id = $2 AND due_at <= $3",
                institution_id,
                payment_id,
                self.outside.clock.now(),
            )
            for row in sorted(found, key=lambda row: str(row["id"]))[:ROWS_MAX]:
                due = await take(
                    table,
                    row["id"],
                    institution_id,
                    now=self.outside.clock.now(),
                    holder=self.outside.lease_name(),
                    lease=LEASE,
                )
                if due is not None:
                    await work(due)
