"""What two people can decide, and what a proposal must say. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from core.errors import InvalidRequest
from core.money import AMOUNT_FEN_MAX, Fen
from core.scrubbing import scrub_text

DOCUMENT_LENGTH_MAX = 20_000
REASON_LENGTH_MAX = 500
NUMBER_LENGTH_MAX = 64


class DecisionKind(StrEnum):
    """`number` of a proposal is the order's, the confirmation's or the refund's, as the first word says.

    A reversal's is the refund's.
    """

    PAYMENT_PAID = "payment_paid"
    PAYMENT_CLOSED = "payment_closed"
    BOOKING_CONFIRMED = "booking_confirmed"
    BOOKING_REJECTED = "booking_rejected"
    REFUND_REFUNDED = "refund_refunded"
    REFUND_DEAD = "refund_dead"
    REVERSAL_DONE = "reversal_done"  # the HIS has taken back what a refund is about
    REVERSAL_KEPT = "reversal_kept"  # the HIS has not, and will not
    BOOKING_STANDS = "booking_stands"  # the HIS keeps what it has booked after it had refused, and we the money
    BOOKING_UNDONE = "booking_undone"  # the HIS has taken that back: the money goes
    RETURN_NOW = "return_now"  # money of another amount goes back at once
    BOOK_ANYWAY = "book_anyway"  # the amount asked is booked, what was taken beyond it goes back
    RELEASE_REFUND = "release_refund"  # a refund that a red receipt wants, above what a day may cost
    KEEP_REFUND = "keep_refund"  # the same is not paid by us


ATTESTED = frozenset({
    DecisionKind.PAYMENT_PAID, DecisionKind.PAYMENT_CLOSED, DecisionKind.BOOKING_CONFIRMED,
    DecisionKind.BOOKING_REJECTED, DecisionKind.REFUND_REFUNDED, DecisionKind.REFUND_DEAD,
})  # fmt: skip
DISPUTE = frozenset({DecisionKind.BOOKING_STANDS, DecisionKind.BOOKING_UNDONE})
BOOKING = DISPUTE | {DecisionKind.BOOKING_CONFIRMED, DecisionKind.BOOKING_REJECTED}
CAPPED = frozenset({DecisionKind.RELEASE_REFUND, DecisionKind.KEEP_REFUND})
REVERSAL = frozenset({DecisionKind.REVERSAL_DONE, DecisionKind.REVERSAL_KEPT})
REFUND = CAPPED | REVERSAL | {DecisionKind.REFUND_REFUNDED, DecisionKind.REFUND_DEAD}

NEEDS: Mapping[DecisionKind, tuple[str, ...]] = {
    DecisionKind.PAYMENT_PAID: ("amount_fen", "at", "their_number"),
    DecisionKind.BOOKING_CONFIRMED: ("their_number",),
    DecisionKind.BOOKING_UNDONE: ("their_number",),
    DecisionKind.REFUND_REFUNDED: ("amount_fen", "at"),
    DecisionKind.REVERSAL_DONE: ("amount_fen", "their_number"),
}
"""What the document must show, by kind of decision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What one person wants decided. Raises InvalidRequest for one that does not say enough."""

    kind: DecisionKind
    number: str
    reason: str
    document: str = field(repr=False)
    amount_fen: Fen | None = None
    their_number: str = ""  # the channel's trade or refund number, the HIS's (red) receipt number
    at: datetime | None = None

    def __post_init__(self) -> None:
        for name, text, length_max in (
            ("reason", self.reason, REASON_LENGTH_MAX),
            ("document", self.document, DOCUMENT_LENGTH_MAX),
        ):
            if not text.strip() or len(text) > length_max or "\x00" in text:
                raise InvalidRequest(field=name, problem=f"1 to {length_max} characters are needed")
        if len(self.their_number) > NUMBER_LENGTH_MAX or not self.their_number.isprintable():
            raise InvalidRequest(field="their_number", problem=f"at most {NUMBER_LENGTH_MAX} printable characters")
        if self.amount_fen is not None and not 1 <= self.amount_fen <= AMOUNT_FEN_MAX:
            raise InvalidRequest(field="amount_fen", problem="is no amount that can have been moved")
        if self.at is not None and self.at.tzinfo is None:
            raise InvalidRequest(field="at", problem="needs its time zone")
        for name in NEEDS.get(self.kind, ()):
            if not getattr(self, name):
                raise InvalidRequest(field=name, problem="is missing: the document must show it")

    @property
    def document_digest(self) -> str:
        return hashlib.sha256(self.document.encode()).hexdigest()

    def stored(self) -> dict[str, Any]:
        """Everything but the document, which is stored encrypted."""
        return {
            "number": self.number,
            "reason": scrub_text(self.reason),
            "amount_fen": self.amount_fen,
            "their_number": self.their_number,
            "at": self.at.isoformat() if self.at else None,
        }

    @classmethod
    def read(cls, kind: DecisionKind, stored: Mapping[str, Any], document: str) -> Self:
        """What `stored` gave."""
        return cls(
            kind=kind,
            number=stored["number"],
            reason=stored["reason"],
            document=document,
            amount_fen=stored["amount_fen"],
            their_number=stored["their_number"],
            at=datetime.fromisoformat(stored["at"]) if stored["at"] else None,
        )

    @property
    def digest(self) -> str:
        """The same proposal, sent again, is known by it."""
        text = json.dumps([self.kind, self.stored(), self.document_digest], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
