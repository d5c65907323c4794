"""Which of our processes a connection comes from, and whether one sleeps: the kernel knows.

Asked thousands of times a day, so files are read as bytes and not taken apart further than needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

TABLE = "/proc/net/tcp"
CHUNK_BYTES = 1 << 16
INODE_FIELD = 9
LOOKS_MAX = 4
ASLEEP = b"STZX"


def owner(port: int, to_port: int, pids: Iterable[int]) -> int | None:
    """The one of these processes that has the loopback socket from `port` to `to_port`; None when it is gone.

    Looked for more than once: the kernel's table changes while it is read, and a line can be passed over.
    """
    pids = list(pids)
    for _ in range(LOOKS_MAX):
        inode = _inode(port, to_port)
        found = _holder(inode, pids) if inode is not None else None
        if found is not None:
            return found
    return None


def _holder(inode: str, pids: Iterable[int]) -> int | None:
    wanted = f"socket:[{inode}]"
    for pid in pids:
        with suppress(OSError):
            for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int, reverse=True):  # the newest first
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{name}") == wanted:
                        return pid
    return None


def _inode(port: int, to_port: int) -> str | None:
    table = _read(TABLE)
    ends = b"0100007F:%04X 0100007F:%04X " % (port, to_port)
    found = table.find(ends)
    if found < 0:
        return None
    fields = table[found : table.find(b"\n", found)].split()
    return fields[INODE_FIELD - 1].decode()  # the line's own number stands before what was found


def is_asleep(pid: int) -> bool:
    """Every thread of this process waits for something, or stands still. A process that is gone sleeps, too."""
    try:
        return _state(f"/proc/{pid}/stat") in ASLEEP and all(
            _state(f"/proc/{pid}/task/{thread}/stat") in ASLEEP
            for thread in os.listdir(f"/proc/{pid}/task")
            if thread != str(pid)
        )
    except OSError:
        return True


def _state(path: str) -> bytes:
    text = _read(path)
    after_name = text.rindex(b") ") + 2
    return text[after_name : after_name + 1]


def _read(path: str) -> bytes:
    """A file of the kernel's, which has no length before it is read. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(handle, CHUNK_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)
