"""The payer's phone at the simulated Alipay: it opens what it is given, and pays or not."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from simulators.alipay_books import Order, day_ends
from simulators.alipay_faults import PAY_SHEET
from simulators.alipay_ledger import Ledger, Reference
from simulators.alipay_notices import Notices
from simulators.alipay_views import some_payer

PayResult = Literal["paid", "expired", "already_paid", "closed", "cancelled", "wrong_payer", "unknown"]

REFUND_PERIOD = timedelta(days=365)

RESULT_CODES: dict[PayResult, str] = {
    "paid": "9000",
    "cancelled": "6001",
    "wrong_payer": "4",
    "expired": "4000",
    "already_paid": "4000",
    "closed": "4000",
    "unknown": "4000",
}
"""Of my.tradePay; which of the failures has which code is not published beyond "failed" and "no permission"."""


class Phone:
    def __init__(self, ledger: Ledger, notices: Notices) -> None:
        self._ledger = ledger
        self._notices = notices

    # --- what people do -----------------------------------------------------------------------------

    def open(self, reference: str, *, pid: str = "") -> PayResult | None:
        """Scan a code or reach a page's cashier, which begins the trade; None when it can be paid now."""
        self._ledger.advance()
        found = self._find(reference, pid)
        return self._open(found.order, self._ledger.clock.now()) if found else "unknown"

    def pay(
        self, reference: str, payer: str = "", *, pid: str = "", confirm: bool = True, coupon_fen: int = 0
    ) -> PayResult:
        """Given a tradeNO, the content of a code, an opened page's address, or an order number.

        `confirm=False` closes the cashier again, with the trade begun. A coupon makes the payer pay less; the
        merchant still gets the whole amount.
        """
        self._ledger.advance()
        return self._pay(reference, self._ledger.clock.now(), payer, pid=pid, confirm=confirm, coupon_fen=coupon_fen)

    def pay_later(self, reference: str, at: datetime) -> None:
        """Somebody will open it and pay at this time, if it can be paid then."""

        def happen(moment: datetime) -> None:
            self._pay(reference, moment)

        self._ledger.at(at, happen)

    def trade_pay(self, trade_no: str, payer: str = "", *, confirm: bool = True) -> dict[str, str]:
        """`my.tradePay({tradeNO})` in a mini program; the result code is a hint and may be wrong."""
        found = self._ledger.references.get(trade_no)
        known = found if found and found.kind == "trade_no" else None
        hint = self._ledger.strikes(PAY_SHEET, known.order.out_trade_no) if known and confirm else ""
        if hint == "sheet_says_paid":
            return {"resultCode": "9000"}
        result = self.pay(trade_no, payer, confirm=confirm) if known else "unknown"
        if result == "paid" and hint:
            return {"resultCode": "6004" if hint == "sheet_says_unknown" else "8000"}
        return {"resultCode": RESULT_CODES[result]}

    # --- what becomes of a trade --------------------------------------------------------------------

    def begin(self, order: Order, now: datetime) -> None:
        """The trade exists from here on."""
        ledger = self._ledger
        order.created_at = now
        order.trade_no = ledger.new_trade_no(order, now)
        if order.expires_at is None:
            order.expires_at = now + order.life if order.life else day_ends(now)
        ledger.trades[order.trade_no] = order
        ledger.event("trade_created", order, now)
        ledger.at(order.expires_at, lambda at: self.close(order, at))

    def close(self, order: Order, at: datetime, *, url: str = "") -> None:
        """By hand or by its expiry; a paid trade stays as it is. `url`: of the close's own notice."""
        if order.paid_at is None and order.closed_at is None:
            order.closed_at = at
            self._ledger.event("order_closed", order, at)
            self._notices.send_closed(order, at, url=url)

    def _finish(self, order: Order, at: datetime) -> None:
        if order.refundable_fen and order.finished_at is None:
            order.finished_at = at
            self._ledger.event("trade_finished", order, at)
            self._notices.send_finished(order, at)

    def _find(self, reference: str, pid: str) -> Reference | None:
        ledger = self._ledger
        if reference in ledger.references:
            return ledger.references[reference]
        pids = [pid] if pid else list(ledger.merchants)
        orders = [order for number in pids if (order := ledger.order_of(number, reference))]
        if len(orders) > 1:
            raise ValueError(f"several merchants have an order {reference}: name the merchant")
        return ledger.references.get(orders[0].current_reference) if orders else None

    def _open(self, order: Order, now: datetime) -> PayResult | None:
        if order.paid_at:
            return "already_paid"
        if order.closed_at or order.withdrawn_at:
            return "closed"
        if not order.exists:
            if now >= order.offered_until:
                return "expired"
            self.begin(order, now)
        assert order.expires_at is not None
        return "expired" if now >= order.expires_at else None

    def _pay(
        self,
        reference: str,
        now: datetime,
        payer: str = "",
        *,
        pid: str = "",
        confirm: bool = True,
        coupon_fen: int = 0,
    ) -> PayResult:
        ledger = self._ledger
        found = self._find(reference, pid)
        if found is None:
            return "unknown"
        order = found.order
        if payer and payer == order.merchant.pid:
            return "wrong_payer"
        refused = self._open(order, now)
        if refused is not None:
            return refused
        if payer and order.payer and payer != order.payer:
            return "wrong_payer"
        if not confirm:
            ledger.event("payment_cancelled", order, now)
            return "cancelled"
        if not 0 <= coupon_fen < order.total_fen:
            raise ValueError("a coupon pays less than the whole")
        order.paid_at = now
        order.payer = payer or order.payer or some_payer(ledger, order)
        order.coupon_fen = coupon_fen
        order.merchant.balance_fen += order.total_fen
        if not order.merchant.refundable:
            order.finished_at = now
        ledger.event("order_paid", order, now, fen=order.total_fen)
        self._notices.send_paid(order, now)
        ledger.at(now + REFUND_PERIOD, lambda at: self._finish(order, at))
        return "paid"
