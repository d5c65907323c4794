"""Starting a payment: may it be, what stands in its way, and its rows; core/placing.py goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from tortoise.exceptions import IntegrityError

from core.bills import ENDED_STATES, Bills
from core.clock import shanghai
from core.errors import (
    AlreadyPaid,
    AmountChanged,
    BillNotPayable,
    ChannelUnavailable,
    IdempotencyConflict,
    InvalidRequest,
    PaymentOpenElsewhere,
    StillWorking,
)
from core.institutions import Institutions, Profile
from core.models import HisLock, IdempotencyRecord, Payer, Payment, PaymentLine, PaymentMethod
from core.money import Fen
from core.outside import Outside
from core.payments import LEASE, Payments, Started
from core.placing import Placing
from core.ports import (
    Bill,
    ConfirmUnit,
    HospitalSite,
    Scene,
)
from core.states import HOLDS_BILL, OPEN_PAYMENT, LineStatus, LockStatus, PaymentStatus
from core.tenancy import scoped
from core.together import check_group, check_number
from core.transactions import atomically, rows, violated

PAID_ELSEWHERE = frozenset({*HOLDS_BILL, LineStatus.WAITING})


@dataclass(frozen=True, kw_only=True, slots=True)
class StartPayment:
    """What a payer wants to pay. `shown_fen` is the amount that the page showed."""

    payer_id: UUID
    institution_id: UUID
    patient_id: UUID
    bills: tuple[tuple[str, str], ...]  # (branch, his_bill_id), each once
    shown_fen: Fen
    method: str
    scene: Scene = Scene.MOBILE
    accept_self_paid: bool = False  # the second tap on an insured bill
    despite_open: bool = False  # go on although another attempt may still succeed
    key: str  # Idempotency-Key

    @property
    def digest(self) -> str:
        said = [
            str(self.patient_id),
            sorted(self.bills),
            self.shown_fen,
            self.method,
            self.scene,
            self.accept_self_paid,
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Starting:
    outside: Outside
    institutions: Institutions
    bills: Bills
    payments: Payments
    placing: Placing

    async def start(self, wanted: StartPayment) -> Started:
        """Begin a payment for these bills, or hand out the one that is open already.

        Raises a RequestError; whenever one is raised, nobody has been charged by this call.
        """
        profile = await self.institutions.profile(wanted.institution_id)
        if not wanted.bills or len(set(wanted.bills)) != len(wanted.bills):
            raise InvalidRequest(field="bills", problem="at least one bill, each once")
        check_number(len(wanted.bills), profile.settings)
        if not wanted.key or len(wanted.key) > 128:
            raise InvalidRequest(field="Idempotency-Key", problem="1 to 128 characters are needed")
        if (answered := await self._answered(wanted)) is not None:
            return answered
        payer = await scoped(wanted.institution_id).get(Payer, id=wanted.payer_id)
        chat = await self.institutions.chat_account(wanted.institution_id, payer.chat_account_id)
        method = await self.institutions.method(
            wanted.institution_id, wanted.method, scene=wanted.scene, app_id=chat.app_id
        )
        bills, site = await self.bills.for_payment(
            wanted.institution_id, wanted.payer_id, wanted.patient_id, wanted.bills
        )
        self._check_payable(bills, wanted, profile)
        resumed = await self._make_way(wanted, bills, method)
        if resumed is not None:
            return resumed
        payment = await self._create_rows(wanted, bills, site, method)
        return await self.placing.carry_through(payment, bills, site, profile)

    def _check_payable(self, bills: Sequence[Bill], wanted: StartPayment, profile: Profile) -> None:
        now = self.outside.clock.now()
        check_group(bills)
        for bill in bills:
            if bill.state != "unpaid":
                raise BillNotPayable(reason=bill.state if bill.state in ENDED_STATES else "refused")
            if bill.valid_until is not None and bill.valid_until <= now:
                raise BillNotPayable(reason="expired")
            if bill.insured and not (profile.settings.insured_online.value == "second_tap" and wanted.accept_self_paid):
                raise BillNotPayable(reason="insured")
            if not bill.payable_online:
                raise BillNotPayable(reason="window_only", his_text=bill.not_payable_reason)
        amount = Fen(sum(bill.to_pay_fen for bill in bills))
        if amount != wanted.shown_fen:
            raise AmountChanged(shown_fen=wanted.shown_fen, amount_fen=amount)
        if amount > profile.settings.amount_max_fen:
            raise BillNotPayable(reason="too_large")

    async def _answered(self, wanted: StartPayment) -> Started | None:
        """The answer this key had before, if the request is the same; raises IdempotencyConflict, StillWorking."""
        record = await scoped(wanted.institution_id).get_or_none(
            IdempotencyRecord, actor=str(wanted.payer_id), route="payments.start", key=wanted.key
        )
        if record is None:
            return None
        if record.request_digest != wanted.digest:
            raise IdempotencyConflict()
        if record.payment_id is None:
            return None
        payment = await scoped(wanted.institution_id).get(Payment, id=record.payment_id)
        if payment.status is PaymentStatus.PENDING and (started := self.payments.handed_out(payment)) is not None:
            return started
        if payment.status is PaymentStatus.PAID:
            raise AlreadyPaid(order_no=payment.order_no)
        if payment.status is PaymentStatus.CREATED and self._is_leased(payment):
            raise StillWorking()
        return None  # it has ended without being paid, or nobody is at it any more: the same key may begin anew

    async def _make_way(self, wanted: StartPayment, bills: Sequence[Bill], method: PaymentMethod) -> Started | None:
        """Resume what is the same, end what stands in the way.

        Raises AlreadyPaid, StillWorking or PaymentOpenElsewhere.
        """
        for bill in bills:
            line = await self._line_in_the_way(wanted.institution_id, bill)
            if line is None:
                continue
            other = await scoped(wanted.institution_id).get(Payment, id=line.payment_id)
            if other.status is PaymentStatus.PAID:
                raise self._already_paid(other, wanted)
            is_same = await self._is_same(other, wanted, bills, method)
            if is_same:
                if (started := self.payments.handed_out(other)) is not None:
                    return started
                if other.status is PaymentStatus.CREATED and self._is_leased(other):
                    raise StillWorking()
            started = await self._supersede(other, wanted, is_same=is_same)
            if started is not None:
                return started
        for bill in bills:
            before = await scoped(wanted.institution_id).find(
                PaymentLine, branch=bill.branch, his_bill_id=bill.his_bill_id, status=LineStatus.VOID
            )
            numbers = [line.confirm_no for line in before]
            if numbers:
                await self.payments.free_locks(scoped(wanted.institution_id).of(HisLock).filter(confirm_no__in=numbers))
        return None

    def _already_paid(self, payment: Payment, wanted: StartPayment) -> AlreadyPaid:
        """With the order number for its own payer alone."""
        return AlreadyPaid(order_no=payment.order_no) if payment.payer_id == wanted.payer_id else AlreadyPaid()

    async def _line_in_the_way(self, institution_id: UUID, bill: Bill) -> PaymentLine | None:
        """A line that claims or holds this bill, or is paid and waits for it."""
        lines = await scoped(institution_id).find(
            PaymentLine, ("id",), branch=bill.branch, his_bill_id=bill.his_bill_id, status=PAID_ELSEWHERE
        )
        for line in lines:
            if line.claims_bill or line.status in HOLDS_BILL or line.due_at is not None:
                return line
        return None

    async def _is_same(
        self, other: Payment, wanted: StartPayment, bills: Sequence[Bill], method: PaymentMethod
    ) -> bool:
        """Same payer, bills, amount and way of paying."""
        if (other.payer_id, other.method) != (wanted.payer_id, method.code):
            return False
        lines = await scoped(wanted.institution_id).of(PaymentLine).filter(payment_id=other.id)
        return {(line.branch, line.his_bill_id, line.amount_fen) for line in lines} == {
            (bill.branch, bill.his_bill_id, bill.to_pay_fen) for bill in bills
        }

    def _is_leased(self, payment: Payment) -> bool:
        return payment.lease_until is not None and payment.lease_until > self.outside.clock.now()

    async def _supersede(self, other: Payment, wanted: StartPayment, *, is_same: bool) -> Started | None:
        """End another open attempt for the same bill, with proof; where there is none yet, go on with the same one."""
        ended = await self.payments.end(other)
        if ended.status is PaymentStatus.PAID:
            raise self._already_paid(ended, wanted)
        if ended.status not in OPEN_PAYMENT:
            return None
        if is_same and ended.status is PaymentStatus.CREATED and not wanted.despite_open:
            with suppress(ChannelUnavailable):  # then he is told as for any other
                if (started := await self.placing.again(ended)) is not None:
                    return started
        if not wanted.despite_open:
            account = await self.institutions.merchant(ended.institution_id, ended.merchant_account_id)
            until = self.payments.absent_from(ended, self.outside.channels[account.channel])
            raise PaymentOpenElsewhere(until=f"{shanghai(until + timedelta(minutes=1)):%H:%M}")
        # The patient goes on knowingly: the claim on these bills and what the HIS holds for them are given up, not
        # those on the other bills of that attempt. Should both be paid, the one that is booked second is surplus, or
        # refused by the HIS, and returned by itself.
        scope = scoped(other.institution_id)
        taken = [
            line
            for line in await scope.find(PaymentLine, payment_id=other.id, claims_bill=True)
            if (line.branch, line.his_bill_id) in wanted.bills
        ]
        locks = scope.of(HisLock).filter(payment_id=other.id, confirm_no__in=[line.confirm_no for line in taken])
        await locks.filter(status=LockStatus.HELD).update(status=LockStatus.RELEASING, due_at=self.outside.clock.now())
        await self.payments.free_locks(locks)
        for line in taken:
            await scope.change(PaymentLine, {"id": line.id}, claims_bill=False)
        return None

    async def _create_rows(
        self, wanted: StartPayment, bills: Sequence[Bill], site: HospitalSite, method: PaymentMethod
    ) -> Payment:
        """Payment, lines, claims, lock and idempotency record in one transaction; raises StillWorking when beaten."""
        now = self.outside.clock.now()
        payment_id = self.outside.ids.uuid()

        async def write() -> Payment:
            payment = await Payment.create(
                id=payment_id,
                institution_id=wanted.institution_id,
                merchant_account_id=method.merchant_account_id,
                payer_id=wanted.payer_id,
                patient_id=wanted.patient_id,
                site_id=site.id,
                his_patient_id=bills[0].his_patient_id,
                method=method.code,
                app_id=method.app_id,
                scene=wanted.scene.value,
                order_no=self.outside.ids.order_no(),
                asked_fen=Fen(sum(bill.to_pay_fen for bill in bills)),
                created_at=now,
                due_at=now + LEASE,
                lease_until=now + LEASE,
                holder=self.outside.lease_name(),
            )
            numbers: dict[str, str] = {}
            for position, bill in enumerate(sorted(bills, key=lambda bill: (bill.branch, bill.his_bill_id))):
                group = _group_key(site.capabilities.confirm_unit, bill)
                if group not in numbers:
                    numbers[group] = self.outside.ids.confirm_no()
                await PaymentLine.create(
                    id=self.outside.ids.uuid(),
                    institution_id=wanted.institution_id,
                    payment_id=payment_id,
                    position=position,
                    branch=bill.branch,
                    his_bill_id=bill.his_bill_id,
                    visit_no=bill.visit_no[:64],
                    kind=bill.kind.value,
                    kind_text=bill.kind_text[:64],
                    title=bill.title[:128],
                    amount_fen=bill.to_pay_fen,
                    confirm_no=numbers[group],
                )
            if site.capabilities.lock:
                for confirm_no in numbers.values():
                    await HisLock.create(
                        id=self.outside.ids.uuid(),
                        institution_id=wanted.institution_id,
                        payment_id=payment_id,
                        site_id=site.id,
                        confirm_no=confirm_no,
                        created_at=now,
                        due_at=now + LEASE,
                    )
            kept = await rows(
                "INSERT INTO idempotency_record (id, institution_id, actor, route, key, request_digest, payment_id,"
                " created_at) VALUES ($1, $2, $3, 'payments.start', $4, $5, $6, $7)"
                " ON CONFLICT ON CONSTRAINT idempotency_record_once DO UPDATE SET payment_id = excluded.payment_id"
                " WHERE idempotency_record.request_digest = excluded.request_digest RETURNING id",
                self.outside.ids.uuid(),
                wanted.institution_id,
                str(wanted.payer_id),
                wanted.key,
                wanted.digest,
                payment_id,
                now,
            )
            if not kept:
                raise IdempotencyConflict()
            return payment

        try:
            return await atomically(write)
        except IntegrityError as error:
            if violated(error) != "payment_line_claim":
                raise
            raise StillWorking() from error


def _group_key(unit: ConfirmUnit, bill: Bill) -> str:
    """Bills with the same key are booked as one by the HIS."""
    if unit is ConfirmUnit.PAYMENT:
        return "payment"
    if unit is ConfirmUnit.VISIT:
        return f"visit:{bill.branch}:{bill.visit_no}"
    return f"bill:{bill.branch}:{bill.his_bill_id}"
