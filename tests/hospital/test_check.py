"""The read-only check: clean against a good HIS, precise against a bad one, and without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from core.ports import HospitalCapabilities
from hospital.check import Finding, check_site
from simulators.clock import ManualClock
from simulators.hospital import HospitalSimulator
from simulators.hospital_signing import answer_headers
from simulators.kit import Request, Response
from tests.support.hospital import ELDER, LABOURER, MORNING, Connected, a_simulator, connect
from tests.support.transports import InProcessTransport

READING = {
    "ping", "find_patients", "get_patient", "list_bills", "list_new_bills", "get_bill", "query_lock", "query_payment",
    "list_paid",
}  # fmt: skip


@pytest.fixture
def connected() -> Connected:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock)
    simulator.window_pay(simulator.issue_bill(LABOURER))
    simulator.issue_bill(LABOURER)
    return connect(simulator, clock, InProcessTransport({"http://127.0.0.1": simulator}), "http://127.0.0.1")


async def _findings(connected: Connected, patient_id: str | None = LABOURER) -> dict[str, Finding]:
    found = await check_site(connected.hospital, connected.site, connected.clock, patient_id=patient_id)
    assert len({finding.name for finding in found}) == len(found)
    assert all(bool(finding.what_to_do) is not finding.ok for finding in found)
    return {finding.name: finding for finding in found}


def _bad(findings: dict[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if not finding.ok}


async def test_a_good_his_has_nothing_to_correct_and_no_trace_is_left(connected: Connected) -> None:
    before = connected.simulator.books()
    findings = await _findings(connected)
    assert _bad(findings) == set()
    assert len(findings) >= 15
    after = connected.simulator.books()
    assert after["bills"] == before["bills"]
    assert after["locks"] == after["confirms"] == {}
    assert {request.url.rpartition("/")[2] for request in connected.line.requests} <= READING


async def test_without_a_patient_it_says_what_was_not_looked_at(connected: Connected) -> None:
    assert _bad(await _findings(connected, None)) == {"bills"}


async def test_nobody_there_is_the_only_finding(connected: Connected) -> None:
    connected.line.unreachable_next()
    findings = await _findings(connected)
    assert list(findings) == ["reachable"]
    assert not findings["reachable"].ok


async def test_other_capabilities_than_configured_are_named(connected: Connected) -> None:
    connected.site = replace(connected.site, capabilities=HospitalCapabilities(processing_limit_seconds=5))
    findings = await _findings(connected)
    assert _bad(findings) == {"capabilities"}
    assert "processing_limit_seconds: HIS 120, configured 5" in findings["capabilities"].detail


async def test_a_clock_that_is_a_minute_off_is_found_before_it_hurts(connected: Connected) -> None:
    slow = ManualClock(MORNING - timedelta(seconds=61))
    connected.simulator.clock = slow
    findings = await _findings(connected)
    assert findings["clock"].detail == "differs by -61 s"
    assert "clock" in _bad(findings)


async def test_a_wrong_secret_is_seen_at_once(connected: Connected) -> None:
    connected.simulator.keys[connected.simulator.key_id] = "another-secret-than-the-one-we-were-told"
    assert {"answer_signed", "unknown_bill"} <= _bad(await _findings(connected))


class CarelessHis(HospitalSimulator):
    """A vendor's first day: checks no signature, and writes what `spoil` makes of each answer."""

    spoil: Callable[[str, dict[str, Any]], None] = staticmethod(lambda operation, fields: None)
    checks_signatures = False

    async def handle(self, request: Request) -> Response:
        response = await super().handle(request)
        now = self.clock.now()
        operation = request.path.rpartition("/")[2]
        fields = orjson.loads(response.body)
        if response.status == 401 and not self.checks_signatures:
            fields = {"outcome": "ok", "time": now.isoformat()}
        self.spoil(operation, fields)
        body = orjson.dumps(fields)
        headers = answer_headers(
            self.key_id,
            self.keys[self.key_id],
            status=200,
            request_nonce=request.headers.get("zhenfu-nonce", ""),
            now=now,
            nonce="n" * 32,
            body=body,
        )
        return Response(status=200, headers=headers, body=body)


def _careless(connected: Connected, spoil: Callable[[str, dict[str, Any]], None] | None = None) -> Connected:
    his = CarelessHis(clock=connected.clock, faults=connected.simulator.faults, seed=7)
    if spoil:
        his.spoil = spoil
    his.checks_signatures = spoil is not None
    his.issue_bill(LABOURER)
    return connect(his, connected.clock, InProcessTransport({"http://127.0.0.1": his}), "http://127.0.0.1")


async def test_a_his_that_checks_no_signature_is_found_out(connected: Connected) -> None:
    assert _bad(await _findings(_careless(connected))) == {
        "unsigned_refused", "wrong_signature_refused", "old_request_refused",
    }  # fmt: skip


async def test_yuan_times_without_zone_and_missing_fields_are_named(connected: Connected) -> None:
    def spoil(operation: str, fields: dict[str, Any]) -> None:
        for row in fields.get("bills", []):
            row["to_pay_fen"] = 12.5
            row["issued_at"] = "2026-05-06 10:00:00"
            row["visit_no"] = None
            row["kind"] = "CF"

    findings = await _findings(_careless(connected, spoil))
    assert {"bills_readable", "kinds"} <= _bad(findings)
    assert findings["bills_readable"].detail == (
        "issued_at has no zone or is no time; to_pay_fen is not a whole number of fen; visit_no missing"
    )


async def test_a_his_that_answers_ok_for_things_that_do_not_exist_is_found_out(connected: Connected) -> None:
    def spoil(operation: str, fields: dict[str, Any]) -> None:
        if operation == "query_payment":
            fields["booked"] = "N"
        if operation == "get_bill" and fields["outcome"] == "refused":
            fields.clear()
            fields.update(outcome="ok", bill=None)
        if operation == "list_bills" and fields["outcome"] == "refused":
            fields.update(outcome="ok", bills=[])

    bad = _bad(await _findings(_careless(connected, spoil)))
    assert bad == {"unknown_patient", "unknown_bill", "not_booked"}


async def test_a_his_that_tells_of_somebody_else_or_of_nobody_is_found_out(connected: Connected) -> None:
    def somebody_else(operation: str, fields: dict[str, Any]) -> None:
        if operation == "get_patient" and fields["outcome"] == "ok":
            fields["patient"]["patient_id"] = ELDER

    findings = await _findings(_careless(connected, somebody_else))
    assert _bad(findings) == {"person_readable"}
    assert findings["person_readable"].detail == "patient_id is not the one that was asked for"

    def nothing_known(operation: str, fields: dict[str, Any]) -> None:
        if operation == "get_patient" and fields["outcome"] == "ok":
            fields["patient"].update(phones=[], identifiers=[], name="")

    findings = await _findings(_careless(connected, nothing_known))
    assert _bad(findings) == {"person_readable"}
    assert findings["person_readable"].detail == "0 phones, 0 documents; name missing"


async def test_a_person_is_asked_for_only_where_the_his_can_tell(connected: Connected) -> None:
    connected.site = replace(connected.site, capabilities=HospitalCapabilities(patient_by_id=False))
    findings = await _findings(connected)
    assert _bad(findings) == {"capabilities"}
    assert not {"person", "person_readable", "unknown_person"} & set(findings)
    assert not any(request.url.endswith("get_patient") for request in connected.line.requests)
