"""Money whose amount is not the one asked: back at once, or the amount asked is booked and the rest goes back."""

from __future__ import annotations

from dataclasses import dataclass

from core.cases import Cases
from core.errors import ActionNotPossible, AlreadyDecided
from core.hospital_side import HospitalSide
from core.ledger import Account, TransferKind
from core.models import Payment, PaymentLine
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.returning import OVERPAID, Returning
from core.states import LineStatus
from core.tenancy import scoped


@dataclass(frozen=True, slots=True)
class WrongAmount:
    """Part of the caller's transaction, under the payment's lock."""

    outside: Outside
    steps: PaymentRows
    hospital: HospitalSide
    returning: Returning
    cases: Cases

    async def check(self, payment: Payment, *, book: bool) -> None:
        """Raises AlreadyDecided for money that is not held, ActionNotPossible for less than was asked."""
        lines = await scoped(payment.institution_id).find(PaymentLine, payment_id=payment.id)
        if not lines or any(line.status is not LineStatus.HELD for line in lines):
            raise AlreadyDecided(status=lines[0].status.value if lines else payment.status.value)
        if book and payment.paid_fen < payment.asked_fen:
            raise ActionNotPossible(reason="too_little")

    async def return_now(self, payment: Payment) -> None:
        await self.returning.return_lines(payment.id, payment.institution_id, held_too=True)

    async def book_anyway(self, payment: Payment) -> None:
        """The HIS is told the amount asked; what was taken beyond it goes back in one refund.

        Raises ActionNotPossible when another payment holds or has booked one of the bills.
        """
        now = self.outside.clock.now()
        lines = await self.steps.lines(payment)
        if not await self.hospital.book_held(payment, lines, now=now):
            raise ActionNotPossible(reason="bill_taken")
        await self.steps.update_lines(lines, reason_code="")
        await self.steps.move(
            payment, payment.id, TransferKind.BOOKED_ANYWAY, Account.HELD, Account.AWAITING_HIS, payment.asked_fen
        )
        beyond = Fen(payment.paid_fen - payment.asked_fen)
        if beyond:
            await self.steps.move(
                payment, payment.id, TransferKind.RETURN_DECIDED, Account.HELD, Account.REFUND_PAYABLE, beyond
            )
            await self.returning.new_refund(payment, beyond, cause=OVERPAID, due_at=now)
        await self.cases.settle(payment.institution_id, ("wrong_amount",), payment.order_no)
