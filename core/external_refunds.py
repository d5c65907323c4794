"""Refunds made in the channel's console: recorded, taken off what we may still give back, looked at by a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.cases import Cases
from core.evidence import Evidence
from core.ledger import Account, TransferKind
from core.models import Payment, PaymentEvent
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows, lock_payment
from core.recording import record
from core.states import PaymentStatus, RefundStatus
from core.tenancy import scoped
from core.transactions import atomically, rows

EXTERNAL, EXTERNAL_TOTAL = "external_refund", "external_total"
CASE = "external_refund"


@dataclass(frozen=True, slots=True)
class ExternalRefunds:
    outside: Outside
    steps: PaymentRows
    cases: Cases

    async def told(self, payment: Payment, evidence: Evidence) -> None:
        """A channel's account of a refund number that is not ours. Part of the transaction of `apply`."""
        facts = {
            **evidence.facts,
            "number": str(evidence.facts.get("channel_refund_no") or evidence.refund_no),
            "refund_no": evidence.refund_no,
            "refunded": evidence.proves == RefundStatus.REFUNDED,
        }
        await self._record(payment, _evidence(payment, EXTERNAL, evidence.source, facts, evidence.raw))
        await self.cases.open(payment.institution_id, CASE, evidence.refund_no, payment_id=payment.id, details=facts)

    async def seen_in_total(self, payment: Payment, source: str, total_fen: Fen) -> None:
        """The channel says that it has given back so much more than we know of, and not under which number."""
        await atomically(lambda: self._seen_in_total(payment.order_no, source, total_fen))

    async def _seen_in_total(self, order_no: str, source: str, total_fen: Fen) -> None:
        payment = await lock_payment(order_no)
        if payment is None:
            return
        facts = {"total_fen": total_fen}
        await self._record(payment, _evidence(payment, EXTERNAL_TOTAL, source, facts))
        await self.cases.open(payment.institution_id, CASE, payment.order_no, payment_id=payment.id, details=facts)

    async def _record(self, payment: Payment, evidence: Evidence) -> None:
        """Each refund number counts once, however often it is told; a total counts as far as it is above their sum."""
        event_id = await record(self.outside, payment, evidence)
        if event_id is None or payment.status is not PaymentStatus.PAID:
            return
        known = await self._known_fen(payment)
        grown = Fen(known - payment.external_refunded_fen)
        if grown <= 0:
            return
        await self.steps.move(
            payment,
            event_id,
            TransferKind.EXTERNAL_REFUND,
            Account.EXTERNAL_REFUND,
            Account.CHANNEL_RECEIVABLE,
            grown,
        )
        await self.steps.update(payment, external_refunded_fen=Fen(known))

    async def _known_fen(self, payment: Payment) -> int:
        found = await scoped(payment.institution_id).find(
            PaymentEvent, payment_id=payment.id, kind=[EXTERNAL, EXTERNAL_TOTAL]
        )
        by_number: dict[str, int] = {}
        total = 0
        for event in found:
            facts: Mapping[str, Any] = event.facts
            if event.kind == EXTERNAL and facts.get("refunded"):
                number = str(facts["number"])
                by_number[number] = max(by_number.get(number, 0), int(facts.get("amount_fen") or 0))
            elif event.kind == EXTERNAL_TOTAL:
                total = max(total, int(facts["total_fen"]))
        return max(sum(by_number.values()), total)


def _evidence(payment: Payment, kind: str, source: str, facts: Mapping[str, Any], raw: bytes = b"") -> Evidence:
    return Evidence(order_no=payment.order_no, kind=kind, source=source, facts=facts, raw=raw)


async def in_flight_fen(payment: Payment) -> int:
    """What refunds of ours that have been sent, and are not known to have arrived, may have given back."""
    (found,) = await rows(
        "SELECT coalesce(sum(amount_fen), 0)::bigint AS fen FROM refund WHERE institution_id = $1 AND payment_id = $2"
        " AND status IN ('sending', 'pending', 'stuck') AND sends_started > sends_unreached",
        payment.institution_id,
        payment.id,
    )
    return int(found["fen"])
