"""What arrived, what a person must look at, what goes to a phone, and what has been answered."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tortoise import fields
from tortoise.models import Model

from core.models.fields import OUTSIDE_ID_LENGTH_MAX, DueMixin, id_field, status_field
from core.states import CaseStatus, InboundStatus, MessageStatus


class Inbound(DueMixin):
    """A verified message from a counterparty, stored before it was answered."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    source = fields.CharField(max_length=32)
    account_id: UUID = fields.UUIDField()
    digest = fields.CharField(max_length=64)
    kind = fields.CharField(max_length=32)
    content_enc = fields.TextField()
    status = status_field(InboundStatus, default=InboundStatus.RECEIVED)
    received_at = fields.DatetimeField()

    class Meta:
        table = "inbound"


class UnverifiedInbound(Model):
    """The latest messages whose sender is not proven, in a ring."""

    id = id_field()
    source = fields.CharField(max_length=32)
    account_id: UUID = fields.UUIDField()
    slot = fields.IntField()
    digest = fields.CharField(max_length=64)
    head = fields.BinaryField()
    reason = fields.CharField(max_length=128)
    received_at = fields.DatetimeField()

    class Meta:
        table = "unverified_inbound"


class StaffCase(Model):
    """Work for a person, with all that is known."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    kind = fields.CharField(max_length=48)
    subject = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)
    payment_id: UUID | None = fields.UUIDField(null=True)
    details: dict[str, Any] = fields.JSONField(default=dict)
    status = status_field(CaseStatus, default=CaseStatus.OPEN)
    opened_at = fields.DatetimeField()
    closed_at = fields.DatetimeField(null=True)
    closed_reason = fields.CharField(max_length=64, default="")
    closed_by: UUID | None = fields.UUIDField(null=True)
    note = fields.TextField(default="")  # of whoever closed it

    class Meta:
        table = "staff_case"


class Message(DueMixin):
    """A message to a payer: kind and values, rendered when it is sent."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payer_id: UUID = fields.UUIDField()
    payment_id: UUID | None = fields.UUIDField(null=True)
    kind = fields.CharField(max_length=32)
    dedup_key = fields.CharField(max_length=160)
    values_enc = fields.TextField()
    status = status_field(MessageStatus, default=MessageStatus.QUEUED)
    chat_account_id: UUID | None = fields.UUIDField(null=True)
    sends_started = fields.IntField(default=0)
    sends_unreached = fields.IntField(default=0)
    first_sent_at = fields.DatetimeField(null=True)
    result_code = fields.CharField(max_length=64, default="")
    platform_message_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX, default="")
    delivery = fields.CharField(max_length=16, default="")
    created_at = fields.DatetimeField()

    class Meta:
        table = "message"


class IdempotencyRecord(Model):
    """The answer to a request that carried an Idempotency-Key."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    actor = fields.CharField(max_length=64)
    route = fields.CharField(max_length=64)
    key = fields.CharField(max_length=128)
    request_digest = fields.CharField(max_length=64)
    payment_id: UUID | None = fields.UUIDField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "idempotency_record"
