"""Hand-written stand-ins at the ports, for what no counterparty can be asked to do on cue."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, cast


class Held:
    """Any port's implementation, of which chosen calls wait until they are let go, or fail."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self._gates: dict[str, asyncio.Event] = {}
        self._raising: dict[str, Exception] = {}
        self._reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def hold(self, *names: str) -> None:
        """From now on these calls do not begin."""
        for name in names:
            self._gates[name] = asyncio.Event()
            self._reached[name].clear()

    def let_go(self, *names: str) -> None:
        for name in names:
            self._gates.pop(name).set()

    def fail(self, name: str, error: Exception) -> None:
        """From now on this call raises."""
        self._raising[name] = error

    async def reached(self, name: str) -> None:
        """Return once somebody waits in this call."""
        async with asyncio.timeout(5):
            await self._reached[name].wait()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            if (gate := self._gates.get(name)) is not None:
                self._reached[name].set()
                await gate.wait()
            if (error := self._raising.get(name)) is not None:
                raise error
            return await value(*arguments, **named)

        return call


def held(adapters: Mapping[str, Any], name: str) -> Held:
    """Put a Held in the place of an adapter of `services.outside`."""
    stand_in = Held(adapters[name])
    cast("dict[str, Any]", adapters)[name] = stand_in
    return stand_in
