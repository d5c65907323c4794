"""What two people attest with a document becomes evidence, and obeys the rules of all evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.applying import Applier
from core.decision_kinds import ATTESTED, DecisionKind, Proposal
from core.errors import ActionNotPossible, AlreadyDecided, InvalidRequest
from core.evidence import Evidence
from core.external_refunds import ExternalRefunds
from core.institutions import Institutions
from core.models import Confirmation, Payment, PaymentLine, Refund
from core.money import Fen
from core.outside import Outside
from core.ports import RefundState
from core.states import OPEN_PAYMENT, ConfirmationStatus, PaymentStatus, ProofKind, RefundStatus
from core.tenancy import scoped

SOURCE = "staff"
REFUND_MOVES = frozenset({RefundStatus.SENDING, RefundStatus.PENDING, RefundStatus.STUCK})
ENDED = frozenset({RefundStatus.REFUNDED, RefundStatus.DEAD, RefundStatus.DECLINED})


@dataclass(frozen=True, slots=True)
class Attesting:
    """Part of the caller's transaction, under the payment's lock and the row's own."""

    outside: Outside
    institutions: Institutions
    applier: Applier
    external: ExternalRefunds

    async def check(
        self, proposal: Proposal, payment: Payment, confirmation: Confirmation | None, refund: Refund | None
    ) -> None:
        """Whether this can be attested as things stand. Raises ActionNotPossible or AlreadyDecided."""
        if confirmation is not None:
            await self._check_booking(proposal, confirmation)
        elif refund is not None:
            await self._check_refund(proposal, payment, refund)
        elif payment.status is PaymentStatus.PAID or (
            proposal.kind is DecisionKind.PAYMENT_CLOSED and payment.status not in OPEN_PAYMENT
        ):
            raise AlreadyDecided(status=payment.status.value)

    async def _check_booking(self, proposal: Proposal, confirmation: Confirmation) -> None:
        if confirmation.status is not ConfirmationStatus.OPEN:
            raise AlreadyDecided(status=confirmation.status.value)
        if proposal.kind is DecisionKind.BOOKING_REJECTED and confirmation.last_sent_at is not None:
            site = await self.institutions.site(confirmation.institution_id, confirmation.site_id)
            self._not_before(confirmation.last_sent_at + site.settles_within)

    async def _check_refund(self, proposal: Proposal, payment: Payment, refund: Refund) -> None:
        if refund.status in ENDED:
            raise AlreadyDecided(status=refund.status.value)
        his_agrees = refund.origin == "automatic" or refund.replaces_id is not None or refund.his_proof_id is not None
        is_owed = refund.status is RefundStatus.APPROVED and his_agrees
        if refund.status not in REFUND_MOVES and not (is_owed and proposal.kind is DecisionKind.REFUND_REFUNDED):
            raise ActionNotPossible(reason="not_for_this_case")
        if proposal.kind is DecisionKind.REFUND_REFUNDED:
            amount_fen = proposal.amount_fen or Fen(0)
            if amount_fen > refund.own_fen or (amount_fen < refund.own_fen and not _is_unsent(refund)):
                raise ActionNotPossible(reason="amount_differs")
            if payment.refunded_fen + payment.external_refunded_fen + amount_fen > payment.paid_fen:
                raise ActionNotPossible(reason="refunded_elsewhere")
            if _is_unsent(refund):
                self._check_given_back_by_others(proposal, refund)
        if refund.last_sent_at is not None:
            account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
            capabilities = self.outside.channels[account.channel].capabilities
            self._not_before(refund.last_sent_at + timedelta(seconds=capabilities.request_deadline_seconds))

    def _check_given_back_by_others(self, proposal: Proposal, refund: Refund) -> None:
        """Nothing of it is at the channel, so it was another refund: its number keeps it from being counted twice."""
        if not proposal.their_number:
            raise InvalidRequest(field="their_number", problem="is missing: the document must show it")
        if refund.lease_until is not None and refund.lease_until > self.outside.clock.now():
            raise ActionNotPossible(reason="too_early")  # it may be leaving at this moment

    def _not_before(self, moment: datetime) -> None:
        """What has been sent may still have its effect: nobody attests the contrary before it can no longer."""
        if self.outside.clock.now() < moment:
            raise ActionNotPossible(reason="too_early")

    async def apply(
        self,
        proposal: Proposal,
        decision_id: str,
        payment: Payment,
        confirmation: Confirmation | None,
        refund: Refund | None,
    ) -> None:
        """The evidence and everything that follows from it."""
        facts: dict[str, Any] = {"decision": decision_id}
        if refund is not None and proposal.kind is DecisionKind.REFUND_REFUNDED and _is_unsent(refund):
            await self.external.attested(payment, refund, {**facts, **_refund_facts(proposal)})
            return
        if confirmation is not None:
            facts |= await self._booking_facts(proposal, confirmation)
        elif refund is not None:
            facts |= _refund_facts(proposal)
        else:
            facts |= _trade_facts(proposal)
        await self.applier.apply(
            Evidence(
                order_no=payment.order_no,
                kind="booking" if confirmation else "refund" if refund else "trade",
                source=SOURCE,
                facts=facts,
                proves=PROVES[proposal.kind],
                proof_kind=ProofKind.STAFF_ATTESTED,
                confirm_no=confirmation.confirm_no if confirmation else "",
                refund_no=refund.refund_no if refund else "",
            )
        )

    async def _booking_facts(self, proposal: Proposal, confirmation: Confirmation) -> Mapping[str, Any]:
        if proposal.kind is DecisionKind.BOOKING_REJECTED:
            return {"booked": False, "code": "staff_attested", "message": ""}
        lines = await scoped(confirmation.institution_id).find(
            PaymentLine, payment_id=confirmation.payment_id, confirmation_id=confirmation.id
        )
        receipt = {"receipt_no": proposal.their_number}
        return {"booked": True, "receipts": {line.his_bill_id: receipt for line in lines}}


def _is_unsent(refund: Refund) -> bool:
    return refund.sends_started == refund.sends_unreached


PROVES: Mapping[DecisionKind, str] = {
    DecisionKind.PAYMENT_PAID: PaymentStatus.PAID,
    DecisionKind.PAYMENT_CLOSED: PaymentStatus.CLOSED,
    DecisionKind.BOOKING_CONFIRMED: ConfirmationStatus.CONFIRMED,
    DecisionKind.BOOKING_REJECTED: ConfirmationStatus.REJECTED,
    DecisionKind.REFUND_REFUNDED: RefundStatus.REFUNDED,
    DecisionKind.REFUND_DEAD: RefundStatus.DEAD,
}

assert set(PROVES) == ATTESTED


def _trade_facts(proposal: Proposal) -> Mapping[str, Any]:
    is_paid = proposal.kind is DecisionKind.PAYMENT_PAID
    return {
        "exists": True,
        "ever_paid": is_paid,
        "paid_fen": proposal.amount_fen or 0,
        "paid_at": proposal.at.isoformat() if proposal.at else None,
        "channel_trade_no": proposal.their_number,
        "refunded_fen": None,
        "closed": not is_paid,
        "state": "attested",
    }


def _refund_facts(proposal: Proposal) -> Mapping[str, Any]:
    is_refunded = proposal.kind is DecisionKind.REFUND_REFUNDED
    return {
        "state": (RefundState.REFUNDED if is_refunded else RefundState.DEAD).value,
        "word": "attested",
        "amount_fen": proposal.amount_fen or 0,
        "channel_refund_no": proposal.their_number,
        "refunded_at": proposal.at.isoformat() if proposal.at else None,
    }
