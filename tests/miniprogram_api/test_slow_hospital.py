"""A page answers within three seconds, however slow the HIS is, and goes on by itself."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from core.errors import HospitalUnavailable, TooManyRequests
from miniprogram_api.app import build_app
from miniprogram_api.running import Asking, Questions, Running
from tests.miniprogram_api.conftest import PAGE_WAIT_SECONDS, SESSION_KEY, Serve
from tests.miniprogram_api.phone import Phone, in_both_languages
from tests.support.fakes import held
from tests.support.house import House


async def test_the_list_comes_later_with_a_ticket(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    his = held(house.services.outside.hospitals, "rest")
    his.hold("list_bills")
    path = f"/api/v1/patients/{patient}/bills"
    began = time.monotonic()
    asking = await phone.get(path)
    assert PAGE_WAIT_SECONDS <= time.monotonic() - began < PAGE_WAIT_SECONDS + 2
    assert asking.status == 202
    assert asking.headers["retry-after"] == "2"
    ticket = asking.body.pop("ticket")
    assert asking.body == {"status": "asking", "message": "正在向医院查询…", "retry_after_seconds": 2}
    still = await phone.get(f"{path}?ticket={ticket}")
    assert (still.status, still.body["ticket"]) == (202, ticket)
    his.let_go("list_bills")
    found = await phone.done("GET", f"{path}?ticket={ticket}")
    assert [entry["bill_id"] for entry in found["bills"]] == [bill]
    asked = his.calls["list_bills"]
    assert asked == 2  # she has two numbers in this HIS; waiting and asking again asked no more
    await phone.done("GET", f"{path}?ticket={ticket}")  # the answer was lost on the way: the ticket still opens it
    assert his.calls["list_bills"] == asked
    await phone.bills(patient)  # without the ticket the HIS is asked anew
    assert his.calls["list_bills"] == 2 * asked


async def test_a_ticket_that_nobody_knows_asks_again(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    house.bill(total_fen=8650)
    found = await phone.done("GET", f"/api/v1/patients/{patient}/bills?ticket=from-another-program")
    assert found["count"] == 1


async def test_one_bill_and_its_items_come_later_too(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    his = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    path = f"/api/v1/patients/{patient}/bills/-/{bill}"
    asking = await phone.get(path)
    assert asking.status == 202
    his.let_go("get_bill")
    assert (await phone.done("GET", f"{path}?ticket={asking.body['ticket']}"))["bill_id"] == bill


async def test_our_own_part_of_the_paid_list_does_not_wait(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    order_no = await phone.pays(patient, house.bill(total_fen=8650))
    await phone.payment(order_no)
    his = held(house.services.outside.hospitals, "rest")
    his.hold("list_paid", "list_bills")
    paid = await phone.paid(patient)
    assert [entry["order_no"] for entry in paid["paid"]] == [order_no]
    assert (paid["hospital_part"], paid["hospital_text"]) == ("asking", "正在向医院查询…")
    counts = await phone.counts(patient)
    assert (counts["to_pay"], counts["paid"], counts["hospital_part"]) == (None, 1, "asking")
    his.let_go("list_paid", "list_bills")
    later = await phone.done("GET", f"/api/v1/patients/{patient}/counts?ticket={counts['ticket']}")
    assert later == {"to_pay": 0, "paid": 1, "hospital_part": "complete", "hospital_text": None, "ticket": None}
    assert his.calls["list_paid"] == 2
    later = await phone.done("GET", f"/api/v1/patients/{patient}/paid?ticket={paid['ticket']}")
    assert (later["hospital_part"], later["ticket"]) == ("complete", None)
    assert his.calls["list_paid"] == 2


async def test_a_slow_channel_does_not_hold_the_payments_page(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    order_no = await phone.pays(patient, house.bill(total_fen=8650))
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold("query")
    began = time.monotonic()
    assert (await phone.payment(order_no))["status"] == "paying"
    assert time.monotonic() - began < PAGE_WAIT_SECONDS + 2
    channel.let_go("query")
    async with asyncio.timeout(5):
        while (await phone.payment(order_no))["status"] == "paying":
            await asyncio.sleep(0.02)
    assert channel.calls["query"] == 1  # a page that looks often does not ask the channel often


@pytest.mark.parametrize("tap_wait_seconds", [PAGE_WAIT_SECONDS])
@pytest.mark.parametrize("call", ["get_bill", "lock_bills"])
async def test_a_tap_is_answered_in_time_and_the_same_key_opens_the_sheet(
    house: House, phone: Phone, call: str
) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    his = held(house.services.outside.hospitals, "rest")
    his.hold(call)
    began = time.monotonic()
    late = await phone.start(patient, bill, key="tap")
    assert time.monotonic() - began < PAGE_WAIT_SECONDS + 2
    assert (late.status, late.code, late.headers["retry-after"]) == (409, "still_working", "2")
    assert late.error["retry_after_seconds"] == 2
    assert "没有重复扣款" in late.error["message"]
    assert (await phone.start(patient, bill, key="tap")).code == "still_working"
    assert his.calls[call] == 1  # a page that asks again does not make the HIS work twice
    his.let_go(call)
    started = await phone.start_until_done(patient, bill, key="tap")
    assert house.pay.pay_with(started.body["pay"]["values"]) == "paid"
    assert len(house.pay.books()["orders"]) == 1


@pytest.mark.parametrize("tap_wait_seconds", [PAGE_WAIT_SECONDS])
async def test_what_a_late_tap_comes_to_is_told_to_the_same_key(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    his = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    assert (await phone.start(patient, bill, key="tap", shown_fen=1)).code == "still_working"
    his.let_go("get_bill")
    async with asyncio.timeout(5):
        while (answer := await phone.start(patient, bill, key="tap", shown_fen=1)).code == "still_working":
            await asyncio.sleep(0.02)
    assert answer.code == "amount_changed"
    assert house.pay.books()["orders"] == []


async def test_a_cancel_is_answered_in_time_with_how_things_stand(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    started = await phone.start(patient, house.bill(total_fen=8650))
    path = f"/api/v1/payments/{started.body['order_no']}"
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold("close")
    began = time.monotonic()
    assert (await phone.done("POST", f"{path}/cancel"))["status"] == "paying"
    assert time.monotonic() - began < PAGE_WAIT_SECONDS + 2
    channel.let_go("close")
    async with asyncio.timeout(5):
        while (await phone.done("GET", path))["status"] == "paying":
            await asyncio.sleep(0.02)
    assert (await phone.done("GET", path))["status"] == "not_paid"


@pytest.mark.parametrize("tap_wait_seconds", [PAGE_WAIT_SECONDS])
async def test_binding_is_answered_in_time_and_goes_on(house: House, phone: Phone) -> None:
    his = held(house.services.outside.hospitals, "rest")
    his.hold("find_patients")
    late = await in_both_languages(phone, lambda: phone.post("/api/v1/patients", phone.binding()))
    assert (late["code"], late["reason"], late["retry_after_seconds"]) == ("hospital_unavailable", "still_binding", 30)
    assert "内容没有丢失" in late["message"]
    assert await phone.done("GET", "/api/v1/patients") == {"patients": []}
    his.let_go("find_patients")
    async with asyncio.timeout(5):
        while not (await phone.done("GET", "/api/v1/patients"))["patients"]:
            await asyncio.sleep(0.02)


async def test_a_stop_waits_for_what_is_under_way(house: House, serve: Serve, http: aiohttp.ClientSession) -> None:
    user = house.chat.add_user("王秀兰", phone="19900000001")
    channel = held(house.services.outside.channels, "wechatpay")
    app = build_app(house.services, session_key=SESSION_KEY, page_wait_seconds=PAGE_WAIT_SECONDS)
    async with serve(app) as url:
        phone = Phone(house=house, base_url=url, http=http, user=user, app_id=house.mini_app_id)
        await phone.sign_in()
        patient = await phone.bind()
        channel.hold("create")
        tap = asyncio.create_task(phone.start(patient, house.bill(total_fen=8650)))
        await channel.reached("create")
        app.before_server_stop(lambda _: channel.let_go("create"))
    assert (await tap).status == 201


# ---------------------------------------------------------------- Running and Questions


async def test_a_question_has_a_deadline_and_their_number_a_bound() -> None:
    questions = Questions(
        running=Running(), new_ticket=lambda: "t", wait_seconds=0.01, ask_seconds=0.05, keep_seconds=60, open_max=1
    )

    async def for_ever() -> None:
        await asyncio.Event().wait()

    asking = await questions.ask("a", for_ever, tickets=frozenset())
    assert asking == Asking(ticket="t")
    with pytest.raises(HospitalUnavailable):
        await questions.ask("b", for_ever, tickets=frozenset())
    questions.wait_seconds = 5
    with pytest.raises(HospitalUnavailable):
        await questions.ask("a", for_ever, tickets=frozenset({"t"}))


async def test_an_answer_is_forgotten_after_a_while() -> None:
    running = Running()
    asked = 0

    async def count() -> int:
        nonlocal asked
        asked += 1
        return asked

    questions = Questions(running=running, new_ticket=lambda: "t", wait_seconds=1, keep_seconds=60)
    assert await questions.ask("a", count, tickets=frozenset()) == 1
    assert await questions.ask("a", count, tickets=frozenset({"t"})) == 1
    questions = Questions(running=running, new_ticket=lambda: "t", wait_seconds=1, keep_seconds=0.02)
    assert await questions.ask("b", count, tickets=frozenset()) == 2
    async with asyncio.timeout(5):
        while await questions.ask("b", count, tickets=frozenset({"t"})) == 2:
            await asyncio.sleep(0.01)
    assert asked == 3


async def test_what_is_under_way_is_bounded() -> None:
    running = Running(tasks_max=1)
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    task = running.begin(wait())
    with pytest.raises(TooManyRequests):
        running.begin(wait())
    gate.set()
    await task
    await running.drain(seconds=1)
