"""One day for real: the counterparties and people of tier 1 around processes that die at chosen bytes."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import psycopg
from yarl import URL

from runtime.child_processes import LOOPBACK
from simulators.faults import Faults, chance
from simulators.kit import (
    ConnectionLost,
    Delivers,
    NeverConnected,
    Request,
    Response,
    Simulator,
    create_app,
    deliver_one,
)
from tests.crash.bells import DUE, ENDLESS
from tests.crash.day import Day
from tests.crash.loop import START
from tests.crash.scheduler import Scheduler
from tests.crash.world import CHAT_URL, HIS_URL, PAY_URL, STAGE, World, half_done
from tests.kills.children import WEB, WORKER
from tests.kills.machines import Machines, move_addresses
from tests.kills.pace import Pace
from tests.kills.people import Json, NoAnswer, Said, fetch
from tests.kills.plan import (
    FRONT,
    HOSPITAL,
    POSTGRES,
    WECHAT,
    WECHATPAY,
    Plan,
    Side,
    Strike,
    Strikes,
    Victim,
)
from tests.kills.programs import Program, Programs
from tests.kills.proxies import HttpSession, PostgresSession, Proxy, Session
from tests.kills.whose import is_asleep, owner
from tests.support.serving import serve

PHONE_SECONDS = 20.0
DELIVERY_SECONDS = 10.0
PAUSE_SECONDS_MAX = 20.0  # before a program that has died starts again
DATABASE_AWAY_SECONDS = 0.2
LIVES_MAX = 20
"""A program that ends by itself again and again is left alone."""
OPEN = " UNION ALL ".join(
    f"SELECT '{table}', min(greatest(due_at, lease_until)), array_agg(holder) FROM {table} WHERE due_at IS NOT NULL"
    for table in DUE
    if table != ENDLESS
)
NAP_SECONDS_MAX = 2.5
HOLDER = re.compile(r":(\d+)/")  # the process in a lease's name
BROKEN = re.compile(  # what a program may say when its connections have just gone
    r"ConnectionDoesNotExistError|InterfaceError|ConnectionRefusedError|CannotConnectNowError|ConnectionResetError"
    r"|AdminShutdownError|CrashShutdownError|ConnectionError|ClientCannotConnectError|BrokenPipeError|InternalClientError"
    r"|ServiceUnavailable"
)
TOO_LATE = re.compile(  # what it says when it has stood still for real seconds
    r"TimeoutError|QueryCanceledError|ServiceUnavailable"
)
ROWS = {
    "payment": "order_no, status, asked_fen, paid_fen, refunded_fen, due_at, attempts, holder",
    "payment_line": "his_bill_id, confirm_no, amount_fen, status, due_at",
    "confirmation": "confirm_no, status, sends_started, sends_unreached, due_at, attempts, holder",
    "his_lock": "confirm_no, status, due_at, attempts, holder",
    "refund": "refund_no, status, amount_fen, sends_started, sends_unreached, due_at, attempts, holder",
    "inbound": "id, kind, status, received_at, due_at, attempts, holder",
    "message": "id, kind, status, sends_started, sends_unreached, first_sent_at, due_at, attempts, holder",
    "staff_case": "kind, subject, status, opened_at, details",
    "payment_event": "payment_id, kind, source, proof_kind, proves, at",
}
CALL_OF_PATH = (
    (re.compile(r"^/n/"), "notice"),
    (re.compile(r"^/his/v1/events/"), "event"),
    (re.compile(r"/cancel$"), "cancel"),
    (re.compile(r"^/api/v1/payments/$"), "start"),
    (re.compile(r"^/api/v1/payments/"), "show"),
)


@dataclass
class Ground:
    """What tier 1's world asks of its scheduler, and no more."""

    seed: int
    clock: Any
    counts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    lives: list[Any] = field(default_factory=list)
    on_crash: list[Any] = field(default_factory=list)
    on_commit: list[Any] = field(default_factory=list)


class Town:
    """The whole of one seed's run; also the Street of the proxies."""

    def __init__(self, machines: Machines, seed: int, *, mutation: str = "") -> None:
        self.machines = machines
        self.mutation = mutation
        self.began = time.monotonic()
        self.lines: list[str] = []
        self.pace = Pace(
            machines.folder / "offset",
            self.is_still,
            self.next_moment,
            self.naps,
            self._each_tick,
            self._ring,
            self.complain,
        )
        self.clock = self.pace.clock
        self.ground = Ground(seed, self.clock)
        machines.books.stages[STAGE] = machines.stage
        self.clock.begin(START)
        self.world = World.build(cast(Scheduler, self.ground), machines.books)
        self.plan = Plan.of(seed, self.world.faults.catalogue.values())
        self.world.day = self.plan.day
        self.world.his.weak = self.plan.day.weak
        self.strikes = Strikes(self.plan.strikes)
        self.programs: Programs
        self.proxies: dict[str, Proxy] = {}
        self.log = machines.folder / f"programs-{seed}.log"
        self.calm = False
        self._http: aiohttp.ClientSession
        self._tokens: dict[str, str] = {}
        self._due: dict[str, datetime] = {}
        self._writing: dict[str, float] = {}  # who has a message in hand → since when in real seconds
        self._asking = 0
        self._delivering = 0
        self._database_away = 0
        self._carrying = 0
        self._tasks: set[asyncio.Future[Any]] = set()

    # ------------------------------------------------------------ opening and closing

    @classmethod
    @asynccontextmanager
    async def open(cls, machines: Machines, seed: int, *, mutation: str = "") -> AsyncIterator[Town]:
        """Everything runs; nothing has happened yet. Everything is dead afterwards."""
        machines.books.empty()
        machines.redis.empty()
        town = cls(machines, seed, mutation=mutation)
        async with AsyncExitStack() as stack:
            await town._furnish(stack)
            for name, rate in town.plan.day.rates.items():
                town.world.faults.rate(name, rate)
            pacing = asyncio.create_task(town.pace.go())
            try:
                yield town
            finally:
                pacing.cancel()
                for task in list(town._tasks):
                    task.cancel()
                await asyncio.gather(pacing, *town._tasks, return_exceptions=True)
                await town.programs.end()
                for proxy in town.proxies.values():
                    await proxy.close()

    async def _furnish(self, stack: AsyncExitStack) -> None:
        world = self.world
        limits = aiohttp.ClientTimeout(total=PHONE_SECONDS)
        self._http = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=limits, connector=aiohttp.TCPConnector(limit=0, force_close=True), trust_env=False
            )
        )
        addresses = {}
        for peer, url, simulator in (
            (WECHATPAY, PAY_URL, world.pay),
            (HOSPITAL, HIS_URL, world.his),
            (WECHAT, CHAT_URL, world.chat),
        ):
            there = URL(await stack.enter_async_context(serve(create_app(cast(Simulator, simulator)))))
            proxy = self.proxies[peer] = Proxy(self, peer, HttpSession, classify=simulator.classify)
            proxy.behind = (LOOPBACK, cast(int, there.port))
            await proxy.open()
            addresses[url] = f"http://{LOOPBACK}:{proxy.port}"
        postgres = self.proxies[POSTGRES] = Proxy(self, POSTGRES, PostgresSession)
        address = self.machines.cluster.address
        postgres.behind = (address.host, address.port)
        await postgres.open()
        front = self.proxies[FRONT] = Front(self, FRONT, HttpSession, classify=_classify)
        await front.open()
        world.furnish()
        move_addresses(self.machines.books, self.machines.keyring, addresses)
        world.his.events_url = f"http://{LOOPBACK}:{front.port}{URL(world.his.events_url or '').path}"
        self.programs = Programs(
            self.machines.forks,
            self.machines.environment(postgres_port=postgres.port, front_port=front.port),
            self.log,
            self.machines.folder / "due",
            self.mutation,
            self._told,
        )
        for number in range(self.plan.day.servers):
            self.programs.add(f"web{number + 1}", WEB)
        for number in range(self.plan.day.workers):
            self.programs.add(f"worker{number + 1}", WORKER)
        for program in self.programs.all:
            self.programs.start(program)

    # ------------------------------------------------------------ notes

    def note(self, who: str, text: str) -> None:
        real = time.monotonic() - self.began
        self.lines.append(f"{real:8.3f} s  {self.clock.now():%H:%M:%S.%f}  {who:10} {text}")

    def count(self, what: str) -> None:
        self.ground.counts[what] += 1

    def complain(self, text: str) -> None:
        self.ground.complaints.append(text)
        self.note("!", f"{text}: {self.why_not_still()}")

    # ------------------------------------------------------------ time

    async def sleep(self, seconds: float) -> None:
        await self.pace.sleep(seconds)

    def moved(self) -> None:
        self.pace.traffic += 1

    def is_still(self) -> bool:
        """Nobody is at anything: no request under way, no program that has something to do."""
        if self._asking or self._delivering or self._database_away or self._carrying or self.programs.starting():
            return False
        if any(proxy.busy() for proxy in self.proxies.values()):
            return False
        return all(is_asleep(pid) for pid in (*self.programs.pids(), self.machines.redis.pid))

    def why_not_still(self) -> str:
        """For whoever reads a trace in which time stands still."""
        awake = [one.name for one in self.programs.all if one.pid and not is_asleep(one.pid)]
        busy = [name for name, proxy in self.proxies.items() if proxy.busy()]
        counters = f"{self._asking} {self._delivering} {self._database_away} {self._carrying}"
        starting = self.programs.starting()
        return f"asking, delivering, away, carrying {counters}, starting {starting}, busy {busy}, awake {awake}"

    def next_moment(self) -> datetime | None:
        world = self.world
        moments: list[datetime | None] = [pile.next_due_at() for pile in (world.pay.deliveries, world.his.deliveries)]
        if self.programs.working():  # else rows wait, and time goes on without them
            with suppress(psycopg.Error):
                rows = self.machines.books.query(OPEN)
                self._due = {table: moment for table, moment, _ in rows if moment is not None}
                (writing,) = (holders or () for table, _, holders in rows if table == "message")
                self._writing = {holder: self._writing.get(holder, time.monotonic()) for holder in writing}
                moments += self._due.values()
        return min((moment for moment in moments if moment is not None), default=None)

    def naps(self) -> bool:
        """Somebody has a message in hand and waits in real seconds, for a token that another is fetching."""
        since = time.monotonic() - NAP_SECONDS_MAX
        pids = {program.pid for program in self.programs.all if program.pid and not program.paused}
        fresh = [HOLDER.search(holder) for holder, seen_at in self._writing.items() if seen_at > since]
        return any(int(pid[1]) in pids for pid in fresh if pid)

    def _ring(self) -> None:
        now = self.clock.now()
        self.programs.ring([table for table, moment in self._due.items() if moment <= now])

    def _each_tick(self) -> None:
        now = self.clock.now()
        for simulator in (self.world.pay, self.world.his):
            pile = cast(Delivers, simulator).deliveries
            for _ in range(sum(delivery.due_at <= now for delivery in pile.waiting)):
                self._delivering += 1
                self._begin(self._deliver(cast(Delivers, simulator)))

    async def _deliver(self, simulator: Delivers) -> None:
        try:
            await deliver_one(simulator, self._post)
        finally:
            self._delivering -= 1
            self.moved()

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.complain(f"the harness broke down: {error!r}")

    # ------------------------------------------------------------ towards our server

    async def _post(self, url: str, request: Request) -> Response:
        """A counterparty tells us something. Raises NeverConnected, ConnectionLost."""
        self.count("told by counterparties")
        try:
            async with self._http.request(
                request.method,
                URL(url, encoded=True),
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=DELIVERY_SECONDS),
            ) as answer:
                self.count(f"… answered {answer.status}")
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Response(status=answer.status, headers=headers, body=await answer.read())
        except aiohttp.ClientConnectorError as error:
            raise NeverConnected(url) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ConnectionLost(url) from error

    async def request(self, method: str, path: str, *, headers: dict[str, str], body: Json | None) -> Said:
        """A phone asks. Raises NoAnswer."""
        self._asking += 1
        try:
            return await fetch(
                self._http, method, f"http://{LOOPBACK}:{self.proxies[FRONT].port}{path}", headers=headers, body=body
            )
        finally:
            self._asking -= 1
            self.moved()

    def token(self, person: str) -> str:
        return self._tokens.get(person, "")

    def keep_token(self, person: str, token: str) -> None:
        self._tokens[person] = token

    def forget_token(self, person: str) -> None:
        self._tokens.pop(person, None)

    # ------------------------------------------------------------ deaths

    def whose(self, port: int, to_port: int) -> Program | None:
        return self.programs.of(owner(port, to_port, self.programs.pids()))

    def strike(self, program: Program, peer: str, call: str, side: Side, *, also: str = "") -> Strike | None:
        if self.calm:
            return None
        return self.strikes.due(program.kind, peer, call, side, also=also)

    async def carry_out(self, strike: Strike, session: Session, what: str) -> None:
        """Somebody dies while these bytes are held."""
        program = session.program
        assert program is not None
        self.note(program.name, f"{strike.side} {what} held at {strike.peer}: {strike}")
        self._carrying += 1
        try:
            if strike.victim is Victim.PROGRAM:
                self.count(f"killed at {strike.peer}")
                self.count("kills")
                await self.programs.kill(program)
            elif strike.victim is Victim.POSTGRES:
                await self._database_dies()
            elif strike.victim is Victim.TIME:
                await self._stand_still(program, strike.later_seconds)
            else:
                self.count(f"cut at {strike.peer}")
                session.hang_up()
        finally:
            self._carrying -= 1
        if strike.victim in (Victim.PROGRAM, Victim.NOBODY):
            self._look(f"after {strike}")

    async def _stand_still(self, program: Program, seconds: float) -> None:
        """Only where it has no transaction open: another's locks would be waited for in real seconds."""
        if any(session.in_transaction() for session in self._sessions_at_postgres(program)):
            self.count("pauses that could not be")
            return
        self.count("pauses")
        self.programs.pause(program)
        for session in [one for one in self.proxies[FRONT].sessions if one.program is program]:
            session.end()  # a gateway does not wait so long
        self._carrying -= 1
        try:
            await self.sleep(seconds)
        finally:
            self._carrying += 1
            self.programs.go_on(program)
        self.note(program.name, f"goes on after {seconds:g} s")

    def _sessions_at_postgres(self, program: Program) -> list[PostgresSession]:
        found = self.proxies[POSTGRES].sessions
        return [one for one in found if isinstance(one, PostgresSession) and one.program is program]

    async def _database_dies(self) -> None:
        self.count("PostgreSQL killed")
        self._database_away += 1
        await self.machines.postgres_dies()
        self.note(POSTGRES, "is killed")
        self._begin(self._database_rises())

    async def _database_rises(self) -> None:
        try:
            await asyncio.sleep(DATABASE_AWAY_SECONDS)
            seconds = await self.machines.postgres_rises()
            self.proxies[POSTGRES].behind = (
                self.machines.cluster.address.host,
                self.machines.cluster.address.port,
            )
            self.note(POSTGRES, f"is back after {seconds:.1f} s")
        finally:
            self._database_away -= 1
            self.moved()
        self._look("after the database")

    def _look(self, when: str) -> None:
        """What must be true of our rows at any moment."""
        if not self._database_away:
            found = half_done(self.machines.books)
            self.world.mistakes.extend(f"{sentence} ({when})" for sentence in found)

    def _told(self, program: Program, said: str) -> None:
        self.moved()
        self.note(program.name, f"{said} (life {program.lives})")
        if said.startswith("ended"):
            if program.served or not self._database_broke():  # without a database none starts; it is started again
                self.world.mistakes.append(f"{program.name} {said} by itself")
            program.stays_down = program.lives > LIVES_MAX
        if program.pid == 0 and not program.stays_down:
            self._begin(self._start_again(program))

    def _database_broke(self) -> bool:
        return bool(self.ground.counts["PostgreSQL killed"] or self.ground.counts["cut at postgres"])

    async def _start_again(self, program: Program) -> None:
        pause = chance(self.ground.seed, "pause", program.name, program.lives) ** 3 * PAUSE_SECONDS_MAX
        await self.sleep(pause)
        if not program.stays_down:
            self.programs.start(program)

    async def forgettings(self) -> None:
        """Redis loses everything, alive or by its death."""
        begin = self.clock.now()
        for seconds, dies in self.plan.forgettings:
            await self.pace.until(begin + timedelta(seconds=seconds))
            self.count("Redis emptied")
            self.note("redis", "is killed" if dies else "is emptied")
            if dies:
                self.machines.redis.kill()
                await asyncio.sleep(0.05)
                self.machines.redis.start()
            else:
                self.machines.redis.empty()

    def unanswered(self, peer: str, call: str, key: str) -> None:
        if peer != FRONT:
            self.note(peer, f"has not answered {call} {key}")
            self.world.unanswered.unknown[f"{peer}.{call}", key] += 1
            self.world.unanswered.words["outcome unknown"] += 1

    # ------------------------------------------------------------ the end

    def becomes_calm(self) -> None:
        """Nothing goes wrong any more."""
        self.ground.counts["strikes that never came"] += self.strikes.left()
        self.calm = True
        self.world.faults.clear()
        self.strikes.clear()

    def read_log(self) -> None:
        """Errors that our programs met and did not expect."""
        excuses = []
        if self._database_broke():
            excuses.append(BROKEN)
        if self.ground.counts["pauses"]:
            excuses.append(TOO_LATE)
        for line in _json_lines(self.log):
            if line.get("level") not in ("error", "critical"):
                continue
            text = " ".join([f"{line.get('program')}: {line.get('event')}", *line.get("error_lines", [])[-1:]])
            self.count(f"error in a program: {line.get('event')}")
            self.lines.append(f"          log {text}")
            said = " ".join([text, *line.get("error_lines", [])[-40:]])
            if not any(excuse.search(said) for excuse in excuses):
                self.world.mistakes.append(text)

    def write_rows_down(self) -> None:
        """For whoever reads the trace: how our rows ended."""
        for table, columns in ROWS.items():
            for row in self.machines.books.query(f"SELECT {columns} FROM {table} ORDER BY {table}.id"):
                self.lines.append(f"          {table} {' '.join(map(str, row))}")

    def draw(self, use: str) -> random.Random:
        return random.Random(f"{self.ground.seed}/{use}")


class Front(Proxy):
    """In front of the web programs: each connection leads to one that serves."""

    def place(self, session: Session, port: int) -> tuple[str, int] | None:
        town = cast(Town, self.street)
        serving = town.programs.serving()
        if not serving:
            return None
        session.program = serving[(town.pace.traffic + len(self.sessions)) % len(serving)]
        return LOOPBACK, session.program.port


def _classify(request: Request) -> tuple[str, str]:
    for pattern, call in CALL_OF_PATH:
        if pattern.search(request.path):
            return call, ""
    return request.path, ""


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                yield {"level": "error", "program": "?", "event": line[:500]}


__all__ = ["Day", "Faults", "NoAnswer", "Town"]
