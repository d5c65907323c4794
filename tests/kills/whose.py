"""Which of our processes a connection comes from: the kernel knows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TABLE = Path("/proc/net/tcp")


def owner(port: int, to_port: int, pids: Iterable[int]) -> int | None:
    """The one of these processes that has the loopback socket from `port` to `to_port`; None when it is gone."""
    inode = _inode(port, to_port)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for pid in pids:
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{name}") == wanted:
                        return pid
    return None


def _inode(port: int, to_port: int) -> str | None:
    here, there = f":{port:04X}", f":{to_port:04X}"
    for line in TABLE.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(here) and fields[2].endswith(there):
            return fields[9]
    return None


def is_asleep(pid: int) -> bool:
    """Every thread of this process waits for something, or stands still. A process that is gone sleeps, too."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return all(_state(pid, thread) in "STZX" for thread in threads)
    except OSError:
        return True


def _state(pid: int, thread: str) -> str:
    text = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
    return text.rpartition(")")[2].split()[0]
