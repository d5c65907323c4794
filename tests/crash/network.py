"""The network between our programs and the counterparties: time on the way, lost lines, late arrivals.

A request that has left is the network's: it arrives, and its answer comes back, whether or not the program that
sent it still lives. How long it is under way is decided by a hash, as everything else that may go wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from core.errors import NotReached, OutcomeUnknown
from core.transactions import open_transaction
from simulators.faults import chance
from simulators.kit import ConnectionLost, NeverConnected, Request, Response, Simulator, exchange
from tests.crash.scheduler import Life, Scheduler
from wire.http import HttpReply, HttpRequest

LATEST_SECONDS = {"wechatpay": 400.0, "hospital": 100.0, "wechat": 30.0}
"""A request may still arrive when its sender has long given up: at WeChat Pay until its signature is too old, at a
HIS within the processing limit that it declares, at the chat platform within what its client allows for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """How the network behaves: some exchanges are slow, up to beyond what the caller waits for."""

    quick_seconds: tuple[float, float] = (0.004, 0.12)
    slow: float = 0.0
    slow_seconds_max: float = 20.0


class Network:
    """Which address leads to which counterparty, and how long the way is."""

    def __init__(
        self, scheduler: Scheduler, counterparties: Mapping[str, Simulator], *, weather: Weather | None = None
    ) -> None:
        self.scheduler = scheduler
        self.weather = weather or Weather()
        self._counterparties = counterparties  # scheme://host[:port] → who answers there
        self._nth: dict[tuple[str, str], int] = {}

    def transport(self, life: Life) -> GatedTransport:
        """What this life's programs send with."""
        return GatedTransport(self, life)

    def at(self, url: str) -> tuple[Simulator, str]:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        target = url[len(origin) :] or "/"
        return self._counterparties[origin], target

    def seconds(self, name: str, key: str) -> tuple[float, float]:
        """There and back."""
        nth = self._nth[name, key] = self._nth.get((name, key), 0) + 1
        seed = self.scheduler.seed
        low, high = self.weather.quick_seconds
        there, back = (low + (high - low) * chance(seed, way, name, key, nth) ** 2 for way in ("there", "back"))
        if chance(seed, "slow", name, key, nth) < self.weather.slow:
            late = chance(seed, "late", name, key, nth) * self.weather.slow_seconds_max
            if chance(seed, "late there", name, key, nth) < 0.5:
                there += late
            else:
                back += late
        return there, back


class GatedTransport:
    """wire.http.Transport without sockets."""

    def __init__(self, network: Network, life: Life) -> None:
        self._network = network
        self._life = life

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        if open_transaction.get():
            raise RuntimeError("a counterparty was called while a database transaction was open")
        scheduler = self._network.scheduler
        simulator, target = self._network.at(request.url)
        incoming = Request(
            method=request.method,
            target=target,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.body,
        )
        call, key = simulator.classify(incoming)
        name = f"{simulator.name}.{call}"
        await scheduler.gate(name, key, life=self._life)
        scheduler.counts["calls"] += 1
        there, back = self._network.seconds(name, key)
        under_way = scheduler.world.spawn(
            self._carry(
                simulator, incoming, name, key, min(there, LATEST_SECONDS[simulator.name]), back, deadline_seconds
            ),
            key=key,
        )
        try:
            async with asyncio.timeout(deadline_seconds):
                answer = await asyncio.shield(under_way)
        except TimeoutError:
            outcome: Response | Exception = ConnectionLost("deadline")
        else:
            outcome = answer
        await scheduler.gate(f"{name} answer", key, life=self._life)
        if isinstance(outcome, NeverConnected):
            raise NotReached(call)
        if isinstance(outcome, Exception):
            raise OutcomeUnknown(call)
        return HttpReply(
            status=outcome.status,
            headers={header.lower(): value for header, value in outcome.headers.items()},
            body=outcome.body,
        )

    async def _carry(
        self,
        simulator: Simulator,
        incoming: Request,
        name: str,
        key: str,
        there: float,
        back: float,
        deadline_seconds: float,
    ) -> Response | NeverConnected | ConnectionLost:
        scheduler = self._network.scheduler
        await asyncio.sleep(there)
        await scheduler.gate(f"{name} arrives", key)
        try:
            answer: Response | NeverConnected | ConnectionLost = await exchange(simulator, incoming)
        except NeverConnected as error:
            answer = error
        except ConnectionLost as error:  # seen at once, or never: then the caller's patience decides
            answer = error
            back += deadline_seconds * (chance(scheduler.seed, "silence", name, key, back) < 0.5)
        except Exception as error:
            scheduler.fail(f"{name} broke down: {error!r}")
            raise
        await asyncio.sleep(back)
        return answer
