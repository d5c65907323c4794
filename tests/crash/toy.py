"""A workload without business: transactions that wait for each other, in rings too, under crashes.

It proves the scheduler on the real schema: same seed, same run, same rows.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from uuid import UUID

import asyncpg
from tortoise.exceptions import IntegrityError
from tortoise.expressions import F
from tortoise.transactions import in_transaction

from core.errors import ServiceUnavailable
from core.ids import Ids
from core.models import Institution, UnverifiedInbound
from simulators.kit import ConnectionLost, NeverConnected
from tests.crash.database import Postgres
from tests.crash.programs import Program
from tests.crash.scheduler import Life, Scheduler

ROWS = 3
WRITERS = 4
ROUNDS = 3
ACCOUNT = UUID(int=7)


def row_id(number: int) -> UUID:
    return UUID(int=1000 + number)


async def run(scheduler: Scheduler, postgres: Postgres) -> None:
    """Programs that update the same few rows in any order and race for the same unique keys."""
    stream = random.Random(scheduler.seed)
    ids = Ids(scheduler.clock, stream.randbytes)

    async def main(life: Life) -> None:
        life.things["ready"] = True

    async def set_up(life: Life) -> None:
        for number in range(ROWS):
            await Institution.get_or_create(
                id=row_id(number),
                defaults={"code": f"T{number}", "name_zh": "甲", "created_at": scheduler.clock.now()},
            )

    async def write(life: Life, choice: random.Random, name: str) -> None:
        async with in_transaction():
            for number in choice.sample(range(ROWS), 2):
                row = await Institution.select_for_update(no_key=True).get(id=row_id(number))
                row.phone = f"{int(row.phone or 0) + 1}"
                await row.save(update_fields=["phone"])
            if choice.random() < 0.6:
                await UnverifiedInbound.create(
                    id=ids.uuid(),
                    source="toy",
                    account_id=ACCOUNT,
                    slot=choice.randrange(4),
                    digest=name,
                    head=b"",
                    reason="",
                    received_at=scheduler.clock.now(),
                )
            if choice.random() < 0.1:
                await asyncio.sleep(5)  # what a program must not do: others run into lock_timeout
        await Institution.filter(id=row_id(0)).update(name_en=F("name_zh"))

    async def writer(number: int, programs: list[Program]) -> None:
        choice = random.Random(f"{scheduler.seed}/{number}")
        for turn in range(ROUNDS):
            await asyncio.sleep(choice.choice((0.0, 0.001, 1.0)))
            name = f"{number}/{turn}"
            work = partial(write, choice=choice, name=name)
            try:
                await choice.choice(programs).call(work, key=name)
                scheduler.counts["written"] += 1
            except (NeverConnected, ConnectionLost) as error:
                scheduler.counts[type(error).__name__] += 1
            except (asyncpg.PostgresError, asyncpg.InterfaceError, IntegrityError, ServiceUnavailable) as error:
                scheduler.counts[type(error).__name__] += 1

    programs = [Program(scheduler, postgres, name, main) for name in ("one", "two")]
    for program in programs:
        program.start()
    while True:
        try:
            await programs[0].call(set_up, key="set up")
        except (NeverConnected, ConnectionLost, asyncpg.PostgresError, asyncpg.InterfaceError, ServiceUnavailable):
            await asyncio.sleep(1)
        else:
            break
    await asyncio.gather(*(writer(number, programs) for number in range(WRITERS)))
