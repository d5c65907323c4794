"""Giving money back at the channel: the row first, then the byte, then questions until the end is proven."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from core.applying import Applier
from core.cases import Cases
from core.due import DueRow, backoff, begin_send, give_back, send_had_no_effect
from core.errors import ConfigurationError, NotReached, OutcomeUnknown, Refused
from core.evidence import refund_evidence
from core.external_refunds import ExternalRefunds
from core.hospital_side import WAIT_FOR_HOLDER, HospitalSide
from core.institutions import Institutions
from core.models import Payment, PaymentLine, Refund
from core.outside import Outside
from core.ports import Channel, RefundOrder, RefundState, RefundTrade
from core.returning import Returning
from core.reversing import Reversing
from core.states import LineStatus, PaymentStatus, ProofKind, RefundStatus
from core.tenancy import scoped
from core.texts import REFUND_REASONS
from core.transactions import atomically

BLOCKED_CASE_AFTER_TRIES = 6
CASE_AFTER = timedelta(hours=24)
"""Cards take days: a refund open for longer than this is also shown to staff."""

EXTERNAL_PAUSE = timedelta(hours=1)
WAITING_CASE_AFTER = timedelta(minutes=30)
MOVING = [RefundStatus.SENDING, RefundStatus.PENDING, RefundStatus.STUCK]


@dataclass(frozen=True, slots=True)
class Refunds:
    outside: Outside
    institutions: Institutions
    applier: Applier
    hospital: HospitalSide
    returning: Returning
    reversing: Reversing
    external: ExternalRefunds
    cases: Cases

    async def work_line(self, due: DueRow) -> UUID | None:
        """A paid line that waits for its bill looks again; lines that must go back get their refund.

        Returns the payment's id when a refund was made.
        """
        line = await scoped(due.institution_id).of(PaymentLine).get(id=due.id)
        if line.status is LineStatus.WAITING:
            await atomically(lambda: self._enter_again(line))
            await self._case_for_waiting(line)
        made = None
        if line.status in {LineStatus.REJECTED, LineStatus.SURPLUS, LineStatus.HELD}:
            made = await self.returning.return_lines(
                line.payment_id, due.institution_id, held_too=line.status is LineStatus.HELD
            )
        later = self.outside.clock.now() + WAIT_FOR_HOLDER
        await give_back("payment_line", line.id, due.institution_id, holder=due.holder, due_at=later)
        return line.payment_id if made else None

    async def _case_for_waiting(self, line: PaymentLine) -> None:
        """A paid line that waits for long is shown to staff, until it enters (HospitalSide.enter)."""
        payment = await scoped(line.institution_id).of(Payment).get(id=line.payment_id)
        if payment.paid_at is not None and self.outside.clock.now() >= payment.paid_at + WAITING_CASE_AFTER:
            await self.cases.open_while(
                line.institution_id,
                "line_waits",
                line.confirm_no,
                table="payment_line",
                row_id=line.id,
                statuses=[LineStatus.WAITING],
                payment_id=payment.id,
            )

    async def _enter_again(self, line: PaymentLine) -> None:
        payment = await scoped(line.institution_id).of(Payment).select_for_update(no_key=True).get(id=line.payment_id)
        if payment.status is not PaymentStatus.PAID:
            return
        lines = (
            await scoped(line.institution_id)
            .of(PaymentLine)
            .filter(payment_id=payment.id)
            .order_by("branch", "his_bill_id")
            .select_for_update(no_key=True)
        )
        await self.hospital.enter(payment, lines, now=self.outside.clock.now())

    async def work(self, due: DueRow) -> None:
        """Bring one refund that we hold a step further: ask first if anything was ever sent, then send."""
        scope = scoped(due.institution_id)
        refund = await scope.of(Refund).get(id=due.id)
        if refund.status not in {RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS, *MOVING}:
            return
        payment = await scope.of(Payment).get(id=refund.payment_id)
        if _his_is_asked_first(refund):
            await self.reversing.step(due, refund, payment)
            return
        account = await self.institutions.merchant(due.institution_id, payment.merchant_account_id)
        channel = self.outside.channels[account.channel]
        now = self.outside.clock.now()
        if now >= (refund.decided_at or refund.created_at) + CASE_AFTER:
            await self.cases.open_while(
                due.institution_id,
                "refund_outcome_unknown",
                refund.refund_no,
                table="refund",
                row_id=refund.id,
                statuses=[RefundStatus.APPROVED, *MOVING],
                payment_id=payment.id,
            )
        is_resumed = False
        try:
            if refund.sends_started > refund.sends_unreached:
                trade = await channel.query_refund(account, refund.refund_no)
                is_resumed = _is_resumed(refund, trade)
                if trade.state is not RefundState.ABSENT and not is_resumed:
                    await self.applier.apply(
                        refund_evidence(
                            trade,
                            payment.order_no,
                            source=account.channel,
                            proof=ProofKind.AUTHENTICATED_QUERY,
                        )
                    )
                    if trade.state is not RefundState.UNKNOWN:
                        await self.cases.settle(due.institution_id, ("refund_blocked",), refund.refund_no)
                    await self._later(due, now + backoff(due.attempts))
                    return
                sent_at = refund.last_sent_at or refund.created_at
                sendable_at = sent_at + timedelta(seconds=channel.capabilities.request_deadline_seconds)
                if now < sendable_at:
                    await self._later(due, sendable_at)
                    return
            elif await self._waits_for_its_turn(due, refund, channel):
                return
            if not is_resumed:
                sendable = await self.external.before_sending(due, refund, payment, account, channel)
                if sendable is None:
                    await self._later(due, now + EXTERNAL_PAUSE)
                    return
                refund = sendable
            leaving = refund
            if not await atomically(lambda: self._begin(due, leaving, channel)):
                return
            try:
                answer = await channel.refund(
                    account,
                    RefundOrder(
                        refund_no=refund.refund_no,
                        order_no=payment.order_no,
                        channel_trade_no=payment.channel_trade_no,
                        amount_fen=refund.own_fen,
                        total_fen=payment.paid_fen,
                        reason=REFUND_REASONS[refund.origin],
                    ),
                )
            except NotReached:
                await send_had_no_effect("refund", refund.id, due.institution_id)
                raise
            await self.applier.apply(
                refund_evidence(answer, payment.order_no, source=account.channel, proof=ProofKind.AUTHENTICATED_QUERY)
            )
            await self._later(due, now + backoff(due.attempts))
        except NotReached:
            await self._later(due, now + backoff(due.attempts))
        except ConfigurationError as error:
            await self.cases.open(
                due.institution_id, "channel_misconfigured", account.merchant_no, details={"problem": str(error)}
            )
            await self._later(due, now + backoff(due.attempts))
        except (OutcomeUnknown, Refused) as problem:
            # A refusal is not the end of a refund: the same number goes out again when its cause is gone.
            if due.attempts >= BLOCKED_CASE_AFTER_TRIES:
                code = problem.code if isinstance(problem, Refused) else "unknown"
                await atomically(lambda: self._open_blocked(due, refund, code))
            await self._later(due, now + backoff(due.attempts))

    async def _open_blocked(self, due: DueRow, refund: Refund, code: str) -> None:
        """A case, unless a notice has settled the refund while we were asking."""
        current = await scoped(due.institution_id).of(Refund).select_for_update(no_key=True).get(id=refund.id)
        if current.status in {RefundStatus.APPROVED, *MOVING}:
            await self.cases.open(
                due.institution_id,
                "refund_blocked",
                refund.refund_no,
                payment_id=refund.payment_id,
                details={"code": code},
            )

    async def _begin(self, due: DueRow, refund: Refund, channel: Channel) -> bool:
        """Record that a request is about to leave; False when it must not: it has moved on, or is not its turn.

        Under the payment's lock, so that of two refunds that are ready at once the second one sees the first.
        """
        scope = scoped(due.institution_id)
        await scope.find(Payment, locked=True, id=refund.payment_id)
        if await self._waits_for_its_turn(due, refund, channel):
            return False
        await scope.change(Refund, {"id": refund.id, "status": RefundStatus.APPROVED}, status=RefundStatus.SENDING)
        return await begin_send(
            "refund",
            refund.id,
            due.institution_id,
            holder=due.holder,
            now=self.outside.clock.now(),
            statuses=MOVING,
            stamp="last_sent_at",
        )

    async def _waits_for_its_turn(self, due: DueRow, refund: Refund, channel: Channel) -> bool:
        """Whether another refund of the payment has left too short a time ago; this one is given back until then."""
        spaced_at = await self._spaced_at(refund, channel)
        if spaced_at <= self.outside.clock.now():
            return False
        await give_back("refund", due.id, due.institution_id, holder=due.holder, due_at=spaced_at, counted=False)
        return True

    async def _spaced_at(self, refund: Refund, channel: Channel) -> datetime:
        """A channel wants some time between two refunds of one payment."""
        others = await scoped(refund.institution_id).find(Refund, payment_id=refund.payment_id)
        sent = [other.last_sent_at for other in others if other.id != refund.id and other.last_sent_at is not None]
        spacing = timedelta(seconds=channel.capabilities.refund_spacing_seconds)
        return max((moment + spacing for moment in sent), default=refund.created_at)

    async def _later(self, due: DueRow, when: datetime) -> None:
        await give_back("refund", due.id, due.institution_id, holder=due.holder, due_at=when)


def _his_is_asked_first(refund: Refund) -> bool:
    """What staff asked for, until the HIS has taken its booking back; a successor's predecessor had it done."""
    undone = refund.status in {RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS}
    return undone and refund.origin == "staff" and refund.his_proof_id is None and refund.replaces_id is None


def _is_resumed(refund: Refund, trade: RefundTrade) -> bool:
    """A person has seen to a stuck refund (CaseActions.resume): it is sent again under its number, once."""
    return trade.state is RefundState.STUCK and refund.status is RefundStatus.SENDING and refund.last_sent_at is None
