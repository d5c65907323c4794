"""A real redis-server on a free loopback port, keeping nothing on disk; with or without pytest."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from runtime.child_processes import LOOPBACK, dies_with_us, free_port
from runtime.embedded_redis import answers

_START_TRIES = 3
_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RedisServer:
    host: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def empty(self) -> None:
        with redis.Redis(self.host, self.port) as client:
            client.flushall()


@contextmanager
def a_redis_server() -> Iterator[RedisServer]:
    """Running and empty; gone afterwards, also when this process is killed."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is missing; `make test` installs Debian's redis-server")
    with tempfile.TemporaryDirectory(prefix="zhenfu-redis-") as folder:
        server = _start(program, folder)
        try:
            yield server
        finally:
            server.process.kill()
            server.process.wait()


def _start(program: str, folder: str) -> RedisServer:
    for _ in range(_START_TRIES):
        port = free_port()
        process = subprocess.Popen(
            [program, "--bind", LOOPBACK, "--port", str(port), "--save", "", "--appendonly", "no"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dies_with_us(),
        )
        if answers(port, process, _START_SECONDS):
            return RedisServer(LOOPBACK, port, process)
        process.kill()
        process.wait()
    raise RuntimeError("redis-server does not start")
