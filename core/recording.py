"""Adding a piece of evidence to a payment's events, in the transaction that holds the payment's lock."""

from __future__ import annotations

import hashlib
import json
from uuid import UUID

from core.evidence import Evidence
from core.models import Payment
from core.outside import Outside
from core.transactions import rows


async def record(
    outside: Outside,
    payment: Payment,
    evidence: Evidence,
    *,
    confirmation_id: UUID | None = None,
    refund_id: UUID | None = None,
) -> UUID | None:
    """The new event's id; None when the same was said before."""
    event_id = outside.ids.uuid()
    raw_digest = hashlib.sha256(evidence.raw).hexdigest() if evidence.raw else ""
    now = outside.clock.now()
    inserted = await rows(
        "INSERT INTO payment_event (id, institution_id, payment_id, confirmation_id, refund_id, kind, source,"
        " proves, proof_kind, facts, digest, raw_digest, at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11, $12, $13)"
        " ON CONFLICT ON CONSTRAINT payment_event_once DO NOTHING RETURNING id",
        event_id,
        payment.institution_id,
        payment.id,
        confirmation_id,
        refund_id,
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
            outside.ids.uuid(),
            payment.institution_id,
            raw_digest,
            outside.keyring.encrypt(evidence.raw.decode("utf-8", "backslashreplace"), place="raw_body.body"),
            now,
        )
    return event_id if inserted else None
