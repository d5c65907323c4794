"""How a payment stands, in the words that its payer sees."""

from __future__ import annotations

from collections.abc import Sequence

from core.models import Payment, PaymentLine
from core.states import OPEN_PAYMENT, LineStatus, PaymentStatus

GOES_BACK = frozenset({LineStatus.RETURNING, LineStatus.RETURNED, LineStatus.DISPUTED})


def payment_view(payment: Payment, lines: Sequence[PaymentLine]) -> str:
    """The key of texts.STATUS_TEXTS that says how things stand."""
    if payment.status in OPEN_PAYMENT:
        return "paying"
    if payment.status is not PaymentStatus.PAID:
        return "not_paid"
    statuses = {line.status for line in lines}
    if LineStatus.HELD in statuses:
        return "checking"
    if statuses & {LineStatus.WAITING, LineStatus.CONFIRMING}:
        return "confirming"
    booked = statuses & {LineStatus.CONFIRMED, LineStatus.REVERSING}
    refused = statuses & {LineStatus.REJECTED, LineStatus.SURPLUS}
    # What the hospital had booked and took back is a refund, not a bill that it would not take.
    gone = [line for line in lines if line.status in GOES_BACK]
    taken_back = not refused and all(line.refunded_fen or line.paid_out_fen for line in gone)
    if refused or LineStatus.RETURNING in statuses:
        return "part_returning" if booked else "refunding" if taken_back else "returning"
    if statuses & GOES_BACK:
        return "part_returned" if booked else "refunded" if taken_back else "returned"
    return "paid"
