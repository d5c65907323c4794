"""Who we collect for, and how they reach HIS, channels and chat platforms."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tortoise import fields
from tortoise.models import Model

from core.models.fields import OUTSIDE_ID_LENGTH_MAX, DueMixin, id_field


class Deployment(Model):
    """The one row that says which deployment this database belongs to."""

    name = fields.CharField(primary_key=True, max_length=16, default="this")
    deployment_id = fields.CharField(max_length=64)
    canary_enc = fields.TextField(default="")

    class Meta:
        table = "deployment"


class Institution(Model):
    """A hospital or clinic."""

    id = id_field()
    code = fields.CharField(max_length=32, unique=True)
    name_zh = fields.CharField(max_length=128)
    name_en = fields.CharField(max_length=128, default="")
    phone = fields.CharField(max_length=32, default="")
    settings: dict[str, Any] = fields.JSONField(default=dict)
    created_at = fields.DatetimeField()

    class Meta:
        table = "institution"


class HospitalSiteRow(DueMixin):
    """One HIS of an institution, per branch, and how far its new bills have been polled."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    branch = fields.CharField(max_length=32, default="")
    adapter = fields.CharField(max_length=32)
    base_url = fields.CharField(max_length=255)
    params_enc = fields.TextField()
    capabilities: dict[str, Any] = fields.JSONField(default=dict)
    deadline_seconds = fields.IntField(default=10)
    calls_max = fields.IntField(default=8)
    maintenance: list[Any] = fields.JSONField(default=list)
    event_token = fields.CharField(max_length=64, unique=True)
    polled_until = fields.DatetimeField(null=True)

    class Meta:
        table = "hospital_site"


class MerchantAccountRow(Model):
    """A merchant number of an institution at a payment channel."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    channel = fields.CharField(max_length=32)
    merchant_no = fields.CharField(max_length=64)
    params_enc = fields.TextField()
    notify_token = fields.CharField(max_length=64, unique=True)
    enabled = fields.BooleanField(default=True)

    class Meta:
        table = "merchant_account"


class ChatAccountRow(Model):
    """An account of an institution on a chat platform."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    platform = fields.CharField(max_length=32)
    app_id = fields.CharField(max_length=64)
    params_enc = fields.TextField()
    callback_token = fields.CharField(max_length=64, unique=True)
    templates: dict[str, Any] = fields.JSONField(default=dict)

    class Meta:
        table = "chat_account"


class PaymentMethod(Model):
    """A way of paying on three levels, channel/instrument/wallet."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    merchant_account_id: UUID = fields.UUIDField()
    code = fields.CharField(max_length=64)
    app_id = fields.CharField(max_length=64, default="")
    operator_enabled = fields.BooleanField(default=True)
    institution_enabled = fields.BooleanField(default=True)
    position = fields.IntField(default=0)
    favourite = fields.BooleanField(default=False)
    scenes: list[str] = fields.JSONField(default=list)

    class Meta:
        table = "payment_method"


class Patient(Model):
    """A person who is treated. The HIS may know one person under several ids."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    name_enc = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "patient"


class HisPatient(Model):
    """One id under which a HIS knows a patient."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    patient_id: UUID = fields.UUIDField()
    branch = fields.CharField(max_length=32, default="")
    his_patient_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)

    class Meta:
        table = "his_patient"


class PatientIdentifier(Model):
    """A document number of a patient, encrypted, findable by its HMAC."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    patient_id: UUID = fields.UUIDField()
    type = fields.CharField(max_length=32)
    value_enc = fields.TextField()
    lookup = fields.CharField(max_length=64)

    class Meta:
        table = "patient_identifier"


class Payer(Model):
    """A chat identity that pays: one person on one account of one platform."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    chat_account_id: UUID = fields.UUIDField()
    open_id_enc = fields.TextField()
    open_id_lookup = fields.CharField(max_length=64)
    union_lookup = fields.CharField(max_length=64, default="")
    language = fields.CharField(max_length=8, default="zh")
    reachable = fields.BooleanField(default=True)
    reachable_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "payer"


class Binding(Model):
    """A payer may see and pay for a patient."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payer_id: UUID = fields.UUIDField()
    patient_id: UUID = fields.UUIDField()
    proof = fields.CharField(max_length=32)
    consent_id: UUID | None = fields.UUIDField(null=True)
    bound_at = fields.DatetimeField()
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "binding"
