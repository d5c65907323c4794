"""python -m tests.kills --seed 7 shows one day with real deaths; --seeds 200 lives through as many.

The seed fixes the plan, not the interleaving: a seed that has failed leaves its trace in a file, and `--again 50` says
how often it fails. A run ends with its totals, or with the seeds that failed and status 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.kills.machines import Machines, a_set_of_machines
from tests.kills.mutations import MUTATIONS
from tests.kills.running import Result, run_seed
from tests.kills.workers import results, told_to_end

FAILURES_MAX = 5  # then the run stops looking for more
PROGRESS = 20
PROCESSES_PER_CORE = 2  # each one waits half of the time


def main() -> int:
    arguments = _arguments()
    logging.getLogger().addHandler(logging.NullHandler())
    signal.signal(signal.SIGTERM, told_to_end)
    signal.signal(signal.SIGINT, told_to_end)
    memory = Path("/dev/shm")  # noqa: S108
    if os.access(memory, os.W_OK):
        tempfile.tempdir = str(memory)  # nothing here must outlive the run
    if arguments.seeds is None:
        return _show(arguments)
    return _search(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="run this one and show what happened")
    parser.add_argument("--seeds", type=int, help="run so many, one after the other, and show the totals")
    parser.add_argument("--start", type=int, default=1, help="the first of them")
    parser.add_argument("--again", type=int, default=0, help="run a seed that has failed so often again")
    parser.add_argument("--processes", type=int, default=PROCESSES_PER_CORE * (os.cpu_count() or 1))
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), default="", help="make this mistake")
    parser.add_argument("--quiet", action="store_true", help="no steps")
    parser.add_argument("--traces", type=Path, default=Path(tempfile.gettempdir()) / "zhenfu-kills")
    return parser.parse_args()


def _show(arguments: argparse.Namespace) -> int:
    with a_set_of_machines() as machines:
        result = run_seed(machines, arguments.seed, mutation=arguments.mutation)
        if not arguments.quiet:
            print("\n".join(result.trace))
        print(f"seed {result.seed}: {result.seconds:.2f} s")
        for name, count in result.counts.items():
            print(f"  {count:8}  {name}")
        if result.failure:
            print(f"FAILED: {result.failure}")
            _keep(arguments, result)
        if arguments.again:
            _again(machines, arguments, result.seed)
    return bool(result.failure)


def _again(machines: Machines, arguments: argparse.Namespace, seed: int) -> None:
    """How often does it fail?"""
    failed = 0
    for _ in range(arguments.again):
        result = run_seed(machines, seed, mutation=arguments.mutation)
        if result.failure:
            failed += 1
            _keep(arguments, result)
    print(f"seed {seed} again: {failed} of {arguments.again} runs failed", flush=True)


def _keep(arguments: argparse.Namespace, result: Result) -> Path:
    """Each failure's trace in a file of its own."""
    folder: Path = arguments.traces
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (path := folder / f"seed-{result.seed}-{number}.txt").exists():
        number += 1
    path.write_text("\n".join(result.trace) + "\n")
    return path


def _search(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    totals: Counter[str] = Counter()
    failed: list[Result] = []
    done = 0
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    processes = min(arguments.processes, arguments.seeds)
    for result in results(seeds, processes=processes, mutation=arguments.mutation):
        done += 1
        totals.update(result.counts)
        if result.failure:
            failed.append(result)
            print(f"seed {result.seed} FAILED ({_keep(arguments, result)}): {result.failure[:2000]}", flush=True)
            if len(failed) == (1 if arguments.mutation else FAILURES_MAX):
                break
        if done % PROGRESS == 0:
            print(f"{done} seeds, {60 * done / (time.monotonic() - started):.0f} a minute", flush=True)
    if arguments.mutation:
        return _say_caught(arguments, failed, done)
    minutes = (time.monotonic() - started) / 60
    print(f"{done} seeds, {done / minutes:.0f} seeds a minute in {arguments.processes} processes")
    for name, count in sorted(totals.items()):
        print(f"  {count:10}  {name}")
    if failed:
        numbers = ", ".join(str(result.seed) for result in failed)
        print(f"FAILED seeds: {numbers}; one of them again: make kills SEED={failed[0].seed} AGAIN=50")
        if arguments.again:
            with a_set_of_machines() as machines:
                for result in failed:
                    _again(machines, arguments, result.seed)
    return bool(failed)


def _say_caught(arguments: argparse.Namespace, failed: list[Result], done: int) -> int:
    if failed and ("AttributeError" in failed[0].failure or "TypeError" in failed[0].failure):
        print(f"{arguments.mutation} does not fit the code any more: {failed[0].failure}")
        return True
    if failed:
        print(f"{arguments.mutation} is caught by seed {failed[0].seed}, the {done}. of {arguments.seeds}")
        return False
    print(f"{arguments.mutation} is NOT caught by any of {done} seeds")
    return True


if __name__ == "__main__":
    sys.exit(main())
