"""The two lists as a payer sees them: what the HIS says now, side by side with what we know of our own payments."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from core.bills import ShownBill
from core.errors import BillNotPayable, HospitalUnavailable
from core.models import Payment, PaymentLine
from core.money import Fen
from core.ports import PaidRecord
from core.services import Services
from core.states import HOLDS_BILL, OPEN_PAYMENT, LineStatus, PaymentStatus
from core.tenancy import scoped
from core.viewing import payment_view
from miniprogram_api.auth import Session
from miniprogram_api.running import Asking, Questions

COMPLETE, UNAVAILABLE, ASKING = "complete", "unavailable", "asking"
"""How much of an answer the HIS has given."""

NOT_TO_PAY = frozenset({"confirming", "paid"})
ALREADY_PAID = "already_paid"


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpaidBill:
    """A bill with how it stands with us: a key of texts.STATUS_TEXTS."""

    shown: ShownBill
    status: str
    order_no: str = ""  # of the payer's own open payment


@dataclass(frozen=True, kw_only=True, slots=True)
class PaidEntry:
    """One paid bill. `order_no` only where this payer may open the payment."""

    source: str  # "zhenfu" | "hospital"
    branch: str
    bill_id: str
    title: str
    kind_text: str
    amount_fen: Fen
    at: datetime
    status: str
    order_no: str = ""
    reason_code: str = ""
    reason_text: str = ""  # the HIS's own words
    receipt_no: str = ""
    guide_text: str = ""
    receipt_url: str = ""
    ebill_url: str = ""
    paid_by: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaidList:
    entries: tuple[PaidEntry, ...]
    hospital_part: str
    ticket: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """`to_pay` is None while the HIS has not said: that is never the same as nothing."""

    to_pay: int | None
    paid: int
    hospital_part: str
    ticket: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lists:
    services: Services
    questions: Questions

    async def unpaid(self, session: Session, patient_id: UUID, tickets: frozenset[str]) -> list[UnpaidBill] | Asking:
        """Raises PatientNotBound, HospitalUnavailable."""
        asked = await self.questions.ask(
            ("unpaid", session.institution_id, session.payer_id, patient_id),
            lambda: self.services.bills.unpaid(session.institution_id, session.payer_id, patient_id),
            tickets=tickets,
        )
        return asked if isinstance(asked, Asking) else await self.with_ours(session, asked)

    async def bill(
        self, session: Session, patient_id: UUID, branch: str, bill_id: str, tickets: frozenset[str]
    ) -> UnpaidBill | Asking:
        """One bill with its items. Raises PatientNotBound, NotFound, HospitalUnavailable."""
        found = await self.several(session, patient_id, ((branch, bill_id),), tickets)
        return found if isinstance(found, Asking) else found[0]

    async def several(
        self, session: Session, patient_id: UUID, keys: tuple[tuple[str, str], ...], tickets: frozenset[str]
    ) -> list[UnpaidBill] | Asking:
        """Bills that somebody wants to pay together. Raises what `bill` raises, and BillNotPayable."""
        asked = await self.questions.ask(
            ("bills", session.institution_id, session.payer_id, patient_id, keys),
            lambda: self.services.bills.several(session.institution_id, session.payer_id, patient_id, keys),
            tickets=tickets,
        )
        return asked if isinstance(asked, Asking) else await self.with_ours(session, asked)

    async def paid(self, session: Session, patient_id: UUID, tickets: frozenset[str]) -> PaidList:
        """Our own part is always there; `hospital_part` says whether the HIS's is. Raises PatientNotBound."""
        await self.services.patients.check_bound(session.institution_id, session.payer_id, patient_id)
        theirs: Sequence[PaidRecord] = ()
        part, ticket = COMPLETE, ""
        try:
            asked = await self.questions.ask(
                ("paid", session.institution_id, session.payer_id, patient_id),
                lambda: self.services.bills.paid(session.institution_id, session.payer_id, patient_id),
                tickets=tickets,
            )
            if isinstance(asked, Asking):
                part, ticket = ASKING, asked.ticket
            else:
                theirs = asked
        except (HospitalUnavailable, BillNotPayable):
            part = UNAVAILABLE
        ours = await self._our_entries(session, await self._payments_for(session, patient_id))
        return PaidList(entries=_side_by_side(ours, theirs), hospital_part=part, ticket=ticket)

    async def counts(self, session: Session, patient_id: UUID, tickets: frozenset[str]) -> Counts:
        """How long the two lists are. Raises PatientNotBound."""
        unpaid, paid = await asyncio.gather(
            self._unpaid_or_nothing(session, patient_id, tickets), self.paid(session, patient_id, tickets)
        )
        parts = {paid.hospital_part, UNAVAILABLE if unpaid is None else COMPLETE}
        waiting = [paid.ticket] if paid.ticket else []
        if isinstance(unpaid, Asking):
            parts.add(ASKING)
            waiting.append(unpaid.ticket)
        worst = next(part for part in (ASKING, UNAVAILABLE, COMPLETE) if part in parts)
        return Counts(
            to_pay=sum(bill.status not in NOT_TO_PAY for bill in unpaid) if isinstance(unpaid, list) else None,
            paid=len(paid.entries),
            hospital_part=worst,
            ticket=",".join(waiting),
        )

    async def _unpaid_or_nothing(
        self, session: Session, patient_id: UUID, tickets: frozenset[str]
    ) -> list[UnpaidBill] | Asking | None:
        try:
            return await self.unpaid(session, patient_id, tickets)
        except (HospitalUnavailable, BillNotPayable):
            return None

    # ------------------------------------------------------------ ours

    async def with_ours(self, session: Session, bills: Sequence[ShownBill]) -> list[UnpaidBill]:
        """A bill that has been paid through us and that the HIS has not booked yet is not to be paid again."""
        if not bills:
            return []
        scope = scoped(session.institution_id)
        lines = (
            await scope.of(PaymentLine)
            .filter(
                his_bill_id__in=[shown.bill.his_bill_id for shown in bills],
                status__in=[*HOLDS_BILL, LineStatus.WAITING],
            )
            .order_by("id")
        )
        found = await scope.of(Payment).filter(id__in=[line.payment_id for line in lines]) if lines else []
        payments = {payment.id: payment for payment in found}
        result = []
        for shown in bills:
            status, order_no = "to_pay", ""
            for line in lines:
                if (line.branch, line.his_bill_id) == (shown.bill.branch, shown.bill.his_bill_id):
                    payment = payments[line.payment_id]
                    said = _said_of(line, payment)
                    if said in NOT_TO_PAY or status not in NOT_TO_PAY:
                        status = said
                        order_no = payment.order_no if payment.payer_id == session.payer_id else ""
            if status in NOT_TO_PAY:
                shown = replace(shown, payable=False, reason=ALREADY_PAID, his_text="", needs_second_tap=False)
            result.append(UnpaidBill(shown=shown, status=status, order_no=order_no))
        return result

    async def paid_for_others(self, session: Session, bound: Sequence[UUID]) -> tuple[PaidEntry, ...]:
        """What the payer himself paid for patients whom he has not bound, by their papers; newest first."""
        payments = [
            payment
            for payment in await self.services.payments.paid_list(session.payer_id, session.institution_id, [])
            if payment.patient_id not in bound
        ]
        entries = [entry for entry, _ in await self._our_entries(session, payments)]
        return tuple(sorted(entries, key=lambda entry: entry.at, reverse=True))

    async def _payments_for(self, session: Session, patient_id: UUID) -> list[Payment]:
        found = await self.services.payments.paid_list(session.payer_id, session.institution_id, [patient_id])
        return [payment for payment in found if payment.patient_id == patient_id]

    async def _our_entries(self, session: Session, payments: Sequence[Payment]) -> list[tuple[PaidEntry, str]]:
        """What was paid through us in these payments, line by line, each with its confirm number."""
        lines = (
            await scoped(session.institution_id)
            .of(PaymentLine)
            .filter(payment_id__in=[payment.id for payment in payments])
            .order_by("payment_id", "position")
            if payments
            else []
        )
        by_id = {payment.id: payment for payment in payments}
        return [(_our_entry(session, by_id[line.payment_id], line), line.confirm_no) for line in lines]


def _said_of(line: PaymentLine, payment: Payment) -> str:
    if line.status is LineStatus.CONFIRMING or (
        line.status is LineStatus.WAITING and payment.status is PaymentStatus.PAID
    ):
        return "confirming"
    if line.status in HOLDS_BILL:
        return "paid"
    return "paying" if payment.status in OPEN_PAYMENT and line.claims_bill else "to_pay"


def _our_entry(session: Session, payment: Payment, line: PaymentLine) -> PaidEntry:
    return PaidEntry(
        source="zhenfu",
        branch=line.branch,
        bill_id=line.his_bill_id,
        title=line.title,
        kind_text=line.kind_text,
        amount_fen=line.amount_fen,
        at=payment.paid_at or payment.created_at,
        status=payment_view(payment, [line]),
        order_no=payment.order_no if payment.payer_id == session.payer_id else "",
        reason_code=line.reason_code,
        reason_text=line.reason_text,
        receipt_no=line.receipt_no,
        guide_text=line.guide_text,
        receipt_url=line.receipt_url,
        ebill_url=line.ebill_url,
        paid_by="mobile",
    )


def _side_by_side(ours: Sequence[tuple[PaidEntry, str]], theirs: Sequence[PaidRecord]) -> tuple[PaidEntry, ...]:
    """Newest first; a HIS entry that is one of our payments is not shown twice."""
    known = {(entry.branch, confirm_no, entry.bill_id) for entry, confirm_no in ours}
    receipts = {(entry.branch, entry.receipt_no) for entry, _ in ours if entry.receipt_no}
    entries = [entry for entry, _ in ours]
    for record in theirs:
        if (record.branch, record.confirm_no, record.his_bill_id) in known:
            continue
        if record.receipt_no and (record.branch, record.receipt_no) in receipts:
            continue
        entries.append(
            PaidEntry(
                source="hospital",
                branch=record.branch,
                bill_id=record.his_bill_id,
                title=record.title,
                kind_text=record.kind_text,
                amount_fen=record.amount_fen,
                at=record.paid_at,
                status="paid",
                receipt_no=record.receipt_no,
                guide_text=record.guide_text,
                ebill_url=record.ebill_url,
                paid_by=record.paid_by,
            )
        )
    return tuple(sorted(entries, key=lambda entry: entry.at, reverse=True))
