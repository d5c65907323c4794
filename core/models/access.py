"""Who agreed to what, and what a paper prescription opens to whom."""

from __future__ import annotations

from uuid import UUID

from tortoise import fields
from tortoise.models import Model

from core.models.fields import OUTSIDE_ID_LENGTH_MAX, id_field


class Consent(Model):
    """A payer agreed to a notice: which, of what version, when and in which way. Withdrawn, it stays as a record."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payer_id: UUID = fields.UUIDField()
    kind = fields.CharField(max_length=16)
    version = fields.CharField(max_length=32)
    way = fields.CharField(max_length=16)
    phone_enc = fields.TextField(default="")
    given_at = fields.DatetimeField()
    withdrawn_at = fields.DatetimeField(null=True)

    class Meta:
        table = "consent"


class PaperLink(Model):
    """The address on a paper prescription. Only its token's HMAC is kept."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    site_id: UUID = fields.UUIDField()
    origin = fields.CharField(max_length=16)
    his_bill_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)
    lookup = fields.CharField(max_length=64)
    created_at = fields.DatetimeField()

    class Meta:
        table = "paper_link"


class PaperGrant(Model):
    """A payer has shown that the paper is his to pay: he sees this bill and the others of its visit for a while."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payer_id: UUID = fields.UUIDField()
    patient_id: UUID = fields.UUIDField()
    site_id: UUID = fields.UUIDField()
    his_patient_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)
    his_bill_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)
    visit_no = fields.CharField(max_length=64, default="")
    proof = fields.CharField(max_length=16)
    consent_id: UUID = fields.UUIDField()
    granted_at = fields.DatetimeField()
    ends_at = fields.DatetimeField()

    class Meta:
        table = "paper_grant"


class Guess(Model):
    """How often somebody has guessed at something since when; `subject` or `actor` is empty in the sums."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    subject = fields.CharField(max_length=64)
    actor = fields.CharField(max_length=64)
    count = fields.IntField()
    since = fields.DatetimeField()
    tried = fields.CharField(max_length=64, default="")  # digest of the last one
    repeats = fields.IntField(default=0)  # of the last one

    class Meta:
        table = "guess"


class PhoneCode(Model):
    """A code that was sent to a phone to learn whether the payer holds it."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payer_id: UUID = fields.UUIDField()
    phone_lookup = fields.CharField(max_length=64)
    code_lookup = fields.CharField(max_length=64)
    tries = fields.IntField(default=0)
    sent_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "phone_code"
