"""A phone that goes away in the middle leaves nothing half done."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import pytest
from sanic.server.protocols.http_protocol import HttpProtocol

from core.models import Payment, PaymentLine
from core.states import PaymentStatus
from miniprogram_api.running import Running
from tests.miniprogram_api.phone import Phone
from tests.support.fakes import held
from tests.support.house import House


async def begin_and_leave(phone: Phone, path: str, body: object, **headers: str) -> asyncio.StreamWriter:
    """Send a request and return the line on which nobody will listen."""
    address = urlsplit(phone.base_url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    data = json.dumps(body).encode()
    sent = {
        "host": "x",
        "authorization": f"Bearer {phone.token}",
        "content-type": "application/json",
        "content-length": str(len(data)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
    await writer.drain()
    return writer


async def until(status: PaymentStatus) -> Payment:
    async with asyncio.timeout(10):
        while (payment := await Payment.get_or_none(status=status)) is None:
            await asyncio.sleep(0.02)
    return payment


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once the server has seen that a phone has gone."""
    seen = asyncio.Event()
    connection_lost = HttpProtocol.connection_lost

    def lost(self: HttpProtocol, error: BaseException | None) -> None:
        connection_lost(self, error)
        seen.set()

    monkeypatch.setattr(HttpProtocol, "connection_lost", lost)
    return seen


async def seen(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()
    await asyncio.sleep(0)  # the handler has been cancelled


async def test_a_payment_is_carried_through_without_its_phone(house: House, phone: Phone, left: asyncio.Event) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold("create")
    line = await begin_and_leave(phone, "/api/v1/payments", phone.order(patient, bill), idempotency_key="tap")
    await channel.reached("create")
    left.clear()
    line.transport.abort()
    await seen(left)
    assert (await phone.start(patient, bill, key="tap")).code == "still_working"
    channel.let_go("create")
    payment = await until(PaymentStatus.PENDING)
    again = await phone.start_until_done(patient, bill, key="tap")
    assert (again.status, again.body["order_no"]) == (200, payment.order_no)
    assert house.pay.pay_with(again.body["pay"]["values"]) == "paid"
    await house.settle()
    assert (await phone.payment(payment.order_no))["status"] == "paid"
    assert len(house.pay.books()["orders"]) == 1
    assert house.his.books()["bills"][bill]["times_booked"] == 1


async def test_leaving_while_the_his_is_asked_to_hold_the_bill(house: House, phone: Phone, left: asyncio.Event) -> None:
    patient = await phone.bind()
    bill = house.bill(total_fen=8650)
    his = held(house.services.outside.hospitals, "rest")
    his.hold("lock_bills")
    line = await begin_and_leave(phone, "/api/v1/payments", phone.order(patient, bill), idempotency_key="tap")
    await his.reached("lock_bills")
    left.clear()
    line.transport.abort()
    await seen(left)
    his.let_go("lock_bills")
    payment = await until(PaymentStatus.PENDING)
    assert house.his.books()["bills"][bill]["locked_by"] == (await PaymentLine.get(payment_id=payment.id)).confirm_no
    await house.settle()  # nobody pays: it ends, and the bill is free again
    assert (await phone.payment(payment.order_no))["status"] == "not_paid"
    assert house.his.books()["bills"][bill]["locked_by"] == ""
    assert (await phone.start(patient, bill, key="tap")).status == 201


async def test_a_cancel_is_carried_through_without_its_phone(house: House, phone: Phone, left: asyncio.Event) -> None:
    patient = await phone.bind()
    started = await phone.start(patient, house.bill(total_fen=8650))
    channel = held(house.services.outside.channels, "wechatpay")
    channel.hold("close")
    line = await begin_and_leave(phone, f"/api/v1/payments/{started.body['order_no']}/cancel", {})
    await channel.reached("close")
    left.clear()
    line.transport.abort()
    await seen(left)
    channel.let_go("close")
    await until(PaymentStatus.CLOSED)


async def test_a_hundred_broken_lines_leave_the_database_at_hand(house: House, phone: Phone) -> None:
    patient = await phone.bind()
    house.bill(total_fen=8650)
    body = phone.order(patient)
    for number in range(100):
        line = await begin_and_leave(phone, "/api/v1/payments", body, idempotency_key=f"k{number}")
        for _ in range(number % 10):
            await asyncio.sleep(0)  # it breaks in another moment of the server's work each time
        line.transport.abort()
    assert await phone.done("GET", "/health/ready") == {"status": "ok"}
    assert (await phone.bills(patient))["count"] == 1
    assert await Payment.all().count() == 0


async def test_a_failure_that_nobody_waits_for_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    running = Running()
    gate = asyncio.Event()

    async def fail() -> None:
        await gate.wait()
        raise ValueError("broken")

    waiting = asyncio.create_task(running.finish(fail()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await running.at_most(0.01, fail())
    gate.set()
    await running.drain(seconds=1)
    assert [record.getMessage() for record in caplog.records] == ["work_failed", "work_failed"]
    with pytest.raises(ValueError, match="broken"):
        await running.finish(fail())
    assert len(caplog.records) == 2
