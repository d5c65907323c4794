"""What kind of day a seed is: which HIS, how many programs, what goes wrong and how often."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from simulators.faults import Fault
from tests.crash.network import Weather
from tests.crash.scheduler import Chaos

TIMES = {
    "hospital.books_slowly": 4.0,  # what tempts a hurried program to send twice
    "wechatpay.refund_slow": 0.1,  # days of waiting
    "hospital.not_reached": 0.3,  # these strike every question too, and nobody pays at a HIS that never answers
    "hospital.request_lost": 0.3,
    "hospital.answer_lost": 0.5,
    "hospital.error_500": 0.3,
    "hospital.answer_garbled": 0.3,
    "hospital.answer_unsigned": 0.3,
    "hospital.answer_forged": 0.3,
    "hospital.answer_of_another_request": 0.3,
    "hospital.outcome_unknown_word": 0.3,
    "hospital.login_page": 0.3,
}

REFUND_CALLS = frozenset({"confirm_refund", "refund_repeated", "query_red_receipt"})
"""What strikes only refunds is drawn apart: the rest of a day does not change with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """All that is drawn once for a seed."""

    seed: int
    servers: int
    workers: int
    visits: int
    merge: bool
    insured: bool
    no_lock: bool
    no_events: bool
    weak: bool
    confirm_unit: str
    lock_seconds: int
    polls: bool
    refund_delay_seconds: int
    meddling: float  # how often the hospital does something with a bill that is being paid
    rivals: float  # how often somebody else pays the same bill too, or the same person on another device
    wrong_amounts: float  # how often the channel takes another amount than it was asked for
    outages: int  # how often the database restarts
    forgettings: int  # how often Redis is emptied
    revivals: float  # how often the channel lets a closed order be paid all the same
    chats: float  # how often somebody asks in the chat about a visit
    strangers: float  # how often a bill is paid by somebody who has only the paper
    paper_code: str
    paper_factor: str
    refund_approve_above_fen: int
    refund_daily_cap_fen: int
    step_microseconds: tuple[int, int]
    chaos: Chaos
    weather: Weather
    rates: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, catalogue: Iterable[Fault]) -> Day:
        draw = random.Random(f"{seed}/day")
        severity = draw.choice((0.0, 0.02, 0.05, 0.1, 0.2))
        crashes = draw.choice((0.0, 0.0015, 0.003, 0.006))
        rates = {}
        counter = random.Random(f"{seed}/counter of the day")
        faults = sorted(catalogue, key=lambda fault: fault.name)
        of_refunds = [fault for fault in faults if fault.calls and fault.calls <= REFUND_CALLS]
        for fault in of_refunds:
            if counter.random() < 0.5:
                rates[fault.name] = severity * counter.random() * 3
        for fault in [fault for fault in faults if fault not in of_refunds]:
            share = draw.random()
            strikes = draw.random() < 0.4
            if strikes and severity:
                rates[fault.name] = severity * share * TIMES.get(fault.name, 1.0)
        no_lock = draw.random() < 0.15
        return cls(
            seed=seed,
            servers=draw.choice((1, 2)),
            workers=draw.choice((1, 2)),
            visits=draw.randint(1, 2),
            merge=draw.random() < 0.4,
            insured=draw.random() < 0.2,
            no_lock=no_lock,
            no_events=draw.random() < 0.2,
            weak=draw.random() < 0.4,
            confirm_unit=draw.choice(("bill", "bill", "visit", "payment")),
            lock_seconds=draw.choice((900, 900, 420, 240)),
            polls=draw.random() < 0.1,
            refund_delay_seconds=draw.choice((5, 30, 600)),
            meddling=draw.choice((0.0, 0.2, 0.5)),
            rivals=draw.choice((0.1, 0.4, 0.8)),
            wrong_amounts=draw.choice((0.0, 0.0, 0.05)),
            outages=draw.choice((0, 0, 0, 1, 2)),
            forgettings=draw.choice((0, 0, 1, 3)),
            revivals=draw.choice((0.0, 0.5, 1.0)),
            chats=draw.choice((0.0, 0.5, 1.0)),
            strangers=draw.choice((0.0, 0.3, 0.6)),
            paper_code=draw.choice(("his_makes", "his_asks", "barcode")),
            paper_factor=draw.choice(("last_four", "last_four", "none")),
            refund_approve_above_fen=counter.choice((0, 1500, 10_000_000)),
            refund_daily_cap_fen=counter.choice((10_000_000, 10_000_000, 1500)),
            step_microseconds=draw.choice(((50, 500), (500, 20_000))),
            chaos=Chaos(
                seed=seed,
                crash=crashes,
                lose=draw.choice((0.0, 0.0, 0.002)),
                stall=draw.choice((0.0, 0.0, 0.002)),
            ),
            weather=Weather(
                quick_seconds=draw.choice(((0.0, 0.002), (0.004, 0.12))),
                slow=draw.choice((0.0, 0.02, 0.1)),
                slow_seconds_max=draw.choice((3.0, 15.0, 40.0, 280.0)),
            ),
            rates=rates,
        )
