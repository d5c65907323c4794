"""More mistakes made on purpose: decisions about money that somebody in a hurry might take.

As in mutations.py, they change the product in this process alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from channels.wechatpay import client, mapping
from channels.wechatpay.channel import WechatPay
from channels.wechatpay.mapping import Absent, Call, error_body
from core.confirmations import Confirmations
from core.due import DueRow
from core.errors import CounterpartyError, Refused
from core.evidence import Evidence, rejection_evidence
from core.hospital_side import HospitalSide
from core.ids import Ids
from core.models import Confirmation, Payment, PaymentLine
from core.money import Fen
from core.ports import HospitalSite, MerchantAccount, RefundOrder, Trade
from core.refunds import Refunds
from core.states import LineStatus
from core.tenancy import scoped
from core.transactions import rows

RETURNABLE = [LineStatus.REJECTED, LineStatus.SURPLUS]


def unsigned_refusal_believed() -> None:
    """Whatever comes with HTTP 4xx, which nobody signs, is taken for a refusal that had no effect."""
    good = mapping.error_of

    def error_of(call: Call, status: int, body: bytes) -> CounterpartyError:
        error = good(call, status, body)
        if not 400 <= status < 500 or isinstance(error, Absent):
            return error
        said = error_body(body)
        return Refused(said.code if said else str(status), "", final=True, raw=body)

    cast(Any, client).error_of = error_of


def his_absence_believed_at_once() -> None:
    """ "Not booked" is believed while the last request may still be worked at the HIS."""

    def at_once(self: Confirmations, confirmation: Confirmation, site: HospitalSite) -> datetime:
        return self.outside.clock.now() - timedelta(seconds=1)

    cast(Any, Confirmations)._sendable_at = at_once


def digest_dropped() -> None:
    """The same statement has another digest each time that it is said."""
    numbers = itertools.count()
    cast(Any, Evidence).digest = property(lambda _: f"{next(numbers):064x}")


def closed_here_only() -> None:
    """An order counts as closed because we want it to be; the channel is not told."""

    async def close(self: WechatPay, account: MerchantAccount, order_no: str) -> Trade:
        return Trade(order_no=order_no, exists=True, ever_paid=False, closed=True, state_text="CLOSED")

    cast(Any, WechatPay).close = close


def refund_before_row() -> None:
    """The refund leaves first; the row with its number follows when the channel has answered."""
    good, good_number = Refunds.work_line, Ids.refund_no
    sent: ContextVar[str] = ContextVar("sent", default="")

    def refund_no(self: Ids) -> str:
        return sent.get() or good_number(self)

    async def work_line(self: Refunds, due: DueRow) -> UUID | None:
        scope, amount = scoped(due.institution_id), 0
        line = await scope.of(PaymentLine).get(id=due.id)
        for other in await scope.of(PaymentLine).filter(payment_id=line.payment_id, status__in=RETURNABLE):
            amount += other.amount_fen
        if not amount or line.status not in RETURNABLE:
            return await good(self, due)
        number = good_number(self.outside.ids)
        payment = await scope.of(Payment).get(id=line.payment_id)
        account = await self.institutions.merchant(due.institution_id, payment.merchant_account_id)
        await self.outside.channels[account.channel].refund(
            account,
            RefundOrder(
                refund_no=number,
                order_no=payment.order_no,
                channel_trade_no=payment.channel_trade_no,
                amount_fen=Fen(amount),
                total_fen=payment.paid_fen,
                reason="",
            ),
        )
        token = sent.set(number)
        try:
            made = await good(self, due)
        finally:
            sent.reset(token)
        await rows(
            "UPDATE refund SET status = 'sending', sends_started = 1, last_sent_at = $3"
            " WHERE institution_id = $1 AND refund_no = $2 AND status = 'approved' RETURNING id",
            due.institution_id,
            number,
            self.outside.clock.now(),
        )
        return made

    cast(Any, Ids).refund_no = refund_no
    cast(Any, Refunds).work_line = work_line


def refund_while_his_may_book() -> None:
    """A HIS that does not answer is taken for one that refuses: the money goes back at once."""

    async def after_silence(self: Confirmations, due: DueRow, site: HospitalSite) -> None:
        scope = scoped(due.institution_id)
        confirmation = await scope.of(Confirmation).get(id=due.id)
        payment = await scope.of(Payment).get(id=confirmation.payment_id)
        await self.applier.apply(
            rejection_evidence(payment.order_no, confirmation.confirm_no, code="NO_ANSWER", message="")
        )

    cast(Any, Confirmations)._after_silence = after_silence


def everything_refunded() -> None:
    """Nothing is lost if all money goes back: no line is ever given to the HIS."""

    async def enter(self: HospitalSide, payment: Payment, lines: Sequence[PaymentLine], *, now: datetime) -> None:
        for line in lines:
            if line.status is LineStatus.WAITING:
                await self.steps.set_line(line, status=LineStatus.SURPLUS, reason_code="paid_elsewhere", due_at=now)

    cast(Any, HospitalSide).enter = enter


def everything_is_a_case() -> None:
    """Nothing goes wrong if a person looks at all of it: no booking is sent, all become cases."""

    async def work(self: Confirmations, due: DueRow) -> None:
        confirmation = await scoped(due.institution_id).of(Confirmation).get(id=due.id)
        await self.cases.open(
            due.institution_id,
            "confirmation_outcome_unknown",
            confirmation.confirm_no,
            payment_id=confirmation.payment_id,
        )
        await self._later(due, self.outside.clock.now() + timedelta(hours=1))

    cast(Any, Confirmations).work = work


DECISIONS: tuple[Callable[[], None], ...] = (
    unsigned_refusal_believed,
    his_absence_believed_at_once,
    digest_dropped,
    closed_here_only,
    refund_before_row,
    refund_while_his_may_book,
    everything_refunded,
    everything_is_a_case,
)
