"""What the programs stand on, one set for each run of seeds: PostgreSQL, Redis, the fork server; and how they die."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis
from yarl import URL

from core.keyring import Keyring
from runtime.child_processes import LOOPBACK, dies_with_us, free_port
from runtime.embedded_postgres import EmbeddedPostgres
from runtime.embedded_redis import answers
from simulators.wechatpay import WechatPaySimulator
from tests.crash.database import Place, Postgres
from tests.crash.world import Stage
from tests.kills.prepared import DATABASE, Prepared, a_copy, prepare
from tests.kills.programs import END_SECONDS, ForkServer

KEYS = {"k1": b"1" * 32}
LOOKUP_KEY = b"2" * 32
SESSION_KEY = b"3" * 32
REDIS_START_SECONDS = 10.0
PARAMS = ("chat_account", "merchant_account")
SETTINGS = {
    "synchronous_commit": "on",  # what was committed survives the server's death, if not the computer's
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}


class Books(Postgres):
    """The database seen from beside, as the oracle asks for it; it goes on after the server has died."""

    def _settle(self) -> None:
        (name,) = self._one("SELECT quote_ident(current_database())")
        for setting, value in SETTINGS.items():
            self._control.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")

    def again(self) -> None:
        with suppress(psycopg.Error):
            self._control.close()
        self._control = psycopg.connect(self.place.superuser_dsn, autocommit=True)
        self._control.execute("SET session_replication_role = replica")

    def empty(self) -> None:
        """The dead may still hold what they had when they died: their sessions end first."""
        self._control.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()"
        )
        super().empty()


class Redis:
    """A real redis-server that keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is missing; `make test` installs Debian's redis-server")
        self._process = subprocess.Popen(
            [program, "--bind", LOOPBACK, "--port", str(self.port), "--save", "", "--appendonly", "no"],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dies_with_us(signal.SIGKILL),
        )

    def wait(self) -> None:
        assert self._process is not None
        if not answers(self.port, self._process, REDIS_START_SECONDS):
            raise RuntimeError("redis-server does not start")

    def empty(self) -> None:
        with redis.Redis(LOOPBACK, self.port) as client:
            client.flushall()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0


@dataclass(frozen=True, kw_only=True)
class Machines:
    """All of it, warm."""

    cluster: EmbeddedPostgres
    books: Books
    redis: Redis
    forks: ForkServer
    stage: Stage
    keyring: Keyring
    folder: Path
    starter: ThreadPoolExecutor  # one thread that lives as long as the servers it has started

    def environment(self, *, postgres_port: int, front_port: int) -> dict[str, str]:
        return environment(self.folder, self.books.place.app_dsn, self.redis.port, postgres_port, front_port)

    def postmaster(self) -> int:
        return int((self.cluster.folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    async def postgres_dies(self) -> None:
        """At once; it starts again as soon as it can."""
        os.kill(self.postmaster(), signal.SIGKILL)

    async def postgres_rises(self) -> float:
        """Seconds until it answered again."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.starter, lambda: self.cluster.start(die_with_us=True))
        self.books.again()
        return time.monotonic() - began


def environment(
    folder: Path | str, database_url: str, redis_port: int, postgres_port: int, front_port: int
) -> dict[str, str]:
    """The settings of every program, as an operator would give them; the database is reached by another port."""
    address = URL(database_url).with_port(postgres_port)
    return {
        "DATABASE_URL": str(address),
        "REDIS_URL": f"redis://{LOOPBACK}:{redis_port}/0",
        "ZHENFU_DEPLOYMENT_ID": "kills",
        "ZHENFU_KEYS": " ".join(f"{name}:{b64encode(key).decode()}" for name, key in KEYS.items()),
        "ZHENFU_LOOKUP_KEY": b64encode(LOOKUP_KEY).decode(),
        "ZHENFU_SESSION_KEY": b64encode(SESSION_KEY).decode(),
        "ZHENFU_PUBLIC_URL": f"http://{LOOPBACK}:{front_port}",
        "ZHENFU_CLOCK_OFFSET_FILE": str(Path(folder) / "offset"),
        "ZHENFU_POOL_MAX": "4",
    }


@contextmanager
def a_set_of_machines() -> Iterator[Machines]:
    """All by itself: what is shared by the machines of many processes is made for these alone."""
    with ExitStack() as stack:
        (control,) = stack.enter_context(fork_servers(1))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zhenfu-kills-")))
        prepare(folder)
        yield stack.enter_context(machines_of(Prepared.read(folder), control))


@contextmanager
def machines_of(prepared: Prepared, control: socket.socket) -> Iterator[Machines]:
    """Everything that seeds share; gone afterwards, however this process ends. `control` leads to a fork server."""
    with ExitStack() as stack:
        starter = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zhenfu-kills-")))
        redis_server = Redis(folder)
        redis_server.start()
        stack.callback(redis_server.kill)
        cluster = _in(starter, stack, a_copy(prepared))
        books = Books(Place(cluster.dsn(DATABASE), cluster.superuser_dsn(DATABASE)))
        books.again()
        stack.callback(books.close)
        forks = ForkServer(control)
        stack.callback(forks.close)
        redis_server.wait()
        forks.wait()
        yield Machines(
            cluster=cluster,
            books=books,
            redis=redis_server,
            forks=forks,
            stage=prepared.stage,
            keyring=Keyring(current="k1", keys=KEYS, lookup_key=LOOKUP_KEY),
            folder=folder,
            starter=starter,
        )


@contextmanager
def fork_servers(count: int) -> Iterator[list[socket.socket]]:
    """So many, warmed as one; what is yielded leads to one each, and each ends when nobody holds its socket."""
    merchant = WechatPaySimulator(clock=_Never(), seed=1).add_merchant("1900000109", appids=set())
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
    theirs = [pair[1] for pair in pairs]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kills.forking", *(str(one.fileno()) for one in theirs)],
        pass_fds=[one.fileno() for one in theirs],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=dies_with_us(signal.SIGKILL),
    )
    try:
        for one in theirs:
            one.close()
        controls = [pair[0] for pair in pairs]
        warm = {
            "environment": environment("nowhere", "postgres://u@h/d", 1, 1, 1),
            "private_key": merchant.private_key_pem,
        }
        controls[0].send(json.dumps(warm).encode())
        yield controls
    finally:
        for pair in pairs:
            pair[0].close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=END_SECONDS)
        process.kill()
        process.wait()


def move_addresses(books: Books, keyring: Keyring, addresses: dict[str, str]) -> None:
    """Point the rows of this morning at the proxies; `addresses` by the host that they name now."""
    ((old,),) = books.query("SELECT base_url FROM hospital_site")
    books.execute("UPDATE hospital_site SET base_url = %s", addresses[old])
    for table in PARAMS:
        for row_id, sealed in books.query(f"SELECT id, params_enc FROM {table}"):
            params: dict[str, Any] = keyring.decrypt_json(sealed, place=f"{table}.params")
            params["base_url"] = addresses[params["base_url"]]
            fresh = keyring.encrypt_json(params, place=f"{table}.params")
            books.execute(f"UPDATE {table} SET params_enc = %s WHERE id = %s", fresh, row_id)


class _Never:
    """A clock for a simulator that only makes a key."""

    def now(self) -> Any:
        from datetime import UTC, datetime

        return datetime(2026, 3, 2, tzinfo=UTC)


def _in(thread: ThreadPoolExecutor, stack: ExitStack, manager: Any) -> Any:
    """Enter and leave a context manager in that thread."""
    entered = thread.submit(manager.__enter__).result()
    stack.callback(lambda: thread.submit(manager.__exit__, None, None, None).result())
    return entered


__all__ = ["Books", "Machines", "Redis", "a_set_of_machines", "json", "move_addresses"]
