"""One seed, start to end: what is run, and what came of it."""

from __future__ import annotations

import asyncio
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import uvloop

from tests.crash.hospital_day import AFTERWARDS_SECONDS
from tests.crash.oracle import count, judge, judge_cases
from tests.kills.machines import Machines
from tests.kills.people import visits
from tests.kills.town import Town

PATIENCE = timedelta(hours=2)  # then staff look at their cases
LONGEST = timedelta(days=4)  # the slowest refund takes two
REAL_SECONDS_MAX = 300.0


@dataclass(slots=True)
class Result:
    """What one seed gave; crosses process borders as JSON."""

    seed: int
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    trace: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run_seed(machines: Machines, seed: int, *, mutation: str = "") -> Result:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(machines, seed, mutation))


async def _run(machines: Machines, seed: int, mutation: str) -> Result:
    began = time.monotonic()
    result = Result(seed)
    town: Town | None = None
    wrong: list[str] = []
    whole = False
    try:
        async with asyncio.timeout(REAL_SECONDS_MAX), Town.open(machines, seed, mutation=mutation) as town:
            wrong = await _a_day(town)
            whole = True
    except TimeoutError:
        wrong = [f"the day has not ended after {REAL_SECONDS_MAX:g} s"]
    except Exception:
        wrong = [traceback.format_exc()]
    if town is not None:
        town.read_log()
        if whole:
            wrong += judge(town.world)
        count(town.world)
        if wrong:
            town.write_rows_down()
        result.counts = dict(sorted(town.ground.counts.items()))
        result.trace = [f"seed {seed}", *town.plan.lines(), *town.lines, *(f"WRONG {sentence}" for sentence in wrong)]
        town.log.unlink(missing_ok=True)
    result.failure = "\n".join(wrong)
    result.seconds = time.monotonic() - began
    return result


async def _a_day(town: Town) -> list[str]:
    """Everything that staff should and should not find in their case list; the rest is judged when all are dead."""
    forgetting = asyncio.ensure_future(town.forgettings())
    await visits(town)
    await town.sleep(town.draw("evening").choice(AFTERWARDS_SECONDS))
    await forgetting
    town.becomes_calm()
    town.note("", "everything is calm")
    await town.pace.rest(PATIENCE)
    town.note("", "staff look at their cases")
    wrong = judge_cases(town.world)
    town.world.staff()
    await town.pace.rest(LONGEST)
    town.note("", "the end")
    return wrong
