"""The staff's API over real HTTP: the work list, two people, refunds, and everybody who is turned away."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from sanic.exceptions import ServiceUnavailable as PatienceEnded

from admin.app import blueprint
from admin.errors import STATUS
from admin.openapi import OPERATIONS, document
from core.actors import Role
from core.errors import ServiceUnavailable
from core.models import AuditEntry, Decision, PaymentEvent, StaffCase
from core.payments import Started
from core.staff_texts import ERRORS
from core.states import LineStatus, PaymentStatus
from miniprogram_api.app import build_app
from runtime.bootstrap import BoundedBackground
from tests.admin.conftest import NewDesk, Serve
from tests.admin.desk import PREFIX, Desk
from tests.support.house import PAY_URL, House

NOBODY = "00000000-0000-7000-8000-000000000000"


async def started(house: House, name: str = "王秀兰") -> Started:
    payer = await house.payer(name)
    return await house.start(payer, await house.bound(payer), house.bill())


async def confirmed(house: House) -> Started:
    start = await started(house)
    house.pay_sheet(start)
    await house.settle(within=timedelta(minutes=5))
    assert {line.status for line in await house.lines(start.order_no)} == {LineStatus.CONFIRMED}
    return start


async def a_case(house: House, kind: str, order_no: str) -> str:
    payment = await house.payment(order_no)
    await house.services.cases.open(house.institution_id, kind, order_no, payment_id=payment.id)
    case = await StaffCase.get(institution_id=house.institution_id, kind=kind)
    return str(case.id)


def proposal(number: str, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "payment_paid",
        "number": number,
        "reason": "渠道一直无答复",
        "document": "商户后台截图\n交易单号 4200001",
        "amount_fen": 8650,
        "their_number": "4200001",
        "at": "2026-05-06T10:01:00+08:00",
        **changes,
    }


# ---------------------------------------------------------------- the work list


async def test_a_case_is_read_and_closed(house: House, new_desk: NewDesk) -> None:
    desk = await new_desk()
    start = await confirmed(house)
    case = await a_case(house, "external_refund", start.order_no)
    assert (await desk.done("GET", "/case-counts"))["counts"] == [
        {"kind": "external_refund", "title": "有人在渠道后台直接退款", "count": 1}
    ]
    listed = await desk.done("GET", "/cases?limit=1")
    assert listed["next"] is None
    assert [view["case_id"] for view in listed["cases"]] == [case]
    shown = await desk.done("GET", f"/cases/{case}")
    assert shown["actions"] == ["ask_now", "attest", "close"]
    assert (shown["payment"]["paid_fen"], shown["payment"]["paid"]) == (8650, "86.50")
    assert shown["payment"]["patient"] == "王*兰"
    assert shown["payment"]["paid_at"].endswith("+08:00")
    assert "核对" in shown["case"]["what_to_do"]
    desk.language = "en"
    assert (await desk.done("GET", f"/cases/{case}"))["case"]["title"] == "Somebody refunded in the channel's console"
    closed = await desk.done("POST", f"/cases/{case}/close", {"reason": "医院已退费"})
    assert (closed["case"]["status"], closed["case"]["closed_by"], closed["actions"]) == ("closed", "1001", [])
    assert (await desk.post(f"/cases/{case}/close", {"reason": "医院已退费"})).code == "action_not_possible"
    assert (await desk.done("GET", "/cases"))["cases"] == []
    audit = await desk.done("GET", f"/audit?subject={case}")
    assert [entry["action"] for entry in audit["audit"]] == ["case_closed"]


async def test_asking_now_settles_what_the_channel_knows(house: House, new_desk: NewDesk) -> None:
    desk = await new_desk("1001", Role.LOOK, Role.WORK_CASES)
    start = await started(house)
    house.faults.script("wechatpay.notice_lost", times=9)
    house.pay_sheet(start)
    case = await a_case(house, "payment_outcome_unknown", start.order_no)
    shown = await desk.done("POST", f"/cases/{case}/ask")
    assert (shown["payment"]["status"], shown["case"]["status"]) == ("paid", "closed")


async def test_a_question_that_takes_long_goes_on_without_the_one_who_asked(
    tortoise: object, serve: Serve, http: aiohttp.ClientSession
) -> None:
    background = BoundedBackground()
    house = await House.build(background=background)
    app = build_app(house.services, session_key=b"k" * 32, more=[blueprint(house.services, ask_seconds=0.05)])
    key = await house.services.staff.add(house.institution_id, "1001", "员工", tuple(Role))
    start = await started(house)
    house.faults.script("wechatpay.notice_lost", times=9)
    house.pay_sheet(start)
    case = await a_case(house, "payment_outcome_unknown", start.order_no)
    async with serve(app) as url:
        desk = Desk(base_url=url, http=http, key=key)
        house.transport.hold(PAY_URL)
        shown = await desk.done("POST", f"/cases/{case}/ask")
        assert (shown["payment"]["status"], shown["case"]["status"]) == ("pending", "open")
        house.transport.let_go()
        await background.finish(seconds=10)
        assert (await desk.done("GET", f"/cases/{case}"))["case"]["status"] == "closed"
        assert (await desk.post(f"/cases/{case}/ask")).code == "action_not_possible"


async def test_pages_of_the_list_go_on_where_they_ended(house: House, new_desk: NewDesk) -> None:
    desk = await new_desk("1001", Role.LOOK)
    for number in range(7):
        await house.services.cases.open(house.institution_id, "notice_for_unknown_order", f"P{number}")
        house.clock.advance(timedelta(seconds=number % 2))
    seen: list[str] = []
    path = "/cases?limit=3"
    while path:
        page = await desk.done("GET", path)
        seen += [view["subject"] for view in page["cases"]]
        path = f"/cases?limit=3&after={page['next'].replace('+', '%2B')}" if page["next"] else ""
    assert sorted(seen) == [f"P{number}" for number in range(7)]
    assert (await desk.get("/cases?after=nonsense")).code == "invalid_request"
    assert (await desk.get("/cases?limit=201")).code == "invalid_request"


# ---------------------------------------------------------------- two people


async def test_two_people_attest_over_http(house: House, new_desk: NewDesk) -> None:
    first, second = await new_desk("1001"), await new_desk("1002")
    start = await started(house)
    case = await a_case(house, "payment_outcome_unknown", start.order_no)
    proposed = await first.done("POST", "/decisions", proposal(start.order_no, case_id=case), key="k")
    again = await first.done("POST", "/decisions", proposal(start.order_no, case_id=case), key="k")
    assert again == proposed
    assert (await first.post("/decisions", proposal(start.order_no, amount_fen=1), key="k")).code == (
        "idempotency_conflict"
    )
    decision = proposed["decision_id"]
    assert [view["decision_id"] for view in (await second.done("GET", "/decisions"))["decisions"]] == [decision]
    refused = await first.post(f"/decisions/{decision}/approve")
    assert (refused.status, refused.code) == (409, "needs_another")
    assert "另一位同事" in refused.body["error"]["message"]
    assert (await second.done("GET", f"/decisions/{decision}/document"))["document"].startswith("商户后台截图")
    done = await second.done("POST", f"/decisions/{decision}/approve")
    assert (done["status"], done["amount"], done["decided_by"]) == ("approved", "86.50", "1002")
    assert (await house.payment(start.order_no)).status is PaymentStatus.PAID
    shown = await second.done("GET", f"/cases/{case}")
    assert (shown["case"]["status"], shown["case"]["closed_reason"]) == ("closed", "settled_by_itself")
    assert [view["status"] for view in shown["decisions"]] == ["approved"]


async def test_two_who_approve_at_once_have_one_effect(house: House, new_desk: NewDesk) -> None:
    first = await new_desk("1001")
    others = [await new_desk(f"20{number}") for number in range(4)]
    start = await started(house)
    decision = (await first.done("POST", "/decisions", proposal(start.order_no)))["decision_id"]
    answers = await asyncio.gather(*(desk.post(f"/decisions/{decision}/approve") for desk in others))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    assert await PaymentEvent.filter(institution_id=house.institution_id, proof_kind="staff_attested").count() == 1
    assert await AuditEntry.filter(institution_id=house.institution_id, action="decision_approved").count() == 1


async def test_a_refund_is_asked_for_by_one_and_approved_by_another(house: House, new_desk: NewDesk) -> None:
    cashier = await new_desk("1001", Role.LOOK, Role.REQUEST_REFUND)
    chief = await new_desk("1002", Role.LOOK, Role.APPROVE_REFUND)
    start = await confirmed(house)
    options = await cashier.ask("GET", f"/payments/{start.order_no}/refund-options")
    assert options.status == 200, options
    (option,) = options.body["options"]
    assert (option["allowed_fen"], option["amount"]) == (8650, "86.50")
    body = {"parts": [{"line_id": option["line_id"]}], "reason": "病人退药"}
    asked = await cashier.done("POST", f"/payments/{start.order_no}/refunds", body, key="k")
    assert (await cashier.done("POST", f"/payments/{start.order_no}/refunds", body, key="k")) == asked
    assert (asked["status"], asked["amount_fen"]) == ("requested", 8650)
    assert (await cashier.post(f"/refunds/{asked['refund_no']}/approve")).code == "not_allowed"
    waiting = await chief.done("GET", "/refunds")
    assert [refund["refund_no"] for refund in waiting["refunds"]] == [asked["refund_no"]]
    assert (await chief.done("POST", f"/refunds/{asked['refund_no']}/approve"))["status"] == "approved"
    await house.settle(within=timedelta(days=3))
    shown = await chief.done("GET", f"/payments/{start.order_no}")
    assert [refund["status"] for refund in shown["refunds"]] == ["refunded"]
    assert shown["refunded"] == "86.50"
    (line,) = await house.lines(start.order_no)
    found = await chief.done("GET", f"/payments?number={line.his_bill_id}")
    assert [payment["order_no"] for payment in found["payments"]] == [start.order_no]
    raw = next(event["event_id"] for event in shown["evidence"] if event["has_raw"])
    assert (await chief.get(f"/evidence/{raw}/raw")).code == "not_allowed"


# ---------------------------------------------------------------- who is turned away


async def test_each_role_opens_what_it_is_for_and_nothing_else(house: House, new_desk: NewDesk) -> None:
    start = await started(house)
    case = await a_case(house, "refund_contradiction", start.order_no)
    tries: dict[str, tuple[str, str, Any, set[Role]]] = {
        "list": ("GET", "/cases", None, {Role.LOOK}),
        "counts": ("GET", "/case-counts", None, {Role.LOOK}),
        "show": ("GET", f"/cases/{case}", None, {Role.LOOK}),
        "find": ("GET", f"/payments?number={start.order_no}", None, {Role.LOOK}),
        "payment": ("GET", f"/payments/{start.order_no}", None, {Role.LOOK}),
        "audit": ("GET", "/audit", None, {Role.LOOK}),
        "decisions": ("GET", "/decisions", None, {Role.LOOK}),
        "propose": ("POST", "/decisions", proposal(start.order_no), {Role.ATTEST}),
        "approve": ("POST", f"/decisions/{NOBODY}/approve", None, {Role.ATTEST}),
        "raw": ("GET", f"/evidence/{NOBODY}/raw", None, {Role.ATTEST}),
        "options": ("GET", f"/payments/{NOBODY}/refund-options", None, {Role.REQUEST_REFUND}),
        "waiting": ("GET", "/refunds", None, {Role.APPROVE_REFUND}),
        "close": ("POST", f"/cases/{case}/close", {"reason": "x"}, {Role.LOOK, Role.WORK_CASES}),
        "ask": ("POST", f"/cases/{case}/ask", None, {Role.LOOK, Role.WORK_CASES}),
        "resume": ("POST", f"/cases/{case}/resume", None, {Role.LOOK, Role.APPROVE_REFUND}),
    }
    for role in Role:
        desk = await new_desk(f"only-{role.value}", role)
        for name, (method, path, body, needed) in tries.items():
            answer = await desk.ask(method, path, body)
            allowed = needed <= {role}
            is_refused = answer.status == 403
            assert is_refused is not allowed, (role, name, answer)
    assert await Decision.filter(institution_id=house.institution_id).count() == 1  # by the one who may


async def test_without_a_good_key_nothing_is_told(house: House, new_desk: NewDesk) -> None:
    desk = await new_desk()
    for header in ("", "Bearer ", "Bearer zs1_" + "0" * 48, f"Basic {desk.key}", desk.key):
        answer = await desk.ask("GET", "/me", headers={"authorization": header})
        assert (answer.status, answer.code) == (401, "not_signed_in")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await desk.done("GET", "/me"))["roles"] == sorted(role.value for role in Role)
    await house.services.staff.deactivate(house.institution_id, "1001")
    assert (await desk.get("/me")).code == "not_signed_in"


async def test_one_institution_s_staff_see_nothing_of_another(house: House, new_desk: NewDesk) -> None:
    start = await confirmed(house)
    case = await a_case(house, "external_refund", start.order_no)
    insider = await new_desk("1001")
    held = await insider.done("POST", "/decisions", proposal((await started(house, "她的女儿")).order_no))
    shown = await insider.done("GET", f"/payments/{start.order_no}")
    raw = next(event["event_id"] for event in shown["evidence"] if event["has_raw"])
    other = await house.setup.institution(code="anhe", name_zh="安和医院")
    stranger = await new_desk("1001", institution=other)
    assert (await stranger.done("GET", "/me"))["institution"] == "anhe"
    for method, path, body in (
        ("GET", f"/cases/{case}", None),
        ("POST", f"/cases/{case}/ask", None),
        ("POST", f"/cases/{case}/close", {"reason": "x"}),
        ("GET", f"/decisions/{held['decision_id']}", None),
        ("GET", f"/decisions/{held['decision_id']}/document", None),
        ("POST", f"/decisions/{held['decision_id']}/approve", None),
        ("POST", "/decisions", proposal(start.order_no)),
        ("GET", f"/payments/{start.order_no}", None),
        ("GET", f"/payments/{start.order_no}/refund-options", None),
        ("GET", f"/evidence/{raw}/raw", None),
    ):
        answer = await stranger.ask(method, path, body)
        assert (answer.status, answer.code) == (404, "not_found"), path
    for path, name in (("/cases", "cases"), ("/decisions", "decisions"), ("/audit", "audit")):
        assert (await stranger.done("GET", path))[name] == []
    assert (await stranger.done("GET", f"/payments?number={start.order_no}"))["payments"] == []
    assert (await stranger.done("GET", "/case-counts"))["counts"] == []


async def test_what_is_malformed_too_large_or_too_often_is_refused(
    house: House, new_desk: NewDesk, http: aiohttp.ClientSession
) -> None:
    desk = await new_desk()
    assert (await desk.post("/decisions", {"kind": "king"})).code == "invalid_request"
    assert (await desk.post("/decisions", proposal("P1", more=1))).code == "invalid_request"
    assert (await desk.post("/decisions", proposal("P1", at="2026-05-06T10:01:00"))).code == "invalid_request"
    missing = await desk.post("/decisions", proposal("P1"), headers={"idempotency-key": ""})
    assert missing.body["error"]["field"] == "Idempotency-Key"
    large = await desk.post("/decisions", proposal("P1", document="d" * 200_000))
    assert (large.status, large.code) == (413, "body_too_large")
    assert (await desk.get("/cases/nonsense")).code == "not_found"
    assert (await desk.get("/payments?number=")).code == "invalid_request"
    for length in (33, 49, 65, 128):  # longer than one of the columns, or all, in which it is looked for
        word = "7" * length
        assert (await desk.done("GET", f"/payments?number={word}"))["payments"] == []
        kinds = await desk.get(f"/cases?kind={word}")
        assert kinds.code == "invalid_request" if length > 48 else kinds.body["cases"] == []
        assert (await desk.done("GET", f"/audit?subject={word}"))["audit"] == []
        assert (await desk.get(f"/payments/{word}")).code == "not_found"
        assert (await desk.post(f"/refunds/{word}/approve")).code == "not_found"
    answer = await desk.get("/me")
    for _ in range(260):
        if answer.status == 429:
            break
        answer = await desk.get("/me")
    assert answer.code == "too_many_requests"
    assert answer.headers["retry-after"] == "60"
    house.clock.advance(timedelta(minutes=2))
    assert (await desk.get("/me")).status == 200


async def test_what_no_route_answers_is_answered_in_the_room_s_own_words(new_desk: NewDesk) -> None:
    desk = await new_desk()
    nowhere = await desk.get("/nothing")
    assert (nowhere.status, nowhere.code) == (404, "not_found")
    assert nowhere.body["error"]["message"] == ERRORS["not_found"]["zh"]
    assert (await desk.get("/../nothing")).body["error"]["message"] == ERRORS["not_found"]["zh"]
    wrong = await desk.ask("DELETE", "/me")
    assert (wrong.status, wrong.code, wrong.headers["allow"]) == (405, "method_not_allowed", "GET")
    assert wrong.body["error"]["message"] == ERRORS["method_not_allowed"]["zh"]


async def test_a_lost_database_and_an_answer_that_takes_too_long_say_look_again(
    house: House, new_desk: NewDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await new_desk()
    for error, code in (
        (ServiceUnavailable(), "service_unavailable"),
        (PatienceEnded("Response Timeout"), "took_too_long"),
    ):

        async def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(type(house.services.staff), "authenticate", fails)
        told = await desk.get("/me")
        assert (told.status, told.code, told.headers["retry-after"]) == (503, code, "5")
        assert told.body["error"]["message"] == ERRORS[code]["zh"]


# ---------------------------------------------------------------- its own description


async def test_every_route_is_described_and_nothing_else(house: House) -> None:
    app = build_app(house.services, session_key=b"k" * 32, more=[blueprint(house.services)])
    routes = {
        (method.lower(), "/" + re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.path))
        for route in app.router.routes
        for method in route.methods
        if route.path.startswith("staff/") and not route.path.endswith("openapi.json")
    }
    assert routes == {(operation.method, PREFIX + operation.path) for operation in OPERATIONS}
    text = repr(document(PREFIX))
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= set(document(PREFIX)["components"]["schemas"])
    assert {code for operation in OPERATIONS for code in operation.errors} <= set(STATUS) <= set(ERRORS)


async def test_the_document_is_there_for_everybody(new_desk: NewDesk) -> None:
    desk: Desk = await new_desk()
    assert (await desk.done("GET", "/openapi.json"))["openapi"] == "3.1.0"
