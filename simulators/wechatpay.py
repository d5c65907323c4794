"""WeChat Pay V3 with books of its own: orders, refunds, notices, keys, and the payer's phone.

Direct merchants, and service providers with their sub-merchants. What is simulated comes from the public documents
(pay.weixin.qq.com, APIv3); where they are silent the choice is named in a comment. Nothing here is shared with the
product. This module holds the routes and what people do; the rules are in the modules it puts together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from simulators.clock import Clock
from simulators.faults import Faults
from simulators.kit import Request, Response
from simulators.wechatpay_bills import Bills
from simulators.wechatpay_books import BEIJING, Merchant, Order, PlatformKey, Refund, digits
from simulators.wechatpay_calls import ApiError
from simulators.wechatpay_console import answer_console
from simulators.wechatpay_faults import FAULTS
from simulators.wechatpay_gate import Gate
from simulators.wechatpay_keys import private_pem, read_public_key, rsa_key
from simulators.wechatpay_ledger import Ledger
from simulators.wechatpay_notices import RESEND_AFTER, Notices
from simulators.wechatpay_orders import Orders
from simulators.wechatpay_phone import PayResult, Phone
from simulators.wechatpay_platform import Platform
from simulators.wechatpay_refunds import Refunds
from simulators.wechatpay_routes import Route, Routes
from simulators.wechatpay_views import order_in_books, refund_in_books


class WechatPaySimulator(Ledger):
    """One WeChat Pay for any number of merchants."""

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults | None = None,
        seed: int = 0,
        notice_delay: timedelta = timedelta(seconds=1),
        refund_delay: timedelta = timedelta(seconds=30),
        public_private_key: RSAPrivateKey | str | None = None,
        certificate_private_key: RSAPrivateKey | str | None = None,
    ) -> None:
        super().__init__(clock=clock, faults=faults, seed=seed, notice_delay=notice_delay, refund_delay=refund_delay)
        self._platform = Platform(
            self, public_private_key=public_private_key, certificate_private_key=certificate_private_key
        )
        self._notices = Notices(self, self._platform)
        self._phone = Phone(self, self._notices)
        self._refunds = Refunds(self, self._notices)
        self._gate = Gate(self, self._platform)
        orders = Orders(self, self._notices, self._phone)
        self.bills = Bills(self)
        self._routes = Routes(self, orders, self._refunds, self.bills, self._platform, self._notices)
        self.pay = self._phone.pay
        self.pay_with = self._phone.pay_with
        self.check_pay_params = self._phone.check_pay_params
        self.rotate_certificate = self._platform.rotate_certificate
        self.rotate_public_key = self._platform.rotate_public_key
        self.delivered = self._notices.delivered

    # --- keys and merchants -----------------------------------------------------------------------

    @property
    def public_key(self) -> PlatformKey:
        return self._platform.public_key

    @property
    def certificate(self) -> PlatformKey:
        return self._platform.certificate

    def add_merchant(
        self,
        mchid: str,
        *,
        appids: set[str] | frozenset[str],
        api_v3_key: str | None = "",
        public_key: RSAPublicKey | str | None = None,
        serial_no: str = "",
        public_key_only: bool = False,
        public_key_share: float = 1.0,
        balance_fen: int = 0,
    ) -> Merchant:
        """Register a merchant. Without `public_key` (PEM of a key or certificate) the simulator makes its key
        pair and hands the private key out in `private_key_pem`, as the merchant console would."""
        if mchid in self.merchants:
            raise ValueError(f"merchant {mchid} exists")
        if api_v3_key is not None and len(api_v3_key.encode()) not in (0, 32):
            raise ValueError("an APIv3 key has 32 characters")
        made_pem = ""
        if public_key is None:
            made = rsa_key(f"merchant {mchid}")
            made_pem = private_pem(made)
            public_key = made.public_key()
        elif isinstance(public_key, str):
            public_key = read_public_key(public_key)
        serial_no = serial_no or self.serial("merchant", mchid)
        merchant = Merchant(
            mchid=mchid,
            appids=frozenset(appids),
            api_v3_key=self.hash("api v3 key", mchid)[:32] if api_v3_key == "" else api_v3_key,
            certificates={serial_no: public_key},
            public_key_only=public_key_only,
            public_key_share=public_key_share,
            balance_fen=balance_fen,
            serial_no=serial_no,
            private_key_pem=made_pem,
        )
        self.merchants[mchid] = merchant
        return merchant

    def add_service_provider(self, mchid: str, *, appids: set[str] | frozenset[str], **options: Any) -> Merchant:
        """Register a service provider (服务商), with the options of `add_merchant`; it is never paid itself."""
        provider = self.add_merchant(mchid, appids=appids, **options)
        provider.is_provider = True
        return provider

    def add_sub_merchant(
        self,
        mchid: str,
        *,
        provider: Merchant,
        appids: set[str] | frozenset[str] = frozenset(),
        balance_fen: int = 0,
        refunds_authorised: bool = True,
    ) -> Merchant:
        """Register a sub-merchant (特约商户) of this service provider, whose keys serve both."""
        if not provider.is_provider:
            raise ValueError(f"{provider.mchid} is no service provider")
        if mchid in self.merchants:
            raise ValueError(f"merchant {mchid} exists")
        merchant = Merchant(
            mchid=mchid,
            appids=frozenset(appids),
            api_v3_key=None,
            certificates={},
            public_key_only=provider.public_key_only,
            public_key_share=provider.public_key_share,
            balance_fen=balance_fen,
            provider=provider,
            refunds_authorised=refunds_authorised,
        )
        self.merchants[mchid] = merchant
        return merchant

    # --- calls --------------------------------------------------------------------------------------

    def classify(self, request: Request) -> tuple[str, str]:
        if request.path.startswith("/_"):
            return "console", request.path
        route, argument = self._routes.find(request.method, request.path)
        if not isinstance(route, Route):
            return "unknown", request.path
        return route.call, self._routes.key_of(route, argument, request)

    async def handle(self, request: Request) -> Response:
        self.advance()
        if request.path.startswith("/_"):
            return answer_console(self, request)
        route, argument = self._routes.find(request.method, request.path)
        if not isinstance(route, Route):
            return self._gate.closed(request, route)
        try:
            call = self._gate.enter(request, route, argument, key=self._routes.key_of(route, argument, request))
        except ApiError as error:
            return self._gate.refusal(request, error)
        return self._gate.answer(call, route)

    # --- the merchant console -----------------------------------------------------------------------

    def top_up(self, mchid: str, fen: int) -> int:
        """Put money into the merchant's account (or take it out, when negative); returns the new balance."""
        merchant = self.merchants[mchid]
        if merchant.balance_fen + fen < 0:
            raise ValueError("the balance cannot be negative")
        merchant.balance_fen += fen
        self.record("balance_changed", self.clock.now(), mchid=mchid, fen=fen)
        return merchant.balance_fen

    def refund_by_hand(self, mchid: str, out_trade_no: str, refund_fen: int) -> str:
        """A refund made by staff in the merchant console; returns its number.

        Nothing is notified in V3: the console's own refunds are told in the V2 format at most.
        """
        self.advance()
        order = self.order_of(mchid, out_trade_no)
        if order is None:
            raise KeyError(out_trade_no)
        if not 0 < refund_fen <= min(order.refundable_fen, order.merchant.balance_fen):
            raise ValueError("more than can be refunded")
        out_refund_no = digits(self.hash("by hand", mchid, out_trade_no, len(order.refunds)), 28)
        self._refunds.accept(
            order, out_refund_no=out_refund_no, refund_fen=refund_fen, asked={}, notify_url="", by_hand=True
        )
        return out_refund_no

    def handle_abnormal(self, mchid: str, out_refund_no: str) -> None:
        """Staff name another account for an ABNORMAL refund in the merchant console."""
        self.advance()
        refund = self.refund_of(mchid, out_refund_no)
        if refund is None:
            raise KeyError(out_refund_no)
        if refund.state != "ABNORMAL":
            raise ValueError(f"refund {out_refund_no} is {refund.state}")
        self._refunds.handle_abnormal(refund, to_merchant=True)

    # --- books ----------------------------------------------------------------------------------------

    def books(self) -> dict[str, Any]:
        """Everything that happened to money, as JSON values; for the oracle and for the console's page."""
        self.advance()
        return {
            "merchants": [
                {
                    "mchid": merchant.mchid,
                    "appids": sorted(merchant.appids),
                    "balance_fen": merchant.balance_fen,
                }
                for merchant in self.merchants.values()
            ],
            "orders": [order_in_books(order) for order in self.orders.values()],
            "refunds": [refund_in_books(refund) for refund in self.refunds.values()],
            "events": sorted(self.events, key=lambda event: str(event["at"])),
        }


__all__ = [
    "BEIJING",
    "FAULTS",
    "RESEND_AFTER",
    "Merchant",
    "Order",
    "PayResult",
    "PlatformKey",
    "Refund",
    "WechatPaySimulator",
]
