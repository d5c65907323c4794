"""One seed, start to end: what is run, and what came of it."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.crash import hospital_day, toy
from tests.crash.database import Postgres
from tests.crash.loop import VirtualLoop
from tests.crash.scheduler import Chaos, Failure, Scheduler, Trace

Run = Callable[[Scheduler, Postgres], Awaitable[None]]


@dataclass(slots=True)
class Result:
    """What one seed gave; crosses process borders as JSON."""

    seed: int
    digest: str = ""
    seconds: float = 0.0
    steps: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    failure: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world to run: `run` builds it, lets it go on and judges it; it raises Failure."""

    name: str
    run: Run
    chaos: Callable[[int], Chaos]
    prepare: Callable[[VirtualLoop, Postgres], None] = lambda loop, postgres: None


DAY = Scenario("day", hospital_day.run, lambda seed: Chaos(seed=seed), hospital_day.prepare)
TOY = Scenario("toy", toy.run, lambda seed: Chaos(seed=seed, crash=0.01, lose=0.01))


def run_seed(
    scenario: Scenario, bench: tuple[VirtualLoop, Postgres], seed: int, *, trace: Trace | None = None
) -> Result:
    """Run one seed in an empty database."""
    loop, postgres = bench
    scenario.prepare(loop, postgres)
    started = time.perf_counter()
    postgres.empty()
    scheduler = Scheduler(loop, postgres, seed=seed, chaos=scenario.chaos(seed), trace=trace)
    result = Result(seed)
    try:
        scheduler.run(scenario.run(scheduler, postgres))  # type: ignore[arg-type]
    except Failure as failure:
        result.failure = str(failure)
    except Exception:
        result.failure = traceback.format_exc()
    result.digest = scheduler.trace.digest()
    result.steps = scheduler.trace.steps
    result.counts = dict(sorted(Counter(scheduler.counts).items()))
    result.seconds = time.perf_counter() - started
    return result
