"""How refunds are made and asked for at the simulated Alipay, by the rules of production.

Money goes back at once; a refund query knows it after `refund_delay`. Two refunds of one trade that are less than
three seconds apart are refused with ACQ.SYSTEM_ERROR and nothing moves: no page names a code for it. Without
out_request_no only a refund of the whole is taken. A refund query that finds nothing names no trade either.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from simulators.alipay_books import Order, Refund
from simulators.alipay_calls import ApiError, Call, business_error, find_trade, invalid
from simulators.alipay_fields import fen
from simulators.alipay_ledger import Ledger
from simulators.alipay_notices import Notices
from simulators.alipay_views import refund_answer, refund_found

REFUND_SPACING = timedelta(seconds=3)
SHOWN_LATE = timedelta(days=2)


class Refunds:
    def __init__(self, ledger: Ledger, notices: Notices) -> None:
        self._ledger = ledger
        self._notices = notices

    def create(self, call: Call) -> dict[str, Any]:
        """The same number with the same amount moves money once; a repeat says fund_change=N."""
        asked, options = call.content, call.content.get("query_options", [])
        order = find_trade(self._ledger, call)
        if order is None:
            raise business_error("TRADE_NOT_EXIST", "交易不存在")
        amount = fen(asked["refund_amount"])
        number = asked.get("out_request_no", order.out_trade_no)
        refund = self._ledger.refund_of(order.merchant.pid, order.out_trade_no, number)
        if refund is not None:
            if refund.refund_fen != amount:
                raise business_error("DISCORDANT_REPEAT_REQUEST", "不一致的请求")
            return refund_answer(self._ledger, order, refund, options, moved=False)
        if "out_request_no" not in asked and amount != order.total_fen:
            raise invalid("部分退款时out_request_no不能为空")
        self._check(order, amount, call.fault)
        at_once = call.fault == "notice_before_answer"
        shown_after = SHOWN_LATE if call.fault == "refund_shown_late" else self._ledger.refund_delay
        if call.fault == "refund_nothing_moved":
            return self._nothing_moved(order, number, amount, options)
        refund = self.give_back(
            order, number, amount, reason=asked.get("refund_reason", ""), shown_after=shown_after, at_once=at_once
        )
        moved = call.fault != "refund_says_nothing_moved"
        return refund_answer(self._ledger, order, refund, options, moved=moved)

    def query(self, call: Call) -> dict[str, Any]:
        """Within `refund_delay`, or for another number, there are no refund fields; that proves nothing."""
        order = find_trade(self._ledger, call)
        if order is None:
            raise ApiError("40004", "TRADE_NOT_EXIST", "交易不存在")  # without ACQ., as its own list has it
        number = call.content["out_request_no"]
        refund = self._ledger.refund_of(order.merchant.pid, order.out_trade_no, number)
        shown = refund is not None and refund.shown_at <= self._ledger.clock.now()
        if refund is None or not shown or call.fault == "refund_query_says_nothing":
            return {}
        value = refund_found(refund, call.content.get("query_options", []))
        if call.fault == "unknown_refund_state":
            value["refund_status"] = "REFUND_SETTLING"
        return value

    def give_back(
        self,
        order: Order,
        out_request_no: str,
        refund_fen: int,
        *,
        reason: str,
        shown_after: timedelta | None = None,
        at_once: bool = False,
        by_hand: bool = False,
        by_cancel: bool = False,
    ) -> Refund:
        """The buyer's own money first, coupons last."""
        ledger, now = self._ledger, self._ledger.clock.now()
        own = order.payer_fen - sum(refund.payer_fen for refund in order.refunds)
        refund = Refund(
            order=order,
            out_request_no=out_request_no,
            refund_fen=refund_fen,
            reason=reason,
            created_at=now,
            shown_at=now + (ledger.refund_delay if shown_after is None else shown_after),
            by_hand=by_hand,
            by_cancel=by_cancel,
            payer_fen=min(own, refund_fen),
        )
        order.refunds.append(refund)
        order.merchant.balance_fen -= refund_fen
        ledger.refunds[(order.merchant.pid, order.out_trade_no, out_request_no)] = refund
        ledger.event("refund_success", order, now, out_request_no=out_request_no, fen=refund_fen)
        self._notices.send_refunded(refund, now, at_once=at_once)
        return refund

    def _nothing_moved(self, order: Order, number: str, amount: int, options: list[str]) -> dict[str, Any]:
        now = self._ledger.clock.now()
        promised = Refund(
            order=order, out_request_no=number, refund_fen=amount, reason="", created_at=now, shown_at=now
        )
        value = refund_answer(self._ledger, order, promised, options, moved=False)
        del value["gmt_refund_pay"]
        return value

    def _check(self, order: Order, amount: int, fault: str) -> None:
        if order.paid_at is None:
            if order.closed_at:
                raise business_error("TRADE_HAS_CLOSE", "交易已经关闭")
            raise business_error("TRADE_STATUS_ERROR", "交易状态不合法")
        if order.refundable_fen == 0:
            raise business_error("TRADE_HAS_CLOSE", "交易已经关闭")
        if order.finished_at:
            raise business_error("TRADE_HAS_FINISHED", "交易已完结")
        if amount > order.refundable_fen:
            raise business_error("REASON_TRADE_REFUND_FEE_ERR", "退款金额无效")
        if order.refunds and self._ledger.clock.now() - order.refunds[-1].created_at < REFUND_SPACING:
            raise business_error("SYSTEM_ERROR", "系统错误")
        if fault == "refund_trade_frozen":
            raise business_error("REASON_TRADE_BEEN_FREEZEN", "请求退款的交易被冻结")
        if fault == "refund_payer_account_closed":
            raise business_error("BUYER_NOT_EXIST", "买家不存在")
        if amount > order.merchant.balance_fen or fault == "refund_not_enough_balance":
            raise business_error("SELLER_BALANCE_NOT_ENOUGH", "商户的支付宝账户中无足够的资金进行退款")
