"""python -m tests.permutations --cases 1000000 --seed 7 folds; --database 20000 applies to a real database."""

from __future__ import annotations

import argparse
import asyncio
import sys

from runtime.database import database
from tests.permutations import applying, folding
from tests.permutations.folding import Figures
from tests.support.postgres import a_cluster, a_migrated_database


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.permutations", description=__doc__)
    parser.add_argument("--cases", type=int, default=0, help="so many arrivals through the pure fold")
    parser.add_argument("--database", type=int, default=0, help="so many payments in a database")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    wrong = False
    if arguments.cases:
        figures = folding.run(arguments.cases, arguments.seed)
        print("\n".join(figures.lines()), flush=True)
        wrong = bool(figures.mistakes)
    if arguments.database:
        with a_cluster() as cluster, a_migrated_database(cluster) as place:
            figures = asyncio.run(_apply(place.app_dsn, arguments.database, arguments.seed))
        print("\n".join(figures.lines()), flush=True)
        wrong = wrong or bool(figures.mistakes)
    return wrong


async def _apply(app_dsn: str, cases: int, seed: int) -> Figures:
    async with database(app_dsn), applying.a_town(app_dsn) as town:
        return await applying.run(town, cases, seed)


if __name__ == "__main__":
    sys.exit(main())
