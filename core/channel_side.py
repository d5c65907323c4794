"""What follows from a channel's account of a payment: paid, of another amount, or ended without money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from core.cases import Cases
from core.evidence import Facts, StoredEvidence, fold
from core.external_refunds import EXTERNAL, EXTERNAL_TOTAL, ExternalRefunds
from core.hospital_side import HospitalSide
from core.ledger import Account, TransferKind
from core.models import Payment, PaymentEvent, PaymentLine
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.returning import OVERPAID, Returning
from core.states import OPEN_PAYMENT, LineStatus, PaymentStatus
from core.tenancy import scoped

HELD_RETURN_AFTER = timedelta(hours=24)
"""A wrong amount is returned whole after this long, unless two people decide otherwise."""


@dataclass(frozen=True, slots=True)
class ChannelSide:
    """Part of the transaction of `apply`, under the payment's lock."""

    outside: Outside
    steps: PaymentRows
    hospital: HospitalSide
    returning: Returning
    external: ExternalRefunds
    cases: Cases

    async def evidence_came(self, payment: Payment) -> None:
        stored = await scoped(payment.institution_id).find(
            PaymentEvent, payment_id=payment.id, confirmation_id=None, refund_id=None
        )
        facts = fold(
            StoredEvidence(id=row.id, proves=row.proves, proof_kind=row.proof_kind, facts=row.facts) for row in stored
        )
        if facts.contradicting_amounts:
            await self.cases.open(
                payment.institution_id, "contradicting_evidence", payment.order_no, payment_id=payment.id
            )
        if payment.status is PaymentStatus.PAID and facts.paid_fen > payment.paid_fen:
            proofs = [row for row in stored if row.proves == PaymentStatus.PAID]
            largest = next(row for row in proofs if row.facts["paid_fen"] == facts.paid_fen)
            await self._paid_more(payment, facts.paid_fen, largest.id)
        end = facts.status
        if end is None or payment.status == end[0] or payment.status is PaymentStatus.PAID:
            return
        status, proof_id = end
        if status is PaymentStatus.PAID:
            await self._paid(payment, facts, proof_id)
            if any(row.kind in {EXTERNAL, EXTERNAL_TOTAL} for row in stored):
                await self.external.paid(payment, proof_id)
        elif payment.status in OPEN_PAYMENT:
            await self._ended(payment, status, proof_id)

    async def _paid(self, payment: Payment, facts: Facts, proof_id: UUID) -> None:
        now = self.outside.clock.now()
        late = payment.status not in OPEN_PAYMENT
        await self.steps.update(
            payment,
            status=PaymentStatus.PAID,
            proof_id=proof_id,
            paid_fen=facts.paid_fen,
            paid_at=facts.paid_at or now,
            channel_trade_no=facts.channel_trade_no,
            close_wanted=False,
            pay_params_enc="",
            due_at=None,
        )
        await self.cases.settle(payment.institution_id, ("payment_outcome_unknown",), payment.order_no)
        await self.steps.move(
            payment,
            payment.id,
            TransferKind.PAID,
            Account.CHANNEL_RECEIVABLE,
            Account.AWAITING_HIS,
            facts.paid_fen,
        )
        lines = await self.steps.lines(payment)
        for line in lines:
            if line.status is LineStatus.VOID:
                await self.steps.set_line(line, status=LineStatus.WAITING)
        if facts.paid_fen != payment.asked_fen:
            await self._hold(payment, lines, facts)
            return
        await self.steps.update_lines(lines, claims_bill=False)
        await self.hospital.enter(payment, lines, now=now)
        if late:
            await self.steps.wake_locks(payment, now)

    async def _paid_more(self, payment: Payment, paid_fen: Fen, cause: UUID) -> None:
        """More was taken than the channel had said at first: what is held grows; what is more than a payment whose
        lines have gone on goes back, but only once a person has looked at the contradiction.
        """
        more = Fen(paid_fen - payment.paid_fen)
        await self.steps.move(
            payment,
            cause,
            TransferKind.PAID_MORE if payment.paid_fen else TransferKind.PAID,
            Account.CHANNEL_RECEIVABLE,
            Account.HELD,
            more,
        )
        await self.steps.update(payment, paid_fen=paid_fen)
        if any(line.status is LineStatus.HELD for line in await self.steps.lines(payment)):
            return
        await self.steps.move(payment, cause, TransferKind.RETURN_DECIDED, Account.HELD, Account.REFUND_PAYABLE, more)
        await self.returning.new_refund(payment, more, cause=OVERPAID, due_at=self.outside.clock.now())
        await self.returning.stop_unsent(payment)

    async def _hold(self, payment: Payment, lines: Sequence[PaymentLine], facts: Facts) -> None:
        """The amount taken is not the amount asked: nothing is told to the HIS, staff decide, else all goes back."""
        now = self.outside.clock.now()
        await self.steps.move(
            payment, payment.id, TransferKind.WRONG_AMOUNT, Account.AWAITING_HIS, Account.HELD, facts.paid_fen
        )
        for line in lines:
            await self.steps.set_line(
                line,
                status=LineStatus.HELD,
                claims_bill=False,
                reason_code="wrong_amount",
                due_at=now + HELD_RETURN_AFTER,
            )
        await self.steps.release_locks(payment, now)
        await self.cases.open(
            payment.institution_id,
            "wrong_amount",
            payment.order_no,
            payment_id=payment.id,
            details={"asked_fen": payment.asked_fen, "paid_fen": facts.paid_fen},
        )

    async def _ended(self, payment: Payment, status: PaymentStatus, proof_id: UUID) -> None:
        now = self.outside.clock.now()
        await self.steps.update(
            payment, status=status, proof_id=proof_id, close_wanted=False, pay_params_enc="", due_at=None
        )
        for line in await self.steps.lines(payment):
            if line.status is LineStatus.WAITING:
                await self.steps.set_line(line, status=LineStatus.VOID, claims_bill=False, due_at=None)
        await self.steps.release_locks(payment, now)
        await self.cases.settle(payment.institution_id, ("payment_outcome_unknown",), payment.order_no)
