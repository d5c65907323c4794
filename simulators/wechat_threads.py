"""Chat threads, one for each account and person: all that a phone shows, and what the account may still send."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from simulators.clock import Clock

ENTRIES_MAX = 1000  # a thread keeps its latest
SYSTEM_LINE = "该公众号暂时无法提供服务，请稍后再试"

ALLOWANCES = {
    "message": (5, timedelta(hours=48)),
    "menu": (3, timedelta(minutes=1)),
    "subscribe": (3, timedelta(minutes=1)),
    "scan": (3, timedelta(minutes=1)),
}
"""What a person did → how many customer messages may follow, and until when (api_sendcustommessage, 2026)."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a thread."""

    number: int
    at: datetime
    author: str  # "person" | "account" | "system"
    via: str  # "message" | "event" | "reply" | "custom" | "template" | "subscribe" | "system"
    kind: str  # "text", "voice", "news", "msgmenu", …; of an event its name
    text: str
    items: Sequence[Mapping[str, str]] = ()  # articles of a news, choices of a msgmenu
    opens: Mapping[str, str] = field(default_factory=dict)  # {"appid", "pagepath"} or {"url"} or nothing

    def shown(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "at": self.at.isoformat(),
            "author": self.author,
            "via": self.via,
            "kind": self.kind,
            "text": self.text,
            "items": [dict(item) for item in self.items],
            "opens": dict(self.opens),
        }


@dataclass(kw_only=True)
class Allowance:
    left: int
    until: datetime


@dataclass(kw_only=True)
class Thread:
    """What one person and one account have said to each other."""

    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=ENTRIES_MAX))
    made: int = 0
    allowances: dict[str, Allowance] = field(default_factory=dict)
    typing_until: datetime | None = None
    heard_at: datetime | None = None  # when the person last wrote or clicked


class Threads:
    """All threads by (app, person)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._threads: dict[tuple[str, str], Thread] = {}

    def of(self, app_id: str, user_id: str) -> Thread:
        return self._threads.setdefault((app_id, user_id), Thread())

    def add(
        self,
        app_id: str,
        user_id: str,
        *,
        author: str,
        via: str,
        kind: str,
        text: str,
        items: Sequence[Mapping[str, str]] = (),
        opens: Mapping[str, str] | None = None,
    ) -> Entry:
        thread = self.of(app_id, user_id)
        thread.made += 1
        entry = Entry(
            number=thread.made,
            at=self._clock.now(),
            author=author,
            via=via,
            kind=kind,
            text=text,
            items=items,
            opens=opens or {},
        )
        thread.entries.append(entry)
        if author == "account":
            thread.typing_until = None
        return entry

    def say_system_line(self, app_id: str, user_id: str) -> None:
        self.add(app_id, user_id, author="system", via="system", kind="text", text=SYSTEM_LINE)

    def acted(self, app_id: str, user_id: str, scene: str) -> None:
        """The person did something that lets the account send customer messages."""
        thread, now = self.of(app_id, user_id), self._clock.now()
        left, life = ALLOWANCES[scene]
        thread.allowances[scene] = Allowance(left=left, until=now + life)
        thread.heard_at = now

    def left(self, app_id: str, user_id: str) -> Sequence[Allowance]:
        """The allowances that have not run out of time; the shortest lived first."""
        now = self._clock.now()
        alive = [each for each in self.of(app_id, user_id).allowances.values() if each.until > now]
        return sorted(alive, key=lambda each: each.until)

    def close(self, app_id: str, user_id: str) -> None:
        """The person has left: nothing may be sent."""
        self.of(app_id, user_id).allowances.clear()
