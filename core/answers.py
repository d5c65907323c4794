"""What a payer is told in the chat about his affairs: asked from HIS and our own rows at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from core.bills import Bills, ShownBill
from core.chat_texts import (
    ChatLinks,
    ChatQuestion,
    OwedBill,
    OwedTogether,
    PaidPayment,
    hospital_silent_text,
    not_bound_text,
    owed_text,
    paid_text,
    patients_text,
)
from core.errors import BillNotPayable, HospitalUnavailable, PatientNotBound
from core.institutions import Institutions, InstitutionSettings, Profile
from core.models import Payer, Payment, PaymentLine
from core.money import Fen
from core.outside import Outside
from core.patients import BoundPatient, Patients
from core.persons import same_person
from core.states import HOLDS_BILL, LineStatus, PaymentStatus
from core.tenancy import scoped
from core.together import bills_max, groups
from core.viewing import payment_view

PAID_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Answers:
    outside: Outside
    institutions: Institutions
    patients: Patients
    bills: Bills

    def links(self, profile: Profile) -> ChatLinks:
        return ChatLinks(f"{self.outside.public_url}/h/{profile.code}")

    async def text(self, payer: Payer, question: ChatQuestion) -> str:
        """The answer in the payer's language, with links. A silent HIS is said to be silent."""
        profile = await self.institutions.profile(payer.institution_id)
        links = self.links(profile)
        bound = await self.patients.bound(payer)
        if not bound:
            payer = await self.patients.joined(payer)
            bound = await self.patients.bound(payer)
        if question is ChatQuestion.PATIENTS:
            return patients_text([patient.masked_name for patient in bound], links, payer.language)
        if question is ChatQuestion.PAID:
            return paid_text(await self._paid(payer), links, payer.language)
        if not bound:
            return not_bound_text(links, payer.language)
        asked = await asyncio.gather(*(self._owed(payer, patient) for patient in bound))
        owed, together = [], []
        for patient, bills in zip(bound, asked, strict=True):
            owed += [_owed_bill(patient, each, links) for each in bills or ()]
            together += _owed_together(patient, bills or (), links, profile.settings)
        some_silent = None in asked
        if some_silent and not owed:
            return hospital_silent_text(links, payer.language)
        return owed_text(owed, links, payer.language, together=together, some_silent=some_silent)

    async def _owed(self, payer: Payer, patient: BoundPatient) -> list[ShownBill] | None:
        """A bill that has been paid through us and that the HIS has not booked yet is not owed. None: not told."""
        try:
            shown = await self.bills.unpaid(payer.institution_id, payer.id, patient.patient_id)
        except (HospitalUnavailable, BillNotPayable):
            return None
        except PatientNotBound:
            return []  # unbound a moment ago
        taken = await self._taken(payer, [each.bill.his_bill_id for each in shown])
        return [each for each in shown if (each.bill.branch, each.bill.his_bill_id) not in taken]

    async def _taken(self, payer: Payer, his_bill_ids: list[str]) -> set[tuple[str, str]]:
        if not his_bill_ids:
            return set()
        scope = scoped(payer.institution_id)
        lines = await scope.of(PaymentLine).filter(
            his_bill_id__in=his_bill_ids, status__in=[*HOLDS_BILL, LineStatus.WAITING]
        )
        paid = {
            payment.id
            for payment in await scope.of(Payment).filter(
                id__in=[line.payment_id for line in lines], status=PaymentStatus.PAID
            )
        }
        return {
            (line.branch, line.his_bill_id) for line in lines if line.status in HOLDS_BILL or line.payment_id in paid
        }

    async def _paid(self, payer: Payer) -> list[PaidPayment]:
        """This person's own payments that took money, on whatever account, newest first."""
        scope = scoped(payer.institution_id)
        persons = await same_person(payer.institution_id, payer.id)
        payments = (
            await scope.of(Payment)
            .filter(payer_id__in=persons, status=PaymentStatus.PAID)
            .order_by("-paid_at")
            .limit(PAID_SHOWN_MAX)
        )
        lines = await scope.of(PaymentLine).filter(payment_id__in=[payment.id for payment in payments])
        return [
            PaidPayment(
                amount_fen=payment.paid_fen,
                refunded_fen=payment.refunded_fen,
                at=payment.paid_at or payment.created_at,
                status=payment_view(payment, [line for line in lines if line.payment_id == payment.id]),
            )
            for payment in payments
        ]


def _owed_bill(patient: BoundPatient, each: ShownBill, links: ChatLinks) -> OwedBill:
    return OwedBill(
        masked_name=patient.masked_name,
        amount_fen=each.bill.to_pay_fen,
        url=links.bill(patient.patient_id, each.bill.branch, each.bill.his_bill_id),
        payable=each.payable,
    )


def _owed_together(
    patient: BoundPatient, bills: Sequence[ShownBill], links: ChatLinks, settings: InstitutionSettings
) -> list[OwedTogether]:
    """One link, where there is only one group and the institution takes it whole."""
    offered = groups([each.bill for each in bills if each.payable], settings)
    if len(offered) != 1 or len(offered[0]) > bills_max(settings):
        return []
    return [
        OwedTogether(
            masked_name=patient.masked_name,
            count=len(offered[0]),
            amount_fen=Fen(sum(bill.to_pay_fen for bill in offered[0])),
            url=links.together(patient.patient_id),
        )
    ]
