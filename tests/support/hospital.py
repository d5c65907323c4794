"""A simulated HIS and our adapter to it, with valid orders that a test changes in one place."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from core.money import Fen
from core.ports import (
    ConfirmLine,
    ConfirmOrder,
    HospitalCapabilities,
    HospitalSite,
    LockGrant,
    LockOrder,
)
from hospital.rest import RestHospital
from simulators.clock import ManualClock
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from tests.support.transports import WatchedTransport
from wire.http import HttpReply, HttpRequest, Transport

MORNING = datetime(2026, 5, 6, 2, 0, tzinfo=UTC)  # ten o'clock in Shanghai
ELDER, MOTHER, INFANT, LABOURER = "P10001", "P10002", "P10003", "P10005"
EVENTS_URL = "http://127.0.0.1:1/his/v1/events"


class Line(WatchedTransport):
    """A watched line on which something can be arranged to happen between two exchanges."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._between: Callable[[], None] | None = None

    def after_next(self, happen: Callable[[], None]) -> None:
        """Run this once the next exchange is over."""
        self._between = happen

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        between, self._between = self._between, None
        try:
            return await super().send(request, deadline_seconds=deadline_seconds)
        finally:
            if between is not None:
                between()


@dataclass(kw_only=True)
class Connected:
    """One hospital as a test sees it: their books, our adapter, the site, what went over the line."""

    clock: ManualClock
    simulator: HospitalSimulator
    hospital: RestHospital
    line: Line
    site: HospitalSite
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def a_confirm_no(self) -> str:
        return f"C{next(self._numbers):025d}"

    def a_lock_order(self, *bill_ids: str, confirm_no: str = "", patient: str = LABOURER) -> LockOrder:
        return LockOrder(
            confirm_no=confirm_no or self.a_confirm_no(),
            his_patient_id=patient,
            his_bill_ids=bill_ids,
            until=self.clock.now() + timedelta(minutes=8),
        )

    def a_confirm_order(
        self, confirm_no: str, amounts: dict[str, Fen], *, lock_id: str = "", patient: str = LABOURER
    ) -> ConfirmOrder:
        return ConfirmOrder(
            confirm_no=confirm_no,
            lock_id=lock_id,
            his_patient_id=patient,
            lines=tuple(ConfirmLine(his_bill_id=bill, amount_fen=fen) for bill, fen in amounts.items()),
            order_no="P" + confirm_no[1:],
            method="wechatpay/miniprogram/wechat",
            channel_trade_no="4200" + confirm_no[1:],
            paid_at=self.clock.now(),
        )

    async def a_locked_bill(self, bill_id: str = "") -> tuple[str, LockGrant, ConfirmOrder]:
        """A fresh bill, locked for us, and the order that would book it."""
        bill_id = bill_id or self.simulator.issue_bill(LABOURER, total_fen=3210)
        order = self.a_lock_order(bill_id)
        grant = await self.hospital.lock_bills(self.site, order)
        amounts = dict(grant.amounts_fen)
        return bill_id, grant, self.a_confirm_order(order.confirm_no, amounts, lock_id=grant.lock_id)

    def times_booked(self, bill_id: str) -> int:
        booked = self.simulator.books()["bills"][bill_id]["times_booked"]
        assert isinstance(booked, int)
        return booked


def a_simulator(clock: ManualClock, *, seed: int = 7, **options: Any) -> HospitalSimulator:
    faults = Faults(seed=seed)
    return HospitalSimulator(clock=clock, faults=faults, seed=seed, events_url=EVENTS_URL, **options)


def a_site(simulator: HospitalSimulator, base_url: str, **changes: object) -> HospitalSite:
    values: dict[str, Any] = {
        "id": UUID(int=0x51),
        "institution_id": UUID(int=0x11),
        "branch": "main",
        "adapter": "rest",
        "base_url": base_url,
        "params": {"key_id": simulator.key_id, "secret": simulator.keys[simulator.key_id]},
        "capabilities": HospitalCapabilities(
            lock=not simulator.no_lock,
            events=not simulator.no_events,
            refund_check=not simulator.no_refund,
            refund=not simulator.no_refund,
            refund_query=not simulator.no_refund,
            partial_refund=not simulator.no_refund,
            statement=True,
        ),
        **changes,
    }
    return HospitalSite(**values)


def counted_nonces() -> Callable[[], str]:
    """Nonces that are the same in every run."""
    numbers = itertools.count(1)
    return lambda: f"nonce-{next(numbers):026d}"


def connect(simulator: HospitalSimulator, clock: ManualClock, transport: Transport, base_url: str) -> Connected:
    line = Line(transport)
    return Connected(
        clock=clock,
        simulator=simulator,
        line=line,
        hospital=RestHospital(line, clock, counted_nonces()),
        site=a_site(simulator, base_url),
    )
