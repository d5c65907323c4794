"""What a patient owes: always asked from the HIS, at the moment somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from core.errors import BillNotPayable, NotFound
from core.guarded import asking_hospital
from core.institutions import Institutions, InsuredOnline, Profile
from core.outside import Outside
from core.patients import Patients
from core.ports import Bill, HospitalSite, PaidRecord

CLOCK_AHEAD = timedelta(minutes=5)
"""The HIS's clock may be ahead of ours: what it has just booked belongs in the list."""

BILLS_ASKED_AT_ONCE = 4
"""Of those that are to be paid together: a HIS bears few calls at once."""

ENDED_STATES = frozenset({"paid", "cancelled", "expired"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownBill:
    """A bill with what the page must know: may it be paid here, and if not, why."""

    bill: Bill
    payable: bool
    reason: str = ""  # a key of texts.ERRORS under bill_not_payable, or empty
    his_text: str = ""
    needs_second_tap: bool = False


@dataclass(frozen=True, slots=True)
class Bills:
    outside: Outside
    institutions: Institutions
    patients: Patients

    async def unpaid(self, institution_id: UUID, payer_id: UUID, patient_id: UUID) -> list[ShownBill]:
        """Live from every HIS that knows this person. Raises PatientNotBound, HospitalUnavailable.

        One silent HIS makes the whole list unavailable: "nothing to pay" is only said when everybody said so.
        """
        await self.patients.check_bound(institution_id, payer_id, patient_id)
        profile = await self.institutions.profile(institution_id)
        sites = {site.branch: site for site in await self.institutions.sites(institution_id)}
        found: list[Bill] = []
        for his_id in await self.patients.his_ids(institution_id, patient_id):
            site = sites[his_id.branch]
            async with asking_hospital():
                found += await self.outside.hospitals[site.adapter].list_bills(site, his_id.his_patient_id)
        unpaid = {(bill.branch, bill.his_bill_id): bill for bill in found if bill.state in {"unpaid", "unknown"}}
        return [
            self.shown(bill, profile)
            for bill in sorted(
                unpaid.values(),
                key=lambda bill: (-(bill.issued_at.timestamp() if bill.issued_at else 0), bill.his_bill_id),
            )
        ]

    async def detail(
        self, institution_id: UUID, payer_id: UUID, patient_id: UUID, branch: str, his_bill_id: str
    ) -> ShownBill:
        """One bill with its items. Raises PatientNotBound, NotFound, HospitalUnavailable."""
        return (await self.several(institution_id, payer_id, patient_id, [(branch, his_bill_id)]))[0]

    async def several(
        self, institution_id: UUID, payer_id: UUID, patient_id: UUID, keys: Sequence[tuple[str, str]]
    ) -> list[ShownBill]:
        """Bills that are to be paid together, in this order. Raises what `for_payment` raises."""
        bills, _ = await self.for_payment(institution_id, payer_id, patient_id, keys)
        profile = await self.institutions.profile(institution_id)
        return [self.shown(bill, profile) for bill in bills]

    async def for_payment(
        self, institution_id: UUID, payer_id: UUID, patient_id: UUID, keys: Sequence[tuple[str, str]]
    ) -> tuple[list[Bill], HospitalSite]:
        """These bills as the HIS has them now, all of this patient and of one branch.

        A paper that the payer has opened is as good as a binding for the bills that it opens.
        Raises PatientNotBound, NotFound (another family's bill looks like none at all), HospitalUnavailable.
        """
        access = await self.patients.access(institution_id, payer_id, patient_id)
        if len({branch for branch, _ in keys}) != 1:
            raise BillNotPayable(reason="branches")
        branch = keys[0][0]
        site = next((site for site in await self.institutions.sites(institution_id) if site.branch == branch), None)
        if site is None:
            raise NotFound()
        mine = {
            his_id.his_patient_id
            for his_id in await self.patients.his_ids(institution_id, patient_id)
            if his_id.branch == branch
        }
        bills: list[Bill] = []
        for start in range(0, len(keys), BILLS_ASKED_AT_ONCE):
            some = keys[start : start + BILLS_ASKED_AT_ONCE]
            for bill in await asyncio.gather(*(self._bill(site, his_bill_id) for _, his_bill_id in some)):
                if bill is None or bill.his_patient_id not in mine or not access.covers(site, bill):
                    raise NotFound()
                bills.append(bill)
        is_twice = len({bill.his_bill_id for bill in bills}) != len(bills)  # one number, spelled in two ways
        if is_twice or len({bill.his_patient_id for bill in bills}) != 1:
            raise BillNotPayable(reason="refused")
        return bills, site

    async def _bill(self, site: HospitalSite, his_bill_id: str) -> Bill | None:
        async with asking_hospital():
            return await self.outside.hospitals[site.adapter].get_bill(site, his_bill_id)

    async def paid(self, institution_id: UUID, payer_id: UUID, patient_id: UUID) -> list[PaidRecord]:
        """What the HIS lists as paid, window payments too; empty where a HIS cannot list it."""
        await self.patients.check_bound(institution_id, payer_id, patient_id)
        profile = await self.institutions.profile(institution_id)
        sites = {site.branch: site for site in await self.institutions.sites(institution_id)}
        now = self.outside.clock.now()
        since, until = now - timedelta(days=profile.settings.paid_list_days), now + CLOCK_AHEAD
        found: list[PaidRecord] = []
        for his_id in await self.patients.his_ids(institution_id, patient_id):
            site = sites[his_id.branch]
            if site.capabilities.list_paid:
                async with asking_hospital():
                    found += await self.outside.hospitals[site.adapter].list_paid(
                        site, his_id.his_patient_id, since, until
                    )
        return sorted(found, key=lambda record: record.paid_at, reverse=True)

    def shown(self, bill: Bill, profile: Profile) -> ShownBill:
        """What a page must know of this bill."""
        settings = profile.settings
        now = self.outside.clock.now()
        if bill.state != "unpaid":
            return ShownBill(bill=bill, payable=False, reason=bill.state if bill.state in ENDED_STATES else "refused")
        if bill.valid_until is not None and bill.valid_until <= now:
            return ShownBill(bill=bill, payable=False, reason="expired")
        if not bill.payable_online:
            return ShownBill(bill=bill, payable=False, reason="window_only", his_text=bill.not_payable_reason)
        if bill.to_pay_fen > settings.amount_max_fen:
            return ShownBill(bill=bill, payable=False, reason="too_large")
        if bill.insured and settings.insured_online is InsuredOnline.BLOCKED:
            return ShownBill(bill=bill, payable=False, reason="insured")
        return ShownBill(bill=bill, payable=True, needs_second_tap=bill.insured)
