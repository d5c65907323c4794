"""Several programs that begin at the same moment, and what became of it."""

from __future__ import annotations

import asyncio
import atexit
import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.support.house import House
from tests.support.postgres import Database

PROCESSES = 3
LEAD_SECONDS = 0.3
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
    programs: list[subprocess.Popen[str]]

    async def race(self, do: str, times: int, **values: Any) -> Outcome:
        """`times` in each program, all beginning at one moment."""
        books = pickle.dumps({name: getattr(self.house.his, name) for name in HIS_BOOKS}).hex()
        at = time.time() + LEAD_SECONDS
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
            _order(program, task)
        outcome = Outcome()
        for program in self.programs:
            said = await _answer(program)
            outcome.words.update(said["words"])
            outcome.seconds = max(outcome.seconds, said["seconds"])
        return outcome


@asynccontextmanager
async def racers(house: House, database: Database, *, processes: int = PROCESSES) -> AsyncIterator[Racers]:
    """Programs that are ready to race on this database; they stay for the next race of this process."""
    programs = [_program(number) for number in range(processes)]
    try:
        for program in programs:
            _order(program, {"open": database.app_dsn})
        for program in programs:
            await _answer(program)
        yield Racers(house=house, programs=programs)
        for program in programs:
            _order(program, {"close": True})
        for program in programs:
            await _answer(program)
    except BaseException:  # what they are at is anybody's guess
        for program in programs:
            program.kill()
        _program.cache_clear()
        raise


@cache
def _program(number: int) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.races.racer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(program.kill)
    return program


def _order(program: subprocess.Popen[str], task: dict[str, Any]) -> None:
    assert program.stdin is not None
    program.stdin.write(json.dumps(task) + "\n")
    program.stdin.flush()


async def _answer(program: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that is one of ours; what else it prints is its log."""
    assert program.stdout is not None
    while line := await asyncio.to_thread(program.stdout.readline):
        if line.startswith("{"):
            said: dict[str, Any] = json.loads(line)
            return said
    raise AssertionError("a racer has died")
