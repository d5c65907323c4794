"""python -m tests.faults --walk takes every fault through every flow.

--record FLOW writes how a flow ends now: read the difference before you keep it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback

from runtime.database import database as open_database
from tests.faults.catalogue import ALL, NAMES, Act
from tests.faults.catalogue import SIMULATED as ALL_SIMULATED
from tests.faults.document import PATH, document
from tests.faults.flows import FLOWS
from tests.faults.walking import BASELINE, NONE, SAME, a_stage, listed, plan, walk, walked, write_listing, wrong_with
from tests.support.postgres import Database, a_cluster, a_migrated_database


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--record", nargs="*", choices=sorted(FLOWS), default=[], metavar="FLOW")
    parser.add_argument("--fault", nargs="*", default=[], help="only show how these end")
    parser.add_argument("--walk", nargs="*", choices=sorted(FLOWS), metavar="FLOW", help="all of its faults; all flows")
    parser.add_argument("--document", action="store_true", help="write docs/faults.md")
    arguments = parser.parse_args()
    if arguments.document:
        PATH.write_text(document(), encoding="utf-8")
        return 0
    with a_cluster() as cluster:
        for flow in arguments.record:
            with a_migrated_database(cluster) as database:
                asyncio.run(_record(database, flow, arguments.fault))
        wrong = []
        for flow in [] if arguments.walk is None else arguments.walk or FLOWS:
            with a_migrated_database(cluster) as database:
                wrong += asyncio.run(_walk(database, flow))
    print("\n".join(wrong))
    return bool(wrong)


async def _walk(database: Database, flow: str) -> list[str]:
    began, listing = time.process_time(), listed(flow)
    async with open_database(database.app_dsn), a_stage(database) as stage:
        wrong = [each async for each in walked(stage, flow, plan(listing), listing)]
    print(f"{flow}: {len(listing) - 1} faults, {len(wrong)} wrong, {time.process_time() - began:.0f} s", flush=True)
    return wrong


async def _record(database: Database, flow: str, only: list[str]) -> None:
    began = time.process_time()
    async with open_database(database.app_dsn), a_stage(database) as stage:
        stage.aim.only_looks = True
        baseline = await walk(stage, flow, ALL_SIMULATED)
        could, stage.aim.only_looks = stage.aim.could_strike, False
        guessed = {fault.name: SAME if isinstance(fault, Act) or fault.name in could else NONE for fault in ALL}
        ends = guessed | {BASELINE: baseline}
        todo = [group for group in plan(guessed) if not only or any(fault.name in only for fault in group)]
        while todo:
            group = todo.pop(0)
            try:
                end = await walk(stage, flow, group)
            except Exception as error:  # shown instead of the end
                end = f"WRONG {type(error).__name__}: {error}"
                if only:
                    traceback.print_exc()
            if len(group) > 1 and wrong_with(stage, group, end, ends):
                todo += [[fault] for fault in group]
                continue
            for fault in group:
                ends[fault.name] = end if end != baseline else SAME if stage.struck else NONE
                if len(group) > 1:
                    ends[fault.name] = guessed[fault.name]
                if only:
                    print(f"{flow} {fault.name}: {ends[fault.name]}")
    if not only:
        write_listing(flow, {name: ends[name] for name in (BASELINE, *NAMES)})
    print(f"{flow}: {len(ends)} ends, {time.process_time() - began:.1f} s of processor time", flush=True)


if __name__ == "__main__":
    sys.exit(main())
