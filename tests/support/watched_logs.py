"""Everything that is logged: as it was given to logging, and as the programs write it."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime import logs

OURS = frozenset({
    "zhenfu", "bot", "channels", "core", "hospital", "miniprogram_api", "runtime", "scheduler", "wire",
})  # fmt: skip
"""First names of our loggers; every one of theirs is looked at before anything is scrubbed, too."""


class _Kept(logging.Handler):
    """Each record of ours with all that hangs on it, not scrubbed."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] not in OURS:
            return
        error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.lines.append(f"{record.getMessage()} {vars(record)!r} {error}")


@dataclass(kw_only=True)
class Watched:
    """What was logged so far."""

    path: Path
    kept: _Kept = field(default_factory=_Kept)

    @property
    def raw(self) -> list[str]:
        return self.kept.lines

    def written(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def leaks(self, secrets: Iterable[str]) -> list[str]:
        """Each secret that stands in a line, with the line; digits count only where they stand by themselves."""
        wanted = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        assert all(len(secret) >= 2 for secret in wanted), "too short to look for"
        pattern = re.compile("|".join(_alone(secret) for secret in wanted))
        lines = [*self.raw, *(json.dumps(line, ensure_ascii=False) for line in self.written())]
        return [f"{found[0]} in {line}" for line in lines if (found := pattern.search(line))]


def _alone(secret: str) -> str:
    text = re.escape(secret)
    return rf"(?<![0-9A-Za-z.]){text}(?![0-9A-Za-z])" if secret.isascii() and secret.isdigit() else text


@contextmanager
def watched_logs(path: Path) -> Iterator[Watched]:
    """At DEBUG, in the programs' own format, until the block ends; then logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {
        name: each.level for name, each in logging.Logger.manager.loggerDict.items() if isinstance(each, logging.Logger)
    }
    root.handlers.clear()
    watched = Watched(path=path)
    logs.to("server", file=path, level=logging.DEBUG)
    root.addHandler(watched.kept)
    try:
        yield watched
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        logging.captureWarnings(False)
