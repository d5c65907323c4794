"""The statements of `zhenfu invariants`: each returns (identity, code, place, off_fen) of what is off. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from core.ledger import GAVE_BACK, TOOK, Account, TransferKind
from core.states import HOLDS_BILL, OPEN_PAYMENT, LineStatus, LockStatus, RefundStatus


def _in(*words: str) -> str:
    """SQL's list of our own words."""
    return "(" + ", ".join(f"'{word}'" for word in sorted(words)) + ")"


def _held_in(account: Account) -> str:
    """What lies in an account: credits less debits."""
    signed = f"CASE WHEN credit = '{account}' THEN amount_fen WHEN debit = '{account}' THEN -amount_fen END"
    return f"coalesce(sum({signed}), 0)"


def _of_kind(*kinds: TransferKind) -> str:
    return f"coalesce(sum(amount_fen) FILTER (WHERE kind IN {_in(*kinds)}), 0)"


def _in_status(*statuses: str, amount: str = "amount_fen") -> str:
    return f"coalesce(sum({amount}) FILTER (WHERE status IN {_in(*statuses)}), 0)"


_OPEN = _in(*OPEN_PAYMENT)
_BOOKED = (LineStatus.CONFIRMED, LineStatus.REVERSING, LineStatus.DISPUTED)
_NOT_RESERVED = _in(RefundStatus.DECLINED, RefundStatus.DEAD)
_MOVING = (RefundStatus.SENDING, RefundStatus.PENDING, RefundStatus.STUCK)
_UNDECIDED = (RefundStatus.REQUESTED, RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS)
"""A refund in one of these may or may not be in the ledger already: it depends on who asked for it."""

OF_A_PAYMENT: Mapping[str, str] = {
    "every_fen": "b.paid + b.disputed - b.awaiting - b.confirmed - b.held - b.payable - b.refunded - b.paid_out",
    "none_negative": "least(b.channel, 0) + least(b.awaiting, 0) + least(b.confirmed, 0) + least(b.held, 0)"
    " + least(b.payable, 0) + least(b.external, 0) + least(b.disputed, 0) + least(b.paid_out_otherwise, 0)",
    "paid_fen": "b.paid_fen - b.paid",
    "paid_status": "CASE WHEN b.is_paid THEN 0 ELSE b.paid_fen + b.paid END",
    "refunded_fen": "b.refunded_fen - b.refunded",
    "external_fen": "b.external_refunded_fen - b.external",
    "paid_out": "b.lines_paid_out - b.paid_out",
    "refunds_done": "b.refunded_fen - b.r_refunded",
    "reserved": "b.refund_reserved_fen - b.r_reserved",
    "reserved_within_paid": "greatest(b.refund_reserved_fen - b.paid_fen, 0)",
    "lines_add_up": "b.asked_fen - coalesce(b.lines_fen, 0)",
    "awaiting_his": "b.awaiting - CASE WHEN b.is_paid THEN b.lines_awaiting ELSE 0 END",
    "held": "b.held - CASE WHEN b.lines_held THEN b.paid_fen ELSE 0 END",
    "his_confirmed": "greatest(b.confirmed - (b.lines_confirmed - b.back), 0)"
    " + least(b.confirmed - (b.lines_confirmed - b.back - b.back_undecided), 0)",
    "refund_payable": "greatest(b.payable - (b.r_moving + b.r_undecided), 0) + least(b.payable - b.r_moving, 0)",
}
"""Identity → by how many fen the books `b` of one payment are off."""

PAYMENTS = f"""
WITH moved AS (
    SELECT institution_id, payment_id,
        {_of_kind(*TOOK)} AS paid, {_of_kind(*GAVE_BACK)} AS refunded,
        {_of_kind(TransferKind.PAID_OUT)} AS paid_out, {_held_in(Account.HOSPITAL_OTHER)} AS paid_out_otherwise,
        -{_held_in(Account.HIS_DISPUTE)} AS disputed, -{_held_in(Account.EXTERNAL_REFUND)} AS external,
        {_held_in(Account.CHANNEL_RECEIVABLE)} AS channel, {_held_in(Account.AWAITING_HIS)} AS awaiting,
        {_held_in(Account.HELD)} AS held, {_held_in(Account.HIS_CONFIRMED)} AS confirmed,
        {_held_in(Account.REFUND_PAYABLE)} AS payable
    FROM transfer GROUP BY institution_id, payment_id
), lines AS (
    SELECT institution_id, payment_id, sum(amount_fen) AS asked,
        {_in_status(LineStatus.WAITING, LineStatus.CONFIRMING, LineStatus.SURPLUS, LineStatus.REJECTED)} AS awaiting,
        {_in_status(*_BOOKED, amount="amount_fen - paid_out_fen")} AS confirmed,
        sum(paid_out_fen) AS paid_out,
        bool_or(status = '{LineStatus.HELD}') AS held
    FROM payment_line GROUP BY institution_id, payment_id
), refunds AS (
    SELECT r.institution_id, r.payment_id,
        sum(CASE WHEN r.status NOT IN {_NOT_RESERVED} THEN r.amount_fen
            WHEN next.id IS NULL THEN r.external_fen ELSE 0 END) AS reserved,
        sum(CASE WHEN r.status = '{RefundStatus.REFUNDED}' THEN r.amount_fen
            WHEN next.id IS NULL THEN r.external_fen ELSE 0 END) AS refunded,
        sum(r.amount_fen - r.external_fen) FILTER (WHERE r.status IN {_in(*_MOVING)}) AS moving,
        sum(r.amount_fen - r.external_fen) FILTER (WHERE r.status IN {_in(*_UNDECIDED)}
            OR (r.status = '{RefundStatus.DEAD}' AND next.id IS NULL)) AS undecided
    FROM refund r LEFT JOIN refund next ON next.replaces_id = r.id AND next.institution_id = r.institution_id
    GROUP BY r.institution_id, r.payment_id
), parts AS (
    SELECT l.institution_id, l.payment_id,
        sum(part.amount_fen) FILTER (WHERE r.status IN {_in(*_MOVING, RefundStatus.REFUNDED)}) AS back,
        sum(part.amount_fen) FILTER (WHERE r.status IN {_in(*_UNDECIDED, RefundStatus.DEAD)}) AS undecided
    FROM refund_line part
    JOIN refund r ON r.institution_id = part.institution_id AND r.id = part.refund_id
    JOIN payment_line l ON l.institution_id = part.institution_id AND l.id = part.line_id
        AND l.status IN {_in(LineStatus.CONFIRMED, LineStatus.REVERSING)}
    GROUP BY l.institution_id, l.payment_id
), books AS (
    SELECT p.institution_id, p.order_no, p.status = 'paid' AS is_paid, p.asked_fen, p.paid_fen, p.refunded_fen,
        p.refund_reserved_fen, p.external_refunded_fen, l.asked AS lines_fen, coalesce(l.held, false) AS lines_held,
        coalesce(l.paid_out, 0) AS lines_paid_out, coalesce(m.paid_out, 0) AS paid_out,
        coalesce(m.paid_out_otherwise, 0) AS paid_out_otherwise,
        coalesce(l.awaiting, 0) AS lines_awaiting, coalesce(l.confirmed, 0) AS lines_confirmed,
        coalesce(m.paid, 0) AS paid, coalesce(m.refunded, 0) AS refunded, coalesce(m.disputed, 0) AS disputed,
        coalesce(m.external, 0) AS external, -coalesce(m.channel, 0) AS channel,
        coalesce(m.awaiting, 0) AS awaiting, coalesce(m.held, 0) AS held,
        coalesce(m.confirmed, 0) AS confirmed, coalesce(m.payable, 0) AS payable,
        coalesce(r.reserved, 0) AS r_reserved, coalesce(r.refunded, 0) AS r_refunded,
        coalesce(r.moving, 0) AS r_moving, coalesce(r.undecided, 0) AS r_undecided,
        coalesce(b.back, 0) AS back, coalesce(b.undecided, 0) AS back_undecided
    FROM payment p
    LEFT JOIN moved m ON m.institution_id = p.institution_id AND m.payment_id = p.id
    LEFT JOIN lines l ON l.institution_id = p.institution_id AND l.payment_id = p.id
    LEFT JOIN refunds r ON r.institution_id = p.institution_id AND r.payment_id = p.id
    LEFT JOIN parts b ON b.institution_id = p.institution_id AND b.payment_id = p.id
)
SELECT v.identity, i.code, b.order_no AS place, v.off_fen
FROM books b JOIN institution i ON i.id = b.institution_id CROSS JOIN LATERAL (VALUES
    {", ".join(f"('{identity}', {off_fen})" for identity, off_fen in OF_A_PAYMENT.items())}
) AS v (identity, off_fen)
WHERE ({" OR ".join(f"{off_fen} <> 0" for off_fen in OF_A_PAYMENT.values())}) AND v.off_fen <> 0
"""
"""One pass over all payments. Whether any identity is off is asked first: a list of them is made for those alone."""

BILLS = f"""
SELECT 'bill_once' AS identity, i.code, concat_ws('/', nullif(l.branch, ''), l.his_bill_id) AS place,
    (sum(l.amount_fen) - max(l.amount_fen)) AS off_fen
FROM payment_line l JOIN institution i ON i.id = l.institution_id
WHERE l.status IN {_in(*HOLDS_BILL)}
GROUP BY i.code, l.institution_id, l.branch, l.his_bill_id HAVING count(*) > 1
"""

LINES = f"""
SELECT v.identity, i.code, p.order_no || ' line ' || l.position AS place, l.amount_fen AS off_fen
FROM payment_line l
JOIN payment p ON p.institution_id = l.institution_id AND p.id = l.payment_id
JOIN institution i ON i.id = l.institution_id
LEFT JOIN confirmation c ON c.institution_id = l.institution_id AND c.id = l.confirmation_id
CROSS JOIN LATERAL (VALUES
    ('line_and_booking', CASE l.status
        WHEN '{LineStatus.CONFIRMING}' THEN c.status IS DISTINCT FROM 'open'
        WHEN '{LineStatus.CONFIRMED}' THEN c.status IS DISTINCT FROM 'confirmed'
        WHEN '{LineStatus.REVERSING}' THEN c.status IS DISTINCT FROM 'confirmed'
        WHEN '{LineStatus.REJECTED}' THEN c.status IS DISTINCT FROM 'rejected'
        ELSE l.status IN {_in(LineStatus.WAITING, LineStatus.VOID, LineStatus.HELD, LineStatus.SURPLUS)}
            AND c.status IS NOT NULL END),
    ('claim', l.claims_bill AND p.status NOT IN {_OPEN})
) AS v (identity, off)
WHERE v.off
"""


def _proofs(identity: str, table: str, number: str, ended: str, of: str, amount: str) -> str:
    """Rows of `table` that are at an end which their proof does not prove."""
    return f"""
SELECT '{identity}' AS identity, i.code, x.{number} AS place, {amount} AS off_fen
FROM {table} x JOIN institution i ON i.id = x.institution_id
LEFT JOIN payment_event e ON e.id = x.proof_id
WHERE x.status {ended} AND (e.id IS NULL OR e.institution_id <> x.institution_id OR e.{of} IS DISTINCT FROM x.id
    OR e.proves IS DISTINCT FROM x.status OR e.proof_kind IS NULL)
"""


PROOFS = (
    _proofs("payment_proof", "payment", "order_no", f"NOT IN {_OPEN}", "payment_id", "x.paid_fen"),
    _proofs("booking_proof", "confirmation", "confirm_no", "<> 'open'", "confirmation_id", "0::bigint"),
    _proofs("refund_proof", "refund", "refund_no", "IN ('refunded', 'dead')", "refund_id", "x.amount_fen"),
)


def _sleeping(table: str, place: str, amount: str, asleep: str, joins: str = "") -> str:
    return (
        f"SELECT 'nothing_sleeps' AS identity, i.code, '{table} ' || {place} AS place, {amount} AS off_fen"
        f" FROM {table} x JOIN institution i ON i.id = x.institution_id {joins} WHERE x.due_at IS NULL AND {asleep}"
    )


_PAYMENT_OF = "JOIN payment p ON p.institution_id = x.institution_id AND p.id = x.payment_id"
_NO_CASE = (
    "NOT EXISTS (SELECT FROM staff_case c WHERE c.institution_id = x.institution_id"
    " AND c.payment_id = x.payment_id AND c.status = 'open')"
)
_UNDONE_LINES = _in(LineStatus.WAITING, LineStatus.HELD, LineStatus.SURPLUS, LineStatus.REJECTED)
_UNDONE_LOCKS = _in(LockStatus.ASKING, LockStatus.UNKNOWN, LockStatus.RELEASING)

SLEEPERS = " UNION ALL ".join((
    _sleeping("payment", "x.order_no", "x.asked_fen", f"x.status IN {_OPEN}"),
    _sleeping(
        "payment_line",
        "p.order_no || ' line ' || x.position",
        "x.amount_fen",
        f"p.status = 'paid' AND x.status IN {_UNDONE_LINES} AND {_NO_CASE}",
        _PAYMENT_OF,
    ),
    _sleeping("confirmation", "x.confirm_no", "0::bigint", "x.status = 'open'"),
    _sleeping(
        "refund",
        "x.refund_no",
        "x.amount_fen",
        f"x.status IN {_in(RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS, *_MOVING)} AND {_NO_CASE}",
    ),
    _sleeping(
        "his_lock",
        "x.confirm_no",
        "0::bigint",
        f"(x.status IN {_UNDONE_LOCKS} OR (x.status = 'held' AND p.status IN ('closed', 'failed')))",
        _PAYMENT_OF,
    ),
    _sleeping("message", "x.id::text", "0::bigint", "x.status = 'queued'"),
    _sleeping("inbound", "x.id::text", "0::bigint", "x.status = 'received'"),
))  # fmt: skip

STATEMENTS = (PAYMENTS, BILLS, LINES, *PROOFS, SLEEPERS)
