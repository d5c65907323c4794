"""What a HIS says about money that goes back, as evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.evidence import NUMBER_LENGTH_MAX, Evidence
from core.ports import RedReceipt, Reversal
from core.states import ProofKind

REVERSAL, RED_RECEIPT = "reversal", "red_receipt"
REVERSED, KEPT = "reversed", "kept"
STANDS = "booking_stands"
"""Two people have seen that the HIS keeps what it has booked after it had refused."""


def reversal_evidence(order_no: str, refund_no: str, reversal: Reversal) -> Evidence:
    """The HIS has taken the booking back, asked under our refund number."""
    return Evidence(
        order_no=order_no,
        kind=REVERSAL,
        source="hospital",
        refund_no=refund_no,
        proves=REVERSED,
        proof_kind=ProofKind.AUTHENTICATED_QUERY,
        facts={
            "red_receipt_no": reversal.red_receipt_no[:NUMBER_LENGTH_MAX],
            "amounts": dict(reversal.amounts_fen),
        },
        raw=reversal.raw,
    )


def kept_evidence(order_no: str, refund_no: str, *, code: str, message: str, raw: bytes = b"") -> Evidence:
    """The HIS refuses to take the booking back, with a code of its closed list."""
    return Evidence(
        order_no=order_no,
        kind=REVERSAL,
        source="hospital",
        refund_no=refund_no,
        proves=KEPT,
        proof_kind=ProofKind.EXPLICIT_REFUSAL,
        facts={"code": code, "message": message},
        raw=raw,
    )


def red_receipt_evidence(order_no: str, receipt: RedReceipt) -> Evidence:
    """The HIS has taken back what it booked under this confirm_no, without having been asked by us."""
    return Evidence(
        order_no=order_no,
        kind=RED_RECEIPT,
        source="hospital",
        confirm_no=receipt.confirm_no,
        facts={
            "red_receipt_no": receipt.red_receipt_no[:NUMBER_LENGTH_MAX],
            "amounts": dict(receipt.amounts_fen),
            "money_by": receipt.money_by.value,
        },
        raw=receipt.raw,
    )


def red_receipt_proof(order_no: str, refund_no: str, said: Evidence) -> Evidence:
    """The same red receipt, as the proof of the refund that follows from it."""
    return Evidence(
        order_no=order_no,
        kind=REVERSAL,
        source="hospital",
        refund_no=refund_no,
        proves=REVERSED,
        proof_kind=ProofKind.AUTHENTICATED_QUERY,
        facts=said.facts,
    )


def receipt_of(facts: Mapping[str, Any], his_bill_id: str) -> dict[str, str]:
    """What a line keeps of the receipt that the HIS made for its bill; `facts` are those of a booking."""
    receipt = dict(facts.get("receipts") or {}).get(his_bill_id, {})
    return {
        "receipt_no": receipt.get("receipt_no", "")[:NUMBER_LENGTH_MAX],
        "guide_text": receipt.get("guide_text", ""),
        "receipt_url": receipt.get("receipt_url", ""),
        "ebill_url": receipt.get("ebill_url", ""),
    }
