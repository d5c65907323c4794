"""Telling the HIS: a confirmation is sent under its own number until its booking or its refusal is proven."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.applying import Applier
from core.cases import Cases
from core.due import DueRow, after_silence, backoff, begin_send, give_back, send_had_no_effect
from core.errors import NotReached, OutcomeUnknown, Refused
from core.evidence import booking_evidence, rejection_evidence
from core.institutions import Institutions
from core.models import Confirmation, HisLock, Payment, PaymentLine
from core.models.fields import OUTSIDE_ID_LENGTH_MAX
from core.outside import Outside
from core.ports import RELOCK_CODES, ConfirmLine, ConfirmOrder, HospitalSite, LockOrder
from core.states import ConfirmationStatus, LineStatus, LockStatus, ProofKind
from core.tenancy import scoped

CASE_AFTER = timedelta(minutes=30)
"""A confirmation open for so long is also shown to staff."""

RELOCK_LIFE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Confirmations:
    outside: Outside
    institutions: Institutions
    applier: Applier
    cases: Cases

    async def work(self, due: DueRow) -> None:
        """Bring one confirmation that we hold a step further: ask first if anything was ever sent, then send."""
        scope = scoped(due.institution_id)
        confirmation = await scope.get(Confirmation, id=due.id)
        if confirmation.status is not ConfirmationStatus.OPEN:
            return
        now = self.outside.clock.now()
        payment = await scope.get(Payment, id=confirmation.payment_id)
        site = await self.institutions.site(due.institution_id, confirmation.site_id)
        if now >= confirmation.created_at + CASE_AFTER:
            await self.cases.open_while(
                due.institution_id,
                "confirmation_outcome_unknown",
                confirmation.confirm_no,
                table="confirmation",
                row_id=confirmation.id,
                statuses=[ConfirmationStatus.OPEN],
                payment_id=payment.id,
            )
        hospital = self.outside.hospitals[site.adapter]
        try:
            if confirmation.sends_started > confirmation.sends_unreached:
                if not site.capabilities.query_payment:
                    # Nobody can tell whether it was booked: sending again might book twice. A person looks.
                    await self._later(due, now + CASE_AFTER)
                    return
                booking = await hospital.query_payment(site, confirmation.confirm_no)
                if booking.booked:
                    await self.applier.apply(
                        booking_evidence(
                            payment.order_no,
                            confirmation.confirm_no,
                            booking,
                            proof=ProofKind.AUTHENTICATED_QUERY,
                        )
                    )
                    return
                sendable_at = self._sendable_at(confirmation, site)
                if now < sendable_at:
                    await self._later(due, min(sendable_at, now + backoff(due.attempts)))
                    return
            if confirmation.relock_wanted and site.capabilities.lock:
                await self._lock_again(confirmation, payment, site, now)
            await self._send(due, confirmation, payment, site)
        except (NotReached, OutcomeUnknown):
            await self._after_silence(due, site)
        except Refused as refused:
            await self._refused(due, confirmation, payment, refused)

    def _sendable_at(self, confirmation: Confirmation, site: HospitalSite) -> datetime:
        """From then on "not booked" is final: the last request can no longer be on its way or in the works."""
        return (confirmation.last_sent_at or confirmation.created_at) + site.settles_within

    async def _lock_again(
        self, confirmation: Confirmation, payment: Payment, site: HospitalSite, now: datetime
    ) -> None:
        """Under the same number, at whatever amount the HIS says: it compares when we confirm."""
        lines = await self._lines(confirmation)
        lock = scoped(confirmation.institution_id).of(HisLock).filter(confirm_no=confirmation.confirm_no)
        # The row before the byte: should the answer be lost, a later refusal still gives back what may be held.
        await lock.exclude(status=LockStatus.CONSUMED).update(status=LockStatus.HELD, due_at=None)
        grant = await self.outside.hospitals[site.adapter].lock_bills(
            site,
            LockOrder(
                confirm_no=confirmation.confirm_no,
                his_patient_id=payment.his_patient_id,
                his_bill_ids=tuple(line.his_bill_id for line in lines),
                until=now + RELOCK_LIFE,
            ),
        )
        await lock.update(lock_id=grant.lock_id[:OUTSIDE_ID_LENGTH_MAX], expires_at=grant.expires_at)
        await self._set(confirmation, relock_wanted=False)

    async def _send(self, due: DueRow, confirmation: Confirmation, payment: Payment, site: HospitalSite) -> None:
        lock = await scoped(due.institution_id).get_or_none(HisLock, confirm_no=confirmation.confirm_no)
        lines = await self._lines(confirmation)
        order = ConfirmOrder(
            confirm_no=confirmation.confirm_no,
            lock_id=lock.lock_id if lock else "",
            his_patient_id=payment.his_patient_id,
            lines=tuple(ConfirmLine(his_bill_id=line.his_bill_id, amount_fen=line.amount_fen) for line in lines),
            order_no=payment.order_no,
            method=payment.method,
            channel_trade_no=payment.channel_trade_no,
            paid_at=payment.paid_at or payment.created_at,
        )
        now = self.outside.clock.now()
        if not await begin_send(
            "confirmation",
            confirmation.id,
            due.institution_id,
            holder=due.holder,
            now=now,
            statuses=[ConfirmationStatus.OPEN],
            stamp="last_sent_at",
        ):
            return
        try:
            booking = await self.outside.hospitals[site.adapter].confirm_payment(site, order)
        except NotReached:
            await send_had_no_effect("confirmation", confirmation.id, due.institution_id)
            raise
        except Refused as refused:
            if refused.final or refused.code in RELOCK_CODES:  # any other word leaves open what was done
                await send_had_no_effect("confirmation", confirmation.id, due.institution_id)
            raise
        if not booking.booked:
            raise OutcomeUnknown("the HIS answered without booking or refusing")
        await self.applier.apply(
            booking_evidence(payment.order_no, confirmation.confirm_no, booking, proof=ProofKind.AUTHENTICATED_QUERY)
        )

    async def _refused(self, due: DueRow, confirmation: Confirmation, payment: Payment, refused: Refused) -> None:
        now = self.outside.clock.now()
        if refused.code in RELOCK_CODES:
            await self._set(confirmation, relock_wanted=True)
            await self._later(due, now + backoff(due.attempts))
        elif refused.final:
            await self.applier.apply(
                rejection_evidence(
                    payment.order_no,
                    confirmation.confirm_no,
                    code=refused.code,
                    message=refused.message,
                    raw=refused.raw,
                )
            )
        else:
            await self._later(due, now + backoff(due.attempts))

    async def _lines(self, confirmation: Confirmation) -> list[PaymentLine]:
        return await scoped(confirmation.institution_id).find(
            PaymentLine,
            ("position",),
            payment_id=confirmation.payment_id,
            confirmation_id=confirmation.id,
            status=LineStatus.CONFIRMING,
        )

    async def _after_silence(self, due: DueRow, site: HospitalSite) -> None:
        now = self.outside.clock.now()
        opens_at = self.outside.hospitals[site.adapter].opens_at(site)
        await after_silence("confirmation", due, now=now, opens_at=opens_at)

    async def _later(self, due: DueRow, when: datetime) -> None:
        await give_back("confirmation", due.id, due.institution_id, holder=due.holder, due_at=when)

    async def _set(self, confirmation: Confirmation, **values: Any) -> None:
        await scoped(confirmation.institution_id).change(Confirmation, {"id": confirmation.id}, **values)
