"""How much one person, and all together, may do in the chat at once; in this process's memory, and cheap."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from datetime import datetime, timedelta

from bot.events import ChatEventKind
from core.clock import Clock

EVENTS_AT_ONCE_MAX = 3  # of one person
EVENTS_PER_SECOND_MAX = 5  # of one person
ALL_AT_ONCE_MAX = 400  # of everybody: beyond it no answer would be in time
PERSONS_MAX = 20_000  # whose last second is remembered
SECOND = timedelta(seconds=1)

UNLIMITED = frozenset({ChatEventKind.FOLLOWED, ChatEventKind.UNFOLLOWED, ChatEventKind.DELIVERED, ChatEventKind.GRANT})
"""What the platform says about a person; nobody can make it say so a hundred times in a second."""


class Turnstile:
    def __init__(
        self,
        *,
        clock: Clock,
        at_once_max: int = EVENTS_AT_ONCE_MAX,
        per_second_max: int = EVENTS_PER_SECOND_MAX,
        all_at_once_max: int = ALL_AT_ONCE_MAX,
    ) -> None:
        self._clock = clock
        self._at_once_max = at_once_max
        self._per_second_max = per_second_max
        self._all_at_once_max = all_at_once_max
        self._inside: Counter[str] = Counter()
        self._entered: OrderedDict[str, deque[datetime]] = OrderedDict()

    def enter(self, who: str, kind: ChatEventKind) -> bool:
        """Whether an event of this person is worked; then `leave` follows."""
        if self._inside.total() >= self._all_at_once_max:
            return False
        if kind not in UNLIMITED and not (self._inside[who] < self._at_once_max and self._in_time(who)):
            return False
        self._inside[who] += 1
        return True

    def leave(self, who: str) -> None:
        self._inside[who] -= 1
        if not self._inside[who]:
            del self._inside[who]

    def _in_time(self, who: str) -> bool:
        now = self._clock.now()
        moments = self._entered.pop(who, None) or deque(maxlen=self._per_second_max)
        self._entered[who] = moments
        while len(self._entered) > PERSONS_MAX:
            self._entered.popitem(last=False)
        if len(moments) == self._per_second_max and moments[0] > now - SECOND:
            return False
        moments.append(now)
        return True
