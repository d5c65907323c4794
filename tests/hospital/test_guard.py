"""The guard around a hospital adapter: cap, deadline, breaker, maintenance, in this order of subjects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

import pytest

from core.clock import SHANGHAI
from core.errors import ConfigurationError, NotReached, OutcomeUnknown, Refused
from core.ports import Booking, Hospital, HospitalSite
from hospital.guard import BREAKER, BUSY, MAINTENANCE, GuardedHospital, GuardSettings, maintenance_ends
from simulators.clock import ManualClock
from tests.support.hospital import MORNING

BOOKED = Booking(booked=True)
SITE = HospitalSite(
    id=UUID(int=1), institution_id=UUID(int=2), branch="", adapter="rest", base_url="http://his", params={}
)


class FakeHospital:
    """Answers query_payment in whatever way the test wants; counts how many calls are under way."""

    name = "fake"

    def __init__(self) -> None:
        self.answer: Callable[[], Awaitable[Booking]] = self.booked
        self.calls = self.under_way = self.under_way_max = 0

    async def query_payment(self, site: HospitalSite, confirm_no: str) -> Booking:
        self.calls += 1
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            return await self.answer()
        finally:
            self.under_way -= 1

    async def booked(self) -> Booking:
        return BOOKED

    async def silent(self) -> Booking:
        raise OutcomeUnknown("silence")

    async def unreachable(self) -> Booking:
        raise NotReached("refused connection")

    async def refuses(self) -> Booking:
        raise Refused("BILL_PAID")


class Guarded:
    def __init__(self, **settings: int | float) -> None:
        self.clock = ManualClock(MORNING)
        self.fake = FakeHospital()
        self.hospital = GuardedHospital(
            cast(Hospital, self.fake),
            self.clock,
            GuardSettings(**settings),  # type: ignore[arg-type]
        )

    async def ask(self, site: HospitalSite = SITE) -> Booking:
        return await self.hospital.query_payment(site, "C1")

    async def break_it(self, site: HospitalSite = SITE) -> None:
        self.fake.answer = self.fake.silent
        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await self.ask(site)


async def test_at_most_calls_max_are_under_way_and_the_others_wait_their_turn() -> None:
    guarded = Guarded()
    gate = asyncio.Event()

    async def slow() -> Booking:
        await gate.wait()
        return BOOKED

    guarded.fake.answer = slow
    site = replace(SITE, calls_max=3)
    asks = [asyncio.ensure_future(guarded.ask(site)) for _ in range(9)]
    await asyncio.sleep(0.01)
    assert guarded.fake.under_way == 3
    gate.set()
    assert await asyncio.gather(*asks) == [BOOKED] * 9
    assert guarded.fake.under_way_max == 3


async def test_a_cap_is_shared_by_the_programs() -> None:
    guarded = Guarded(processes=4)
    gate = asyncio.Event()

    async def slow() -> Booking:
        await gate.wait()
        return BOOKED

    guarded.fake.answer = slow
    asks = [asyncio.ensure_future(guarded.ask(replace(SITE, calls_max=8))) for _ in range(4)]
    await asyncio.sleep(0.01)
    assert guarded.fake.under_way == 2
    gate.set()
    await asyncio.gather(*asks)


async def test_who_finds_no_place_in_time_has_not_reached_it() -> None:
    guarded = Guarded(waiting_share=0.01)
    gate = asyncio.Event()

    async def slow() -> Booking:
        await gate.wait()
        return BOOKED

    guarded.fake.answer = slow
    site = replace(SITE, calls_max=1, deadline_seconds=2)
    first = asyncio.ensure_future(guarded.ask(site))
    await asyncio.sleep(0)
    with pytest.raises(NotReached, match=BUSY):
        await guarded.ask(site)
    assert guarded.fake.calls == 1
    gate.set()
    assert await first == BOOKED
    assert await guarded.ask(site) == BOOKED


async def test_more_than_a_crowd_is_turned_away_at_once() -> None:
    guarded = Guarded(waiting_max=1)
    gate = asyncio.Event()

    async def slow() -> Booking:
        await gate.wait()
        return BOOKED

    guarded.fake.answer = slow
    site = replace(SITE, calls_max=1)
    asks = [asyncio.ensure_future(guarded.ask(site)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NotReached, match=BUSY):
        await guarded.ask(site)
    gate.set()
    await asyncio.gather(*asks)


async def test_who_goes_away_while_waiting_or_calling_leaves_no_place_taken() -> None:
    guarded = Guarded()
    gate = asyncio.Event()

    async def slow() -> Booking:
        await gate.wait()
        return BOOKED

    guarded.fake.answer = slow
    site = replace(SITE, calls_max=1)
    calling, waiting, last = (asyncio.ensure_future(guarded.ask(site)) for _ in range(3))
    await asyncio.sleep(0.01)
    waiting.cancel()
    calling.cancel()
    for gone in (waiting, calling):
        with suppress(asyncio.CancelledError):
            await gone
    gate.set()
    assert await last == BOOKED
    assert await guarded.ask(site) == BOOKED


async def test_a_call_past_its_deadline_is_unknown() -> None:
    guarded = Guarded()

    async def forever() -> Booking:
        await asyncio.Event().wait()
        return BOOKED

    guarded.fake.answer = forever
    with pytest.raises(OutcomeUnknown):
        await guarded.hospital.query_payment(replace(SITE, deadline_seconds=cast(int, 0.02)), "C1")
    assert guarded.fake.under_way == 0


@pytest.mark.parametrize("way", ["silent", "unreachable"])
async def test_the_breaker_opens_after_silent_calls_in_a_row_and_says_until_when(way: str) -> None:
    guarded = Guarded()
    guarded.fake.answer = getattr(guarded.fake, way)
    for _ in range(5):
        assert guarded.hospital.opens_at(SITE) is None
        with pytest.raises((NotReached, OutcomeUnknown)):
            await guarded.ask()
    assert guarded.hospital.opens_at(SITE) == MORNING + timedelta(seconds=15)
    with pytest.raises(NotReached, match=BREAKER):
        await guarded.ask()
    assert guarded.fake.calls == 5


async def test_a_refusal_is_an_answer() -> None:
    guarded = Guarded()
    for way in (guarded.fake.silent, guarded.fake.refuses) * 10:
        guarded.fake.answer = way
        with pytest.raises((OutcomeUnknown, Refused)):
            await guarded.ask()
    assert guarded.hospital.opens_at(SITE) is None


async def test_one_hospitals_breaker_does_not_hold_another() -> None:
    guarded = Guarded()
    await guarded.break_it()
    guarded.fake.answer = guarded.fake.booked
    assert await guarded.ask(replace(SITE, id=UUID(int=99))) == BOOKED


async def test_one_call_tries_and_the_load_grows_again_slowly() -> None:
    guarded = Guarded()
    await guarded.break_it()
    guarded.clock.advance(timedelta(seconds=15))
    gate = asyncio.Event()

    async def slow() -> Booking:
        await gate.wait()
        return BOOKED

    guarded.fake.answer = slow
    probe = asyncio.ensure_future(guarded.ask())
    await asyncio.sleep(0)
    with pytest.raises(NotReached, match=BREAKER):  # while the probe is out, nobody else goes
        await guarded.ask()
    assert guarded.hospital.opens_at(SITE) == guarded.clock.now() + timedelta(seconds=1)
    gate.set()
    assert await probe == BOOKED
    assert guarded.hospital.opens_at(SITE) is None
    guarded.fake.under_way_max = 0
    gate.clear()
    asks = [asyncio.ensure_future(guarded.ask()) for _ in range(8)]
    await asyncio.sleep(0.01)
    assert guarded.fake.under_way == 1
    gate.set()
    await asyncio.gather(*asks)
    gate.clear()
    asks = [asyncio.ensure_future(guarded.ask()) for _ in range(8)]
    await asyncio.sleep(0.01)
    assert guarded.fake.under_way == 8
    gate.set()
    await asyncio.gather(*asks)


async def test_each_silent_probe_doubles_the_pause_up_to_a_bound() -> None:
    guarded = Guarded()
    await guarded.break_it()
    pauses = []
    for _ in range(7):
        opens_at = guarded.hospital.opens_at(SITE)
        assert opens_at is not None
        pauses.append((opens_at - guarded.clock.now()).seconds)
        guarded.clock.advance(opens_at - guarded.clock.now())
        with pytest.raises(OutcomeUnknown):
            await guarded.ask()
    assert pauses == [15, 30, 60, 120, 240, 300, 300]


async def test_a_silent_call_while_recovering_opens_it_at_once() -> None:
    guarded = Guarded()
    await guarded.break_it()
    guarded.clock.advance(timedelta(seconds=15))
    guarded.fake.answer = guarded.fake.booked
    await guarded.ask()
    guarded.fake.answer = guarded.fake.silent
    with pytest.raises(OutcomeUnknown):
        await guarded.ask()
    assert guarded.hospital.opens_at(SITE) == guarded.clock.now() + timedelta(seconds=30)


async def test_a_probe_whose_caller_goes_away_does_not_keep_the_breaker_shut() -> None:
    guarded = Guarded()
    await guarded.break_it()
    guarded.clock.advance(timedelta(seconds=15))

    async def forever() -> Booking:
        await asyncio.Event().wait()
        return BOOKED

    guarded.fake.answer = forever
    probe = asyncio.ensure_future(guarded.ask())
    await asyncio.sleep(0)
    probe.cancel()
    with suppress(asyncio.CancelledError):
        await probe
    guarded.fake.answer = guarded.fake.booked
    assert await guarded.ask() == BOOKED


async def test_calls_sent_before_the_opening_neither_close_nor_open_it_again() -> None:
    guarded = Guarded()
    gate = asyncio.Event()

    async def late() -> Booking:
        await gate.wait()
        return BOOKED

    guarded.fake.answer = late
    early = asyncio.ensure_future(guarded.ask())
    await asyncio.sleep(0)
    await guarded.break_it()
    opens_at = guarded.hospital.opens_at(SITE)
    gate.set()
    assert await early == BOOKED
    assert guarded.hospital.opens_at(SITE) == opens_at


async def test_who_waits_when_the_breaker_opens_is_told_at_once() -> None:
    guarded = Guarded(silent_calls_max=1)
    gate = asyncio.Event()

    async def dies() -> Booking:
        await gate.wait()
        raise OutcomeUnknown("silence")

    guarded.fake.answer = dies
    site = replace(SITE, calls_max=1)
    first, second = (asyncio.ensure_future(guarded.ask(site)) for _ in range(2))
    await asyncio.sleep(0.01)
    gate.set()
    with pytest.raises(OutcomeUnknown):
        await first
    with pytest.raises(NotReached, match=BREAKER):
        await second
    assert guarded.fake.calls == 1


async def test_during_maintenance_nothing_is_sent() -> None:
    guarded = Guarded()
    site = replace(SITE, maintenance=(("09:50", "10:30"),))  # it is ten in Shanghai
    with pytest.raises(NotReached, match=MAINTENANCE):
        await guarded.ask(site)
    assert guarded.fake.calls == 0
    assert guarded.hospital.opens_at(site) == MORNING + timedelta(minutes=30)
    guarded.clock.advance(timedelta(minutes=30))
    assert await guarded.ask(site) == BOOKED


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).astimezone(UTC)


@pytest.mark.parametrize(
    ("windows", "now", "ends"),
    [
        ([("23:30", "00:30")], "2026-05-06T23:29:59", None),
        ([("23:30", "00:30")], "2026-05-06T23:30", "2026-05-07T00:30"),
        ([("23:30", "00:30")], "2026-05-07T00:29:59", "2026-05-07T00:30"),
        ([("23:30", "00:30")], "2026-05-07T00:30", None),
        ([("02:00", "03:00"), ("03:00", "04:00")], "2026-05-07T02:10", "2026-05-07T04:00"),
        ([("02:00", "03:00"), ("02:30", "05:00")], "2026-05-07T02:40", "2026-05-07T05:00"),
        ([("02:00", "02:00")], "2026-05-07T02:00", None),
        ([], "2026-05-07T02:00", None),
    ],
)
def test_maintenance_is_daily_in_hospital_time(windows: list[tuple[str, str]], now: str, ends: str | None) -> None:
    assert maintenance_ends(windows, _at(now)) == (_at(ends) if ends else None)


def test_a_window_that_is_no_time_is_a_setting_to_correct() -> None:
    with pytest.raises(ConfigurationError):
        maintenance_ends([("25:00", "26:00")], MORNING)
