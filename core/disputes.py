"""The HIS has booked after all what it had refused, while its money goes back: until it takes that back, a dispute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from tortoise.exceptions import IntegrityError

from core.arriving import Arriving
from core.cases import Cases
from core.errors import ActionNotPossible, AlreadyDecided
from core.evidence import Evidence
from core.his_evidence import receipt_of
from core.ledger import Account, TransferKind
from core.models import Confirmation, Payment, PaymentEvent, PaymentLine, Refund, RefundLine
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.ports import MoneyBy, RefundState
from core.recording import record
from core.returning import Returning
from core.states import ConfirmationStatus, LineStatus, ProofKind, RefundStatus
from core.tenancy import scoped
from core.transactions import violated

CASE = "hospital_contradicts_itself"
GOING_BACK = frozenset({LineStatus.RETURNING, LineStatus.RETURNED})
NOT_YET = frozenset({RefundStatus.APPROVED, RefundStatus.SENDING})


@dataclass(frozen=True, slots=True)
class Disputes:
    """Part of the transaction of `apply`, under the payment's lock."""

    outside: Outside
    steps: PaymentRows
    returning: Returning
    arriving: Arriving
    cases: Cases

    async def begin(self, payment: Payment, confirmation: Confirmation, event_id: UUID) -> None:
        """What goes back of it is disputed, and money that has not left waits for a person.

        What was refused a moment ago is owed from now on, too: a refund stands that the person can let go.
        """
        if any(line.status is LineStatus.REJECTED for line in await self._lines(payment, confirmation)):
            await self.returning.return_lines(payment.id, payment.institution_id)
        await self.returning.stop_unsent(payment)
        lines = [line for line in await self._lines(payment, confirmation) if line.status in GOING_BACK]
        await self.steps.update_lines(lines, status=LineStatus.DISPUTED, due_at=None)
        await self.steps.move(
            payment, event_id, TransferKind.DISPUTED, Account.HIS_DISPUTE, Account.HIS_CONFIRMED, _sum(lines)
        )

    async def end(self, payment: Payment, confirmation: Confirmation, evidence: Evidence, event_id: UUID) -> bool:
        """A red receipt over all of it, which leaves the money to us: what had been decided goes on by itself.

        False when it is about something else, or says that somebody has paid the money out already.
        """
        lines = [line for line in await self._lines(payment, confirmation) if line.status is LineStatus.DISPUTED]
        amounts = {line.his_bill_id: line.amount_fen for line in lines}
        is_ours = evidence.facts["money_by"] == MoneyBy.US_ORIGINAL_ROUTE
        if not lines or not is_ours or dict(evidence.facts["amounts"]) != amounts:
            return False
        await self.steps.move(
            payment, event_id, TransferKind.DISPUTE_ENDED, Account.HIS_CONFIRMED, Account.HIS_DISPUTE, _sum(lines)
        )
        for line in lines:
            await self.steps.set_line(line, status=LineStatus.RETURNING)
            await self.arriving.end_line(line)
        await self.cases.settle(payment.institution_id, (CASE,), confirmation.confirm_no)
        await self.returning.go_on(payment)
        return True

    async def disputed(self, payment: Payment, confirmation: Confirmation) -> list[PaymentLine]:
        """Raises AlreadyDecided when nothing of this booking is in dispute."""
        lines = [line for line in await self._lines(payment, confirmation) if line.status is LineStatus.DISPUTED]
        if not lines:
            raise AlreadyDecided(status=confirmation.status.value)
        return lines

    async def check_stands(self, payment: Payment, confirmation: Confirmation) -> None:
        """Whether the HIS can keep its booking. Raises AlreadyDecided; ActionNotPossible once money may have left."""
        await self._stopped(payment, await self.disputed(payment, confirmation))

    async def stand(self, payment: Payment, confirmation: Confirmation, event_id: UUID) -> None:
        """The HIS keeps what it has booked: it stays paid, nothing of it goes back, and other bills are not held up.

        Raises ActionNotPossible when money may have left, or another payment has the bill by now; the caller's
        transaction must not be committed then.
        """
        lines = await self.disputed(payment, confirmation)
        ids = {line.id for line in lines}
        now = self.outside.clock.now()
        for refund in await self._stopped(payment, lines):
            await self._give_up(payment, refund)
            await self.returning.replace(payment, refund, due_at=now, without=ids)
        await self.steps.move(
            payment, event_id, TransferKind.BOOKING_STANDS, Account.REFUND_PAYABLE, Account.HIS_DISPUTE, _sum(lines)
        )
        scope = scoped(payment.institution_id)
        *_, booking = await scope.find(
            PaymentEvent,
            ("id",),
            confirmation_id=confirmation.id,
            proves=ConfirmationStatus.CONFIRMED.value,
            source="hospital",
        )
        await scope.change(
            Confirmation, {"id": confirmation.id}, status=ConfirmationStatus.CONFIRMED, proof_id=event_id
        )
        values = {"status": LineStatus.CONFIRMED, "proof_id": event_id, "reason_code": "", "reason_text": ""}
        try:
            for line in lines:
                await self.steps.set_line(line, **values, **receipt_of(booking.facts, line.his_bill_id))
        except IntegrityError as error:
            if violated(error) != "payment_line_bill_once":
                raise
            raise ActionNotPossible(reason="bill_taken") from error
        await self.cases.settle(payment.institution_id, (CASE,), confirmation.confirm_no)
        await self.returning.go_on(payment)
        await self.returning.telling.stands(payment, await self.steps.lines(payment), lines)

    async def _stopped(self, payment: Payment, lines: Sequence[PaymentLine]) -> list[Refund]:
        """The refunds that were to give these lines back. Raises ActionNotPossible unless all of it is still here."""
        scope = scoped(payment.institution_id)
        parts = await scope.find(RefundLine, line_id=[line.id for line in lines])
        refunds = await scope.find(Refund, ("id",), locked=True, id=[part.refund_id for part in parts])
        owed = [refund for refund in refunds if refund.status is not RefundStatus.DEAD]
        for refund in owed:
            is_here = refund.status in NOT_YET and refund.sends_started == refund.sends_unreached
            if not is_here or refund.external_fen:
                raise ActionNotPossible(reason="money_left")
        if sum(refund.amount_fen for refund in owed) < _sum(lines):
            raise ActionNotPossible(reason="money_left")
        return owed

    async def _give_up(self, payment: Payment, refund: Refund) -> None:
        """Nothing of it has ever reached the channel, and nothing ever will."""
        never_sent = Evidence(
            order_no=payment.order_no,
            kind="refund",
            source="ourselves",
            refund_no=refund.refund_no,
            proves=RefundStatus.DEAD,
            proof_kind=ProofKind.NEVER_SENT,
            facts={"state": RefundState.DEAD.value, "amount_fen": refund.amount_fen},
        )
        proof_id = await record(self.outside, payment, never_sent, refund_id=refund.id)
        assert proof_id is not None  # a refund is given up once
        if refund.status is RefundStatus.APPROVED:
            await self.steps.set_refund(refund, status=RefundStatus.SENDING)
        await self.returning.bury(payment, refund, proof_id)

    async def _lines(self, payment: Payment, confirmation: Confirmation) -> list[PaymentLine]:
        return [line for line in await self.steps.lines(payment) if line.confirmation_id == confirmation.id]


def _sum(lines: Sequence[PaymentLine]) -> Fen:
    return Fen(sum(line.amount_fen for line in lines))
