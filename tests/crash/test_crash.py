"""Two bad days, and whether they can be had again; `make crash SEEDS=200` runs many more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.crash.database import Place, Postgres
from tests.crash.loop import VirtualLoop
from tests.crash.scenario import DAY, run_seed
from tests.crash.scheduler import Trace

pytestmark = [pytest.mark.crash, pytest.mark.database, pytest.mark.timeout(300)]

Bench = tuple[VirtualLoop, Postgres]


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_dies_the_counterparties_books_agree(bench: Bench, seed: int) -> None:
    assert run_seed(DAY, bench, seed).failure == ""


def test_a_day_is_the_same_again(bench: Bench) -> None:
    first, second = (Trace(keep=True) for _ in range(2))
    before = run_seed(DAY, bench, 7, trace=first)
    rows = bench[1].dump()
    again = run_seed(DAY, bench, 7, trace=second)
    assert second.lines == first.lines
    assert again.counts == before.counts
    assert {table: len(found) for table, found in bench[1].dump().items()} == {
        table: len(found) for table, found in rows.items()
    }


def in_another_process(place: Place, *arguments: str) -> list[dict[str, object]]:
    output = subprocess.run(
        [sys.executable, "-m", "tests.crash", *arguments, "--worker", place.app_dsn, place.superuser_dsn],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [json.loads(line) for line in output.splitlines()]


def test_a_day_is_the_same_in_another_process(bench: Bench, place: Place) -> None:
    (there,) = in_another_process(place, "--start", "9", "--seeds", "1")
    assert there["digest"] == run_seed(DAY, bench, 9).digest


@pytest.mark.parametrize(("mutation", "start"), [("transfer_forgotten", 1), ("confirm_without_asking", 8)])
def test_a_mistake_made_on_purpose_is_seen(place: Place, mutation: str, start: int) -> None:
    """All mistakes one after the other: python -m tests.crash --mutation NAME --seeds 100."""
    results = in_another_process(place, "--mutation", mutation, "--start", str(start), "--seeds", "12")
    assert any(result["failure"] for result in results)
