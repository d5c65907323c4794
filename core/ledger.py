"""The ledger: every change of where a fen is, as a movement from one account to another.

The movements of a payment are a chain: each carries its number in it and a keyed MAC over itself and the one
before. Whoever changes rows without the key, which is not in the database, is found by `zhenfu ledger verify`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from core.keyring import Keyring
from core.models import Transfer
from core.money import Fen
from core.outside import Outside
from core.transactions import rows


class Account(StrEnum):
    """Where a payment's money is. Taken at the channel = the sum of all the others."""

    CHANNEL_RECEIVABLE = "channel_receivable"
    AWAITING_HIS = "awaiting_his"
    HELD = "held"
    HIS_CONFIRMED = "his_confirmed"
    REFUND_PAYABLE = "refund_payable"
    EXTERNAL_REFUND = "external_refund"
    HOSPITAL_CASH = "hospital_cash"
    HOSPITAL_OTHER = "hospital_other"
    HIS_DISPUTE = "his_dispute"


class TransferKind(StrEnum):
    """Why it moved; (cause, kind) is unique. The first one of a payment is always `paid`, and no other is."""

    PAID = "paid"
    PAID_MORE = "paid_more"  # the channel had named a smaller amount at first
    CONFIRMED = "confirmed"
    WRONG_AMOUNT = "wrong_amount"
    BOOKED_ANYWAY = "booked_anyway"
    RETURN_DECIDED = "return_decided"
    REFUNDED = "refunded"
    EXTERNAL_REFUND = "external_refund"
    REFUNDED_EXTERNALLY = "refunded_externally"
    PAID_OUT = "paid_out"
    PAID_OUT_EXTERNALLY = "paid_out_externally"
    DISPUTED = "disputed"
    DISPUTE_ENDED = "dispute_ended"
    BOOKING_STANDS = "booking_stands"  # the HIS keeps what it has booked after all, and nothing goes back


TOOK = frozenset({TransferKind.PAID, TransferKind.PAID_MORE})
"""What `paid_fen` of a payment adds up."""

GAVE_BACK = frozenset({TransferKind.REFUNDED, TransferKind.REFUNDED_EXTERNALLY})
"""What `refunded_fen` of a payment adds up."""

LEDGER_KEY = "ledger"
"""The purpose for which chains and seals derive their key: an auditor can be given it alone."""


def ledger_key(keyring: Keyring) -> bytes:
    """The key of chains and seals. It lasts as long as the rows: a changed look-up key breaks every chain."""
    return keyring.derived(LEDGER_KEY)


def moment_text(moment: datetime) -> str:
    """To the microsecond, in UTC, which is all that the database keeps."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def mac_of(key: bytes, text: bytes) -> str:
    """64 hex digits."""
    return hmac.digest(key, text, "sha256").hex()


def transfer_text(
    previous: str,
    row_id: str,
    institution_id: str,
    payment_id: str,
    seq: str,
    cause: str,
    kind: str,
    debit: str,
    credit: str,
    amount_fen: str,
    at: str,
) -> bytes:
    """What the mac of a transfer is over: its values as texts, ids as 32 hex digits, `at` as `moment_text`.

    `previous` is the mac before it, "" for the first one of its payment. No value that we write holds a quote or a
    backslash, so no two transfers share a text.
    """
    return (
        f'["transfer","{previous}","{row_id}","{institution_id}","{payment_id}",{seq},"{cause}","{kind}",'
        f'"{debit}","{credit}",{amount_fen},"{at}"]'
    ).encode()


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
        """Write one transfer in the caller's transaction; nothing moves for an amount of zero.

        The caller holds the payment's lock, so nobody else can add to its chain meanwhile; without it the
        database refuses the second transfer of the same number.
        """
        if amount_fen == 0:
            return
        seq, previous = 0, ""
        if kind is not TransferKind.PAID:
            seq, previous = await self._last(institution_id, payment_id)
        row_id, at = self.outside.ids.uuid(), self.outside.clock.now()
        text = transfer_text(
            previous,
            row_id.hex,
            institution_id.hex,
            payment_id.hex,
            str(seq + 1),
            str(cause),
            kind.value,
            debit.value,
            credit.value,
            str(amount_fen),
            moment_text(at),
        )
        mac = mac_of(ledger_key(self.outside.keyring), text)
        await Transfer.create(
            id=row_id,
            institution_id=institution_id,
            payment_id=payment_id,
            seq=seq + 1,
            cause=str(cause),
            kind=kind.value,
            debit=debit.value,
            credit=credit.value,
            amount_fen=amount_fen,
            at=at,
            mac=mac,
        )

    async def _last(self, institution_id: UUID, payment_id: UUID) -> tuple[int, str]:
        """Number and mac of the payment's last transfer."""
        found = await rows(
            "SELECT seq, mac FROM transfer WHERE institution_id = $1 AND payment_id = $2 ORDER BY seq DESC LIMIT 1",
            institution_id,
            payment_id,
        )
        return (int(found[0]["seq"]), str(found[0]["mac"])) if found else (0, "")
