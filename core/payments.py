"""Asking after a payment, ending it, and what its payer sees of it; core/starting.py begins one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tortoise.queryset import QuerySet

from core.applying import Applier
from core.cases import Cases
from core.due import DueRow, backoff, give_back, take
from core.errors import ConfigurationError, NotFound, NotReached, OutcomeUnknown, Refused
from core.evidence import never_sent_evidence, trade_evidence
from core.institutions import Institutions
from core.locks import Locks
from core.models import HisLock, Payment, PaymentLine
from core.money import Fen
from core.outside import Outside
from core.persons import same_person
from core.ports import Channel, HospitalSite, MerchantAccount, PayParams, Trade
from core.states import OPEN_PAYMENT, LockStatus, PaymentStatus, ProofKind
from core.tenancy import across_institutions, scoped
from core.transactions import rows

LEASE = timedelta(seconds=90)
"""How long a request holds the payment it has begun before it must say again that it is still at it."""

RESUME_LEFT = timedelta(seconds=30)
"""A pay sheet with less life than this is not handed out again."""

CASE_AFTER = timedelta(minutes=30)
PAGE_ASKS_EVERY = timedelta(seconds=3)
IDEMPOTENCY_LIFE = timedelta(days=7)


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A payment that waits for its payer; `pay` is None when there is nothing to collect."""

    order_no: str
    amount_fen: Fen
    expires_at: datetime
    pay: PayParams | None
    resumed: bool


@dataclass(frozen=True, slots=True)
class Payments:
    outside: Outside
    institutions: Institutions
    locks: Locks
    applier: Applier
    cases: Cases

    # ------------------------------------------------------------ ask and end

    async def work(self, due: DueRow, *, counted: bool = True) -> None:
        """Bring one open payment that we hold a step further; `counted` false: a page asked, not the schedule."""
        payment = await scoped(due.institution_id).get(Payment, id=due.id)
        if payment.status not in OPEN_PAYMENT:
            return
        now = self.outside.clock.now()
        if payment.sends_started == payment.sends_unreached:
            await self.fail(payment, "the request that began it did not finish")
            return
        account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
        channel = self.outside.channels[account.channel]
        # One that is still `created` here has lost the request that began it: nobody has its pay sheet.
        unwanted = payment.close_wanted or payment.status is PaymentStatus.CREATED
        expired = payment.expires_at is not None and now >= payment.expires_at
        next_try = now + backoff(due.attempts)
        try:
            trade = await self.ask(payment, account, channel, now)
            if trade.exists and not trade.ever_paid and not trade.closed and (unwanted or expired):
                closed = await channel.close(account, payment.order_no)
                await self.applier.apply(
                    trade_evidence(closed, source=account.channel, proof=ProofKind.AUTHENTICATED_CLOSE)
                )
            elif not trade.exists and payment.expires_at is not None:
                next_try = min(next_try, self.absent_from(payment, channel))
                next_try = max(next_try, now + backoff(1))
        except ConfigurationError as error:
            await self.misconfigured(account, error)
        except (NotReached, OutcomeUnknown, Refused):
            pass
        if now >= (payment.expires_at or payment.created_at) + CASE_AFTER:
            await self._open_case(payment)
        if payment.expires_at is not None and now < payment.expires_at:
            next_try = min(next_try, payment.expires_at)
        await give_back(
            "payment", payment.id, payment.institution_id, holder=due.holder, due_at=next_try, counted=counted
        )

    async def ask(self, payment: Payment, account: MerchantAccount, channel: Channel, now: datetime) -> Trade:
        """Ask the channel and apply what it says. Raises NotReached, OutcomeUnknown or Refused."""
        trade = await channel.query(account, payment.order_no)
        await self.applier.apply(
            trade_evidence(
                trade,
                source=account.channel,
                proof=ProofKind.AUTHENTICATED_QUERY,
                absence_is_proof=payment.expires_at is not None and now >= self.absent_from(payment, channel),
            )
        )
        return trade

    def absent_from(self, payment: Payment, channel: Channel) -> datetime:
        """From then on "no such order" proves that it can never be paid."""
        expires_at = payment.expires_at or payment.created_at + LEASE
        capabilities = channel.capabilities
        return expires_at + timedelta(
            seconds=capabilities.absence_margin_seconds + capabilities.request_deadline_seconds
        )

    async def _open_case(self, payment: Payment) -> None:
        await self.cases.open_while(
            payment.institution_id,
            "payment_outcome_unknown",
            payment.order_no,
            table="payment",
            row_id=payment.id,
            statuses=OPEN_PAYMENT,
            payment_id=payment.id,
        )

    async def end(self, payment: Payment) -> Payment:
        """End an open payment now if the channel lets us, else as soon as it can be proven; returns it as it is."""
        scope = scoped(payment.institution_id)
        now = self.outside.clock.now()
        await (
            scope.of(Payment).filter(id=payment.id, status__in=list(OPEN_PAYMENT)).update(close_wanted=True, due_at=now)
        )
        await self._work_now(payment)
        ended = await scope.get(Payment, id=payment.id)
        if ended.status not in OPEN_PAYMENT:
            await self.free_locks(scope.of(HisLock).filter(payment_id=payment.id))
        return ended

    async def free_locks(self, locks: QuerySet[HisLock]) -> None:
        """Give back at the HIS, now, what ended payments still hold there; what stays silent the worker does."""
        for lock in await locks.filter(status__in=[LockStatus.RELEASING, LockStatus.UNKNOWN], due_at__isnull=False):
            due = await take(
                "his_lock",
                lock.id,
                lock.institution_id,
                now=self.outside.clock.now(),
                holder=self.outside.lease_name(),
                lease=LEASE,
            )
            if due is not None:
                await self.locks.work(due)

    async def ask_soon(self, payment: Payment) -> None:
        """Something unproven was said about it: the next question is due now."""
        await (
            scoped(payment.institution_id)
            .of(Payment)
            .filter(id=payment.id, status__in=list(OPEN_PAYMENT))
            .update(due_at=self.outside.clock.now())
        )

    async def _work_now(self, payment: Payment, *, counted: bool = True) -> None:
        """Take a step for an open payment unless somebody else is at it."""
        due = await take(
            "payment",
            payment.id,
            payment.institution_id,
            now=self.outside.clock.now(),
            holder=self.outside.lease_name(),
            lease=LEASE,
        )
        if due is not None:
            await self.work(due, counted=counted)

    async def cancel(self, payer_id: UUID, institution_id: UUID, order_no: str) -> Payment:
        """The payer has closed the pay sheet. Raises NotFound."""
        return await self.end(await self.of_payer(payer_id, institution_id, order_no))

    async def fail(self, payment: Payment, reason: str) -> None:
        """Nothing has been sent to the channel: the payment ends with that as its proof."""
        await self.applier.apply(never_sent_evidence(payment.order_no, reason=reason))

    async def misconfigured(self, account: MerchantAccount, error: ConfigurationError) -> None:
        await self.cases.open(
            account.institution_id, "channel_misconfigured", account.merchant_no, details={"problem": str(error)}
        )

    # ------------------------------------------------------------ what the payer sees

    def handed_out(self, payment: Payment) -> Started | None:
        """The pay sheet that exists already, if it lives long enough to be used."""
        if payment.expires_at is None or not payment.pay_params_enc or payment.close_wanted:
            return None
        if payment.expires_at <= self.outside.clock.now() + RESUME_LEFT:
            return None
        stored = self.outside.keyring.decrypt_json(payment.pay_params_enc, place="payment.pay_params")
        return Started(
            order_no=payment.order_no,
            amount_fen=payment.asked_fen,
            expires_at=payment.expires_at,
            pay=PayParams(kind=stored["kind"], values=stored["values"]),
            resumed=True,
        )

    async def of_payer(self, payer_id: UUID, institution_id: UUID, order_no: str) -> Payment:
        """Raises NotFound."""
        payment = await scoped(institution_id).get_or_none(Payment, order_no=order_no, payer_id=payer_id)
        if payment is None:
            raise NotFound()
        return payment

    async def refreshed(self, payer_id: UUID, institution_id: UUID, order_no: str) -> Payment:
        """The payment after asking the channel, if it is open and nobody asked just now; silence changes nothing."""
        payment = await self.of_payer(payer_id, institution_id, order_no)
        if payment.status is PaymentStatus.PENDING and await self.outside.limiter.allow(
            f"ask:{order_no}", limit=1, per=PAGE_ASKS_EVERY
        ):
            await self._work_now(payment, counted=False)
            payment = await self.of_payer(payer_id, institution_id, order_no)
        return payment

    def pay_sheet(self, payment: Payment) -> Started | None:
        """What the payer's app needs to open the pay sheet of this payment; None when it can no longer be used."""
        return self.handed_out(payment) if payment.status is PaymentStatus.PENDING else None

    async def lines(self, payment: Payment) -> list[PaymentLine]:
        return await scoped(payment.institution_id).find(PaymentLine, ("position",), payment_id=payment.id)

    async def paid_list(self, payer_id: UUID, institution_id: UUID, patient_ids: Sequence[UUID]) -> list[Payment]:
        """Payments that took money, newest first: this person's own and those for patients bound to him."""
        scope = scoped(institution_id)
        own = (
            await scope.of(Payment)
            .filter(payer_id__in=await same_person(institution_id, payer_id), status=PaymentStatus.PAID)
            .order_by("-paid_at")
            .limit(200)
        )
        others = (
            await scope.of(Payment)
            .filter(patient_id__in=list(patient_ids), status=PaymentStatus.PAID)
            .order_by("-paid_at")
            .limit(200)
        )
        found = {payment.id: payment for payment in [*own, *others]}
        return sorted(found.values(), key=lambda payment: payment.paid_at or payment.created_at, reverse=True)

    async def forget_old_keys(self) -> int:
        """Delete idempotency records past their life; returns how many."""
        with across_institutions("an old key is old wherever it was used"):
            gone = await rows(
                "DELETE FROM idempotency_record WHERE created_at < $1 RETURNING id",
                self.outside.clock.now() - IDEMPOTENCY_LIFE,
            )
        return len(gone)

    async def bills_being_paid(self, site: HospitalSite, *, limit: int) -> list[str]:
        """Bills of this HIS under an open payment, those that have waited longest first."""
        found = await rows(
            "SELECT l.his_bill_id FROM payment_line l JOIN payment p ON p.id = l.payment_id"
            " WHERE l.institution_id = $1 AND p.institution_id = $1 AND p.site_id = $2 AND l.claims_bill"
            " AND p.status = ANY ($3::text[]) ORDER BY p.created_at, l.position LIMIT $4",
            site.institution_id,
            site.id,
            [status.value for status in OPEN_PAYMENT],
            limit,
        )
        return [str(row["his_bill_id"]) for row in found]

    async def bill_ended_elsewhere(self, institution_id: UUID, branch: str, his_bill_id: str) -> list[Payment]:
        """The HIS says that a bill was cancelled or paid at the window: open phone payments for it are to end."""
        lines = await scoped(institution_id).find(PaymentLine, branch=branch, his_bill_id=his_bill_id, claims_bill=True)
        ended = []
        for line in lines:
            payment = await scoped(institution_id).get(Payment, id=line.payment_id)
            if payment.status in OPEN_PAYMENT:
                ended.append(await self.end(payment))
        return ended

    async def set(self, payment: Payment, **values: Any) -> None:
        await scoped(payment.institution_id).change(Payment, {"id": payment.id}, **values)
        for name, value in values.items():
            setattr(payment, name, value)
