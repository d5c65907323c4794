"""Named faults: what may go wrong at a counterparty, when it does, and how it must end.

Whether a fault strikes is decided by a hash of (seed, key, call, nth), where the key is the order number
or whatever else names the business at hand. The decision does not depend on the order in which other
business happens to arrive, so a run with the same seed is the same bad day again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What the transport does; SPECIFIC faults are carried out by the simulator itself."""

    NOT_REACHED = "not_reached"  # the connection is never made
    LOSE_REQUEST = "lose_request"  # the line dies before the counterparty has done anything
    LOSE_ANSWER = "lose_answer"  # the counterparty has done it, the answer is lost
    ERROR_BEFORE = "error_before"  # HTTP 500, nothing done
    ERROR_AFTER = "error_after"  # done, yet HTTP 500
    GARBLED_ANSWER = "garbled_answer"  # done, the answer is cut off half way
    SPECIFIC = "specific"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One entry of the catalogue."""

    name: str  # e.g. "wechatpay.answer_lost"
    counterparty: str  # "wechatpay" | "wechat" | "sms" | "hospital"
    calls: frozenset[str]  # names of the calls it can strike; empty = all
    effect: Effect
    title_zh: str  # shown on the sandbox page
    ends: str  # how business struck by it must end, in one sentence
    needs_person: bool = False  # may leave an open case for staff


class Faults:
    """Which faults strike. `rate` makes them likely, `script` makes the next matching call fail for certain."""

    def __init__(self, *, seed: int = 0, catalogue: Iterable[Fault] = ()) -> None:
        self.seed = seed
        self.catalogue: dict[str, Fault] = {}
        self.rates: dict[str, float] = {}
        self.struck: Counter[str] = Counter()
        self._scripted: list[tuple[str, str | None]] = []
        self._nth: Counter[tuple[str, str]] = Counter()
        self.register(catalogue)

    def register(self, catalogue: Iterable[Fault]) -> None:
        """Add a simulator's own catalogue; a name exists once."""
        for fault in catalogue:
            if self.catalogue.setdefault(fault.name, fault) != fault:
                raise ValueError(f"two different faults are called {fault.name}")

    def rate(self, name: str, probability: float) -> None:
        """Let the named fault strike each matching call with this probability (0..1)."""
        if name not in self.catalogue:
            raise KeyError(name)
        self.rates[name] = probability

    def script(self, name: str, *, key: str | None = None, times: int = 1) -> None:
        """Let the named fault strike the next `times` matching calls (of this key, if given)."""
        if name not in self.catalogue:
            raise KeyError(name)
        self._scripted.extend([(name, key)] * times)

    def clear(self) -> None:
        """No more faults."""
        self.rates.clear()
        self._scripted.clear()

    def pick(self, counterparty: str, call: str, key: str, *, specific: bool) -> Fault | None:
        """The fault that strikes this call, if any.

        Asked once by the transport (`specific=False`) and once by the simulator (`specific=True`) for each
        call; at most one of each strikes.
        """
        self._nth[(f"{call}/{specific}", key)] += 1
        nth = self._nth[(f"{call}/{specific}", key)]
        for name, fault in sorted(self.catalogue.items()):
            if fault.counterparty != counterparty or (fault.effect is Effect.SPECIFIC) != specific:
                continue
            if fault.calls and call not in fault.calls:
                continue
            for entry in ((name, None), (name, key)):
                if entry in self._scripted:
                    self._scripted.remove(entry)
                    self.struck[name] += 1
                    return fault
            probability = self.rates.get(name, 0.0)
            if probability > 0 and chance(self.seed, name, key, call, nth) < probability:
                self.struck[name] += 1
                return fault
        return None


def chance(seed: int, *parts: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") / float(1 << 56)
