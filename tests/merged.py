"""Merged payments by the thousand: `python -m tests.merged --help`. Every subset of one to six bills by default."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from itertools import chain

from tests.support.merged import UNITS, MergedHouse, every_subset, random_subsets
from tests.support.postgres import Database, a_cluster, a_migrated_database


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.merged", description=__doc__)
    parser.add_argument("--all-up-to", type=int, default=6, help="every subset of so many bills and fewer")
    parser.add_argument("--random", type=int, default=100, help="random subsets of 1 to 20 bills")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--unit", choices=UNITS, action="append", help="what the HIS books as one; all by default")
    chosen = parser.parse_args()
    with a_cluster() as cluster:
        for unit in chosen.unit or UNITS:
            with a_migrated_database(cluster) as database:
                asyncio.run(_run(database, unit, chosen))
    return 0


async def _run(database: Database, unit: str, chosen: argparse.Namespace) -> None:
    from tortoise.context import TortoiseContext

    from runtime.database import configuration

    began, used = time.perf_counter(), time.process_time()
    async with TortoiseContext() as context:
        await context.init(configuration(database.app_dsn))
        merged = await MergedHouse.build(unit, seed=chosen.seed)
        draw = random.Random(f"{unit}/{chosen.seed}")
        subsets = chain(every_subset(range(1, chosen.all_up_to + 1)), random_subsets(draw, chosen.random))
        await merged.run(list(subsets))
    numbers = ", ".join(f"{number} {name}" for name, number in merged.numbers.items())
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    print(f"confirm_unit {unit}: {numbers}; all is well ({seconds:.0f} s, {cpu:.0f} s of CPU)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
