"""Everything known about one payment, for staff: each figure with its proof, and nobody's name, phone or number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tortoise.expressions import Q

from core.actors import Actor, Role
from core.audit import Audit
from core.errors import NotFound
from core.ledger import Account
from core.models import (
    Confirmation,
    HisLock,
    Message,
    Payment,
    PaymentEvent,
    PaymentLine,
    RawBody,
    Refund,
    RefundLine,
    Transfer,
)
from core.money import Fen
from core.outside import Outside
from core.patients import Patients
from core.scrubbing import mask_number, scrub
from core.tenancy import scoped
from core.transactions import atomically

FOUND_MAX = 50
PERSONAL_FACTS = frozenset({"receipt_url", "ebill_url"})  # whoever has the address has the receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class PaymentBrief:
    """One payment in a list of what was found."""

    order_no: str
    status: str
    method: str
    asked_fen: Fen
    paid_fen: Fen
    refunded_fen: Fen
    created_at: datetime
    paid_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LineView:
    line_id: UUID
    branch: str
    bill_id: str
    kind_text: str
    title: str
    amount_fen: Fen
    refunded_fen: Fen
    paid_out_fen: Fen
    status: str
    confirm_no: str
    receipt_no: str
    reason_code: str
    reason_text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmationView:
    confirm_no: str
    status: str
    lock_status: str
    sends: int
    last_sent_at: datetime | None
    due_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundPart:
    line_id: UUID
    amount_fen: Fen


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundView:
    """`due_at` empty for one that is neither at its end nor declined: it waits for a person."""

    refund_no: str
    status: str
    origin: str
    cause: str
    amount_fen: Fen
    replaces: str
    channel_refund_no: str
    red_receipt_no: str
    sends: int
    created_at: datetime
    refunded_at: datetime | None
    due_at: datetime | None
    parts: Sequence[RefundPart]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferView:
    at: datetime
    kind: str
    debit: str
    credit: str
    amount_fen: Fen


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceView:
    """What was said; `has_raw` where its bytes are kept."""

    event_id: UUID
    at: datetime
    about: str  # our number of what it is about: order, confirmation or refund
    kind: str
    source: str
    proves: str | None
    proof_kind: str | None
    facts: Mapping[str, Any]
    digest: str
    has_raw: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageView:
    created_at: datetime
    kind: str
    status: str
    result_code: str
    delivery: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PaymentFile:
    """`balances`: where the money is, by account of the ledger."""

    order_no: str
    channel_trade_no: str
    status: str
    method: str
    scene: str
    patient: str
    his_patient: str
    asked_fen: Fen
    paid_fen: Fen
    refunded_fen: Fen
    reserved_fen: Fen
    external_refunded_fen: Fen
    created_at: datetime
    expires_at: datetime | None
    paid_at: datetime | None
    due_at: datetime | None
    balances: Mapping[str, int]
    lines: Sequence[LineView]
    confirmations: Sequence[ConfirmationView]
    refunds: Sequence[RefundView]
    transfers: Sequence[TransferView]
    evidence: Sequence[EvidenceView]
    messages: Sequence[MessageView]


@dataclass(frozen=True, slots=True)
class PaymentFiles:
    outside: Outside
    patients: Patients
    audit: Audit

    async def find(self, actor: Actor, text: str) -> list[PaymentBrief]:
        """By any number of ours, the channel's, a receipt's or a bill's, whole; the newest first. Raises NotAllowed."""
        actor.require(Role.LOOK)
        scope = scoped(actor.institution_id)
        ids: set[UUID] = set()
        for line in await scope.of(PaymentLine).filter(Q(his_bill_id=text) | Q(receipt_no=text)).limit(FOUND_MAX):
            ids.add(line.payment_id)
        for confirmation in await scope.find(Confirmation, confirm_no=text):
            ids.add(confirmation.payment_id)
        for refund in await scope.find(Refund, refund_no=text):
            ids.add(refund.payment_id)
        for payment in await scope.find(Payment, order_no=text):
            ids.add(payment.id)
        found = await (
            scope.of(Payment)
            .filter(Q(channel_trade_no=text) | Q(id__in=list(ids)))
            .order_by("-created_at")
            .limit(FOUND_MAX)
        )
        return [_brief(payment) for payment in found]

    async def by_order(self, actor: Actor, order_no: str) -> PaymentFile:
        """Raises NotAllowed, NotFound."""
        actor.require(Role.LOOK)
        return await self.of(await self.payment(actor, order_no))

    async def payment(self, actor: Actor, order_no: str) -> Payment:
        """The row, of the actor's institution. Raises NotFound."""
        payment = await scoped(actor.institution_id).get_or_none(Payment, order_no=order_no)
        if payment is None:
            raise NotFound()
        return payment

    async def of(self, payment: Payment) -> PaymentFile:
        """Of somebody who has been allowed to look."""
        scope = scoped(payment.institution_id)
        transfers = await scope.find(Transfer, ("seq",), payment_id=payment.id)
        return PaymentFile(
            order_no=payment.order_no,
            channel_trade_no=payment.channel_trade_no,
            status=payment.status.value,
            method=payment.method,
            scene=payment.scene,
            patient=await self.patients.masked_name(payment.institution_id, payment.patient_id),
            his_patient=mask_number(payment.his_patient_id, head=1, tail=2),
            asked_fen=payment.asked_fen,
            paid_fen=payment.paid_fen,
            refunded_fen=payment.refunded_fen,
            reserved_fen=payment.refund_reserved_fen,
            external_refunded_fen=payment.external_refunded_fen,
            created_at=payment.created_at,
            expires_at=payment.expires_at,
            paid_at=payment.paid_at,
            due_at=payment.due_at,
            balances=balances_of(transfers),
            lines=[_line(line) for line in await scope.find(PaymentLine, ("position",), payment_id=payment.id)],
            confirmations=await self._confirmations(payment),
            refunds=await self._refunds(payment),
            transfers=[_transfer(transfer) for transfer in transfers],
            evidence=await self._evidence(payment),
            messages=[
                MessageView(
                    created_at=message.created_at,
                    kind=message.kind,
                    status=message.status.value,
                    result_code=message.result_code,
                    delivery=message.delivery,
                )
                for message in await scope.find(Message, ("created_at", "id"), payment_id=payment.id)
            ],
        )

    async def raw(self, actor: Actor, event_id: UUID) -> str:
        """The bytes behind a piece of evidence, as text; who reads them is written down.

        Raises NotAllowed; NotFound also for bytes that retention has removed.
        """
        actor.require(Role.ATTEST)
        scope = scoped(actor.institution_id)
        event = await scope.get_or_none(PaymentEvent, id=event_id)
        body = await scope.get_or_none(RawBody, digest=event.raw_digest) if event and event.raw_digest else None
        if event is None or body is None:
            raise NotFound()
        await atomically(lambda: self.audit.write(actor, "raw_body_read", str(event_id)))
        return self.outside.keyring.decrypt(body.body_enc, place="raw_body.body")

    async def _confirmations(self, payment: Payment) -> list[ConfirmationView]:
        scope = scoped(payment.institution_id)
        locks = {lock.confirm_no: lock.status.value for lock in await scope.find(HisLock, payment_id=payment.id)}
        return [
            ConfirmationView(
                confirm_no=row.confirm_no,
                status=row.status.value,
                lock_status=locks.get(row.confirm_no, ""),
                sends=row.sends_started - row.sends_unreached,
                last_sent_at=row.last_sent_at,
                due_at=row.due_at,
            )
            for row in await scope.find(Confirmation, ("created_at", "id"), payment_id=payment.id)
        ]

    async def _refunds(self, payment: Payment) -> list[RefundView]:
        scope = scoped(payment.institution_id)
        refunds = await scope.find(Refund, ("created_at", "id"), payment_id=payment.id)
        numbers = {refund.id: refund.refund_no for refund in refunds}
        parts: dict[UUID, list[RefundPart]] = {}
        if refunds:
            for part in await scope.find(RefundLine, ("id",), refund_id=list(numbers)):
                parts.setdefault(part.refund_id, []).append(
                    RefundPart(line_id=part.line_id, amount_fen=part.amount_fen)
                )
        return [
            RefundView(
                refund_no=refund.refund_no,
                status=refund.status.value,
                origin=refund.origin,
                cause=refund.cause,
                amount_fen=refund.amount_fen,
                replaces=numbers.get(refund.replaces_id, "") if refund.replaces_id else "",
                channel_refund_no=refund.channel_refund_no,
                red_receipt_no=refund.red_receipt_no,
                sends=refund.sends_started - refund.sends_unreached,
                created_at=refund.created_at,
                refunded_at=refund.refunded_at,
                due_at=refund.due_at,
                parts=parts.get(refund.id, []),
            )
            for refund in refunds
        ]

    async def _evidence(self, payment: Payment) -> list[EvidenceView]:
        scope = scoped(payment.institution_id)
        events = await scope.find(PaymentEvent, ("at", "id"), payment_id=payment.id)
        digests = [event.raw_digest for event in events if event.raw_digest]
        kept = {body.digest for body in await scope.of(RawBody).filter(digest__in=digests).only("id", "digest")}
        confirmations = {row.id: row.confirm_no for row in await scope.find(Confirmation, payment_id=payment.id)}
        refunds = {row.id: row.refund_no for row in await scope.find(Refund, payment_id=payment.id)}
        return [
            EvidenceView(
                event_id=event.id,
                at=event.at,
                about=_about(event, payment, confirmations, refunds),
                kind=event.kind,
                source=event.source,
                proves=event.proves,
                proof_kind=event.proof_kind,
                facts=shown_facts(event.facts),
                digest=event.digest,
                has_raw=event.raw_digest in kept,
            )
            for event in events
        ]


def _about(
    event: PaymentEvent, payment: Payment, confirmations: Mapping[UUID, str], refunds: Mapping[UUID, str]
) -> str:
    if event.confirmation_id is not None:
        return confirmations.get(event.confirmation_id, "")
    return refunds.get(event.refund_id, "") if event.refund_id is not None else payment.order_no


def shown_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a counterparty said, with everything personal hidden; its code, which staff look up, is shown."""
    shown: dict[str, Any] = {}
    for name, value in facts.items():
        if name == "code":
            shown[name] = scrub(value)
        elif isinstance(value, Mapping):
            shown[name] = shown_facts(value)
        elif name not in PERSONAL_FACTS:
            shown |= scrub({name: value})
    return shown


def balances_of(transfers: Sequence[Transfer]) -> dict[str, int]:
    """What lies in each account of one payment's ledger, in fen: credits less debits."""
    found = dict.fromkeys(Account, 0)
    for transfer in transfers:
        found[Account(transfer.debit)] -= transfer.amount_fen
        found[Account(transfer.credit)] += transfer.amount_fen
    return {account.value: amount for account, amount in found.items()}


def _brief(payment: Payment) -> PaymentBrief:
    return PaymentBrief(
        order_no=payment.order_no,
        status=payment.status.value,
        method=payment.method,
        asked_fen=payment.asked_fen,
        paid_fen=payment.paid_fen,
        refunded_fen=payment.refunded_fen,
        created_at=payment.created_at,
        paid_at=payment.paid_at,
    )


def _line(line: PaymentLine) -> LineView:
    return LineView(
        line_id=line.id,
        branch=line.branch,
        bill_id=line.his_bill_id,
        kind_text=line.kind_text,
        title=line.title,
        amount_fen=line.amount_fen,
        refunded_fen=line.refunded_fen,
        paid_out_fen=line.paid_out_fen,
        status=line.status.value,
        confirm_no=line.confirm_no,
        receipt_no=line.receipt_no,
        reason_code=line.reason_code,
        reason_text=scrub(line.reason_text),
    )


def _transfer(transfer: Transfer) -> TransferView:
    return TransferView(
        at=transfer.at,
        kind=transfer.kind,
        debit=transfer.debit,
        credit=transfer.credit,
        amount_fen=transfer.amount_fen,
    )
