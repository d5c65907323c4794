"""Many seeds at once: processes that have each a set of machines and take the next seed when they are done with one."""

from __future__ import annotations

import os
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from runtime.child_processes import dies_with_us
from tests.kills.machines import fork_servers, machines_of
from tests.kills.prepared import Prepared, prepare
from tests.kills.running import Result, run_seed

NUMBER = struct.Struct("=I")
END_SECONDS = 30.0


def results(seeds: Iterable[int], *, processes: int, mutation: str = "") -> Iterator[Result]:
    """As they come. Whoever stops asking ends all processes; raises SystemExit when one of them ends by itself."""
    with ExitStack() as stack:
        todo = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(buffering=0)))
        todo.write(b"".join(NUMBER.pack(seed) for seed in seeds))
        todo.seek(0)
        controls = stack.enter_context(fork_servers(processes))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zhenfu-kills-")))
        if status := _ended(forked(lambda: prepare(folder))):
            raise SystemExit(f"preparing ended with status {status}")
        prepared = Prepared.read(folder)
        ears: dict[Connection, int] = {}
        for control in controls:
            ear, mouth = Pipe(duplex=False)

            def work() -> None:
                for other in controls:
                    if other is not control:  # noqa: B023  # called at once
                        other.close()
                with machines_of(prepared, control) as machines:  # noqa: B023
                    for seed in _taken(todo):
                        result = run_seed(machines, seed, mutation=mutation)
                        mouth.send(result)  # noqa: B023

            pid = forked(work)
            stack.callback(_end, pid)
            mouth.close()
            ears[ear] = pid
        for control in controls:
            control.close()
        while ears:
            ready = wait(list(ears))
            for ear in [ear for ear in ears if ear in ready]:
                try:
                    yield ear.recv()
                except EOFError:
                    if status := _ended(ears.pop(ear)):
                        raise SystemExit(f"a worker ended with status {status}") from None


def _taken(todo: BinaryIO) -> Iterator[int]:
    """All who have inherited this file share the place up to which it is read."""
    while number := todo.read(NUMBER.size):
        yield NUMBER.unpack(number)[0]


def forked(work: Callable[[], None]) -> int:
    """The id of a process that does this and ends. Told to end, it still tidies up, whatever else it is told."""
    dies = dies_with_us(signal.SIGTERM)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGTERM, told_to_end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells everybody; our parent tells us
        dies()
        work()
        status = 0
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def told_to_end(number: int, frame: object) -> NoReturn:
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _end(pid: int) -> None:
    """Gone, tidily if it can."""
    deadline = time.monotonic() + END_SECONDS
    with suppress(ChildProcessError, ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            time.sleep(0.02)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)


def _ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
