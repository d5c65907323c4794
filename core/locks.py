"""What the HIS holds for us: asked for under the confirm number, given back when it is no longer needed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.cases import Cases
from core.due import DueRow, after_silence, backoff, give_back
from core.errors import NotReached, OutcomeUnknown, Refused
from core.institutions import Institutions
from core.models import HisLock, Payment
from core.models.fields import OUTSIDE_ID_LENGTH_MAX
from core.outside import Outside
from core.ports import LOCK_DENIED_CODES, HospitalSite, LockGrant, LockOrder, LockWord
from core.states import OPEN_PAYMENT, LockStatus, PaymentStatus
from core.tenancy import scoped
from core.transactions import atomically

LOOK_AGAIN = timedelta(seconds=15)
CASE_AFTER = timedelta(hours=2)
"""By then a HIS lets go by itself; one that still does not answer is shown to staff."""

NOT_RELEASED = "lock_not_released"
NOT_ENDED = (LockStatus.ASKING, LockStatus.UNKNOWN, LockStatus.RELEASING)

REQUEST_LIFE = timedelta(minutes=3)
"""A request that begins a payment has asked for all its locks by then, or has given up."""


@dataclass(frozen=True, slots=True)
class Locks:
    outside: Outside
    institutions: Institutions
    cases: Cases

    async def ask(self, site: HospitalSite, lock: HisLock, order: LockOrder) -> LockGrant:
        """Ask the HIS to hold the bills; the row exists already.

        Raises Refused (nothing is held), NotReached (nothing is held) or OutcomeUnknown (the worker finds out).
        """
        hospital = self.outside.hospitals[site.adapter]
        try:
            grant = await hospital.lock_bills(site, order)
        except NotReached:
            await self._move(lock, [LockStatus.ASKING, LockStatus.UNKNOWN], LockStatus.REFUSED, due_at=None)
            raise
        except Refused as refused:
            if refused.final or refused.code in LOCK_DENIED_CODES:
                await self._move(lock, [LockStatus.ASKING, LockStatus.UNKNOWN], LockStatus.REFUSED, due_at=None)
            else:
                await self._unknown(lock)
            raise
        except OutcomeUnknown:
            await self._unknown(lock)
            raise
        await self.granted(lock, grant)
        return grant

    async def _unknown(self, lock: HisLock) -> None:
        look_at = self.outside.clock.now() + LOOK_AGAIN
        await self._move(lock, [LockStatus.ASKING], LockStatus.UNKNOWN, due_at=look_at)

    async def granted(self, lock: HisLock, grant: LockGrant) -> None:
        """Store what the HIS holds; for a payment that has ended meanwhile it is given back."""

        async def write() -> None:
            scope = scoped(lock.institution_id)
            (payment,) = await scope.find(Payment, locked=True, id=lock.payment_id)
            await self._move(
                lock,
                [LockStatus.ASKING, LockStatus.UNKNOWN, LockStatus.RELEASED, LockStatus.REFUSED],
                LockStatus.HELD,
                lock_id=grant.lock_id[:OUTSIDE_ID_LENGTH_MAX],
                expires_at=grant.expires_at,
                due_at=None,
            )
            if payment.status not in OPEN_PAYMENT:
                now = self.outside.clock.now()
                await self._move(lock, [LockStatus.HELD], LockStatus.RELEASING, due_at=now)

        await atomically(write)

    async def work(self, due: DueRow) -> None:
        """Find out about an unknown lock; release one that is no longer needed, once the payment's end is proven."""
        scope = scoped(due.institution_id)
        lock = await scope.get(HisLock, id=due.id)
        if lock.due_at is None:
            return
        payment = await scope.get(Payment, id=lock.payment_id)
        site = await self.institutions.site(due.institution_id, lock.site_id)
        hospital = self.outside.hospitals[site.adapter]
        now = self.outside.clock.now()
        if now >= lock.created_at + CASE_AFTER and payment.status not in OPEN_PAYMENT:
            await self.cases.open_while(
                due.institution_id,
                NOT_RELEASED,
                lock.confirm_no,
                table="his_lock",
                row_id=lock.id,
                statuses=NOT_ENDED,
                payment_id=payment.id,
            )
        try:
            if lock.status in {LockStatus.ASKING, LockStatus.UNKNOWN}:
                final_at = self._final_at(lock, site)
                if not site.capabilities.lock_query:
                    await hospital.release_lock(site, lock.confirm_no)  # by number, which is safe to repeat
                    await self._released_or_later(due, lock, final_at, now)
                    return
                state = await hospital.query_lock(site, lock.confirm_no)
                if state.word is LockWord.CONSUMED:
                    await self._consumed(lock, payment)
                elif state.word is LockWord.ABSENT:
                    await self._released_or_later(due, lock, final_at, now)
                elif payment.status in OPEN_PAYMENT:
                    # The payment lives, and it does not know this lock: it will end as never sent.
                    await self._later(due, now + LOOK_AGAIN)
                else:
                    await self._move(lock, [LockStatus.ASKING, LockStatus.UNKNOWN], LockStatus.RELEASING)
                    await self._release(lock, site)
            elif lock.status is LockStatus.RELEASING:
                await self._release(lock, site)
            else:
                await self._end(lock, lock.status)
        except (NotReached, OutcomeUnknown):
            await after_silence("his_lock", due, now=now, opens_at=hospital.opens_at(site))
        except Refused:
            # Releasing what has been booked is refused: the confirmation decides, the lock is used up.
            await self._later(due, now + backoff(due.attempts))

    def _final_at(self, lock: HisLock, site: HospitalSite) -> datetime:
        """From then on "not held" is final: our request can no longer be on its way or in the works."""
        return lock.created_at + REQUEST_LIFE + site.settles_within

    async def _released_or_later(self, due: DueRow, lock: HisLock, final_at: datetime, now: datetime) -> None:
        if now >= final_at:
            await self._end(lock, LockStatus.RELEASED)
        else:
            await self._later(due, min(final_at, now + backoff(due.attempts)))

    async def _consumed(self, lock: HisLock, payment: Payment) -> None:
        """The HIS has booked it; for a payment that took no money that is a matter for a person."""
        await self._end(lock, LockStatus.CONSUMED)
        if payment.status is not PaymentStatus.PAID:
            await self.cases.open(
                lock.institution_id, "his_booked_without_money", lock.confirm_no, payment_id=payment.id
            )

    async def _release(self, lock: HisLock, site: HospitalSite) -> None:
        try:
            await self.outside.hospitals[site.adapter].release_lock(site, lock.confirm_no)
        except Refused as refused:
            if not refused.final:
                raise
            await self._end(lock, LockStatus.CONSUMED)
            return
        await self._end(lock, LockStatus.RELEASED)

    async def _end(self, lock: HisLock, status: LockStatus) -> None:
        async def write() -> None:
            await self._move(lock, [*NOT_ENDED, status], status, due_at=None, lease_until=None, holder="")
            await self.cases.settle(lock.institution_id, (NOT_RELEASED,), lock.confirm_no)

        await atomically(write)

    async def _later(self, due: DueRow, when: datetime) -> None:
        await give_back("his_lock", due.id, due.institution_id, holder=due.holder, due_at=when)

    async def _move(self, lock: HisLock, sources: list[LockStatus], status: LockStatus, **values: Any) -> None:
        changed = await scoped(lock.institution_id).change(
            HisLock, {"id": lock.id, "status": sources}, status=status, **values
        )
        if changed:
            lock.status = status
            for name, value in values.items():
                setattr(lock, name, value)
