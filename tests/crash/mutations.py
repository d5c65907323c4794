"""Mistakes made on purpose: each one must be caught by a seed, or the oracle is blind there.

They change the product in this process alone, by putting a worse function in the place of a good one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import core.applying
import core.confirmations
import core.due
import core.placing
import core.recording
import core.refunds
from bot.wechat.messenger import SubscribeMessenger
from channels.wechatpay import channel as wechatpay
from core.channel_side import ChannelSide
from core.confirmations import Confirmations
from core.errors import OutcomeUnknown
from core.evidence import Evidence, Facts
from core.ledger import Ledger, TransferKind
from core.models import Payment, PaymentLine
from core.outside import Outside
from core.payments import Payments
from core.placing import Placing
from core.ports import Booking, MerchantAccount, RefundOrder, RefundState, RefundTrade
from core.returning import Returning
from core.states import OPEN_PAYMENT, ProofKind
from core.tenancy import across_institutions
from core.transactions import rows
from hospital.guard import GuardedHospital
from tests.crash.wrong_decisions import DECISIONS
from tests.crash.wrong_refunds import WRONG_REFUNDS


def row_lock_forgotten() -> None:
    """`apply` reads the payment without locking it."""

    async def unlocked(order_no: str) -> Payment | None:
        with across_institutions("a mutation"):
            return await Payment.filter(order_no=order_no).first()

    setattr(core.applying, "lock_payment", unlocked)
    setattr(core.placing, "lock_payment", unlocked)


def refund_timeout_is_dead() -> None:
    """A refund whose answer is lost is taken for one that will never happen."""
    good = wechatpay.WechatPay.refund

    async def refund(self: wechatpay.WechatPay, account: MerchantAccount, order: RefundOrder) -> RefundTrade:
        try:
            return await good(self, account, order)
        except OutcomeUnknown:
            return RefundTrade(
                refund_no=order.refund_no,
                order_no=order.order_no,
                state=RefundState.DEAD,
                amount_fen=order.amount_fen,
            )

    setattr(wechatpay.WechatPay, "refund", refund)


def confirm_without_asking() -> None:
    """After an unknown answer the confirmation is simply sent again."""

    async def not_asked(self: GuardedHospital, site: Any, confirm_no: str) -> Booking:
        return Booking(booked=False)

    def at_once(self: Confirmations, confirmation: Any, site: Any) -> datetime:
        return self.outside.clock.now() - timedelta(seconds=1)

    setattr(GuardedHospital, "query_payment", not_asked)
    setattr(Confirmations, "_sendable_at", at_once)


def amount_not_checked() -> None:
    """What was taken is believed to be what was asked."""
    good = ChannelSide._paid

    async def paid(self: ChannelSide, payment: Payment, facts: Facts, proof_id: UUID) -> None:
        payment.asked_fen = facts.paid_fen
        await good(self, payment, facts, proof_id)

    setattr(ChannelSide, "_paid", paid)


def signature_not_checked() -> None:
    """Any notice is believed."""
    setattr(wechatpay, "why_not_signed", lambda *arguments: "")


def transfer_forgotten() -> None:
    """What the HIS has confirmed is not written into the ledger."""
    good = Ledger.move

    async def move(self: Ledger, *ids: UUID, kind: TransferKind, **values: Any) -> None:
        if kind is not TransferKind.CONFIRMED:
            await good(self, *ids, kind=kind, **values)

    setattr(Ledger, "move", move)


def claim_dropped() -> None:
    """An attempt does not claim its bills."""
    good: Any = PaymentLine.create.__func__  # type: ignore[attr-defined]

    async def create(cls: type[PaymentLine], **values: Any) -> PaymentLine:
        line: PaymentLine = await good(cls, **(values | {"claims_bill": False}))
        return line

    setattr(PaymentLine, "create", classmethod(cast(Any, create)))


def late_success_ignored() -> None:
    """Money that arrives after the end is not looked at."""
    good = ChannelSide.evidence_came

    async def evidence_came(self: ChannelSide, payment: Payment) -> None:
        if payment.status in OPEN_PAYMENT:
            await good(self, payment)

    setattr(ChannelSide, "evidence_came", evidence_came)


def silence_means_not_sent() -> None:
    """A create whose answer is lost ends the payment as never sent."""

    async def give_up(self: Placing, payment: Payment) -> None:
        await rows(
            "UPDATE payment SET sends_unreached = sends_started WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            payment.id,
        )
        await self.payments.fail(payment, "a mutation")

    setattr(Placing, "_give_up", give_up)


def surplus_kept() -> None:
    """The second payment of a bill is not given back."""
    good = Returning._return_lines

    async def return_lines(self: Returning, payment_id: UUID, institution_id: UUID, held_too: bool) -> Any:
        surplus = await PaymentLine.filter(payment_id=payment_id, institution_id=institution_id, status="surplus")
        if surplus:
            await PaymentLine.filter(payment_id=payment_id, institution_id=institution_id).update(due_at=None)
            return None
        return await good(self, payment_id, institution_id, held_too)

    setattr(Returning, "_return_lines", return_lines)


def lease_ignored() -> None:
    """Whoever has a row in hand sends, whether or not he still holds it."""

    async def begin_send(table: str, row_id: UUID, institution_id: UUID, **options: Any) -> bool:
        stamped = f", {options['stamp']} = $3" if options.get("stamp") else ""
        found = await rows(
            f"UPDATE {table} SET sends_started = sends_started + 1{stamped}"
            " WHERE institution_id = $1 AND id = $2 AND $3::timestamptz IS NOT NULL RETURNING id",
            institution_id,
            row_id,
            options["now"],
        )
        return bool(found)

    for module in (core.confirmations, core.placing, core.refunds):
        setattr(module, "begin_send", begin_send)


def absence_is_proof_at_once() -> None:
    """ "No such order" is believed before the order can no longer arrive."""

    def from_the_beginning(self: Payments, payment: Payment, channel: Any) -> datetime:
        return payment.created_at

    setattr(Payments, "absent_from", from_the_beginning)


def unlisted_refusal_is_final() -> None:
    """Whatever word the HIS refuses with ends the confirmation."""
    good = Confirmations._refused

    async def refused(self: Confirmations, due: Any, confirmation: Any, payment: Any, refusal: Any) -> None:
        refusal.final = True
        await good(self, due, confirmation, payment, refusal)

    setattr(Confirmations, "_refused", refused)


def message_sent_again() -> None:
    """A message whose answer was lost is sent again where nothing drops the copy."""
    SubscribeMessenger.resend_window = timedelta(hours=1)


def evidence_after_end_lost() -> None:
    """A crash between evidence and consequences: the event is committed before what follows from it."""
    good = core.recording.record

    async def record(outside: Outside, payment: Payment, evidence: Evidence, **parts: UUID | None) -> UUID | None:
        event_id = await good(outside, payment, evidence, **parts)
        if event_id is not None and evidence.proof_kind is ProofKind.VERIFIED_NOTICE:
            from tortoise.connection import get_connections

            client: Any = get_connections().get("default")
            await client._connection.execute("COMMIT")
            await client._connection.execute("BEGIN")
        return event_id

    setattr(core.applying, "record", record)


MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__: mutation
    for mutation in (
        row_lock_forgotten,
        refund_timeout_is_dead,
        confirm_without_asking,
        amount_not_checked,
        signature_not_checked,
        transfer_forgotten,
        claim_dropped,
        late_success_ignored,
        silence_means_not_sent,
        surplus_kept,
        lease_ignored,
        absence_is_proof_at_once,
        unlisted_refusal_is_final,
        message_sent_again,
        evidence_after_end_lost,
        *DECISIONS,
        *WRONG_REFUNDS,
    )
}
