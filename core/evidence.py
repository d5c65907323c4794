"""What counterparties said, folded into facts. Pure: the same evidence in any order gives the same facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from core.money import Fen
from core.ports import Booking, RefundState, RefundTrade, Trade
from core.scrubbing import storable
from core.states import PaymentStatus, ProofKind

FACT_LENGTH_MAX = 2000
NUMBER_LENGTH_MAX = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One thing that was said, or known, about a payment, one of its confirmations or one of its refunds."""

    order_no: str
    kind: str  # "trade" | "refund" | "booking" | "ending"
    source: str  # channel name, "hospital", "ourselves"
    facts: Mapping[str, Any]
    proves: str | None = None
    proof_kind: ProofKind | None = None
    confirm_no: str = ""
    refund_no: str = ""
    raw: bytes = field(repr=False, default=b"")

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", storable(self.facts, length_max=FACT_LENGTH_MAX))

    @property
    def digest(self) -> str:
        """The same statement of the same source is one piece of evidence, whenever it was said."""
        said = [
            self.kind,
            self.source,
            self.confirm_no,
            self.refund_no,
            self.proves,
            self.proof_kind,
            dict(self.facts),
        ]
        text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def trade_evidence(trade: Trade, *, source: str, proof: ProofKind, absence_is_proof: bool = False) -> Evidence:
    """A channel's account of the order. Paid beats closed; "not paid" proves nothing."""
    proves: str | None = None
    kind: ProofKind | None = None
    if trade.ever_paid:
        proves, kind = PaymentStatus.PAID, proof
    elif trade.closed:
        proves, kind = PaymentStatus.CLOSED, proof
    elif not trade.exists and absence_is_proof:
        proves, kind = PaymentStatus.CLOSED, ProofKind.ABSENT_AFTER_DEADLINE
    return Evidence(
        order_no=trade.order_no,
        kind="trade",
        source=source,
        proves=proves,
        proof_kind=kind,
        facts={
            "exists": trade.exists,
            "ever_paid": trade.ever_paid,
            "paid_fen": trade.paid_fen if trade.ever_paid else 0,
            "paid_at": trade.paid_at.isoformat() if trade.paid_at else None,
            "channel_trade_no": trade.channel_trade_no[:NUMBER_LENGTH_MAX],
            "refunded_fen": trade.refunded_fen,
            "closed": trade.closed,
            "state": trade.state_text,
        },
        raw=trade.raw,
    )


def refusal_evidence(order_no: str, *, source: str, code: str, message: str, raw: bytes = b"") -> Evidence:
    """The channel refused to create the order with a code of its closed list."""
    return Evidence(
        order_no=order_no,
        kind="ending",
        source=source,
        proves=PaymentStatus.FAILED,
        proof_kind=ProofKind.EXPLICIT_REFUSAL,
        facts={"code": code, "message": message},
        raw=raw,
    )


def never_sent_evidence(order_no: str, *, reason: str) -> Evidence:
    """Nothing ever reached the channel; `apply` checks that under the payment's lock."""
    return Evidence(
        order_no=order_no,
        kind="ending",
        source="ourselves",
        proves=PaymentStatus.FAILED,
        proof_kind=ProofKind.NEVER_SENT,
        facts={"reason": reason},
    )


def nothing_to_collect_evidence(order_no: str, *, paid_at: datetime) -> Evidence:
    """A bill of nothing: it is confirmed at the HIS without a channel payment."""
    return Evidence(
        order_no=order_no,
        kind="ending",
        source="ourselves",
        proves=PaymentStatus.PAID,
        proof_kind=ProofKind.NOTHING_TO_COLLECT,
        facts={"ever_paid": True, "paid_fen": 0, "paid_at": paid_at.isoformat(), "channel_trade_no": ""},
    )


def booking_evidence(order_no: str, confirm_no: str, booking: Booking, *, proof: ProofKind) -> Evidence:
    """The HIS has booked it."""
    receipts = {
        receipt.his_bill_id: {
            "receipt_no": receipt.receipt_no,
            "guide_text": receipt.guide_text,
            "receipt_url": receipt.receipt_url,
            "ebill_url": receipt.ebill_url,
        }
        for receipt in booking.receipts
    }
    return Evidence(
        order_no=order_no,
        kind="booking",
        source="hospital",
        confirm_no=confirm_no,
        proves="confirmed",
        proof_kind=proof,
        facts={"booked": True, "receipts": receipts},
        raw=booking.raw,
    )


def rejection_evidence(order_no: str, confirm_no: str, *, code: str, message: str, raw: bytes = b"") -> Evidence:
    """The HIS refuses to book it, with a code of its closed list."""
    return Evidence(
        order_no=order_no,
        kind="booking",
        source="hospital",
        confirm_no=confirm_no,
        proves="rejected",
        proof_kind=ProofKind.EXPLICIT_REFUSAL,
        facts={"booked": False, "code": code, "message": message},
        raw=raw,
    )


REFUND_PROVES = {RefundState.REFUNDED: "refunded", RefundState.DEAD: "dead"}


def refund_evidence(refund: RefundTrade, order_no: str, *, source: str, proof: ProofKind) -> Evidence:
    """A channel's account of one refund."""
    proves = REFUND_PROVES.get(refund.state)
    return Evidence(
        order_no=order_no,
        kind="refund",
        source=source,
        refund_no=refund.refund_no,
        proves=proves,
        proof_kind=proof if proves else None,
        facts={
            "state": refund.state.value,
            "word": refund.state_text,
            "amount_fen": refund.amount_fen,
            "channel_refund_no": refund.channel_refund_no[:NUMBER_LENGTH_MAX],
            "refunded_at": refund.refunded_at.isoformat() if refund.refunded_at else None,
        },
        raw=refund.raw,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEvidence:
    """A row of payment_event, as far as the fold needs it."""

    id: UUID
    proves: str | None
    proof_kind: str | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of the channel's side of a payment."""

    ever_paid: bool = False
    paid_fen: Fen = Fen(0)
    paid_at: datetime | None = None
    channel_trade_no: str = ""
    contradicting_amounts: bool = False
    paid_proof: UUID | None = None
    closed_proof: UUID | None = None
    failed_proof: UUID | None = None

    @property
    def status(self) -> tuple[PaymentStatus, UUID] | None:
        """The end that is proven, if any: paid beats closed, closed beats failed."""
        if self.paid_proof is not None:
            return PaymentStatus.PAID, self.paid_proof
        if self.closed_proof is not None:
            return PaymentStatus.CLOSED, self.closed_proof
        if self.failed_proof is not None:
            return PaymentStatus.FAILED, self.failed_proof
        return None


def fold(evidence: Iterable[StoredEvidence]) -> Facts:
    """All that was said about the channel's side, in any order, with repetitions, as facts.

    Two statements that name different paid amounts are kept as such; the larger one counts until a person
    has looked.
    """
    proofs: dict[str, UUID] = {}
    paid: list[Mapping[str, Any]] = []
    for piece in sorted(evidence, key=lambda piece: piece.id.int):
        if piece.proves in {PaymentStatus.PAID, PaymentStatus.CLOSED, PaymentStatus.FAILED}:
            proofs.setdefault(str(piece.proves), piece.id)
        if piece.proves == PaymentStatus.PAID:
            paid.append(piece.facts)
    amounts = {int(facts["paid_fen"]) for facts in paid}
    times = [datetime.fromisoformat(facts["paid_at"]) for facts in paid if facts.get("paid_at")]
    numbers = sorted({facts["channel_trade_no"] for facts in paid if facts.get("channel_trade_no")})
    return Facts(
        ever_paid=bool(paid),
        paid_fen=Fen(max(amounts, default=0)),
        paid_at=min(times, default=None),
        channel_trade_no=numbers[0] if numbers else "",
        contradicting_amounts=len(amounts) > 1 or len(numbers) > 1,
        paid_proof=proofs.get(PaymentStatus.PAID),
        closed_proof=proofs.get(PaymentStatus.CLOSED),
        failed_proof=proofs.get(PaymentStatus.FAILED),
    )
