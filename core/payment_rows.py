"""Small steps on the rows of one payment, inside the transaction that holds its lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core import plain_rows
from core.ledger import Account, Ledger, TransferKind
from core.models import HisLock, Payment, PaymentLine, Refund, RefundLine
from core.money import Fen
from core.states import LockStatus
from core.tenancy import across_institutions, scoped


@dataclass(frozen=True, slots=True)
class PaymentRows:
    ledger: Ledger

    async def lines(self, payment: Payment) -> list[PaymentLine]:
        by_bill = ("branch", "his_bill_id")
        return await scoped(payment.institution_id).find(PaymentLine, by_bill, locked=True, payment_id=payment.id)

    async def lines_of_refund(self, payment: Payment, refund: Refund) -> list[PaymentLine]:
        parts = await scoped(payment.institution_id).of(RefundLine).filter(refund_id=refund.id)
        wanted = {part.line_id for part in parts}
        return [line for line in await self.lines(payment) if line.id in wanted]

    async def update(self, payment: Payment, **values: Any) -> None:
        await scoped(payment.institution_id).change(Payment, {"id": payment.id}, **values)
        for name, value in values.items():
            setattr(payment, name, value)

    async def set_line(self, line: PaymentLine, **values: Any) -> None:
        await scoped(line.institution_id).change(PaymentLine, {"id": line.id}, **values)
        for name, value in values.items():
            setattr(line, name, value)

    async def update_lines(self, lines: Sequence[PaymentLine], **values: Any) -> None:
        for line in lines:
            await self.set_line(line, **values)

    async def set_refund(self, refund: Refund, **values: Any) -> Refund:
        await scoped(refund.institution_id).change(Refund, {"id": refund.id}, **values)
        for name, value in values.items():
            setattr(refund, name, value)
        return refund

    async def move(
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

    async def release_locks(self, payment: Payment, now: datetime, *, confirm_no: str | None = None) -> None:
        """What the HIS still holds for this payment is wanted back."""
        locks = scoped(payment.institution_id).of(HisLock).filter(payment_id=payment.id)
        if confirm_no is not None:
            locks = locks.filter(confirm_no=confirm_no)
        await locks.filter(status=LockStatus.HELD).update(status=LockStatus.RELEASING, due_at=now)
        await locks.filter(status__in=[LockStatus.ASKING, LockStatus.UNKNOWN]).update(due_at=now)

    async def wake_locks(self, payment: Payment, now: datetime) -> None:
        await (
            scoped(payment.institution_id)
            .of(HisLock)
            .filter(payment_id=payment.id, status__in=[LockStatus.RELEASING, LockStatus.UNKNOWN])
            .update(due_at=now)
        )


async def lock_payment(order_no: str) -> Payment | None:
    """The payment under its lock, within the caller's transaction."""
    with across_institutions("an order number is unguessable and unique"):
        found = await plain_rows.find(Payment, {"order_no": order_no}, locked=True)
        return found[0] if found else None
