"""The ledger: every change of where a fen is, as a movement from one account to another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from core.models import Transfer
from core.money import Fen
from core.outside import Outside


class Account(StrEnum):
    """Where a payment's money is. Taken at the channel = the sum of all the others."""

    CHANNEL_RECEIVABLE = "channel_receivable"
    AWAITING_HIS = "awaiting_his"
    HELD = "held"
    HIS_CONFIRMED = "his_confirmed"
    REFUND_PAYABLE = "refund_payable"
    EXTERNAL_REFUND = "external_refund"
    HIS_DISPUTE = "his_dispute"


class TransferKind(StrEnum):
    """Why it moved; (cause, kind) is unique."""

    PAID = "paid"
    CONFIRMED = "confirmed"
    WRONG_AMOUNT = "wrong_amount"
    RETURN_DECIDED = "return_decided"
    REFUNDED = "refunded"
    EXTERNAL_REFUND = "external_refund"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Ledger:
    outside: Outside

    async def move(
        self,
        institution_id: UUID,
        payment_id: UUID,
        *,
        cause: UUID,
        kind: TransferKind,
        debit: Account,
        credit: Account,
        amount_fen: Fen,
    ) -> None:
        """Write one transfer in the caller's transaction; nothing moves for an amount of zero."""
        if amount_fen == 0:
            return
        await Transfer.create(
            id=self.outside.ids.uuid(),
            institution_id=institution_id,
            payment_id=payment_id,
            cause=str(cause),
            kind=kind.value,
            debit=debit.value,
            credit=credit.value,
            amount_fen=amount_fen,
            at=self.outside.clock.now(),
        )
