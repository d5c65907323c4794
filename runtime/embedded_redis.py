"""A Redis of our own on loopback for the sandbox: fakeredis behind its TCP server, as a process of its own.

It forgets everything when it stops. That is a promise kept, not a shortcoming: Redis may be emptied at any
moment without losing a fen.
"""

from __future__ import annotations

import subprocess
import sys
import time

import redis

from runtime.child_processes import LOOPBACK, Address, dies_with_us, free_port

_START_SECONDS = 20.0
_START_TRIES = 3


class EmbeddedRedisError(Exception):
    """The embedded Redis could not be started; the message says why."""


class EmbeddedRedis:
    """One server process; it ends when we stop it or when our thread ends."""

    def __init__(self, port: int | None = None) -> None:
        self._wanted_port = port
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Launch it on the wanted port if that is free, else on any, and do not wait: `start` does."""
        self._port = free_port(self._wanted_port)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runtime.embedded_redis", str(self._port)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is the sandbox's to handle, in its own order
            preexec_fn=dies_with_us(),
        )

    def start(self) -> Address:
        """Launch it unless it has begun already, and wait until it answers; it may be launched again."""
        for _ in range(_START_TRIES):
            if self._process is None:
                self.begin()
            assert self._process is not None
            if answers(self._port, self._process, _START_SECONDS):
                return Address(LOOPBACK, self._port)
            self.stop()
        raise EmbeddedRedisError("the embedded Redis does not start")

    def runs(self) -> bool:
        """False when it has died; `start` then launches it again, on the same port if that is still free."""
        if self._process is not None and self._process.poll() is not None:
            self._process, self._wanted_port = None, self._port
        return self._process is not None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # it has nothing to save
            self._process.wait()
            self._process = None


def answers(port: int, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until the Redis on this port answers; False when its process ends first or time is up."""
    deadline = time.monotonic() + seconds
    with redis.Redis(LOOPBACK, port, socket_timeout=1, socket_connect_timeout=1) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return process.poll() is None
    return False


def _serve(port: int) -> None:
    from fakeredis import TcpFakeServer  # an extra: only this process needs it

    TcpFakeServer((LOOPBACK, port), server_type="redis", server_version=(7,)).serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
