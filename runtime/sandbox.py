"""`zhenfu sandbox`: the whole hospital on this computer, without a key, an account or a network.

Everything listens on loopback, and whoever uses this computer may do everything. Only when a person lets real phones
in, the page and the simulated phones' browsers listen on one address of this computer in the local network instead;
the product and its counterparties never do. Then a secret, new at each start, stands in the printed address and its
code: who opened that may press everything on the page, anybody else is turned away. The phones' browsers open the
product's pages and the platform's sign-in only, in either case.

A PostgreSQL and a Redis of its own, the web process, the worker, every counterparty and the page. The
counterparties' books live in memory, so each start begins with an empty database that agrees with them; keys
and the migrated template of the database are kept in the sandbox's folder.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigurationError
from core.keyring import KEY_BYTES, Keyring
from runtime import logs
from runtime.child_processes import LOOPBACK, Address
from runtime.embedded_postgres import APP_ROLE, OWNER_ROLE, EmbeddedPostgres, EmbeddedPostgresError
from runtime.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from runtime.sandbox_lan import for_real_phones, lan_address, with_door
from runtime.sandbox_places import CONSOLE_PORT, Places
from runtime.settings import Settings
from runtime.supervisor import NotStarted, Program, Ready, Supervisor

log = logging.getLogger("zhenfu.sandbox")

DATABASE = "zhenfu_sandbox"
TEMPLATE_PREFIX = "zhenfu_template_"
DOOR_BYTES = 16
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
MIGRATIONS = Path(__file__).parents[1] / "core" / "migrations"


def run(folder: Path, *, port: int = CONSOLE_PORT, lan: str = "", verbose: bool = False) -> int:
    """Start everything, print the page's address, run until Ctrl-C. Returns the exit code.

    `lan` lets real phones in: "1", or the address of this computer that they reach.

    Raises ConfigurationError with one sentence when it cannot start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder), ExitStack() as stack:
        log_path = None if verbose else log_file(folder)
        if log_path:
            log_path.write_text("")
        logs.to("sandbox", file=log_path, human=True)
        keys = SandboxKeys.of(folder)
        places = Places.reserved(port, page_host=lan_address(lan) if lan else LOOPBACK)
        door = secrets.token_urlsafe(DOOR_BYTES) if lan else ""
        stack.callback(places.close)
        stack.enter_context(_forget_after_power_loss(folder))
        postgres = EmbeddedPostgres(folder / "postgres", durable=False)
        redis = EmbeddedRedis()
        stack.callback(postgres.stop)
        stack.callback(redis.stop)
        try:
            redis.begin()
            postgres.start(die_with_us=True)
            _fresh_database(postgres, keys)
            programs = _programs(folder, keys, postgres, redis, places, door, log_path)
        except (EmbeddedPostgresError, EmbeddedRedisError) as error:
            raise ConfigurationError(str(error)) from error
        supervisor = Supervisor(programs, stop_seconds=STOP_SECONDS)
        stack.callback(supervisor.stop)
        supervisor.start()
        try:
            supervisor.wait_until_ready(READY_SECONDS)
        except NotStarted as error:
            raise ConfigurationError(f"{error}; see {log_file(folder)}") from error
        (folder / "address").write_text(f"{places.url(places.console)}\n")
        print(with_door(places.url(places.console), "/", door), flush=True)  # noqa: T201 (all one needs)
        if lan:
            print(for_real_phones(places.url(places.console), door), flush=True)  # noqa: T201
        return supervisor.run(_Keeper(postgres, redis).tick)


def log_file(folder: Path) -> Path:
    """Where the sandbox's programs write what they do."""
    return folder / "zhenfu.log"


def default_folder() -> Path:
    """Beside the code or in the user's data; for root, where PostgreSQL's unprivileged user can reach it."""
    here = Path.cwd() / ".sandbox"
    if os.geteuid() == 0:
        return here if _open_to_all(Path.cwd()) else Path("/var/lib/zhenfu-sandbox")
    if os.access(Path.cwd(), os.W_OK):
        return here
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "zhenfu" / "sandbox"


def _open_to_all(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """A second sandbox would empty the database under the first one's feet."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            address = folder / "address"
            where = f" at {address.read_text().strip()}" if address.exists() else ""
            raise ConfigurationError(f"a sandbox already runs in {folder}{where}") from None
        try:
            yield
        finally:
            (folder / "address").unlink(missing_ok=True)


@contextmanager
def _forget_after_power_loss(folder: Path) -> Iterator[None]:
    """The database does without fsync, because a start empties it anyway and should take a second less.

    Only a computer that stops without warning can harm it: then the whole cluster is made anew.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    running = folder / "running-since-boot"
    if running.exists() and running.read_text() != boot:
        shutil.rmtree(folder / "postgres", ignore_errors=True)
    running.write_text(boot)
    yield
    running.unlink()  # reached only when PostgreSQL has been stopped


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxKeys:
    """The sandbox's own keys; made once, readable by their owner alone."""

    deployment_id: str
    key: bytes
    lookup_key: bytes
    session_key: bytes

    @classmethod
    def of(cls, folder: Path) -> SandboxKeys:
        path = folder / "keys.json"
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            stored = {"deployment_id": f"sandbox-{secrets.token_hex(4)}"} | {
                name: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
                for name in ("key", "lookup_key", "session_key")
            }
            fresh = path.with_suffix(".new")
            with suppress(FileNotFoundError):
                fresh.unlink()
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(stored, file)
            fresh.rename(path)
        return cls(
            deployment_id=stored["deployment_id"],
            key=base64.b64decode(stored["key"]),
            lookup_key=base64.b64decode(stored["lookup_key"]),
            session_key=base64.b64decode(stored["session_key"]),
        )

    def keyring(self) -> Keyring:
        return Keyring(current="sandbox", keys={"sandbox": self.key}, lookup_key=self.lookup_key)


def _fresh_database(postgres: EmbeddedPostgres, keys: SandboxKeys) -> None:
    """An empty migrated database, copied from a template that is made once for these migrations and keys."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(MIGRATIONS.glob("*.py")):
        digest.update(file.read_bytes())
    digest.update(keys.key + keys.deployment_id.encode())
    template = TEMPLATE_PREFIX + digest.hexdigest()
    postgres.drop_database(DATABASE)
    if not postgres.has_database(template):
        _drop_old_templates(postgres)
        unfinished = TEMPLATE_PREFIX + "new"
        postgres.create_database(unfinished)
        asyncio.run(_migrate(postgres.dsn(unfinished, OWNER_ROLE), keys))
        with postgres.superuser() as connection:
            connection.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{template}"')
    postgres.create_database(DATABASE, template=template)


def _drop_old_templates(postgres: EmbeddedPostgres) -> None:
    with postgres.superuser() as connection:
        names = connection.execute("SELECT datname FROM pg_database").fetchall()
    for (name,) in names:
        if name.startswith(TEMPLATE_PREFIX):
            postgres.drop_database(name)


async def _migrate(owner_url: str, keys: SandboxKeys) -> None:
    from runtime.database import migrate
    from runtime.setup import mark_deployment

    await migrate(owner_url)
    await mark_deployment(owner_url, keys.deployment_id, keys.keyring())


def _settings(folder: Path, keys: SandboxKeys, postgres: EmbeddedPostgres, redis: Address, product: str) -> Settings:
    offset = folder / "clock-offset"
    offset.write_text("0")
    host, _, port = product.partition("//")[2].partition(":")
    return Settings(
        database_url=postgres.dsn(DATABASE, APP_ROLE),
        owner_database_url=postgres.dsn(DATABASE, OWNER_ROLE),
        deployment_id=keys.deployment_id,
        redis_url=f"redis://{redis.host}:{redis.port}/0",
        public_url=product,
        host=host,
        port=int(port),
        keys={"sandbox": keys.key},
        current_key="sandbox",
        lookup_key=keys.lookup_key,
        session_key=keys.session_key,
        clock_offset_file=offset,
    )


def _programs(
    folder: Path,
    keys: SandboxKeys,
    postgres: EmbeddedPostgres,
    redis: EmbeddedRedis,
    places: Places,
    door: str,
    log_path: Path | None,
) -> list[Program]:
    """The three programs; what they import takes longest, so Redis starts meanwhile."""
    from runtime.programs import run_server, run_worker
    from runtime.sandbox_world import run_world

    settings = _settings(folder, keys, postgres, redis.start(), places.url(places.product))

    def program(name: str, run: Callable[[Ready], None], *, restarts: bool = True) -> Program:
        def with_log(ready: Ready) -> None:
            logs.to(name, file=log_path, human=True)
            run(ready)

        return Program(name=name, run=with_log, restarts=restarts)

    return [
        # With the world its books are gone, and ours would no longer agree with them: no restart.
        program("world", lambda ready: run_world(settings, places, door, ready), restarts=False),
        program("web", lambda ready: run_server(settings, ready, programs=2)),
        program("worker", lambda ready: run_worker(settings, ready, programs=2)),
    ]


class _Keeper:
    """Starts PostgreSQL and Redis again when somebody has killed one, to see what happens."""

    def __init__(self, postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
        self._postgres = postgres
        self._redis = redis

    def tick(self) -> None:
        if not self._redis.runs():
            log.warning("redis_started_again")
            with suppress(EmbeddedRedisError):
                self._redis.start()
        address = self._postgres.address
        try:
            socket.create_connection((address.host, address.port), timeout=1).close()
        except OSError:
            log.warning("postgres_started_again")
            with suppress(EmbeddedPostgresError):
                self._postgres.start(die_with_us=True)
