"""Log lines: an event's name and its fields, scrubbed; as JSON for machines or in columns for people.

    log.info("payment_started", extra={"fields": {"order_no": order_no, "channel": channel}})

Never a body: what may hold one (an error's text, a traceback's lines) is scrubbed and cut like everything else.
Never a row either: PostgreSQL quotes the one that it refuses in its error's details, and those are left out.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from core.clock import shanghai
from core.scrubbing import scrub, scrub_text

TRACEBACK_LINES_MAX = 60
_DETAILS = re.compile(r"\n[ |]*DETAIL:.*", re.DOTALL)  # to the end: a row may hold line breaks of its own
_OWN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "fields", "taskName"}
_QUIET = {
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
    "tortoise": logging.WARNING,
    "sanic.server": logging.WARNING,
}
_SANIC = ("sanic", "sanic.root", "sanic.error", "sanic.access", "sanic.server", "sanic.websockets")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the line says beside its event, scrubbed: `extra={"fields": {…}}`, or extras by themselves."""
    given = getattr(record, "fields", None)
    fields = dict(given) if isinstance(given, Mapping) else {}
    fields |= {name: value for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES}
    scrubbed: dict[str, Any] = scrub(_without_details(fields))
    return scrubbed


def error_of(record: logging.LogRecord) -> list[str]:
    """The traceback's lines, each scrubbed; the last ones when there are too many."""
    if not record.exc_info or record.exc_info[0] is None:
        return []
    parts = [_DETAILS.sub("\n", part) for part in traceback.format_exception(*record.exc_info)]
    lines = "".join(parts).rstrip().splitlines()
    return [scrub_text(line) for line in lines[-TRACEBACK_LINES_MAX:]]


def _message(record: logging.LogRecord) -> str:
    return scrub_text(_without_details(record.getMessage()))


def _without_details(value: Any) -> Any:
    if isinstance(value, str):
        return _DETAILS.sub("", value)
    if isinstance(value, BaseException):
        return _DETAILS.sub("", str(value))
    if isinstance(value, Mapping):
        return {name: _without_details(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_details(item) for item in value]
    return value


class JsonLines(logging.Formatter):
    """One object a line; `event`, `level`, `at` and `logger` are always there."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "program": self._program,
            "pid": record.process,
            "logger": record.name,
            "event": _message(record),
        }
        line |= {name: value for name, value in fields_of(record).items() if name not in line}
        if error := error_of(record):
            line["error_lines"] = error
        return orjson.dumps(
            line, default=lambda value: scrub_text(_without_details(str(value))), option=orjson.OPT_NON_STR_KEYS
        ).decode()


class Columns(logging.Formatter):
    """For people: time in Shanghai, level, program, event, fields."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        at = shanghai(datetime.fromtimestamp(record.created, UTC))
        fields = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        head = f"{at:%H:%M:%S} {record.levelname:<8}{self._program:<10} {_message(record)}"
        return "\n".join([f"{head}  {fields}".rstrip(), *(f"    {line}" for line in error_of(record))])


def to(program: str, *, file: Path | None = None, human: bool = False, level: int = logging.INFO) -> None:
    """Send every line of this process to standard error, or to the end of `file`; safe to call again."""
    handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(Columns(program) if human else JsonLines(program))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, level))
    logging.captureWarnings(True)
    adopt_sanic()


def adopt_sanic() -> None:
    """Sanic's own loggers speak through ours. Call it again after an app was made: making one may undo it."""
    for name in _SANIC:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("sanic.access").setLevel(logging.WARNING)
    logging.getLogger("sanic.root").setLevel(logging.WARNING)
