"""What the HIS holds for us: asked for under the confirm number, given back when it is no longer needed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.due import DueRow, backoff, give_back
from core.errors import NotReached, OutcomeUnknown, Refused
from core.institutions import Institutions
from core.models import HisLock, Payment
from core.outside import Outside
from core.ports import HospitalSite, LockGrant, LockOrder, LockWord
from core.states import OPEN_PAYMENT, LockStatus
from core.tenancy import scoped

LOOK_AGAIN = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Locks:
    outside: Outside
    institutions: Institutions

    async def ask(self, site: HospitalSite, lock: HisLock, order: LockOrder) -> LockGrant:
        """Ask the HIS to hold the bills; the row exists already.

        Raises Refused (nothing is held), NotReached (nothing is held) or OutcomeUnknown (the worker finds out).
        """
        hospital = self.outside.hospitals[site.adapter]
        try:
            grant = await hospital.lock_bills(site, order)
        except (Refused, NotReached):
            await self._move(lock, [LockStatus.ASKING, LockStatus.UNKNOWN], LockStatus.REFUSED, due_at=None)
            raise
        except OutcomeUnknown:
            await self._move(
                lock, [LockStatus.ASKING], LockStatus.UNKNOWN, due_at=self.outside.clock.now() + LOOK_AGAIN
            )
            raise
        await self.granted(lock, grant)
        return grant

    async def granted(self, lock: HisLock, grant: LockGrant) -> None:
        """Store what the HIS holds; a row that has been given up meanwhile keeps its state and is released."""
        await self._move(
            lock,
            [LockStatus.ASKING, LockStatus.UNKNOWN],
            LockStatus.HELD,
            lock_id=grant.lock_id,
            expires_at=grant.expires_at,
            due_at=None,
        )

    async def work(self, due: DueRow) -> None:
        """Find out about an unknown lock; release one that is no longer needed, once the payment's end is proven."""
        scope = scoped(due.institution_id)
        lock = await scope.of(HisLock).get(id=due.id)
        if lock.due_at is None:
            return
        payment = await scope.of(Payment).get(id=lock.payment_id)
        site = await self.institutions.site(due.institution_id, lock.site_id)
        hospital = self.outside.hospitals[site.adapter]
        now = self.outside.clock.now()
        try:
            if lock.status in {LockStatus.ASKING, LockStatus.UNKNOWN}:
                if not site.capabilities.lock_query:
                    await self._settle_blind(lock, site, now)
                    return
                state = await hospital.query_lock(site, lock.confirm_no)
                if state.word is LockWord.CONSUMED:
                    await self._end(lock, LockStatus.CONSUMED)
                elif state.word is LockWord.ABSENT:
                    await self._end(lock, LockStatus.RELEASED)
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
            opens_at = hospital.opens_at(site)
            await give_back(
                "his_lock",
                due.id,
                due.institution_id,
                holder=due.holder,
                due_at=max(opens_at or now, now + backoff(due.attempts)),
                counted=opens_at is None,
            )
        except Refused:
            # Releasing what has been booked is refused: the confirmation decides, the lock is used up.
            await self._later(due, now + backoff(due.attempts))

    async def _settle_blind(self, lock: HisLock, site: HospitalSite, now: datetime) -> None:
        """The HIS cannot be asked about locks: release by number, which is safe to repeat."""
        await self.outside.hospitals[site.adapter].release_lock(site, lock.confirm_no)
        await self._end(lock, LockStatus.RELEASED)

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
        await self._move(
            lock,
            [LockStatus.ASKING, LockStatus.UNKNOWN, LockStatus.RELEASING, status],
            status,
            due_at=None,
            lease_until=None,
            holder="",
        )

    async def _later(self, due: DueRow, when: datetime) -> None:
        await give_back("his_lock", due.id, due.institution_id, holder=due.holder, due_at=when)

    async def _move(self, lock: HisLock, sources: list[LockStatus], status: LockStatus, **values: Any) -> None:
        changed = await (
            scoped(lock.institution_id)
            .of(HisLock)
            .filter(id=lock.id, status__in=sources)
            .update(status=status, **values)
        )
        if changed:
            lock.status = status
            for name, value in values.items():
                setattr(lock, name, value)
