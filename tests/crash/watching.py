"""Notes which calls to counterparties were left without a definite answer, so that one can see how they ended."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

from core.errors import NotReached, OutcomeUnknown, Refused

NUMBERS = ("refund_no", "confirm_no", "order_no")


class Unanswered:
    """(call, number) → how often its outcome was unknown."""

    def __init__(self) -> None:
        self.unknown: Counter[tuple[str, str]] = Counter()
        self.words: Counter[str] = Counter()

    def watch(self, adapter: Any) -> Any:
        return _Watched(adapter, self)


class _Watched:
    """Any adapter, with its errors noted."""

    def __init__(self, adapter: Any, notes: Unanswered) -> None:
        self._adapter = adapter
        self._notes = notes

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._adapter, name)
        if not inspect.iscoroutinefunction(value):
            return value
        call = f"{self._adapter.name}.{name}"

        async def watched(*arguments: Any, **named: Any) -> Any:
            try:
                return await value(*arguments, **named)
            except OutcomeUnknown:
                self._notes.unknown[call, _number(arguments)] += 1
                self._notes.words["outcome unknown"] += 1
                raise
            except (NotReached, Refused) as error:
                self._notes.words["not reached" if isinstance(error, NotReached) else "refused"] += 1
                raise

        setattr(self, name, watched)
        return watched


def _number(arguments: tuple[Any, ...]) -> str:
    """The order, refund or confirmation that a call is about."""
    for argument in arguments[1:]:
        if isinstance(argument, str):
            return argument
        for name in NUMBERS:
            if hasattr(argument, name):
                return str(getattr(argument, name))
        if hasattr(argument, "message_id"):
            return str(argument.message_id.hex)
    return ""
