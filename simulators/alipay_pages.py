"""The pages of the simulated Alipay: alipay.trade.wap.pay sends a browser to a cashier, which begins the trade."""

from __future__ import annotations

from html import escape

from simulators.alipay_books import Order, yuan
from simulators.alipay_calls import ApiError, Call, business_error
from simulators.alipay_gate import error_page
from simulators.alipay_ledger import Ledger, Reference
from simulators.alipay_notices import Notices
from simulators.alipay_phone import Phone
from simulators.alipay_trades import Trades
from simulators.kit import Request, Response

CASHIER = "/h5pay/cashier"
HTML = {"content-type": "text/html;charset=utf-8"}


class Pages:
    """The gateway only takes down what was asked for; the trade begins when the browser reaches the cashier."""

    def __init__(self, ledger: Ledger, trades: Trades, phone: Phone, notices: Notices) -> None:
        self._ledger = ledger
        self._trades = trades
        self._phone = phone
        self._notices = notices

    def open(self, call: Call) -> Response:
        """Where the browser is sent. The same number may be opened again; the newest address is kept."""
        ledger, asked = self._ledger, call.content
        order = ledger.order_of(call.merchant.pid, asked["out_trade_no"])
        if order is None:
            order = self._trades.offer(call, "wap")
            session = ledger.hash("page", order.merchant.pid, order.out_trade_no)[:40]
            order.current_reference = f"{CASHIER}?session={session}"
            ledger.references[order.current_reference] = Reference(order=order, kind="page")
            self._notices.forge(order, order.asked_at)
        else:
            self._trades.same_again(order, call, "wap")
            if ledger.clock.now() >= order.offered_until:
                raise business_error("NOW_TIME_AFTER_EXPIRE_TIME_ERROR", "当前时间已超过允许支付的时间")
        return Response(status=302, headers={"location": order.current_reference})

    def refusal(self, error: ApiError) -> Response:
        return error_page(f"错误代码 {error.sub_code}，错误原因: {error.sub_msg}")

    def cashier(self, request: Request) -> Response:
        """GET shows it, POST with `how=pay` or `how=cancel` leaves it."""
        found = self._ledger.references.get(request.target)
        if found is None:
            return error_page("页面已失效")
        order = found.order
        if request.method == "POST":
            confirm = b"how=pay" in request.body.split(b"&")
            result = self._phone.pay(request.target, confirm=confirm)
            quit_url = str(order.asked.get("quit_url", ""))
            back = self._notices.return_address(order, self._ledger.clock.now()) if result == "paid" else quit_url
            if back:
                return Response(status=302, headers={"location": back})
            return _page(f"<p>{result}</p>")
        refused = self._phone.open(request.target)
        return error_page(f"订单不可支付：{refused}") if refused else _page(_form(order))


def _form(order: Order) -> str:
    return (
        f"<h1>支付宝收银台</h1><p>{escape(order.asked['subject'])}</p><p>¥{yuan(order.total_fen)}</p>"
        '<form method="post"><button name="how" value="pay">确认付款</button>'
        '<button name="how" value="cancel">取消</button></form>'
    )


def _page(content: str) -> Response:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>支付宝</title>'
    body = f"<!DOCTYPE html><html><head>{head}</head><body>{content}</body></html>"
    return Response(status=200, headers=HTML, body=body.encode())
