"""Children are forked, so each supervisor of a test runs in a program of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest

WAIT_SECONDS = 20.0
Value = TypeVar("Value")


class Supervised:
    """A supervisor in its own process; `programs` is the Python that defines them, `folder` is for their notes."""

    def __init__(self, folder: Path, programs: str, *, stop_seconds: float = 5) -> None:
        self.folder = folder
        script = f"""
import os, signal, sys, time
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from core.errors import ConfigurationError
from runtime import logs
from runtime.supervisor import NotStarted, Program, Supervisor

logs.to("supervisor", human=True)
folder = Path({str(folder)!r})

def note(name):
    with (folder / name).open("a") as file:
        file.write(f"{{os.getpid()}}\\n")

def sleeps(name):
    def run(ready):
        signal.signal(signal.SIGTERM, lambda *_: (note(name + "-stopped"), sys.exit(0)))
        note(name)
        ready()
        while True:
            time.sleep(0.05)
    return run

{textwrap.dedent(programs)}
supervisor = Supervisor(programs, stop_seconds={stop_seconds})
supervisor.start()
try:
    supervisor.wait_until_ready(10)
except NotStarted as error:
    print(error, flush=True)
    supervisor.stop()
    sys.exit(3)
said = []

def say_ready():
    if not said:
        said.append(True)
        print("ready", flush=True)

sys.exit(supervisor.run(say_ready))
"""
        self.process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def notes(self, name: str, *, count: int = 1) -> list[int]:
        """The process ids that have noted this, once there are so many."""
        path = self.folder / name
        return until(lambda: found if len(found := _pids(path)) >= count else None)

    def end(self) -> int:
        try:
            return self.process.wait(timeout=WAIT_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


def _pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def until(look: Callable[[], Value | None]) -> Value:
    deadline = time.monotonic() + WAIT_SECONDS
    while (value := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    begun: list[Supervised] = []

    def begin(programs: str, **options: float) -> Supervised:
        begun.append(Supervised(tmp_path, programs, **options))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.wait()


TWO = """programs = [Program(name="one", run=sleeps("one")), Program(name="two", run=sleeps("two"))]"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_stops_everybody_in_peace(supervised: Callable[..., Supervised], number: signal.Signals) -> None:
    both = supervised(TWO)
    assert both.line() == "ready"
    children = both.notes("one") + both.notes("two")
    both.process.send_signal(number)
    assert both.end() == 0
    assert both.notes("one-stopped") + both.notes("two-stopped") == children
    assert not any(alive(pid) for pid in children)


def test_a_dead_child_is_started_again_at_once_and_the_other_goes_on(supervised: Callable[..., Supervised]) -> None:
    both = supervised(TWO)
    assert both.line() == "ready"
    (first,) = both.notes("one")
    os.kill(first, signal.SIGKILL)
    assert len(set(both.notes("one", count=2))) == 2
    assert len(both.notes("two")) == 1
    both.process.terminate()
    assert both.end() == 0


def test_a_child_that_dies_again_and_again_is_started_ever_slower(supervised: Callable[..., Supervised]) -> None:
    one = supervised("""
        def dies(ready):
            note(f"{time.monotonic():.6f}")
            ready()
            sys.exit(1) if len(list(folder.iterdir())) < 5 else time.sleep(60)
        programs = [Program(name="dies", run=dies)]
    """)
    assert one.line() == "ready"
    until(lambda: True if len(list(one.folder.iterdir())) == 5 else None)
    moments = sorted(float(path.name) for path in one.folder.iterdir())
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert pauses[0] < 0.5 <= pauses[1] < pauses[2] < pauses[3]
    one.process.kill()
    one.end()


def test_a_child_that_cannot_work_with_these_settings_ends_all_of_it(supervised: Callable[..., Supervised]) -> None:
    both = supervised("""
        def misconfigured(ready):
            ready()
            time.sleep(0.3)
            raise ConfigurationError("X is not set")
        programs = [Program(name="one", run=sleeps("one")), Program(name="two", run=misconfigured)]
    """)
    assert both.line() == "ready"
    assert both.end() == 78
    assert not alive(both.notes("one")[0])


def test_the_death_of_one_that_cannot_be_replaced_is_everybodys_end(supervised: Callable[..., Supervised]) -> None:
    both = supervised("""
        programs = [Program(name="one", run=sleeps("one")), Program(name="two", run=sleeps("two"), restarts=False)]
    """)
    assert both.line() == "ready"
    os.kill(both.notes("two")[0], signal.SIGKILL)
    assert both.end() not in (0, None)
    assert not alive(both.notes("one")[0])


def test_a_child_that_ends_before_it_is_ready_is_told_by_name(supervised: Callable[..., Supervised]) -> None:
    both = supervised("""
        programs = [Program(name="one", run=sleeps("one")), Program(name="two", run=lambda ready: 1 / 0)]
    """)
    assert both.line() == "two did not start (exit code 1)"
    assert both.end() == 3


def test_who_does_not_stop_is_killed(supervised: Callable[..., Supervised]) -> None:
    one = supervised(
        """
        def deaf(ready):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            note("deaf")
            ready()
            while True:
                time.sleep(1)
        programs = [Program(name="deaf", run=deaf)]
        """,
        stop_seconds=0.3,
    )
    assert one.line() == "ready"
    one.process.terminate()
    assert one.end() == 0
    assert not alive(one.notes("deaf")[0])


def test_children_die_with_a_supervisor_that_is_killed(supervised: Callable[..., Supervised]) -> None:
    both = supervised(TWO)
    assert both.line() == "ready"
    children = both.notes("one") + both.notes("two")
    both.process.kill()
    until(lambda: True if not any(alive(pid) for pid in children) else None)
    both.end()
