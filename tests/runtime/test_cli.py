"""The commands as an operator runs them: real processes, one-line errors, exit codes, graceful ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import asyncpg
import pytest

from tests.runtime.environment import environment, key, marked
from tests.support.command import zhenfu
from tests.support.postgres import Database
from tests.support.redis import RedisServer

MISCONFIGURED = 78
START_SECONDS = 40.0

pytestmark = pytest.mark.timeout(120)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error of a command that refused."""
    assert done.returncode == MISCONFIGURED, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("zhenfu: ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A command that runs until it is told to stop."""

    def __init__(self, folder: Path, values: Mapping[str, str], *arguments: str) -> None:
        self.log = folder / f"{arguments[0]}.log"
        self._file: IO[bytes] = self.log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime.cli", *arguments],
            env={"PATH": os.environ["PATH"], **values},
            stdout=self._file,
            stderr=self._file,
        )

    def lines(self, event: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in found if line["event"] == event]

    def wait_for(self, event: str, *, count: int = 1) -> list[dict[str, object]]:
        deadline = time.monotonic() + START_SECONDS
        while len(found := self.lines(event)) < count:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()


@pytest.fixture
async def values(database: Database, redis_server: RedisServer) -> dict[str, str]:
    """The environment of a deployment that can start."""
    values = environment(database, REDIS_URL=redis_server.url, ZHENFU_PORT=str(free_port()))
    await marked(database, values)
    return values


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[list[Program]]:
    begun: list[Program] = []
    yield begun
    for program in begun:
        program.close()


# ---------------------------------------------------------------- refusing to start


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_without_a_database_url_nothing_starts(command: str) -> None:
    assert complaint(zhenfu({"ZHENFU_KEYS": f"k1:{key('a')}"}, command)).startswith("DATABASE_URL is not set: ")


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_somebody_elses_database_is_left_alone(values: dict[str, str], command: str) -> None:
    values["ZHENFU_DEPLOYMENT_ID"] = "another"
    assert complaint(zhenfu(values, command)) == (
        "the database belongs to deployment 'renhe-test', ZHENFU_DEPLOYMENT_ID says 'another'"
    )


async def test_a_lost_key_is_noticed_before_anything_is_written(values: dict[str, str]) -> None:
    values["ZHENFU_KEYS"] = f"k1:{key('z')}"
    assert complaint(zhenfu(values, "worker")).startswith("ZHENFU_KEYS do not open what this database holds")


async def test_without_redis_a_deployment_does_not_start(values: dict[str, str]) -> None:
    del values["REDIS_URL"]
    assert complaint(zhenfu(values, "serve")).startswith("REDIS_URL is not set: ")


async def test_an_unmigrated_database_is_told_to_be_migrated(
    empty_database: Database, redis_server: RedisServer
) -> None:
    done = zhenfu(environment(empty_database, REDIS_URL=redis_server.url), "serve")
    assert complaint(done) == "the database has no tables of ours yet: run `zhenfu migrate`"


async def test_a_port_in_use_is_said(values: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        values["ZHENFU_PORT"] = str(taken.getsockname()[1])
        assert complaint(zhenfu(values, "serve")) == (
            f"cannot listen on 127.0.0.1:{values['ZHENFU_PORT']}: Address already in use"
        )


def test_wrong_usage_is_exit_code_2() -> None:
    assert zhenfu({}, "serve", "--processes", "0").returncode == 2


def test_the_version_needs_no_settings() -> None:
    command = [sys.executable, "-m", "runtime.cli", "version"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("zhenfu ")


# ---------------------------------------------------------------- migrating


async def test_migrate_makes_a_database_ours_and_may_be_repeated(
    empty_database: Database, redis_server: RedisServer
) -> None:
    values = environment(empty_database, REDIS_URL=redis_server.url, ZHENFU_OWNER_DATABASE_URL=empty_database.owner_dsn)
    for _ in range(2):
        done = zhenfu(values, "migrate")
        assert (done.returncode, done.stdout) == (0, "the database of renhe-test is up to date\n"), done.stderr
    connection = await asyncpg.connect(empty_database.app_dsn)
    try:
        assert await connection.fetchval("SELECT deployment_id FROM deployment") == "renhe-test"
    finally:
        await connection.close()


async def test_migrate_leaves_somebody_elses_database_alone(values: dict[str, str], database: Database) -> None:
    values |= {"ZHENFU_DEPLOYMENT_ID": "another", "ZHENFU_OWNER_DATABASE_URL": database.owner_dsn}
    assert complaint(zhenfu(values, "migrate")).startswith("the database belongs to deployment 'renhe-test'")


async def test_migrate_wants_the_owners_address_of_the_same_database(
    values: dict[str, str], database: Database
) -> None:
    assert complaint(zhenfu(values, "migrate")).startswith("ZHENFU_OWNER_DATABASE_URL is not set: ")
    values["ZHENFU_OWNER_DATABASE_URL"] = database.owner_dsn + "_other"
    assert complaint(zhenfu(values, "migrate")).endswith("name different databases")


# ---------------------------------------------------------------- serving and working


def answer(values: Mapping[str, str], path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{values['ZHENFU_PORT']}{path}", timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_serve_answers_from_every_process_replaces_the_dead_and_stops_in_peace(
    values: dict[str, str], tmp_path: Path, programs: list[Program]
) -> None:
    programs.append(server := Program(tmp_path, values, "serve", "--processes", "2"))
    first = {line["pid"] for line in server.wait_for("serving", count=2)}
    assert len(first) == 2
    assert {answer(values, "/health/ready") for _ in range(20)} == {200}
    os.kill(int(str(min(first, key=str))), signal.SIGKILL)
    assert len({line["pid"] for line in server.wait_for("serving", count=3)}) == 3
    assert {answer(values, "/health/ready") for _ in range(20)} == {200}
    assert server.stop() == 0
    assert server.lines("program_died")[0]["exit_code"] == -9


async def test_a_worker_works_and_stops_in_peace(
    values: dict[str, str], tmp_path: Path, programs: list[Program]
) -> None:
    programs.append(worker := Program(tmp_path, values, "worker"))
    worker.wait_for("working")
    worker.wait_for("housekeeping")
    assert worker.stop() == 0
    assert not worker.lines("program_died")


async def test_the_doctor_ends_with_1_and_speaks_json(values: dict[str, str]) -> None:
    done = zhenfu(values, "doctor", "--json", "--offline")
    assert done.returncode == 1, done.stderr  # the tests' PostgreSQL does without fsync
    states = {line["name"]: line["state"] for line in json.loads(done.stdout)}
    assert states["deployment"] == "ok"
    assert states["durability"] == "fail"


async def test_a_hospital_that_is_not_there_is_said(values: dict[str, str]) -> None:
    assert complaint(zhenfu(values, "hospital", "check", "nowhere")) == "there is no institution 'nowhere'"
