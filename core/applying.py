"""`apply`: the one way in which evidence moves a payment, its lines, confirmations and refunds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tortoise.exceptions import IntegrityError

from core.cases import Cases
from core.evidence import Evidence, Facts, StoredEvidence, fold
from core.ledger import Account, Ledger, TransferKind
from core.messages import Messages
from core.models import Confirmation, HisLock, Payment, PaymentEvent, PaymentLine, Refund, RefundLine
from core.money import Fen
from core.outside import Outside
from core.ports import MessageKind, RefundState
from core.states import (
    HOLDS_BILL,
    OPEN_PAYMENT,
    ConfirmationStatus,
    LineStatus,
    LockStatus,
    PaymentStatus,
    ProofKind,
    RefundStatus,
)
from core.tenancy import across_institutions, scoped
from core.transactions import atomically, rows, transaction, violated

WAIT_FOR_HOLDER = timedelta(seconds=10)
"""How often a paid line looks again whether the bill it waits for is free."""

HELD_RETURN_AFTER = timedelta(hours=24)
"""A wrong amount is returned whole after this long, unless two people decide otherwise."""

DEAD_REFUND_PAUSE = timedelta(minutes=10)
STUCK_REFUND_PAUSE = timedelta(hours=1)
REFUND_CHAIN_MAX = 20
REFUND_CASES = ("refund_stuck", "refund_blocked", "refund_outcome_unknown")


@dataclass(frozen=True, slots=True)
class Applier:
    """Records what was said and brings everything that follows in line with it, in one transaction."""

    outside: Outside
    ledger: Ledger
    cases: Cases
    messages: Messages

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
            confirmation = await scope.of(Confirmation).get_or_none(
                confirm_no=evidence.confirm_no, payment_id=payment.id
            )
            if confirmation is None:
                return payment
        if evidence.refund_no:
            refund = await scope.of(Refund).get_or_none(refund_no=evidence.refund_no, payment_id=payment.id)
            if refund is None:
                await self._unknown_refund(payment, evidence)
                return payment
        if evidence.proof_kind is ProofKind.NEVER_SENT and payment.sends_started != payment.sends_unreached:
            return payment
        event_id = await self._record(payment, evidence, confirmation, refund)
        if event_id is None:
            return payment
        if confirmation is not None:
            await self._booking(payment, confirmation, evidence, event_id)
        elif refund is not None:
            await self._refund(payment, refund, evidence, event_id)
        else:
            await self._channel_side(payment)
        return payment

    async def _record(
        self, payment: Payment, evidence: Evidence, confirmation: Confirmation | None, refund: Refund | None
    ) -> UUID | None:
        """Insert the evidence; None when the same was said before."""
        event_id = self.outside.ids.uuid()
        raw_digest = hashlib.sha256(evidence.raw).hexdigest() if evidence.raw else ""
        now = self.outside.clock.now()
        inserted = await rows(
            "INSERT INTO payment_event (id, institution_id, payment_id, confirmation_id, refund_id, kind, source,"
            " proves, proof_kind, facts, digest, raw_digest, at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11, $12, $13)"
            " ON CONFLICT ON CONSTRAINT payment_event_once DO NOTHING RETURNING id",
            event_id,
            payment.institution_id,
            payment.id,
            confirmation.id if confirmation else None,
            refund.id if refund else None,
            evidence.kind,
            evidence.source,
            evidence.proves,
            evidence.proof_kind.value if evidence.proof_kind else None,
            json.dumps(dict(evidence.facts), ensure_ascii=False),
            evidence.digest,
            raw_digest,
            now,
        )
        if inserted and evidence.raw:
            await rows(
                "INSERT INTO raw_body (id, institution_id, digest, body_enc, created_at)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT ON CONSTRAINT raw_body_once DO NOTHING RETURNING id",
                self.outside.ids.uuid(),
                payment.institution_id,
                raw_digest,
                self.outside.keyring.encrypt(evidence.raw.decode("utf-8", "backslashreplace"), place="raw_body.body"),
                now,
            )
        return event_id if inserted else None

    # ------------------------------------------------------------ the channel's side

    async def _channel_side(self, payment: Payment) -> None:
        with across_institutions("evidence of one locked payment"):
            stored = await PaymentEvent.filter(
                institution_id=payment.institution_id,
                payment_id=payment.id,
                confirmation_id=None,
                refund_id=None,
            ).values("id", "proves", "proof_kind", "facts")
        facts = fold(StoredEvidence(**row) for row in stored)
        if facts.contradicting_amounts:
            await self.cases.open(
                payment.institution_id, "contradicting_evidence", payment.order_no, payment_id=payment.id
            )
        end = facts.status
        if end is None or payment.status == end[0] or payment.status is PaymentStatus.PAID:
            return
        status, proof_id = end
        if status is PaymentStatus.PAID:
            await self._paid(payment, facts, proof_id)
        elif payment.status in OPEN_PAYMENT:
            await self._ended(payment, status, proof_id)

    async def _paid(self, payment: Payment, facts: Facts, proof_id: UUID) -> None:
        now = self.outside.clock.now()
        late = payment.status not in OPEN_PAYMENT
        await self._update(
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
        await self._move(
            payment,
            payment.id,
            TransferKind.PAID,
            Account.CHANNEL_RECEIVABLE,
            Account.AWAITING_HIS,
            facts.paid_fen,
        )
        lines = await self._lines(payment)
        for line in lines:
            if line.status is LineStatus.VOID:
                await self._set_line(line, status=LineStatus.WAITING)
        if facts.paid_fen != payment.asked_fen:
            await self._hold(payment, lines, facts)
            return
        await self._update_lines(lines, claims_bill=False)
        await self.enter(payment, lines, now=now)
        if late:
            await self._locks_wake(payment, now)

    async def _hold(self, payment: Payment, lines: Sequence[PaymentLine], facts: Facts) -> None:
        """The amount taken is not the amount asked: nothing is told to the HIS, staff decide, else all goes back."""
        now = self.outside.clock.now()
        await self._move(
            payment, payment.id, TransferKind.WRONG_AMOUNT, Account.AWAITING_HIS, Account.HELD, facts.paid_fen
        )
        for line in lines:
            await self._set_line(
                line,
                status=LineStatus.HELD,
                claims_bill=False,
                reason_code="wrong_amount",
                due_at=now + HELD_RETURN_AFTER,
            )
        await self._release_locks(payment, now)
        await self.cases.open(
            payment.institution_id,
            "wrong_amount",
            payment.order_no,
            payment_id=payment.id,
            details={"asked_fen": payment.asked_fen, "paid_fen": facts.paid_fen},
        )

    async def _ended(self, payment: Payment, status: PaymentStatus, proof_id: UUID) -> None:
        now = self.outside.clock.now()
        await self._update(
            payment, status=status, proof_id=proof_id, close_wanted=False, pay_params_enc="", due_at=None
        )
        for line in await self._lines(payment):
            if line.status is LineStatus.WAITING:
                await self._set_line(line, status=LineStatus.VOID, claims_bill=False, due_at=None)
        await self._release_locks(payment, now)
        await self.cases.settle(payment.institution_id, ("payment_outcome_unknown",), payment.order_no)

    # ------------------------------------------------------------ entering the HIS

    async def enter(self, payment: Payment, lines: Sequence[PaymentLine], *, now: datetime) -> None:
        """Give each group of paid, waiting lines to the HIS, unless another line holds one of its bills.

        Part of the caller's transaction, under the payment's lock.
        """
        for confirm_no, group in _groups(lines):
            if any(line.status is not LineStatus.WAITING for line in group):
                continue
            holders = await self._holders(group)
            if LineStatus.CONFIRMED in holders or LineStatus.REVERSING in holders:
                for line in group:
                    await self._set_line(line, status=LineStatus.SURPLUS, reason_code="paid_elsewhere", due_at=now)
                await self._release_locks(payment, now, confirm_no=confirm_no)
            elif holders or not await self._try_confirming(payment, confirm_no, group, now):
                await self._update_lines(group, due_at=now + WAIT_FOR_HOLDER)
                # What the HIS holds for us would keep the other one from being booked; it is locked again if needed.
                await self._release_locks(payment, now, confirm_no=confirm_no)

    async def _holders(self, group: Sequence[PaymentLine]) -> set[LineStatus]:
        """The states of other payments' lines that hold a bill of this group."""
        found: set[LineStatus] = set()
        for line in group:
            statuses = await (
                scoped(line.institution_id)
                .of(PaymentLine)
                .filter(branch=line.branch, his_bill_id=line.his_bill_id, status__in=list(HOLDS_BILL))
                .exclude(payment_id=line.payment_id)
                .only("id", "status")
            )
            found.update(other.status for other in statuses)
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
                    await (
                        scoped(line.institution_id)
                        .of(PaymentLine)
                        .filter(id=line.id)
                        .update(status=LineStatus.CONFIRMING, confirmation_id=confirmation_id, due_at=None)
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
            await (
                scoped(line.institution_id)
                .of(PaymentLine)
                .filter(
                    branch=line.branch,
                    his_bill_id=line.his_bill_id,
                    status=LineStatus.WAITING,
                    due_at__gt=now,
                )
                .update(due_at=now)
            )

    # ------------------------------------------------------------ the hospital's side

    async def _booking(self, payment: Payment, confirmation: Confirmation, evidence: Evidence, event_id: UUID) -> None:
        if evidence.proves is None:
            return
        status = ConfirmationStatus(evidence.proves)
        if confirmation.status is not ConfirmationStatus.OPEN:
            if confirmation.status is not status:
                await self.cases.open(
                    payment.institution_id,
                    "hospital_contradicts_itself",
                    confirmation.confirm_no,
                    payment_id=payment.id,
                    details={"was": confirmation.status.value, "now": status.value},
                )
                if status is ConfirmationStatus.CONFIRMED:
                    await self._stop_unsent_refunds(payment)
            return
        now = self.outside.clock.now()
        await (
            scoped(payment.institution_id)
            .of(Confirmation)
            .filter(id=confirmation.id)
            .update(status=status, proof_id=event_id, due_at=None, relock_wanted=False)
        )
        await self.cases.settle(payment.institution_id, ("confirmation_outcome_unknown",), confirmation.confirm_no)
        lines = [line for line in await self._lines(payment) if line.confirmation_id == confirmation.id]
        if status is ConfirmationStatus.CONFIRMED:
            await self._confirmed(payment, confirmation, lines, evidence, event_id, now)
        else:
            for line in lines:
                await self._set_line(
                    line,
                    status=LineStatus.REJECTED,
                    proof_id=event_id,
                    reason_code=str(evidence.facts.get("code", ""))[:64],
                    reason_text=str(evidence.facts.get("message", "")),
                    due_at=now,
                )
            await self._release_locks(payment, now, confirm_no=confirmation.confirm_no)
        await self._wake_waiting(lines, now)

    async def _confirmed(
        self,
        payment: Payment,
        confirmation: Confirmation,
        lines: Sequence[PaymentLine],
        evidence: Evidence,
        event_id: UUID,
        now: datetime,
    ) -> None:
        receipts: dict[str, dict[str, str]] = evidence.facts.get("receipts", {})
        for line in lines:
            receipt = receipts.get(line.his_bill_id, {})
            await self._set_line(
                line,
                status=LineStatus.CONFIRMED,
                proof_id=event_id,
                receipt_no=receipt.get("receipt_no", "")[:128],
                guide_text=receipt.get("guide_text", ""),
                receipt_url=receipt.get("receipt_url", ""),
                ebill_url=receipt.get("ebill_url", ""),
            )
            await self._move(
                payment,
                line.id,
                TransferKind.CONFIRMED,
                Account.AWAITING_HIS,
                Account.HIS_CONFIRMED,
                line.amount_fen,
            )
        await (
            scoped(payment.institution_id)
            .of(HisLock)
            .filter(
                confirm_no=confirmation.confirm_no,
                status__in=[LockStatus.HELD, LockStatus.UNKNOWN, LockStatus.RELEASING],
            )
            .update(status=LockStatus.CONSUMED, due_at=None)
        )
        await self.messages.enqueue(
            payment,
            MessageKind.PAID,
            dedup_key=f"paid:{confirmation.confirm_no}",
            values={
                "order_no": payment.order_no,
                "amount_fen": sum(line.amount_fen for line in lines),
                "at": (payment.paid_at or now).isoformat(),
                "guide_text": next((line.guide_text for line in lines if line.guide_text), ""),
            },
        )

    # ------------------------------------------------------------ refunds

    async def return_lines(self, payment_id: UUID, institution_id: UUID, *, held_too: bool = False) -> Refund | None:
        """One refund for all lines of a payment that must go back now; None when there are none (any more).

        `held_too`: the time for staff to decide about a wrong amount is over.
        """
        return await atomically(lambda: self._return_lines(payment_id, institution_id, held_too))

    async def _return_lines(self, payment_id: UUID, institution_id: UUID, held_too: bool) -> Refund | None:
        payment = await scoped(institution_id).of(Payment).select_for_update(no_key=True).get(id=payment_id)
        now = self.outside.clock.now()
        lines = await self._lines(payment)
        back = [
            line
            for line in lines
            if line.status in {LineStatus.REJECTED, LineStatus.SURPLUS} or (line.status is LineStatus.HELD and held_too)
        ]
        if not back:
            return None
        whole = back[0].status is LineStatus.HELD
        amount = payment.paid_fen if whole else Fen(sum(line.amount_fen for line in back))
        if amount == 0:
            for line in back:
                await self._set_line(line, status=LineStatus.RETURNING, due_at=None)
                await self._set_line(line, status=LineStatus.RETURNED, due_at=None)
            await self._tell_returned(payment, back, amount, back[0].confirm_no, now)
            return None
        refund = await self._new_refund(payment, amount, cause=back[0].reason_code or back[0].status.value, due_at=now)
        for line in back:
            await RefundLine.create(
                id=self.outside.ids.uuid(),
                institution_id=institution_id,
                payment_id=payment.id,
                refund_id=refund.id,
                line_id=line.id,
                amount_fen=line.amount_fen,
            )
            if not whole:
                await self._move(
                    payment,
                    line.id,
                    TransferKind.RETURN_DECIDED,
                    Account.AWAITING_HIS,
                    Account.REFUND_PAYABLE,
                    line.amount_fen,
                )
            await self._set_line(line, status=LineStatus.RETURNING, due_at=None)
        if whole:
            await self._move(
                payment, payment.id, TransferKind.RETURN_DECIDED, Account.HELD, Account.REFUND_PAYABLE, amount
            )
            await self.cases.settle(institution_id, ("wrong_amount",), payment.order_no)
        await self._tell_returned(payment, back, amount, refund.refund_no, now)
        return refund

    async def _tell_returned(
        self, payment: Payment, lines: Sequence[PaymentLine], amount: Fen, number: str, now: datetime
    ) -> None:
        await self.messages.enqueue(
            payment,
            MessageKind.REFUSED_RETURNED,
            dedup_key=f"returned:{number}",
            values={
                "order_no": payment.order_no,
                "amount_fen": amount,
                "at": now.isoformat(),
                "reason_code": lines[0].reason_code,
            },
        )

    async def _new_refund(
        self, payment: Payment, amount: Fen, *, cause: str, due_at: datetime, replaces: Refund | None = None
    ) -> Refund:
        """The refund's row and, in one UPDATE that the database bounds, its reservation."""
        refund = await Refund.create(
            id=self.outside.ids.uuid(),
            institution_id=payment.institution_id,
            payment_id=payment.id,
            refund_no=self.outside.ids.refund_no(),
            cause=cause[:32],
            status=RefundStatus.APPROVED,
            amount_fen=amount,
            replaces_id=replaces.id if replaces else None,
            created_at=self.outside.clock.now(),
            due_at=due_at,
        )
        await rows(
            "UPDATE payment SET refund_reserved_fen = refund_reserved_fen + $3"
            " WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
            amount,
        )
        return refund

    async def _refund(self, payment: Payment, refund: Refund, evidence: Evidence, event_id: UUID) -> None:
        now = self.outside.clock.now()
        if refund.status in {RefundStatus.REFUNDED, RefundStatus.DEAD}:
            if evidence.proves is not None and evidence.proves != refund.status:
                await self.cases.open(
                    payment.institution_id, "refund_contradiction", refund.refund_no, payment_id=payment.id
                )
                await self._stop_unsent_refunds(payment)
            return
        said_fen = int(evidence.facts.get("amount_fen") or 0)
        if evidence.proves == RefundStatus.REFUNDED and said_fen != refund.amount_fen:
            await self.cases.open(
                payment.institution_id,
                "refund_amount_differs",
                refund.refund_no,
                payment_id=payment.id,
                details={"asked_fen": refund.amount_fen, "refunded_fen": said_fen},
            )
            return
        number = str(evidence.facts.get("channel_refund_no") or refund.channel_refund_no)
        if refund.status is RefundStatus.APPROVED:
            refund = await self._set_refund(refund, status=RefundStatus.SENDING)
        if evidence.proves == RefundStatus.REFUNDED:
            await self._refunded(payment, refund, evidence, event_id, number, now)
        elif evidence.proves == RefundStatus.DEAD:
            await self._dead(payment, refund, event_id, number, now)
        elif evidence.facts.get("state") == RefundState.STUCK:
            if refund.status is not RefundStatus.STUCK:
                await self._set_refund(
                    refund,
                    status=RefundStatus.STUCK,
                    channel_refund_no=number,
                    due_at=now + STUCK_REFUND_PAUSE,
                )
            await self.cases.open(payment.institution_id, "refund_stuck", refund.refund_no, payment_id=payment.id)
        elif evidence.facts.get("state") == RefundState.PROCESSING and refund.status is RefundStatus.SENDING:
            await self._set_refund(refund, status=RefundStatus.PENDING, channel_refund_no=number)

    async def _refunded(
        self, payment: Payment, refund: Refund, evidence: Evidence, event_id: UUID, number: str, now: datetime
    ) -> None:
        said_at = evidence.facts.get("refunded_at")
        await self._set_refund(
            refund,
            status=RefundStatus.REFUNDED,
            proof_id=event_id,
            channel_refund_no=number,
            refunded_at=datetime.fromisoformat(said_at) if said_at else now,
            due_at=None,
        )
        await rows(
            "UPDATE payment SET refunded_fen = refunded_fen + $3 WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
            refund.amount_fen,
        )
        await self._move(
            payment,
            refund.id,
            TransferKind.REFUNDED,
            Account.REFUND_PAYABLE,
            Account.CHANNEL_RECEIVABLE,
            refund.amount_fen,
        )
        returned = await self._lines_of_refund(payment, refund)
        for line in returned:
            if line.status is LineStatus.RETURNING:
                await self._set_line(line, status=LineStatus.RETURNED, due_at=None)
        await self.cases.settle(payment.institution_id, REFUND_CASES, refund.refund_no)
        await self.messages.enqueue(
            payment,
            MessageKind.REFUND_ARRIVED,
            dedup_key=f"refund_arrived:{refund.refund_no}",
            values={"order_no": payment.order_no, "amount_fen": refund.amount_fen, "at": now.isoformat()},
        )

    async def _dead(self, payment: Payment, refund: Refund, event_id: UUID, number: str, now: datetime) -> None:
        """This number will never refund: its reservation passes to a new one, and only one of the chain counts."""
        await self._set_refund(
            refund, status=RefundStatus.DEAD, proof_id=event_id, channel_refund_no=number, due_at=None
        )
        await self.cases.settle(payment.institution_id, REFUND_CASES, refund.refund_no)
        await rows(
            "UPDATE payment SET refund_reserved_fen = refund_reserved_fen - $3"
            " WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
            refund.amount_fen,
        )
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
        successor = await self._new_refund(
            payment,
            refund.amount_fen,
            cause=refund.cause,
            due_at=now + DEAD_REFUND_PAUSE * chain,
            replaces=refund,
        )
        for part in await scoped(payment.institution_id).of(RefundLine).filter(refund_id=refund.id).order_by("id"):
            await RefundLine.create(
                id=self.outside.ids.uuid(),
                institution_id=payment.institution_id,
                payment_id=payment.id,
                refund_id=successor.id,
                line_id=part.line_id,
                amount_fen=part.amount_fen,
            )

    async def _unknown_refund(self, payment: Payment, evidence: Evidence) -> None:
        """A refund that is not ours, made in the channel's console: recorded, and looked at by a person."""
        await self.cases.open(
            payment.institution_id,
            "external_refund",
            evidence.refund_no,
            payment_id=payment.id,
            details=dict(evidence.facts),
        )

    async def _stop_unsent_refunds(self, payment: Payment) -> None:
        """What was believed about this payment is in doubt: money that has not left waits for a person."""
        await (
            scoped(payment.institution_id)
            .of(Refund)
            .filter(payment_id=payment.id, status=RefundStatus.APPROVED, sends_started=0)
            .update(due_at=None)
        )

    # ------------------------------------------------------------ small steps

    async def _lines(self, payment: Payment) -> list[PaymentLine]:
        return (
            await scoped(payment.institution_id)
            .of(PaymentLine)
            .filter(payment_id=payment.id)
            .order_by("branch", "his_bill_id")
            .select_for_update(no_key=True)
        )

    async def _lines_of_refund(self, payment: Payment, refund: Refund) -> list[PaymentLine]:
        parts = await scoped(payment.institution_id).of(RefundLine).filter(refund_id=refund.id)
        wanted = {part.line_id for part in parts}
        return [line for line in await self._lines(payment) if line.id in wanted]

    async def _update(self, payment: Payment, **values: Any) -> None:
        await scoped(payment.institution_id).of(Payment).filter(id=payment.id).update(**values)
        for name, value in values.items():
            setattr(payment, name, value)

    async def _set_line(self, line: PaymentLine, **values: Any) -> None:
        await scoped(line.institution_id).of(PaymentLine).filter(id=line.id).update(**values)
        for name, value in values.items():
            setattr(line, name, value)

    async def _update_lines(self, lines: Sequence[PaymentLine], **values: Any) -> None:
        for line in lines:
            await self._set_line(line, **values)

    async def _set_refund(self, refund: Refund, **values: Any) -> Refund:
        await scoped(refund.institution_id).of(Refund).filter(id=refund.id).update(**values)
        for name, value in values.items():
            setattr(refund, name, value)
        return refund

    async def _move(
        self, payment: Payment, cause: UUID, kind: TransferKind, debit: Account, credit: Account, amount: Fen
    ) -> None:
        await self.ledger.move(
            payment.institution_id,
            payment.id,
            cause=cause,
            kind=kind,
            debit=debit,
            credit=credit,
            amount_fen=amount,
        )

    async def _release_locks(self, payment: Payment, now: datetime, *, confirm_no: str | None = None) -> None:
        """What the HIS still holds for this payment is wanted back."""
        locks = scoped(payment.institution_id).of(HisLock).filter(payment_id=payment.id)
        if confirm_no is not None:
            locks = locks.filter(confirm_no=confirm_no)
        await locks.filter(status=LockStatus.HELD).update(status=LockStatus.RELEASING, due_at=now)
        await locks.filter(status__in=[LockStatus.ASKING, LockStatus.UNKNOWN]).update(due_at=now)

    async def _locks_wake(self, payment: Payment, now: datetime) -> None:
        await (
            scoped(payment.institution_id)
            .of(HisLock)
            .filter(payment_id=payment.id, status__in=[LockStatus.RELEASING, LockStatus.UNKNOWN])
            .update(due_at=now)
        )


async def lock_payment(order_no: str) -> Payment | None:
    """The payment under its lock, within the caller's transaction."""
    with across_institutions("an order number is unguessable and unique"):
        return await Payment.filter(order_no=order_no).select_for_update(no_key=True).first()


def _groups(lines: Sequence[PaymentLine]) -> list[tuple[str, list[PaymentLine]]]:
    """Lines that the HIS books as one, in the order of their bills."""
    groups: dict[str, list[PaymentLine]] = {}
    for line in sorted(lines, key=lambda line: (line.branch, line.his_bill_id)):
        groups.setdefault(line.confirm_no, []).append(line)
    return list(groups.items())
