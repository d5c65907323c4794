"""Keeps a slow or silent HIS from holding everything else: a wrapper around any hospital adapter.

Per site: at most `calls_max` calls at once, one deadline for each call, daily maintenance hours, and a
circuit breaker that opens after a few silent calls, tries one call after a while, and lets the load grow
again slowly. A call that is held back raises NotReached at once: nothing was sent, and `opens_at` says when
it is worth trying again. The deadline runs on the event loop; every other time comes from the Clock.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from core.clock import Clock, shanghai
from core.errors import ConfigurationError, NotReached, OutcomeUnknown, Refused
from core.ports import (
    Acknowledgement,
    Bill,
    BookedBill,
    Booking,
    ConfirmOrder,
    Hospital,
    HospitalEvent,
    HospitalPatient,
    HospitalSite,
    Identifier,
    LinkRefusal,
    LinkRequest,
    LockGrant,
    LockOrder,
    LockState,
    PaidPage,
    PaidRecord,
    RedReceipt,
    RefundableBill,
    Reversal,
    ReverseOrder,
    Unverified,
)

MAINTENANCE, BREAKER, BUSY = "maintenance", "breaker", "busy"
"""The texts of NotReached when the guard itself holds a call back."""

_Result = TypeVar("_Result")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardSettings:
    silent_calls_max: int = 5  # that many in a row open the breaker
    open_seconds: int = 15  # the first time; doubled each time the probe stays silent
    open_seconds_max: int = 300
    waiting_share: float = 0.5  # of the deadline may be spent waiting for a free place
    waiting_max: int = 64  # calls waiting for a place at one site; more are turned away at once
    processes: int = 1  # how many programs share a site's calls_max


class GuardedHospital:
    """A Hospital that fulfils the port by another one, within the site's limits."""

    def __init__(self, hospital: Hospital, clock: Clock, settings: GuardSettings | None = None) -> None:
        self._hospital = hospital
        self._clock = clock
        self._settings = settings or GuardSettings()
        self._lines: dict[UUID, _Line] = {}
        self.name = hospital.name

    def opens_at(self, site: HospitalSite) -> datetime | None:
        """When calls to this site are worth trying again; None when they are now."""
        now = self._clock.now()
        maintenance = maintenance_ends(site.maintenance, now)
        broken = self._line(site).broken_until(now)
        return max((moment for moment in (maintenance, broken) if moment is not None), default=None)

    def paper_key(self, site: HospitalSite) -> bytes:
        return self._hospital.paper_key(site)

    async def find_patients(self, site: HospitalSite, identifier: Identifier) -> tuple[HospitalPatient, ...]:
        return await self._guarded(site, lambda: self._hospital.find_patients(site, identifier))

    async def get_patient(self, site: HospitalSite, his_patient_id: str) -> HospitalPatient | None:
        return await self._guarded(site, lambda: self._hospital.get_patient(site, his_patient_id))

    async def list_bills(self, site: HospitalSite, his_patient_id: str) -> tuple[Bill, ...]:
        return await self._guarded(site, lambda: self._hospital.list_bills(site, his_patient_id))

    async def list_new_bills(self, site: HospitalSite, since: datetime, until: datetime) -> tuple[Bill, ...]:
        return await self._guarded(site, lambda: self._hospital.list_new_bills(site, since, until))

    async def get_bill(self, site: HospitalSite, his_bill_id: str) -> Bill | None:
        return await self._guarded(site, lambda: self._hospital.get_bill(site, his_bill_id))

    async def lock_bills(self, site: HospitalSite, order: LockOrder) -> LockGrant:
        return await self._guarded(site, lambda: self._hospital.lock_bills(site, order))

    async def query_lock(self, site: HospitalSite, confirm_no: str) -> LockState:
        return await self._guarded(site, lambda: self._hospital.query_lock(site, confirm_no))

    async def release_lock(self, site: HospitalSite, confirm_no: str) -> None:
        return await self._guarded(site, lambda: self._hospital.release_lock(site, confirm_no))

    async def confirm_payment(self, site: HospitalSite, order: ConfirmOrder) -> Booking:
        return await self._guarded(site, lambda: self._hospital.confirm_payment(site, order))

    async def query_payment(self, site: HospitalSite, confirm_no: str) -> Booking:
        return await self._guarded(site, lambda: self._hospital.query_payment(site, confirm_no))

    async def list_paid(
        self, site: HospitalSite, his_patient_id: str, since: datetime, until: datetime
    ) -> tuple[PaidRecord, ...]:
        return await self._guarded(site, lambda: self._hospital.list_paid(site, his_patient_id, since, until))

    async def statement(self, site: HospitalSite, since: datetime, until: datetime, page: int) -> PaidPage:
        return await self._guarded(site, lambda: self._hospital.statement(site, since, until, page))

    async def refund_check(
        self, site: HospitalSite, his_patient_id: str, bills: Sequence[BookedBill]
    ) -> tuple[RefundableBill, ...]:
        return await self._guarded(site, lambda: self._hospital.refund_check(site, his_patient_id, bills))

    async def confirm_refund(self, site: HospitalSite, order: ReverseOrder) -> Reversal:
        return await self._guarded(site, lambda: self._hospital.confirm_refund(site, order))

    async def query_refund(self, site: HospitalSite, refund_no: str) -> Reversal:
        return await self._guarded(site, lambda: self._hospital.query_refund(site, refund_no))

    async def query_red_receipt(self, site: HospitalSite, red_receipt_no: str) -> RedReceipt:
        return await self._guarded(site, lambda: self._hospital.query_red_receipt(site, red_receipt_no))

    async def read_event(
        self, site: HospitalSite, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> HospitalEvent | Unverified:
        return await self._hospital.read_event(site, headers, body, now)

    def acknowledge(self, *, accepted: bool) -> Acknowledgement:
        return self._hospital.acknowledge(accepted=accepted)

    async def read_link_request(
        self, site: HospitalSite, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> LinkRequest | Unverified:
        return await self._hospital.read_link_request(site, headers, body, now)

    def answer_link_request(
        self, site: HospitalSite, headers: Mapping[str, str], said: Mapping[str, str] | LinkRefusal, now: datetime
    ) -> Acknowledgement:
        return self._hospital.answer_link_request(site, headers, said, now)

    async def check(self, site: HospitalSite) -> str:
        """An operator's question goes through whatever the breaker and the maintenance hours say."""
        return await self._hospital.check(site)

    async def _guarded(self, site: HospitalSite, call: Callable[[], Awaitable[_Result]]) -> _Result:
        if maintenance_ends(site.maintenance, self._clock.now()) is not None:
            raise NotReached(MAINTENANCE)
        line = self._line(site)
        ends_at = asyncio.get_running_loop().time() + site.deadline_seconds
        async with line.place(site.deadline_seconds * self._settings.waiting_share) as admitted:
            try:
                async with asyncio.timeout_at(ends_at):
                    result = await call()
            except Refused:
                line.heard(admitted)
                raise
            except (NotReached, OutcomeUnknown):
                line.silent(admitted, self._clock.now())
                raise
            except TimeoutError as error:
                line.silent(admitted, self._clock.now())
                raise OutcomeUnknown("no answer within the deadline") from error
            line.heard(admitted)
            return result

    def _line(self, site: HospitalSite) -> _Line:
        line = self._lines.get(site.id)
        if line is None:
            line = self._lines[site.id] = _Line(clock=self._clock, settings=self._settings)
        line.calls_max = max(1, site.calls_max // self._settings.processes)
        return line


def check_maintenance(windows: Sequence[tuple[str, str]]) -> None:
    """Raises ConfigurationError for a window that cannot be read."""
    for window in windows:
        for text in window:
            _minutes(text)


def maintenance_ends(windows: Sequence[tuple[str, str]], now: datetime) -> datetime | None:
    """When the maintenance that is going on now ends; None outside. Windows that touch count as one.

    A window is ("HH:MM", "HH:MM") in hospital time, its end not included; it may pass midnight.
    """
    moment = now
    for _ in windows:
        ends = [end for window in windows if (end := _window_ends(window, moment)) is not None]
        if not ends:
            break
        moment = max(ends)
    return moment if moment > now else None


def _window_ends(window: tuple[str, str], now: datetime) -> datetime | None:
    start, end = (_minutes(text) for text in window)
    local = shanghai(now)
    minute = local.hour * 60 + local.minute
    inside = start <= minute < end if start <= end else minute >= start or minute < end
    if not inside:
        return None
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    ends = midnight + timedelta(minutes=end, days=1 if minute >= end else 0)
    return ends.astimezone(now.tzinfo)


def _minutes(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"a maintenance window is written as two times HH:MM, not {text!r}")
    return int(match[1]) * 60 + int(match[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Admitted:
    """A call that may go; `era` is the breaker's count of openings when it went."""

    era: int
    probe: bool


@dataclass(kw_only=True, slots=True)
class _Line:
    """The state of one site: who is calling, who waits, and the breaker."""

    clock: Clock
    settings: GuardSettings
    calls_max: int = 1
    running: int = 0
    waiting: deque[asyncio.Future[bool]] = field(default_factory=deque)  # True: go; False: the breaker opened
    silent_in_a_row: int = 0
    open_until: datetime | None = None  # set while the breaker is open or half open
    probing: bool = False
    ramp: int | None = None  # places while the load grows again; None: all of them
    openings: int = 0  # in a row, without a full recovery between
    era: int = 0

    def broken_until(self, now: datetime) -> datetime | None:
        if self.open_until is None:
            return None
        if self.probing:
            return max(self.open_until, now + timedelta(seconds=1))
        return self.open_until if now < self.open_until else None

    @asynccontextmanager
    async def place(self, wait_seconds: float) -> AsyncIterator[_Admitted]:
        """Hold a place for one call. Raises NotReached when the breaker or the crowd says no."""
        if self.broken_until(self.clock.now()) is not None:
            raise NotReached(BREAKER)
        if self.open_until is not None:
            self.probing = True
            self.running += 1
            admitted = _Admitted(era=self.era, probe=True)
        else:
            await self._take(wait_seconds)
            admitted = _Admitted(era=self.era, probe=False)
        try:
            yield admitted
        finally:
            if admitted.probe and admitted.era == self.era:
                self.probing = False  # also when the caller went away before the answer
            self._give_back()

    def heard(self, admitted: _Admitted) -> None:
        """The HIS answered."""
        if admitted.era != self.era:
            return  # sent before the breaker opened: says nothing about now
        self.silent_in_a_row = 0
        if admitted.probe:
            self.open_until, self.probing, self.ramp = None, False, 1
        elif self.ramp is not None:
            self.ramp += 1
        if self.ramp is not None and self.ramp >= self.calls_max:
            self.ramp, self.openings = None, 0
        self._wake()

    def silent(self, admitted: _Admitted, now: datetime) -> None:
        """The HIS did not answer, or in words that prove nothing."""
        if admitted.era != self.era:
            return
        self.silent_in_a_row += 1
        recovering = admitted.probe or self.ramp is not None
        if not recovering and self.silent_in_a_row < self.settings.silent_calls_max:
            return
        pause_seconds = min(self.settings.open_seconds << min(self.openings, 16), self.settings.open_seconds_max)
        self.open_until = now + timedelta(seconds=pause_seconds)
        self.openings += 1
        self.era += 1
        self.silent_in_a_row, self.probing, self.ramp = 0, False, None
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(False)

    async def _take(self, wait_seconds: float) -> None:
        if self.running < self._places() and not self.waiting:
            self.running += 1
            return
        if len(self.waiting) >= self.settings.waiting_max:
            raise NotReached(BUSY)
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        try:
            async with asyncio.timeout(wait_seconds):
                may_go = await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._give_back()  # the place came in the same instant in which we went away
            elif waiter in self.waiting:
                self.waiting.remove(waiter)
            if isinstance(error, TimeoutError):
                raise NotReached(BUSY) from error
            raise
        if not may_go:
            raise NotReached(BREAKER)

    def _give_back(self) -> None:
        self.running -= 1
        self._wake()

    def _wake(self) -> None:
        while self.waiting and self.running < self._places():
            waiter = self.waiting.popleft()
            if not waiter.done():
                self.running += 1
                waiter.set_result(True)

    def _places(self) -> int:
        return self.calls_max if self.ramp is None else min(self.ramp, self.calls_max)
