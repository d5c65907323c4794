"""All services in one frozen value, handed to every program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from core.applying import Applier
from core.bills import Bills
from core.cases import Cases
from core.confirmations import Confirmations
from core.followup import FollowUp
from core.inbound import Inbounds
from core.institutions import Institutions
from core.ledger import Ledger
from core.locks import Locks
from core.messages import Messages
from core.newbills import NewBills
from core.outside import Outside
from core.patients import Patients
from core.payments import Payments
from core.refunds import Refunds
from core.rotation import Rotation


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What a program needs of the domain."""

    outside: Outside
    institutions: Institutions
    patients: Patients
    bills: Bills
    payments: Payments
    confirmations: Confirmations
    locks: Locks
    refunds: Refunds
    messages: Messages
    new_bills: NewBills
    inbounds: Inbounds
    cases: Cases
    applier: Applier
    rotation: Rotation

    @classmethod
    def on(cls, outside: Outside) -> Self:
        """Wire the domain on top of the given adapters."""
        institutions = Institutions(outside)
        cases = Cases(outside)
        messages = Messages(outside, institutions, cases)
        applier = Applier(outside, Ledger(outside), cases, messages)
        patients = Patients(outside, institutions)
        bills = Bills(outside, institutions, patients)
        locks = Locks(outside, institutions, cases)
        payments = Payments(outside, institutions, bills, locks, applier, cases)
        new_bills = NewBills(outside, institutions, patients, messages)
        confirmations = Confirmations(outside, institutions, applier, cases)
        refunds = Refunds(outside, institutions, applier, cases)
        follow_up = FollowUp(outside, confirmations, refunds, messages)
        return cls(
            outside=outside,
            institutions=institutions,
            patients=patients,
            bills=bills,
            payments=payments,
            confirmations=confirmations,
            locks=locks,
            refunds=refunds,
            messages=messages,
            new_bills=new_bills,
            inbounds=Inbounds(outside, institutions, applier, payments, new_bills, cases, follow_up),
            cases=cases,
            applier=applier,
            rotation=Rotation(outside),
        )
