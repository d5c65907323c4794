"""What the simulated Alipay says of a trade or a refund: in answers, in notices, in its books."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from simulators.alipay_books import Order, Refund, beijing_time, beijing_time_or_none, digits, yuan
from simulators.alipay_ledger import Ledger

ZERO_AMOUNTS = dict.fromkeys(("buyer_pay_amount", "invoice_amount", "point_amount", "receipt_amount"), "0.00")


def buyer(ledger: Ledger, order: Order, *, notice: bool = False) -> dict[str, str]:
    """The payer: by user_id where the merchant named him so, else by open_id; in notices a user_id is a buyer_id."""
    if not order.payer:
        return {}
    known = order.payer.startswith("2088")
    name = ("buyer_id" if notice else "buyer_user_id") if known else "buyer_open_id"
    number = digits(ledger.hash("logon", order.payer), 7)
    return {"buyer_logon_id": f"1{number[:2]}****{number[3:]}", name: order.payer}


def some_payer(ledger: Ledger, order: Order) -> str:
    """A payer whom nobody has named."""
    identity = ledger.hash("payer", order.merchant.pid, order.out_trade_no)
    if order.application.knows_open_ids:
        return f"0{identity[:35]}"
    return f"2088{digits(identity, 12)}"


def amounts(order: Order) -> dict[str, str]:
    """Of a paid trade; a coupon is Alipay's, so the merchant receives the whole."""
    return {
        "buyer_pay_amount": yuan(order.payer_fen),
        "invoice_amount": yuan(order.payer_fen),
        "point_amount": "0.00",
        "receipt_amount": yuan(order.total_fen),
    }


def funds(order: Order, *, name: str = "fund_channel") -> list[dict[str, str]]:
    parts = [("COUPON", order.coupon_fen), ("ALIPAYACCOUNT", order.payer_fen)]
    return [{name: channel, "amount": yuan(fen)} for channel, fen in parts if fen]


def trade(ledger: Ledger, order: Order, options: list[str], *, unpaid: bool = False) -> dict[str, Any]:
    """The answer of a query. `unpaid`: as it would look if it had not been paid."""
    paid = order.paid_at is not None and not unpaid
    value: dict[str, Any] = {
        "trade_no": order.trade_no,
        "out_trade_no": order.out_trade_no,
        **buyer(ledger, order),
        "trade_status": "WAIT_BUYER_PAY" if unpaid else order.state,
        "total_amount": yuan(order.total_fen),
        **(amounts(order) if paid else ZERO_AMOUNTS),
    }
    if not paid:
        return value
    value["send_pay_date"] = beijing_time_or_none(order.paid_at)
    if "fund_bill_list" in options:
        value["fund_bill_list"] = funds(order)
    if "discount_amount" in options:
        value["discount_amount"] = yuan(order.coupon_fen)
    return value


def notice_fields(ledger: Ledger, order: Order, status: str, refund: Refund | None = None) -> dict[str, str]:
    """The fields of a notice about the trade, without those of the envelope."""
    value = {
        "app_id": order.called_by.app_id,
        "auth_app_id": order.application.app_id,
        "trade_no": order.trade_no,
        "out_trade_no": order.out_trade_no,
        **buyer(ledger, order, notice=True),
        "seller_id": order.merchant.pid,
        "seller_email": order.merchant.email,
        "trade_status": status,
        "total_amount": yuan(order.total_fen),
        "subject": order.asked["subject"],
        "body": order.asked.get("body", ""),
        "passback_params": order.asked.get("passback_params", ""),
        "gmt_create": beijing_time_or_none(order.created_at) or "",
    }
    if order.paid_at:
        value |= amounts(order)
        value["gmt_payment"] = beijing_time(order.paid_at)
        value["fund_bill_list"] = json.dumps(funds(order, name="fundChannel"), separators=(",", ":"))
    if order.closed_at or status == "TRADE_CLOSED":
        closed_at = order.closed_at or (refund.created_at if refund else None)
        value["gmt_close"] = beijing_time_or_none(closed_at) or ""
    if refund is not None:
        value |= {
            "refund_fee": yuan(order.refunded_fen),
            "gmt_refund": f"{beijing_time(refund.created_at)}.{refund.created_at.microsecond // 1000:03}",
            "out_biz_no": refund.out_request_no,
        }
    elif status == "TRADE_FINISHED":
        value["refund_fee"] = "0.00"
    return value


def refund_answer(ledger: Ledger, order: Order, refund: Refund, options: list[str], *, moved: bool) -> dict[str, Any]:
    """`refund_fee` is what has gone back in all; what this call returned is there on request only."""
    value: dict[str, Any] = {
        "trade_no": order.trade_no,
        "out_trade_no": order.out_trade_no,
        **buyer(ledger, order),
        "fund_change": "Y" if moved else "N",
        "refund_fee": yuan(order.refunded_fen),
        "gmt_refund_pay": beijing_time(refund.created_at),
    }
    if "refund_detail_item_list" in options:
        value["send_back_fee"] = yuan(refund.refund_fen)
        value["refund_detail_item_list"] = _refund_items(refund)
    return value


def refund_found(refund: Refund, options: list[str]) -> dict[str, Any]:
    order = refund.order
    value: dict[str, Any] = {
        "trade_no": order.trade_no,
        "out_trade_no": order.out_trade_no,
        "out_request_no": refund.out_request_no,
        "refund_reason": refund.reason,
        "total_amount": yuan(order.total_fen),
        "refund_amount": yuan(refund.refund_fen),
        "refund_status": "REFUND_SUCCESS",
    }
    if "gmt_refund_pay" in options:
        value["gmt_refund_pay"] = beijing_time(refund.created_at)
    if "refund_detail_item_list" in options:
        value["refund_detail_item_list"] = _refund_items(refund)
    return value


def _refund_items(refund: Refund) -> list[dict[str, str]]:
    parts = [("ALIPAYACCOUNT", refund.payer_fen), ("COUPON", refund.refund_fen - refund.payer_fen)]
    return [{"fund_channel": channel, "amount": yuan(fen)} for channel, fen in parts if fen]


def order_in_books(order: Order, now: datetime) -> dict[str, Any]:
    returning = sum(refund.refund_fen for refund in order.refunds if refund.shown_at > now)
    return {
        "pid": order.merchant.pid,
        "app_id": order.application.app_id,
        "out_trade_no": order.out_trade_no,
        "trade_no": order.trade_no or None,
        "product": order.product,
        "subject": order.asked["subject"],
        "passback_params": order.asked.get("passback_params"),
        "total_fen": order.total_fen,
        "taken_fen": order.taken_fen,
        "coupon_fen": order.coupon_fen,
        # Gone from the merchant, not yet seen by a refund query.
        "returning_fen": returning,
        "refunded_fen": order.refunded_fen - returning,
        "state": order.state if order.exists else None,
        "payer": order.payer,
        "reference": order.current_reference,
        "asked_at": beijing_time(order.asked_at),
        "created_at": beijing_time_or_none(order.created_at),
        "expires_at": beijing_time_or_none(order.expires_at),
        "paid_at": beijing_time_or_none(order.paid_at),
        "closed_at": beijing_time_or_none(order.closed_at),
        "finished_at": beijing_time_or_none(order.finished_at),
        "withdrawn_at": beijing_time_or_none(order.withdrawn_at),
    }


def refund_in_books(refund: Refund, now: datetime) -> dict[str, Any]:
    return {
        "pid": refund.order.merchant.pid,
        "out_trade_no": refund.order.out_trade_no,
        "out_request_no": refund.out_request_no,
        "refund_fen": refund.refund_fen,
        "state": "SUCCESS" if refund.shown_at <= now else "PROCESSING",
        "by_hand": refund.by_hand,
        "by_cancel": refund.by_cancel,
        "created_at": beijing_time(refund.created_at),
        "shown_at": beijing_time(refund.shown_at),
    }
