"""`make bench`: what a payment costs beside a floor measured in the same run, and how many of them fit.

Ratios count: each figure of ours is set against a floor, or against itself on other tables, measured in the same run
and in turns, so that a machine that is busy with other things slows both alike.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figures
from bench.rounds import Bench
from runtime import logs
from runtime.embedded_postgres import EmbeddedPostgres
from runtime.embedded_redis import EmbeddedRedis


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--small", type=int, default=10_000, help="payments in the small tables")
    parser.add_argument("--payments", type=int, default=0, help="payments in the large tables; 0: leave them out")
    parser.add_argument("--count", type=int, default=120, help="payments in each measurement")
    parser.add_argument("--rate", type=float, default=6.0, help="payments a second while processor time is measured")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each arrival rate is tried")
    parser.add_argument("--no-rates", action="store_true", help="leave out the highest sustained rate")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zhenfu-bench-")))
        folder.chmod(0o755)
        postgres, redis = EmbeddedPostgres(folder / "postgres"), EmbeddedRedis()
        stack.callback(postgres.stop)
        stack.callback(redis.stop)
        redis.begin()
        postgres.start(die_with_us=True)
        logs.to("bench", file=folder / "log", human=True)
        figures = Figures()
        bench = Bench(folder=folder, postgres=postgres, redis=redis, figures=figures, chosen=chosen)
        stack.callback(bench.stop)
        try:
            bench.run()
        finally:
            print(figures.table())
            print(f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
            problems = (folder / "log").read_text() if (folder / "log").exists() else ""
            for line in [line for line in problems.splitlines() if "ERROR" in line or "Error" in line][:10]:
                print(line)
    return 0 if figures.hold else 1


if __name__ == "__main__":
    sys.exit(main())
