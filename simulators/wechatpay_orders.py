"""How orders come, are asked for and are closed at the simulated WeChat Pay."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from simulators.wechatpay_books import BEIJING, Merchant, Order, beijing_day, digits
from simulators.wechatpay_calls import ApiError, Call, belongs, param_error, payee, same_mchid
from simulators.wechatpay_ledger import Ledger, Reference
from simulators.wechatpay_notices import Notices
from simulators.wechatpay_phone import Phone
from simulators.wechatpay_views import transaction

PREPAY_LIFE = timedelta(hours=2)
H5_LIFE = timedelta(minutes=5)
ORDER_LIFE = timedelta(days=7)
EXPIRE_MAX = {
    "jsapi": timedelta(days=15),
    "h5": timedelta(days=15),
    "app": timedelta(days=15),
    "native": ORDER_LIFE,
}
LAG = timedelta(seconds=10)  # for how long a query may still say unpaid


class Orders:
    def __init__(self, ledger: Ledger, notices: Notices, phone: Phone) -> None:
        self._ledger = ledger
        self._notices = notices
        self._phone = phone

    def create(self, call: Call) -> dict[str, Any]:
        ledger, asked, now = self._ledger, call.body, self._ledger.clock.now()
        merchant = self._payee(call, asked)
        _check_apps(merchant, asked)
        out_trade_no = asked["out_trade_no"]
        order = ledger.orders.get((call.caller.mchid, out_trade_no))
        if order is None:
            order = Order(
                merchant=merchant,
                out_trade_no=out_trade_no,
                product=call.product,
                asked=asked,
                created_at=now,
                expires_at=_expiry(asked.get("time_expire"), now, call.product),
                transaction_id=self._transaction_id(merchant.mchid, out_trade_no, now),
                payer_openid=_open_id(asked),
            )
            ledger.orders[(call.caller.mchid, out_trade_no)] = order
            ledger.event("order_created", order, now)
            fresh = order
            ledger.at(max(now + ORDER_LIFE, order.expires_at), lambda at: self._close_unpaid(fresh, at))
            self._notices.forge(order, now)
        elif order.asked != asked or order.product != call.product:
            raise ApiError(403, "OUT_TRADE_NO_USED", "商户订单号重复", number=268498688)
        elif order.closed_at:
            raise ApiError(400, "ORDER_CLOSED", "该订单已关闭，请重新下单", number=268447914)
        elif order.paid_at:
            # The documents name no code for this; clients must query whatever it is.
            raise ApiError(400, "INVALID_REQUEST", "该订单已支付", number=268498689)
        return self._reference_for(order, now)

    def query_by_order_no(self, call: Call) -> dict[str, Any]:
        return self._query(call, self._ledger.orders.get((call.caller.mchid, call.argument)))

    def query_by_id(self, call: Call) -> dict[str, Any]:
        order = self._ledger.transactions.get(call.argument)
        return self._query(call, order if order and order.merchant.signer is call.caller else None)

    def close(self, call: Call) -> None:
        merchant = self._payee(call, call.body)
        order = self._ledger.orders.get((call.caller.mchid, call.argument))
        if order is None:
            raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在", number=268512771)
        belongs(order.merchant, merchant)
        if call.fault == "paid_just_before_close":
            self._phone.pay(order.current_reference)
        if order.paid_at:
            raise ApiError(400, call.caller.close_paid_code, "订单已支付", number=268449538)
        self._close_unpaid(order, self._ledger.clock.now())

    def _query(self, call: Call, order: Order | None) -> dict[str, Any]:
        merchant = self._payee(call, call.query)
        if order is None:
            raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在", number=268512771)
        belongs(order.merchant, merchant)
        just_paid = order.paid_at is not None and self._ledger.clock.now() - order.paid_at < LAG
        value = transaction(self._ledger, order, unpaid=call.fault == "query_lags" and just_paid)
        if call.fault == "unknown_trade_state":
            value |= {"trade_state": "SETTLING", "trade_state_desc": "处理中"}
        return value

    def _payee(self, call: Call, said: dict[str, Any]) -> Merchant:
        """Who is paid; `said` holds the numbers under the names that fit the path."""
        names = ("sp_mchid", "sub_mchid") if call.partner else ("mchid",)
        for name in names:
            if name not in said:
                raise param_error(name, None, "缺少商户号", location="query")
        merchant = payee(call.caller, {name: said[name] for name in names}, self._ledger.merchants)
        same_mchid(call.caller, said[names[0]])
        return merchant

    def _transaction_id(self, mchid: str, out_trade_no: str, now: datetime) -> str:
        identity = self._ledger.hash("transaction", mchid, out_trade_no)
        return f"42000{digits(identity, 5)}{beijing_day(now)}{digits(identity[16:], 10)}"

    def _reference_for(self, order: Order, now: datetime) -> dict[str, Any]:
        order.creations += 1
        identity = self._ledger.hash("reference", order.merchant.mchid, order.out_trade_no, order.creations)
        life = min(now + (H5_LIFE if order.product == "h5" else PREPAY_LIFE), order.expires_at)
        prepay_id = f"wx{now.astimezone(BEIJING):%Y%m%d%H%M%S}{identity[:20]}"
        if order.product == "native":
            name, reference = "code_url", f"weixin://wxpay/bizpayurl/up?pr={identity[:9]}z1&groupid=00"
        elif order.product == "h5":
            name = "h5_url"
            reference = (
                f"https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id={prepay_id}"
                f"&package={digits(identity, 10)}"
            )
        else:
            name, reference = "prepay_id", prepay_id
        self._ledger.references[reference] = Reference(order=order, valid_until=life, kind=name)
        order.current_reference = reference
        return {name: reference}

    def _close_unpaid(self, order: Order, at: datetime) -> None:
        if order.paid_at is None and order.closed_at is None:
            order.closed_at = at
            self._ledger.event("order_closed", order, at)


def _check_apps(merchant: Merchant, asked: dict[str, Any]) -> None:
    """Each app is bound to the number beside it; a payer is named as one of the apps knows him."""
    bound = {"appid": merchant, "sp_appid": merchant.signer, "sub_appid": merchant}
    for name, owner in bound.items():
        if name in asked and asked[name] not in owner.appids:
            text = "sub_mch_id与sub_appid不匹配" if name == "sub_appid" else "appid和mch_id不匹配，请检查后再试"
            raise ApiError(400, "APPID_MCHID_NOT_MATCH", text, number=268445527)
    named = asked.get("payer")
    if named is None or "openid" in named:
        return
    if not named:
        raise param_error("/payer", None, "sp_openid和sub_openid必须二选一")
    if "sub_openid" in named and "sub_appid" not in asked:
        raise param_error("/sub_appid", None, "传sub_openid时sub_appid必填")


def _open_id(asked: dict[str, Any]) -> str:
    named = asked.get("payer", {})
    return str(named.get("openid") or named.get("sp_openid") or named.get("sub_openid") or "")


def _expiry(text: str | None, now: datetime, product: str) -> datetime:
    """When the order can no longer be paid; a time that is too near is raised to a minute from now."""
    if text is None:
        return now + ORDER_LIFE
    try:
        asked = datetime.fromisoformat(text)
    except ValueError:
        raise param_error("/time_expire", text, "must be RFC 3339") from None
    if asked.tzinfo is None:
        raise param_error("/time_expire", text, "must have an offset")
    if asked > now + EXPIRE_MAX[product]:
        raise param_error("/time_expire", text, "too far ahead")
    return max(asked, now + timedelta(minutes=1))
