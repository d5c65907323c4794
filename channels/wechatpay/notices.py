"""What an authentic notice says, once it is opened with the account's APIv3 key. No network."""

from __future__ import annotations

from channels.wechatpay.mapping import refund_of, trade_of
from channels.wechatpay.params import Credentials
from channels.wechatpay.records import Unreadable, record_of, text
from channels.wechatpay.signing import AEAD_ALGORITHM, decrypt_resource
from core.ports import Notice


def notice_of(credentials: Credentials, body: bytes) -> Notice:
    """Raises Unreadable for what cannot be opened and for what is about somebody else."""
    envelope = record_of(body)
    event = text(envelope, "event_type")
    resource = envelope.get("resource")
    if not isinstance(resource, dict) or text(resource, "algorithm") != AEAD_ALGORITHM:
        raise Unreadable("a notice without a resource that we can decrypt")
    try:
        plain = decrypt_resource(
            credentials.api_v3_key,
            nonce=text(resource, "nonce"),
            associated_data=text(resource, "associated_data", required=False),
            ciphertext=text(resource, "ciphertext"),
        )
    except ValueError as error:
        raise Unreadable(str(error)) from error
    record = record_of(plain)
    parties = credentials.parties
    parties.expect_said(record)
    notice_id = text(envelope, "id")
    if event == "TRANSACTION.SUCCESS":
        text(record, parties.signer_app_name)
        trade = trade_of(record, parties=parties, order_no=None, raw=plain)
        return Notice(notice_id=notice_id, kind="trade", trade=trade)
    if event.startswith("REFUND."):
        parties.expect(record)
        refund = refund_of(record, refund_no=None, state_name="refund_status", raw=plain)
        return Notice(notice_id=notice_id, kind="refund", refund=refund)
    return Notice(notice_id=notice_id, kind="probe" if event.startswith("SECURITY_ECHO.") else "other")
