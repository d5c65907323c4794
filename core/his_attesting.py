"""What a HIS has taken back, or keeps, where two people attest it with a document instead of the HIS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.applying import Applier
from core.decision_kinds import DecisionKind, Proposal
from core.disputes import Disputes
from core.errors import ActionNotPossible, AlreadyDecided, OutcomeUnknown
from core.evidence import Evidence
from core.his_evidence import KEPT, RED_RECEIPT, REVERSAL, REVERSED, STANDS
from core.institutions import Institutions
from core.models import Confirmation, Payment, PaymentEvent, PaymentLine, Refund, RefundLine
from core.outside import Outside
from core.ports import MoneyBy
from core.states import ConfirmationStatus, ProofKind, RefundStatus
from core.tenancy import scoped

SOURCE = "staff"


@dataclass(frozen=True, slots=True)
class HisAttesting:
    """Part of the caller's transaction, under the payment's lock and the row's own."""

    outside: Outside
    institutions: Institutions
    applier: Applier
    disputes: Disputes

    # ------------------------------------------------------------ reversals

    async def check_reversal(self, proposal: Proposal, payment: Payment, refund: Refund) -> None:
        """Whether this can be attested as things stand. Raises ActionNotPossible or AlreadyDecided."""
        if refund.status is not RefundStatus.REVERSING_AT_HIS:
            raise AlreadyDecided(status=refund.status.value)
        if proposal.kind is DecisionKind.REVERSAL_DONE:
            scope = scoped(refund.institution_id)
            if await scope.find(Refund, payment_id=payment.id, red_receipt_no=proposal.their_number):
                raise ActionNotPossible(reason="number_used")
            if proposal.amount_fen != refund.amount_fen:
                await self._said_instead(proposal, payment, refund)
        elif refund.his_last_sent_at is not None:
            site = await self.institutions.site(payment.institution_id, payment.site_id)
            if self.outside.clock.now() < refund.his_last_sent_at + site.settles_within:
                raise ActionNotPossible(reason="too_early")  # it may still be taken back

    async def apply_reversal(self, proposal: Proposal, decision_id: str, payment: Payment, refund: Refund) -> None:
        """The money goes on, or stays; a HIS that took back another amount owes just that one, by its red receipt."""
        if proposal.kind is DecisionKind.REVERSAL_DONE and proposal.amount_fen == refund.amount_fen:
            asked = {bill: fen for bill, (fen, _) in (await self._asked(refund)).items()}
            facts = {"red_receipt_no": proposal.their_number, "amounts": asked}
            await self._apply(payment, decision_id, REVERSAL, REVERSED, facts, refund_no=refund.refund_no)
            return
        instead = None
        if proposal.kind is DecisionKind.REVERSAL_DONE:
            instead = await self._said_instead(proposal, payment, refund)
        kept = {"code": "staff_attested", "message": proposal.reason}
        await self._apply(payment, decision_id, REVERSAL, KEPT, kept, refund_no=refund.refund_no)
        if instead is not None:
            confirm_no, amounts = instead
            await self._red_receipt(payment, decision_id, confirm_no, proposal.their_number, amounts)

    # ------------------------------------------------------------ disputes

    async def check_dispute(self, proposal: Proposal, payment: Payment, confirmation: Confirmation) -> None:
        """Raises AlreadyDecided without a dispute, ActionNotPossible when the booking cannot stand."""
        if proposal.kind is DecisionKind.BOOKING_STANDS:
            await self.disputes.check_stands(payment, confirmation)
        else:
            await self.disputes.disputed(payment, confirmation)

    async def apply_dispute(
        self, proposal: Proposal, decision_id: str, payment: Payment, confirmation: Confirmation
    ) -> None:
        """The HIS keeps its booking and we the money, or it has taken the booking back and the money goes."""
        confirm_no = confirmation.confirm_no
        if proposal.kind is DecisionKind.BOOKING_STANDS:
            confirmed = ConfirmationStatus.CONFIRMED
            await self._apply(payment, decision_id, STANDS, confirmed, {"booked": True}, confirm_no=confirm_no)
            return
        amounts = {line.his_bill_id: line.amount_fen for line in await self.disputes.disputed(payment, confirmation)}
        await self._red_receipt(payment, decision_id, confirm_no, proposal.their_number, amounts)

    # ------------------------------------------------------------ as evidence

    async def _red_receipt(
        self, payment: Payment, decision_id: str, confirm_no: str, number: str, amounts: Mapping[str, int]
    ) -> None:
        """What the HIS would tell of this red receipt. Raises ActionNotPossible while another reversal is under way."""
        facts = {"red_receipt_no": number, "amounts": dict(amounts), "money_by": MoneyBy.US_ORIGINAL_ROUTE.value}
        try:
            await self._apply(payment, decision_id, RED_RECEIPT, None, facts, confirm_no=confirm_no)
        except OutcomeUnknown as error:
            raise ActionNotPossible(reason="too_early") from error

    async def _said_instead(
        self, proposal: Proposal, payment: Payment, refund: Refund
    ) -> tuple[str, Mapping[str, int]]:
        """The booking and the amounts that the HIS has named under this red receipt, which are not those asked.

        Raises ActionNotPossible unless they are what the document shows, and of one booking.
        """
        asked = await self._asked(refund)
        scope = scoped(payment.institution_id)
        for event in await scope.find(PaymentEvent, ("id",), refund_id=refund.id, kind=REVERSAL, proves=REVERSED):
            amounts: dict[str, int] = event.facts.get("amounts") or {}
            confirm_nos = {asked[bill][1] for bill in amounts if bill in asked}
            fits = event.facts.get("red_receipt_no") == proposal.their_number and set(amounts) <= set(asked)
            if fits and sum(amounts.values()) == proposal.amount_fen and len(confirm_nos) == 1:
                return confirm_nos.pop(), amounts
        raise ActionNotPossible(reason="amount_differs")

    async def _asked(self, refund: Refund) -> Mapping[str, tuple[int, str]]:
        """Bill → how much of it the HIS was asked to take back, and the number under which it was booked."""
        scope = scoped(refund.institution_id)
        lines = {line.id: line for line in await scope.find(PaymentLine, payment_id=refund.payment_id)}
        return {
            lines[part.line_id].his_bill_id: (part.amount_fen, lines[part.line_id].confirm_no)
            for part in await scope.find(RefundLine, refund_id=refund.id)
        }

    async def _apply(
        self,
        payment: Payment,
        decision_id: str,
        kind: str,
        proves: str | None,
        facts: Mapping[str, Any],
        *,
        confirm_no: str = "",
        refund_no: str = "",
    ) -> None:
        await self.applier.apply(
            Evidence(
                order_no=payment.order_no,
                kind=kind,
                source=SOURCE,
                facts={**facts, "decision": decision_id},
                proves=proves,
                proof_kind=ProofKind.STAFF_ATTESTED if proves else None,
                confirm_no=confirm_no,
                refund_no=refund_no,
            )
        )
