"""The command `zhenfu` in a process of its own that need not import everything first: for tests that run it often.

`python -m tests.support.command` has imported what commands need, and forks one for each order. It reads orders as
lines of JSON and answers each with a line; it has one thread, and ends with whoever started it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS_MAX = 60
WARM = ("runtime.cli", "runtime.commands", "runtime.programs", "runtime.doctor", "runtime.setup_file")

_one_at_a_time = threading.Lock()


def zhenfu(values: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an environment of these values and nothing else."""
    with tempfile.TemporaryDirectory() as folder, _one_at_a_time:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        order = {"arguments": arguments, "environment": dict(values), "out": str(out), "errors": str(errors)}
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process that runs commands has died"
        return subprocess.CompletedProcess(
            ["zhenfu", *arguments], json.loads(answer)["code"], out.read_text(), errors.read_text()
        )


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.command"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def _main() -> None:
    for name in WARM:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _become(order)
        print(json.dumps({"code": _code_of(pid)}), flush=True)


def _code_of(pid: int) -> int:
    """What the command ended with; one that does not end is killed."""
    deadline = time.monotonic() + COMMAND_SECONDS_MAX
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, 9)
        time.sleep(0.005)


def _become(order: Mapping[str, Any]) -> NoReturn:
    """Be the command, from its first line to its exit code."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, path in ((1, order["out"]), (2, order["errors"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ.clear()
        os.environ.update(order["environment"])
        time.tzset()
        sys.argv = ["zhenfu", *order["arguments"]]
        try:
            importlib.import_module("runtime.cli").main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _main()
