"""What members of staff do with a case: each deed in one transaction with its audit entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from core.actors import Actor, Role
from core.audit import Audit
from core.case_kinds import ROLE_OF, CaseAction, actions_of
from core.due import take
from core.errors import ActionNotPossible, InvalidRequest, NotFound
from core.failing import CASE as WORK_FAILS
from core.failing import split_subject
from core.followup import FollowUp
from core.inbound import Inbounds
from core.ledger import Account
from core.locks import Locks
from core.models import Confirmation, HisLock, Inbound, Payment, Refund, StaffCase, Transfer
from core.outside import Outside
from core.payment_files import balances_of
from core.payments import Payments
from core.returning import Returning
from core.scrubbing import scrub_text
from core.states import OPEN_PAYMENT, CaseStatus, ConfirmationStatus, InboundStatus, LineStatus, RefundStatus
from core.tenancy import scoped
from core.transactions import atomically, rows

LEASE = timedelta(seconds=90)
CLOSED_BY_STAFF = "closed_by_staff"
REASON_LENGTH_MAX = 500
UNDECIDED = (Account.AWAITING_HIS, Account.HELD, Account.REFUND_PAYABLE)
"""Money in one of these accounts is on its way to somewhere."""

STOPPED = frozenset({RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS, RefundStatus.SENDING, RefundStatus.PENDING})
"""A refund in one of these that is due at no time waits for a person."""

REFUND_ENDS = frozenset({RefundStatus.REFUNDED, RefundStatus.DECLINED, RefundStatus.DEAD})

WAKE = (
    "UPDATE payment SET due_at = $3 WHERE institution_id = $1 AND id = $2 AND due_at IS NOT NULL RETURNING id",
    "UPDATE confirmation SET due_at = $3 WHERE institution_id = $1 AND payment_id = $2 AND due_at IS NOT NULL"
    " RETURNING id",
    "UPDATE his_lock SET due_at = $3 WHERE institution_id = $1 AND payment_id = $2 AND due_at IS NOT NULL RETURNING id",
    # Held lines fall due when their time for a decision is over: nobody brings that forward by asking.
    "UPDATE payment_line SET due_at = $3 WHERE institution_id = $1 AND payment_id = $2 AND due_at IS NOT NULL"
    " AND status = 'waiting' RETURNING id",
    "UPDATE refund SET due_at = $3 WHERE institution_id = $1 AND payment_id = $2 AND due_at IS NOT NULL"
    " AND status IN ('reversing_at_his', 'sending', 'pending', 'stuck') RETURNING id",
)
"""What of a payment can be asked about now."""


@dataclass(frozen=True, slots=True)
class CaseActions:
    outside: Outside
    payments: Payments
    locks: Locks
    returning: Returning
    inbounds: Inbounds
    follow_up: FollowUp
    audit: Audit

    async def ask_now(self, actor: Actor, case_id: UUID) -> None:
        case = await self._open_case(actor, case_id, CaseAction.ASK_NOW)
        await atomically(lambda: self._wake(actor, case))
        if case.kind == "inbound_not_worked":
            await self._work_inbound(actor.institution_id, UUID(case.subject))
        elif case.payment_id is not None and case.kind != WORK_FAILS:  # that row is the worker's: it may raise again
            await self._work_payment(actor.institution_id, case.payment_id)

    async def _wake(self, actor: Actor, case: StaffCase) -> None:
        """Whatever happens to us after this commit, a worker asks."""
        now, woken = self.outside.clock.now(), 0
        if case.kind == WORK_FAILS:
            table, row_id = split_subject(case.subject)
            woken = len(
                await rows(
                    f"UPDATE {table} SET due_at = $3 WHERE institution_id = $1 AND id = $2 AND due_at IS NOT NULL"
                    " RETURNING id",
                    actor.institution_id,
                    UUID(row_id),
                    now,
                )
            )
        elif case.payment_id is not None:
            for statement in WAKE:
                woken += len(await rows(statement, actor.institution_id, case.payment_id, now))
        elif case.kind == "inbound_not_worked":
            woken = await scoped(actor.institution_id).of(Inbound).filter(
                id=UUID(case.subject), due_at__isnull=False
            ).update(due_at=now)  # fmt: skip
        if not woken:
            raise ActionNotPossible(reason="nothing_waits")
        await self.audit.write(actor, "case_asked", str(case.id), {"kind": case.kind, "subject": case.subject})

    async def _work_payment(self, institution_id: UUID, payment_id: UUID) -> None:
        payment = await take(
            "payment",
            payment_id,
            institution_id,
            now=self.outside.clock.now(),
            holder=self.outside.lease_name(),
            lease=LEASE,
        )
        if payment is not None:
            await self.payments.work(payment)
        await self.payments.free_locks(scoped(institution_id).of(HisLock).filter(payment_id=payment_id))
        await self.follow_up.of(institution_id, payment_id)

    async def _work_inbound(self, institution_id: UUID, inbound_id: UUID) -> None:
        due = await take(
            "inbound",
            inbound_id,
            institution_id,
            now=self.outside.clock.now(),
            holder=self.outside.lease_name(),
            lease=LEASE,
        )
        if due is not None:
            await self.inbounds.work(due)

    # ------------------------------------------------------------ a refund goes on

    async def resume(self, actor: Actor, case_id: UUID) -> None:
        case = await self._open_case(actor, case_id, CaseAction.RESUME)
        await atomically(lambda: self._resume(actor, case))

    async def _resume(self, actor: Actor, case: StaffCase) -> None:
        if case.payment_id is None:
            raise ActionNotPossible(reason="nothing_waits")
        scope = scoped(actor.institution_id)
        (payment,) = await scope.find(Payment, locked=True, id=case.payment_id)
        refunds = await scope.find(Refund, ("id",), locked=True, payment_id=case.payment_id)
        resumed = [refund for refund in refunds if await self._goes_on(case, payment, refund, refunds)]
        if not resumed:
            lines = await self.returning.steps.lines(payment)
            is_disputed = any(line.status is LineStatus.DISPUTED for line in lines)
            raise ActionNotPossible(reason="disputed" if is_disputed else "nothing_waits")
        numbers = " ".join(refund.refund_no for refund in resumed)
        await self.audit.write(actor, "refund_resumed", str(case.id), {"kind": case.kind, "refunds": numbers})

    async def _goes_on(self, case: StaffCase, payment: Payment, refund: Refund, refunds: Sequence[Refund]) -> bool:
        """Whether this refund waited for a person and now waits for him no more."""
        scope, now = scoped(refund.institution_id), self.outside.clock.now()
        lines = {line.status for line in await self.returning.steps.lines_of_refund(payment, refund)}
        if LineStatus.DISPUTED in lines:
            return False  # that the HIS has booked it after all takes two people (core/disputes.py)
        if case.kind == "refund_stuck":
            if refund.refund_no != case.subject or refund.status not in {RefundStatus.STUCK, RefundStatus.SENDING}:
                return False
            # Without a time at which it was sent last, it is sent again although the channel knows it (Refunds.work).
            await scope.change(
                Refund, {"id": refund.id}, status=RefundStatus.SENDING, last_sent_at=None, due_at=now, attempts=0
            )
            return True
        if case.kind == "refund_never_succeeds":
            is_given_up = refund.origin == "automatic" and LineStatus.CONFIRMED in lines  # a dispute's end
            if (
                is_given_up
                or refund.status is not RefundStatus.DEAD
                or any(other.replaces_id == refund.id for other in refunds)
            ):
                return False
            await self.returning.replace(payment, refund, due_at=now)
            return True
        if refund.status not in STOPPED or refund.due_at is not None:
            return False
        await scope.change(Refund, {"id": refund.id}, due_at=now)
        return True

    # ------------------------------------------------------------ closed with a reason

    async def close(self, actor: Actor, case_id: UUID, reason: str) -> None:
        if not 1 <= len(reason.strip()) <= REASON_LENGTH_MAX:
            raise InvalidRequest(field="reason", problem=f"1 to {REASON_LENGTH_MAX} characters are needed")
        case = await self._open_case(actor, case_id, CaseAction.CLOSE)
        await atomically(lambda: self._close(actor, case, scrub_text(reason.strip())))

    async def _close(self, actor: Actor, case: StaffCase, note: str) -> None:
        if case.payment_id is not None and await self._is_unsettled(actor.institution_id, case.payment_id):
            raise ActionNotPossible(reason="unsettled")
        if case.kind == "inbound_not_worked":
            await self._give_up(actor.institution_id, UUID(case.subject))
        closed = await scoped(actor.institution_id).change(
            StaffCase,
            {"id": case.id, "status": CaseStatus.OPEN},
            status=CaseStatus.CLOSED,
            closed_at=self.outside.clock.now(),
            closed_reason=CLOSED_BY_STAFF,
            closed_by=actor.staff_id,
            note=note,
        )
        if not closed:
            raise ActionNotPossible(reason="closed")
        await self.audit.write(actor, "case_closed", str(case.id), {"kind": case.kind, "subject": case.subject})

    async def _give_up(self, institution_id: UUID, inbound_id: UUID) -> None:
        """A person has seen to what a message says: it is worked no more. Whoever is at it loses his lease."""
        await scoped(institution_id).change(
            Inbound,
            {"id": inbound_id, "status": InboundStatus.RECEIVED},
            status=InboundStatus.WORKED,
            due_at=None,
            lease_until=None,
            holder="",
        )

    async def _is_unsettled(self, institution_id: UUID, payment_id: UUID) -> bool:
        """Whether money of this payment, or the payment itself, is still on its way; under the payment's lock."""
        scope = scoped(institution_id)
        (payment,) = await scope.find(Payment, locked=True, id=payment_id)
        balances = balances_of(await scope.find(Transfer, payment_id=payment_id))
        refunds = await scope.find(Refund, payment_id=payment_id)
        open_bookings = await scope.find(Confirmation, payment_id=payment_id, status=ConfirmationStatus.OPEN)
        return (
            payment.status in OPEN_PAYMENT
            or any(balances[account] for account in UNDECIDED)
            or any(refund.status not in REFUND_ENDS for refund in refunds)
            or bool(open_bookings)
        )

    async def _open_case(self, actor: Actor, case_id: UUID, action: CaseAction) -> StaffCase:
        """Raises NotAllowed, NotFound or ActionNotPossible."""
        actor.require(Role.LOOK)
        actor.require(ROLE_OF[action])
        case = await scoped(actor.institution_id).get_or_none(StaffCase, id=case_id)
        if case is None:
            raise NotFound()
        if case.status is not CaseStatus.OPEN:
            raise ActionNotPossible(reason="closed")
        if action not in actions_of(case.kind):
            raise ActionNotPossible(reason="not_for_this_case")
        return case
