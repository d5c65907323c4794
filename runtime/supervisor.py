"""Runs programs as child processes: starts them again when they die, stops them together.

A server's own process manager is not used because it never restarts a dead worker. Children are forked, so
whoever calls this has one thread and no running event loop; a child dies when the supervisor does.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from core.errors import ConfigurationError
from runtime.child_processes import dies_with_us

log = logging.getLogger("zhenfu.supervisor")

Ready = Callable[[], None]
"""A child calls it once, when it is open for business."""

FAILED = 1
MISCONFIGURED = 78  # EX_CONFIG of sysexits.h: starting again would change nothing
STOP_SECONDS = 30.0
HEALTHY_SECONDS = 30.0  # who has lived so long starts again at once
BACKOFF_SECONDS_MAX = 10.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAKE_SECONDS = 1.0


class NotStarted(Exception):
    """A child ended, or stayed silent, before it was ready. `code` is what it ended with."""

    def __init__(self, name: str, code: int | None) -> None:
        self.name = name
        self.code = code
        super().__init__(f"{name} did not start" + ("" if code is None else f" (exit code {code})"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What a child does. `run` returns when the child has been asked to stop (SIGTERM) and has stopped."""

    name: str
    run: Callable[[Ready], None]
    restarts: bool = True  # else its death is everybody's end


@dataclass(kw_only=True, slots=True)
class _Child:
    program: Program
    pid: int = 0  # 0: not running
    ready_pipe: int = -1
    ready: bool = False
    started_at: float = 0.0
    start_again_at: float = 0.0
    deaths: int = 0  # in a row, each soon after its start


@dataclass
class Supervisor:
    """`start`, perhaps `wait_until_ready`, then `run`; `stop` in any case."""

    programs: Sequence[Program]
    stop_seconds: float = STOP_SECONDS
    _children: list[_Child] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._children = [_Child(program=program) for program in self.programs]

    # --- life ---

    def start(self) -> None:
        for child in self._children:
            self._fork(child)

    def wait_until_ready(self, seconds: float) -> None:
        """Raises NotStarted when a child ends or is silent for too long."""
        deadline = time.monotonic() + seconds
        while waiting := [child for child in self._children if not child.ready]:
            readable, _, _ = select.select([child.ready_pipe for child in waiting], [], [], 0.02)
            for child in waiting:
                if child.ready_pipe in readable:
                    child.ready = os.read(child.ready_pipe, 1) == b"1"
                code = None if child.ready else self._reap(child)
                if code is not None:
                    raise NotStarted(child.program.name, code)
            if time.monotonic() > deadline and not all(child.ready for child in waiting):
                raise NotStarted(waiting[0].program.name, None)

    def run(self, tick: Callable[[], None] | None = None) -> int:
        """Keep the children alive until a stop signal comes; then stop them. Returns the exit code.

        `tick` is called about once a second.
        """
        with _signals() as (wake, stop_asked):
            while not stop_asked():
                code = self._look_after()
                if code is not None:
                    self.stop()
                    return code
                if tick is not None:
                    tick()
                select.select([wake], [], [], self._seconds_to_next_start())
                with suppress(BlockingIOError):
                    os.read(wake, 1024)
            self.stop()
        return 0

    def stop(self) -> None:
        """Ask all children to stop, wait, and kill who does not. Quiet when nothing runs."""
        for child in self._children:
            if child.pid:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + self.stop_seconds
        while any(child.pid and self._reap(child) is None for child in self._children):
            if time.monotonic() > deadline:
                for child in self._children:
                    if child.pid:
                        log.warning("killed", extra={"fields": {"program": child.program.name}})
                        os.kill(child.pid, signal.SIGKILL)
                        os.waitpid(child.pid, 0)
                        child.pid = 0
                return
            time.sleep(0.02)

    def pids(self) -> dict[str, int]:
        """Who runs now, by name."""
        return {child.program.name: child.pid for child in self._children if child.pid}

    # --- inside ---

    def _look_after(self) -> int | None:
        """Note deaths and start who is due; an exit code when going on makes no sense."""
        now = time.monotonic()
        for child in self._children:
            code = self._reap(child) if child.pid else None
            if code is not None:
                lived_seconds = now - child.started_at
                child.deaths = 1 if lived_seconds >= HEALTHY_SECONDS else child.deaths + 1
                pause = 0.0 if child.deaths == 1 else min(0.25 * 2**child.deaths, BACKOFF_SECONDS_MAX)
                child.start_again_at = now + pause
                log.error(
                    "program_died",
                    extra={"fields": {"program": child.program.name, "exit_code": code, "again_in_seconds": pause}},
                )
                if code == MISCONFIGURED or not child.program.restarts:
                    return code or FAILED
            if not child.pid and now >= child.start_again_at:
                self._fork(child)
        return None

    def _seconds_to_next_start(self) -> float:
        now = time.monotonic()
        pauses = [child.start_again_at - now for child in self._children if not child.pid]
        return max(0.0, min([_WAKE_SECONDS, *pauses]))

    def _reap(self, child: _Child) -> int | None:
        """The exit code of a child that has ended (negative: the signal), else None."""
        try:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = child.pid, 0
        if pid == 0:
            return None
        child.pid, child.ready = 0, False
        return os.waitstatus_to_exitcode(status)

    def _fork(self, child: _Child) -> None:
        if child.ready_pipe >= 0:
            os.close(child.ready_pipe)
        child.ready_pipe, announce = os.pipe()
        child.ready, child.started_at = False, time.monotonic()
        dies = dies_with_us()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = FAILED
            try:
                dies()
                _become_a_program()
                code = _run(child.program, announce)
            finally:
                os._exit(code)  # whatever the supervisor has registered to run at its end is not the child's
        os.close(announce)
        child.pid = pid


def _become_a_program() -> None:
    """A session of its own (Ctrl-C in a terminal is the supervisor's to handle), no input, default signals."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (*_STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _run(program: Program, announce: int) -> int:
    def ready() -> None:
        with suppress(BrokenPipeError):
            os.write(announce, b"1")

    try:
        program.run(ready)
    except ConfigurationError as error:
        log.error("misconfigured", extra={"fields": {"program": program.name, "why": str(error)}})
        return MISCONFIGURED
    except (KeyboardInterrupt, SystemExit):
        return 0
    except BaseException:
        log.exception("program_failed", extra={"fields": {"program": program.name}})
        return FAILED
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    return 0


@contextmanager
def _signals() -> Iterator[tuple[int, Callable[[], bool]]]:
    """A file descriptor that becomes readable with every signal, and whether one of them asked to stop."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            asked.append(number)

    wake, wakeup = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wakeup, False)
    before = {number: signal.signal(number, note) for number in (*_STOP_SIGNALS, signal.SIGCHLD)}
    old_wakeup = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    try:
        yield wake, lambda: bool(asked)
    finally:
        signal.set_wakeup_fd(old_wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(wakeup)
