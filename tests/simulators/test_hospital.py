"""The simulated HIS itself: its books, its weaknesses, its console routes, and that a seed is a story."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from core.errors import CounterpartyError, Refused
from core.money import Fen
from core.ports import ReverseLine, ReverseOrder
from simulators.clock import ManualClock
from simulators.hospital import HospitalSimulator
from simulators.hospital_books import Refusal
from simulators.hospital_faults import FAULTS
from simulators.hospital_stock import CHECK_CHARACTERS, READY_PEOPLE, WEIGHTS
from simulators.kit import Request, Response, deliver_one, exchange
from tests.support.hospital import LABOURER, MORNING, Connected, a_simulator, connect
from tests.support.transports import InProcessTransport


def a_hospital(**options: Any) -> Connected:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock, **options)
    return connect(simulator, clock, InProcessTransport({"http://127.0.0.1": simulator}), "http://127.0.0.1")


@pytest.fixture
def connected() -> Connected:
    return a_hospital()


# ---------------------------------------------------------------- weak hospitals


async def test_a_weak_his_books_twice_what_is_sent_twice_blindly() -> None:
    weak = a_hospital(weak=True)
    number, _, order = await weak.a_locked_bill()
    for _ in range(2):
        await weak.hospital.confirm_payment(weak.site, order)
    assert weak.times_booked(number) == 2


async def test_a_weak_his_books_once_when_it_is_asked_in_between() -> None:
    weak = a_hospital(weak=True)
    number, _, order = await weak.a_locked_bill()
    await weak.hospital.confirm_payment(weak.site, order)
    await weak.hospital.query_payment(weak.site, order.confirm_no)
    await weak.hospital.confirm_payment(weak.site, order)
    assert weak.times_booked(number) == 1


async def test_a_weak_his_books_twice_what_is_sent_again_while_it_is_still_booking() -> None:
    weak = a_hospital(weak=True)
    number, _, order = await weak.a_locked_bill()
    weak.simulator.faults.script("hospital.books_slowly")
    await weak.hospital.confirm_payment(weak.site, order)
    assert not (await weak.hospital.query_payment(weak.site, order.confirm_no)).booked
    await weak.hospital.confirm_payment(weak.site, order)
    weak.clock.advance(timedelta(minutes=2))
    assert weak.times_booked(number) == 2


async def test_the_window_cannot_take_a_bill_that_is_being_booked(connected: Connected) -> None:
    number, _, order = await connected.a_locked_bill()
    connected.simulator.faults.script("hospital.books_slowly")
    await connected.hospital.confirm_payment(connected.site, order)
    with pytest.raises(Refusal, match="LOCKED"):
        connected.simulator.window_pay(number, force=True)
    connected.clock.advance(timedelta(minutes=2))
    assert connected.times_booked(number) == 1


@pytest.mark.parametrize(("asked_between", "times"), [(False, 2), (True, 1)])
async def test_a_weak_his_takes_back_twice_what_is_sent_twice_blindly(asked_between: bool, times: int) -> None:
    weak = a_hospital(weak=True)
    number, _, order = await weak.a_locked_bill()
    await weak.hospital.confirm_payment(weak.site, order)
    part = ReverseLine(confirm_no=order.confirm_no, his_bill_id=number, amount_fen=Fen(100))
    reverse = ReverseOrder(refund_no="R1", order_no=order.order_no, his_patient_id=LABOURER, lines=(part,))
    await weak.hospital.confirm_refund(weak.site, reverse)
    if asked_between:
        await weak.hospital.query_refund(weak.site, "R1")
    await weak.hospital.confirm_refund(weak.site, reverse)
    assert len(weak.simulator.books()["bills"][number]["red_receipts"]) == times


async def test_the_window_waits_while_a_reversal_is_under_way() -> None:
    his = a_hospital()
    number, _, order = await his.a_locked_bill()
    await his.hospital.confirm_payment(his.site, order)
    part = ReverseLine(confirm_no=order.confirm_no, his_bill_id=number, amount_fen=Fen(100))
    his.simulator.faults.script("hospital.reverses_slowly")
    reverse = ReverseOrder(refund_no="R1", order_no=order.order_no, his_patient_id=LABOURER, lines=(part,))
    await his.hospital.confirm_refund(his.site, reverse)
    with pytest.raises(Refusal, match="LOCKED"):
        his.simulator.reverse_at_window(number)
    his.clock.advance(timedelta(minutes=2))
    his.simulator.reverse_at_window(number)
    assert [red["amount_fen"] for red in his.simulator.books()["bills"][number]["red_receipts"]] == [100, 3110]


async def test_a_his_without_locks_books_without_one_and_protects_nothing() -> None:
    bare = a_hospital(no_lock=True)
    number = bare.simulator.issue_bill(LABOURER, total_fen=700)
    with pytest.raises(Refused) as refused:
        await bare.hospital.lock_bills(bare.site, bare.a_lock_order(number))
    assert (refused.value.code, refused.value.final) == ("OPERATION_UNSUPPORTED", False)
    order = bare.a_confirm_order(bare.a_confirm_no(), {number: Fen(700)})
    assert (await bare.hospital.confirm_payment(bare.site, order)).booked
    again = bare.a_confirm_order(bare.a_confirm_no(), {number: Fen(700)})
    with pytest.raises(Refused) as refused:
        await bare.hospital.confirm_payment(bare.site, again)
    assert (refused.value.code, refused.value.final) == ("BILL_PAID", True)


async def test_a_his_without_events_tells_nothing() -> None:
    silent = a_hospital(no_events=True)
    silent.simulator.issue_bill(LABOURER)
    assert silent.simulator.deliveries.waiting == []
    assert silent.simulator.events == []


# ---------------------------------------------------------------- books


async def test_the_window_cannot_touch_what_is_being_paid_by_phone(connected: Connected) -> None:
    number, _, order = await connected.a_locked_bill()
    for touch in (
        connected.simulator.window_pay,
        connected.simulator.cancel,
        lambda bill: connected.simulator.change_amount(bill, 1),
    ):
        with pytest.raises(Refusal, match="LOCKED"):
            touch(number)
    await connected.hospital.release_lock(connected.site, order.confirm_no)
    connected.simulator.change_amount(number, 4000)
    bill = await connected.hospital.get_bill(connected.site, number)
    assert bill is not None
    assert (bill.total_fen, bill.to_pay_fen) == (4000, 4000)


async def test_the_books_say_who_paid_how_often_and_under_which_number(connected: Connected) -> None:
    number, _, order = await connected.a_locked_bill()
    await connected.hospital.confirm_payment(connected.site, order)
    red = connected.simulator.reverse_at_window(number)
    entry = connected.simulator.books()["bills"][number]
    assert (entry["state"], entry["paid_by"], entry["times_booked"]) == ("cancelled", "mobile", 1)
    assert [(row["confirm_no"], row["amount_fen"]) for row in entry["bookings"]] == [(order.confirm_no, 3210)]
    assert [(row["red_receipt_no"], row["amount_fen"]) for row in entry["red_receipts"]] == [(red, 3210)]


async def _a_story(seed: int) -> dict[str, Any]:
    connected = a_hospital(seed=seed)
    for name in connected.simulator.faults.catalogue:
        connected.simulator.faults.rate(name, 0.05)
    numbers = connected.simulator.issue_ready_bills()
    for _ in range(3):
        for number in numbers:
            patient = connected.simulator.bills[number].patient_id
            order = connected.a_lock_order(number, patient=patient)
            try:
                grant = await connected.hospital.lock_bills(connected.site, order)
                confirm = connected.a_confirm_order(
                    order.confirm_no, dict(grant.amounts_fen), lock_id=grant.lock_id, patient=patient
                )
                await connected.hospital.confirm_payment(connected.site, confirm)
            except CounterpartyError:
                continue
        connected.clock.advance(timedelta(minutes=20))
    return {"books": connected.simulator.books(), "struck": dict(connected.simulator.faults.struck)}


async def test_the_same_seed_is_the_same_day_again_and_another_is_another() -> None:
    first, again, other = await _a_story(1), await _a_story(1), await _a_story(2)
    assert first == again
    assert first != other
    assert first["struck"]


def test_the_ready_people_have_numbers_that_pass_a_check_and_belong_to_nobody() -> None:
    numbers = [value for person in READY_PEOPLE for kind, value in person.identifiers if kind == "id_card"]
    assert len(numbers) >= 5
    for number in numbers:
        total = sum(int(digit) * weight for digit, weight in zip(number[:17], WEIGHTS, strict=True))
        assert CHECK_CHARACTERS[total % 11] == number[17]
        assert number.startswith("9999")  # no such area


def test_every_fault_says_how_it_ends() -> None:
    assert len(FAULTS) >= 20
    assert all(fault.ends and fault.title_zh and fault.calls for fault in FAULTS)
    assert [fault.name for fault in FAULTS if fault.needs_person] == [
        "hospital.never_answers_booking",
        "hospital.never_answers_reversal",
        "hospital.red_receipt_says_nothing_of_money",
    ]


# ---------------------------------------------------------------- what is sent to us


async def test_an_event_is_given_up_after_a_day_at_most(connected: Connected) -> None:
    connected.simulator.issue_bill(LABOURER)

    async def down(url: str, request: Request) -> Response:
        raise OSError

    while connected.simulator.deliveries.waiting:
        while await deliver_one(connected.simulator, down):
            pass
        connected.clock.advance(timedelta(minutes=1))
    [event] = connected.simulator.events
    assert (event.attempts, event.accepted_at) == (10, None)
    assert connected.clock.now() - MORNING < timedelta(days=1)


async def test_each_attempt_is_signed_afresh(connected: Connected) -> None:
    connected.simulator.issue_bill(LABOURER)
    sent: list[Request] = []

    async def post(url: str, request: Request) -> Response:
        sent.append(request)
        return Response(status=500)

    await deliver_one(connected.simulator, post)
    connected.clock.advance(timedelta(seconds=10))
    await deliver_one(connected.simulator, post)
    assert sent[0].body == sent[1].body
    assert sent[0].headers["zhenfu-nonce"] != sent[1].headers["zhenfu-nonce"]


# ---------------------------------------------------------------- the console page's routes


async def _console(
    simulator: HospitalSimulator, path: str, fields: dict[str, Any] | None = None, host: str = "127.0.0.1:8000"
) -> tuple[int, Any]:
    body = Response.of_json(fields or {}).body
    method = "GET" if fields is None else "POST"
    request = Request(method=method, target=path, headers={"host": host}, body=body)
    response = await exchange(simulator, request)
    return response.status, Request(method="", target="", body=response.body).json()


async def test_the_console_issues_pays_cancels_and_shows(connected: Connected) -> None:
    simulator = connected.simulator
    for name in simulator.faults.catalogue:
        simulator.faults.rate(name, 1.0)  # the console is never struck
    status, issued = await _console(simulator, "/_issue", {"patient_id": LABOURER, "total_fen": 990})
    assert status == 200
    number = issued["bill_id"]
    assert (await _console(simulator, "/_change_amount", {"bill_id": number, "to_pay_fen": 880}))[0] == 200
    status, paid = await _console(simulator, "/_window_pay", {"bill_id": number})
    assert paid["receipt_no"].startswith("S")
    assert (await _console(simulator, "/_cancel", {"bill_id": number})) == (
        409, {"error": "BILL_PAID", "message": ""},
    )  # fmt: skip
    status, books = await _console(simulator, "/_books")
    assert books["bills"][number]["bookings"][0]["amount_fen"] == 880
    status, people = await _console(simulator, "/_people")
    assert [person["patient_id"] for person in people["people"]][:2] == ["P10001", "P00417"]
    status, ready = await _console(simulator, "/_issue_ready", {})
    assert len(ready["bill_ids"]) == 9


async def test_the_console_answers_this_computer_only_and_mistakes_kindly(connected: Connected) -> None:
    simulator = connected.simulator
    assert (await _console(simulator, "/_books", host="evil.example"))[0] == 403
    assert (await _console(simulator, "/_books", host="localhost:9"))[0] == 200
    assert (await _console(simulator, "/_issue", {"patient_id": "nobody"}))[0] == 409
    assert (await _console(simulator, "/_issue", {}))[0] == 400
    assert (await _console(simulator, "/_nothing", {}))[0] == 400
    assert (await _console(simulator, "/_nothing"))[0] == 404
