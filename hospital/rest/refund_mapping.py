"""The REST profile's fields for taking a booking back ↔ ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.money import Fen
from core.ports import BookedBill, MoneyBy, RedReceipt, RefundableBill, RefundItem, Reversal, ReverseOrder
from hospital.rest.mapping import (
    Unreadable,
    flag,
    must_match,
    needed_amount,
    needed_text,
    optional_rows,
    rows,
    text,
)

REASON_CHARACTERS_MAX = 100


def write_refund_check(his_patient_id: str, bills: Sequence[BookedBill]) -> dict[str, Any]:
    return {
        "patient_id": his_patient_id,
        "bills": [{"confirm_no": bill.confirm_no, "bill_id": bill.his_bill_id} for bill in bills],
    }


def read_refundable(answer: Mapping[str, Any], *, asked: frozenset[str]) -> tuple[RefundableBill, ...]:
    """One entry for each bill asked for, no other. Raises Unreadable."""
    found: dict[str, RefundableBill] = {}
    for row in rows(answer, "bills"):
        his_bill_id = needed_text(row, "bill_id")
        if his_bill_id in found:
            raise Unreadable("one bill_id is answered twice")
        found[his_bill_id] = RefundableBill(
            his_bill_id=his_bill_id,
            allowed_fen=needed_amount(row, "allowed_fen"),
            reason=text(row, "reason"),
            items=tuple(
                RefundItem(
                    item_id=needed_text(item, "item_id"),
                    name=text(item, "name"),
                    amount_fen=needed_amount(item, "amount_fen"),
                    refundable=flag(item, "refundable", default=False),
                    reason=text(item, "reason"),
                )
                for item in optional_rows(row, "items")
            ),
        )
    if found.keys() != asked:
        raise Unreadable("the bills answered are not the bills asked for")
    return tuple(found.values())


def write_confirm_refund(order: ReverseOrder) -> dict[str, Any]:
    return {
        "refund_no": order.refund_no,
        "order_no": order.order_no,
        "patient_id": order.his_patient_id,
        "bills": [
            {
                "confirm_no": line.confirm_no,
                "bill_id": line.his_bill_id,
                "amount_fen": line.amount_fen,
                "item_ids": list(line.item_ids),
            }
            for line in order.lines
        ],
        "total_fen": sum(line.amount_fen for line in order.lines),
        "reason": order.reason[:REASON_CHARACTERS_MAX],
    }


def read_reversal(
    answer: Mapping[str, Any], *, raw: bytes, refund_no: str, amounts: Mapping[str, Fen] | None = None
) -> Reversal:
    """What the HIS says about one refund_no: `reversed` must be a plain true or false.

    With `amounts`, a reversal of other bills or of another amount is Unreadable.
    """
    must_match(answer, "refund_no", refund_no)
    is_reversed = answer.get("reversed")
    if not isinstance(is_reversed, bool):
        raise Unreadable("reversed is neither true nor false")
    if not is_reversed:
        return Reversal(reversed=False, raw=raw)
    said = _amounts(answer)
    if amounts is not None and said != dict(amounts):
        raise Unreadable("what was reversed is not what was asked for")
    return Reversal(reversed=True, red_receipt_no=needed_text(answer, "red_receipt_no"), amounts_fen=said, raw=raw)


def read_red_receipt(answer: Mapping[str, Any], *, raw: bytes, red_receipt_no: str) -> RedReceipt:
    """What the HIS says about one red receipt. A word for `money_by` that is not in the profile says nothing."""
    must_match(answer, "red_receipt_no", red_receipt_no)
    known = answer.get("known")
    if not isinstance(known, bool):
        raise Unreadable("known is neither true nor false")
    if not known:
        return RedReceipt(red_receipt_no=red_receipt_no, known=False, raw=raw)
    try:
        money_by = MoneyBy(text(answer, "money_by"))
    except ValueError:
        money_by = MoneyBy.UNKNOWN
    return RedReceipt(
        red_receipt_no=red_receipt_no,
        known=True,
        refund_no=text(answer, "refund_no"),
        confirm_no=text(answer, "confirm_no"),
        amounts_fen=_amounts(answer),
        money_by=money_by,
        raw=raw,
    )


def _amounts(answer: Mapping[str, Any]) -> dict[str, Fen]:
    amounts: dict[str, Fen] = {}
    for row in rows(answer, "bills"):
        his_bill_id = needed_text(row, "bill_id")
        if his_bill_id in amounts:
            raise Unreadable("one bill_id is named twice")
        amounts[his_bill_id] = needed_amount(row, "amount_fen")
    return amounts
