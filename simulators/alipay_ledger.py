"""All that the simulated Alipay remembers, what its seed decides, and what is still to happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from simulators.alipay_books import BEIJING, Application, Merchant, Order, Refund, beijing_time, digits
from simulators.alipay_faults import FAULTS, NAME
from simulators.clock import Clock
from simulators.faults import Faults
from simulators.payment_ledger import PaymentLedger

REFUND_SHOWN_AFTER = timedelta(seconds=10)


@dataclass(kw_only=True, slots=True)
class Reference:
    """What a phone can pay with: a tradeNO, the content of a QR code, an opened page."""

    order: Order
    kind: str  # "trade_no" | "qr_code" | "page"


class Ledger(PaymentLedger):
    """Orders stand under the merchant's account number and his own number, refunds within their order."""

    name = NAME
    catalogue = FAULTS

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults | None = None,
        seed: int = 0,
        notice_delay: timedelta = timedelta(seconds=1),
        refund_delay: timedelta = REFUND_SHOWN_AFTER,
    ) -> None:
        super().__init__(clock=clock, faults=faults, seed=seed, notice_delay=notice_delay, refund_delay=refund_delay)
        self.merchants: dict[str, Merchant] = {}
        self.applications: dict[str, Application] = {}
        self.authorisations: dict[str, tuple[str, Application]] = {}  # app_auth_token → caller's app_id, merchant's app
        self.orders: dict[tuple[str, str], Order] = {}
        self.refunds: dict[tuple[str, str, str], Refund] = {}
        self.trades: dict[str, Order] = {}  # by trade_no, once they exist
        self.references: dict[str, Reference] = {}

    # --- values derived from the seed ---------------------------------------------------------------

    def new_trade_no(self, order: Order, at: datetime) -> str:
        """28 digits, the day first."""
        identity = self.hash("trade", order.merchant.pid, order.out_trade_no)
        return f"{at.astimezone(BEIJING):%Y%m%d}22001{digits(identity, 15)}"

    # --- what happens -------------------------------------------------------------------------------

    def event(self, kind: str, order: Order, at: datetime, **more: object) -> None:
        self.record(kind, at, pid=order.merchant.pid, out_trade_no=order.out_trade_no, **more)

    def record(self, kind: str, at: datetime, **more: object) -> None:
        self.events.append({"at": beijing_time(at), "kind": kind, **more})

    # --- what is found ------------------------------------------------------------------------------

    def order_of(self, pid: str, out_trade_no: str) -> Order | None:
        return self.orders.get((pid, out_trade_no))

    def refund_of(self, pid: str, out_trade_no: str, out_request_no: str) -> Refund | None:
        return self.refunds.get((pid, out_trade_no, out_request_no))
