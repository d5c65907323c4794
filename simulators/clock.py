"""A clock that people and tests can move: wall time plus an offset that only ever grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """The time as a counterparty sees it: aware UTC."""

    def now(self) -> datetime: ...


class ManualClock:
    """Stands still until it is advanced; for tests and for replayable runs."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        if by < timedelta(0):
            raise ValueError("time does not run backwards")
        self._now += by


class OffsetClock:
    """Wall time plus the offset (whole seconds, as text) kept in a file that several programs share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def offset(self) -> timedelta:
        try:
            return timedelta(seconds=float(self._path.read_text() or "0"))
        except FileNotFoundError:
            return timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset()

    def advance(self, by: timedelta) -> None:
        if by < timedelta(0):
            raise ValueError("time does not run backwards")
        total = (self.offset() + by).total_seconds()
        fresh = self._path.with_suffix(".new")
        fresh.write_text(str(total))
        fresh.replace(self._path)
