"""What processes have used: processor time and memory, as the kernel counts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """In MiB. `shared_fairly` counts a page that several processes share for each by its part (PSS)."""

    resident: float
    shared_fairly: float


def cpu_seconds(pid: int) -> float:
    """Of this process alone, user and system."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_seconds_of_children(pid: int, title: str) -> float:
    """Of the children that live and whose title (what `ps` shows) contains this."""
    titles = {child: (PROC / str(child) / "cmdline").read_bytes().decode("utf-8", "replace") for child in children(pid)}
    return sum(cpu_seconds(child) for child, shown in titles.items() if title in shown)


def children(pid: int) -> list[int]:
    text = (PROC / str(pid) / "task" / str(pid) / "children").read_text()
    return [int(child) for child in text.split()]


def memory(pid: int) -> Memory:
    values = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) / 1024
    return Memory(resident=values["Rss"], shared_fairly=values["Pss"])


def _stat(pid: int) -> list[str]:
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
