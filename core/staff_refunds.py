"""Refunds that members of staff ask for: what may go back, asking for it, and a second person's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tortoise.exceptions import IntegrityError

from core.actors import Actor, Role
from core.audit import Audit
from core.cases import Cases
from core.errors import (
    AlreadyDecided,
    IdempotencyConflict,
    NeedsAnother,
    NotAllowed,
    NotFound,
    RefundNotPossible,
)
from core.followup import FollowUp
from core.guarded import asking_hospital
from core.institutions import Institutions
from core.models import Decision, Payment, PaymentLine, Refund
from core.outside import Outside
from core.ports import BookedBill, HospitalSite, RefundableBill
from core.red_receipts import ABOVE_CAP
from core.refund_parts import (
    REASON_LENGTH_MAX,
    AskedPart,
    RefundOption,
    check_text,
    digest_of,
    option_of,
    part_of,
    why_not,
)
from core.reversals import RefundPart, Reversals
from core.states import LineStatus, PaymentStatus, RefundStatus
from core.tenancy import scoped
from core.transactions import atomically, violated

WAITING_MAX = 200
STAFF, HOSPITAL = "staff", "hospital"


@dataclass(frozen=True, slots=True)
class StaffRefunds:
    outside: Outside
    institutions: Institutions
    reversals: Reversals
    cases: Cases
    audit: Audit
    follow_up: FollowUp

    # ------------------------------------------------------------ looking

    async def options(self, actor: Actor, order_no: str) -> list[RefundOption]:
        """What of this payment may go back, line by line, as the HIS says at this moment.

        Raises NotAllowed, NotFound, HospitalUnavailable.
        """
        actor.require(Role.REQUEST_REFUND)
        payment = await self._payment(actor, order_no)
        lines = await self._lines(payment)
        site = await self.institutions.site(payment.institution_id, payment.site_id)
        barred = await self._barred(payment, site)
        booked = [line for line in lines if line.status is LineStatus.CONFIRMED]
        said = {} if barred else await self._check(payment, site, booked)
        return [option_of(line, said.get(line.his_bill_id), barred) for line in lines]

    async def waiting(self, actor: Actor) -> list[Refund]:
        """What waits for a second person, the oldest first. Raises NotAllowed."""
        actor.require(Role.APPROVE_REFUND)
        return (
            await scoped(actor.institution_id)
            .of(Refund)
            .filter(status=RefundStatus.REQUESTED, origin=STAFF)
            .order_by("id")
            .limit(WAITING_MAX)
        )

    async def of_payment(self, actor: Actor, order_no: str) -> list[Refund]:
        """All refunds of a payment, whoever wanted them. Raises NotAllowed, NotFound."""
        actor.require(Role.LOOK)
        payment = await self._payment(actor, order_no)
        return await scoped(actor.institution_id).find(Refund, ("id",), payment_id=payment.id)

    # ------------------------------------------------------------ asking for it

    async def request(
        self, actor: Actor, order_no: str, parts: Sequence[AskedPart], *, reason: str, key: str
    ) -> Refund:
        """Ask for these parts to go back. The same key and request again is the same refund.

        Up to the institution's limit for all of a payment it is approved at once, above it another person decides.
        Raises NotAllowed, NotFound, InvalidRequest, IdempotencyConflict, RefundNotPossible, HospitalUnavailable.
        """
        actor.require(Role.REQUEST_REFUND)
        digest = digest_of(order_no, parts, reason, key)
        earlier = await self._earlier(actor, key, digest)
        if earlier is not None:
            return earlier
        payment = await self._payment(actor, order_no)
        site = await self.institutions.site(payment.institution_id, payment.site_id)
        barred = await self._barred(payment, site)
        if barred:
            raise RefundNotPossible(reason=barred)
        lines = {line.id: line for line in await self._lines(payment)}
        if not {line_id for line_id, _, _ in parts} <= lines.keys():
            raise NotFound()
        chosen = [lines[line_id] for line_id, _, _ in parts]
        barring = next((line.status for line in chosen if line.status is not LineStatus.CONFIRMED), None)
        if barring is not None:
            raise RefundNotPossible(reason=why_not(barring))
        said = await self._check(payment, site, chosen)
        wanted = [
            part_of(lines[line_id], amount, items, said.get(lines[line_id].his_bill_id))
            for line_id, amount, items in parts
        ]
        self._check_whole(payment, list(lines.values()), wanted, site, await self._partial(payment))
        limit = (await self.institutions.profile(actor.institution_id)).settings.refund_approve_above_fen
        asked_fen = sum(part.amount_fen for part in wanted)
        now = self.outside.clock.now()

        async def write() -> Refund:
            await scoped(payment.institution_id).find(Payment, locked=True, id=payment.id)
            at_once = await self._undecided_fen(payment) + asked_fen <= limit
            refund = await self.reversals.reserve(
                payment,
                wanted,
                origin=STAFF,
                cause=STAFF,
                status=RefundStatus.APPROVED if at_once else RefundStatus.REQUESTED,
                requested_by=actor.staff_id,
                decided_at=now if at_once else None,
                reason=reason,
                request_key=key,
                request_digest=digest,
                due_at=now if at_once else None,
            )
            details = {"order_no": order_no, "amount_fen": refund.amount_fen, "at_once": at_once}
            await self.audit.write(actor, "refund_requested", refund.refund_no, details)
            return refund

        try:
            refund = await atomically(write)
        except IntegrityError as error:
            if violated(error) != "refund_requested_once":
                raise
            same = await self._earlier(actor, key, digest)
            assert same is not None
            return same
        if refund.status is RefundStatus.APPROVED:
            self._go_on(refund)
        return refund

    async def _undecided_fen(self, payment: Payment) -> int:
        """What staff give back of this payment without a second person's word; its successors count once."""
        alone = await scoped(payment.institution_id).find(
            Refund, payment_id=payment.id, origin=STAFF, decided_by=None, replaces_id=None
        )
        given = [refund for refund in alone if refund.status not in {RefundStatus.REQUESTED, RefundStatus.DECLINED}]
        return sum(refund.amount_fen for refund in given)

    async def _earlier(self, actor: Actor, key: str, digest: str) -> Refund | None:
        refund = await scoped(actor.institution_id).get_or_none(Refund, requested_by=actor.staff_id, request_key=key)
        if refund is not None and refund.request_digest != digest:
            raise IdempotencyConflict()
        return refund

    async def _barred(self, payment: Payment, site: HospitalSite) -> str:
        """Why nothing of this payment can go back by our doing, whatever its lines are; empty: nothing bars it."""
        if payment.status is not PaymentStatus.PAID or payment.paid_at is None:
            return "not_confirmed"
        if not site.capabilities.refund:
            return "window_only"
        account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
        window = timedelta(days=self.outside.channels[account.channel].capabilities.refund_window_days)
        return "too_late" if self.outside.clock.now() > payment.paid_at + window else ""

    async def _partial(self, payment: Payment) -> bool:
        account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
        return self.outside.channels[account.channel].capabilities.partial_refund

    def _check_whole(
        self,
        payment: Payment,
        lines: Sequence[PaymentLine],
        wanted: Sequence[RefundPart],
        site: HospitalSite,
        channel_takes_parts: bool,
    ) -> None:
        """What can only go back as a whole does so. Raises RefundNotPossible."""
        whole = {part.line.id for part in wanted if part.amount_fen == part.line.amount_fen}
        groups = {part.line.confirm_no for part in wanted}
        if not site.capabilities.partial_refund and any(
            line.id not in whole for line in lines if line.confirm_no in groups
        ):
            raise RefundNotPossible(reason="window_only")
        if not channel_takes_parts and sum(part.amount_fen for part in wanted) != payment.paid_fen:
            raise RefundNotPossible(reason="window_only")

    async def _check(
        self, payment: Payment, site: HospitalSite, lines: Sequence[PaymentLine]
    ) -> Mapping[str, RefundableBill]:
        """What the HIS says of these lines, by bill; nothing where it cannot say anything in advance."""
        if not site.capabilities.refund_check or not lines:
            return {}
        asked = [BookedBill(confirm_no=line.confirm_no, his_bill_id=line.his_bill_id) for line in lines]
        async with asking_hospital():
            said = await self.outside.hospitals[site.adapter].refund_check(site, payment.his_patient_id, asked)
        return {bill.his_bill_id: bill for bill in said}

    # ------------------------------------------------------------ deciding

    async def approve(self, actor: Actor, refund_no: str) -> Refund:
        """Another person's yes. Raises NotAllowed, NotFound, NeedsAnother, AlreadyDecided, RefundNotPossible."""
        actor.require(Role.APPROVE_REFUND)
        refund = await self._refund(actor, refund_no)
        if refund.requested_by == actor.staff_id:
            raise NeedsAnother()
        now = self.outside.clock.now()

        async def write() -> Refund:
            await self._lock(refund)
            changed = await scoped(actor.institution_id).change(
                Refund,
                {"id": refund.id, "status": RefundStatus.REQUESTED},
                status=RefundStatus.APPROVED,
                decided_by=actor.staff_id,
                decided_at=now,
                due_at=now,
            )
            current = await scoped(actor.institution_id).get(Refund, id=refund.id)
            if changed:
                details = {"amount_fen": refund.amount_fen}
                await self.audit.write(actor, "refund_approved", refund.refund_no, details)
            elif current.decided_by != actor.staff_id or current.status is RefundStatus.DECLINED:
                raise AlreadyDecided(status=current.status.value)
            return current

        approved = await atomically(write)
        self._go_on(approved)
        return approved

    async def decline(self, actor: Actor, refund_no: str, *, reason: str) -> Refund:
        """Another person's no, or the requester's own change of mind.

        Raises NotAllowed, NotFound, InvalidRequest, AlreadyDecided, RefundNotPossible.
        """
        check_text(reason, "reason", REASON_LENGTH_MAX)
        refund = await self._refund(actor, refund_no)
        if refund.requested_by != actor.staff_id:
            actor.require(Role.APPROVE_REFUND)

        async def write() -> Refund:
            payment = await self._lock(refund)
            current = await scoped(actor.institution_id).get(Refund, id=refund.id)
            if current.status is RefundStatus.DECLINED and current.decided_by == actor.staff_id:
                return current
            if current.status is not RefundStatus.REQUESTED:
                raise AlreadyDecided(status=current.status.value)
            await self.reversals.decline(
                payment, current, text=reason, decided_by=actor.staff_id, decided_at=self.outside.clock.now()
            )
            await self.audit.write(actor, "refund_declined", refund.refund_no, {"amount_fen": refund.amount_fen})
            return current

        return await atomically(write)

    async def release(self, refund: Refund, decision: Decision) -> Refund:
        """Two people have decided that a red receipt above the daily cap is paid; they stand in the decision.

        May be part of the caller's transaction. Raises AlreadyDecided.
        """
        return await atomically(lambda: self._release(refund, decision))

    async def _release(self, refund: Refund, decision: Decision) -> Refund:
        payment, current = await self._waiting_for_two(refund)
        now = self.outside.clock.now()
        await self.reversals.steps.set_refund(
            current,
            status=RefundStatus.APPROVED,
            requested_by=decision.proposed_by,
            decided_by=decision.decided_by,
            decided_at=now,
            due_at=now,
        )
        await self.reversals.move(payment, current)
        await self.cases.settle(refund.institution_id, (ABOVE_CAP,), refund.refund_no)
        return current

    async def keep(self, refund: Refund, decision: Decision, *, text: str) -> Refund:
        """Two people have decided that a red receipt above the daily cap is not paid by us.

        May be part of the caller's transaction. Raises AlreadyDecided.
        """
        return await atomically(lambda: self._keep(refund, decision, text))

    async def _keep(self, refund: Refund, decision: Decision, text: str) -> Refund:
        payment, current = await self._waiting_for_two(refund)
        await self.reversals.decline(
            payment,
            current,
            text=text,
            his_proof_id=None,
            requested_by=decision.proposed_by,
            decided_by=decision.decided_by,
            decided_at=self.outside.clock.now(),
        )
        await self.cases.settle(refund.institution_id, (ABOVE_CAP,), refund.refund_no)
        return current

    async def _waiting_for_two(self, refund: Refund) -> tuple[Payment, Refund]:
        payment = await self._lock(refund)
        current = await scoped(refund.institution_id).get(Refund, id=refund.id)
        if current.origin != HOSPITAL or current.status is not RefundStatus.REQUESTED:
            raise AlreadyDecided(status=current.status.value)
        return payment, current

    # ------------------------------------------------------------ rows

    async def _payment(self, actor: Actor, order_no: str) -> Payment:
        payment = await scoped(actor.institution_id).get_or_none(Payment, order_no=order_no)
        if payment is None:
            raise NotFound()
        return payment

    async def _lines(self, payment: Payment) -> list[PaymentLine]:
        return await scoped(payment.institution_id).find(PaymentLine, ("position",), payment_id=payment.id)

    async def _refund(self, actor: Actor, refund_no: str) -> Refund:
        """One that staff have asked for; what a red receipt asks for takes a decision of two."""
        if not {Role.APPROVE_REFUND, Role.REQUEST_REFUND} & actor.roles:
            raise NotAllowed(role=Role.APPROVE_REFUND.value)
        refund = await scoped(actor.institution_id).get_or_none(Refund, refund_no=refund_no)
        if refund is None:
            raise NotFound()
        if refund.origin != STAFF:
            raise RefundNotPossible(reason="under_way")
        return refund

    async def _lock(self, refund: Refund) -> Payment:
        (payment,) = await scoped(refund.institution_id).find(Payment, locked=True, id=refund.payment_id)
        return payment

    def _go_on(self, refund: Refund) -> None:
        """What follows is begun at once; the worker does what is left over."""
        self.outside.background.start("refund", lambda: self.follow_up.of(refund.institution_id, refund.payment_id))
