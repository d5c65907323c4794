"""A payment and everything that hangs on it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tortoise import fields
from tortoise.models import Model

from core.models.fields import (
    MAC_LENGTH,
    NUMBER_LENGTH_MAX,
    OUTSIDE_ID_LENGTH_MAX,
    STATUS_LENGTH_MAX,
    DueMixin,
    fen_field,
    id_field,
    status_field,
)
from core.money import Fen
from core.states import ConfirmationStatus, LineStatus, LockStatus, PaymentStatus, RefundStatus


class Payment(DueMixin):
    """One attempt of a payer to pay one or more bills through one channel."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    merchant_account_id: UUID = fields.UUIDField()
    payer_id: UUID = fields.UUIDField()
    patient_id: UUID = fields.UUIDField()
    site_id: UUID = fields.UUIDField()
    his_patient_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)
    method = fields.CharField(max_length=64)
    app_id = fields.CharField(max_length=64, default="")
    scene = fields.CharField(max_length=16)
    order_no = fields.CharField(max_length=NUMBER_LENGTH_MAX, unique=True)
    asked_fen = fen_field(default=None)
    paid_fen = fen_field()
    refunded_fen = fen_field()
    refund_reserved_fen = fen_field()
    external_refunded_fen = fen_field()  # given back in the channel's console, and counted towards nothing yet
    status = status_field(PaymentStatus, default=PaymentStatus.CREATED)
    proof_id: UUID | None = fields.UUIDField(null=True)
    expires_at = fields.DatetimeField(null=True)
    sends_started = fields.IntField(default=0)
    sends_unreached = fields.IntField(default=0)
    close_wanted = fields.BooleanField(default=False)
    pay_params_enc = fields.TextField(default="")
    channel_trade_no = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX, default="")
    paid_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "payment"


class PaymentLine(DueMixin):
    """One bill in a payment, as it was when it was paid."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payment_id: UUID = fields.UUIDField()
    position = fields.IntField()
    branch = fields.CharField(max_length=32, default="")
    his_bill_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX)
    visit_no = fields.CharField(max_length=64, default="")
    kind = fields.CharField(max_length=16)
    kind_text = fields.CharField(max_length=64, default="")
    title = fields.CharField(max_length=128, default="")
    amount_fen = fen_field(default=None)
    status = status_field(LineStatus, default=LineStatus.WAITING)
    claims_bill = fields.BooleanField(default=True)
    confirm_no = fields.CharField(max_length=NUMBER_LENGTH_MAX)
    confirmation_id: UUID | None = fields.UUIDField(null=True)
    proof_id: UUID | None = fields.UUIDField(null=True)
    receipt_no = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX, default="")
    guide_text = fields.TextField(default="")
    receipt_url = fields.TextField(default="")
    ebill_url = fields.TextField(default="")
    refunded_fen = fen_field()  # of what the HIS had booked: given back, on the way, or asked for
    paid_out_fen = fen_field()  # given back by the hospital itself, at its own counter
    reason_code = fields.CharField(max_length=64, default="")
    reason_text = fields.TextField(default="")

    class Meta:
        table = "payment_line"


class PaymentEvent(Model):
    """Evidence about a payment, its confirmations and its refunds. Rows are only ever added."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payment_id: UUID = fields.UUIDField()
    confirmation_id: UUID | None = fields.UUIDField(null=True)
    refund_id: UUID | None = fields.UUIDField(null=True)
    kind = fields.CharField(max_length=32)
    source = fields.CharField(max_length=32)
    proves = fields.CharField(max_length=STATUS_LENGTH_MAX, null=True)
    proof_kind = fields.CharField(max_length=32, null=True)
    facts: dict[str, Any] = fields.JSONField(default=dict)
    digest = fields.CharField(max_length=64)
    raw_digest = fields.CharField(max_length=64, default="")
    at = fields.DatetimeField()

    class Meta:
        table = "payment_event"


class RawBody(Model):
    """The bytes behind a piece of evidence, encrypted. Retention may empty this table."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    digest = fields.CharField(max_length=64)
    body_enc = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "raw_body"


class Confirmation(DueMixin):
    """What the HIS is told about one group of lines."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payment_id: UUID = fields.UUIDField()
    site_id: UUID = fields.UUIDField()
    confirm_no = fields.CharField(max_length=NUMBER_LENGTH_MAX, unique=True)
    status = status_field(ConfirmationStatus, default=ConfirmationStatus.OPEN)
    proof_id: UUID | None = fields.UUIDField(null=True)
    sends_started = fields.IntField(default=0)
    sends_unreached = fields.IntField(default=0)
    last_sent_at = fields.DatetimeField(null=True)
    relock_wanted = fields.BooleanField(default=False)
    created_at = fields.DatetimeField()

    class Meta:
        table = "confirmation"


class HisLock(DueMixin):
    """What the HIS holds for one group of lines."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payment_id: UUID = fields.UUIDField()
    site_id: UUID = fields.UUIDField()
    confirm_no = fields.CharField(max_length=NUMBER_LENGTH_MAX, unique=True)
    status = status_field(LockStatus, default=LockStatus.ASKING)
    lock_id = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX, default="")
    expires_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "his_lock"


class Refund(DueMixin):
    """Money on its way back by the original route."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payment_id: UUID = fields.UUIDField()
    refund_no = fields.CharField(max_length=NUMBER_LENGTH_MAX, unique=True)
    cause = fields.CharField(max_length=32)
    origin = fields.CharField(max_length=16, default="automatic")  # automatic | staff | hospital
    requested_by: UUID | None = fields.UUIDField(null=True)
    decided_by: UUID | None = fields.UUIDField(null=True)
    decided_at = fields.DatetimeField(null=True)
    red_receipt_no = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX, default="")
    his_proof_id: UUID | None = fields.UUIDField(null=True)  # that the HIS has, or has not, taken the booking back
    his_sends_started = fields.IntField(default=0)
    his_sends_unreached = fields.IntField(default=0)
    his_last_sent_at = fields.DatetimeField(null=True)
    status = status_field(RefundStatus, default=RefundStatus.REQUESTED)
    proof_id: UUID | None = fields.UUIDField(null=True)
    amount_fen = fen_field(default=None)
    external_fen = fen_field()  # of it, what others have given back in the channel's console
    replaces_id: UUID | None = fields.UUIDField(null=True)
    reason = fields.TextField(default="")
    request_key = fields.CharField(max_length=128, default="")  # one click of whoever requested it
    request_digest = fields.CharField(max_length=64, default="")
    refusal_text = fields.TextField(default="")  # why it was declined, in the HIS's words or a colleague's
    channel_refund_no = fields.CharField(max_length=OUTSIDE_ID_LENGTH_MAX, default="")
    sends_started = fields.IntField(default=0)
    sends_unreached = fields.IntField(default=0)
    last_sent_at = fields.DatetimeField(null=True)
    refunded_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "refund"

    @property
    def own_fen(self) -> Fen:
        """What we ourselves give back under this number."""
        return Fen(self.amount_fen - self.external_fen)


class RefundLine(Model):
    """Which line a refund returns, and how much of it."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payment_id: UUID = fields.UUIDField()
    refund_id: UUID = fields.UUIDField()
    line_id: UUID = fields.UUIDField()
    amount_fen = fen_field(default=None)
    his_items: list[str] = fields.JSONField(default=list)  # ids of the HIS's items; empty: the whole bill
    reversed_fen = fen_field()  # what the HIS has taken back of it

    class Meta:
        table = "refund_line"


class Transfer(Model):
    """One movement between two accounts of the ledger. Rows are only ever added."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    payment_id: UUID = fields.UUIDField()
    seq = fields.IntField()
    cause = fields.CharField(max_length=64)
    kind = fields.CharField(max_length=32)
    debit = fields.CharField(max_length=32)
    credit = fields.CharField(max_length=32)
    amount_fen = fen_field(default=None)
    at = fields.DatetimeField()
    mac = fields.CharField(max_length=MAC_LENGTH)

    class Meta:
        table = "transfer"


class Seal(Model):
    """What stood in an institution's ledger at a run of places. Rows are only ever added."""

    id = id_field()
    institution_id: UUID = fields.UUIDField()
    number = fields.IntField()
    after_place: int = fields.BigIntField()
    last_place: int = fields.BigIntField()
    transfers = fields.IntField()
    balances: dict[str, int] = fields.JSONField()
    members = fields.BinaryField()
    digest = fields.CharField(max_length=MAC_LENGTH)
    previous_mac = fields.CharField(max_length=MAC_LENGTH)
    at = fields.DatetimeField()
    mac = fields.CharField(max_length=MAC_LENGTH)

    class Meta:
        table = "seal"
