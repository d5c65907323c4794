"""`apply`: the one way in which evidence moves a payment, its lines, confirmations and refunds."""

from __future__ import annotations

from dataclasses import dataclass

from core.channel_side import ChannelSide
from core.evidence import Evidence
from core.hospital_side import HospitalSide
from core.models import Confirmation, Payment, Refund
from core.outside import Outside
from core.payment_rows import lock_payment
from core.recording import record
from core.refund_side import RefundSide
from core.states import ProofKind
from core.tenancy import scoped
from core.transactions import atomically


@dataclass(frozen=True, slots=True)
class Applier:
    """Records what was said and brings everything that follows in line with it, in one transaction."""

    outside: Outside
    channel: ChannelSide
    hospital: HospitalSide
    refunds: RefundSide

    async def apply(self, evidence: Evidence) -> Payment | None:
        """Safe to call any number of times, in any order; None when there is no such payment.

        Raises nothing for what was said: a wrong amount or an impossible state becomes a case for staff.
        """
        return await atomically(lambda: self._apply(evidence))

    async def _apply(self, evidence: Evidence) -> Payment | None:
        payment = await lock_payment(evidence.order_no)
        if payment is None:
            return None
        scope = scoped(payment.institution_id)
        confirmation = refund = None
        if evidence.confirm_no:
            confirmation = await scope.get_or_none(Confirmation, confirm_no=evidence.confirm_no, payment_id=payment.id)
            if confirmation is None:
                return payment
        if evidence.refund_no:
            refund = await scope.get_or_none(Refund, refund_no=evidence.refund_no, payment_id=payment.id)
            if refund is None:
                await self.refunds.of_nobody(payment, evidence)
                return payment
        if evidence.proof_kind is ProofKind.NEVER_SENT and payment.sends_started != payment.sends_unreached:
            return payment
        event_id = await record(
            self.outside,
            payment,
            evidence,
            confirmation_id=confirmation.id if confirmation else None,
            refund_id=refund.id if refund else None,
        )
        if event_id is None:
            return payment
        if confirmation is not None:
            await self.hospital.booking_came(payment, confirmation, evidence, event_id)
        elif refund is not None:
            await self.refunds.evidence_came(payment, refund, evidence, event_id)
        else:
            await self.channel.evidence_came(payment)
        return payment
