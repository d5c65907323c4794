"""Lets one I/O finish at a time and says which: a seed decides, and the same seed decides the same again.

Every I/O of a program waits at a gate. When nothing else is ready the scheduler opens one gate, lets that I/O
run to its end on the real server, lets its task go on to the next gate, and only then opens another. What has
to wait for a lock is parked with its server process stopped, so that two statements that one commit sets free
still go on one after the other. Time moves a little with each step, and jumps to the next timer when nobody
waits at a gate.

A life of a program lasts from its start to its crash. A crash happens at a gate: the life's tasks are
cancelled, all further I/O of theirs raises Crashed, and nobody else goes on before the server has rolled back.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from simulators.faults import chance
from tests.crash.loop import MICROSECONDS, START, Events, VirtualLoop, WorldClock

T = TypeVar("T")

STEPS_MAX = 200_000
LOCK_WAIT_SECONDS = 3.0  # what lock_timeout is in production; here virtual time counts
ANSWER_SECONDS = 0.002  # real time after which a silent statement is looked at: does it work or wait for a lock?
CANCEL_ROUNDS_MAX = 200
RUNS_PER_COLLECTION = 10
STALL_SECONDS = (20.0, 240.0)


class Crashed(asyncio.CancelledError):
    """This program has died: none of its I/O takes place any more."""


class Failure(Exception):
    """The run cannot go on, or has shown what must never be."""


class Verdict(StrEnum):
    """Why the scheduler broke off a statement that waited for a lock."""

    DEADLOCK = "deadlock"
    LOCK_TIMEOUT = "lock_timeout"


class Strike(StrEnum):
    """What goes wrong at a gate."""

    NONE = "none"
    CRASH = "crash"  # the program dies before this I/O
    LOSE_BEFORE = "lose_before"  # the database connection breaks, the statement has not arrived
    LOSE_AFTER = "lose_after"  # … the statement has taken effect, nobody hears it
    STALL = "stall"  # the task is not let on for minutes, as on a computer that was suspended


@dataclass(eq=False, slots=True)
class Step:
    """One I/O: at its gate, in flight, or parked."""

    life: Life
    task: int
    call: str
    key: str
    future: asyncio.Future[None]
    connection: GatedSession | None = None  # None: no statement
    nth: int = 0
    strike: Strike = Strike.NONE
    verdict: Verdict | None = None
    parked: bool = False
    stalled: bool = False  # it has been: once is enough
    timer: asyncio.TimerHandle | None = None

    @property
    def lane(self) -> tuple[str, int, int]:
        return (self.life.name, self.life.number, self.task)

    def __str__(self) -> str:
        return f"{self.life}/{self.task} {self.call} {self.key}".rstrip()


class GatedSession(Protocol):
    """What the scheduler must know about a program's connection to PostgreSQL."""

    backend: int  # process id of the server's side

    def in_transaction(self) -> bool: ...

    def cancelling(self) -> bool:
        """The driver is still cancelling a statement by itself."""
        ...


class Server(Protocol):
    """What the scheduler asks of the database server, beside the programs' connections."""

    def blockers(self, backends: list[int]) -> dict[int, list[int]]:
        """For each session, the sessions that hold what it waits for; empty: it does not wait."""
        ...

    def freeze(self, backend: int) -> None: ...

    def thaw(self, backend: int) -> None: ...

    def break_off(self, backend: int) -> None:
        """Cancel the running statement."""
        ...

    def fall(self, lives: Iterable[Life]) -> None:
        """Cut all connections of these lives and let nobody in."""
        ...

    def rise(self) -> None:
        """Let programs in again."""
        ...

    def cut(self, connection: Any) -> None:
        """Break this connection; returns when the server has rolled back."""
        ...

    async def give_back(self, life: Life) -> None:
        """Roll back and take over all connections of a life that has ended."""
        ...


class Task(asyncio.Task[Any]):
    """A task that knows whose it is and which one of them."""

    life: Life
    number: int


class Life:
    """One life of a program. The world around the programs has one that never ends."""

    def __init__(self, scheduler: Scheduler, name: str, number: int) -> None:
        self.scheduler = scheduler
        self.name = name
        self.number = number
        self.dead = False
        self.connections: list[Any] = []
        self.tasks: list[Task] = []
        self.things: dict[str, Any] = {}  # what the program keeps for whoever calls it
        self.context = contextvars.Context()
        self.context.run(_life.set, self)
        self._tasks_made = 0

    def __str__(self) -> str:
        return f"{self.name}.{self.number}" if self.number else self.name

    def spawn(self, work: Coroutine[Any, Any, T], *, key: str = "") -> asyncio.Task[T]:
        """Start a task of this life; `key` names the business it is about."""
        context = self.context.copy()
        if key:
            context.run(_business.set, key)
        return self.scheduler.loop.create_task(work, context=context)

    def adopt(self, task: Task) -> None:
        self._tasks_made += 1
        task.life = self
        task.number = self._tasks_made
        if len(self.tasks) > 200:
            self.tasks = self.living()
        self.tasks.append(task)

    def living(self) -> list[Task]:
        return [task for task in self.tasks if not task.done()]


_life: contextvars.ContextVar[Life] = contextvars.ContextVar("life")
_business: contextvars.ContextVar[str] = contextvars.ContextVar("business", default="")


def current_life() -> Life:
    return _life.get()


def current_business() -> str:
    """The key of the business that this task was started for."""
    return _business.get()


@dataclass(frozen=True, kw_only=True, slots=True)
class Chaos:
    """How likely a gate is struck: a hash of seed, program, key, call and count, never the global order."""

    seed: int
    crash: float = 0.0
    lose: float = 0.0
    stall: float = 0.0

    def strike(self, step: Step) -> Strike:
        if not (self.crash or self.lose or self.stall):
            return Strike.NONE
        number = chance(self.seed, step.life.name, step.key, step.call, step.nth)
        if number < self.crash:
            return Strike.CRASH
        if step.connection is None:
            return Strike.NONE
        number -= self.crash
        if number < self.lose:
            return Strike.LOSE_BEFORE if number < self.lose / 2 else Strike.LOSE_AFTER
        if number - self.lose < self.stall and not step.connection.in_transaction():
            return Strike.STALL
        return Strike.NONE

    def stall_seconds(self, step: Step) -> float:
        low, high = STALL_SECONDS
        return low + (high - low) * chance(self.seed, "stalls for", step.key, step.call, step.nth)


@dataclass(slots=True)
class Trace:
    """What happened, in order: as a digest, and as text for whoever wants to read it."""

    keep: bool = False
    show: bool = False
    steps: int = 0
    lines: list[str] = field(default_factory=list)
    _hash: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, microseconds: int, text: str) -> None:
        self.steps += 1
        line = f"{microseconds} {text}\n"
        self._hash.update(line.encode())
        if self.keep:
            self.lines.append(line)
        if self.show:
            print(f"{self.steps:6} {microseconds / MICROSECONDS:12.6f}  {text}")

    def digest(self) -> str:
        return str(self._hash.hexdigest())


class Scheduler:
    """One run: a seed, its programs, its trace."""

    def __init__(
        self,
        loop: VirtualLoop,
        server: Server,
        *,
        seed: int,
        chaos: Chaos | None = None,
        trace: Trace | None = None,
        steps_max: int = STEPS_MAX,
    ) -> None:
        self.loop = loop
        self.server = server
        self.seed = seed
        self.chaos = chaos or Chaos(seed=seed)
        self.trace = trace or Trace()
        loop.microseconds = 0
        self.clock = WorldClock(loop, START)
        self.random = random.Random(seed)
        self.step_microseconds = (50, 500)  # how long one step takes
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.on_crash: list[Callable[[Life], None]] = []
        self.on_commit: list[Callable[[set[str]], None]] = []  # told which tables were written
        self.world = Life(self, "world", 0)
        self.lives: list[Life] = []
        self._steps_max = steps_max
        self._waiting: list[Step] = []
        self._parked: list[Step] = []
        self._condemned: list[Step] = []  # parked statements that are to be broken off
        self._active: Step | None = None
        self._draining: list[GatedSession] = []
        self._nth: Counter[tuple[str, str, str]] = Counter()
        self._burials: list[asyncio.Task[None]] = []
        self._real = 0
        self._pick = _a_policy(self.random)
        self._main: asyncio.Task[Any] | None = None
        self._failure: Failure | None = None

    # --- running ---

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` as the world's first task, to its end; everything else ends with it."""
        loop = self.loop
        loop.set_task_factory(self._make_task)  # type: ignore[arg-type]
        loop.set_exception_handler(self._complain)
        loop.decides = self
        state = random.getstate()
        random.seed(self.seed)
        _tidy()
        gc.disable()  # a collection at a moment of its own choosing would run finalizers
        try:
            self._main = self.world.spawn(main)
            try:
                result: T = loop.run_until_complete(self._main)
            except asyncio.CancelledError:
                raise self._failure or Failure("the run was cancelled") from None
            finally:
                loop.run_until_complete(self.world.spawn(self._end()))
            if self._failure is not None:
                raise self._failure
            return result
        finally:
            loop.forget_timers()
            loop.decides = None
            loop.set_task_factory(None)
            loop.set_exception_handler(None)
            gc.enable()
            random.setstate(state)

    def fail(self, why: str) -> None:
        """End the run: `main` is cancelled, and `run` raises a Failure that says why."""
        if self._failure is None:
            self._failure = Failure(why)
            if self._main is not None:
                self._main.cancel()

    def new_life(self, name: str) -> Life:
        life = Life(self, name, 1 + sum(other.name == name for other in self.lives))
        self.lives.append(life)
        return life

    async def crash(self, life: Life, why: str = "") -> None:
        """End this life now. Returns when the server has rolled back what was open."""
        if not life.dead:
            life.dead = True
            self.counts["crashes"] += 1
            self._note(f"{life} dies {why}".rstrip())
            await self._bury(life)
            for listener in self.on_crash:
                listener(life)

    def outage(self, seconds: float) -> None:
        """The database server goes away and comes back later."""
        self.counts["database outages"] += 1
        self._note(f"the database goes away for {seconds:.0f} s")
        self.server.fall(self.lives)
        self.loop.call_later(seconds, self.server.rise)

    @contextmanager
    def real(self) -> Iterator[None]:
        """Inside, real sockets are waited for and nothing else happens: for I/O that is no program's choice."""
        self._real += 1
        try:
            yield
        finally:
            self._real -= 1

    # --- gates ---

    async def gate(self, call: str, key: str = "", *, life: Life | None = None) -> None:
        """Wait for leave to do something that takes no time; it must be done before the next await."""
        step = await self.enter(life or current_life(), call, key)
        self._note(str(step))
        self._pass_time()

    async def enter(self, life: Life, call: str, key: str, connection: GatedSession | None = None) -> Step:
        """Wait at a gate. A statement that has been let in is in flight until `leave`."""
        if life.dead:
            raise Crashed(call)
        task = asyncio.current_task()
        assert isinstance(task, Task)
        step = Step(life, task.number, call, key, self.loop.create_future(), connection)
        self._waiting.append(step)
        try:
            await step.future
        except asyncio.CancelledError:
            if step in self._waiting:
                self._waiting.remove(step)
            if life.dead:
                raise Crashed(call) from None
            raise
        return step

    def leave(self, step: Step, outcome: str = "") -> None:
        """The statement has ended, however it did."""
        if self._active is step:
            self._active = None
        if step.parked and step.connection is not None:  # its task did not wait for the lock any longer
            self._unpark(step)
            self._draining.append(step.connection)
        self._note(f"{step}{outcome}")
        self._pass_time()

    # --- what happens next ---

    def idle(self) -> Events:
        """Every task waits: for its gate, for the server, or for the time."""
        loop = self.loop
        while True:
            if self._real:
                return loop.poll(None)
            if self._draining:
                self._draining = [session for session in self._draining if session.cancelling()]
                if self._draining:
                    if events := loop.poll(ANSWER_SECONDS):
                        return events
                    continue
            if self._active is not None:
                if events := loop.poll(ANSWER_SECONDS):
                    return events
                self._look_at(self._active)
            elif self._condemned:
                self._break_off(self._condemned.pop(0))
            elif self._parked and self._let_go_on():
                pass
            elif self._waiting:
                self._open_a_gate()
                return []
            else:
                self._jump()
                return []

    def _open_a_gate(self) -> None:
        if self.trace.steps >= self._steps_max:
            self.fail(f"more than {self._steps_max} steps: does anything here ever end?")
        self._waiting.sort(key=_lane)
        step = self._waiting[0] if len(self._waiting) == 1 else self._pick(self._waiting)
        name = (step.life.name, step.call, step.key)
        self._nth[name] += 1
        step.nth = self._nth[name]
        if step.life is not self.world and not step.stalled:
            step.strike = self.chaos.strike(step)
        if step.strike is Strike.CRASH:
            self._burials.append(self.world.spawn(self.crash(step.life, f"before {step.call} {step.key}")))
            return
        self._waiting.remove(step)
        if step.strike is Strike.STALL:
            self.counts["stalls"] += 1
            self._note(f"{step} stalls")
            self.loop.call_later(self.chaos.stall_seconds(step), self._let_on, step)
            return
        if step.connection is not None:
            self._active = step
        step.future.set_result(None)

    def _let_on(self, step: Step) -> None:
        if not step.future.done():
            step.strike = Strike.NONE
            step.stalled = True
            self._waiting.append(step)

    def _look_at(self, step: Step) -> None:
        """A statement has not answered: park it if a program's lock is in its way."""
        assert step.connection is not None
        backends = [other.connection.backend for other in (*self._parked, step) if other.connection]
        blockers = self.server.blockers(backends)
        ours = {session.backend for life in self.lives for session in life.connections}
        if step.verdict is not None or not ours.intersection(blockers[step.connection.backend]):
            return
        self.server.freeze(step.connection.backend)
        self.counts["lock waits"] += 1
        self._note(f"{step} waits for a lock")
        self._active = None
        self._parked.append(step)
        step.parked = True
        step.timer = self.loop.call_later(LOCK_WAIT_SECONDS, self._condemn, step, Verdict.LOCK_TIMEOUT)
        ring = _ring(step.connection.backend, blockers)
        if ring:
            victims = sorted((s for s in self._parked if s.connection and s.connection.backend in ring), key=_lane)
            self._condemn(self.random.choice(victims), Verdict.DEADLOCK)

    def _condemn(self, step: Step, verdict: Verdict) -> None:
        if step.parked and step not in self._condemned:
            step.verdict = verdict
            self._condemned.append(step)

    def _break_off(self, step: Step) -> None:
        """Cancel a parked statement; in the meantime it may have got its lock, and then it goes on."""
        assert step.connection is not None
        assert step.verdict is not None
        backend = step.connection.backend
        if self.server.blockers([backend])[backend]:
            self.counts[str(step.verdict)] += 1
            self.server.break_off(backend)
        else:
            step.verdict = None
        self._unpark(step)
        self._active = step

    def _let_go_on(self) -> bool:
        """Wake the first parked statement that has got its lock."""
        blockers = self.server.blockers([step.connection.backend for step in self._parked if step.connection])
        for step in self._parked:
            if step.connection is not None and not blockers[step.connection.backend]:
                self._unpark(step)
                self._active = step
                return True
        return False

    def _unpark(self, step: Step) -> None:
        assert step.connection is not None
        self._parked.remove(step)
        if step in self._condemned:
            self._condemned.remove(step)
        step.parked = False
        if step.timer is not None:
            step.timer.cancel()
            step.timer = None
        self.server.thaw(step.connection.backend)

    def _jump(self) -> None:
        """Nobody can do anything now: move to the next timer."""
        moment = self.loop.next_timer()
        if moment is None:
            if self._failure is not None:
                raise self._failure
            tasks = [f"{life}/{task.number} {task!r}" for life in (self.world, *self.lives) for task in life.living()]
            self.fail("nothing can happen any more; waiting:\n" + "\n".join(tasks))
            return
        waiting = {step.connection for step in self._parked}
        for life in self.lives:
            for session in life.connections:
                if session not in waiting and session.in_transaction():
                    self.complaints.append(f"{life} keeps a transaction open while it waits")
        self.counts["jumps"] += 1
        self.loop.move_to(moment)

    def _pass_time(self) -> None:
        self.loop.microseconds += self.random.randrange(*self.step_microseconds)

    def _note(self, text: str) -> None:
        self.trace.add(self.loop.microseconds, text)

    # --- life and death ---

    async def _bury(self, life: Life) -> None:
        for step in [step for step in self._parked if step.life is life]:
            self.server.cut(step.connection)
        for _ in range(CANCEL_ROUNDS_MAX):
            living = life.living()
            if not living:
                break
            for task in living:
                task.cancel()
            await asyncio.sleep(0)
        else:
            self.fail(f"these tasks of {life} cannot be cancelled: {life.living()}")
        await self.server.give_back(life)

    async def _end(self) -> None:
        for burial in self._burials:
            await burial
        for life in self.lives:
            if not life.dead:
                life.dead = True
                await self._bury(life)
        for _ in range(CANCEL_ROUNDS_MAX):
            others = [task for task in self.world.living() if task is not asyncio.current_task()]
            if not others:
                break
            for task in others:
                task.cancel()
            await asyncio.sleep(0)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], context: contextvars.Context | None = None
    ) -> Task:
        task = Task(work, loop=loop, context=context)
        life = context.get(_life) if context is not None else _life.get(None)
        (life or self.world).adopt(task)
        return task

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        whose = context.get("task") or context.get("future")
        life = whose.life if isinstance(whose, Task) else _life.get(self.world)
        if not life.dead:
            self.complaints.append(f"{life}: {context.get('message')} {context.get('exception')!r}")


_runs = itertools.count()


def _tidy() -> None:
    """Free what earlier runs have left, now and then; what the program is made of is not looked at again."""
    run = next(_runs)
    if run % RUNS_PER_COLLECTION == 0:
        gc.collect()
    if run == 0:
        gc.freeze()


def _lane(step: Step) -> tuple[str, int, int]:
    return step.lane


def _ring(start: int, blockers: dict[int, list[int]]) -> set[int]:
    """The sessions that wait for each other in a ring through `start`; empty: there is none."""

    def reach(backend: int, path: tuple[int, ...]) -> set[int]:
        for blocker in sorted(blockers.get(backend, ())):
            if blocker == start:
                return set(path)
            if blocker not in path and (found := reach(blocker, (*path, blocker))):
                return found
        return set()

    return reach(start, (start,))


def _a_policy(random: random.Random) -> Callable[[list[Step]], Step]:
    """One of several ways to choose: evenly, sticking to one task, or by ranks that sometimes change."""
    kind = random.choice(("evenly", "sticky", "ranked"))
    last: tuple[str, int, int] | None = None
    ranks: dict[tuple[str, int, int], float] = {}

    def evenly(waiting: list[Step]) -> Step:
        return random.choice(waiting)

    def sticky(waiting: list[Step]) -> Step:
        nonlocal last
        again = [step for step in waiting if step.lane == last]
        step = again[0] if again and random.random() < 0.8 else random.choice(waiting)
        last = step.lane
        return step

    def ranked(waiting: list[Step]) -> Step:
        for step in waiting:
            if step.lane not in ranks:
                ranks[step.lane] = random.random()
        step = max(waiting, key=lambda step: ranks[step.lane])
        if random.random() < 0.05:
            ranks[step.lane] -= 1.0
        return step

    return {"evenly": evenly, "sticky": sticky, "ranked": ranked}[kind]
