"""What follows from a red receipt that the HIS has made by itself: our refund, or the hospital's own money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from uuid import UUID

from core.cases import Cases
from core.clock import SHANGHAI, business_day
from core.errors import OutcomeUnknown, RefundNotPossible
from core.evidence import Evidence
from core.external_refunds import ExternalRefunds
from core.his_evidence import RED_RECEIPT, red_receipt_proof
from core.institutions import Institutions
from core.ledger import Account, TransferKind
from core.models import Confirmation, Payment, PaymentEvent, PaymentLine, Refund, RefundLine
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.ports import MoneyBy
from core.recording import record
from core.reversals import RefundPart, Reversals
from core.states import ConfirmationStatus, LineStatus, RefundStatus
from core.tenancy import scoped
from core.transactions import rows, transaction

UNCLEAR, ABOVE_CAP = "hospital_refund_unclear", "refund_above_daily_cap"
CAUSE = "red_receipt"
PAID_OUT_BY = {MoneyBy.HOSPITAL_CASH: Account.HOSPITAL_CASH, MoneyBy.HOSPITAL_OTHER: Account.HOSPITAL_OTHER}
OVERTAKEN = "窗口已退费"
"""Why a request of staff that nobody has approved yet is declined: the cashier was faster."""


@dataclass(frozen=True, slots=True)
class RedReceipts:
    """Part of the transaction of `apply`, under the payment's lock."""

    outside: Outside
    institutions: Institutions
    steps: PaymentRows
    reversals: Reversals
    external: ExternalRefunds
    cases: Cases

    async def came(self, payment: Payment, confirmation: Confirmation, evidence: Evidence, event_id: UUID) -> None:
        """Raises OutcomeUnknown while we do not know yet what we ourselves have booked or asked to take back."""
        number = str(evidence.facts["red_receipt_no"])
        money_by = MoneyBy(str(evidence.facts["money_by"]))
        if await self._is_known(payment, number, event_id):
            return
        amounts = {str(bill): Fen(int(fen)) for bill, fen in dict(evidence.facts["amounts"]).items()}
        about = await self._about(payment, confirmation, amounts)
        await self._make_way(payment, about)
        if money_by is MoneyBy.UNKNOWN or not self._fits(about, amounts):
            await self._unclear(payment, number, evidence)
            return
        parts = [RefundPart(line=line, amount_fen=amounts[line.his_bill_id]) for line in about]
        if money_by is MoneyBy.US_ORIGINAL_ROUTE:
            if not await self._refund(payment, parts, number, evidence):
                await self._unclear(payment, number, evidence)
                return
        else:
            await self._paid_out(payment, parts, PAID_OUT_BY[money_by], event_id)
        await self.cases.settle(payment.institution_id, (UNCLEAR,), number)

    async def _about(self, payment: Payment, confirmation: Confirmation, amounts: dict[str, Fen]) -> list[PaymentLine]:
        """The lines of these bills. One red receipt may span what was booked in several parts and names one of them."""
        about = [line for line in await self.steps.lines(payment) if line.his_bill_id in amounts]
        parts = {confirmation.id, *(line.confirmation_id for line in about)}
        for part in await scoped(payment.institution_id).find(Confirmation, payment_id=payment.id):
            if part.id in parts and part.status is ConfirmationStatus.OPEN:
                raise OutcomeUnknown("a red receipt of a booking that we do not know of yet")
        return about

    async def _is_known(self, payment: Payment, number: str, event_id: UUID) -> bool:
        """Whether this red receipt has had its effect: it is our own refund's, or was told before."""
        scope = scoped(payment.institution_id)
        if await scope.find(Refund, payment_id=payment.id, red_receipt_no=number):
            return True
        told = await scope.find(PaymentEvent, payment_id=payment.id, kind=RED_RECEIPT)
        return any(
            event.id != event_id
            and event.facts.get("red_receipt_no") == number
            and event.facts.get("money_by") != MoneyBy.UNKNOWN
            for event in told
        )

    async def _make_way(self, payment: Payment, lines: Sequence[PaymentLine]) -> None:
        """What staff have asked for of these bills is declined; once the HIS has been told of it, it is awaited."""
        wanted = {line.id for line in lines}
        for refund in await self._of_staff(payment):
            parts = await scoped(payment.institution_id).find(RefundLine, refund_id=refund.id)
            if not wanted & {part.line_id for part in parts}:
                continue
            if refund.status is not RefundStatus.REQUESTED:
                raise OutcomeUnknown("a reversal that we have asked for is under way")
            await self.reversals.decline(payment, refund, text=OVERTAKEN)
        for line in lines:
            current = await scoped(payment.institution_id).get(PaymentLine, id=line.id)
            line.refunded_fen = current.refunded_fen

    async def _of_staff(self, payment: Payment) -> list[Refund]:
        open_ones = [RefundStatus.REQUESTED, RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS]
        return await scoped(payment.institution_id).find(
            Refund, ("id",), payment_id=payment.id, origin="staff", status=open_ones, replaces_id=None
        )

    def _fits(self, lines: Sequence[PaymentLine], amounts: dict[str, Fen]) -> bool:
        """The bills are booked, and not more of them is red than is left."""
        return len(lines) == len(amounts) > 0 and all(
            line.status is LineStatus.CONFIRMED
            and 0 < amounts[line.his_bill_id] <= line.amount_fen - line.refunded_fen - line.paid_out_fen
            for line in lines
        )

    async def _refund(self, payment: Payment, parts: Sequence[RefundPart], number: str, evidence: Evidence) -> bool:
        """The red receipt is the approval, up to the day's cap; False when there is not so much left to give back."""
        now = self.outside.clock.now()
        amount = Fen(sum(part.amount_fen for part in parts))
        within = await self._within_cap(payment.institution_id, amount)
        try:
            async with transaction():
                refund = await self.reversals.reserve(
                    payment,
                    parts,
                    origin="hospital",
                    cause=CAUSE,
                    status=RefundStatus.APPROVED if within else RefundStatus.REQUESTED,
                    red_receipt_no=number,
                    due_at=now if within else None,
                )
        except RefundNotPossible:
            return False
        proof = red_receipt_proof(payment.order_no, refund.refund_no, evidence)
        event_id = await record(self.outside, payment, proof, refund_id=refund.id)
        await self.steps.set_refund(refund, his_proof_id=event_id)
        if within:
            await self.reversals.move(payment, refund)
            return True
        await self.cases.open(
            payment.institution_id,
            ABOVE_CAP,
            refund.refund_no,
            payment_id=payment.id,
            details={"amount_fen": amount, "red_receipt_no": number},
        )
        return True

    async def _paid_out(self, payment: Payment, parts: Sequence[RefundPart], account: Account, event_id: UUID) -> None:
        """The hospital has given the money back itself: what the channel has taken stays with it."""
        amount = Fen(sum(part.amount_fen for part in parts))
        await self.steps.move(payment, event_id, TransferKind.PAID_OUT, Account.HIS_CONFIRMED, account, amount)
        for part in parts:
            await self.steps.set_line(part.line, paid_out_fen=Fen(part.line.paid_out_fen + part.amount_fen))
            await self.reversals.leave_books(part.line)
        await self.external.match_paid_out(payment, event_id)

    async def _within_cap(self, institution_id: UUID, amount: Fen) -> bool:
        """Whether today's red receipts stay within the cap with this one; one of an institution at a time."""
        cap = (await self.institutions.profile(institution_id)).settings.refund_daily_cap_fen
        await rows("SELECT id FROM institution WHERE id = $1 FOR NO KEY UPDATE", institution_id)
        day = business_day(self.outside.clock.now())
        (found,) = await rows(
            "SELECT coalesce(sum(amount_fen), 0)::bigint AS fen FROM refund WHERE institution_id = $1"
            " AND origin = 'hospital' AND replaces_id IS NULL AND decided_by IS NULL AND status <> 'requested'"
            " AND created_at >= $2",
            institution_id,
            datetime.combine(day, time.min, SHANGHAI),
        )
        return int(found["fen"]) + amount <= cap

    async def _unclear(self, payment: Payment, number: str, evidence: Evidence) -> None:
        await self.cases.open(
            payment.institution_id, UNCLEAR, number, payment_id=payment.id, details=dict(evidence.facts)
        )
