"""After a restore: what the world knows and the database has forgotten.

A database that comes back as it was an hour ago believes what was true an hour ago: that an order was never sent, that
a refund is still to be asked for. So nothing that stands there as unsent is believed, everything that is open is asked
about, and what a channel lists without our knowing it becomes a case. Safe to repeat; run it before the programs start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from uuid import UUID

from core.cases import Cases
from core.clock import SHANGHAI, business_day
from core.errors import ConfigurationError, CounterpartyError
from core.evidence import refund_evidence
from core.ids import is_confirm_no, is_order_no, is_refund_no
from core.institutions import Institutions
from core.models import Confirmation, Payment, Refund
from core.outside import Outside
from core.payments import Payments
from core.ports import HospitalSite, MerchantAccount, PaidRecord, RefundState, StatementEntry, StatementKind
from core.states import PaymentStatus, ProofKind, RefundStatus
from core.tenancy import across_institutions, scoped
from core.transactions import rows

log = logging.getLogger("zhenfu.adopt")

ENTRIES_AT_ONCE = 500
PAYMENTS_AT_ONCE = 200
PAGES_MAX = 10_000
NOT_APPROVED = frozenset({RefundStatus.REQUESTED, RefundStatus.DECLINED})
CLOCKS_APART = timedelta(minutes=1)

DOUBT = (
    "UPDATE payment SET sends_started = sends_started + 1, lease_until = NULL, due_at = $1::timestamptz"
    " WHERE status = 'created' AND sends_started = sends_unreached RETURNING id",
    "UPDATE confirmation SET sends_started = sends_started + 1, last_sent_at = $1, lease_until = NULL,"
    " due_at = $1::timestamptz WHERE status = 'open' AND sends_started = sends_unreached RETURNING id",
    # Whatever stood before it when the copy was made (a yes, the HIS, a person), money may have left since then.
    # One that waits for a person goes on waiting.
    "UPDATE refund SET sends_started = sends_started + 1, last_sent_at = $1, lease_until = NULL,"
    " due_at = CASE WHEN due_at IS NULL THEN NULL ELSE $1::timestamptz END"
    " WHERE status IN ('requested', 'approved', 'reversing_at_his', 'sending') AND sends_started = sends_unreached"
    " RETURNING id",
    "UPDATE refund SET his_sends_started = his_sends_started + 1, his_last_sent_at = $1::timestamptz,"
    " lease_until = NULL WHERE status IN ('requested', 'approved', 'reversing_at_his')"
    " AND his_sends_started = his_sends_unreached AND origin = 'staff' AND his_proof_id IS NULL"
    " AND replaces_id IS NULL RETURNING id",
    # A second copy of a message would be dropped by nobody: it counts as sent when it was written.
    "UPDATE message SET sends_started = sends_started + 1, first_sent_at = created_at, lease_until = NULL"
    " WHERE status = 'queued' AND sends_started = sends_unreached AND created_at < $1::timestamptz RETURNING id",
)
"""What marks the rows of each kind as those of a request whose answer was lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """What a walk has found; every number counts things, amounts are fen."""

    doubted: int = 0  # rows that said "never sent" and are now asked about first
    asked: int = 0  # payments asked about at their channel
    found_paid: int = 0  # of them: paid, and the database did not know
    silent: int = 0  # of them: without an answer; the worker goes on asking
    listed: int = 0  # rows of the channels' statements
    foreign: int = 0  # of them: orders that do not look like ours
    lost: int = 0  # of them: ours, and there is no row, or none that anybody has approved: a case each
    lost_fen: int = 0
    booked: int = 0  # rows of the HIS's statements that carry a number of ours
    bookings_lost: int = 0  # of them: there is no row: a case each
    unread: tuple[str, ...] = ()  # statements that could not be read: "merchant or HIS, day: why"


@dataclass(frozen=True, slots=True)
class Adopting:
    outside: Outside
    institutions: Institutions
    payments: Payments
    cases: Cases

    async def walk(self, since: date) -> Adopted:
        """Everything from this day in Shanghai on."""
        await self._end_some_day()
        found = Adopted(doubted=await self._doubt())
        begin = datetime.combine(since, time(), SHANGHAI)
        found = await self._ask_about_wishes(await self._ask_all(begin, found))
        for account in await self.institutions.all_merchants():
            day = since
            while day < business_day(self.outside.clock.now()):
                found = await self._statement(account, day, found)
                day += timedelta(days=1)
        for site in await self.institutions.all_sites():
            if site.capabilities.statement:
                found = await self._bookings(site, begin, found)
        return found

    async def _end_some_day(self) -> None:
        """An order of which it is not known until when it can be paid: no longer than one that were begun now.

        Without such a time its absence at the channel would never prove anything.
        """
        for institution_id in {site.institution_id for site in await self.institutions.all_sites()}:
            life = timedelta(seconds=(await self.institutions.profile(institution_id)).settings.payment_seconds)
            endless = {"status": PaymentStatus.CREATED, "expires_at": None}
            await scoped(institution_id).change(Payment, endless, expires_at=self.outside.clock.now() + life)

    async def _doubt(self) -> int:
        """Whatever stands as unsent may have been sent after the copy was made: it is asked about before it is sent.

        The mark is that of a request whose answer was lost, so every loop does by itself what is right then.
        """
        with across_institutions("after a restore no row of anybody is believed to be unsent"):
            return sum([len(await rows(statement, self.outside.clock.now())) for statement in DOUBT])

    async def _ask_all(self, begin: datetime, found: Adopted) -> Adopted:
        """Every payment since then that is not known to be paid, ended ones too: the channel may know better."""
        last: UUID | None = None
        while True:
            with across_institutions("after a restore all channels are asked"):
                wanted = Payment.filter(created_at__gte=begin).exclude(status=PaymentStatus.PAID)
                wanted = wanted.filter(id__gt=last) if last else wanted
                batch = await wanted.order_by("id").limit(PAYMENTS_AT_ONCE)
            if not batch:
                return found
            for payment in batch:
                found = await self._ask(payment, found)
            last = batch[-1].id

    async def _ask(self, payment: Payment, found: Adopted) -> Adopted:
        if payment.asked_fen == 0:
            return found
        account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
        channel = self.outside.channels[account.channel]
        found = replace(found, asked=found.asked + 1)
        try:
            trade = await self.payments.ask(payment, account, channel, self.outside.clock.now())
        except (CounterpartyError, ConfigurationError):
            return replace(found, silent=found.silent + 1)
        return replace(found, found_paid=found.found_paid + trade.ever_paid)

    async def _ask_about_wishes(self, found: Adopted) -> Adopted:
        """What stands as asked for by staff may have had its yes since the copy: the HIS would know of it."""
        with across_institutions("after a restore all hospitals are asked"):
            wishes = await Refund.filter(status=RefundStatus.REQUESTED, origin="staff").order_by("id")
        for refund in wishes:
            payment = await scoped(refund.institution_id).get(Payment, id=refund.payment_id)
            site = await self.institutions.site(refund.institution_id, payment.site_id)
            if not site.capabilities.refund_query:
                continue
            try:
                reversal = await self.outside.hospitals[site.adapter].query_refund(site, refund.refund_no)
            except (CounterpartyError, ConfigurationError) as error:
                found = replace(found, unread=(*found.unread, f"HIS {site.branch}, refund {refund.refund_no}: {error}"))
                continue
            if reversal.reversed:
                details = {"order_no": payment.order_no, "red_receipt_no": reversal.red_receipt_no}
                await self.cases.open(
                    refund.institution_id,
                    "refund_not_approved",
                    refund.refund_no,
                    payment_id=payment.id,
                    details=details,
                )
                found = replace(found, lost=found.lost + 1, lost_fen=found.lost_fen + refund.amount_fen)
        return found

    async def _statement(self, account: MerchantAccount, day: date, found: Adopted) -> Adopted:
        channel = self.outside.channels[account.channel]
        try:
            async for batch in _batches(channel.statement(account, day)):
                found = await self._compare(account, batch, found)
        except (CounterpartyError, ConfigurationError) as error:
            said = f"{account.merchant_no} {day.isoformat()}: {error}"
            log.warning("statement_not_read", extra={"fields": {"day": day.isoformat(), "error": type(error).__name__}})
            return replace(found, unread=(*found.unread, said))
        return found

    async def _compare(self, account: MerchantAccount, batch: list[StatementEntry], found: Adopted) -> Adopted:
        """Our-looking numbers without a row; what there is a row for is asked about when it says something else."""
        scope = scoped(account.institution_id)
        ours = [entry for entry in batch if is_order_no(entry.order_no)]
        known = {
            payment.order_no: payment
            for payment in await scope.of(Payment).filter(order_no__in=list({entry.order_no for entry in ours}))
        }
        refunds = {
            refund.refund_no: refund
            for refund in await scope.of(Refund).filter(refund_no__in=[entry.refund_no for entry in ours])
        }
        found = replace(found, listed=found.listed + len(batch), foreign=found.foreign + len(batch) - len(ours))
        for entry in ours:
            payment, refund = known.get(entry.order_no), refunds.get(entry.refund_no)
            is_unknown = entry.kind is StatementKind.REFUND and refund is None
            if is_unknown and payment is not None:
                # One that is ours is forgotten: whoever made it, it counts towards what is owed now.
                await self._refund_of_others(account, entry, payment)
                is_unknown = is_refund_no(entry.refund_no)
            if payment is None or is_unknown or (refund is not None and refund.status in NOT_APPROVED):
                await self._case(account, entry, payment, refund)
                found = replace(found, lost=found.lost + 1, lost_fen=found.lost_fen + entry.amount_fen)
            elif refund is not None and refund.status is not RefundStatus.REFUNDED:
                await (
                    scope.of(Refund).filter(id=refund.id, due_at__isnull=False).update(due_at=self.outside.clock.now())
                )
            elif entry.kind is StatementKind.PAYMENT and payment.status is not PaymentStatus.PAID:
                found = await self._ask(payment, found)
        return found

    async def _refund_of_others(self, account: MerchantAccount, entry: StatementEntry, payment: Payment) -> None:
        """Made in the channel's console: the channel says under its number how much it is and how it ended."""
        try:
            trade = await self.outside.channels[account.channel].query_refund(account, entry.refund_no)
        except (CounterpartyError, ConfigurationError):
            trade = None
        if trade is None or trade.state is RefundState.ABSENT:
            await self._case(account, entry, payment)
            return
        said = refund_evidence(trade, payment.order_no, source=account.channel, proof=ProofKind.AUTHENTICATED_QUERY)
        await self.payments.applier.apply(said)

    async def _bookings(self, site: HospitalSite, begin: datetime, found: Adopted) -> Adopted:
        """What the HIS has booked under numbers that look like ours, and which of them we do not know."""
        hospital, until = self.outside.hospitals[site.adapter], self.outside.clock.now() + CLOCKS_APART
        for page in range(PAGES_MAX):
            try:
                answer = await hospital.statement(site, begin, until, page)
            except (CounterpartyError, ConfigurationError) as error:
                said = f"HIS {site.branch or site.base_url} since {begin:%Y-%m-%d}, page {page}: {error}"
                return replace(found, unread=(*found.unread, said))
            ours = [record for record in answer.records if is_confirm_no(record.confirm_no)]
            known = (
                await scoped(site.institution_id)
                .of(Confirmation)
                .filter(confirm_no__in=[record.confirm_no for record in ours])
            )
            numbers = {confirmation.confirm_no for confirmation in known}
            lost = [record for record in ours if record.confirm_no not in numbers]
            for record in lost:
                await self._case_of_booking(site, record)
            found = replace(found, booked=found.booked + len(ours), bookings_lost=found.bookings_lost + len(lost))
            if not answer.has_more:
                return found
        return replace(found, unread=(*found.unread, f"HIS {site.branch}: more than {PAGES_MAX} pages"))

    async def _case_of_booking(self, site: HospitalSite, record: PaidRecord) -> None:
        await self.cases.open(
            site.institution_id,
            "booking_without_row",
            record.confirm_no,
            details={
                "branch": site.branch,
                "his_bill_id": record.his_bill_id,
                "amount_fen": record.amount_fen,
                "at": record.paid_at.isoformat(),
                "receipt_no": record.receipt_no,
            },
        )

    async def _case(
        self, account: MerchantAccount, entry: StatementEntry, payment: Payment | None, refund: Refund | None = None
    ) -> None:
        """Money moved under a number that looks like ours, and we have no row for it, or one that nobody approved."""
        kind, subject = "order_without_row", entry.order_no
        if refund is not None:
            kind, subject = "refund_not_approved", refund.refund_no
        elif entry.kind is StatementKind.REFUND:
            kind = "refund_without_row" if is_refund_no(entry.refund_no) else "external_refund"
            subject = entry.refund_no
        await self.cases.open(
            account.institution_id,
            kind,
            subject,
            payment_id=payment.id if payment else None,
            details={
                "order_no": entry.order_no,
                "amount_fen": entry.amount_fen,
                "at": entry.at.isoformat(),
                "merchant_no": account.merchant_no,
                "channel_trade_no": entry.channel_trade_no,
                "channel_refund_no": entry.channel_refund_no,
                "state": entry.state_text,
            },
        )


async def _batches(entries: AsyncIterator[StatementEntry]) -> AsyncIterator[list[StatementEntry]]:
    batch: list[StatementEntry] = []
    async for entry in entries:
        batch.append(entry)
        if len(batch) == ENTRIES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
