"""Time: aware UTC everywhere, Asia/Shanghai for display and for the business day only."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

SHANGHAI = ZoneInfo("Asia/Shanghai")

OUR_CLOCKS_APART = timedelta(seconds=10)
"""How far apart the clocks of two of our machines may be: `zhenfu doctor` warns when one is 5 s off the database's.

Who concludes from the time that has passed since another machine's stamp that something can no longer happen, waits
so much longer.
"""


class Clock(Protocol):
    """Where the time comes from; nothing else in the product asks the system."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class OffsetClock:
    """The machine's clock plus an offset in seconds, kept in a file: the sandbox's movable time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> datetime:
        try:
            offset_seconds = float(self._path.read_text() or "0")
        except FileNotFoundError:
            offset_seconds = 0.0
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + offset_seconds, UTC)


def business_day(moment: datetime) -> date:
    """The hospital's calendar day of a moment."""
    return shanghai(moment).date()


def shanghai(moment: datetime) -> datetime:
    """The same moment as a wall clock in the hospital shows it. Raises ValueError for a naive time."""
    if moment.tzinfo is None:
        raise ValueError("a time without zone has no meaning here")
    return moment.astimezone(SHANGHAI)
