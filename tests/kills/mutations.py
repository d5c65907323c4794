"""Mistakes made on purpose in the forked programs alone; each one must be caught by a seed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from core.errors import NotReached, OutcomeUnknown, Refused
from core.models import Payment, Refund
from core.ports import RefundOrder
from core.refunds import Refunds
from core.transactions import rows
from tests.crash import mutations as crash


def refund_sent_before_its_row() -> None:
    """Money is sent back under a number that no row holds yet: who dies in between sends it again under another."""
    good = Refunds.work

    async def work(self: Refunds, due: Any) -> None:
        refund = await Refund.get(id=due.id, institution_id=due.institution_id)
        if refund.sends_started == 0:
            fresh = self.outside.ids.refund_no()
            with suppress(NotReached, OutcomeUnknown, Refused):
                await _send(self, refund, fresh)
            await rows(
                "UPDATE refund SET refund_no = $3 WHERE institution_id = $1 AND id = $2 RETURNING id",
                due.institution_id,
                due.id,
                fresh,
            )
        await good(self, due)

    setattr(Refunds, "work", work)


async def _send(refunds: Refunds, refund: Refund, number: str) -> None:
    payment = await Payment.get(id=refund.payment_id, institution_id=refund.institution_id)
    account = await refunds.institutions.merchant(refund.institution_id, payment.merchant_account_id)
    await refunds.outside.channels[account.channel].refund(
        account,
        RefundOrder(
            refund_no=number,
            order_no=payment.order_no,
            channel_trade_no=payment.channel_trade_no,
            amount_fen=refund.amount_fen,
            total_fen=payment.paid_fen,
            reason="a mutation",
        ),
    )


MUTATIONS: dict[str, Callable[[], None]] = {
    "refund_sent_before_its_row": refund_sent_before_its_row,
    "confirm_without_asking": crash.confirm_without_asking,
    "lease_ignored": crash.lease_ignored,
    "refund_timeout_is_dead": crash.refund_timeout_is_dead,
    "silence_means_not_sent": crash.silence_means_not_sent,
    "evidence_after_end_lost": crash.evidence_after_end_lost,
    "row_lock_forgotten": crash.row_lock_forgotten,
    "transfer_forgotten": crash.transfer_forgotten,
}
