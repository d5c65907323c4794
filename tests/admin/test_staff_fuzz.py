"""Whatever is sent to the staff's API is answered in its own shape: never by our mistake, never by silence."""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import timedelta
from random import Random

import aiohttp
import pytest
from yarl import URL

from admin.errors import STATUS
from admin.openapi import OPERATIONS
from admin.room import CALLS_PER_MINUTE
from core.models import Decision
from tests.admin.conftest import NewDesk
from tests.admin.desk import PREFIX, undescribed
from tests.admin.test_staff_api import a_case, confirmed, proposal
from tests.fuzz.staff import Call, Material, harmed
from tests.support.house import House

CALLS = 400
SEED = 20260506
LONG = tuple("7" * length for length in (33, 49, 65, 128))
"""Longer than the columns that such a word is looked for in."""


async def what_means_something(house: House, new_desk: NewDesk) -> Material:
    """Every route with numbers that exist; what waits for a second person was asked for by somebody else."""
    clerk, key = await new_desk("2001"), (await new_desk("1001")).key
    paid = await confirmed(house)
    payer = await house.payer("王小红", "19900000001")
    waits = await house.start(payer, await house.bound(payer), house.bill())
    line = (await house.lines(paid.order_no))[0]
    case = await a_case(house, "payment_outcome_unknown", waits.order_no)
    decision = (await clerk.done("POST", "/decisions", proposal(waits.order_no, case_id=case)))["decision_id"]
    parts = {"parts": [{"line_id": str(line.id), "amount_fen": 8650, "his_items": []}], "reason": "病人退药"}
    refund_no = (await clerk.done("POST", f"/payments/{paid.order_no}/refunds", parts))["refund_no"]
    shown = await clerk.done("GET", f"/payments/{paid.order_no}")
    event = shown["evidence"][0]["event_id"]
    known = {
        "case_id": case, "decision_id": decision, "order_no": paid.order_no, "event_id": event, "refund_no": refund_no,
    }  # fmt: skip
    bodies = {"ReasonBody": {"reason": "医院已退费"}, "ProposeBody": proposal(waits.order_no), "RefundBody": parts}
    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "accept-language": "en",
        "idempotency-key": "click",
    }
    calls = [
        Call(
            method=operation.method.upper(),
            path=operation.path.format(**known) + (f"?number={paid.order_no}" if "number" in operation.query else ""),
            headers=headers,
            body=json.dumps(bodies[operation.body]).encode() if operation.body else b"",
        )
        for operation in OPERATIONS
    ]
    return Material(
        calls=calls, words=[*known.values(), line.his_bill_id, str(line.id), "1", "payment_paid", "en", "%"]
    )


@pytest.mark.timeout(120)
async def test_nothing_that_is_sent_breaks_the_staffs_api(
    house: House, new_desk: NewDesk, base_url: str, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    material, random = await what_means_something(house, new_desk), Random(SEED)
    met: Counter[str] = Counter()
    for number in range(CALLS):
        if number % (CALLS_PER_MINUTE // 2) == 0:
            house.clock.advance(timedelta(minutes=2))
        call = harmed(material, random)
        headers = {**call.headers, "idempotency-key": call.headers["idempotency-key"] + str(number % 7)}
        url = URL(base_url + PREFIX + call.path, encoded=True)
        async with http.request(call.method, url, headers=headers, data=call.body or None) as answer:
            text, status = await answer.read(), answer.status
            said = json.loads(text)
        about = f"call {number} of seed {SEED}: {call.method} {call.path[:200]} → {status} {text[:300]!r}"
        assert (answer.content_type, status == 500) == ("application/json", False), about
        if status == 413:  # of any request, before anybody looks at its address
            continue
        assert undescribed(call.method, call.path.partition("?")[0].rstrip("/"), status, said) == [], about
        if status < 300:
            met["done"] += 1
            continue
        code = said["error"]["code"]
        assert STATUS.get(code) == status, about
        met[code] += 1
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR and each.name.startswith("zhenfu")]
    assert met["internal_error"] == met["too_many_requests"] == 0
    expected = {"done", "invalid_request", "not_found", "not_signed_in", "method_not_allowed", "body_too_large"}
    assert {code for code in expected if met[code] == 0} <= {"body_too_large"}, met
    assert met["done"] > CALLS // 10
    assert await Decision.filter(institution_id=house.institution_id).count() >= 1
    print(dict(met))
