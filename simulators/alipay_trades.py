"""How trades come to be, are asked for, and end at the simulated Alipay.

Where the facts are silent: the same number with anything changed is refused (they name buyer, seller and amount); a
paid or closed trade is not closed again; a cancel of a number nobody has used leaves no trace; a cancel of a code
that nobody has scanned withdraws the code; a partly refunded trade is not cancelled.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from simulators.alipay_books import Order, Product, read_beijing_time
from simulators.alipay_calls import Call, business_error, find_trade, invalid
from simulators.alipay_fields import fen
from simulators.alipay_ledger import Ledger, Reference
from simulators.alipay_notices import Notices
from simulators.alipay_phone import Phone
from simulators.alipay_refunds import Refunds
from simulators.alipay_views import ZERO_AMOUNTS, trade

FACE_TO_FACE = "FACE_TO_FACE_PAYMENT"
PRODUCTS: dict[Product, frozenset[str]] = {
    "create": frozenset({"JSAPI_PAY"}),
    "precreate": frozenset({"QR_CODE_OFFLINE", FACE_TO_FACE}),
    "wap": frozenset({"QUICK_WAP_WAY"}),
}
LIFE_MAX = timedelta(days=15)
FACE_TO_FACE_LIFE = timedelta(hours=3)
PAGE_LIFE_MIN = timedelta(minutes=5)
CODE_LIFE_MAX = timedelta(hours=2)
CANCEL_WITHIN = timedelta(hours=24)
LAG = timedelta(seconds=10)  # for how long a query may still not know of a trade, or say unpaid


class Trades:
    def __init__(self, ledger: Ledger, notices: Notices, phone: Phone, refunds: Refunds) -> None:
        self._ledger = ledger
        self._notices = notices
        self._phone = phone
        self._refunds = refunds

    # --- coming to be -------------------------------------------------------------------------------

    def create(self, call: Call) -> dict[str, Any]:
        """The trade exists at once."""
        ledger, asked, now = self._ledger, call.content, self._ledger.clock.now()
        payer = asked.get("buyer_open_id") or asked.get("buyer_id") or ""
        if not payer or ("buyer_open_id" in asked and "buyer_id" in asked):
            raise invalid("买家不能为空" if not payer else "buyer_id和buyer_open_id只能传一个")
        if payer == call.merchant.pid:
            raise business_error("BUYER_SELLER_EQUAL", "买卖家不能相同")
        order = ledger.order_of(call.merchant.pid, asked["out_trade_no"])
        if order is None:
            self._check_mini_app(call)
            order = self.offer(call, "create")
            order.payer = payer
            self._phone.begin(order, now)
            order.current_reference = order.trade_no
            ledger.references[order.trade_no] = Reference(order=order, kind="trade_no")
            self._notices.forge(order, now)
        else:
            self.same_again(order, call, "create")
        return {"out_trade_no": order.out_trade_no, "trade_no": order.trade_no}

    def precreate(self, call: Call) -> dict[str, Any]:
        """A code that begins a trade when a buyer scans it; one code for a number, ever."""
        ledger, asked = self._ledger, call.content
        if ledger.order_of(call.merchant.pid, asked["out_trade_no"]) is not None:
            raise business_error("APPLY_PC_MERCHANT_CODE_ERROR", "申请当面付二维码失败")
        order = self.offer(call, "precreate")
        identity = ledger.hash("code", order.merchant.pid, order.out_trade_no)
        order.current_reference = f"https://qr.alipay.com/bax{identity[:21]}"
        ledger.references[order.current_reference] = Reference(order=order, kind="qr_code")
        self._notices.forge(order, order.asked_at)
        return {"out_trade_no": order.out_trade_no, "qr_code": order.current_reference}

    def offer(self, call: Call, product: Product) -> Order:
        """Take down what was asked for under a new number; no trade yet."""
        ledger, asked, now = self._ledger, call.content, self._ledger.clock.now()
        code = asked.get("product_code", FACE_TO_FACE)
        if code not in PRODUCTS[product] or code not in call.merchant.products:
            raise business_error("ACCESS_FORBIDDEN", "无权限使用接口")
        if asked.get("seller_id", call.merchant.pid) != call.merchant.pid:
            raise business_error("SELLER_NOT_EXIST", "卖家不存在")
        if "enable_pay_channels" in asked and "disable_pay_channels" in asked:
            raise invalid("enable_pay_channels和disable_pay_channels不能同时传入")
        ends = _absolute_end(asked, now)
        life = None if ends else _life(asked, product, code)
        order = Order(
            merchant=call.merchant,
            application=call.application,
            called_by=call.caller,
            out_trade_no=asked["out_trade_no"],
            product=product,
            asked=asked,
            total_fen=fen(asked["total_amount"]),
            notify_url=call.parameters.get("notify_url"),
            return_url=call.parameters.get("return_url"),
            charset=call.parameters.charset,
            asked_at=now,
            offered_until=_offered_until(asked, now, ends, product),
            life=life,
            expires_at=ends,
        )
        ledger.orders[(call.merchant.pid, order.out_trade_no)] = order
        ledger.event("order_asked", order, now)
        return order

    def same_again(self, order: Order, call: Call, product: Product) -> None:
        """The same number once more: the same trade, while it can still be paid."""
        asked = call.content
        named = ("buyer_id", "buyer_open_id")
        if [order.asked.get(name) for name in named] != [asked.get(name) for name in named]:
            raise business_error("TRADE_BUYER_NOT_MATCH", "交易买家不匹配")
        if order.asked != asked or order.product != product:
            raise business_error("CONTEXT_INCONSISTENT", "交易信息被篡改")
        if order.paid_at:
            raise business_error("TRADE_HAS_SUCCESS", "交易已被支付")
        if order.closed_at or order.withdrawn_at:
            raise business_error("TRADE_HAS_CLOSE", "交易已经关闭")

    def _check_mini_app(self, call: Call) -> None:
        mini_app = call.content.get("op_app_id")
        if not mini_app:
            raise invalid("op_app_id不能为空")
        if mini_app not in call.merchant.mini_apps:
            raise business_error("UNBOUND_APPLICATION", "小程序与商户未绑定")

    # --- questions ----------------------------------------------------------------------------------

    def query(self, call: Call) -> dict[str, Any]:
        order, now = find_trade(self._ledger, call), self._ledger.clock.now()
        is_new = order is not None and order.created_at is not None and now - order.created_at < LAG
        if order is None or (call.fault == "query_does_not_find" and is_new):
            raise business_error("TRADE_NOT_EXIST", "交易不存在", **ZERO_AMOUNTS)
        just_paid = order.paid_at is not None and now - order.paid_at < LAG
        unpaid = call.fault == "query_lags" and just_paid and not order.refunds
        value = trade(self._ledger, order, call.content.get("query_options", []), unpaid=unpaid)
        if call.fault == "unknown_trade_state":
            value["trade_status"] = "TRADE_PENDING"
        return value

    # --- ends ---------------------------------------------------------------------------------------

    def close(self, call: Call) -> dict[str, Any]:
        ledger, now = self._ledger, self._ledger.clock.now()
        offered = _offered(ledger, call)
        if call.fault == "paid_just_before_close" and offered:
            self._phone.pay(offered.current_reference)
        order = find_trade(ledger, call)
        if order is None:
            if call.fault == "opened_just_after_close" and offered:
                self._phone.pay_later(offered.current_reference, now + timedelta(seconds=1))
            raise business_error("TRADE_NOT_EXIST", "交易不存在")
        if order.paid_at:
            raise business_error("TRADE_STATUS_ERROR", "交易状态不合法")
        if order.closed_at:
            raise business_error("REASON_TRADE_STATUS_INVALID", "交易状态异常")
        self._phone.close(order, now, url=call.parameters.get("notify_url"))
        return {"trade_no": order.trade_no, "out_trade_no": order.out_trade_no}

    def cancel(self, call: Call) -> dict[str, Any]:
        """Ends what is not known to have ended: an unpaid trade is closed, a paid one goes back whole."""
        ledger, now = self._ledger, self._ledger.clock.now()
        order = find_trade(ledger, call)
        named = {"out_trade_no": call.content["out_trade_no"]} if "out_trade_no" in call.content else {}
        if call.fault == "cancel_again":
            return {"retry_flag": "Y", **(_names(order) if order else named)}
        if order is None:
            offered = _offered(ledger, call)
            if offered is not None and offered.withdrawn_at is None:
                offered.withdrawn_at = now
                ledger.event("order_withdrawn", offered, now)
            return {"retry_flag": "N", **named}
        if order.state != "TRADE_CLOSED":
            self._check_cancel(order, now)
        if order.paid_at and order.refundable_fen == order.total_fen:
            self._refunds.give_back(order, order.out_trade_no, order.total_fen, reason="", by_cancel=True)
        elif not order.paid_at and not order.closed_at:
            self._phone.close(order, now)
        return {**_names(order), "retry_flag": "N", "action": "refund" if order.paid_at else "close"}

    def _check_cancel(self, order: Order, now: datetime) -> None:
        assert order.created_at is not None
        if order.finished_at:
            raise business_error("TRADE_HAS_FINISHED", "交易已完结")
        if now - order.created_at > CANCEL_WITHIN:
            raise business_error("TRADE_CANCEL_TIME_OUT", "超过撤销时间范围")
        if order.refunds:
            raise business_error("REASON_TRADE_REFUND_FEE_ERR", "退款金额无效")
        if order.taken_fen > order.merchant.balance_fen:
            raise business_error("SELLER_BALANCE_NOT_ENOUGH", "商户的支付宝账户中无足够的资金进行撤销")


def _offered(ledger: Ledger, call: Call) -> Order | None:
    return ledger.order_of(call.merchant.pid, call.content.get("out_trade_no", ""))


def _names(order: Order) -> dict[str, str]:
    return {"trade_no": order.trade_no, "out_trade_no": order.out_trade_no}


def _absolute_end(asked: dict[str, Any], now: datetime) -> datetime | None:
    """`time_expire` beats `timeout_express`."""
    if "time_expire" not in asked:
        return None
    ends = read_beijing_time(asked["time_expire"])
    if ends is None or ends > now + LIFE_MAX:
        raise invalid("time_expire超出范围")
    if ends <= now:
        raise business_error("NOW_TIME_AFTER_EXPIRE_TIME_ERROR", "当前时间已超过允许支付的时间")
    return ends


def _life(asked: dict[str, Any], product: Product, code: str) -> timedelta:
    """Of a trade from when it exists; `1c` is handled where it begins and stands for zero here."""
    if "timeout_express" not in asked:
        return FACE_TO_FACE_LIFE if code == FACE_TO_FACE else LIFE_MAX
    life = _duration(asked["timeout_express"])
    if life > LIFE_MAX:
        raise invalid("timeout_express超出范围")
    return max(life, PAGE_LIFE_MIN) if product == "wap" and life else life


def _duration(text: str) -> timedelta:
    if text == "1c":
        return timedelta(0)
    unit = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[text[-1]]
    return int(text[:-1]) * unit


def _offered_until(asked: dict[str, Any], now: datetime, ends: datetime | None, product: Product) -> datetime:
    """A code lives two hours at most, whatever the parameters say."""
    until = ends or now + LIFE_MAX
    if product == "precreate":
        until = min(until, now + CODE_LIFE_MAX)
        if "qr_code_timeout_express" in asked:
            until = min(until, now + (_duration(asked["qr_code_timeout_express"]) or CODE_LIFE_MAX))
    return until
