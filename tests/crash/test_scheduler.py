"""The same seed is the same run again, lock waits, rings, crashes and lost connections included."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from uuid import UUID

import pytest
from tortoise.transactions import in_transaction

from core.models import Institution
from simulators.kit import ConnectionLost
from tests.crash import toy
from tests.crash.programs import Program
from tests.crash.scheduler import Chaos, Failure, Scheduler, Trace

pytestmark = [pytest.mark.crash, pytest.mark.database]
SEEDS = range(8)


def a_run(bench, seed):
    loop, server = bench
    server.empty()
    scheduler = Scheduler(
        loop, server, seed=seed, chaos=Chaos(seed=seed, crash=0.01, lose=0.01), trace=Trace(keep=True)
    )
    scheduler.run(toy.run(scheduler, server))
    return scheduler, server.dump()


def test_a_seed_run_twice_gives_the_same_steps_and_the_same_rows(bench):
    seen: Counter[str] = Counter()
    digests = set()
    first = [a_run(bench, seed) for seed in SEEDS]
    for seed, (before, rows) in zip(SEEDS, first, strict=True):
        again, rows_again = a_run(bench, seed)
        assert again.trace.lines == before.trace.lines
        assert again.trace.digest() == before.trace.digest()
        assert again.counts == before.counts
        assert rows_again == rows
        seen += before.counts
        digests.add(before.trace.digest())
    assert len(digests) == len(SEEDS)
    for event in ("lock waits", "deadlock", "lock_timeout", "crashes", "connections lost", "written", "ConnectionLost"):
        assert seen[event] > 0, f"{event} never happened, so nothing is proven about it: {seen}"


def test_another_process_takes_the_same_steps(bench, place):
    arguments = ["--scenario", "toy", "--start", "3", "--seeds", "2", "--worker", place.app_dsn, place.superuser_dsn]
    there = subprocess.run(
        [sys.executable, "-m", "tests.crash", *arguments],
        env=os.environ | {"PYTHONHASHSEED": "1"},  # texts hash differently until the program starts itself again
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    here = [a_run(bench, seed)[0].trace.digest() for seed in (3, 4)]
    assert [json.loads(line)["digest"] for line in there.splitlines()] == here


def test_a_program_that_dies_leaves_neither_tasks_nor_locks(bench):
    loop, server = bench
    server.empty()
    scheduler = Scheduler(loop, server, seed=1)
    seen = []

    async def main(life):
        life.things["ready"] = True

    async def hold(life):
        async with in_transaction():
            await Institution.create(id=UUID(int=1), code="A", name_zh="甲", created_at=scheduler.clock.now())
            try:
                await asyncio.sleep(60)
            finally:
                seen.append("cleanup ran")
                await Institution.all()
                seen.append("and reached the database")

    async def story():
        program = Program(scheduler, server, "one", main)
        program.start()
        await asyncio.sleep(1)
        call = scheduler.world.spawn(program.call(hold, key="hold"))
        await asyncio.sleep(1)
        first = program.life
        assert first is not None
        await scheduler.crash(first)
        with pytest.raises(ConnectionLost):
            await call
        await asyncio.sleep(60)
        assert str(program.life) == "one.2"
        open_transactions = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE %s AND datname = current_database()"
        assert server.query(open_transactions, "idle in transaction%") == [(0,)]

    scheduler.run(story())
    assert seen == ["cleanup ran"]
    assert server.query("SELECT count(*) FROM institution") == [(0,)]
    assert scheduler.complaints == ["one.1 keeps a transaction open while it waits"]


def test_the_clock_moves_only_by_steps_and_timers(bench):
    loop, server = bench
    server.empty()
    scheduler = Scheduler(loop, server, seed=1)

    async def story():
        before = scheduler.clock.now()
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 60)
        assert await asyncio.to_thread(lambda: "at once") == "at once"
        return (scheduler.clock.now() - before).total_seconds()

    assert scheduler.run(story()) == 3660


def test_a_run_in_which_nothing_can_happen_any_more_says_who_waits(bench):
    loop, server = bench
    scheduler = Scheduler(loop, server, seed=1)

    async def story():
        await loop.create_future()

    with pytest.raises(Failure, match=r"(?s)nothing can happen any more.*world/1 .*story"):
        scheduler.run(story())
