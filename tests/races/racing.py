"""Several programs that begin at the same moment, and what became of it."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.house import House
from tests.support.postgres import Database

PROCESSES = 3
LEAD_SECONDS = 0.3
LINE_BYTES_MAX = 1 << 20
HIS_BOOKS = ("bills", "confirms", "locks", "_bills_of", "_numbers_on")


@dataclass(kw_only=True)
class Outcome:
    """What all racers together said, and how long the slowest process took."""

    words: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def say(self, race: str) -> None:
        """For whoever reads the run (`pytest -s`)."""
        ended = ", ".join(f"{number} {word}" for word, number in sorted(self.words.items()))
        print(f"\n{race}: {self.words.total()} at once in {self.seconds:.2f} s: {ended}")


@dataclass(kw_only=True)
class Racers:
    """The programs; they have the house's database and copies of its HIS's books."""

    house: House
    programs: list[asyncio.subprocess.Process]

    async def race(self, do: str, times: int, **values: Any) -> Outcome:
        """`times` in each program, all beginning at one moment."""
        books = pickle.dumps({name: getattr(self.house.his, name) for name in HIS_BOOKS}).hex()
        at = time.time() + LEAD_SECONDS
        outcome = Outcome()
        for turn, program in enumerate(self.programs):
            task = {
                "do": do,
                "times": times,
                "turn": turn,
                "at": at,
                "now": self.house.clock.now().isoformat(),
                "his": books,
                **values,
            }
            assert program.stdin is not None
            program.stdin.write(json.dumps(task).encode() + b"\n")
            await program.stdin.drain()
        for program in self.programs:
            said = await _line(program)
            outcome.words.update(said["words"])
            outcome.seconds = max(outcome.seconds, said["seconds"])
        return outcome


@asynccontextmanager
async def racers(house: House, database: Database, *, processes: int = PROCESSES) -> AsyncIterator[Racers]:
    """Programs that are ready to race; gone afterwards."""
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.races.racer", database.app_dsn),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        for _ in range(processes)
    ]
    try:
        for program in programs:
            await _line(program)
        yield Racers(house=house, programs=programs)
    finally:
        for program in programs:
            if program.returncode is None:
                program.kill()
            await program.wait()


async def _line(program: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line that is one of ours; what else it prints is its log."""
    assert program.stdout is not None
    while line := await program.stdout.readline():
        if line.startswith(b"{"):
            said: dict[str, Any] = json.loads(line)
            return said
    raise AssertionError("a racer has died")
