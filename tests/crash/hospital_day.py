"""The scenario: a day in a hospital, then people do what only people can, then all must be well."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta

from tests.crash.clerks import at_the_counter, in_the_evening, told_again
from tests.crash.database import Postgres
from tests.crash.loop import VirtualLoop
from tests.crash.oracle import count, judge, judge_cases
from tests.crash.people import visits
from tests.crash.scheduler import Failure, Scheduler
from tests.crash.world import SAME_EVERY_DAY, STAGE, MistakesLogged, World

PATIENCE = timedelta(hours=2)  # then staff look at their cases
LONGEST = timedelta(days=4)  # the slowest refund takes two
AFTERWARDS_SECONDS = (0, 60, 600, 3600)  # so long things still go wrong when everybody has gone home


def prepare(loop: VirtualLoop, postgres: Postgres) -> None:
    """What all days have in common, once per process."""
    if STAGE not in postgres.stages:
        postgres.stages[STAGE] = World.stage(Scheduler(loop, postgres, seed=SAME_EVERY_DAY), postgres)


async def run(scheduler: Scheduler, postgres: Postgres) -> None:
    """Raises Failure with everything that is not as it must be."""
    world = World.build(scheduler, postgres)
    log = logging.getLogger()
    handler = MistakesLogged(world)
    log.addHandler(handler)
    try:
        world.furnish()
        world.deliver()
        world.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(world.house())
            group.create_task(visits(world))
            group.create_task(at_the_counter(world))
        await asyncio.sleep(random.Random(f"{world.day.seed}/evening").choice(AFTERWARDS_SECONDS))
        world.calm()
        await world.rest(PATIENCE)
        wrong = judge_cases(world)
        world.staff()
        told_again(world)
        await world.rest(PATIENCE)
        await in_the_evening(world)
        await world.rest(LONGEST)
    finally:
        log.removeHandler(handler)
        count(world)
    wrong += judge(world)
    if wrong:
        raise Failure("\n".join(wrong))
