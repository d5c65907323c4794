"""`apply`: the one way in which evidence moves a payment, its lines, confirmations and refunds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from uuid import UUID

from core.channel_side import ChannelSide
from core.evidence import Evidence
from core.hospital_side import HospitalSide
from core.models import Confirmation, Payment, Refund
from core.outside import Outside
from core.payment_rows import lock_payment
from core.refund_side import RefundSide
from core.states import ProofKind
from core.tenancy import scoped
from core.transactions import atomically, rows


@dataclass(frozen=True, slots=True)
class Applier:
    """Records what was said and brings everything that follows in line with it, in one transaction."""

    outside: Outside
    channel: ChannelSide
    hospital: HospitalSide
    refunds: RefundSide

    async def apply(self, evidence: Evidence) -> Payment | None:
        """Safe to call any number of times, in any order; None when there is no such payment.

        Raises nothing for what was said: a wrong amount or an impossible state becomes a case for staff.
        """
        return await atomically(lambda: self._apply(evidence))

    async def _apply(self, evidence: Evidence) -> Payment | None:
        payment = await lock_payment(evidence.order_no)
        if payment is None:
            return None
        scope = scoped(payment.institution_id)
        confirmation = refund = None
        if evidence.confirm_no:
            confirmation = await scope.of(Confirmation).get_or_none(
                confirm_no=evidence.confirm_no, payment_id=payment.id
            )
            if confirmation is None:
                return payment
        if evidence.refund_no:
            refund = await scope.of(Refund).get_or_none(refund_no=evidence.refund_no, payment_id=payment.id)
            if refund is None:
                await self.refunds.of_nobody(payment, evidence)
                return payment
        if evidence.proof_kind is ProofKind.NEVER_SENT and payment.sends_started != payment.sends_unreached:
            return payment
        event_id = await self._record(payment, evidence, confirmation, refund)
        if event_id is None:
            return payment
        if confirmation is not None:
            await self.hospital.booking_came(payment, confirmation, evidence, event_id)
        elif refund is not None:
            await self.refunds.evidence_came(payment, refund, evidence, event_id)
        else:
            await self.channel.evidence_came(payment)
        return payment

    async def _record(
        self, payment: Payment, evidence: Evidence, confirmation: Confirmation | None, refund: Refund | None
    ) -> UUID | None:
        """Insert the evidence; None when the same was said before."""
        event_id = self.outside.ids.uuid()
        raw_digest = hashlib.sha256(evidence.raw).hexdigest() if evidence.raw else ""
        now = self.outside.clock.now()
        inserted = await rows(
            "INSERT INTO payment_event (id, institution_id, payment_id, confirmation_id, refund_id, kind, source,"
            " proves, proof_kind, facts, digest, raw_digest, at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11, $12, $13)"
            " ON CONFLICT ON CONSTRAINT payment_event_once DO NOTHING RETURNING id",
            event_id,
            payment.institution_id,
            payment.id,
            confirmation.id if confirmation else None,
            refund.id if refund else None,
            evidence.kind,
            evidence.source,
            evidence.proves,
            evidence.proof_kind.value if evidence.proof_kind else None,
            json.dumps(dict(evidence.facts), ensure_ascii=False),
            evidence.digest,
            raw_digest,
            now,
        )
        if inserted and evidence.raw:
            await rows(
                "INSERT INTO raw_body (id, institution_id, digest, body_enc, created_at)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT ON CONSTRAINT raw_body_once DO NOTHING RETURNING id",
                self.outside.ids.uuid(),
                payment.institution_id,
                raw_digest,
                self.outside.keyring.encrypt(evidence.raw.decode("utf-8", "backslashreplace"), place="raw_body.body"),
                now,
            )
        return event_id if inserted else None
