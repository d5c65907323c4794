"""The states of a payment's parts and the only ways between them; each table is held by the database too."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class PaymentStatus(StrEnum):
    """The channel's side of a payment."""

    CREATED = "created"
    PENDING = "pending"
    PAID = "paid"
    CLOSED = "closed"
    FAILED = "failed"


class LineStatus(StrEnum):
    """The hospital's side of one bill in a payment."""

    WAITING = "waiting"
    VOID = "void"
    HELD = "held"
    SURPLUS = "surplus"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    REVERSING = "reversing"
    RETURNING = "returning"
    RETURNED = "returned"
    DISPUTED = "disputed"


class RefundStatus(StrEnum):
    """A refund, from the wish to the proof."""

    REQUESTED = "requested"
    DECLINED = "declined"
    APPROVED = "approved"
    REVERSING_AT_HIS = "reversing_at_his"
    SENDING = "sending"
    PENDING = "pending"
    REFUNDED = "refunded"
    STUCK = "stuck"
    DEAD = "dead"


class ConfirmationStatus(StrEnum):
    """What the HIS has been told about a group of lines."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class LockStatus(StrEnum):
    """What the HIS holds for us. `unknown`: asked for, no answer."""

    ASKING = "asking"
    HELD = "held"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    RELEASING = "releasing"
    RELEASED = "released"
    CONSUMED = "consumed"


class MessageStatus(StrEnum):
    """A message to a phone. `unknown`: sent, answer lost, and outside the platform's de-duplication window."""

    QUEUED = "queued"
    SENT = "sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


class InboundStatus(StrEnum):
    """A verified message from a counterparty."""

    RECEIVED = "received"
    WORKED = "worked"


class CaseStatus(StrEnum):
    """Work for a person."""

    OPEN = "open"
    CLOSED = "closed"


class DecisionStatus(StrEnum):
    """What takes two people."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    DECLINED = "declined"


Table = Mapping[StrEnum, frozenset[StrEnum]]


def _table(text: str, states: type[StrEnum]) -> Table:
    """Read lines such as "waiting: void held" into a table with an entry for every state."""
    table: dict[StrEnum, frozenset[StrEnum]] = {state: frozenset() for state in states}
    for line in text.split("\n"):
        if ":" in line:
            source, _, targets = line.partition(":")
            table[states(source.strip())] = frozenset(states(target) for target in targets.split())
    return table


PAYMENT_TRANSITIONS = _table(
    """
    created: pending paid closed failed
    pending: paid closed failed
    closed: paid
    failed: paid
    """,
    PaymentStatus,
)
"""A success is always recorded, even after the end."""

LINE_TRANSITIONS = _table(
    """
    waiting: void held surplus confirming
    void: waiting
    held: confirming returning
    confirming: confirmed rejected
    surplus: returning
    rejected: returning
    confirmed: reversing
    reversing: returning confirmed
    returning: returned disputed
    returned: disputed
    disputed: returning confirmed
    """,
    LineStatus,
)
"""`void → waiting` is the late success: money arrived for a payment that had ended. `disputed → returning` is the
end of a dispute: the HIS has taken back what it should not have booked. `disputed → confirmed` is its other end, by two
people: the HIS keeps its booking, and we the money."""

REFUND_TRANSITIONS = _table(
    """
    requested: declined approved
    approved: reversing_at_his sending
    reversing_at_his: sending declined
    sending: pending refunded stuck dead
    pending: refunded stuck dead
    stuck: sending refunded dead
    """,
    RefundStatus,
)

CONFIRMATION_TRANSITIONS = _table(
    """
    open: confirmed rejected
    rejected: confirmed
    """,
    ConfirmationStatus,
)

LOCK_TRANSITIONS = _table(
    """
    asking: held refused unknown releasing released consumed
    unknown: held releasing released consumed
    held: releasing consumed
    releasing: released consumed held
    released: held
    refused: held
    """,
    LockStatus,
)

MESSAGE_TRANSITIONS = _table("queued: sent refused unknown skipped", MessageStatus)

DECISION_TRANSITIONS = _table("proposed: approved declined", DecisionStatus)

TRANSITIONS: Mapping[str, tuple[Table, type[StrEnum]]] = {
    "payment": (PAYMENT_TRANSITIONS, PaymentStatus),
    "payment_line": (LINE_TRANSITIONS, LineStatus),
    "refund": (REFUND_TRANSITIONS, RefundStatus),
    "confirmation": (CONFIRMATION_TRANSITIONS, ConfirmationStatus),
    "his_lock": (LOCK_TRANSITIONS, LockStatus),
    "message": (MESSAGE_TRANSITIONS, MessageStatus),
    "decision": (DECISION_TRANSITIONS, DecisionStatus),
}
"""Table name in the database → (transition table, enum)."""

HOLDS_BILL = frozenset({LineStatus.CONFIRMING, LineStatus.CONFIRMED, LineStatus.REVERSING})
"""A bill is in at most one line in one of these states."""

OPEN_PAYMENT = frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING})


def may_become(table: Table, source: StrEnum, target: StrEnum) -> bool:
    """Whether the table knows this step; staying is always allowed."""
    return source == target or target in table[source]


class ProofKind(StrEnum):
    """Why we believe that something has ended."""

    VERIFIED_NOTICE = "verified_notice"
    AUTHENTICATED_QUERY = "authenticated_query"
    AUTHENTICATED_CLOSE = "authenticated_close"
    EXPLICIT_REFUSAL = "explicit_refusal"
    NEVER_SENT = "never_sent"
    ABSENT_AFTER_DEADLINE = "absent_after_deadline"
    STAFF_ATTESTED = "staff_attested"
    NOTHING_TO_COLLECT = "nothing_to_collect"
