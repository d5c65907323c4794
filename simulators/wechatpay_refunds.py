"""How refunds are accepted, settled, asked for and handled at the simulated WeChat Pay."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from simulators.wechatpay_books import Merchant, Order, Refund, beijing_day, beijing_time, digits
from simulators.wechatpay_calls import SERIAL_MISSING, ApiError, Call, belongs, decrypted, param_error, payee
from simulators.wechatpay_faults import REFUND_OUTCOME
from simulators.wechatpay_ledger import Ledger
from simulators.wechatpay_notices import Notices
from simulators.wechatpay_views import numbers, refund_object

REFUND_AGE_MAX = timedelta(days=365)
REFUNDS_MAX = 50
REFUND_SPACING = timedelta(minutes=1)
SUMMARIES = {"SUCCESS": "退款成功", "ABNORMAL": "退款异常", "CLOSED": "退款关闭"}


class Refunds:
    def __init__(self, ledger: Ledger, notices: Notices) -> None:
        self._ledger = ledger
        self._notices = notices

    def create(self, call: Call) -> dict[str, Any]:
        ledger, asked = self._ledger, call.body
        merchant = self._payee(call, asked)
        refund = ledger.refunds.get((call.caller.mchid, asked["out_refund_no"]))
        if refund is not None:
            belongs(refund.order.merchant, merchant)
            if refund.asked != asked:
                raise ApiError(400, "INVALID_REQUEST", "请求参数与原退款单不一致", number=268435461)
            return refund_object(refund)
        order = self._paid_order(call, merchant)
        self._check(order, asked, call.fault)
        refund = self.accept(
            order,
            out_refund_no=asked["out_refund_no"],
            refund_fen=asked["amount"]["refund"],
            asked=asked,
            notify_url=asked.get("notify_url", ""),
            at_once=call.fault == "notice_before_answer",
        )
        return refund_object(refund)

    def query(self, call: Call) -> dict[str, Any]:
        merchant = self._payee(call, call.query)
        refund = self._ledger.refunds.get((call.caller.mchid, call.argument))
        if refund is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "退款单不存在", number=268512771)
        belongs(refund.order.merchant, merchant)
        value = refund_object(refund)
        if call.fault == "unknown_refund_state":
            value["status"] = "SETTLING"
        return value

    def apply_abnormal(self, call: Call) -> dict[str, Any]:
        asked = call.body
        merchant = self._payee(call, asked)
        refund = self._ledger.refunds.get((call.caller.mchid, asked["out_refund_no"]))
        if refund is None or refund.refund_id != call.argument:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "退款单不存在", number=268512771)
        belongs(refund.order.merchant, merchant)
        if asked["type"] == "USER_BANK_CARD":
            if "wechatpay-serial" not in call.request.headers:
                raise ApiError(400, "PARAM_ERROR", SERIAL_MISSING, number=268435461)
            for name in ("bank_type", "bank_account", "real_name"):
                if name not in asked:
                    raise param_error(f"/{name}", None, "missing")
            for name in ("bank_account", "real_name"):
                decrypted(call.key, f"/{name}", asked[name])
        if refund.state == "ABNORMAL":
            self.handle_abnormal(refund, to_merchant=asked["type"] == "MERCHANT_BANK_CARD")
        return refund_object(refund)

    def accept(
        self,
        order: Order,
        *,
        out_refund_no: str,
        refund_fen: int,
        asked: dict[str, Any],
        notify_url: str,
        at_once: bool = False,
        by_hand: bool = False,
    ) -> Refund:
        ledger, now = self._ledger, self._ledger.clock.now()
        identity = ledger.hash("refund", order.merchant.mchid, out_refund_no)
        refund = Refund(
            order=order,
            out_refund_no=out_refund_no,
            refund_id=f"503{digits(identity, 8)}{beijing_day(now)}{digits(identity[20:], 10)}",
            refund_fen=refund_fen,
            asked=asked,
            notify_url=notify_url,
            created_at=now,
            by_hand=by_hand,
        )
        order.refunds.append(refund)
        order.merchant.balance_fen -= refund_fen
        ledger.refunds[(order.merchant.signer.mchid, out_refund_no)] = refund
        ledger.event("refund_accepted", order, now, out_refund_no=out_refund_no, fen=refund_fen)
        fault = ledger.strikes(REFUND_OUTCOME, out_refund_no)
        state = {"refund_abnormal": "ABNORMAL", "refund_closed": "CLOSED"}.get(fault, "SUCCESS")
        delay = timedelta(days=2) if fault == "refund_slow" else ledger.refund_delay
        notice_delay = ledger.notice_delay
        if at_once:
            delay = notice_delay = timedelta(0)
        self._settle_later(refund, state, now + delay, notice_delay)
        ledger.advance()
        return refund

    def handle_abnormal(self, refund: Refund, *, to_merchant: bool) -> None:
        ledger, now = self._ledger, self._ledger.clock.now()
        refund.state = "PROCESSING"
        refund.received_account = "退回商户结算银行账户" if to_merchant else "用户银行卡0403"
        ledger.event("refund_handled", refund.order, now, out_refund_no=refund.out_refund_no, fen=refund.refund_fen)
        self._settle_later(refund, "SUCCESS", now + ledger.refund_delay, ledger.notice_delay)

    def _payee(self, call: Call, said: Mapping[str, str]) -> Merchant:
        """The path is the same for everybody; a service provider also needs leave to refund."""
        merchant = payee(call.caller, said, self._ledger.merchants)
        if not merchant.refunds_authorised:
            raise ApiError(403, "NO_AUTH", "特约子商户商户号未授权服务商的产品权限", number=268443701)
        return merchant

    def _paid_order(self, call: Call, merchant: Merchant) -> Order:
        asked, ledger = call.body, self._ledger
        if ("transaction_id" in asked) == ("out_trade_no" in asked):
            raise param_error("/out_trade_no", None, "transaction_id和out_trade_no必须二选一")
        order = (
            ledger.transactions.get(asked["transaction_id"])
            if "transaction_id" in asked
            else ledger.orders.get((call.caller.mchid, asked["out_trade_no"]))
        )
        if order is None or order.merchant.signer is not call.caller or order.paid_at is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "订单不存在或未支付", number=268512771)
        belongs(order.merchant, merchant)
        return order

    def _check(self, order: Order, asked: dict[str, Any], fault: str) -> None:
        amount, now = asked["amount"], self._ledger.clock.now()
        assert order.paid_at is not None
        if amount["total"] != order.total_fen:
            raise ApiError(400, "INVALID_REQUEST", "订单金额与原订单不一致", number=268435461)
        if now - order.paid_at > REFUND_AGE_MAX:
            raise ApiError(403, "TRADE_OVERDUE", "订单已超过可退款期限")
        if amount["refund"] > order.refundable_fen:
            raise ApiError(400, "INVALID_REQUEST", "申请退款金额超过可退金额", number=268435461)
        if len(order.refunds) >= REFUNDS_MAX:
            raise ApiError(400, "INVALID_REQUEST", "部分退款次数超过50次", number=268435461)
        if order.refunds and now - order.refunds[-1].created_at < REFUND_SPACING:
            raise ApiError(429, "FREQUENCY_LIMITED", "同一笔订单退款间隔须大于1分钟", number=268447840)
        if fault == "refund_payer_account_closed":
            raise ApiError(403, "USER_ACCOUNT_ABNORMAL", "用户账户注销")
        if amount["refund"] > order.merchant.balance_fen or fault == "refund_not_enough_balance":
            raise ApiError(403, "NOT_ENOUGH", "基本账户余额不足，请充值后重新发起")

    def _settle_later(self, refund: Refund, state: str, at: datetime, notice_delay: timedelta) -> None:
        """The end is decided when the refund is accepted; books and queries see it when its time has come."""
        self._ledger.at(at, lambda settled_at: self._settle(refund, state, settled_at))
        if not refund.notify_url:
            return
        order = refund.order
        value: dict[str, Any] = {
            **numbers(order.merchant),
            "transaction_id": order.transaction_id,
            "out_trade_no": order.out_trade_no,
            "refund_id": refund.refund_id,
            "out_refund_no": refund.out_refund_no,
            "refund_status": state,
            "user_received_account": refund.received_account,
            "amount": {
                "total": order.total_fen,
                "refund": refund.refund_fen,
                "payer_total": order.payer_fen,
                "payer_refund": refund.payer_fen,
            },
        }
        if state == "SUCCESS":
            value["success_time"] = beijing_time(at)
        self._notices.send(
            order.merchant.signer,
            url=refund.notify_url,
            key=refund.out_refund_no,
            event_type=f"REFUND.{state}",
            summary=SUMMARIES[state],
            original_type="refund",
            value=value,
            at=at + notice_delay,
        )

    def _settle(self, refund: Refund, state: str, at: datetime) -> None:
        refund.state = state
        refund.settled_at = at
        if state == "CLOSED":
            refund.order.merchant.balance_fen += refund.refund_fen
        kind = f"refund_{state.lower()}"
        self._ledger.event(kind, refund.order, at, out_refund_no=refund.out_refund_no, fen=refund.refund_fen)
