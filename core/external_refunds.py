"""Refunds made in the channel's console: recorded, and counted towards what we ourselves would give back next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from core.arriving import Arriving
from core.cases import Cases
from core.due import DueRow
from core.evidence import Evidence, refund_evidence
from core.ledger import Account, TransferKind
from core.models import Payment, PaymentEvent, Refund
from core.money import Fen
from core.outside import Outside
from core.payment_rows import PaymentRows, lock_payment
from core.ports import Channel, MerchantAccount, RefundState, Trade
from core.recording import record
from core.states import LineStatus, PaymentStatus, ProofKind, RefundStatus
from core.tenancy import scoped
from core.transactions import atomically, rows

EXTERNAL, EXTERNAL_TOTAL, COUNTED = "external_refund", "external_total", "external_counted"
CASE = "external_refund"
ENDED = frozenset({RefundState.REFUNDED, RefundState.DEAD, RefundState.ABSENT})
OWED = frozenset({RefundStatus.APPROVED, RefundStatus.SENDING, RefundStatus.PENDING, RefundStatus.STUCK})
"""A refund in one of these is owed to the payer, if the HIS has agreed to it."""

NUMBERS_MAX = 50
"""So many refunds of others that are under way are asked about at a time."""


@dataclass(frozen=True, slots=True)
class ExternalRefunds:
    """The payer is owed what our refunds would give him; what others have given him settles that first.

    What they gave beyond it waits in `external_refund` of the ledger, with a case, for the HIS to take it back: the
    refund or the red receipt that follows then finds it there.
    """

    outside: Outside
    steps: PaymentRows
    cases: Cases
    arriving: Arriving

    # ------------------------------------------------------------ what is said of them

    async def told(self, payment: Payment, evidence: Evidence) -> None:
        """A channel's account of a refund number that is not ours. Part of the transaction of `apply`."""
        facts = {
            **evidence.facts,
            "number": str(evidence.facts.get("channel_refund_no") or evidence.refund_no),
            "refund_no": evidence.refund_no,
            "refunded": evidence.proves == RefundStatus.REFUNDED,
            "proof_kind": evidence.proof_kind,
        }
        await self._record(payment, _evidence(payment, EXTERNAL, evidence.source, facts, evidence.raw))
        await self._show(payment, evidence.refund_no, facts)

    async def attested(self, payment: Payment, refund: Refund, facts: Mapping[str, Any]) -> None:
        """Two people have seen that so much of a refund, nothing of which is sent, was given back in the console.

        `facts` are those of a refund; the rows are locked.
        """
        number = str(facts["channel_refund_no"])
        said = {"number": number, "refund_no": number, "refunded": True, "proof_kind": ProofKind.STAFF_ATTESTED}
        await self._record(payment, _evidence(payment, EXTERNAL, "staff", {**facts, **said}))
        await self.count_towards(payment, refund)
        await self.settle(payment)

    async def _record(self, payment: Payment, evidence: Evidence) -> None:
        event_id = await record(self.outside, payment, evidence)
        if event_id is None:
            return
        if await self._grow(payment, event_id):
            await self.match_paid_out(payment, event_id)
        await rows(
            "UPDATE refund SET due_at = $3 WHERE institution_id = $1 AND payment_id = $2 AND due_at > $3"
            " AND status = ANY ($4::text[]) RETURNING id",
            payment.institution_id,
            payment.id,
            self.outside.clock.now(),
            [status.value for status in OWED],
        )

    async def _grow(self, payment: Payment, cause: UUID) -> bool:
        """Each refund number counts once, however often it is told; a total counts as far as it is above their sum."""
        if payment.status is not PaymentStatus.PAID:
            return False
        _, recorded = await self._given_back(payment)
        done = await scoped(payment.institution_id).find(Refund, payment_id=payment.id, status=RefundStatus.REFUNDED)
        ours = {refund.channel_refund_no for refund in done}
        grown = Fen(_known_fen(await self._events(payment), beside=ours) - recorded)
        if grown <= 0:
            return False
        await self.steps.move(
            payment, cause, TransferKind.EXTERNAL_REFUND, Account.EXTERNAL_REFUND, Account.CHANNEL_RECEIVABLE, grown
        )
        await self.steps.update(payment, external_refunded_fen=Fen(payment.external_refunded_fen + grown))
        return True

    async def paid(self, payment: Payment, cause: UUID) -> None:
        """The payment has only now turned out to be paid: what was told of others' refunds before counts from here."""
        await self._grow(payment, cause)

    async def _events(self, payment: Payment) -> list[PaymentEvent]:
        return await scoped(payment.institution_id).find(
            PaymentEvent, ("id",), payment_id=payment.id, kind=[EXTERNAL, EXTERNAL_TOTAL]
        )

    async def _given_back(self, payment: Payment) -> tuple[Fen, Fen]:
        """What has left the channel by our refunds, and by others', as far as it is recorded."""
        (found,) = await rows(
            "SELECT coalesce(sum(amount_fen) FILTER (WHERE kind = $3), 0)::bigint AS ours,"
            " coalesce(sum(amount_fen) FILTER (WHERE kind = $4), 0)::bigint AS others"
            " FROM transfer WHERE institution_id = $1 AND payment_id = $2",
            payment.institution_id,
            payment.id,
            TransferKind.REFUNDED.value,
            TransferKind.EXTERNAL_REFUND.value,
        )
        return Fen(int(found["ours"])), Fen(int(found["others"]))

    # ------------------------------------------------------------ what it counts towards

    async def before_sending(
        self, due: DueRow, refund: Refund, payment: Payment, account: MerchantAccount, channel: Channel
    ) -> Refund | None:
        """The refund as it may be sent now; None when all of it has been given back, or others' refunds are unclear.

        The caller holds the row, and nothing of it is at the channel. Raises NotReached, OutcomeUnknown or Refused.
        """
        for number in _under_way(await self._events(payment))[:NUMBERS_MAX]:
            answer = await channel.query_refund(account, number)
            said = refund_evidence(
                answer, payment.order_no, source=account.channel, proof=ProofKind.AUTHENTICATED_QUERY
            )
            await atomically(partial(self._told_again, said))
        trade = await channel.query(account, payment.order_no)
        return await atomically(lambda: self._before_sending(due, refund, account.channel, trade))

    async def _told_again(self, said: Evidence) -> None:
        payment = await lock_payment(said.order_no)
        if payment is not None:
            await self.told(payment, said)

    async def _before_sending(self, due: DueRow, refund: Refund, source: str, trade: Trade) -> Refund | None:
        payment = await lock_payment(trade.order_no)
        (current,) = await scoped(refund.institution_id).find(Refund, locked=True, id=refund.id)
        moved_on = current.sends_started != refund.sends_started or current.holder != due.holder
        if payment is None or moved_on or current.status not in OWED:
            return None
        if any(line.status is LineStatus.DISPUTED for line in await self.steps.lines_of_refund(payment, current)):
            # The HIS has booked it while it was being sent in vain: it waits for a person as if it never had been.
            await self.steps.set_refund(current, due_at=None, holder="", lease_until=None)
            return None
        is_unclear = await self._compare(payment, current, source, trade)
        await self.count_towards(payment, current)
        ours, others = await self._given_back(payment)
        left_fen = payment.paid_fen - ours - others - await in_flight_fen(payment, beside=current)
        is_unclear = is_unclear or current.own_fen > left_fen
        await self._show(payment, payment.order_no, {"unclear": is_unclear}, is_unclear=is_unclear)
        return None if is_unclear or current.status is RefundStatus.REFUNDED else current

    async def _compare(self, payment: Payment, refund: Refund, source: str, trade: Trade) -> bool:
        """Record what the channel's sum says beyond what we know; whether others' refunds remain unclear.

        A channel that does not say how much was refunded is believed as far as it goes: it knows of a refund although
        none of ours has ever been sent.
        """
        await self._grow(payment, self.outside.ids.uuid())
        ours, others = await self._given_back(payment)
        if trade.refunded_fen is not None:
            total = Fen(trade.refunded_fen - ours - await in_flight_fen(payment, beside=refund))
            if total > others:
                facts = {"total_fen": total}
                await self._record(payment, _evidence(payment, EXTERNAL_TOTAL, source, facts))
        elif trade.has_refund and not others:
            sent = await scoped(payment.institution_id).find(Refund, payment_id=payment.id)
            if not any(other.sends_started > other.sends_unreached for other in sent if other.id != refund.id):
                return True
        return bool(_under_way(await self._events(payment)))

    async def count_towards(self, payment: Payment, refund: Refund) -> None:
        """What others have given back settles what this refund owes; the rows are locked, nothing of it is sent."""
        counted = min(payment.external_refunded_fen, refund.own_fen)
        if counted <= 0:
            return
        events = [
            event for event in await self._events(payment) if event.kind == EXTERNAL_TOTAL or event.facts["refunded"]
        ]
        is_all = counted == refund.own_fen
        event_id = await record(
            self.outside,
            payment,
            Evidence(
                order_no=payment.order_no,
                kind=COUNTED,
                source=events[-1].source,
                refund_no=refund.refund_no,
                proves=RefundStatus.REFUNDED if is_all else None,
                proof_kind=_proof_of(events[-1]) if is_all else None,
                facts={
                    "amount_fen": counted,
                    "external_fen": refund.external_fen + counted,
                    "numbers": sorted({str(event.facts.get("number", "")) for event in events} - {""}),
                },
            ),
            refund_id=refund.id,
        )
        assert event_id is not None  # each counting reaches a sum of its own
        await self.steps.move(
            payment,
            event_id,
            TransferKind.REFUNDED_EXTERNALLY,
            Account.REFUND_PAYABLE,
            Account.EXTERNAL_REFUND,
            Fen(counted),
        )
        await self.steps.update(
            payment,
            external_refunded_fen=Fen(payment.external_refunded_fen - counted),
            refunded_fen=Fen(payment.refunded_fen + counted),
        )
        external_fen = Fen(refund.external_fen + counted)
        if not is_all:
            await self.steps.set_refund(refund, external_fen=external_fen)
            return
        if refund.status is RefundStatus.APPROVED:
            await self.steps.set_refund(refund, status=RefundStatus.SENDING)
        await self.arriving.refunded(payment, refund, proof_id=event_id, at=None, external_fen=external_fen)

    async def match_paid_out(self, payment: Payment, cause: UUID) -> None:
        """The hospital says that it gave money back in another way, and somebody did so at the channel: one thing."""
        (found,) = await rows(
            "SELECT coalesce(sum(CASE WHEN credit = $3 THEN amount_fen WHEN debit = $3 THEN -amount_fen END),"
            " 0)::bigint AS fen FROM transfer WHERE institution_id = $1 AND payment_id = $2",
            payment.institution_id,
            payment.id,
            Account.HOSPITAL_OTHER.value,
        )
        matched = Fen(min(payment.external_refunded_fen, int(found["fen"])))
        if matched <= 0:
            return
        await self.steps.move(
            payment,
            cause,
            TransferKind.PAID_OUT_EXTERNALLY,
            Account.HOSPITAL_OTHER,
            Account.EXTERNAL_REFUND,
            matched,
        )
        await self.steps.update(payment, external_refunded_fen=Fen(payment.external_refunded_fen - matched))
        await self.settle(payment)

    # ------------------------------------------------------------ what staff see of it

    async def settle(self, payment: Payment) -> None:
        """Nobody needs to look any more once all that others gave back has been counted and none of it is under way."""
        if not payment.external_refunded_fen and not _under_way(await self._events(payment)):
            await self.cases.settle_of_payment(payment.institution_id, (CASE,), payment.id)

    async def _show(
        self, payment: Payment, subject: str, facts: Mapping[str, Any], *, is_unclear: bool = False
    ) -> None:
        unseen = payment.status is not PaymentStatus.PAID or payment.external_refunded_fen
        if is_unclear or unseen or _under_way(await self._events(payment)):
            await self.cases.open(payment.institution_id, CASE, subject, payment_id=payment.id, details=facts)
        else:
            await self.settle(payment)


def _known_fen(events: Sequence[PaymentEvent], *, beside: Set[str]) -> int:
    """What others have given back, `beside` the channel's numbers of refunds that turned out to be ours.

    People write down either of a refund's two numbers: both mean the same one.
    """
    told = [event.facts for event in events if event.kind == EXTERNAL]
    names = {str(facts["refund_no"]): str(facts["number"]) for facts in told if facts["number"] != facts["refund_no"]}
    by_number: dict[str, int] = {}
    for facts in told:
        number = names.get(str(facts["number"]), str(facts["number"]))
        if facts.get("refunded") and number not in beside:
            by_number[number] = max(by_number.get(number, 0), int(facts.get("amount_fen") or 0))
    totals = [int(event.facts["total_fen"]) for event in events if event.kind == EXTERNAL_TOTAL]
    return max(sum(by_number.values()), *totals, 0)


def _under_way(events: Sequence[PaymentEvent]) -> list[str]:
    """Numbers of others' refunds of which no end is known."""
    told = [event.facts for event in events if event.kind == EXTERNAL]
    ended = {str(facts["refund_no"]) for facts in told if facts.get("state") in ENDED}
    return sorted({str(facts["refund_no"]) for facts in told} - ended)


def _proof_of(event: PaymentEvent) -> ProofKind:
    return ProofKind(event.facts.get("proof_kind") or ProofKind.AUTHENTICATED_QUERY)


def _evidence(payment: Payment, kind: str, source: str, facts: Mapping[str, Any], raw: bytes = b"") -> Evidence:
    return Evidence(order_no=payment.order_no, kind=kind, source=source, facts=facts, raw=raw)


async def in_flight_fen(payment: Payment, *, beside: Refund) -> int:
    """What other refunds of ours that have been sent, and are not known to have arrived, may have given back."""
    (found,) = await rows(
        "SELECT coalesce(sum(amount_fen - external_fen), 0)::bigint AS fen FROM refund WHERE institution_id = $1"
        " AND payment_id = $2 AND id <> $3 AND status IN ('sending', 'pending', 'stuck')"
        " AND sends_started > sends_unreached",
        payment.institution_id,
        payment.id,
        beside.id,
    )
    return int(found["fen"])
