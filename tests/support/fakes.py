"""Hand-written stand-ins at the ports, for what no counterparty can be asked to do on cue."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome, SendResult

if TYPE_CHECKING:
    from tests.support.house import House


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


class Phonebook:
    """A messenger to phones that keeps what it is given."""

    name, rank, writes_to_phones, resend_window = "sms", 9, True, timedelta(0)

    def __init__(self) -> None:
        self.sent: list[OutgoingMessage] = []

    def carries(self, account: ChatAccount, kind: MessageKind) -> bool:
        return kind is MessageKind.PHONE_CODE

    async def send(self, account: ChatAccount, message: OutgoingMessage) -> SendResult:
        self.sent.append(message)
        return SendResult(outcome=SendOutcome.ACCEPTED)

    def code(self) -> str:
        return self.sent[-1].fields["code"]


async def with_phones(house: House) -> Phonebook:
    """The institution can write to phones from now on."""
    book = Phonebook()
    cast("dict[str, Any]", house.services.outside.messengers)[book.name] = book
    await house.setup.chat_account(house.institution_id, platform=book.name, app_id="1400000001", params={})
    return book
