"""The measurements, in turns: the floor, the programs on small tables, the programs on large ones, the floor again."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import pickle
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.figures import Figures
from bench.floor import play, run_floor, run_peer
from bench.ledger_data import fill
from bench.paying import Planned, Run, open_street, percentile
from bench.processes import Memory, cpu_seconds, cpu_seconds_of_children, memory
from bench.recording import Recording, Script, recorded_server, scripts
from bench.town import DATABASE, MERGED_BILLS, PEOPLE, Town
from core.ledger import ledger_key
from runtime.child_processes import LOOPBACK
from runtime.embedded_postgres import APP_ROLE, EmbeddedPostgres
from runtime.embedded_redis import EmbeddedRedis
from runtime.programs import run_server, run_worker
from runtime.sockets import reserve
from runtime.supervisor import Program, Supervisor

FLOOR_TIMES_MOST = 2.5
LARGE_TIMES_MOST = 1.1
SERVER_MIB_MOST = 150.0
WARM_UP = 12
RATES = (2, 4, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50)
SUSTAINED_P99_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""So long a measurement waits for its last payment; at a rate to be sustained, SUSTAINED_SECONDS."""

SUSTAINED_SECONDS = 5.0
MERGED_SHARE = 3  # merged payments are measured on a third as many
KINDS = {"single": 1, "merged": MERGED_BILLS}


@dataclass(kw_only=True)
class Bench:
    folder: Path
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    figures: Figures
    chosen: argparse.Namespace
    town: Town = field(init=False)
    rng: random.Random = field(init=False)
    bills: dict[str, list[Planned]] = field(default_factory=lambda: defaultdict(list))
    recorded: dict[str, list[Script]] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    _world: Supervisor | None = None
    _databases: int = 0

    def run(self) -> None:
        self.rng = random.Random(self.chosen.seed)
        self.town = Town.build(self.folder, self.postgres, self.redis)
        self._plan()
        asyncio.run(self.town.set_up())
        self._world = Supervisor([Program(name="world", run=self.town.world)])
        self._world.start()
        self._world.wait_until_ready(60)
        asyncio.run(self.town.register())
        self.say("recording what single and merged payments say")
        self._record()
        large = self._tables()
        self._compare(large)
        if not self.chosen.no_rates:
            self._rates()

    def stop(self) -> None:
        if self._world is not None:
            self._world.stop()

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    # ------------------------------------------------------------ what will be paid

    def _plan(self) -> None:
        """All bills of the run: the HIS has them before its process begins."""
        chosen = self.chosen
        tables = 2 if chosen.payments else 1
        single = (chosen.count + WARM_UP) * (chosen.rounds * tables + 1) + chosen.count
        merged = (chosen.count // MERGED_SHARE + WARM_UP) * (chosen.rounds * tables + 1) + chosen.count
        if not chosen.no_rates:
            single += int(sum(RATES) * chosen.seconds) + len(RATES) * WARM_UP
        for kind, how_many in (("single", single), ("merged", merged)):
            for number in range(how_many):
                person = number % PEOPLE
                self.bills[kind].append(Planned(person=person, bills=self.town.issue(person, bills=KINDS[kind])))

    def _next(self, kind: str, count: int) -> list[Planned]:
        taken, self.bills[kind] = self.bills[kind][:count], self.bills[kind][count:]
        assert len(taken) == count, "the plan has too few bills"
        return taken

    def _count(self, kind: str) -> int:
        count: int = self.chosen.count
        return count if kind == "single" else count // MERGED_SHARE

    # ------------------------------------------------------------ the floor

    def _record(self) -> None:
        """Once, on a copy: our web process alone carries payments through, one after the other."""
        name, file = self._copy(), self.folder / "recording"
        on = self.town.sockets["web"]
        run = partial(recorded_server, self.town.on(name), file=file, on=on)
        moments: dict[str, list[tuple[float, float, float]]] = {}
        with running([Program(name="web", run=run)]):

            async def drive() -> None:
                async with open_street(self.town, name) as street:
                    await street.pay_alone(self._next("single", WARM_UP // 2))
                    await street.pay_alone(self._next("merged", WARM_UP // 2))
                    for kind in KINDS:
                        moments[kind] = await street.pay_alone(self._next(kind, self._count(kind)))

            asyncio.run(drive())
        recording: Recording = pickle.loads(file.read_bytes())  # noqa: S301 (our own process has just written it)
        for kind, of_kind in moments.items():
            self.recorded[kind] = scripts(recording, of_kind)
            statements = [len(script.order.statements) + len(script.rest.statements) for script in self.recorded[kind]]
            calls = [len(script.order.calls) + len(script.rest.calls) for script in self.recorded[kind]]
            self.figures.add(f"{kind}: statements to PostgreSQL", statistics.mean(statements), "")
            self.figures.add(f"{kind}: calls to counterparties", statistics.mean(calls), "")

    def _floor(self, kind: str) -> float:
        """Processor seconds of the floor for one payment; every round on a fresh copy."""
        name, played = self._copy(), self.recorded[kind]
        sockets = [reserve(LOOPBACK, 0) for _ in range(2)]
        urls = [f"http://{LOOPBACK}:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.set_inheritable(True)
        programs = [
            Program(name="peer", run=partial(run_peer, on=sockets[1])),
            Program(
                name="floor",
                run=lambda ready: run_floor(played, self.town.on(name).database_url, urls[1], ready, sockets[0]),
            ),
        ]
        with running(programs) as supervisor:
            pid = supervisor.pids()["floor"]
            before = cpu_seconds(pid)
            asyncio.run(play(urls[0], len(played), rate=self.chosen.rate, rng=self.rng))
            used = cpu_seconds(pid) - before
        for each in sockets:
            each.close()
        return used / len(played)

    # ------------------------------------------------------------ the programs

    def _programs(self, name: str) -> list[Program]:
        settings, on = self.town.on(name), self.town.sockets["web"]
        return [
            Program(name="web", run=partial(run_server, settings, on=on, programs=2)),
            Program(name="worker", run=partial(run_worker, settings, programs=2)),
        ]

    def _ours(self, name: str, kind: str) -> dict[str, float]:
        """Processor seconds for one payment: of the web process, of the worker and of PostgreSQL."""
        planned = self._next(kind, WARM_UP), self._next(kind, self._count(kind))
        with running(self._programs(name)) as supervisor:
            pids = supervisor.pids()

            def used() -> dict[str, float]:
                ours = {program: cpu_seconds(pid) for program, pid in pids.items()}
                return ours | {"postgres": self._postgres_seconds(name)}

            async def drive() -> tuple[dict[str, float], Run]:
                async with open_street(self.town, name) as street:
                    await street.pay(planned[0], rate=self.chosen.rate, rng=self.rng, patience=PATIENCE_SECONDS)
                    before = used()
                    run = await street.pay(planned[1], rate=self.chosen.rate, rng=self.rng, patience=PATIENCE_SECONDS)
                    after = used()
                    return {program: (after[program] - before[program]) / run.planned for program in after}, run

            for_one, run = asyncio.run(drive())
            self._check(run)
            self.memories = {program: memory(pid) for program, pid in pids.items()}
        return for_one

    def _check(self, run: Run) -> None:
        if not run.complete:
            self.say(
                f"NOT COMPLETE: {run.done} of {run.planned} told, {len(run.added_seconds)} booked; {run.failed[:3]}"
            )

    def _compare(self, large: str | None) -> None:
        used: dict[str, list[float]] = defaultdict(list)
        for number in range(1, self.chosen.rounds + 1):
            for kind in KINDS:
                self.say(f"round {number}: {kind} payments")
                used[f"floor {kind}"].append(self._floor(kind))
                for size, name in (("small", DATABASE), ("large", large)):
                    if name is None or (size == "large" and kind != "single"):
                        continue
                    for_one = self._ours(name, kind)
                    for program, seconds in for_one.items():
                        used[f"{size} {kind} {program}"].append(seconds)
                    used[f"{size} {kind}"].append(for_one["web"] + for_one["worker"])
        mean = {name: statistics.mean(values) for name, values in used.items()}
        for kind in KINDS:
            self.figures.add(f"{kind}: our processor time for a payment", mean[f"small {kind}"] * 1000, "ms")
            self.figures.add(f"{kind}: of it the worker's", mean[f"small {kind} worker"] * 1000, "ms")
            self.figures.add(f"{kind}: the floor's", mean[f"floor {kind}"] * 1000, "ms")
            self.figures.add(f"{kind}: PostgreSQL's", mean[f"small {kind} postgres"] * 1000, "ms")
            ratio = mean[f"small {kind}"] / mean[f"floor {kind}"]
            self.figures.add(f"{kind}: ours / the floor's", ratio, "times", most=FLOOR_TIMES_MOST)
        for program, used_memory in self.memories.items():
            most = SERVER_MIB_MOST if program == "web" else None
            self.figures.add(f"memory of one {program} process, resident", used_memory.resident, "MiB", most=most)
            self.figures.add("the same, shared pages by part", used_memory.shared_fairly, "MiB")
        if large is not None:
            tables = f"{self.chosen.payments:,} / {self.chosen.small:,} payments in the tables"
            ratio = mean["large single"] / mean["small single"]
            self.figures.add(f"{tables}: our processor time", ratio, "times", most=LARGE_TIMES_MOST)
            ratio = mean["large single postgres"] / mean["small single postgres"]
            self.figures.add(f"{tables}: PostgreSQL's", ratio, "times", most=LARGE_TIMES_MOST)

    def _postgres_seconds(self, name: str) -> float:
        """Of the servers that our programs talk to; what PostgreSQL does beside them is not of one payment."""
        pid = int((self.postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
        return cpu_seconds_of_children(pid, f" {APP_ROLE} {name} ")

    # ------------------------------------------------------------ how many a second

    def _rates(self) -> None:
        """Upwards until one is not sustained: all through, nobody refused, and little waiting for us."""
        sustained, last = 0, None
        with running(self._programs(DATABASE)):

            async def drive() -> None:
                nonlocal sustained, last
                async with open_street(self.town, DATABASE) as street:
                    await street.pay(self._next("single", WARM_UP), rate=2, rng=self.rng, patience=PATIENCE_SECONDS)
                    for rate in RATES:
                        planned = self._next("single", int(rate * self.chosen.seconds))
                        run = await street.pay(planned, rate=rate, rng=self.rng, patience=SUSTAINED_SECONDS)
                        p99 = percentile(run.added_seconds, 0.99)
                        p50 = percentile(run.added_seconds, 0.5)
                        self.say(
                            f"{rate} a second: {run.done} of {run.planned} through, added by us"
                            f" p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms {run.failed[:2]}"
                        )
                        if not run.complete or p99 > SUSTAINED_P99_SECONDS:
                            return
                        sustained, last = rate, run

            asyncio.run(drive())
        self.figures.add("payments a second sustained, everything on this machine", sustained, "1/s")
        if last is not None:
            self.figures.add("added by us at that rate, p50", percentile(last.added_seconds, 0.5) * 1000, "ms")
            self.figures.add("added by us at that rate, p99", percentile(last.added_seconds, 0.99) * 1000, "ms")

    # ------------------------------------------------------------ databases

    def _copy(self) -> str:
        """A copy of the database as it was before anybody paid."""
        self._databases += 1
        name = f"copy{self._databases}"
        self.postgres.create_database(name, template=self._pristine())
        return name

    def _pristine(self) -> str:
        if not self.postgres.has_database("pristine"):
            self.postgres.create_database("pristine", template=DATABASE)
        return "pristine"

    def _tables(self) -> str | None:
        """The small and, if wanted, the large tables; the name of the large database."""
        self._fill(DATABASE, self.chosen.small)
        if not self.chosen.payments:
            return None
        self.postgres.create_database("large", template="pristine")
        self._fill("large", self.chosen.payments)
        return "large"

    def _fill(self, name: str, payments: int) -> None:
        """Payments of the institution that is measured, as if it had been open for a while."""
        with self.postgres.superuser(name) as connection:
            row = connection.execute("SELECT id FROM institution").fetchone()
        assert row is not None
        key = ledger_key(self.town.settings.keyring())
        # In a process that then ends: the programs are forked from this one, and would count its memory as theirs.
        with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
            dsn = self.postgres.superuser_dsn(name)
            filled = pool.submit(fill, dsn, payments, key=key, institution_id=row[0]).result()
        with self.postgres.superuser(name) as connection:
            connection.execute("CHECKPOINT")  # else what was filled is still being written while we measure
        self.say(f"{filled.payments:,} payments were put into {name} in {filled.seconds:.0f} s")


@contextmanager
def running(programs: Sequence[Program]) -> Iterator[Supervisor]:
    supervisor = Supervisor(list(programs))
    try:
        supervisor.start()
        supervisor.wait_until_ready(60)
        yield supervisor
    finally:
        supervisor.stop()
