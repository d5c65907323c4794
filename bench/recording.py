"""What our web process says to PostgreSQL and to counterparties while it carries some payments through, one by one.

The statements with their values are played again by the floor (bench/floor.py) on a database that looks as it did
before, so they do the same and change the same rows.
"""

from __future__ import annotations

import functools
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from runtime import programs
from runtime.database import database
from runtime.programs import run_server
from runtime.settings import Settings
from runtime.supervisor import Ready
from wire.http import HttpClient, HttpReply, HttpRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    at: float
    call: str  # the method of asyncpg's connection
    sql: str
    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request to a counterparty, and how large its answer was."""

    at: float
    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    answer_bytes: int


@dataclass(kw_only=True, slots=True)
class Recording:
    statements: list[Statement] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def between(self, began: float, ended: float) -> Recording:
        return Recording(
            statements=[each for each in self.statements if began <= each.at < ended],
            calls=[each for each in self.calls if began <= each.at < ended],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """One payment to be played again: what was done until its order was answered, and what was done afterwards."""

    order: Recording
    rest: Recording


def scripts(recording: Recording, moments: Sequence[tuple[float, float, float]]) -> list[Script]:
    return [
        Script(order=recording.between(began, ordered), rest=recording.between(ordered, told))
        for began, ordered, told in moments
    ]


def recorded_server(settings: Settings, ready: Ready, file: Path, **on: Any) -> None:
    """`run_server` on a connection class and an HTTP client that write down; only in a process made for it."""
    recording = Recording()
    vars(programs)["database"] = functools.partial(database, connection_class=_connection(recording))
    vars(programs)["HttpClient"] = functools.partial(_Client, recording)
    run_server(settings, ready, **on)
    file.write_bytes(pickle.dumps(recording))


def _connection(recording: Recording) -> type[Any]:
    class Recorded(asyncpg.Connection):  # type: ignore[misc]  # untyped in the library
        """Writes down what it is asked."""

        def _note(self, call: str, sql: str, values: tuple[Any, ...]) -> None:
            plain = tuple(UUID(int=value.int) if isinstance(value, UUID) else value for value in values)
            recording.statements.append(Statement(at=time.monotonic(), call=call, sql=sql, values=plain))

        async def fetch(self, query: str, *values: Any, **options: Any) -> Any:
            self._note("fetch", query, values)
            return await super().fetch(query, *values, **options)

        async def fetchrow(self, query: str, *values: Any, **options: Any) -> Any:
            self._note("fetchrow", query, values)
            return await super().fetchrow(query, *values, **options)

        async def execute(self, query: str, *values: Any, **options: Any) -> Any:
            self._note("execute", query, values)
            return await super().execute(query, *values, **options)

    return Recorded


class _Client(HttpClient):
    """Writes down what it sends."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        at = time.monotonic()
        reply = await super().send(request, deadline_seconds=deadline_seconds)
        self._recording.calls.append(
            Call(
                at=at,
                method=request.method,
                url=request.url,
                headers=dict(request.headers),
                body=request.body,
                answer_bytes=len(reply.body),
            )
        )
        return reply
