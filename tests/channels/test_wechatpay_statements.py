"""WeChat Pay's trade bill: what is believed of a file, and what its rows say."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from channels.wechatpay.records import Unreadable
from channels.wechatpay.statements import rows_of
from core.clock import business_day
from core.errors import OutcomeUnknown, Refused
from core.ports import MerchantAccount, StatementEntry, StatementKind
from tests.support.house import PAY_URL, House
from wire.batches import in_batches
from wire.http import HttpReply

SAMPLES = Path(__file__).parents[3] / "shared" / "vectors" / "wechat" / "bills"
DAY = timedelta(days=1)


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def account(house: House) -> MerchantAccount:
    return await house.services.institutions.merchant(house.institution_id, house.merchant_account_id)


async def listed(house: House, day: date) -> list[StatementEntry]:
    channel = house.services.outside.channels["wechatpay"]
    return [entry async for entry in channel.statement(await account(house), day)]


async def a_day_with_two_payments(house: House) -> date:
    payer = await house.payer()
    patient = await house.bound(payer)
    for fen in (8650, 120):
        house.pay_sheet(await house.start(payer, patient, house.bill(total_fen=fen)))
    house.faults.script("hospital.refuses_confirm")
    await house.settle(within=timedelta(hours=1))
    day = business_day(house.clock.now())
    house.clock.advance(DAY)
    return day


async def test_the_simulators_bill_is_read_to_the_fen(house: House) -> None:
    day = await a_day_with_two_payments(house)
    entries = await listed(house, day)
    assert sorted((entry.kind, entry.amount_fen) for entry in entries if entry.kind is StatementKind.PAYMENT) == [
        (StatementKind.PAYMENT, 120),
        (StatementKind.PAYMENT, 8650),
    ]
    (refund,) = [entry for entry in entries if entry.kind is StatementKind.REFUND]
    (told,) = house.pay.books()["refunds"]
    assert (refund.refund_no, refund.amount_fen) == (told["out_refund_no"], told["refund_fen"])
    assert {business_day(entry.at) for entry in entries} == {day}


async def test_a_day_without_movement_is_empty_and_today_is_refused(house: House) -> None:
    today = business_day(house.clock.now())
    assert await listed(house, today - DAY) == []
    with pytest.raises(Refused, match="INVALID_REQUEST"):
        await listed(house, today)


def spoilt(change: Callable[[bytes], bytes]) -> Callable[[HttpReply], HttpReply]:
    return lambda reply: HttpReply(status=reply.status, headers=reply.headers, body=change(reply.body))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:-40],
        lambda body: gzip.compress(gzip.decompress(body).replace(b"86.50", b"06.50")),
        lambda body: b"<html>login</html>",
        lambda body: b"",
    ],
    ids=["cut short", "changed", "another page", "empty"],
)
async def test_a_file_that_is_not_the_one_told_gives_no_row(house: House, change: Callable[[bytes], bytes]) -> None:
    day = await a_day_with_two_payments(house)
    inner = house.transport.inner

    class Spoils:
        async def send(self, request: Any, *, deadline_seconds: float) -> HttpReply:
            reply = await inner.send(request, deadline_seconds=deadline_seconds)
            return spoilt(change)(reply) if "/v3/billdownload/" in request.url else reply

    house.transport.inner = Spoils()
    with pytest.raises(OutcomeUnknown):
        await listed(house, day)


async def test_what_was_read_before_an_error_is_given_first() -> None:
    entries = in_batches(rows_of(iter((HEAD, ROW, BACK))), Unreadable)
    assert [(await anext(entries)).kind for _ in range(2)] == [StatementKind.PAYMENT, StatementKind.REFUND]
    with pytest.raises(Unreadable):
        await anext(entries)


async def test_our_signature_goes_to_nobody_else(house: House) -> None:
    day = await a_day_with_two_payments(house)
    house.pay.bills.base_url = "https://files.test"
    house.transport.hold(PAY_URL)
    house.transport.let_go()
    with pytest.raises(OutcomeUnknown, match="somebody else"):
        await listed(house, day)
    assert "/v3/billdownload/file" not in house.transport.sent


HEAD = "交易时间,微信订单号,商户订单号,交易状态,微信退款单号,商户退款单号,退款金额,退款状态,订单金额,申请退款金额"
ROW = "`2026-05-06 10:00:00,`42,`P1,`SUCCESS,`0,`0,`0.00,`,`86.50,`0.00"
BACK = "`2026-05-06 11:00:00,`42,`P1,`REFUND,`50,`R1,`1.50,`SUCCESS,`0.00,`1.50"
SUMS = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"


def read(*lines: str) -> list[StatementEntry]:
    return list(rows_of(iter(lines)))


def test_rows_and_sums() -> None:
    paid, back = read(HEAD, ROW, BACK, SUMS, "`2.0,`86.50,`1.50,`0.0,`0.00000,`86.5,`1.50")
    assert (paid.kind, paid.order_no, paid.amount_fen) == (StatementKind.PAYMENT, "P1", 8650)
    assert (back.kind, back.refund_no, back.channel_refund_no, back.amount_fen) == (
        StatementKind.REFUND,
        "R1",
        "50",
        150,
    )
    assert paid.at.isoformat() == "2026-05-06T10:00:00+08:00"


@pytest.mark.parametrize(
    "lines",
    [
        (HEAD, ROW),
        (HEAD, ROW, SUMS, "`2,`86.50,`0,`0,`0,`86.50,`0"),
        (HEAD, ROW, SUMS, "`1,`86.50,`0,`0,`0,`86.49,`0"),
        (HEAD, ROW, BACK, SUMS, "`2,`86.50,`0,`0,`0,`86.50,`0.00"),
        (HEAD, ROW + ",`more", SUMS, "`1,`86.50,`0,`0,`0,`86.50,`0"),
        (HEAD, ROW.replace("86.50", "86.505"), SUMS, "`1"),
        (HEAD, ROW.replace("86.50", "much"), SUMS, "`1"),
        (HEAD, ROW.replace("2026-05-06", "yesterday"), SUMS, "`1"),
        (HEAD.replace("商户订单号", "订单"), ROW, SUMS, "`1"),
        (HEAD, ROW, SUMS, ""),
        (),
    ],
)
def test_what_does_not_add_up_is_unreadable(lines: tuple[str, ...]) -> None:
    with pytest.raises(Unreadable):
        read(*lines)


def test_the_public_samples() -> None:
    for name, rows in (("tradebill_all_2021.csv", 3), ("tradebill_all_sdk_fixture.csv", 45)):
        if (SAMPLES / name).exists():
            entries = read(*(SAMPLES / name).read_text("utf-8-sig").splitlines())
            assert len(entries) == rows, name
