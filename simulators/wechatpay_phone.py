"""The payer's phone at the simulated WeChat Pay: it checks what it is given and pays."""

from __future__ import annotations

from typing import Any, Literal

from simulators.wechatpay_keys import pay_sign_message, verify
from simulators.wechatpay_ledger import Ledger, Reference
from simulators.wechatpay_notices import Notices

PayResult = Literal["paid", "expired", "already_paid", "closed", "cancelled", "wrong_payer", "unknown"]


class Phone:
    def __init__(self, ledger: Ledger, notices: Notices) -> None:
        self._ledger = ledger
        self._notices = notices

    def pay(
        self,
        reference: str,
        payer_openid: str = "",
        *,
        mchid: str = "",
        confirm: bool = True,
        coupon_fen: int = 0,
    ) -> PayResult:
        """Given a prepay_id, code_url, h5_url or order number.

        `confirm=False` closes the pay sheet again. A coupon makes the payer pay less; the merchant still gets
        the whole amount.
        """
        ledger = self._ledger
        ledger.advance()
        now = ledger.clock.now()
        found = ledger.references.get(reference) or self._reference_of_order(reference, mchid)
        if found is None:
            return "unknown"
        order = found.order
        if order.paid_at:
            return "already_paid"
        if order.closed_at:
            return "closed"
        superseded = found.kind == "code_url" and found is not ledger.references[order.current_reference]
        if superseded or now >= found.valid_until:
            return "expired"
        if order.product == "jsapi" and payer_openid not in ("", order.payer_openid):
            return "wrong_payer"
        if not confirm:
            ledger.event("payment_cancelled", order, now)
            return "cancelled"
        if not 0 <= coupon_fen < order.total_fen:
            raise ValueError("a coupon pays less than the whole")
        order.paid_at = now
        order.payer_openid = payer_openid or order.payer_openid or ledger.openid(order)
        order.coupon_fen = coupon_fen
        order.merchant.balance_fen += order.total_fen
        ledger.transactions[order.transaction_id] = order
        ledger.event("order_paid", order, now, fen=order.total_fen)
        self._notices.send_paid(order, now)
        return "paid"

    def _reference_of_order(self, out_trade_no: str, mchid: str) -> Reference | None:
        numbers = [mchid] if mchid else [merchant.mchid for merchant in self._ledger.merchants.values()]
        found = [order for number in numbers if (order := self._ledger.order_of(number, out_trade_no))]
        orders = list({id(order): order for order in found}.values())  # a provider finds its sub-merchants' too
        if len(orders) > 1:
            raise ValueError(f"several merchants have an order {out_trade_no}: name the merchant")
        return self._ledger.references[orders[0].current_reference] if orders else None

    def check_pay_params(self, params: dict[str, Any], *, appid: str = "") -> str | None:
        """What `requestPayment` (or the JSAPI bridge, or the APP SDK) checks before it opens the pay sheet.

        None when all is well, else the reason the phone would give. `appid` is the program it runs in; empty
        means the one the order was placed for.
        """
        app = "prepayid" in params
        names = ("noncestr", "timestamp", "sign") if app else ("nonceStr", "timeStamp", "paySign", "package")
        for name in names:
            if not isinstance(params.get(name), str) or not params[name]:
                return f"{name} missing or not text"
        if not app and params.get("signType") != "RSA":
            return "signType must be RSA"
        package = str(params["prepayid"] if app else params["package"])
        found = self._ledger.references.get(package if app else package.removeprefix("prepay_id="))
        if found is None or found.kind != "prepay_id" or (not app and not package.startswith("prepay_id=")):
            return "no such prepay_id"
        expected_appid = appid or found.order.appids[0]
        if expected_appid not in found.order.appids or params.get("appId", expected_appid) != expected_appid:
            return "appid does not match the order"
        if app != (found.order.product == "app"):
            return "the order was placed for another product"
        nonce, timestamp, signature = (params[name] for name in names[:3])
        message = pay_sign_message(expected_appid, timestamp, nonce, package)
        signer = found.order.merchant.signer
        if not any(verify(key, message, signature) for key in signer.certificates.values()):
            return "支付验证签名失败"
        return None

    def pay_with(self, params: dict[str, Any], payer_openid: str = "", *, confirm: bool = True) -> PayResult | str:
        """Open the pay sheet with signed parameters and pay; why they are refused is returned as text."""
        refused = self.check_pay_params(params)
        if refused is not None:
            return refused
        prepay_id = str(params.get("prepayid") or params["package"]).removeprefix("prepay_id=")
        return self.pay(prepay_id, payer_openid, confirm=confirm)
