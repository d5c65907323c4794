"""What becomes of bills at the HIS, where it must be asked: new ones are told, ended ones end their open payments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from core.due import DueRow, backoff, give_back
from core.errors import NotReached, OutcomeUnknown, Refused
from core.institutions import Institutions
from core.messages import Messages
from core.models import HospitalSiteRow
from core.outside import Outside
from core.patients import Patients
from core.payments import Payments
from core.ports import Bill, HospitalSite, MessageKind
from core.tenancy import scoped

OVERLAP = timedelta(minutes=2)
"""Each window begins this much before the last one ended: HIS clocks differ, and copies are dropped anyway."""

WINDOW_MAX = timedelta(hours=1)
FIRST_WINDOW = timedelta(minutes=5)
OPEN_ASKED_MAX = 20
"""Bills under a pay sheet that are asked after in one round, at a HIS that tells nothing by itself."""

TAKEN_STATES = frozenset({"paid", "cancelled"})


@dataclass(frozen=True, slots=True)
class NewBills:
    outside: Outside
    institutions: Institutions
    patients: Patients
    messages: Messages
    payments: Payments

    async def announce(self, site: HospitalSite, his_bill_id: str) -> int:
        """Ask the HIS about a bill it told us of and write to whoever has bound the patient; how many messages."""
        bill = await self.outside.hospitals[site.adapter].get_bill(site, his_bill_id)
        return await self._announce(site, bill) if bill is not None else 0

    async def _announce(self, site: HospitalSite, bill: Bill) -> int:
        if bill.state != "unpaid":
            return 0
        written = 0
        for payer_id, patient_id in await self.patients.payers_of(
            site.institution_id, site.branch, bill.his_patient_id
        ):
            written += await self.messages.enqueue_for(
                site.institution_id,
                payer_id,
                MessageKind.NEW_BILL,
                dedup_key=f"new_bill:{site.branch}:{bill.his_bill_id}:{payer_id}",
                values={
                    "amount_fen": bill.to_pay_fen,
                    "at": (bill.issued_at or self.outside.clock.now()).isoformat(),
                    "masked_name": await self.patients.masked_name(site.institution_id, patient_id),
                },
            )
        return written

    async def work(self, due: DueRow) -> None:
        """Ask one HIS for the bills issued since the last time."""
        site = await self.institutions.site(due.institution_id, due.id)
        row = await scoped(due.institution_id).of(HospitalSiteRow).get(id=due.id)
        profile = await self.institutions.profile(due.institution_id)
        now = self.outside.clock.now()
        pause = timedelta(seconds=profile.settings.poll_seconds)
        if not site.capabilities.poll_bills:
            await (
                scoped(due.institution_id)
                .of(HospitalSiteRow)
                .filter(id=due.id)
                .update(due_at=None, lease_until=None, holder="")
            )
            return
        since = row.polled_until - OVERLAP if row.polled_until else now - FIRST_WINDOW
        until = min(now, since + WINDOW_MAX)
        try:
            bills = await self.outside.hospitals[site.adapter].list_new_bills(site, since, until)
            for bill in bills:
                await self._announce(site, bill)
            await self._look_after_open_payments(site, bills)
        except (NotReached, OutcomeUnknown, Refused):
            later = now + max(pause, backoff(due.attempts))
            await give_back("hospital_site", due.id, due.institution_id, holder=due.holder, due_at=later)
            return
        await scoped(due.institution_id).of(HospitalSiteRow).filter(id=due.id).update(polled_until=until, attempts=0)
        next_at = now if until < now else now + pause
        await give_back("hospital_site", due.id, due.institution_id, holder=due.holder, due_at=next_at)

    async def _look_after_open_payments(self, site: HospitalSite, listed: Sequence[Bill]) -> None:
        """Nobody is to pay for what the window has taken or the doctor has cancelled meanwhile."""
        known = {bill.his_bill_id: bill for bill in listed}
        for his_bill_id in await self.payments.bills_being_paid(site, limit=OPEN_ASKED_MAX):
            bill = known.get(his_bill_id)
            if bill is None and not site.capabilities.events:
                bill = await self.outside.hospitals[site.adapter].get_bill(site, his_bill_id)
            if bill is not None and bill.state in TAKEN_STATES:
                await self.payments.bill_ended_elsewhere(site.institution_id, site.branch, his_bill_id)
