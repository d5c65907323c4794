"""Alipay's gateway (v2) with books of its own: trades, refunds, notices, bills, keys, and the payer's phone.

What is simulated comes from the public documents and SDKs (opendocs.alipay.com, trade APIs of the gateway); where
they are silent the strict choice is named in the module concerned. Nothing here is shared with the product. This
module holds the routes and what people do; the rules are in the modules it puts together.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from simulators.alipay_bills import PATH as BILL_FILE
from simulators.alipay_bills import Bills
from simulators.alipay_books import TOLD_ALL, TOLD_PAID_ONLY, Application, Merchant, Order, PlatformKey, Refund, digits
from simulators.alipay_calls import ApiError, Call, Parameters, read_parameters
from simulators.alipay_console import answer_console
from simulators.alipay_faults import FAULTS
from simulators.alipay_gate import Gate
from simulators.alipay_keys import private_pem, read_public_key, rsa_key
from simulators.alipay_ledger import REFUND_SHOWN_AFTER, Ledger
from simulators.alipay_notices import AT_ONCE, RESEND_AFTER, Notices
from simulators.alipay_pages import CASHIER, Pages
from simulators.alipay_phone import PayResult, Phone
from simulators.alipay_platform import Platform
from simulators.alipay_refunds import Refunds
from simulators.alipay_routes import GATEWAY, ROUTES, Route, key_of
from simulators.alipay_trades import Trades
from simulators.alipay_views import order_in_books, refund_in_books
from simulators.clock import Clock
from simulators.faults import Faults
from simulators.kit import Request, Response

PRODUCTS = frozenset({"JSAPI_PAY", "QR_CODE_OFFLINE", "QUICK_WAP_WAY"})


class AlipaySimulator(Ledger):
    """One Alipay for any number of merchants and applications."""

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults | None = None,
        seed: int = 0,
        notice_delay: timedelta = timedelta(seconds=1),
        refund_delay: timedelta = REFUND_SHOWN_AFTER,
        private_key: RSAPrivateKey | None = None,
    ) -> None:
        super().__init__(clock=clock, faults=faults, seed=seed, notice_delay=notice_delay, refund_delay=refund_delay)
        self._platform = Platform(self, private_key)
        self._notices = Notices(self, self._platform)
        self._phone = Phone(self, self._notices)
        self._refunds = Refunds(self, self._notices)
        self._gate = Gate(self, self._platform)
        trades = Trades(self, self._notices, self._phone, self._refunds)
        self.bills = Bills(self)
        self._pages = Pages(self, trades, self._phone, self._notices)
        self._handlers: dict[str, Callable[[Call], dict[str, Any]]] = {
            "create": trades.create,
            "precreate": trades.precreate,
            "query": trades.query,
            "close": trades.close,
            "cancel": trades.cancel,
            "refund": self._refunds.create,
            "query_refund": self._refunds.query,
            "bill": self.bills.apply,
            "certificate": self._platform.download,
        }
        self._routes = dict(ROUTES)
        self.open = self._phone.open
        self.pay = self._phone.pay
        self.trade_pay = self._phone.trade_pay
        self.rotate_certificate = self._platform.rotate_certificate
        self.delivered = self._notices.delivered

    # --- keys, merchants, applications --------------------------------------------------------------

    @property
    def public_key(self) -> PlatformKey:
        """What an application in public-key mode is given."""
        return self._platform.public_key

    @property
    def certificate(self) -> PlatformKey:
        """What an application in certificate mode is given (alipayCertPublicKey_RSA2.crt)."""
        return self._platform.certificate

    @property
    def root_certificates(self) -> str:
        """alipayRootCert.crt."""
        return self._platform.root_bundle

    @property
    def root_cert_sn(self) -> str:
        return self._platform.root_sn

    def add_merchant(
        self,
        pid: str,
        *,
        balance_fen: int = 0,
        products: frozenset[str] = PRODUCTS,
        mini_apps: set[str] | frozenset[str] = frozenset(),
        told: frozenset[str] = TOLD_ALL,
        email: str = "",
    ) -> Merchant:
        """Register who is paid: 16 digits from 2088, and the mini programs bound to him."""
        if pid in self.merchants:
            raise ValueError(f"merchant {pid} exists")
        if len(pid) != 16 or not pid.isdecimal() or not pid.startswith("2088"):
            raise ValueError("an account number has 16 digits and begins with 2088")
        merchant = Merchant(
            pid=pid,
            email=email or f"pay{pid[-4:]}@hospital.example",
            balance_fen=balance_fen,
            products=products,
            mini_apps=frozenset(mini_apps),
            told=told,
        )
        self.merchants[pid] = merchant
        return merchant

    def add_application(
        self,
        app_id: str,
        *,
        merchant: Merchant,
        public_key: RSAPublicKey | str | None = None,
        certificate_mode: bool = False,
        aes_key: str = "",
        knows_open_ids: bool = True,
    ) -> Application:
        """Register what calls. Without `public_key` the simulator makes its key pair and hands the private key
        out in `private_key_pem`; in certificate mode it also issues the application's certificate."""
        if app_id in self.applications:
            raise ValueError(f"application {app_id} exists")
        made_pem = ""
        if public_key is None:
            made = rsa_key(f"application {app_id}")
            made_pem = private_pem(made)
            public_key = made.public_key()
        elif isinstance(public_key, str):
            public_key = read_public_key(public_key)
        certificate_pem, cert_sn = self._platform.certify(public_key, app_id) if certificate_mode else ("", "")
        application = Application(
            app_id=app_id,
            merchant=merchant,
            public_key=public_key,
            cert_sn=cert_sn,
            certificate_pem=certificate_pem,
            aes_key=aes_key,
            knows_open_ids=knows_open_ids,
            private_key_pem=made_pem,
        )
        self.applications[app_id] = application
        return application

    def authorise(self, provider: Application, application: Application) -> str:
        """The app_auth_token with which a service provider calls for this merchant's application."""
        token = f"202601BB{self.hash('token', provider.app_id, application.app_id)[:32]}"
        self.authorisations[token] = (provider.app_id, application)
        return token

    def serve(self, method: str, route: Route, handler: Callable[[Call], dict[str, Any]]) -> None:
        """Another method of the same gateway: what the platform's other services answer behind this gate.

        The handler raises ApiError to refuse; values beside `biz_content` stand in `call.parameters`.
        """
        if method in self._routes or route.call in self._handlers:
            raise ValueError(f"{method} is served")
        self._routes[method] = route
        self._handlers[route.call] = handler

    # --- calls --------------------------------------------------------------------------------------

    def classify(self, request: Request) -> tuple[str, str]:
        if request.path.startswith("/_"):
            return "console", request.path
        if request.path == BILL_FILE:
            return "bill_file", ""
        if request.path != GATEWAY:
            return "unknown", request.path
        parameters = read_parameters(request)
        route = self._routes.get(parameters.get("method"))
        return (route.call, key_of(self, route, parameters)) if route else ("unknown", parameters.get("method"))

    async def handle(self, request: Request) -> Response:
        self.advance()
        if request.path.startswith("/_"):
            return answer_console(self, request)
        if request.path == BILL_FILE:
            return self.bills.download(request)
        if request.path == CASHIER:
            return self._pages.cashier(request)
        if request.path != GATEWAY:
            return Response(status=404, headers={"content-type": "text/html"}, body=b"<html>404</html>")
        parameters = read_parameters(request)
        route = self._routes.get(parameters.get("method"))
        return self._page(parameters, route) if route and route.page else self._answer(parameters, route)

    def _answer(self, parameters: Parameters, route: Route | None) -> Response:
        caller = None
        try:
            caller = self._gate.known(parameters)
            call = self._gate.enter(caller, parameters, route)
        except ApiError as error:
            return self._gate.refusal(caller, parameters, error)
        assert route is not None
        return self._gate.answer(call, self._handlers[route.call], bare=route.bare)

    def _page(self, parameters: Parameters, route: Route) -> Response:
        try:
            call = self._gate.enter(self._gate.known(parameters), parameters, route)
            return self._pages.open(call)
        except ApiError as error:
            return self._pages.refusal(error)

    # --- the merchant console -----------------------------------------------------------------------

    def top_up(self, pid: str, fen: int) -> int:
        """Put money into the merchant's account (or take it out, when negative); returns the new balance."""
        merchant = self.merchants[pid]
        if merchant.balance_fen + fen < 0:
            raise ValueError("the balance cannot be negative")
        merchant.balance_fen += fen
        self.record("balance_changed", self.clock.now(), pid=pid, fen=fen)
        return merchant.balance_fen

    def refund_by_hand(self, pid: str, out_trade_no: str, refund_fen: int) -> str:
        """A refund made by staff in the merchant console; returns its number. Told like any other."""
        self.advance()
        order = self.order_of(pid, out_trade_no)
        if order is None:
            raise KeyError(out_trade_no)
        if not 0 < refund_fen <= min(order.refundable_fen, order.merchant.balance_fen) or order.finished_at:
            raise ValueError("more than can be refunded")
        number = digits(self.hash("by hand", pid, out_trade_no, len(order.refunds)), 28)
        self._refunds.give_back(order, number, refund_fen, reason="商家后台退款", by_hand=True)
        return number

    # --- books ----------------------------------------------------------------------------------------

    def books(self) -> dict[str, Any]:
        """Everything that happened to money, as JSON values; for the oracle and for the console's page."""
        self.advance()
        now = self.clock.now()
        return {
            "merchants": [
                {"pid": merchant.pid, "mini_apps": sorted(merchant.mini_apps), "balance_fen": merchant.balance_fen}
                for merchant in self.merchants.values()
            ],
            "orders": [order_in_books(order, now) for order in self.orders.values()],
            "refunds": [refund_in_books(refund, now) for refund in self.refunds.values()],
            "events": sorted(self.events, key=lambda event: str(event["at"])),
        }


__all__ = [
    "AT_ONCE",
    "FAULTS",
    "RESEND_AFTER",
    "TOLD_ALL",
    "TOLD_PAID_ONLY",
    "AlipaySimulator",
    "Application",
    "Merchant",
    "Order",
    "PayResult",
    "PlatformKey",
    "Refund",
]
