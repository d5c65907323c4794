"""A warm fork server: a process that has imported everything, so that a new program runs within a tenth of a second.

Run as `python -m tests.kills.forking FD …`: one server for each of these sockets, all copies of the first one. A
server has one thread and no event loop. It speaks JSON over its socket, which keeps messages apart; a child announces
itself there too, and its end is told by whoever has waited for it. When a server dies its children do, and it ends
when nobody holds the other end of its socket.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from runtime.child_processes import dies_with_us
from tests.kills.children import BELL, prepare, run

MESSAGE_BYTES_MAX = 1 << 16


def main() -> NoReturn:
    controls = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
    first = controls[0].recv(MESSAGE_BYTES_MAX)
    if not first:
        os._exit(0)
    order = json.loads(first)
    prepare(order["environment"], order["private_key"])
    gc.collect()
    gc.freeze()
    serve(_one_of(controls))


def _one_of(controls: list[socket.socket]) -> socket.socket:
    """The first one's for us; a copy of us for each other one."""
    for control in controls[1:]:
        if os.fork() == 0:
            mine = control
            break
    else:
        mine = controls[0]
    for control in controls:
        if control is not mine:
            control.close()
    return mine


def serve(control: socket.socket) -> NoReturn:
    children: set[int] = set()
    wake, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    tell(control, said="warm", pid=os.getpid())
    while True:
        readable, _, _ = select.select([control.fileno(), wake], [], [])
        if control.fileno() in readable:
            message = control.recv(MESSAGE_BYTES_MAX)
            if not message:
                _end(children)
            children.add(_fork(control, json.loads(message)))
        if wake in readable:
            os.read(wake, 1024)
            for pid, status in _ended(children):
                children.discard(pid)
                tell(control, said="ended", pid=pid, status=status)


def tell(control: socket.socket, **message: Any) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        control.send(json.dumps(message).encode())


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
