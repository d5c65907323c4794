"""What the contract cannot show with a HIS that keeps to the profile: odd statuses and missing abilities."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from core.errors import CounterpartyError, OutcomeUnknown, Refused
from core.ports import HospitalCapabilities, Identifier, IdentifierType
from simulators.clock import ManualClock
from simulators.hospital_signing import answer_headers
from tests.support.hospital import LABOURER, MORNING, Connected, a_simulator, connect
from tests.support.transports import InProcessTransport
from wire.http import HttpReply

CARD = Identifier(type=IdentifierType.HOSPITAL_CARD, value="00100005")


@pytest.fixture
def connected() -> Connected:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock)
    return connect(simulator, clock, InProcessTransport({"http://127.0.0.1": simulator}), "http://127.0.0.1")


def _answer_next(connected: Connected, status: int, fields: dict[str, Any]) -> None:
    """The next call is answered with these fields under this status, properly signed."""

    def alter(reply: HttpReply) -> HttpReply:
        body = orjson.dumps(fields)
        headers = answer_headers(
            connected.simulator.key_id,
            connected.simulator.keys[connected.simulator.key_id],
            status=status,
            request_nonce=connected.line.requests[-1].headers["Zhenfu-Nonce"],
            now=connected.clock.now(),
            nonce="a" * 32,
            body=body,
        )
        return HttpReply(status=status, headers=headers, body=body)

    connected.line.alter_next(alter)


@pytest.mark.parametrize("status", [201, 302, 401, 500, 502])
async def test_ok_counts_with_http_200_alone(connected: Connected, status: int) -> None:
    _answer_next(connected, status, {"outcome": "ok", "bills": []})
    with pytest.raises(OutcomeUnknown):
        await connected.hospital.list_bills(connected.site, LABOURER)


@pytest.mark.parametrize(
    ("status", "fields", "code", "final"),
    [
        (200, {"outcome": "refused", "code": "PATIENT_UNKNOWN"}, "PATIENT_UNKNOWN", True),
        (403, {"outcome": "refused", "code": "PATIENT_UNKNOWN"}, "PATIENT_UNKNOWN", False),
        (200, {"outcome": "refused", "code": "BILL_PAID"}, "BILL_PAID", False),  # not listed for list_bills
        (200, {"outcome": "refused", "code": 5013, "message": "x" * 500}, "5013", False),
        (200, {"outcome": "refused"}, "UNSPECIFIED", False),
    ],
)
async def test_a_refusal_is_final_by_status_operation_and_code(
    connected: Connected, status: int, fields: dict[str, Any], code: str, final: bool
) -> None:
    _answer_next(connected, status, fields)
    with pytest.raises(Refused) as refused:
        await connected.hospital.list_bills(connected.site, LABOURER)
    assert (refused.value.code, refused.value.final) == (code, final)
    assert len(refused.value.message) <= 200


@pytest.mark.parametrize(
    "fields", [{}, {"outcome": "unknown"}, {"outcome": "OK"}, {"outcome": None}, {"outcome": ["ok"]}, {"outcome": 1}]
)
async def test_any_other_outcome_is_unknown(connected: Connected, fields: dict[str, Any]) -> None:
    _answer_next(connected, 200, {**fields, "bills": []})
    with pytest.raises(OutcomeUnknown):
        await connected.hospital.list_bills(connected.site, LABOURER)


async def test_a_refused_5xx_is_unknown(connected: Connected) -> None:
    _, _, order = await connected.a_locked_bill()
    _answer_next(connected, 503, {"outcome": "refused", "code": "BILL_CANCELLED"})
    with pytest.raises(OutcomeUnknown):
        await connected.hospital.confirm_payment(connected.site, order)


async def test_without_query_payment_no_refusal_to_book_is_final(connected: Connected) -> None:
    _, _, order = await connected.a_locked_bill()
    site = replace(connected.site, capabilities=HospitalCapabilities(query_payment=False))
    connected.simulator.faults.script("hospital.refuses_confirm")
    with pytest.raises(Refused) as refused:
        await connected.hospital.confirm_payment(site, order)
    assert (refused.value.code, refused.value.final) == ("BILL_CANCELLED", False)


async def test_an_answer_that_cannot_be_read_in_full_is_unknown_in_every_operation(connected: Connected) -> None:
    number, _, order = await connected.a_locked_bill()
    hospital, site = connected.hospital, connected.site
    for fields, call in (
        ({"patients": [{"name": "x"}]}, hospital.find_patients(site, CARD)),
        ({"bill": None}, hospital.get_bill(site, number)),
        ({"bill": {"bill_id": "other", "patient_id": "P", "to_pay_fen": 1}}, hospital.get_bill(site, number)),
        ({"bill": {"patient_id": "P", "to_pay_fen": 1}}, hospital.get_bill(site, number)),
        ({"bills": []}, hospital.lock_bills(site, connected.a_lock_order(number))),
        ({"state": "maybe"}, hospital.query_lock(site, order.confirm_no)),
        ({"booked": "Y"}, hospital.confirm_payment(site, order)),
        ({"booked": True, "confirm_no": "C-other"}, hospital.query_payment(site, order.confirm_no)),
        ({"records": [{"bill_id": "B"}]}, hospital.list_paid(site, LABOURER, MORNING, MORNING)),
        ({"time": "10:00"}, hospital.check(site)),
    ):
        _answer_next(connected, 200, {"outcome": "ok", **fields})
        with pytest.raises(OutcomeUnknown):
            await call


async def test_a_bill_keeps_the_spelling_of_the_his_whatever_was_typed(connected: Connected) -> None:
    _answer_next(connected, 200, {"outcome": "ok", "bill": {"bill_id": "CF1", "patient_id": "P", "to_pay_fen": 1}})
    bill = await connected.hospital.get_bill(connected.site, "cf1")
    assert bill is not None
    assert bill.his_bill_id == "CF1"


async def test_an_answer_an_hour_old_is_no_answer(connected: Connected) -> None:
    connected.simulator.clock = ManualClock(MORNING)
    assert await connected.hospital.check(connected.site)
    connected.clock.advance(timedelta(hours=1))
    with pytest.raises(CounterpartyError):
        await connected.hospital.check(connected.site)
