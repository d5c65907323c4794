"""Aware UTC inside, Shanghai for the business day and for display."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from core.clock import OffsetClock, SystemClock, business_day, shanghai


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 5, 5, 15, 59, 59, 999_999, tzinfo=UTC), date(2026, 5, 5)),
        (datetime(2026, 5, 5, 16, 0, tzinfo=UTC), date(2026, 5, 6)),
        (datetime(2025, 12, 31, 16, 0, tzinfo=UTC), date(2026, 1, 1)),
        (datetime(2026, 5, 6, 1, 0, tzinfo=timezone(timedelta(hours=9))), date(2026, 5, 6)),
        (datetime(2026, 5, 6, 0, 59, tzinfo=timezone(timedelta(hours=9))), date(2026, 5, 5)),
    ],
)
def test_the_business_day_turns_at_midnight_in_shanghai(moment: datetime, day: date) -> None:
    assert business_day(moment) == day


def test_a_time_without_zone_is_refused() -> None:
    naive = datetime(2026, 5, 6, 12, 0)  # noqa: DTZ001  (that is what is tested)
    with pytest.raises(ValueError, match="without zone"):
        shanghai(naive)
    with pytest.raises(ValueError, match="without zone"):
        business_day(naive)


def test_the_wall_clock_shows_the_same_moment() -> None:
    moment = datetime(2026, 5, 6, 2, 0, tzinfo=UTC)
    local = shanghai(moment)
    assert local == moment
    assert (local.hour, local.utcoffset()) == (10, timedelta(hours=8))


def test_the_system_clock_is_aware_utc() -> None:
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert abs(now.timestamp() - time.time()) < 60


def test_an_offset_clock_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "offset"
    clock = OffsetClock(path)
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 60
    path.write_text("")
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 60
    path.write_text("86400")
    assert abs((clock.now() - datetime.now(UTC)).total_seconds() - 86400) < 60
    assert clock.now().tzinfo is UTC
