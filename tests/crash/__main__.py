"""python -m tests.crash --seed 7 shows one bad day again; --seeds 200 looks at as many new ones.

A run ends with its totals, or with the seeds that failed and status 1. The same seed is the same run on every
computer with the same code: so hashes of texts must be the same too, and the program starts itself again for it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from runtime.child_processes import dies_with_us
from runtime.embedded_postgres import EmbeddedPostgres
from tests.crash.database import Place, a_workbench
from tests.crash.mutations import MUTATIONS
from tests.crash.scenario import DAY, TOY, Result, Scenario, run_seed
from tests.crash.scheduler import Trace
from tests.support.postgres import a_cluster, a_migrated_database

FAILURES_MAX = 5  # then the run stops looking for more
SCENARIOS = {scenario.name: scenario for scenario in (DAY, TOY)}
DEFAULT_SCENARIO = DAY.name
PYTEST = (
    "-q",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "--timeout=300",
)  # we have imported much


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(  # noqa: S606
            sys.executable,
            [sys.executable, "-m", "tests.crash", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    arguments = _arguments()
    scenario = SCENARIOS[arguments.scenario]
    logging.getLogger().addHandler(logging.NullHandler())
    if arguments.mutation:
        MUTATIONS[arguments.mutation]()
    if arguments.worker:
        return _work(scenario, arguments)
    if arguments.test:
        return int(pytest.main([*PYTEST, *arguments.test]))
    memory = Path("/dev/shm")  # noqa: S108
    if os.access(memory, os.W_OK):
        tempfile.tempdir = str(memory)  # nothing here must outlive the run
    with a_cluster() as cluster:
        if arguments.seeds is None:
            return _show(scenario, cluster, arguments)
        return _search(scenario, cluster, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="run this one and show every step")
    parser.add_argument("--seeds", type=int, help="run so many, one after the other, and show the totals")
    parser.add_argument("--start", type=int, default=1, help="the first of them")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default=DEFAULT_SCENARIO)
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="make this mistake; a seed must catch it")
    parser.add_argument("--test", nargs="+", help="instead of days, run these tests with the mistake; one must fail")
    parser.add_argument("--quiet", action="store_true", help="no steps")
    parser.add_argument("--worker", nargs=2, metavar=("APP", "SUPERUSER"), help=argparse.SUPPRESS)
    parser.add_argument("--stride", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def _show(scenario: Scenario, cluster: EmbeddedPostgres, arguments: argparse.Namespace) -> int:
    with _a_place(cluster) as place, a_workbench(place) as bench:
        result = run_seed(scenario, bench, arguments.seed, trace=Trace(show=not arguments.quiet))
    print(f"seed {result.seed}: {result.steps} steps in {result.seconds:.2f} s, digest {result.digest}")
    for name, count in result.counts.items():
        print(f"  {count:8}  {name}")
    if result.failure:
        print(f"FAILED: {result.failure}")
    return bool(result.failure)


def _search(scenario: Scenario, cluster: EmbeddedPostgres, arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    totals: Counter[str] = Counter()
    failed: list[Result] = []
    done = steps = 0
    for result in _results(scenario, cluster, arguments):
        done += 1
        steps += result.steps
        totals.update(result.counts)
        if result.failure:
            failed.append(result)
            print(f"seed {result.seed} FAILED: {result.failure}", flush=True)
            if len(failed) == (1 if arguments.mutation else FAILURES_MAX):
                break
        if done % 100 == 0:
            print(f"{done} seeds, {60 * done / (time.monotonic() - started):.0f} a minute", flush=True)
    if arguments.mutation:
        if failed and "AttributeError" not in failed[0].failure and "TypeError" not in failed[0].failure:
            print(f"{arguments.mutation} is caught by seed {failed[0].seed}, the {done}. of {arguments.seeds}")
        elif failed:
            print(f"{arguments.mutation} does not fit the code any more: {failed[0].failure}")
            return True
        else:
            print(f"{arguments.mutation} is NOT caught by any of {done} seeds")
        return not failed
    minutes = (time.monotonic() - started) / 60
    print(f"{done} seeds, {steps} steps, {done / minutes:.0f} seeds a minute in {arguments.processes} processes")
    for name, count in sorted(totals.items()):
        print(f"  {count:10}  {name}")
    if failed:
        seeds = ", ".join(str(result.seed) for result in failed)
        print(f"FAILED seeds: {seeds}; one of them again: make crash SEED={failed[0].seed}")
    return bool(failed)


def _results(scenario: Scenario, cluster: EmbeddedPostgres, arguments: argparse.Namespace) -> Iterator[Result]:
    """Every process has a database of its own and every so-manieth seed."""
    with ExitStack() as stack:
        workers: list[subprocess.Popen[str]] = []
        stack.callback(_thaw, cluster)
        for number in range(min(arguments.processes, arguments.seeds)):
            place = stack.enter_context(_a_place(cluster))
            worker = stack.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        *("-m", "tests.crash", "--scenario", scenario.name),
                        *(("--mutation", arguments.mutation) if arguments.mutation else ()),
                        *("--worker", place.app_dsn, place.superuser_dsn),
                        *("--start", str(arguments.start + number), "--stride", str(arguments.processes)),
                        *("--seeds", str(len(range(number, arguments.seeds, arguments.processes)))),
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                    preexec_fn=dies_with_us(signal.SIGKILL),
                )
            )
            stack.callback(worker.kill)
            workers.append(worker)
        open_workers = list(workers)
        while open_workers:
            for worker in list(open_workers):
                assert worker.stdout is not None
                line = worker.stdout.readline()
                if line:
                    yield Result(**json.loads(line))
                else:
                    open_workers.remove(worker)
                    if worker.wait() != 0:
                        raise SystemExit(f"a worker ended with status {worker.returncode}")


def _work(scenario: Scenario, arguments: argparse.Namespace) -> int:
    with a_workbench(Place(*arguments.worker)) as bench:
        for number in range(arguments.seeds):
            result = run_seed(scenario, bench, arguments.start + number * arguments.stride)
            print(json.dumps(result.as_json()), flush=True)
            if result.failure and arguments.mutation:
                break
    return 0


@contextmanager
def _a_place(cluster: EmbeddedPostgres) -> Iterator[Place]:
    with a_migrated_database(cluster) as database:
        yield Place(database.app_dsn, database.superuser_dsn)


def _thaw(cluster: EmbeddedPostgres) -> None:
    """A killed worker may have left server processes stopped, and the server waits for them when it ends."""
    with cluster.superuser() as connection:
        for (backend,) in connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall():
            os.kill(backend, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(main())
