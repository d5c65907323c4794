"""Starting a payment, asking after it, ending it, and what its payer sees of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tortoise.exceptions import IntegrityError
from tortoise.queryset import QuerySet

from core.applying import Applier, lock_payment
from core.bills import ENDED_STATES, Bills
from core.cases import Cases
from core.clock import shanghai
from core.due import DueRow, backoff, begin_send, give_back, send_had_no_effect, take
from core.errors import (
    AlreadyPaid,
    AmountChanged,
    BillNotPayable,
    ChannelUnavailable,
    ConfigurationError,
    HospitalUnavailable,
    IdempotencyConflict,
    InvalidRequest,
    MethodNotAvailable,
    NotFound,
    NotReached,
    OutcomeUnknown,
    PaymentOpenElsewhere,
    Refused,
    StillWorking,
)
from core.evidence import never_sent_evidence, nothing_to_collect_evidence, refusal_evidence, trade_evidence
from core.guarded import REFUSAL_REASONS
from core.institutions import Institutions, Profile
from core.locks import Locks
from core.models import HisLock, IdempotencyRecord, Payer, Payment, PaymentLine, PaymentMethod
from core.money import Fen
from core.outside import Outside
from core.persons import same_person
from core.ports import (
    Bill,
    Channel,
    ConfirmUnit,
    HospitalSite,
    LockOrder,
    MerchantAccount,
    PayParams,
    Scene,
    Trade,
    TradeOrder,
)
from core.states import HOLDS_BILL, OPEN_PAYMENT, LineStatus, LockStatus, PaymentStatus, ProofKind
from core.tenancy import across_institutions, scoped
from core.transactions import atomically, rows, violated

LEASE = timedelta(seconds=90)
"""How long a request holds the payment it has begun before it must say again that it is still at it."""

RESUME_LEFT = timedelta(seconds=30)
"""A pay sheet with less life than this is not handed out again."""

CASE_AFTER = timedelta(minutes=30)
PAGE_ASKS_EVERY = timedelta(seconds=3)
LOCK_ASKED_SECONDS = 900
IDEMPOTENCY_LIFE = timedelta(days=7)
DESCRIPTION = "门诊缴费"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A payment that waits for its payer; `pay` is None when there is nothing to collect."""

    order_no: str
    amount_fen: Fen
    expires_at: datetime
    pay: PayParams | None
    resumed: bool


@dataclass(frozen=True, slots=True)
class Payments:
    outside: Outside
    institutions: Institutions
    bills: Bills
    locks: Locks
    applier: Applier
    cases: Cases

    # ------------------------------------------------------------ start

    async def start(self, wanted: StartPayment) -> Started:
        """Begin a payment for these bills, or hand out the one that is open already.

        Raises a RequestError; whenever one is raised, nobody has been charged by this call.
        """
        profile = await self.institutions.profile(wanted.institution_id)
        if not wanted.bills or len(set(wanted.bills)) != len(wanted.bills):
            raise InvalidRequest(field="bills", problem="at least one bill, each once")
        if len(wanted.bills) > (profile.settings.merge_max if profile.settings.merge else 1):
            raise InvalidRequest(field="bills", problem="these bills cannot be paid together")
        if not wanted.key or len(wanted.key) > 128:
            raise InvalidRequest(field="Idempotency-Key", problem="1 to 128 characters are needed")
        if (answered := await self._answered(wanted)) is not None:
            return answered
        payer = await scoped(wanted.institution_id).of(Payer).get(id=wanted.payer_id)
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
        return await self._carry_through(payment, wanted, bills, site, profile)

    def _check_payable(self, bills: Sequence[Bill], wanted: StartPayment, profile: Profile) -> None:
        now = self.outside.clock.now()
        if len(bills) > 1 and (len({bill.merge_group for bill in bills}) != 1 or not bills[0].merge_group):
            raise BillNotPayable(reason="not_together")
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
        record = await (
            scoped(wanted.institution_id)
            .of(IdempotencyRecord)
            .get_or_none(actor=str(wanted.payer_id), route="payments.start", key=wanted.key)
        )
        if record is None:
            return None
        if record.request_digest != wanted.digest:
            raise IdempotencyConflict()
        if record.payment_id is None:
            return None
        payment = await scoped(wanted.institution_id).of(Payment).get(id=record.payment_id)
        if payment.status is PaymentStatus.PENDING and (started := self._handed_out(payment)) is not None:
            return started
        if payment.status is PaymentStatus.PAID:
            raise AlreadyPaid(order_no=payment.order_no)
        if payment.status is PaymentStatus.CREATED and self._is_leased(payment):
            raise StillWorking()
        return None  # it has ended without being paid, or nobody is at it any more: the same key may begin anew

    def _handed_out(self, payment: Payment) -> Started | None:
        """The pay sheet that exists already, if it lives long enough to be used."""
        if payment.expires_at is None or not payment.pay_params_enc or payment.close_wanted:
            return None
        if payment.expires_at <= self.outside.clock.now() + RESUME_LEFT:
            return None
        stored = self.outside.keyring.decrypt_json(payment.pay_params_enc, place="payment.pay_params")
        return Started(
            order_no=payment.order_no,
            amount_fen=payment.asked_fen,
            expires_at=payment.expires_at,
            pay=PayParams(kind=stored["kind"], values=stored["values"]),
            resumed=True,
        )

    async def _make_way(self, wanted: StartPayment, bills: Sequence[Bill], method: PaymentMethod) -> Started | None:
        """Resume what is the same, end what stands in the way.

        Raises AlreadyPaid, StillWorking or PaymentOpenElsewhere.
        """
        for bill in bills:
            line = await self._line_in_the_way(wanted.institution_id, bill)
            if line is None:
                continue
            other = await scoped(wanted.institution_id).of(Payment).get(id=line.payment_id)
            if other.status is PaymentStatus.PAID:
                raise self._already_paid(other, wanted)
            if await self._is_same(other, wanted, bills, method):
                if (started := self._handed_out(other)) is not None:
                    return started
                if other.status is PaymentStatus.CREATED and self._is_leased(other):
                    raise StillWorking()
            await self._supersede(other, wanted)
        for bill in bills:
            before = (
                await scoped(wanted.institution_id)
                .of(PaymentLine)
                .filter(branch=bill.branch, his_bill_id=bill.his_bill_id, status=LineStatus.VOID)
            )
            numbers = [line.confirm_no for line in before]
            await self._free_locks(scoped(wanted.institution_id).of(HisLock).filter(confirm_no__in=numbers))
        return None

    def _already_paid(self, payment: Payment, wanted: StartPayment) -> AlreadyPaid:
        """With the order number for its own payer alone."""
        return AlreadyPaid(order_no=payment.order_no) if payment.payer_id == wanted.payer_id else AlreadyPaid()

    async def _line_in_the_way(self, institution_id: UUID, bill: Bill) -> PaymentLine | None:
        """A line that claims or holds this bill, or is paid and waits for it."""
        lines = (
            await scoped(institution_id)
            .of(PaymentLine)
            .filter(branch=bill.branch, his_bill_id=bill.his_bill_id, status__in=list(PAID_ELSEWHERE))
            .order_by("id")
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

    async def _supersede(self, other: Payment, wanted: StartPayment) -> None:
        """End another open attempt for the same bill, with proof."""
        ended = await self.end(other)
        if ended.status is PaymentStatus.PAID:
            raise self._already_paid(ended, wanted)
        if ended.status not in OPEN_PAYMENT:
            return
        if not wanted.despite_open:
            account = await self.institutions.merchant(ended.institution_id, ended.merchant_account_id)
            until = self._absent_from(ended, self.outside.channels[account.channel])
            raise PaymentOpenElsewhere(until=f"{shanghai(until + timedelta(minutes=1)):%H:%M}")
        # The patient goes on knowingly: the claim and what the HIS holds for it are given up. Should both be paid,
        # the one that is booked second is surplus, or refused by the HIS, and returned by itself.
        locks = scoped(other.institution_id).of(HisLock).filter(payment_id=other.id)
        await locks.filter(status=LockStatus.HELD).update(status=LockStatus.RELEASING, due_at=self.outside.clock.now())
        await self._free_locks(locks)
        await (
            scoped(other.institution_id)
            .of(PaymentLine)
            .filter(payment_id=other.id, claims_bill=True)
            .update(claims_bill=False)
        )

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

    async def _carry_through(
        self,
        payment: Payment,
        wanted: StartPayment,
        bills: Sequence[Bill],
        site: HospitalSite,
        profile: Profile,
    ) -> Started:
        """Lock at the HIS, then create at the channel. Whatever is refused on the way ends the payment with proof."""
        now = self.outside.clock.now()
        expires_at = now + timedelta(seconds=profile.settings.payment_seconds)
        margin = timedelta(seconds=profile.settings.expiry_margin_seconds)
        for bill in bills:
            if bill.valid_until is not None:
                expires_at = min(expires_at, bill.valid_until - margin)
        if site.capabilities.lock:
            expires_at = min(expires_at, await self._lock_bills(payment, bills, site) - margin)
        if payment.asked_fen == 0:
            await self.applier.apply(nothing_to_collect_evidence(payment.order_no, paid_at=now))
            return Started(order_no=payment.order_no, amount_fen=Fen(0), expires_at=expires_at, pay=None, resumed=False)
        account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
        channel = self.outside.channels[account.channel]
        if expires_at < self.outside.clock.now() + timedelta(seconds=channel.capabilities.expiry_min_seconds):
            await self._fail(payment, "too little time is left")
            raise BillNotPayable(reason="expired")
        instrument = payment.method.split("/")[1]
        if instrument not in channel.capabilities.instruments:
            await self._fail(payment, "the channel does not offer this instrument")
            raise MethodNotAvailable()
        await self._set(payment, expires_at=expires_at)
        pay = await self._create_at_channel(payment, account, channel, instrument, expires_at)
        return Started(
            order_no=payment.order_no,
            amount_fen=payment.asked_fen,
            expires_at=expires_at,
            pay=pay,
            resumed=False,
        )

    async def _lock_bills(self, payment: Payment, bills: Sequence[Bill], site: HospitalSite) -> datetime:
        """Lock every group; returns the earliest end. A refusal or another amount ends the payment."""
        until = self.outside.clock.now() + timedelta(seconds=LOCK_ASKED_SECONDS)
        ends: list[datetime] = []
        lines = await scoped(payment.institution_id).of(PaymentLine).filter(payment_id=payment.id).order_by("position")
        for lock in await scoped(payment.institution_id).of(HisLock).filter(payment_id=payment.id).order_by("id"):
            group = [line for line in lines if line.confirm_no == lock.confirm_no]
            await self._still_ours(payment)
            try:
                grant = await self.locks.ask(
                    site,
                    lock,
                    LockOrder(
                        confirm_no=lock.confirm_no,
                        his_patient_id=payment.his_patient_id,
                        his_bill_ids=tuple(line.his_bill_id for line in group),
                        until=until,
                    ),
                )
            except Refused as refused:
                await self._fail(payment, f"the HIS refused the lock: {refused.code}")
                raise BillNotPayable(
                    reason=REFUSAL_REASONS.get(refused.code, "refused"), his_text=refused.message
                ) from refused
            except (NotReached, OutcomeUnknown) as silent:
                await self._fail(payment, "the HIS did not answer the lock")
                raise HospitalUnavailable() from silent
            ends.append(grant.expires_at)
            amount = sum(grant.amounts_fen.get(line.his_bill_id, Fen(-1)) for line in group)
            asked = sum(line.amount_fen for line in group)
            if amount != asked:
                await self._fail(payment, "the amount changed at the HIS")
                raise AmountChanged(
                    shown_fen=payment.asked_fen, amount_fen=Fen(max(payment.asked_fen - asked + amount, 0))
                )
        return min(ends)

    async def _still_ours(self, payment: Payment) -> None:
        """Lengthen our hold on the payment that we begin. Raises StillWorking when somebody else has taken it."""
        now = self.outside.clock.now()
        held = await (
            scoped(payment.institution_id)
            .of(Payment)
            .filter(id=payment.id, holder=payment.holder, status=PaymentStatus.CREATED, lease_until__gt=now)
            .update(lease_until=now + LEASE, due_at=now + LEASE)
        )
        if not held:
            raise StillWorking()

    async def _create_at_channel(
        self,
        payment: Payment,
        account: MerchantAccount,
        channel: Channel,
        instrument: str,
        expires_at: datetime,
    ) -> PayParams:
        payer = await scoped(payment.institution_id).of(Payer).get(id=payment.payer_id)
        order = TradeOrder(
            order_no=payment.order_no,
            amount_fen=payment.asked_fen,
            description=DESCRIPTION,
            instrument=instrument,
            app_id=payment.app_id or None,
            payer_open_id=self.outside.keyring.decrypt(payer.open_id_enc, place="payer.open_id"),
            expires_at=expires_at,
        )
        tries = 2 if channel.capabilities.create_reentrant else 1
        uncertain = False
        for attempt in range(1, tries + 1):
            if not await begin_send(
                "payment",
                payment.id,
                payment.institution_id,
                holder=payment.holder,
                now=self.outside.clock.now(),
                statuses=[PaymentStatus.CREATED],
            ):
                raise StillWorking()
            try:
                pay = await channel.create(account, order)
            except ConfigurationError as error:
                await send_had_no_effect("payment", payment.id, payment.institution_id)
                await self._fail(payment, "the merchant account is not set up correctly")
                await self._misconfigured(account, error)
                raise ChannelUnavailable() from error
            except NotReached as error:
                await send_had_no_effect("payment", payment.id, payment.institution_id)
                if attempt == tries:
                    if uncertain:
                        await self._give_up(payment)
                    else:
                        await self._fail(payment, "the channel was not reached")
                    raise ChannelUnavailable() from error
            except Refused as refused:
                # A refusal proves that this request did nothing; an earlier one may have been lost on its way back.
                if refused.final and not uncertain:
                    await self.applier.apply(
                        refusal_evidence(
                            payment.order_no,
                            source=account.channel,
                            code=refused.code,
                            message=refused.message,
                            raw=refused.raw,
                        )
                    )
                else:
                    await self._give_up(payment)
                raise ChannelUnavailable() from refused
            except OutcomeUnknown as error:
                uncertain = True
                if attempt == tries:
                    await self._give_up(payment)
                    raise ChannelUnavailable() from error
            else:
                await self._pending(payment, pay)
                await self.cases.settle(payment.institution_id, ("channel_misconfigured",), account.merchant_no)
                return pay
        raise AssertionError("unreachable")

    async def _pending(self, payment: Payment, pay: PayParams) -> None:
        """The channel has the order: keep its parameters and look again soon. Raises AlreadyPaid if it was faster."""
        stored = self.outside.keyring.encrypt_json(
            {"kind": pay.kind, "values": dict(pay.values)}, place="payment.pay_params"
        )

        async def write() -> Payment:
            current = await lock_payment(payment.order_no)
            assert current is not None
            if current.status is PaymentStatus.CREATED and current.close_wanted:
                await self._set(current, due_at=self.outside.clock.now(), lease_until=None, holder="")
            elif current.status is PaymentStatus.CREATED:
                await self._set(
                    current,
                    status=PaymentStatus.PENDING,
                    pay_params_enc=stored,
                    due_at=self.outside.clock.now() + backoff(1),
                    lease_until=None,
                    holder="",
                    attempts=0,
                )
            return current

        current = await atomically(write)
        if current.status is PaymentStatus.PAID:
            raise AlreadyPaid(order_no=payment.order_no)
        if current.status is not PaymentStatus.PENDING:
            raise BillNotPayable(reason="busy")

    async def _fail(self, payment: Payment, reason: str) -> None:
        """Nothing has been sent to the channel: the payment ends with that as its proof."""
        await self.applier.apply(never_sent_evidence(payment.order_no, reason=reason))

    async def _give_up(self, payment: Payment) -> None:
        """The channel may or may not have the order, and the payer has no pay sheet: end it, with proof."""
        await self._set(payment, close_wanted=True)
        await give_back(
            "payment",
            payment.id,
            payment.institution_id,
            holder=payment.holder,
            due_at=self.outside.clock.now() + backoff(1),
        )

    # ------------------------------------------------------------ ask and end

    async def _misconfigured(self, account: MerchantAccount, error: ConfigurationError) -> None:
        await self.cases.open(
            account.institution_id, "channel_misconfigured", account.merchant_no, details={"problem": str(error)}
        )

    async def work(self, due: DueRow, *, counted: bool = True) -> None:
        """Bring one open payment that we hold a step further; `counted` false: a page asked, not the schedule."""
        payment = await scoped(due.institution_id).of(Payment).get(id=due.id)
        if payment.status not in OPEN_PAYMENT:
            return
        now = self.outside.clock.now()
        if payment.sends_started == payment.sends_unreached:
            await self._fail(payment, "the request that began it did not finish")
            return
        account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
        channel = self.outside.channels[account.channel]
        # One that is still `created` here has lost the request that began it: nobody has its pay sheet.
        unwanted = payment.close_wanted or payment.status is PaymentStatus.CREATED
        expired = payment.expires_at is not None and now >= payment.expires_at
        next_try = now + backoff(due.attempts)
        try:
            trade = await self.ask(payment, account, channel, now)
            if trade.exists and not trade.ever_paid and not trade.closed and (unwanted or expired):
                closed = await channel.close(account, payment.order_no)
                await self.applier.apply(
                    trade_evidence(closed, source=account.channel, proof=ProofKind.AUTHENTICATED_CLOSE)
                )
            elif not trade.exists:
                next_try = min(next_try, self._absent_from(payment, channel))
                next_try = max(next_try, now + backoff(1))
        except ConfigurationError as error:
            await self._misconfigured(account, error)
        except (NotReached, OutcomeUnknown, Refused):
            pass
        if payment.expires_at is not None and now >= payment.expires_at + CASE_AFTER:
            await self._open_case(payment)
        if payment.expires_at is not None and now < payment.expires_at:
            next_try = min(next_try, payment.expires_at)
        await give_back(
            "payment", payment.id, payment.institution_id, holder=due.holder, due_at=next_try, counted=counted
        )

    async def ask(self, payment: Payment, account: MerchantAccount, channel: Channel, now: datetime) -> Trade:
        """Ask the channel and apply what it says. Raises NotReached, OutcomeUnknown or Refused."""
        trade = await channel.query(account, payment.order_no)
        await self.applier.apply(
            trade_evidence(
                trade,
                source=account.channel,
                proof=ProofKind.AUTHENTICATED_QUERY,
                absence_is_proof=payment.expires_at is not None and now >= self._absent_from(payment, channel),
            )
        )
        return trade

    def _absent_from(self, payment: Payment, channel: Channel) -> datetime:
        """From then on "no such order" proves that it can never be paid."""
        expires_at = payment.expires_at or payment.created_at + LEASE
        capabilities = channel.capabilities
        return expires_at + timedelta(
            seconds=capabilities.absence_margin_seconds + capabilities.request_deadline_seconds
        )

    async def _open_case(self, payment: Payment) -> None:
        current = await scoped(payment.institution_id).of(Payment).get(id=payment.id)
        if current.status in OPEN_PAYMENT:
            await self.cases.open(
                payment.institution_id, "payment_outcome_unknown", payment.order_no, payment_id=payment.id
            )

    async def end(self, payment: Payment) -> Payment:
        """End an open payment now if the channel lets us, else as soon as it can be proven; returns it as it is."""
        scope = scoped(payment.institution_id)
        now = self.outside.clock.now()
        await (
            scope.of(Payment).filter(id=payment.id, status__in=list(OPEN_PAYMENT)).update(close_wanted=True, due_at=now)
        )
        await self._work_now(payment)
        ended = await scope.of(Payment).get(id=payment.id)
        if ended.status not in OPEN_PAYMENT:
            await self._free_locks(scope.of(HisLock).filter(payment_id=payment.id))
        return ended

    async def _free_locks(self, locks: QuerySet[HisLock]) -> None:
        """Give back at the HIS, now, what ended payments still hold there; what stays silent the worker does."""
        for lock in await locks.filter(status__in=[LockStatus.RELEASING, LockStatus.UNKNOWN], due_at__isnull=False):
            due = await take(
                "his_lock",
                lock.id,
                lock.institution_id,
                now=self.outside.clock.now(),
                holder=self.outside.lease_name(),
                lease=LEASE,
            )
            if due is not None:
                await self.locks.work(due)

    async def ask_soon(self, payment: Payment) -> None:
        """Something unproven was said about it: the next question is due now."""
        await (
            scoped(payment.institution_id)
            .of(Payment)
            .filter(id=payment.id, status__in=list(OPEN_PAYMENT))
            .update(due_at=self.outside.clock.now())
        )

    async def _work_now(self, payment: Payment, *, counted: bool = True) -> None:
        """Take a step for an open payment unless somebody else is at it."""
        due = await take(
            "payment",
            payment.id,
            payment.institution_id,
            now=self.outside.clock.now(),
            holder=self.outside.lease_name(),
            lease=LEASE,
        )
        if due is not None:
            await self.work(due, counted=counted)

    async def cancel(self, payer_id: UUID, institution_id: UUID, order_no: str) -> Payment:
        """The payer has closed the pay sheet. Raises NotFound."""
        return await self.end(await self.of_payer(payer_id, institution_id, order_no))

    # ------------------------------------------------------------ what the payer sees

    async def of_payer(self, payer_id: UUID, institution_id: UUID, order_no: str) -> Payment:
        """Raises NotFound."""
        payment = await scoped(institution_id).of(Payment).get_or_none(order_no=order_no, payer_id=payer_id)
        if payment is None:
            raise NotFound()
        return payment

    async def refreshed(self, payer_id: UUID, institution_id: UUID, order_no: str) -> Payment:
        """The payment after asking the channel, if it is open and nobody asked just now; silence changes nothing."""
        payment = await self.of_payer(payer_id, institution_id, order_no)
        if payment.status is PaymentStatus.PENDING and await self.outside.limiter.allow(
            f"ask:{order_no}", limit=1, per=PAGE_ASKS_EVERY
        ):
            await self._work_now(payment, counted=False)
            payment = await self.of_payer(payer_id, institution_id, order_no)
        return payment

    def pay_sheet(self, payment: Payment) -> Started | None:
        """What the payer's app needs to open the pay sheet of this payment; None when it can no longer be used."""
        return self._handed_out(payment) if payment.status is PaymentStatus.PENDING else None

    async def lines(self, payment: Payment) -> list[PaymentLine]:
        return await scoped(payment.institution_id).of(PaymentLine).filter(payment_id=payment.id).order_by("position")

    async def paid_list(self, payer_id: UUID, institution_id: UUID, patient_ids: Sequence[UUID]) -> list[Payment]:
        """Payments that took money, newest first: this person's own and those for patients bound to him."""
        scope = scoped(institution_id)
        own = (
            await scope.of(Payment)
            .filter(payer_id__in=await same_person(institution_id, payer_id), status=PaymentStatus.PAID)
            .order_by("-paid_at")
            .limit(200)
        )
        others = (
            await scope.of(Payment)
            .filter(patient_id__in=list(patient_ids), status=PaymentStatus.PAID)
            .order_by("-paid_at")
            .limit(200)
        )
        found = {payment.id: payment for payment in [*own, *others]}
        return sorted(found.values(), key=lambda payment: payment.paid_at or payment.created_at, reverse=True)

    async def forget_old_keys(self) -> int:
        """Delete idempotency records past their life; returns how many."""
        with across_institutions("an old key is old wherever it was used"):
            gone = await rows(
                "DELETE FROM idempotency_record WHERE created_at < $1 RETURNING id",
                self.outside.clock.now() - IDEMPOTENCY_LIFE,
            )
        return len(gone)

    async def bill_ended_elsewhere(self, institution_id: UUID, branch: str, his_bill_id: str) -> list[Payment]:
        """The HIS says that a bill was cancelled or paid at the window: open phone payments for it are to end."""
        lines = (
            await scoped(institution_id)
            .of(PaymentLine)
            .filter(branch=branch, his_bill_id=his_bill_id, claims_bill=True)
        )
        ended = []
        for line in lines:
            payment = await scoped(institution_id).of(Payment).get(id=line.payment_id)
            if payment.status in OPEN_PAYMENT:
                ended.append(await self.end(payment))
        return ended

    async def _set(self, payment: Payment, **values: Any) -> None:
        await scoped(payment.institution_id).of(Payment).filter(id=payment.id).update(**values)
        for name, value in values.items():
            setattr(payment, name, value)


def _group_key(unit: ConfirmUnit, bill: Bill) -> str:
    """Bills with the same key are booked as one by the HIS."""
    if unit is ConfirmUnit.PAYMENT:
        return "payment"
    if unit is ConfirmUnit.VISIT:
        return f"visit:{bill.branch}:{bill.visit_no}"
    return f"bill:{bill.branch}:{bill.his_bill_id}"
