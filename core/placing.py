"""Placing a payment whose rows exist: the bills are locked at the HIS, then the order is created at the channel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.applying import Applier
from core.cases import Cases
from core.due import backoff, begin_send, give_back, send_had_no_effect, take
from core.errors import (
    AlreadyPaid,
    AmountChanged,
    BillNotPayable,
    ChannelUnavailable,
    ConfigurationError,
    HospitalUnavailable,
    MethodNotAvailable,
    NotReached,
    OutcomeUnknown,
    Refused,
    StillWorking,
)
from core.evidence import nothing_to_collect_evidence, refusal_evidence
from core.guarded import REFUSAL_REASONS
from core.institutions import Institutions, Profile
from core.locks import Locks
from core.models import HisLock, Payer, Payment, PaymentLine
from core.money import Fen
from core.outside import Outside
from core.payment_rows import lock_payment
from core.payments import LEASE, Payments, Started
from core.ports import (
    Bill,
    Channel,
    HospitalSite,
    LockOrder,
    MerchantAccount,
    PayParams,
    TradeOrder,
)
from core.states import LockStatus, PaymentStatus
from core.tenancy import scoped
from core.transactions import atomically

LOCK_ASKED_SECONDS = 900
DESCRIPTION = "门诊缴费"

TOO_OFTEN_PAUSES_SECONDS = (1.0, 2.0)
"""Before the same order is sent again to a channel that asks for a pause; together less than a tap is waited for."""


@dataclass(frozen=True, slots=True)
class Placing:
    outside: Outside
    institutions: Institutions
    locks: Locks
    payments: Payments
    applier: Applier
    cases: Cases

    async def carry_through(
        self,
        payment: Payment,
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
            await self.payments.fail(payment, "too little time is left")
            raise BillNotPayable(reason="expired")
        instrument = payment.method.split("/")[1]
        if instrument not in channel.capabilities.instruments:
            await self.payments.fail(payment, "the channel does not offer this instrument")
            raise MethodNotAvailable()
        await self.payments.set(payment, expires_at=expires_at)
        pay = await self._create_at_channel(payment, account, channel, instrument, expires_at)
        return Started(
            order_no=payment.order_no,
            amount_fen=payment.asked_fen,
            expires_at=expires_at,
            pay=pay,
            resumed=False,
        )

    async def again(self, payment: Payment) -> Started | None:
        """Send once more, under its number, the order that the channel may not have taken: it is one order either way.

        None when that cannot be: it is too late, the channel or the HIS does not allow it, somebody else is at it.
        Raises ChannelUnavailable, StillWorking, AlreadyPaid, BillNotPayable.
        """
        scope, now = scoped(payment.institution_id), self.outside.clock.now()
        account = await self.institutions.merchant(payment.institution_id, payment.merchant_account_id)
        channel = self.outside.channels[account.channel]
        least = timedelta(seconds=channel.capabilities.expiry_min_seconds)
        if not channel.capabilities.create_reentrant or payment.expires_at is None or payment.expires_at < now + least:
            return None
        lines = await scope.find(PaymentLine, payment_id=payment.id)
        locks = await scope.find(HisLock, payment_id=payment.id)
        if not all(line.claims_bill for line in lines) or any(lock.status is not LockStatus.HELD for lock in locks):
            return None
        holder = self.outside.lease_name()
        due = await take("payment", payment.id, payment.institution_id, now=now, holder=holder, lease=LEASE)
        if due is None:
            return None
        ours = {"id": payment.id, "holder": holder, "status": PaymentStatus.CREATED}
        if not await scope.change(Payment, ours, close_wanted=False):
            await give_back("payment", payment.id, payment.institution_id, holder=holder, due_at=now)
            return None
        held = await scope.get(Payment, id=payment.id)
        instrument = held.method.split("/")[1]
        pay = await self._create_at_channel(held, account, channel, instrument, payment.expires_at, uncertain=True)
        return Started(
            order_no=held.order_no,
            amount_fen=held.asked_fen,
            expires_at=payment.expires_at,
            pay=pay,
            resumed=True,
        )

    async def _lock_bills(self, payment: Payment, bills: Sequence[Bill], site: HospitalSite) -> datetime:
        """Lock every group; returns the earliest end. A refusal or another amount ends the payment."""
        until = self.outside.clock.now() + timedelta(seconds=LOCK_ASKED_SECONDS)
        ends: list[datetime] = []
        lines = await scoped(payment.institution_id).find(PaymentLine, ("position",), payment_id=payment.id)
        for lock in await scoped(payment.institution_id).find(HisLock, ("id",), payment_id=payment.id):
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
                await self.payments.fail(payment, f"the HIS refused the lock: {refused.code}")
                raise BillNotPayable(
                    reason=REFUSAL_REASONS.get(refused.code, "refused"), his_text=refused.message
                ) from refused
            except (NotReached, OutcomeUnknown) as silent:
                await self.payments.fail(payment, "the HIS did not answer the lock")
                raise HospitalUnavailable() from silent
            ends.append(grant.expires_at)
            asked = sum(line.amount_fen for line in group)
            amount = sum(grant.amounts_fen.get(line.his_bill_id, Fen(0)) for line in group)
            if any(grant.amounts_fen.get(line.his_bill_id) != line.amount_fen for line in group):
                await self.payments.fail(payment, "the amount changed at the HIS")
                raise AmountChanged(
                    shown_fen=payment.asked_fen, amount_fen=Fen(max(payment.asked_fen - asked + amount, 0))
                )
        return min(ends)

    async def _still_ours(self, payment: Payment) -> None:
        """Lengthen our hold on the payment that we begin. Raises StillWorking when somebody else has taken it."""
        now = self.outside.clock.now()
        held = await scoped(payment.institution_id).change(
            Payment,
            {"id": payment.id, "holder": payment.holder, "status": PaymentStatus.CREATED, "lease_until__gt": now},
            lease_until=now + LEASE,
            due_at=now + LEASE,
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
        *,
        uncertain: bool = False,
    ) -> PayParams:
        """`uncertain`: the channel may know this order from before."""
        payer = await scoped(payment.institution_id).get(Payer, id=payment.payer_id)
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
        pauses = list(TOO_OFTEN_PAUSES_SECONDS) if channel.capabilities.create_reentrant else []
        while tries:
            tries -= 1
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
                await self.payments.fail(payment, "the merchant account is not set up correctly")
                await self.payments.misconfigured(account, error)
                raise ChannelUnavailable() from error
            except NotReached as error:
                await send_had_no_effect("payment", payment.id, payment.institution_id)
                if not tries:
                    if uncertain:
                        await self._give_up(payment)
                    else:
                        await self.payments.fail(payment, "the channel was not reached")
                    raise ChannelUnavailable() from error
            except Refused as refused:
                if refused.too_often and pauses:
                    uncertain = True
                    tries += 1
                    await asyncio.sleep(pauses.pop(0))
                    continue
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
                if not tries:
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
                await self.payments.set(current, due_at=self.outside.clock.now(), lease_until=None, holder="")
            elif current.status is PaymentStatus.CREATED:
                await self.payments.set(
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

    async def _give_up(self, payment: Payment) -> None:
        """The channel may or may not have the order, and the payer has no pay sheet: end it, with proof."""
        await self.payments.set(payment, close_wanted=True)
        await give_back(
            "payment",
            payment.id,
            payment.institution_id,
            holder=payment.holder,
            due_at=self.outside.clock.now() + backoff(1),
        )
