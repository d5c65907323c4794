"""How a payment stands, in the words that its payer sees."""

from __future__ import annotations

from collections.abc import Sequence

from core.models import Payment, PaymentLine
from core.states import OPEN_PAYMENT, LineStatus, PaymentStatus


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
    if statuses & {LineStatus.REJECTED, LineStatus.SURPLUS, LineStatus.RETURNING}:
        return "part_returning" if booked else "returning"
    if statuses & {LineStatus.RETURNED, LineStatus.DISPUTED}:
        return "part_returned" if booked else "returned"
    return "paid"
