"""Who works here, what he did, and what takes two."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tortoise import fields
from tortoise.models import Model

from core.models.fields import OUTSIDE_ID_LENGTH_MAX, id_field, status_field
from core.states import DecisionStatus


class Staff(Model):
    """A person of the hospital or of the operating company, with what he may do at this institution."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    code = fields.CharField(max_length=64)  # by which colleagues know him: a staff number, never a name
    name_enc = fields.TextField(default="")
    roles: list[str] = fields.JSONField(default=list)
    token_lookup = fields.CharField(max_length=64, default="")  # of the key that he calls with; empty: none
    is_active = fields.BooleanField(default=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "staff"


class AuditEntry(Model):
    """What a member of staff did. Rows are only ever added."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    staff_id: UUID = fields.UUIDField()
    action = fields.CharField(max_length=48)
    subject = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)
    details: dict[str, Any] = fields.JSONField(default=dict)
    at = fields.DatetimeField()

    class Meta:
        table = "audit_entry"


class Decision(Model):
    """Something that one person proposes and another one decides, with the document that speaks for it."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    kind = fields.CharField(max_length=32)
    payment_id: UUID = fields.UUIDField()
    refund_id: UUID | None = fields.UUIDField(null=True)
    confirmation_id: UUID | None = fields.UUIDField(null=True)
    case_id: UUID | None = fields.UUIDField(null=True)
    proposal: dict[str, Any] = fields.JSONField(default=dict)
    document_enc = fields.TextField(default="")
    document_digest = fields.CharField(max_length=64, default="")
    status = status_field(DecisionStatus, default=DecisionStatus.PROPOSED)
    proposed_by: UUID = fields.UUIDField()
    proposed_at = fields.DatetimeField()
    decided_by: UUID | None = fields.UUIDField(null=True)
    decided_at = fields.DatetimeField(null=True)

    class Meta:
        table = "decision"
