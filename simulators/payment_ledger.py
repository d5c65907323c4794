"""What all simulated payment channels remember alike: clock, seed, faults, and what is still to happen."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from simulators.clock import Clock
from simulators.faults import Fault, Faults
from simulators.kit import Deliveries


class PaymentLedger:
    """The base of a channel's own ledger, which adds its books."""

    name: str
    catalogue: Iterable[Fault]

    def __init__(
        self, *, clock: Clock, faults: Faults | None, seed: int, notice_delay: timedelta, refund_delay: timedelta
    ) -> None:
        self.clock: Clock = clock
        self.seed = seed
        self.faults: Faults = faults if faults is not None else Faults(seed=seed)
        self.faults.register(self.catalogue)
        self.deliveries: Deliveries = Deliveries()
        self.notice_delay = notice_delay
        self.refund_delay = refund_delay  # until a refund has ended, or can be found
        self.events: list[dict[str, Any]] = []
        self._due: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._sequence = itertools.count(1)

    def hash(self, *parts: object) -> str:
        text = "\x1f".join([str(self.seed), *map(str, parts)])
        return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()

    def strikes(self, call: str, key: str) -> str:
        """The short name of the specific fault that strikes, or ""."""
        fault = self.faults.pick(self.name, call, key, specific=True)
        return fault.name.removeprefix(f"{self.name}.") if fault else ""

    def advance(self) -> None:
        """Let everything happen whose time has come."""
        now = self.clock.now()
        while self._due and self._due[0][0] <= now:
            at, _, happen = heapq.heappop(self._due)
            happen(at)

    def at(self, at: datetime, happen: Callable[[datetime], None]) -> None:
        heapq.heappush(self._due, (at, next(self._sequence), happen))
