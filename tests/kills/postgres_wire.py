"""Just enough of PostgreSQL's protocol to know what a program asks and when it has its answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.crash.database import label

SSL_REQUEST = 80877103
CANCEL_REQUEST = 80877102
POLL = re.compile(r"\bWITH ranked AS\b")

COMMIT, WRITE, CLAIM, OTHER = "commit", "write", "claim", ""
"""What a statement is to the plan: the end of a transaction, a change, a worker's look for what is due."""

WRITING = ("INSERT", "UPDATE", "DELETE")


def kind_of(query: str) -> str:
    word = query.lstrip()[:8].upper()
    if word.startswith("COMMIT"):
        return COMMIT
    if POLL.search(query):
        return CLAIM
    return WRITE if word.startswith(WRITING) else OTHER


@dataclass(slots=True)
class Statement:
    """One thing that a program has asked for and not yet heard about to the end."""

    kind: str
    name: str
    rows: int = 0  # as the server counts them, once it has


class Messages:
    """Cuts a stream of typed messages into whole ones."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes, bytes]]:
        """(type, payload, the whole message)."""
        self._data += data
        while len(self._data) >= 5:
            length = 1 + int.from_bytes(self._data[1:5], "big")
            if len(self._data) < length:
                return
            whole = bytes(self._data[:length])
            del self._data[:length]
            yield chr(whole[0]), whole[5:], whole


@dataclass
class Asking:
    """The program's side of one connection."""

    started: bool = False
    _first: bytearray = field(default_factory=bytearray)
    _messages: Messages = field(default_factory=Messages)
    _prepared: dict[bytes, tuple[str, str]] = field(default_factory=dict)  # name → kind, name for people
    _bound: tuple[str, str] = (OTHER, "")

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Statement | None]]:
        """Whole messages, each with the statement that it begins."""
        if not self.started:
            self._first += data
            while len(self._first) >= 8 and not self.started:
                length = int.from_bytes(self._first[:4], "big")
                if len(self._first) < length:
                    return
                self.started = int.from_bytes(self._first[4:8], "big") not in (SSL_REQUEST, CANCEL_REQUEST)
                yield bytes(self._first[:length]), None
                del self._first[:length]
            if not self.started:
                return
            data, self._first = bytes(self._first), bytearray()
        for kind, payload, whole in self._messages.feed(data):
            yield whole, self._statement(kind, payload)

    def _statement(self, kind: str, payload: bytes) -> Statement | None:
        if kind == "Q":
            text = payload[:-1].decode()
            return Statement(kind_of(text), label(text) if text.strip() else "")
        if kind == "P":
            prepared, query, _ = payload.split(b"\0", 2)
            text = query.decode()
            self._prepared[prepared] = (kind_of(text), label(text) if text.strip() else "")
        elif kind == "B":
            _, name, _ = payload.split(b"\0", 2)
            self._bound = self._prepared.get(name, (OTHER, ""))
        elif kind == "E":
            return Statement(*self._bound)
        return None


@dataclass
class Answering:
    """The server's side of one connection."""

    ssl_refused: bool = False
    in_transaction: bool = False
    _messages: Messages = field(default_factory=Messages)

    def feed(self, data: bytes) -> Iterator[tuple[str, int]]:
        """("C", how many rows) when a statement is complete, ("Z", 0) when the server waits for the next one."""
        if not self.ssl_refused and data[:1] in b"NS" and len(data) == 1:
            self.ssl_refused = True
            return
        for kind, payload, _ in self._messages.feed(data):
            if kind == "C":
                last = payload[:-1].split(b" ")[-1]
                yield "C", int(last) if last.isdigit() else 0
            elif kind == "Z":
                self.in_transaction = payload != b"I"
                yield "Z", 0
