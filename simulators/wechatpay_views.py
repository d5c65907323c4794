"""What the simulated WeChat Pay says of an order or a refund: in answers, in notices, in its books."""

from __future__ import annotations

from typing import Any

from simulators.wechatpay_books import Merchant, Order, Refund, beijing_time, beijing_time_or_none, digits
from simulators.wechatpay_ledger import Ledger

STATE_TEXTS = {"NOTPAY": "订单未支付", "SUCCESS": "支付成功", "REFUND": "转入退款", "CLOSED": "订单已关闭"}
TRADE_TYPES = {"jsapi": "JSAPI", "native": "NATIVE", "app": "APP", "h5": "MWEB"}
_APP_NAMES = ("appid", "sp_appid", "sub_appid")


def numbers(merchant: Merchant) -> dict[str, str]:
    """The merchant, or the sub-merchant and its service provider, as every answer about an order names them."""
    if merchant.provider is None:
        return {"mchid": merchant.mchid}
    return {"sp_mchid": merchant.provider.mchid, "sub_mchid": merchant.mchid}


def transaction(ledger: Ledger, order: Order, *, unpaid: bool = False) -> dict[str, Any]:
    """`unpaid`: as it would look if it had not been paid."""
    state = "NOTPAY" if unpaid else order.state
    value: dict[str, Any] = {name: order.asked[name] for name in _APP_NAMES if name in order.asked}
    value |= numbers(order.merchant)
    value |= {
        "out_trade_no": order.out_trade_no,
        "trade_state": state,
        "trade_state_desc": STATE_TEXTS[state],
        "promotion_detail": [],
    }
    if "attach" in order.asked:
        value["attach"] = order.asked["attach"]
    if "device_id" in order.asked.get("scene_info", {}):
        value["scene_info"] = {"device_id": order.asked["scene_info"]["device_id"]}
    if order.paid_at is None or unpaid:
        return value | {"amount": {"total": order.total_fen, "payer_currency": "CNY"}, "payer": {}}
    if order.coupon_fen:
        value["promotion_detail"] = [_promotion(ledger, order)]
    return value | {
        "transaction_id": order.transaction_id,
        "trade_type": TRADE_TYPES[order.product],
        "bank_type": "OTHERS",
        "success_time": beijing_time(order.paid_at),
        "payer": payer(ledger, order),
        "amount": {
            "total": order.total_fen,
            "payer_total": order.payer_fen,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    }


def payer(ledger: Ledger, order: Order) -> dict[str, str]:
    """The payer as each app of the order knows him; the provider's app has a name of its own for him."""
    known = order.payer_openid or ledger.openid(order)
    if order.merchant.provider is None:
        return {"openid": known}
    if order.appids[0] == order.asked["sp_appid"]:
        return {"sp_openid": known}
    return {"sp_openid": "o" + ledger.hash("sp_openid", known)[:27], "sub_openid": known}


def _promotion(ledger: Ledger, order: Order) -> dict[str, Any]:
    identity = ledger.hash("coupon", order.merchant.mchid, order.out_trade_no)
    return {
        "coupon_id": digits(identity, 10),
        "name": "支付立减",
        "scope": "GLOBAL",
        "type": "CASH",
        "amount": order.coupon_fen,
        "stock_id": digits(identity[20:], 8),
        "wechatpay_contribute": order.coupon_fen,
        "merchant_contribute": 0,
        "other_contribute": 0,
        "currency": "CNY",
    }


def refund_object(refund: Refund) -> dict[str, Any]:
    """An answer about a refund names no merchant, in either mode."""
    order = refund.order
    value: dict[str, Any] = {
        "refund_id": refund.refund_id,
        "out_refund_no": refund.out_refund_no,
        "transaction_id": order.transaction_id,
        "out_trade_no": order.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": refund.received_account,
        "create_time": beijing_time(refund.created_at),
        "status": refund.state,
        "funds_account": refund.asked.get("funds_account", "AVAILABLE"),
        "amount": {
            "total": order.total_fen,
            "refund": refund.refund_fen,
            "from": [],
            "payer_total": order.payer_fen,
            "payer_refund": refund.payer_fen,
            "settlement_refund": refund.refund_fen,
            "settlement_total": order.total_fen,
            "discount_refund": refund.refund_fen - refund.payer_fen,
            "currency": "CNY",
            "refund_fee": 0,
        },
        "promotion_detail": [],
    }
    if refund.state == "SUCCESS" and refund.settled_at:
        value["success_time"] = beijing_time(refund.settled_at)
    return value


def order_in_books(order: Order) -> dict[str, Any]:
    return {
        **numbers(order.merchant),
        "mchid": order.merchant.mchid,
        "out_trade_no": order.out_trade_no,
        "transaction_id": order.transaction_id if order.paid_at else None,
        "product": order.product,
        "description": order.asked["description"],
        "attach": order.asked.get("attach"),
        "total_fen": order.total_fen,
        "taken_fen": order.taken_fen,
        "coupon_fen": order.coupon_fen,
        # Accepted and not closed: gone from the merchant, wherever it is on its way to the payer.
        "returning_fen": sum(r.refund_fen for r in order.refunds if r.state in ("PROCESSING", "ABNORMAL")),
        "refunded_fen": sum(r.refund_fen for r in order.refunds if r.state == "SUCCESS"),
        "state": order.state,
        "payer_openid": order.payer_openid,
        "reference": order.current_reference,
        "created_at": beijing_time(order.created_at),
        "expires_at": beijing_time(order.expires_at),
        "paid_at": beijing_time_or_none(order.paid_at),
        "closed_at": beijing_time_or_none(order.closed_at),
    }


def refund_in_books(refund: Refund) -> dict[str, Any]:
    return {
        "mchid": refund.order.merchant.mchid,
        "out_trade_no": refund.order.out_trade_no,
        "out_refund_no": refund.out_refund_no,
        "refund_id": refund.refund_id,
        "refund_fen": refund.refund_fen,
        "state": refund.state,
        "by_hand": refund.by_hand,
        "created_at": beijing_time(refund.created_at),
        "settled_at": beijing_time_or_none(refund.settled_at),
    }
