"""What kind of day a seed is: which HIS, how many programs, what goes wrong and how often."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from simulators.faults import Fault
from tests.crash.network import Weather
from tests.crash.scheduler import Chaos

ALONE = 0.25  # this part of the days has no faults but crashes, and no crashes but faults
SLOW_NAMES = frozenset({"wechatpay.refund_slow"})  # days of waiting: rarely


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
    chaos: Chaos
    weather: Weather
    rates: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, catalogue: Iterable[Fault]) -> Day:
        draw = random.Random(f"{seed}/day")
        severity = draw.choice((0.0, 0.02, 0.05, 0.1, 0.2))
        crashes = draw.choice((0.0, 0.002, 0.004, 0.01))
        rates = {}
        for fault in sorted(catalogue, key=lambda fault: fault.name):
            share = draw.random()
            strikes = draw.random() < 0.4
            if strikes and severity:
                rates[fault.name] = severity * share * (0.1 if fault.name in SLOW_NAMES else 1.0)
        no_lock = draw.random() < 0.15
        return cls(
            seed=seed,
            servers=draw.choice((1, 1, 2)),
            workers=draw.choice((1, 2)),
            visits=draw.randint(3, 6),
            merge=draw.random() < 0.4,
            insured=draw.random() < 0.2,
            no_lock=no_lock,
            no_events=draw.random() < 0.2,
            weak=draw.random() < 0.4,
            confirm_unit=draw.choice(("bill", "bill", "visit", "payment")),
            lock_seconds=draw.choice((900, 900, 420, 240)),
            polls=draw.random() < 0.1,
            refund_delay_seconds=draw.choice((5, 30, 600)),
            meddling=draw.choice((0.0, 0.1, 0.3)),
            chaos=Chaos(seed=seed, crash=crashes, lose=draw.choice((0.0, 0.0, 0.002))),
            weather=Weather(slow=draw.choice((0.0, 0.02, 0.1)), slow_seconds_max=draw.choice((3.0, 15.0, 40.0))),
            rates=rates,
        )
