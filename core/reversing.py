"""The HIS first: an approved refund is told to it under its own number until the reversal or the refusal is proven."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from core.applying import Applier
from core.cases import Cases
from core.due import DueRow, after_silence, backoff, begin_send, give_back, send_had_no_effect
from core.errors import NotReached, OutcomeUnknown, Refused
from core.his_evidence import kept_evidence, reversal_evidence
from core.institutions import Institutions
from core.models import Payment, PaymentLine, Refund, RefundLine
from core.outside import Outside
from core.ports import HospitalSite, Reversal, ReverseLine, ReverseOrder
from core.reversals import Reversals
from core.states import RefundStatus
from core.tenancy import scoped

CASE_AFTER = timedelta(minutes=30)
"""A reversal open for so long is also shown to staff."""

HIS = "his_"  # the counters of what the HIS was told


@dataclass(frozen=True, slots=True)
class Reversing:
    outside: Outside
    institutions: Institutions
    applier: Applier
    reversals: Reversals
    cases: Cases

    async def step(self, due: DueRow, refund: Refund, payment: Payment) -> None:
        """Bring one refund that we hold a step further at the HIS: ask first if anything was ever sent, then send."""
        now = self.outside.clock.now()
        site = await self.institutions.site(due.institution_id, payment.site_id)
        hospital = self.outside.hospitals[site.adapter]
        if now >= (refund.decided_at or refund.created_at) + CASE_AFTER:
            await self.cases.open_while(
                due.institution_id,
                "reversal_outcome_unknown",
                refund.refund_no,
                table="refund",
                row_id=refund.id,
                statuses=[RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS],
                payment_id=payment.id,
            )
        try:
            if refund.his_sends_started > refund.his_sends_unreached:
                # Approved only, and yet perhaps told: the database was restored (core/adopting.py).
                if refund.status is RefundStatus.APPROVED and not await self.reversals.begin(refund):
                    return
                if not site.capabilities.refund_query:
                    # Nobody can tell whether it was reversed: sending again might do it twice. A person looks.
                    await self._later(due, now + CASE_AFTER)
                    return
                reversal = await hospital.query_refund(site, refund.refund_no)
                if reversal.reversed:
                    await self._reversed(due, refund, payment, reversal)
                    return
                sendable_at = self._sendable_at(refund, site)
                if now < sendable_at:
                    await self._later(due, min(sendable_at, now + backoff(due.attempts)))
                    return
            await self._send(due, refund, payment, site)
        except (NotReached, OutcomeUnknown):
            await self._after_silence(due, site)
        except Refused as refused:
            if refused.final:
                await self.applier.apply(
                    kept_evidence(
                        payment.order_no,
                        refund.refund_no,
                        code=refused.code,
                        message=refused.message,
                        raw=refused.raw,
                    )
                )
            await self._later(due, now + backoff(due.attempts))

    def _sendable_at(self, refund: Refund, site: HospitalSite) -> datetime:
        """From then on "not reversed" is final: the last request can no longer be on its way or in the works."""
        return (refund.his_last_sent_at or refund.created_at) + site.settles_within

    async def _send(self, due: DueRow, refund: Refund, payment: Payment, site: HospitalSite) -> None:
        if refund.status is RefundStatus.APPROVED and not await self.reversals.begin(refund):
            return
        order = await self._order(refund, payment)
        if not await begin_send(
            "refund",
            refund.id,
            due.institution_id,
            holder=due.holder,
            now=self.outside.clock.now(),
            statuses=[RefundStatus.REVERSING_AT_HIS],
            stamp="his_last_sent_at",
            counters=HIS,
        ):
            return
        try:
            reversal = await self.outside.hospitals[site.adapter].confirm_refund(site, order)
        except NotReached:
            await send_had_no_effect("refund", refund.id, due.institution_id, counters=HIS)
            raise
        except Refused as refused:
            if refused.final:  # any other word leaves open what was done
                await send_had_no_effect("refund", refund.id, due.institution_id, counters=HIS)
            raise
        if not reversal.reversed:
            raise OutcomeUnknown("the HIS answered without reversing or refusing")
        await self._reversed(due, refund, payment, reversal)

    async def _order(self, refund: Refund, payment: Payment) -> ReverseOrder:
        scope = scoped(refund.institution_id)
        lines = {line.id: line for line in await scope.find(PaymentLine, payment_id=payment.id)}
        parts = await scope.find(RefundLine, refund_id=refund.id)
        return ReverseOrder(
            refund_no=refund.refund_no,
            order_no=payment.order_no,
            his_patient_id=payment.his_patient_id,
            lines=tuple(
                ReverseLine(
                    confirm_no=lines[part.line_id].confirm_no,
                    his_bill_id=lines[part.line_id].his_bill_id,
                    amount_fen=part.amount_fen,
                    item_ids=tuple(part.his_items),
                )
                for part in sorted(parts, key=lambda part: lines[part.line_id].position)
            ),
            reason=refund.reason,
        )

    async def _reversed(self, due: DueRow, refund: Refund, payment: Payment, reversal: Reversal) -> None:
        """What the HIS says is applied; the refund is due at the channel at once then."""
        await self.applier.apply(reversal_evidence(payment.order_no, refund.refund_no, reversal))
        await self._later(due, self.outside.clock.now() + backoff(due.attempts))

    async def _after_silence(self, due: DueRow, site: HospitalSite) -> None:
        now = self.outside.clock.now()
        opens_at = self.outside.hospitals[site.adapter].opens_at(site)
        await after_silence("refund", due, now=now, opens_at=opens_at)

    async def _later(self, due: DueRow, when: datetime) -> None:
        await give_back("refund", due.id, due.institution_id, holder=due.holder, due_at=when)
