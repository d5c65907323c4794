"""Deciding that money goes back: the refund's row and its reservation."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.arriving import REFUND_CASES
from core.cases import Cases
from core.ledger import Account, TransferKind
from core.models import Payment, Refund, RefundLine, StaffCase
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.states import CaseStatus, LineStatus, RefundStatus
from core.telling import Telling
from core.tenancy import scoped
from core.transactions import atomically, rows

OVERPAID = "overpaid"
"""Why the rest of an amount goes back whose greater part is booked."""

UNSENT = [RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS, RefundStatus.SENDING]
DOUBTS = ["contradicting_evidence", "hospital_contradicts_itself", "refund_contradiction"]
"""Cases while which money that has not left waits for a person."""


@dataclass(frozen=True, slots=True)
class Returning:
    outside: Outside
    steps: PaymentRows
    cases: Cases
    telling: Telling

    async def return_lines(self, payment_id: UUID, institution_id: UUID, *, held_too: bool = False) -> Refund | None:
        """One refund for all lines of a payment that must go back now; None when there are none (any more).

        `held_too`: the time for staff to decide about a wrong amount is over.
        """
        return await atomically(lambda: self._return_lines(payment_id, institution_id, held_too))

    async def _return_lines(self, payment_id: UUID, institution_id: UUID, held_too: bool) -> Refund | None:
        payment = await scoped(institution_id).of(Payment).select_for_update(no_key=True).get(id=payment_id)
        now = self.outside.clock.now()
        lines = await self.steps.lines(payment)
        back = [
            line
            for line in lines
            if line.status in {LineStatus.REJECTED, LineStatus.SURPLUS} or (line.status is LineStatus.HELD and held_too)
        ]
        if not back:
            return None
        whole = back[0].status is LineStatus.HELD
        amount = payment.paid_fen if whole else Fen(sum(line.amount_fen for line in back))
        if amount == 0:
            for line in back:
                await self.steps.set_line(line, status=LineStatus.RETURNING, due_at=None)
                await self.steps.set_line(line, status=LineStatus.RETURNED, due_at=None)
            if whole:
                await self.telling.returned_whole(payment, lines)
            return None
        refund = await self.new_refund(payment, amount, cause=back[0].reason_code or back[0].status.value, due_at=now)
        for line in back:
            await RefundLine.create(
                id=self.outside.ids.uuid(),
                institution_id=institution_id,
                payment_id=payment.id,
                refund_id=refund.id,
                line_id=line.id,
                amount_fen=line.amount_fen,
            )
            if not whole:
                await self.steps.move(
                    payment,
                    line.id,
                    TransferKind.RETURN_DECIDED,
                    Account.AWAITING_HIS,
                    Account.REFUND_PAYABLE,
                    line.amount_fen,
                )
            await self.steps.set_line(line, status=LineStatus.RETURNING, due_at=None)
        if whole:
            await self.steps.move(
                payment, payment.id, TransferKind.RETURN_DECIDED, Account.HELD, Account.REFUND_PAYABLE, amount
            )
            await self.cases.settle(institution_id, ("wrong_amount",), payment.order_no)
            await self.telling.returned_whole(payment, lines)
        return refund

    async def new_refund(
        self, payment: Payment, amount: Fen, *, cause: str, due_at: datetime, replaces: Refund | None = None
    ) -> Refund:
        """The refund's row and, in one UPDATE that the database bounds, its reservation."""
        refund = await Refund.create(
            id=self.outside.ids.uuid(),
            institution_id=payment.institution_id,
            payment_id=payment.id,
            refund_no=self.outside.ids.refund_no(),
            cause=cause[:32],
            status=RefundStatus.APPROVED,
            amount_fen=amount,
            external_fen=replaces.external_fen if replaces else 0,
            replaces_id=replaces.id if replaces else None,
            **(_handed_on(replaces) if replaces else {}),
            created_at=self.outside.clock.now(),
            due_at=due_at,
        )
        await rows(
            "UPDATE payment SET refund_reserved_fen = refund_reserved_fen + $3"
            " WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
            refund.own_fen,  # what others have given of a replaced one has stayed reserved
        )
        return refund

    async def bury(self, payment: Payment, refund: Refund, proof_id: UUID, **values: Any) -> None:
        """This number will never refund: what it would still give is free again, for the one that replaces it."""
        await self.steps.set_refund(refund, status=RefundStatus.DEAD, proof_id=proof_id, due_at=None, **values)
        await self.cases.settle(payment.institution_id, REFUND_CASES, refund.refund_no)
        await rows(
            "UPDATE payment SET refund_reserved_fen = refund_reserved_fen - $3"
            " WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
            refund.own_fen,
        )

    async def replace(
        self, payment: Payment, dead: Refund, *, due_at: datetime, without: Set[UUID] = frozenset()
    ) -> None:
        """Another number for the money of one that will never refund; in the caller's transaction.

        `without`: these lines do not go back any more; none is made when nothing else is left.
        """
        parts = await scoped(payment.institution_id).find(RefundLine, ("id",), refund_id=dead.id)
        amount = Fen(dead.amount_fen - sum(part.amount_fen for part in parts if part.line_id in without))
        if amount == 0:
            return
        successor = await self.new_refund(payment, amount, cause=dead.cause, due_at=due_at, replaces=dead)
        for part in parts:
            if part.line_id in without:
                continue
            await RefundLine.create(
                id=self.outside.ids.uuid(),
                institution_id=payment.institution_id,
                payment_id=payment.id,
                refund_id=successor.id,
                line_id=part.line_id,
                amount_fen=part.amount_fen,
                his_items=part.his_items,
                reversed_fen=part.reversed_fen,
            )

    async def stop_unsent(self, payment: Payment) -> None:
        """What was believed about this payment is in doubt: money that has not left waits for a person.

        Whoever is just about to send loses his lease. What may have left is asked about as before.
        """
        await rows(
            "UPDATE refund SET holder = '', lease_until = NULL,"
            " due_at = CASE WHEN sends_started = sends_unreached THEN NULL ELSE due_at END"
            " WHERE institution_id = $1 AND payment_id = $2 AND status = ANY ($3::text[]) RETURNING id",
            payment.institution_id,
            payment.id,
            [status.value for status in UNSENT],
        )

    async def go_on(self, payment: Payment) -> None:
        """A doubt is over: unless another one is left, what `stop_unsent` has stopped goes on."""
        scope = scoped(payment.institution_id)
        if await scope.find(StaffCase, payment_id=payment.id, kind=DOUBTS, status=CaseStatus.OPEN):
            return
        await rows(
            "UPDATE refund SET due_at = $4 WHERE institution_id = $1 AND payment_id = $2 AND status = ANY ($3::text[])"
            " AND due_at IS NULL RETURNING id",
            payment.institution_id,
            payment.id,
            [status.value for status in UNSENT],
            self.outside.clock.now(),
        )


def _handed_on(replaced: Refund) -> dict[str, Any]:
    """What a refund's successor has of it: who wanted it, and that the HIS has taken the booking back already."""
    names = ("origin", "requested_by", "decided_by", "decided_at", "red_receipt_no", "reason")
    return {name: getattr(replaced, name) for name in names}
