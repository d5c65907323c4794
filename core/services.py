"""All services in one frozen value, handed to every program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from core.answers import Answers
from core.applying import Applier
from core.bills import Bills
from core.cases import Cases
from core.confirmations import Confirmations
from core.consents import Consents
from core.followup import FollowUp
from core.guesses import Guesses
from core.inbound import Inbounds
from core.institutions import Institutions
from core.ledger import Ledger
from core.locks import Locks
from core.messages import Messages
from core.newbills import NewBills
from core.outside import Outside
from core.paper import Papers
from core.patients import Patients
from core.payments import Payments
from core.phones import Phones
from core.refunds import Refunds
from core.rotation import Rotation


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What a program needs of the domain."""

    outside: Outside
    institutions: Institutions
    consents: Consents
    patients: Patients
    bills: Bills
    papers: Papers
    phones: Phones
    answers: Answers
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
        consents = Consents(outside)
        patients = Patients(outside, institutions, consents)
        bills = Bills(outside, institutions, patients)
        answers = Answers(outside, institutions, patients, bills)
        messages = Messages(outside, institutions, cases, consents, answers)
        applier = Applier(outside, Ledger(outside), cases, messages)
        locks = Locks(outside, institutions, cases)
        payments = Payments(outside, institutions, bills, locks, applier, cases)
        new_bills = NewBills(outside, institutions, patients, messages)
        confirmations = Confirmations(outside, institutions, applier, cases)
        refunds = Refunds(outside, institutions, applier, cases)
        follow_up = FollowUp(outside, confirmations, refunds, messages)
        return cls(
            outside=outside,
            institutions=institutions,
            consents=consents,
            patients=patients,
            bills=bills,
            papers=Papers(outside, institutions, patients, bills, consents, Guesses(outside)),
            phones=Phones(outside, institutions, messages),
            answers=answers,
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
