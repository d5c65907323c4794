"""Money has gone back, by our doing or by others': what follows for the refund, its lines and the payer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.cases import Cases
from core.messages import Messages
from core.models import Payment, PaymentLine, Refund
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.ports import MessageKind
from core.states import LineStatus, RefundStatus
from core.transactions import rows

REFUND_CASES = ("refund_stuck", "refund_blocked", "refund_outcome_unknown", "refund_not_approved")


@dataclass(frozen=True, slots=True)
class Arriving:
    """Part of the caller's transaction, under the payment's lock; the caller has moved the money."""

    outside: Outside
    steps: PaymentRows
    cases: Cases
    messages: Messages

    async def refunded(
        self, payment: Payment, refund: Refund, *, proof_id: UUID, at: datetime | None, **values: Any
    ) -> None:
        """The payer has all that this refund gives."""
        now = self.outside.clock.now()
        await self.steps.set_refund(
            refund, status=RefundStatus.REFUNDED, proof_id=proof_id, refunded_at=at or now, due_at=None, **values
        )
        for line in await self.steps.lines_of_refund(payment, refund):
            await self.end_line(line)
        await self.cases.settle(payment.institution_id, REFUND_CASES, refund.refund_no)
        await self.messages.enqueue(
            payment,
            MessageKind.REFUND_ARRIVED,
            dedup_key=f"refund_arrived:{refund.refund_no}",
            values={"order_no": payment.order_no, "amount_fen": refund.amount_fen, "at": now.isoformat()},
        )

    async def end_line(self, line: PaymentLine) -> None:
        """A line that goes back is at its end once all of it has done so, in several refunds or over the counter."""
        if (
            line.status is LineStatus.RETURNING
            and await self._refunded_fen(line) + line.paid_out_fen >= line.amount_fen
        ):
            await self.steps.set_line(line, status=LineStatus.RETURNED, due_at=None)

    async def _refunded_fen(self, line: PaymentLine) -> int:
        (found,) = await rows(
            "SELECT coalesce(sum(part.amount_fen), 0)::bigint AS fen FROM refund_line part JOIN refund r"
            " ON r.institution_id = $1 AND r.id = part.refund_id WHERE part.institution_id = $1 AND part.line_id = $2"
            " AND r.status = 'refunded'",
            line.institution_id,
            line.id,
        )
        return int(found["fen"])
