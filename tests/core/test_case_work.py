"""The staff's work list: what it shows, what may be done, what is refused, and what it costs with many cases."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from core.actors import Actor, Role
from core.case_kinds import ACTIONS, CaseAction, actions_of
from core.due import DueRow
from core.errors import ActionNotPossible, InvalidRequest, NotAllowed, NotFound
from core.evidence import booking_evidence, refund_evidence, trade_evidence
from core.failing import CASE_AFTER_TRIES
from core.institutions import Institutions
from core.models import AuditEntry, Inbound, PaymentLine, Refund, StaffCase
from core.paging import place_from
from core.payments import Started
from core.ports import Booking, RefundState, RefundTrade, Trade
from core.refunds import Refunds
from core.staff_texts import CASES, case_text
from core.states import CaseStatus, InboundStatus, LineStatus, PaymentStatus, ProofKind, RefundStatus
from core.transactions import rows
from scheduler.loops import claim_due
from scheduler.worker import run_once
from simulators.kit import deliver_one
from tests.support.house import House
from tests.support.postgres import Database

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def staff(house: House, code: str = "1001", *roles: Role) -> Actor:
    key = await house.services.staff.add(house.institution_id, code, f"员工{code}", roles or tuple(Role))
    return await house.services.staff.authenticate(key)


async def started(house: House) -> Started:
    payer = await house.payer()
    return await house.start(payer, await house.bound(payer), house.bill())


async def the_case(house: House, kind: str) -> StaffCase:
    return await StaffCase.get(institution_id=house.institution_id, kind=kind)


async def a_stuck_refund(house: House) -> Started:
    """Booking refused, and the refund stands still at the channel."""
    start = await started(house)
    house.pay_sheet(start)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.refund_abnormal")
    await house.settle(within=timedelta(hours=1))
    return start


# ---------------------------------------------------------------- what there is to read


TUPLES = ("order_without_row", "refund_without_row", "hospital_refund_unclear", "refund_above_daily_cap")
"""Kinds that code opens by a name which stands for one of several."""


def kinds_that_code_opens() -> set[str]:
    """The second argument of each `….cases.open(institution_id, kind, …)`, also where it is a name of a constant."""
    found: set[str] = set()
    for file in (ROOT / "core").glob("*.py"):
        tree = ast.parse(file.read_text())
        found |= {word for word in TUPLES if f'"{word}"' in file.read_text() and file.name != "case_kinds.py"}
        constants = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("cases.open", "cases.open_while")):
                kind = call.args[1]
                if isinstance(kind, ast.Constant):
                    found.add(str(kind.value))
                elif isinstance(kind, ast.Name) and isinstance(constants.get(kind.id), str):
                    found.add(str(constants[kind.id]))
    return found


def test_every_kind_of_case_has_its_words_and_its_actions() -> None:
    kinds = kinds_that_code_opens()
    assert len(kinds) > 15
    assert kinds - set(CASES) == set(), "a new kind of case: say what it is in core/staff_texts.py"
    assert kinds - set(ACTIONS) == set(), "a new kind of case: say what may be done in core/case_kinds.py"
    assert set(CASES) == set(ACTIONS)
    for kind in CASES:
        for language in ("zh", "en"):
            title, to_do = case_text(kind, language)
            assert title
            assert to_do
    assert case_text("unheard_of", "zh") == ("unheard_of", "")
    assert actions_of("unheard_of") == (CaseAction.ASK_NOW,)


def test_the_runbook_and_the_work_list_know_the_same_kinds() -> None:
    table = (ROOT / "docs" / "runbook.md").read_text().partition("| Kind |")[2].partition("\n\n")[0]
    described: dict[str, set[str]] = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            _, kinds, *_, actions, _ = line.split("|")
            for kind in re.findall(r"`(\w+)`", kinds):
                described[kind] = set(re.findall(r"`(\w+)`", actions))
    assert set(described) == set(CASES)
    for kind, allowed in ACTIONS.items():
        assert {action.value for action in allowed} <= described[kind], kind


# ---------------------------------------------------------------- the list


async def test_ten_thousand_cases_are_read_page_by_page_at_the_same_cost(house: House) -> None:
    actor = await staff(house)
    await rows(
        "INSERT INTO staff_case (id, institution_id, kind, subject, details, status, opened_at, closed_reason, note)"
        " SELECT gen_random_uuid(), $1, CASE WHEN n % 100 = 0 THEN 'external_refund' ELSE 'line_waits' END, 'S' || n,"
        " '{}', 'open', $2::timestamptz + (n / 3) * interval '1 second', '', '' FROM generate_series(1, 10000) n"
        " RETURNING id",
        house.institution_id,
        house.clock.now(),
    )
    await rows("ANALYZE staff_case")
    seen: list[str] = []
    place, spent = None, []
    while True:
        began = time.perf_counter()
        page = await house.services.case_work.list(actor, after=place, limit=200)
        spent.append(time.perf_counter() - began)
        seen += [view.subject for view in page.items]
        if page.next is None:
            break
        place = place_from(str(page.next), "after")
    assert len(seen) == len(set(seen)) == 10_000
    numbers = [(int(subject[1:])) // 3 for subject in seen]
    assert numbers == sorted(numbers)
    assert min(spent[-10:]) < 5 * min(spent[:10])
    of_kind = await house.services.case_work.list(actor, kind="external_refund", limit=200)
    assert len(of_kind.items) == 100
    assert await house.services.case_work.counts(actor) == {"external_refund": 100, "line_waits": 9900}
    plan = await rows(
        "EXPLAIN SELECT * FROM staff_case WHERE institution_id = $1 AND status = 'open' AND opened_at >= $2"
        " AND (opened_at > $2 OR id > $3) ORDER BY opened_at, id LIMIT 201",
        house.institution_id,
        house.clock.now() + timedelta(seconds=3000),
        uuid4(),
    )
    text = " ".join(str(row) for row in plan)
    assert "staff_case_open" in text
    assert "Seq Scan" not in text


async def test_a_case_shows_all_that_is_known_and_nobody_s_name(house: House) -> None:
    actor = await staff(house)
    start = await a_stuck_refund(house)
    (view,) = (await house.services.case_work.list(actor, limit=9)).items
    assert (view.kind, view.order_no) == ("refund_stuck", start.order_no)
    shown = await house.services.case_work.show(actor, view.case_id)
    assert shown.actions == [CaseAction.ASK_NOW, CaseAction.RESUME, CaseAction.ATTEST]
    payment = shown.payment
    assert payment is not None
    assert (payment.status, payment.paid_fen, payment.patient) == ("paid", 8650, "王*兰")
    assert [line.status for line in payment.lines] == ["returning"]
    assert [confirmation.status for confirmation in payment.confirmations] == ["rejected"]
    (refund,) = payment.refunds
    assert (refund.status, refund.amount_fen, len(refund.parts)) == ("stuck", 8650, 1)
    assert [transfer.kind for transfer in payment.transfers] == ["paid", "return_decided"]
    assert payment.balances["refund_payable"] == 8650
    assert {"paid", "rejected"} <= {event.proves for event in payment.evidence}
    assert [message.kind for message in payment.messages] == ["refused_returned"]
    text = repr(shown)
    assert "王秀兰" not in text
    assert "19900000001" not in text
    event = next(event for event in payment.evidence if event.has_raw)
    assert await house.services.payment_files.raw(actor, event.event_id)
    assert await AuditEntry.filter(institution_id=house.institution_id, action="raw_body_read").count() == 1
    looker = await staff(house, "1002", Role.LOOK)
    assert (await house.services.case_work.show(looker, view.case_id)).actions == []
    with pytest.raises(NotAllowed):
        await house.services.payment_files.raw(looker, event.event_id)


async def test_a_payment_is_found_by_every_number_of_it(house: House) -> None:
    actor = await staff(house, "1001", Role.LOOK)
    start = await started(house)
    house.pay_sheet(start)
    await house.settle(within=timedelta(minutes=5))
    payment = await house.payment(start.order_no)
    (line,) = await house.lines(start.order_no)
    for number in (start.order_no, payment.channel_trade_no, line.his_bill_id, line.receipt_no, line.confirm_no):
        (found,) = await house.services.payment_files.find(actor, number)
        assert found.order_no == start.order_no
    assert await house.services.payment_files.find(actor, start.order_no[:-1]) == []
    other = await house.setup.institution(code="anhe", name_zh="安和医院")
    key = await house.services.staff.add(other, "1", "别人", tuple(Role))
    stranger = await house.services.staff.authenticate(key)
    assert await house.services.payment_files.find(stranger, start.order_no) == []
    with pytest.raises(NotFound):
        await house.services.payment_files.by_order(stranger, start.order_no)


async def test_a_number_is_found_by_index_among_many(house: House, database: Database) -> None:
    actor = await staff(house, "1001", Role.LOOK)
    start = await started(house)
    payment = await house.payment(start.order_no)
    await rows(
        "INSERT INTO payment_line (id, institution_id, payment_id, position, branch, his_bill_id, visit_no, kind,"
        " kind_text, title, amount_fen, status, claims_bill, confirm_no, receipt_no, guide_text, receipt_url,"
        " ebill_url, refunded_fen, paid_out_fen, reason_code, reason_text, attempts, holder)"
        " SELECT gen_random_uuid(), $1, $2, n, '', 'B' || n, '', 'other', '', '', 1, 'waiting', false, 'C',"
        " CASE WHEN n % 2 = 0 THEN 'S' || n ELSE '' END, '', '', '', 0, 0, '', '', 0, ''"
        " FROM generate_series(1, 30000) n RETURNING id",
        house.institution_id,
        payment.id,
    )
    with psycopg.connect(database.owner_dsn, autocommit=True) as owner:  # nobody else may
        owner.execute("ANALYZE payment_line")
    for number in ("B77", "S20000"):
        for _ in range(8):  # more often than the database plans anew
            found = await house.services.payment_files.find(actor, number)
            assert [brief.order_no for brief in found] == [start.order_no]
    plan = await rows(
        "EXPLAIN SELECT * FROM payment_line WHERE institution_id = $1 AND (his_bill_id = $2 OR receipt_no = $2)",
        house.institution_id,
        "S20000",
    )
    text = " ".join(str(row) for row in plan)
    assert "payment_line_of_receipt" in text
    assert "payment_line_of_bill" in text


# ---------------------------------------------------------------- what is done


async def test_asking_now_asks_the_channel_at_once(house: House) -> None:
    actor = await staff(house)
    start = await started(house)
    house.faults.script("wechatpay.notice_lost", times=9)
    house.pay_sheet(start)
    payment = await house.payment(start.order_no)
    await house.services.cases.open(
        house.institution_id, "payment_outcome_unknown", start.order_no, payment_id=payment.id
    )
    case = await the_case(house, "payment_outcome_unknown")
    await house.services.case_work.ask_now(actor, case.id)
    assert (await house.payment(start.order_no)).status is PaymentStatus.PAID
    assert {line.status for line in await house.lines(start.order_no)} == {LineStatus.CONFIRMED}
    assert (await the_case(house, "payment_outcome_unknown")).status is CaseStatus.CLOSED
    with pytest.raises(ActionNotPossible, match="closed"):
        await house.services.case_work.ask_now(actor, case.id)
    (entry,) = await AuditEntry.filter(institution_id=house.institution_id)
    assert (entry.action, entry.subject) == ("case_asked", str(case.id))


async def test_a_stuck_refund_goes_out_again_under_its_number(house: House) -> None:
    actor = await staff(house)
    start = await a_stuck_refund(house)
    case = await the_case(house, "refund_stuck")
    house.clock.advance(timedelta(minutes=5))
    await house.services.case_work.resume(actor, case.id)
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert refund.status is RefundStatus.SENDING
    sent_before = refund.sends_started
    await house.step()
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert refund.sends_started == sent_before + 1
    assert refund.refund_no == case.subject
    looker = await staff(house, "1002", Role.LOOK, Role.WORK_CASES)
    with pytest.raises(NotAllowed):
        await house.services.case_work.resume(looker, case.id)
    assert (await house.payment(start.order_no)).refund_reserved_fen == 8650


async def test_after_the_last_dead_number_a_person_may_try_one_more(house: House) -> None:
    actor = await staff(house)
    start = await started(house)
    house.pay_sheet(start)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.refund_closed", times=20)
    await house.settle(within=timedelta(days=30))
    case = await the_case(house, "refund_never_succeeds")
    dead = await Refund.filter(institution_id=house.institution_id).order_by("created_at", "id")
    assert [refund.status for refund in dead] == [RefundStatus.DEAD] * 20
    with pytest.raises(ActionNotPossible, match="unsettled"):
        await house.services.case_work.close(actor, case.id, "看过了")
    await house.services.case_work.resume(actor, case.id)
    with pytest.raises(ActionNotPossible, match="nothing_waits"):
        await house.services.case_work.resume(actor, case.id)
    await house.settle(within=timedelta(days=3))
    payment = await house.payment(start.order_no)
    assert (payment.refunded_fen, payment.refund_reserved_fen) == (8650, 8650)
    assert {line.status for line in await house.lines(start.order_no)} == {LineStatus.RETURNED}
    await house.services.case_work.close(actor, case.id, "第二十一个单号成功")


async def test_a_refund_stopped_by_doubt_goes_on(house: House) -> None:
    actor = await staff(house)
    start = await started(house)
    house.pay_sheet(start)
    house.faults.script("hospital.refuses_confirm")
    payment = await house.payment(start.order_no)
    for _ in range(40):
        await house.step()
        house.clock.advance(timedelta(seconds=5))
        if await Refund.filter(institution_id=house.institution_id, sends_started=0).count():
            break
    await house.services.returning.stop_unsent(payment)
    await house.services.cases.open(
        house.institution_id, "contradicting_evidence", start.order_no, payment_id=payment.id
    )
    case = await the_case(house, "contradicting_evidence")
    await house.settle(within=timedelta(hours=1))
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    if refund.due_at is None and refund.status is not RefundStatus.REFUNDED:
        with pytest.raises(ActionNotPossible, match="unsettled"):
            await house.services.case_work.close(actor, case.id, "已核对")
        await house.services.case_work.resume(actor, case.id)
        await house.settle(within=timedelta(days=1))
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert refund.status is RefundStatus.REFUNDED
    with pytest.raises(ActionNotPossible, match="nothing_waits"):
        await house.services.case_work.resume(actor, case.id)
    await house.services.case_work.close(actor, case.id, "已核对，电话13812345678")
    closed = await the_case(house, "contradicting_evidence")
    assert (closed.status, closed.closed_by, closed.note) == (CaseStatus.CLOSED, actor.staff_id, "已核对，电话***")


async def test_a_case_is_not_closed_while_its_money_is_open(house: House) -> None:
    actor = await staff(house)
    start = await started(house)
    payment = await house.payment(start.order_no)
    await house.services.cases.open(house.institution_id, "external_refund", start.order_no, payment_id=payment.id)
    case = await the_case(house, "external_refund")
    with pytest.raises(ActionNotPossible, match="unsettled"):
        await house.services.case_work.close(actor, case.id, "看过了")
    await house.services.cases.open(house.institution_id, "line_waits", "C1", payment_id=payment.id)
    waits = await the_case(house, "line_waits")
    with pytest.raises(ActionNotPossible, match="not_for_this_case"):
        await house.services.case_work.close(actor, waits.id, "看过了")
    with pytest.raises(InvalidRequest):
        await house.services.case_work.close(actor, case.id, "  ")
    house.pay_sheet(start)
    await house.settle(within=timedelta(minutes=5))
    await house.services.case_work.close(actor, case.id, "医院已退费")
    with pytest.raises(ActionNotPossible, match="closed"):
        await house.services.case_work.close(actor, case.id, "医院已退费")


async def test_a_case_without_a_payment_is_closed_or_asked(house: House) -> None:
    actor = await staff(house)
    await house.services.cases.open(house.institution_id, "notice_for_unknown_order", "P1", details={"paid_fen": 1})
    case = await the_case(house, "notice_for_unknown_order")
    with pytest.raises(ActionNotPossible, match="not_for_this_case"):
        await house.services.case_work.ask_now(actor, case.id)
    await house.services.case_work.close(actor, case.id, "别的系统的订单")
    shown = await house.services.case_work.show(actor, case.id)
    assert (shown.case.closed_by, shown.actions, shown.payment) == ("1001", [], None)
    assert [entry.action for entry in shown.audit] == ["case_closed"]

    await house.services.cases.open(house.institution_id, "inbound_not_worked", str(UUID(int=1)))
    inbound = await the_case(house, "inbound_not_worked")
    with pytest.raises(ActionNotPossible, match="nothing_waits"):
        await house.services.case_work.ask_now(actor, inbound.id)
    assert await Inbound.filter(institution_id=house.institution_id).count() == 0
    assert (await house.services.case_work.show(actor, inbound.id)).actions == [CaseAction.ASK_NOW, CaseAction.CLOSE]


async def test_an_event_that_cannot_be_worked_is_given_up_by_a_person(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while a worker is at it: what he does not find out then opens no case any more."""
    actor = await staff(house)
    house.faults.rate("hospital.not_reached", 1.0)
    bill = house.bill()
    await house.settle(within=timedelta(hours=2))
    case = await the_case(house, "inbound_not_worked")
    assert case.details == {"kind": "new_bill", "his_bill_id": bill}
    house.clock.advance(timedelta(hours=1))
    meanwhile(monkeypatch, "site", lambda: house.services.case_work.close(actor, case.id, "账单已作废"))
    await work(house, "inbound")
    (inbound,) = await Inbound.filter(institution_id=house.institution_id)
    assert (inbound.status, inbound.due_at, inbound.holder) == (InboundStatus.WORKED, None, "")
    assert await house.services.case_work.counts(actor) == {}
    house.clock.advance(timedelta(days=1))
    await work(house, "inbound")
    assert (await Inbound.get(id=inbound.id)).attempts == inbound.attempts


@pytest.mark.parametrize(("table", "kind"), [("inbound", "inbound_not_worked"), ("confirmation", "work_fails")])
async def test_work_that_raises_again_and_again_is_a_case(house: House, table: str, kind: str) -> None:
    actor = await staff(house)
    start = await started(house)
    house.pay_sheet(start)
    payer_id = (await house.payment(start.order_no)).payer_id
    if table == "confirmation":
        await house.services.payments.refreshed(payer_id, house.institution_id, start.order_no)
    else:
        await deliver_one(house.his, house.receive)
    (loop,) = (loop for loop in house.loops() if loop.table == table)
    tries: list[UUID] = []

    async def raises(row: DueRow) -> None:
        tries.append(row.id)
        raise LookupError("王秀兰")

    for _ in range(CASE_AFTER_TRIES):
        assert await house.services.case_work.counts(actor) == {}
        house.clock.advance(loop.lease)
        await run_once(replace(loop, work=raises), house.services)
    assert len(tries) == CASE_AFTER_TRIES
    case = await the_case(house, kind)
    assert case.subject == (str(tries[0]) if table == "inbound" else f"confirmation:{tries[0]}")
    assert case.details == {"table": table, "error": "LookupError", "tries": CASE_AFTER_TRIES}
    assert (case.payment_id is None) == (table == "inbound")
    house.clock.advance(loop.lease)
    await run_once(replace(loop, work=raises), house.services)
    assert await house.services.case_work.counts(actor) == {kind: 1}
    if table == "confirmation":
        with pytest.raises(ActionNotPossible, match="unsettled"):
            await house.services.case_work.close(actor, case.id, "看过了")
        await house.services.case_work.ask_now(actor, case.id)
    house.clock.advance(loop.lease)
    await run_once(loop, house.services)
    assert await house.services.case_work.counts(actor) == {}


async def test_the_case_of_failing_work_closes_when_its_row_ends_by_another_way(house: House) -> None:
    actor = await staff(house)
    start = await started(house)
    house.pay_sheet(start)
    (loop,) = (loop for loop in house.loops() if loop.table == "payment")

    async def raises(row: DueRow) -> None:
        raise LookupError

    for _ in range(CASE_AFTER_TRIES):
        house.clock.advance(loop.lease)
        await run_once(replace(loop, work=raises), house.services)
    assert await house.services.failing.sweep() == 0
    assert await house.services.case_work.counts(actor) == {"work_fails": 1}
    await deliver_one(house.pay, house.receive)
    await work(house, "inbound")
    assert (await house.payment(start.order_no)).due_at is None
    assert await house.services.failing.sweep() == 1
    assert await house.services.case_work.counts(actor) == {}


async def work(house: House, table: str) -> None:
    """What is due of one kind, once."""
    (loop,) = (loop for loop in house.loops() if loop.table == table)
    for row in await claim_due(loop, house.services):
        await loop.work(row)


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], Awaitable[object]]) -> None:
    """Something happens while somebody who works a row has read it and looks up whom to ask; once."""
    good = getattr(Institutions, name)

    async def after_it(*values: Any) -> Any:
        monkeypatch.setattr(Institutions, name, good)
        await act()
        return await good(*values)

    monkeypatch.setattr(Institutions, name, after_it)


async def test_no_case_is_opened_about_a_booking_that_has_just_been_heard_of(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await started(house)
    await house.settle(within=timedelta(seconds=1))
    house.pay_sheet(start)
    house.faults.rate("hospital.not_reached", 1.0)
    await house.settle(within=timedelta(minutes=20))
    (line,) = await house.lines(start.order_no)
    assert line.status is LineStatus.CONFIRMING
    house.clock.advance(timedelta(hours=1))
    said = booking_evidence(start.order_no, line.confirm_no, Booking(booked=True), proof=ProofKind.AUTHENTICATED_QUERY)
    meanwhile(monkeypatch, "site", lambda: house.services.applier.apply(said))
    await work(house, "confirmation")
    assert [line.status for line in await house.lines(start.order_no)] == [LineStatus.CONFIRMED]
    assert await house.services.case_work.counts(await staff(house)) == {}


async def test_no_case_is_opened_about_a_refund_that_has_just_arrived(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await started(house)
    house.pay_sheet(start)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.refund_slow", times=99)
    await house.settle(within=timedelta(minutes=2))
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert refund.status is RefundStatus.PENDING
    house.clock.advance(timedelta(hours=25))
    trade = RefundTrade(
        refund_no=refund.refund_no,
        order_no=start.order_no,
        state=RefundState.REFUNDED,
        amount_fen=refund.amount_fen,
        refunded_at=house.clock.now(),
    )
    said = refund_evidence(trade, start.order_no, source="wechatpay", proof=ProofKind.VERIFIED_NOTICE)
    meanwhile(monkeypatch, "merchant", lambda: house.services.applier.apply(said))
    await work(house, "refund")
    assert (await Refund.get(id=refund.id)).status is RefundStatus.REFUNDED
    assert await house.services.case_work.counts(await staff(house)) == {}


async def test_a_lock_that_is_used_up_leaves_no_case_behind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HIS does not release, money arrives late all the same, and it is booked."""
    start = await started(house)
    await house.settle(within=timedelta(minutes=1))
    house.faults.rate("hospital.not_reached", 1.0)
    await house.settle(within=timedelta(hours=4))
    assert await house.services.case_work.counts(await staff(house)) == {"lock_not_released": 1}
    house.faults.clear()
    payment = await house.payment(start.order_no)
    trade = Trade(order_no=start.order_no, exists=True, ever_paid=True, paid_fen=payment.asked_fen)
    said = trade_evidence(trade, source="wechatpay", proof=ProofKind.VERIFIED_NOTICE)
    await house.services.applier.apply(said)
    for _ in range(4):  # the HIS rests after its silence; then refused, locked again, booked
        await work(house, "confirmation")
        house.clock.advance(timedelta(minutes=5))
    assert [line.status for line in await house.lines(start.order_no)] == [LineStatus.CONFIRMED]
    assert await house.services.case_work.counts(await staff(house, "1002")) == {}


async def test_money_that_waited_leaves_no_case_behind_whoever_led_it_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that ends a line's waiting dies right after that."""
    payer = await house.payer()
    patient, bill = await house.bound(payer), house.bill()
    first = await house.start(payer, patient, bill)
    await house.settle(within=timedelta(hours=1))
    second = await house.start(payer, patient, bill)
    house.pay_sheet(second)
    house.faults.rate("hospital.not_reached", 1.0)
    await house.settle(within=timedelta(seconds=30))
    assert [line.status for line in await house.lines(second.order_no)] == [LineStatus.CONFIRMING]
    trade = Trade(order_no=first.order_no, exists=True, ever_paid=True, paid_fen=first.amount_fen)
    await house.services.applier.apply(trade_evidence(trade, source="wechatpay", proof=ProofKind.VERIFIED_NOTICE))
    await house.settle(within=timedelta(minutes=31))
    assert (await the_case(house, "line_waits")).status is CaseStatus.OPEN
    house.faults.clear()

    async def dies(refunds: Refunds, line: PaymentLine) -> None:
        current = await PaymentLine.get(id=line.id)
        assert current.status is LineStatus.WAITING, "dead"

    monkeypatch.setattr(Refunds, "_case_for_waiting", dies)
    with pytest.raises(AssertionError, match="dead"):
        await house.settle(within=timedelta(hours=1))
    assert [line.status for line in await house.lines(first.order_no)] == [LineStatus.SURPLUS]
    assert (await the_case(house, "line_waits")).status is CaseStatus.CLOSED


async def test_nobody_sees_another_institution_s_cases(house: House) -> None:
    await house.services.cases.open(house.institution_id, "notice_for_unknown_order", "P1")
    case = await the_case(house, "notice_for_unknown_order")
    other = await house.setup.institution(code="anhe", name_zh="安和医院")
    stranger = await house.services.staff.authenticate(
        await house.services.staff.add(other, "1001", "别人", tuple(Role))
    )
    assert (await house.services.case_work.list(stranger, limit=9)).items == []
    assert await house.services.case_work.counts(stranger) == {}
    for act in (
        house.services.case_work.show(stranger, case.id),
        house.services.case_work.ask_now(stranger, case.id),
        house.services.case_work.resume(stranger, case.id),
        house.services.case_work.close(stranger, case.id, "x"),
    ):
        with pytest.raises(NotFound):
            await act
