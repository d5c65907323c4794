"""Paid lines on their way into the HIS, and what follows from its answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from tortoise.exceptions import IntegrityError

from core.cases import Cases
from core.disputes import CASE as CONTRADICTION
from core.disputes import Disputes
from core.evidence import Evidence
from core.his_evidence import RED_RECEIPT, STANDS, receipt_of
from core.ledger import Account, TransferKind
from core.models import Confirmation, HisLock, Payment, PaymentLine
from core.outside import Outside
from core.payment_rows import PaymentRows
from core.red_receipts import RedReceipts
from core.states import HOLDS_BILL, ConfirmationStatus, LineStatus, LockStatus
from core.telling import BEING_DECIDED, Telling
from core.tenancy import scoped
from core.transactions import transaction, violated

WAIT_FOR_HOLDER = timedelta(seconds=10)
"""How often a paid line looks again whether the bill it waits for is free."""

RETURNED_TOGETHER_WITHIN = timedelta(seconds=30)
"""What must go back waits so long for the payment's other groups, so that all of it goes back in one refund."""

GOES_BACK = frozenset({LineStatus.REJECTED, LineStatus.SURPLUS})
REASON_LENGTH_MAX = 200


@dataclass(frozen=True, slots=True)
class HospitalSide:
    """Part of the caller's transaction, under the payment's lock."""

    outside: Outside
    steps: PaymentRows
    disputes: Disputes
    red_receipts: RedReceipts
    cases: Cases
    telling: Telling

    async def enter(self, payment: Payment, lines: Sequence[PaymentLine], *, now: datetime) -> None:
        """Give each group of paid, waiting lines to the HIS, unless another line holds one of its bills.

        Part of the caller's transaction, under the payment's lock; `lines` are all lines of the payment.
        """
        ended: list[PaymentLine] = []
        for confirm_no, group in _groups(lines):
            if any(line.status is not LineStatus.WAITING for line in group):
                continue
            has_waited = any(line.due_at is not None for line in group)
            holders = await self._holders(group)
            if LineStatus.CONFIRMED in holders or LineStatus.REVERSING in holders:
                await self.steps.update_lines(
                    group,
                    status=LineStatus.SURPLUS,
                    reason_code="paid_elsewhere",
                    due_at=now + RETURNED_TOGETHER_WITHIN,
                )
                await self.steps.release_locks(payment, now, confirm_no=confirm_no)
                ended += group
            elif holders or not await self._try_confirming(payment, confirm_no, group, now):
                await self.steps.update_lines(group, due_at=now + WAIT_FOR_HOLDER)
                # What the HIS holds for us would keep the other one from being booked; it is locked again if needed.
                await self.steps.release_locks(payment, now, confirm_no=confirm_no)
                continue
            if has_waited:
                await self.cases.settle(payment.institution_id, ("line_waits",), confirm_no)
        await self._ended(payment, lines, ended, now)

    async def _ended(
        self, payment: Payment, lines: Sequence[PaymentLine], ended: Sequence[PaymentLine], now: datetime
    ) -> None:
        """Groups have ended, of which the payer is told.

        Once no group of the payment is being decided any more, whatever must go back does so now, together.
        """
        await self.telling.ended(payment, lines, ended)
        if not any(line.status in BEING_DECIDED for line in lines):
            await self.steps.update_lines([line for line in lines if line.status in GOES_BACK], due_at=now)

    async def book_held(self, payment: Payment, lines: Sequence[PaymentLine], *, now: datetime) -> bool:
        """Two people want money of another amount booked all the same: held lines are given to the HIS.

        False when another payment holds or has booked one of the bills; the caller's transaction must not be
        committed then.
        """
        for confirm_no, group in _groups(lines):
            if await self._holders(group) or not await self._try_confirming(payment, confirm_no, group, now):
                return False
        return True

    async def _holders(self, group: Sequence[PaymentLine]) -> set[LineStatus]:
        """The states of other payments' lines that hold a bill of this group."""
        found: set[LineStatus] = set()
        for line in group:
            others = await scoped(line.institution_id).find(
                PaymentLine, branch=line.branch, his_bill_id=line.his_bill_id, status=HOLDS_BILL
            )
            found.update(other.status for other in others if other.payment_id != line.payment_id)
        return found

    async def _try_confirming(
        self, payment: Payment, confirm_no: str, group: Sequence[PaymentLine], now: datetime
    ) -> bool:
        """Make the confirmation and let the group hold its bills; False when somebody was faster."""
        confirmation_id = self.outside.ids.uuid()
        try:
            async with transaction():
                await Confirmation.create(
                    id=confirmation_id,
                    institution_id=payment.institution_id,
                    payment_id=payment.id,
                    site_id=payment.site_id,
                    confirm_no=confirm_no,
                    created_at=now,
                    due_at=now,
                )
                for line in group:
                    await scoped(line.institution_id).change(
                        PaymentLine,
                        {"id": line.id},
                        status=LineStatus.CONFIRMING,
                        confirmation_id=confirmation_id,
                        due_at=None,
                    )
        except IntegrityError as error:
            if violated(error) != "payment_line_bill_once":
                raise
            return False
        for line in group:
            line.status = LineStatus.CONFIRMING
            line.confirmation_id = confirmation_id
        return True

    async def _wake_waiting(self, lines: Iterable[PaymentLine], now: datetime) -> None:
        """Somebody else's paid line may now enter, or knows that it is surplus."""
        for line in lines:
            waiting = {"branch": line.branch, "his_bill_id": line.his_bill_id, "status": LineStatus.WAITING}
            await scoped(line.institution_id).change(PaymentLine, {**waiting, "due_at__gt": now}, due_at=now)

    # ------------------------------------------------------------ what it answers

    async def booking_came(
        self, payment: Payment, confirmation: Confirmation, evidence: Evidence, event_id: UUID
    ) -> None:
        if evidence.kind == RED_RECEIPT:
            if not await self.disputes.end(payment, confirmation, evidence, event_id):
                await self.red_receipts.came(payment, confirmation, evidence, event_id)
            return
        if evidence.kind == STANDS:
            await self.disputes.stand(payment, confirmation, event_id)
            return
        if evidence.proves is None:
            return
        status = ConfirmationStatus(evidence.proves)
        if confirmation.status is not ConfirmationStatus.OPEN:
            if confirmation.status is not status:
                await self.cases.open(
                    payment.institution_id,
                    CONTRADICTION,
                    confirmation.confirm_no,
                    payment_id=payment.id,
                    details={"was": confirmation.status.value, "now": status.value},
                )
                if status is ConfirmationStatus.CONFIRMED:
                    await self.disputes.begin(payment, confirmation, event_id)
            return
        now = self.outside.clock.now()
        await scoped(payment.institution_id).change(
            Confirmation,
            {"id": confirmation.id},
            status=status,
            proof_id=event_id,
            due_at=None,
            relock_wanted=False,
        )
        settled: tuple[str, ...] = ("confirmation_outcome_unknown",)
        all_lines = await self.steps.lines(payment)
        lines = [line for line in all_lines if line.confirmation_id == confirmation.id]
        if status is ConfirmationStatus.CONFIRMED:
            await self._confirmed(payment, confirmation, lines, evidence, event_id)
            settled += ("lock_not_released",)  # the lock is used up
        else:
            await self.steps.update_lines(
                lines,
                status=LineStatus.REJECTED,
                proof_id=event_id,
                reason_code=str(evidence.facts.get("code", ""))[:64],
                reason_text=str(evidence.facts.get("message", ""))[:REASON_LENGTH_MAX],
                due_at=now + RETURNED_TOGETHER_WITHIN,
            )
            await self.steps.release_locks(payment, now, confirm_no=confirmation.confirm_no)
        await self.cases.settle(payment.institution_id, settled, confirmation.confirm_no)
        await self._ended(payment, all_lines, lines, now)
        await self._wake_waiting(lines, now)

    async def _confirmed(
        self,
        payment: Payment,
        confirmation: Confirmation,
        lines: Sequence[PaymentLine],
        evidence: Evidence,
        event_id: UUID,
    ) -> None:
        for line in lines:
            receipt = receipt_of(evidence.facts, line.his_bill_id)
            await self.steps.set_line(line, status=LineStatus.CONFIRMED, proof_id=event_id, **receipt)
            await self.steps.move(
                payment,
                line.id,
                TransferKind.CONFIRMED,
                Account.AWAITING_HIS,
                Account.HIS_CONFIRMED,
                line.amount_fen,
            )
        held = [LockStatus.HELD, LockStatus.UNKNOWN, LockStatus.RELEASING]
        await scoped(payment.institution_id).change(
            HisLock, {"confirm_no": confirmation.confirm_no, "status": held}, status=LockStatus.CONSUMED, due_at=None
        )


def _groups(lines: Sequence[PaymentLine]) -> list[tuple[str, list[PaymentLine]]]:
    """Lines that the HIS books as one, in the order of their bills."""
    groups: dict[str, list[PaymentLine]] = {}
    for line in sorted(lines, key=lambda line: (line.branch, line.his_bill_id)):
        groups.setdefault(line.confirm_no, []).append(line)
    return list(groups.items())
