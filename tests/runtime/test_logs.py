"""A log line is an event with fields, scrubbed, whatever is put into it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from asyncpg.exceptions import CheckViolationError
from tortoise.exceptions import IntegrityError

from runtime import logs

log = logging.getLogger("zhenfu.test")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a test does to the root logger ends with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_event_with_its_fields(tmp_path: Path) -> None:
    logs.to("web", file=tmp_path / "log")
    log.info("payment_started", extra={"fields": {"order_no": "P1", "amount_fen": 8650}})
    (line,) = lines(tmp_path / "log")
    assert line.pop("at")
    assert line.pop("pid")
    assert line == {
        "level": "info",
        "program": "web",
        "logger": "zhenfu.test",
        "event": "payment_started",
        "order_no": "P1",
        "amount_fen": 8650,
    }


def test_extras_by_themselves_are_fields_too(tmp_path: Path) -> None:
    logs.to("web", file=tmp_path / "log")
    log.warning("redis_away", extra={"error": "TimeoutError"})
    assert lines(tmp_path / "log")[0]["error"] == "TimeoutError"


@pytest.mark.parametrize("human", [True, False])
def test_nothing_private_is_written(tmp_path: Path, human: bool) -> None:
    logs.to("web", file=tmp_path / "log", human=human)
    private = ["11010519491231002X", "13812345678", "张三", "s3cret", "6222021234567890123"]
    log.info(
        "phone 13812345678",
        extra={"fields": {"name": "张三", "token": "s3cret", "deep": {"list": ["11010519491231002X"]}}},
    )
    try:
        raise ValueError("card 6222021234567890123 of 13812345678")
    except ValueError:
        log.exception("failed")
    text = (tmp_path / "log").read_text()
    assert "ValueError" in text
    for secret in private:
        assert secret not in text


def test_bytes_and_strange_values_do_not_break_a_line(tmp_path: Path) -> None:
    logs.to("web", file=tmp_path / "log")
    log.info("odd", extra={"fields": {"body": b"secret", "path": tmp_path, 1: {2, 3}}})
    (line,) = lines(tmp_path / "log")
    assert line["body"] == "<6 bytes>"


def test_an_error_is_told_by_its_last_lines(tmp_path: Path) -> None:
    logs.to("web", file=tmp_path / "log")

    def deeper(levels: int) -> None:
        if levels == 0:
            raise RuntimeError("at the bottom")
        deeper(levels - 1)

    try:
        deeper(200)
    except RuntimeError:
        log.exception("failed")
    error_lines = lines(tmp_path / "log")[0]["error_lines"]
    assert isinstance(error_lines, list)
    assert len(error_lines) <= logs.TRACEBACK_LINES_MAX
    assert error_lines[-1] == "RuntimeError: at the bottom"


@pytest.mark.parametrize("human", [True, False])
def test_the_row_that_the_database_refused_is_not_written(tmp_path: Path, human: bool) -> None:
    """PostgreSQL quotes the whole row in the details of an error."""
    logs.to("web", file=tmp_path / "log", human=human)
    said = CheckViolationError.new(
        {"S": "ERROR", "C": "23514", "M": "violates a check", "D": "Failing row contains (P10005, 李大山\n\n药品未取)."}
    )
    try:
        try:
            raise said
        except CheckViolationError as error:
            raise ExceptionGroup("several", [IntegrityError(error), said]) from error
    except ExceptionGroup as error:
        log.exception("failed: %s", said, extra={"fields": {"error": str(error.exceptions[0])}})
    text = (tmp_path / "log").read_text()
    assert text.count("violates a check") >= 4
    for private in ("Failing row", "P10005", "李大山", "药品未取"):
        assert private not in text


def test_people_read_columns(tmp_path: Path) -> None:
    logs.to("worker", file=tmp_path / "log", human=True)
    log.warning("work_failed", extra={"fields": {"table": "payment"}})
    text = (tmp_path / "log").read_text()
    assert text.rstrip().endswith("WARNING worker     work_failed  table=payment")


def test_calling_it_again_moves_the_lines(tmp_path: Path) -> None:
    logs.to("web", file=tmp_path / "one")
    logs.to("web", file=tmp_path / "two")
    log.info("hello")
    assert (tmp_path / "one").read_text() == ""
    assert lines(tmp_path / "two")[0]["event"] == "hello"


def test_sanic_speaks_through_ours(tmp_path: Path) -> None:
    logs.to("web", file=tmp_path / "log")
    logging.getLogger("sanic.error").error("Experienced exception")
    assert [line["logger"] for line in lines(tmp_path / "log")] == ["sanic.error"]
