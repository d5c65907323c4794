"""The HIS has booked after all what it had refused, while its money goes back: until it takes that back, a dispute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from core.arriving import Arriving
from core.cases import Cases
from core.evidence import Evidence
from core.ledger import Account, TransferKind
from core.models import Confirmation, Payment, PaymentLine
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.ports import MoneyBy
from core.returning import Returning
from core.states import LineStatus

CASE = "hospital_contradicts_itself"
GOING_BACK = frozenset({LineStatus.RETURNING, LineStatus.RETURNED})


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

    async def _lines(self, payment: Payment, confirmation: Confirmation) -> list[PaymentLine]:
        return [line for line in await self.steps.lines(payment) if line.confirmation_id == confirmation.id]


def _sum(lines: Sequence[PaymentLine]) -> Fen:
    return Fen(sum(line.amount_fen for line in lines))
