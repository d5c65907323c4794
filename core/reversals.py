"""Refunds of what the HIS has booked: reserved, moved once the HIS has taken the booking back, or given free again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.arriving import Arriving
from core.cases import Cases
from core.errors import RefundNotPossible
from core.evidence import Evidence
from core.his_evidence import KEPT, REVERSED
from core.ledger import Account, TransferKind
from core.models import Payment, PaymentLine, Refund, RefundLine
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.states import LineStatus, RefundStatus
from core.tenancy import scoped
from core.transactions import atomically, rows

REVERSAL_CASES = ("reversal_outcome_unknown", "reversal_differs")
TEXT_LENGTH_MAX = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundPart:
    """How much of one line goes back; which of the HIS's items, if it counts by them."""

    line: PaymentLine
    amount_fen: Fen
    his_items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reversals:
    """Steps on the rows of one payment, in a transaction that holds its lock or takes it by the first step."""

    outside: Outside
    steps: PaymentRows
    cases: Cases
    arriving: Arriving

    async def reserve(
        self,
        payment: Payment,
        parts: Sequence[RefundPart],
        *,
        origin: str,
        cause: str,
        status: RefundStatus,
        **values: Any,
    ) -> Refund:
        """The refund and what it reserves, of the payment and of each line; the database bounds both.

        Raises RefundNotPossible, and the caller's transaction must not be committed then.
        """
        amount = Fen(sum(part.amount_fen for part in parts))
        reserved = await rows(
            "UPDATE payment SET refund_reserved_fen = refund_reserved_fen + $3 WHERE institution_id = $1 AND id = $2"
            " AND status = 'paid' AND refund_reserved_fen + $3 <= paid_fen RETURNING id",
            payment.institution_id,
            payment.id,
            amount,
        )
        if not reserved:
            raise RefundNotPossible(reason="too_much")
        refund = await Refund.create(
            id=self.outside.ids.uuid(),
            institution_id=payment.institution_id,
            payment_id=payment.id,
            refund_no=self.outside.ids.refund_no(),
            cause=cause,
            origin=origin,
            status=status,
            amount_fen=amount,
            created_at=self.outside.clock.now(),
            **values,
        )
        for part in sorted(parts, key=lambda part: (part.line.branch, part.line.his_bill_id)):
            await self._reserve_line(refund, part)
        return refund

    async def _reserve_line(self, refund: Refund, part: RefundPart) -> None:
        line = part.line
        reserved = await rows(
            "UPDATE payment_line SET refunded_fen = refunded_fen + $4 WHERE institution_id = $1 AND payment_id = $2"
            " AND id = $3 AND status = 'confirmed' AND refunded_fen + paid_out_fen + $4 <= amount_fen RETURNING id",
            line.institution_id,
            line.payment_id,
            line.id,
            part.amount_fen,
        )
        if not reserved:
            current = await scoped(line.institution_id).get(PaymentLine, id=line.id)
            is_booked = current.status is LineStatus.CONFIRMED
            under_way = current.status in {LineStatus.REVERSING, LineStatus.RETURNING, LineStatus.RETURNED}
            raise RefundNotPossible(reason="too_much" if is_booked else "under_way" if under_way else "not_confirmed")
        await RefundLine.create(
            id=self.outside.ids.uuid(),
            institution_id=line.institution_id,
            payment_id=line.payment_id,
            refund_id=refund.id,
            line_id=line.id,
            amount_fen=part.amount_fen,
            his_items=list(part.his_items),
        )

    async def begin(self, refund: Refund) -> bool:
        """An approved refund is about to be told to the HIS; False when it has moved on."""
        return await atomically(lambda: self._begin(refund))

    async def _begin(self, refund: Refund) -> bool:
        payment = await self._locked(refund)
        changed = await scoped(refund.institution_id).change(
            Refund, {"id": refund.id, "status": RefundStatus.APPROVED}, status=RefundStatus.REVERSING_AT_HIS
        )
        if not changed:
            return False
        refund.status = RefundStatus.REVERSING_AT_HIS
        for part, line in await self.parts(payment, refund):
            if part.amount_fen == line.amount_fen:
                await self.steps.set_line(line, status=LineStatus.REVERSING)
        return True

    async def evidence_came(self, payment: Payment, refund: Refund, evidence: Evidence, event_id: UUID) -> None:
        """What the HIS says about a refund number that we have told it. Part of the transaction of `apply`."""
        if refund.status is RefundStatus.REVERSING_AT_HIS:
            if evidence.proves == KEPT:
                text = str(evidence.facts.get("message") or evidence.facts.get("code") or "")
                await self.decline(payment, refund, text=text, his_proof_id=event_id)
            elif evidence.proves == REVERSED:
                await self._reversed(payment, refund, evidence, event_id)
            return
        kept = refund.status is RefundStatus.DECLINED
        if evidence.proves is not None and (evidence.proves == KEPT) != kept:
            await self.cases.open(
                payment.institution_id,
                "hospital_contradicts_itself",
                refund.refund_no,
                payment_id=payment.id,
                details={"was": refund.status.value, "now": evidence.proves},
            )

    async def _reversed(self, payment: Payment, refund: Refund, evidence: Evidence, event_id: UUID) -> None:
        number = str(evidence.facts.get("red_receipt_no") or "")
        asked = {line.his_bill_id: part.amount_fen for part, line in await self.parts(payment, refund)}
        same_number = await scoped(payment.institution_id).find(Refund, payment_id=payment.id, red_receipt_no=number)
        if dict(evidence.facts.get("amounts") or {}) != asked or (number and same_number):
            await self.cases.open(
                payment.institution_id,
                "reversal_differs",
                refund.refund_no,
                payment_id=payment.id,
                details={"asked": asked, "reversed": evidence.facts.get("amounts"), "red_receipt_no": number},
            )
            return
        await self.steps.set_refund(
            refund,
            status=RefundStatus.SENDING,
            his_proof_id=event_id,
            red_receipt_no=number,
            due_at=self.outside.clock.now(),
        )
        await self.move(payment, refund)
        await self.cases.settle(payment.institution_id, REVERSAL_CASES, refund.refund_no)

    async def move(self, payment: Payment, refund: Refund) -> None:
        """The HIS has taken back what this refund is about: it is owed to the payer from now on."""
        for part, line in await self.parts(payment, refund):
            await scoped(part.institution_id).change(RefundLine, {"id": part.id}, reversed_fen=part.amount_fen)
            await self.steps.move(
                payment,
                part.id,
                TransferKind.RETURN_DECIDED,
                Account.HIS_CONFIRMED,
                Account.REFUND_PAYABLE,
                part.amount_fen,
            )
            await self.leave_books(line)

    async def leave_books(self, line: PaymentLine) -> None:
        """Once the HIS has taken all of a line back, for us or over its counter, the line stands as booked no more."""
        if await self._taken_back(line) + line.paid_out_fen < line.amount_fen:
            return
        if line.status is LineStatus.CONFIRMED:
            await self.steps.set_line(line, status=LineStatus.REVERSING)
        await self.steps.set_line(line, status=LineStatus.RETURNING)
        await self.arriving.end_line(line)

    async def decline(self, payment: Payment, refund: Refund, *, text: str, **values: Any) -> None:
        """This refund will not be: its reservation is given free, its lines are as booked as before."""
        await self.steps.set_refund(
            refund, status=RefundStatus.DECLINED, refusal_text=text[:TEXT_LENGTH_MAX], due_at=None, **values
        )
        await rows(
            "UPDATE payment SET refund_reserved_fen = refund_reserved_fen - $3"
            " WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
            refund.amount_fen,
        )
        for part, line in await self.parts(payment, refund):
            values = {"refunded_fen": line.refunded_fen - part.amount_fen}
            if line.status is LineStatus.REVERSING:
                values["status"] = LineStatus.CONFIRMED
            await self.steps.set_line(line, **values)
        await self.cases.settle(payment.institution_id, REVERSAL_CASES, refund.refund_no)

    async def parts(self, payment: Payment, refund: Refund) -> list[tuple[RefundLine, PaymentLine]]:
        """What of which line, in the order of the bills; the lines are locked."""
        parts = {part.line_id: part for part in await self._of(payment, refund)}
        return [(parts[line.id], line) for line in await self.steps.lines(payment) if line.id in parts]

    async def _of(self, payment: Payment, refund: Refund) -> list[RefundLine]:
        return await scoped(payment.institution_id).find(RefundLine, refund_id=refund.id)

    async def _taken_back(self, line: PaymentLine) -> int:
        """What the HIS has taken back of this line, each red receipt once: a successor repeats its predecessor."""
        (found,) = await rows(
            "SELECT coalesce(sum(part.reversed_fen), 0)::bigint AS fen FROM refund_line part JOIN refund r"
            " ON r.institution_id = $1 AND r.id = part.refund_id WHERE part.institution_id = $1 AND part.line_id = $2"
            " AND r.replaces_id IS NULL",
            line.institution_id,
            line.id,
        )
        return int(found["fen"])

    async def _locked(self, refund: Refund) -> Payment:
        (payment,) = await scoped(refund.institution_id).find(Payment, locked=True, id=refund.payment_id)
        return payment
