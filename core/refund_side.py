"""What follows from a channel's account of a refund."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from core.arriving import Arriving
from core.cases import Cases
from core.evidence import Evidence
from core.external_refunds import ExternalRefunds
from core.his_evidence import REVERSAL
from core.ledger import Account, TransferKind
from core.models import Payment, Refund
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.ports import RefundState
from core.returning import Returning
from core.reversals import Reversals
from core.states import RefundStatus
from core.tenancy import scoped
from core.transactions import rows

DEAD_REFUND_PAUSE = timedelta(minutes=10)
STUCK_REFUND_PAUSE = timedelta(hours=1)
REFUND_CHAIN_MAX = 20
NOT_TO_BE_SENT = frozenset({RefundStatus.REQUESTED, RefundStatus.REVERSING_AT_HIS, RefundStatus.DECLINED})
"""Nothing has left under such a number, as far as we know; after a restore somebody may know better."""


@dataclass(frozen=True, slots=True)
class RefundSide:
    """Part of the transaction of `apply`, under the payment's lock."""

    outside: Outside
    steps: PaymentRows
    returning: Returning
    reversals: Reversals
    external: ExternalRefunds
    cases: Cases
    arriving: Arriving

    async def evidence_came(self, payment: Payment, refund: Refund, evidence: Evidence, event_id: UUID) -> None:
        if evidence.kind == REVERSAL:
            await self.reversals.evidence_came(payment, refund, evidence, event_id)
            return
        now = self.outside.clock.now()
        if refund.status in {RefundStatus.REFUNDED, RefundStatus.DEAD}:
            await self._after_its_end(payment, refund, evidence)
            return
        if refund.status in NOT_TO_BE_SENT:
            if evidence.proves == RefundStatus.REFUNDED:
                await self._after_its_end(payment, refund, evidence)
            return
        said_fen = int(evidence.facts.get("amount_fen") or 0)
        if evidence.proves == RefundStatus.REFUNDED and said_fen != refund.own_fen:
            await self.cases.open(
                payment.institution_id,
                "refund_amount_differs",
                refund.refund_no,
                payment_id=payment.id,
                details={"asked_fen": refund.own_fen, "refunded_fen": said_fen},
            )
            return
        number = str(evidence.facts.get("channel_refund_no") or refund.channel_refund_no)
        if refund.status is RefundStatus.APPROVED:
            refund = await self.steps.set_refund(refund, status=RefundStatus.SENDING)
        if evidence.proves == RefundStatus.REFUNDED:
            await self._refunded(payment, refund, evidence, event_id, number)
        elif evidence.proves == RefundStatus.DEAD:
            await self._dead(payment, refund, event_id, number, now)
        elif evidence.facts.get("state") == RefundState.STUCK:
            if refund.status is not RefundStatus.STUCK:
                await self.steps.set_refund(
                    refund,
                    status=RefundStatus.STUCK,
                    channel_refund_no=number,
                    due_at=now + STUCK_REFUND_PAUSE,
                )
            await self.cases.open(payment.institution_id, "refund_stuck", refund.refund_no, payment_id=payment.id)
        elif evidence.facts.get("state") == RefundState.PROCESSING and refund.status is RefundStatus.SENDING:
            await self.steps.set_refund(refund, status=RefundStatus.PENDING, channel_refund_no=number)

    async def _after_its_end(self, payment: Payment, refund: Refund, evidence: Evidence) -> None:
        """What the channel has given under a number that we believed dead, settled by others or unsent is in the books.

        It counts as what others give does: towards the refund that replaces this one, unless that has left already.
        """
        is_refunded = evidence.proves == RefundStatus.REFUNDED
        if is_refunded and (refund.status is not RefundStatus.REFUNDED or refund.own_fen == 0):
            await self.external.told(payment, evidence)
        if evidence.proves is not None and evidence.proves != refund.status:
            await self.cases.open(
                payment.institution_id, "refund_contradiction", refund.refund_no, payment_id=payment.id
            )
            await self.returning.stop_unsent(payment)

    async def _refunded(
        self, payment: Payment, refund: Refund, evidence: Evidence, event_id: UUID, number: str
    ) -> None:
        said_at = evidence.facts.get("refunded_at")
        await rows(
            "UPDATE payment SET refunded_fen = refunded_fen + $3 WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
            refund.own_fen,
        )
        await self.steps.move(
            payment,
            refund.id,
            TransferKind.REFUNDED,
            Account.REFUND_PAYABLE,
            Account.CHANNEL_RECEIVABLE,
            refund.own_fen,
        )
        await self.arriving.refunded(
            payment,
            refund,
            proof_id=event_id,
            at=datetime.fromisoformat(said_at) if said_at else None,
            channel_refund_no=number,
        )
        await self.external.settle(payment)

    async def _dead(self, payment: Payment, refund: Refund, event_id: UUID, number: str, now: datetime) -> None:
        """This number will never refund: its reservation passes to a new one, and only one of the chain counts."""
        await self.returning.bury(payment, refund, event_id, channel_refund_no=number)
        chain = 1
        previous: Refund | None = refund
        while previous is not None and previous.replaces_id is not None:
            chain += 1
            previous = await scoped(payment.institution_id).of(Refund).get_or_none(id=previous.replaces_id)
        if chain >= REFUND_CHAIN_MAX:
            await self.cases.open(
                payment.institution_id, "refund_never_succeeds", payment.order_no, payment_id=payment.id
            )
            return
        await self.returning.replace(payment, refund, due_at=now + DEAD_REFUND_PAUSE * chain)

    async def of_nobody(self, payment: Payment, evidence: Evidence) -> None:
        """A refund that is not ours, made in the channel's console: recorded, and looked at by a person."""
        await self.external.told(payment, evidence)
