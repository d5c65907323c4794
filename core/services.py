"""All services in one frozen value, handed to every program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from core.adopting import Adopting
from core.answers import Answers
from core.applying import Applier
from core.arriving import Arriving
from core.attesting import Attesting
from core.audit import Audit
from core.bills import Bills
from core.case_actions import CaseActions
from core.case_work import CaseWork
from core.cases import Cases
from core.channel_side import ChannelSide
from core.confirmations import Confirmations
from core.consents import Consents
from core.decisions import Decisions
from core.disputes import Disputes
from core.external_refunds import ExternalRefunds
from core.failing import Failing
from core.followup import FollowUp
from core.guesses import Guesses
from core.his_attesting import HisAttesting
from core.hospital_refunds import HospitalRefunds
from core.hospital_side import HospitalSide
from core.inbound import Inbounds
from core.institutions import Institutions
from core.ledger import Ledger
from core.locks import Locks
from core.messages import Messages
from core.newbills import NewBills
from core.outside import Outside
from core.paper import Papers
from core.patients import Patients
from core.payment_files import PaymentFiles
from core.payment_rows import PaymentRows
from core.payments import Payments
from core.phones import Phones
from core.placing import Placing
from core.red_receipts import RedReceipts
from core.refund_side import RefundSide
from core.refunds import Refunds
from core.returning import Returning
from core.reversals import Reversals
from core.reversing import Reversing
from core.rotation import Rotation
from core.seals import Seals
from core.staff import StaffService
from core.staff_refunds import StaffRefunds
from core.starting import Starting
from core.telling import Telling
from core.wrong_amount import WrongAmount


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
    starting: Starting
    payments: Payments
    confirmations: Confirmations
    locks: Locks
    returning: Returning
    refunds: Refunds
    messages: Messages
    new_bills: NewBills
    inbounds: Inbounds
    cases: Cases
    failing: Failing
    applier: Applier
    rotation: Rotation
    adopting: Adopting
    seals: Seals
    staff: StaffService
    audit: Audit
    payment_files: PaymentFiles
    decisions: Decisions
    case_work: CaseWork
    staff_refunds: StaffRefunds

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
        steps = PaymentRows(Ledger(outside))
        telling = Telling(outside, messages)
        returning = Returning(outside, steps, cases, telling)
        arriving = Arriving(outside, steps, cases, messages)
        reversals = Reversals(outside, steps, cases, arriving)
        external = ExternalRefunds(outside, steps, cases, arriving)
        disputes = Disputes(outside, steps, returning, arriving, cases)
        red_receipts = RedReceipts(outside, institutions, steps, reversals, external, cases)
        hospital_side = HospitalSide(outside, steps, disputes, red_receipts, cases, telling)
        applier = Applier(
            outside,
            ChannelSide(outside, steps, hospital_side, returning, external, cases),
            hospital_side,
            RefundSide(outside, steps, returning, reversals, external, cases, arriving),
        )
        locks = Locks(outside, institutions, cases)
        payments = Payments(outside, institutions, locks, applier, cases)
        placing = Placing(outside, institutions, locks, payments, applier, cases)
        new_bills = NewBills(outside, institutions, patients, messages, payments)
        confirmations = Confirmations(outside, institutions, applier, cases)
        reversing = Reversing(outside, institutions, applier, reversals, cases)
        refunds = Refunds(outside, institutions, applier, hospital_side, returning, reversing, external, cases)
        hospital_refunds = HospitalRefunds(outside, applier, cases)
        audit = Audit(outside)
        follow_up = FollowUp(outside, confirmations, refunds, messages)
        inbounds = Inbounds(outside, institutions, applier, payments, new_bills, hospital_refunds, cases, follow_up)
        files = PaymentFiles(outside, patients, audit)
        staff_refunds = StaffRefunds(outside, institutions, reversals, cases, audit, follow_up)
        decisions = Decisions(
            outside,
            Attesting(outside, institutions, applier, external),
            HisAttesting(outside, institutions, applier, disputes),
            WrongAmount(outside, steps, hospital_side, returning, cases),
            staff_refunds,
            follow_up,
            audit,
        )
        actions = CaseActions(outside, payments, locks, returning, inbounds, follow_up, audit)
        return cls(
            outside=outside,
            institutions=institutions,
            consents=consents,
            patients=patients,
            bills=bills,
            papers=Papers(outside, institutions, patients, bills, consents, Guesses(outside)),
            phones=Phones(outside, institutions, messages),
            answers=answers,
            starting=Starting(outside, institutions, bills, payments, placing),
            payments=payments,
            confirmations=confirmations,
            locks=locks,
            returning=returning,
            refunds=refunds,
            messages=messages,
            new_bills=new_bills,
            inbounds=inbounds,
            cases=cases,
            failing=Failing(cases),
            applier=applier,
            rotation=Rotation(outside),
            adopting=Adopting(outside, institutions, payments, cases),
            seals=Seals(outside),
            staff=StaffService(outside),
            audit=audit,
            payment_files=files,
            decisions=decisions,
            case_work=CaseWork(outside, files, decisions, actions, audit),
            staff_refunds=staff_refunds,
        )
