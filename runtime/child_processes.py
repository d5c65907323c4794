"""Starting helper servers (PostgreSQL, Redis) that must not outlive the program that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int


def free_port(wanted: int | None = None) -> int:
    """A loopback port nobody listens on: the wanted one if it is free, else any."""
    for port in (wanted, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free loopback port")


def dies_with_us(with_signal: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """For `preexec_fn`: the kernel signals the child when the thread that starts it ends.

    So start such a child from a thread that lives as long as the child is wanted, usually the main one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_the_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os.kill(os.getpid(), signal.SIGKILL)

    return in_the_child
