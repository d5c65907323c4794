"""Phones that text messages arrive at, and how many may arrive in a while."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from simulators.sms_rules import NumberRefusal

SHANGHAI = ZoneInfo("Asia/Shanghai")
MESSAGES_MAX = 1000  # a phone keeps its latest


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many messages one phone may get."""

    per_30_seconds: int
    per_hour: int
    per_day: int  # a day of Shanghai


@dataclass(frozen=True, kw_only=True)
class PhoneText:
    """One message as the phone shows it."""

    at: datetime
    phone: str  # +8613800000000
    serial_no: str
    template_id: str
    text: str
    fee: int
    session_context: str

    def shown(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(),
            "phone": self.phone,
            "serial_no": self.serial_no,
            "template_id": self.template_id,
            "text": self.text,
            "fee": self.fee,
            "session_context": self.session_context,
        }


@dataclass(kw_only=True)
class Phone:
    """Somebody's phone, as far as the platform knows it."""

    messages: deque[PhoneText] = field(default_factory=lambda: deque(maxlen=MESSAGES_MAX))
    blocked: bool = False

    def check(self, limits: Limits, now: datetime, struck: str) -> None:
        """Whether one more may arrive now. Raises NumberRefusal."""
        today = now.astimezone(SHANGHAI).date()
        reached = {
            "ThirtySecond": self._since(now - timedelta(seconds=30)) >= limits.per_30_seconds,
            "OneHour": self._since(now - timedelta(hours=1)) >= limits.per_hour,
            "Daily": sum(1 for each in self.messages if each.at.astimezone(SHANGHAI).date() == today) >= limits.per_day,
        }
        if struck == "thirty_second_limit":
            reached["ThirtySecond"] = True
        if struck == "daily_limit":
            reached["Daily"] = True
        for name, full in reached.items():
            if full:
                raise NumberRefusal(f"LimitExceeded.PhoneNumber{name}Limit", "the number of messages exceeds the limit")

    def _since(self, begin: datetime) -> int:
        return sum(1 for each in self.messages if each.at > begin)
