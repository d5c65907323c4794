"""A few days with real deaths; `make kills SEEDS=40` lives through more of them, and `make test` does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kills import postgres_wire
from tests.kills.http_wire import Messages, request_of, status_of
from tests.kills.machines import Machines, a_set_of_machines
from tests.kills.plan import POSTGRES, Plan, Side, Strike, Strikes, Victim
from tests.kills.postgres_wire import CLAIM, COMMIT, OTHER, WRITE, Answering, Asking, kind_of
from tests.kills.running import run_seed


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with a_set_of_machines() as machines:
        yield machines


@pytest.mark.crash
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1])
def test_whatever_is_killed_the_counterparties_books_agree(machines: Machines, seed: int) -> None:
    result = run_seed(machines, seed)
    assert result.failure == "", "\n".join(result.trace)


def a_strike(**changes: object) -> Strike:
    values: dict[str, object] = {
        "kind": "web",
        "peer": POSTGRES,
        "call": COMMIT,
        "nth": 2,
        "side": Side.REQUEST,
        "victim": Victim.PROGRAM,
        "forward": False,
    }
    return Strike(**(values | changes))  # type: ignore[arg-type]


def test_the_second_commit_is_struck_and_no_other() -> None:
    strikes = Strikes([a_strike()])
    found = [strikes.due("web", POSTGRES, COMMIT, side) for side in (Side.REQUEST, Side.ANSWER, Side.REQUEST)]
    assert found == [None, None, a_strike()]
    assert strikes.due("web", POSTGRES, COMMIT, Side.REQUEST) is None


def test_a_seed_is_the_same_plan_again() -> None:
    assert Plan.of(7, []).lines() == Plan.of(7, []).lines()


def message(kind: str, payload: bytes) -> bytes:
    return kind.encode() + (len(payload) + 4).to_bytes(4, "big") + payload


def test_statements_are_known_however_the_bytes_arrive() -> None:
    start = (8 + 5).to_bytes(4, "big") + (196608).to_bytes(4, "big") + b"user\0"
    stream = (
        (8).to_bytes(4, "big")
        + postgres_wire.SSL_REQUEST.to_bytes(4, "big")
        + start
        + message("P", b"one\0UPDATE payment SET a = 1\0\0\0")
        + message("S", b"")
        + message("B", b"\0one\0\0\0\0\0\0\0")
        + message("E", b"\0\0\0\0\0")
        + message("Q", b"COMMIT;\0")
    )
    asking, found, passed = Asking(), [], b""
    for byte in range(len(stream)):
        for whole, statement in asking.feed(stream[byte : byte + 1]):
            passed += whole
            if statement is not None:
                found.append((statement.kind, statement.name))
    assert passed == stream
    assert found == [(WRITE, "UPDATE payment"), (COMMIT, "COMMIT")]


def test_a_worker_that_finds_nothing_is_told_from_one_that_finds_something() -> None:
    answering = Answering()
    assert list(answering.feed(b"N")) == []
    data = message("C", b"UPDATE 0\0") + message("Z", b"I") + message("C", b"UPDATE 3\0") + message("Z", b"T")
    assert list(answering.feed(data)) == [("C", 0), ("Z", 0), ("C", 3), ("Z", 0)]
    assert answering.in_transaction
    assert kind_of("\n  WITH ranked AS (SELECT 1) UPDATE payment") == CLAIM
    assert kind_of("BEGIN;") == OTHER


def test_http_messages_are_cut_where_they_end() -> None:
    request = b"POST /v3/pay?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    messages, found = Messages(), []
    for byte in range(len(request)):
        found += messages.feed(request[byte : byte + 1])
    assert found == [request]
    assert messages.feed(chunked + request[:20]) == [chunked]
    read = request_of(request)
    assert (read.method, read.target, read.headers["host"], read.body) == ("POST", "/v3/pay?x=1", "a", b"body")
    assert status_of(chunked) == 200
