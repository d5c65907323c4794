"""All that the simulated WeChat Pay remembers, what its seed decides, and what is still to happen."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from simulators.clock import Clock
from simulators.faults import Faults
from simulators.kit import Deliveries
from simulators.wechatpay_books import Merchant, Order, Refund, beijing_time
from simulators.wechatpay_faults import FAULTS, NAME


@dataclass(kw_only=True, slots=True)
class Reference:
    """What a phone can pay with: a prepay_id, a code_url, an h5_url."""

    order: Order
    valid_until: datetime
    kind: str


class Ledger:
    """Orders and refunds stand under the number of whoever signs for them and the number he gave them."""

    name = NAME

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults | None = None,
        seed: int = 0,
        notice_delay: timedelta = timedelta(seconds=1),
        refund_delay: timedelta = timedelta(seconds=30),
    ) -> None:
        self.clock: Clock = clock
        self.seed = seed
        self.faults: Faults = faults if faults is not None else Faults(seed=seed)
        self.faults.register(FAULTS)
        self.deliveries: Deliveries = Deliveries()
        self.notice_delay = notice_delay
        self.refund_delay = refund_delay
        self.merchants: dict[str, Merchant] = {}
        self.orders: dict[tuple[str, str], Order] = {}
        self.refunds: dict[tuple[str, str], Refund] = {}
        self.transactions: dict[str, Order] = {}  # the paid ones, by transaction_id
        self.references: dict[str, Reference] = {}
        self.events: list[dict[str, Any]] = []
        self._due: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._sequence = itertools.count(1)

    # --- values derived from the seed ---------------------------------------------------------------

    def hash(self, *parts: object) -> str:
        text = "\x1f".join([str(self.seed), *map(str, parts)])
        return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()

    def serial(self, *parts: object) -> str:
        return "5" + self.hash("serial", *parts).upper()[:39]

    def openid(self, order: Order) -> str:
        """Of a payer whom nobody has named."""
        return "o" + self.hash("openid", order.merchant.mchid, order.out_trade_no)[:27]

    def strikes(self, call: str, key: str) -> str:
        """The short name of the specific fault that strikes, or ""."""
        fault = self.faults.pick(self.name, call, key, specific=True)
        return fault.name.removeprefix(f"{NAME}.") if fault else ""

    # --- what happens -------------------------------------------------------------------------------

    def advance(self) -> None:
        """Let everything happen whose time has come."""
        now = self.clock.now()
        while self._due and self._due[0][0] <= now:
            at, _, happen = heapq.heappop(self._due)
            happen(at)

    def at(self, at: datetime, happen: Callable[[datetime], None]) -> None:
        heapq.heappush(self._due, (at, next(self._sequence), happen))

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
