"""A warm fork server: a process that has imported everything, so that a new program runs within a tenth of a second.

Run as `python -m tests.kills.forking FD`. It has one thread and no event loop. It speaks JSON over a socket that keeps
messages apart; a child announces itself there too, and its end is told by whoever has waited for it. When this server
dies its children do, and it dies with the process that started it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from runtime.child_processes import dies_with_us
from tests.kills.children import BELL, prepare, run

MESSAGE_BYTES_MAX = 1 << 16


def main() -> NoReturn:
    control = socket.socket(fileno=int(sys.argv[1]))
    children: set[int] = set()
    wake, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    while True:
        readable, _, _ = select.select([control.fileno(), wake], [], [])
        if control.fileno() in readable:
            message = control.recv(MESSAGE_BYTES_MAX)
            if not message:
                _end(children)
            order = json.loads(message)
            if order["do"] == "warm":
                _warm(control, order)
            else:
                children.add(_fork(control, order))
        if wake in readable:
            os.read(wake, 1024)
            for pid, status in _ended(children):
                children.discard(pid)
                tell(control, said="ended", pid=pid, status=status)


def tell(control: socket.socket, **message: Any) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        control.send(json.dumps(message).encode())


def _warm(control: socket.socket, order: Mapping[str, Any]) -> None:
    prepare(order["environment"], order["private_key"])
    gc.collect()
    gc.freeze()
    tell(control, said="warm", pid=os.getpid())


def _end(children: set[int]) -> NoReturn:
    """Nobody orders any more."""
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _ended(children: set[int]) -> list[tuple[int, int]]:
    found = []
    for pid in children:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


def _fork(control: socket.socket, order: dict[str, Any]) -> int:
    """A new program; the order says which."""
    dies = dies_with_us(signal.SIGKILL)
    pid = os.fork()
    if pid:
        tell(control, said="started", name=order["name"], pid=pid)
        return pid
    code = 1
    try:
        dies()
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(BELL, signal.SIG_IGN)  # until there is somebody to wake
        run(order, lambda: tell(control, said="ready", name=order["name"], pid=os.getpid()))
        code = 0
    except BaseException as error:
        line = {"level": "error", "program": order["name"], "event": f"ended by itself: {error!r}"}
        with Path(order["log"]).open("a") as log:
            log.write(json.dumps(line) + "\n")
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
