"""All that the simulated WeChat Pay remembers, what its seed decides, and what is still to happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from simulators.clock import Clock
from simulators.faults import Faults
from simulators.payment_ledger import PaymentLedger
from simulators.wechatpay_books import Merchant, Order, Refund, beijing_time
from simulators.wechatpay_faults import FAULTS, NAME


@dataclass(kw_only=True, slots=True)
class Reference:
    """What a phone can pay with: a prepay_id, a code_url, an h5_url."""

    order: Order
    valid_until: datetime
    kind: str


class Ledger(PaymentLedger):
    """Orders and refunds stand under the number of whoever signs for them and the number he gave them."""

    name = NAME
    catalogue = FAULTS

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults | None = None,
        seed: int = 0,
        notice_delay: timedelta = timedelta(seconds=1),
        refund_delay: timedelta = timedelta(seconds=30),
    ) -> None:
        super().__init__(clock=clock, faults=faults, seed=seed, notice_delay=notice_delay, refund_delay=refund_delay)
        self.merchants: dict[str, Merchant] = {}
        self.orders: dict[tuple[str, str], Order] = {}
        self.refunds: dict[tuple[str, str], Refund] = {}
        self.transactions: dict[str, Order] = {}  # the paid ones, by transaction_id
        self.references: dict[str, Reference] = {}

    # --- values derived from the seed ---------------------------------------------------------------

    def serial(self, *parts: object) -> str:
        return "5" + self.hash("serial", *parts).upper()[:39]

    def openid(self, order: Order) -> str:
        """Of a payer whom nobody has named."""
        return "o" + self.hash("openid", order.merchant.mchid, order.out_trade_no)[:27]

    # --- what happens -------------------------------------------------------------------------------

    def event(self, kind: str, order: Order, at: datetime, **more: object) -> None:
        self.record(kind, at, mchid=order.merchant.mchid, out_trade_no=order.out_trade_no, **more)

    def record(self, kind: str, at: datetime, **more: object) -> None:
        self.events.append({"at": beijing_time(at), "kind": kind, **more})

    # --- what is found ------------------------------------------------------------------------------

    def order_of(self, mchid: str, out_trade_no: str) -> Order | None:
        """An order of this merchant, or one of the sub-merchants of this service provider."""
        merchant = self.merchants[mchid]
        order = self.orders.get((merchant.signer.mchid, out_trade_no))
        return order if order and merchant in (order.merchant, order.merchant.provider) else None

    def refund_of(self, mchid: str, out_refund_no: str) -> Refund | None:
        merchant = self.merchants[mchid]
        refund = self.refunds.get((merchant.signer.mchid, out_refund_no))
        return refund if refund and merchant in (refund.order.merchant, refund.order.merchant.provider) else None
