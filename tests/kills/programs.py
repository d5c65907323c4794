"""The product's programs as processes: ordered from the fork server, killed, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.child_processes import free_port
from tests.kills.children import BELL, WEB, WORKER
from tests.kills.forking import MESSAGE_BYTES_MAX

WARM_SECONDS = 120.0
END_SECONDS = 20.0
LOG_LEVEL = 30  # warnings


@dataclass
class Program:
    """One of them; it may live many times."""

    name: str
    kind: str
    port: int = 0
    pid: int = 0  # 0: not running
    ready: bool = False
    served: bool = False  # in this life
    lives: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stays_down: bool = False
    paused: bool = False


class ForkServer:
    """One that somebody has started, at the other end of this socket."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control

    def wait(self) -> None:
        """Until it is warm."""
        self.control.settimeout(WARM_SECONDS)
        if not self.control.recv(MESSAGE_BYTES_MAX):
            raise RuntimeError("the fork server does not start")
        self.control.setblocking(False)

    def order(self, **values: Any) -> None:
        self.control.send(json.dumps(values).encode())

    def close(self) -> None:
        """It kills whatever still runs, and ends."""
        self.control.settimeout(END_SECONDS)
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)
            while self.control.recv(MESSAGE_BYTES_MAX):
                pass
        self.control.close()


@dataclass
class Programs:
    """Those of one day."""

    server: ForkServer
    environment: Mapping[str, str]
    log: Path
    due: Path  # which tables have something due, for the bell
    mutation: str
    told: Callable[[Program, str], None]  # every change in a program's life
    all: list[Program] = field(default_factory=list)
    _starting: dict[str, Program] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asyncio.get_running_loop().add_reader(self.server.control, self._hear)

    def add(self, name: str, kind: str) -> None:
        self.all.append(Program(name, kind, port=free_port() if kind == WEB else 0))

    def start(self, program: Program) -> None:
        program.lives += 1
        program.served = False
        program.ended.clear()
        self._starting[program.name] = program
        self.server.order(
            name=program.name,
            kind=program.kind,
            log=str(self.log),
            log_level=LOG_LEVEL,
            mutation=self.mutation,
            due=str(self.due),
            programs=len(self.all),
            environment={**self.environment, "ZHENFU_PORT": str(program.port)},
        )

    def of(self, pid: int | None) -> Program | None:
        return next((program for program in self.all if pid and program.pid == pid), None)

    def pids(self) -> list[int]:
        return [program.pid for program in self.all if program.pid]

    def serving(self) -> list[Program]:
        return [program for program in self.all if program.kind == WEB and program.ready and not program.paused]

    def working(self) -> list[Program]:
        return [one for one in self.all if one.kind == WORKER and one.pid and one.ready and not one.paused]

    def ring(self, tables: Iterable[str]) -> None:
        """Workers look at these again."""
        fresh = self.due.with_suffix(".new")
        fresh.write_text(" ".join(tables))
        fresh.replace(self.due)
        for program in self.working():
            os.kill(program.pid, BELL)

    def starting(self) -> bool:
        return bool(self._starting) or any(program.pid and not program.ready for program in self.all)

    async def kill(self, program: Program) -> None:
        """Returns when it is gone: nothing more comes from it."""
        if program.pid:
            os.kill(program.pid, signal.SIGKILL)
            await asyncio.wait_for(program.ended.wait(), END_SECONDS)

    def pause(self, program: Program) -> None:
        """It stands still until it goes on: SIGSTOP."""
        program.paused = True
        os.kill(program.pid, signal.SIGSTOP)

    def go_on(self, program: Program) -> None:
        program.paused = False
        if program.pid:
            os.kill(program.pid, signal.SIGCONT)

    async def end(self) -> None:
        """All of them, for good."""
        for program in self.all:
            program.stays_down = True
        while self._starting:
            await asyncio.sleep(0.005)
        for program in self.all:
            await self.kill(program)
        asyncio.get_running_loop().remove_reader(self.server.control)

    def _hear(self) -> None:
        while True:
            try:
                message = self.server.control.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            if not message:
                raise RuntimeError("the fork server is gone")
            self._note(json.loads(message))

    def _note(self, message: dict[str, Any]) -> None:
        said = message["said"]
        program = self._starting.pop(message.get("name", ""), None) if said != "ended" else None
        if program is not None:  # whichever is heard first: the server's word, or the child's that it is ready
            program.pid, program.ready = message["pid"], False
        program = program or self.of(message["pid"])
        if program is None:
            return
        if said == "ready":
            program.ready = program.served = True
        elif said == "ended":
            said = "was killed" if message["status"] == -signal.SIGKILL else f"ended with {message['status']}"
            program.pid, program.ready, program.paused = 0, False, False
            program.ended.set()
        self.told(program, said)
