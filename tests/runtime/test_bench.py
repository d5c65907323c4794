"""The bench's own arithmetic: what it says holds, and what it counts."""

from __future__ import annotations

import os

from bench.figures import Figures
from bench.paying import percentile
from bench.processes import cpu_seconds, memory
from bench.recording import Call, Recording, Statement, scripts


def test_a_run_holds_when_something_was_measured_and_every_target_is_met() -> None:
    figures = Figures()
    assert not figures.hold
    figures.add("a figure without a target", 7, "ms")
    figures.add("ours / the floor's", 2.5, "times", most=2.5)
    assert figures.hold
    figures.add("full / small tables", 1.11, "times", most=1.1)
    assert not figures.hold
    assert [line.split()[-1] for line in figures.table().splitlines()[2:]] == ["holds", "MISSED"]


def test_a_figure_that_is_not_a_number_meets_no_target() -> None:
    figures = Figures()
    figures.add("p99 of nothing", percentile([], 0.99), "s", most=1.0)
    assert not figures.hold


def test_percentiles_are_of_the_values_themselves() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (51.0, 100.0, 100.0)


def test_a_recording_is_cut_where_the_order_was_answered() -> None:
    statements = [Statement(at=float(at), call="fetch", sql=str(at), values=()) for at in range(6)]
    call = Call(at=2.5, method="GET", url="http://127.0.0.1/", headers={}, body=b"", answer_bytes=1)
    (script,) = scripts(Recording(statements=statements, calls=[call]), [(1.0, 3.0, 5.0)])
    assert [each.sql for each in script.order.statements] == ["1", "2"]
    assert [each.sql for each in script.rest.statements] == ["3", "4"]
    assert (script.order.calls, script.rest.calls) == ([call], [])


def test_this_process_has_used_time_and_memory() -> None:
    assert cpu_seconds(os.getpid()) > 0
    used = memory(os.getpid())
    assert 0 < used.shared_fairly <= used.resident
