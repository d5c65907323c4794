"""Faults that no simulator carries out: of time, of our own programs, of people. Each says whether it did anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta

from core.clock import shanghai
from core.errors import OutcomeUnknown, RequestError
from core.models import HospitalSiteRow, PaymentLine
from core.tenancy import across_institutions
from simulators.hospital_books import Refusal
from simulators.kit import deliver_one
from tests.faults.stage import GONE, Died, Stage
from tests.support.house import MCHID
from wire.http import HttpReply, HttpRequest

Carry = Callable[[], Awaitable[HttpReply]]
Act = Callable[[Stage], Awaitable[bool]]

SLOW_SECONDS = 8
TIMEOUT_SECONDS = 20
STALL = timedelta(minutes=10)
MONEY_CALLS = ("create", "query", "close", "refund", "query_refund", "his confirm_payment", "his lock_bills")


def each_call_once(stage: Stage, calls: tuple[str, ...], meddle: Callable[[str, Carry], Awaitable[HttpReply]]) -> None:
    """From now on the first call of each of these kinds is meddled with."""
    left = set(calls)

    async def hook(call: str, request: HttpRequest, carry: Carry) -> HttpReply:
        if call not in left:
            return await carry()
        left.discard(call)
        stage.acted += 1
        return await meddle(call, carry)

    stage.hooked.hook = hook


def _order_no(stage: Stage) -> str:
    assert stage.started is not None
    return stage.started.order_no


# ---------------------------------------------------------------- the channel


async def channel_timeout(stage: Stage) -> bool:
    async def meddle(call: str, carry: Carry) -> HttpReply:
        await carry()
        stage.house.clock.advance(timedelta(seconds=TIMEOUT_SECONDS))
        raise OutcomeUnknown("no answer in time")

    each_call_once(stage, ("create", "query", "close", "refund", "query_refund"), meddle)
    return False


async def not_found_too_early(stage: Stage) -> bool:
    orders, number = stage.house.pay.orders, (MCHID, _order_no(stage))

    async def meddle(call: str, carry: Carry) -> HttpReply:
        order = orders.pop(number)
        try:
            return await carry()
        finally:
            orders[number] = order

    if number not in orders:
        return False
    each_call_once(stage, ("query",), meddle)
    stage.house.clock.advance(timedelta(seconds=30))
    await stage.work_due()
    return False


async def notice_before_create_answer(stage: Stage) -> bool:
    async def meddle(call: str, carry: Carry) -> HttpReply:
        reply = await carry()
        order_no = list(stage.house.pay.orders)[-1][1]
        if stage.house.pay.pay(order_no) == "paid":
            stage.house.clock.advance(timedelta(seconds=5))
            while await deliver_one(stage.house.pay, stage.house.receive):
                pass
            await stage.work_due()
        return reply

    each_call_once(stage, ("create",), meddle)
    return False


async def wrong_amount(stage: Stage) -> bool:
    order = stage.house.pay.orders.get((MCHID, _order_no(stage)))
    if order is None or order.paid_at is not None or order.closed_at is not None:
        return False
    amount = order.asked["amount"]
    order.asked = order.asked | {"amount": amount | {"total": amount["total"] + 7}}
    return True


async def notice_for_unknown_order(stage: Stage) -> bool:
    """An order that another system has placed under this merchant's number is paid."""
    orders, number = stage.house.pay.orders, (MCHID, _order_no(stage))
    if number not in orders:
        return False
    order = orders[number]
    known, order.out_trade_no = order.out_trade_no, f"X{order.out_trade_no[1:]}"
    try:
        stage.house.pay.pay(order.current_reference)
        stage.house.clock.advance(timedelta(seconds=5))
        await stage.work_due()
    finally:
        order.out_trade_no = known
    return True


async def refunded_in_console(stage: Stage) -> bool:
    order = stage.house.pay.orders.get((MCHID, stage.started.order_no)) if stage.started else None
    if order is None or order.paid_at is None:
        return False
    stage.house.pay.refund_by_hand(MCHID, order.out_trade_no, order.total_fen)
    return True


# ---------------------------------------------------------------- the HIS


async def hospital_slow(stage: Stage) -> bool:
    async def hook(call: str, request: HttpRequest, carry: Carry) -> HttpReply:
        if call.startswith("his "):
            stage.acted += 1
            stage.house.clock.advance(timedelta(seconds=SLOW_SECONDS))
        return await carry()

    stage.hooked.hook = hook
    return False


async def hospital_timeout(stage: Stage) -> bool:
    async def meddle(call: str, carry: Carry) -> HttpReply:
        await carry()
        stage.house.clock.advance(timedelta(seconds=TIMEOUT_SECONDS))
        raise OutcomeUnknown("no answer in time")

    calls = ("get_bill", "lock_bills", "query_lock", "release_lock", "confirm_payment", "query_payment")
    each_call_once(stage, tuple(f"his {call}" for call in calls), meddle)
    return False


async def maintenance(stage: Stage) -> bool:
    now = stage.house.clock.now()
    window = [f"{shanghai(now):%H:%M}", f"{shanghai(now + timedelta(hours=2)):%H:%M}"]
    await HospitalSiteRow.filter(institution_id=stage.house.institution_id).update(maintenance=[window])
    return True


# ---------------------------------------------------------------- our own house


async def database_lost(stage: Stage) -> bool:
    await stage.superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND usename = 'zhenfu_app'"
    )
    return True


async def redis_emptied(stage: Stage) -> bool:
    stage.house.tokens.forget()  # type: ignore[attr-defined]
    return True


async def dies_before_call(stage: Stage) -> bool:
    async def meddle(call: str, carry: Carry) -> HttpReply:
        raise Died

    each_call_once(stage, MONEY_CALLS, meddle)
    return False


async def dies_after_call(stage: Stage) -> bool:
    async def meddle(call: str, carry: Carry) -> HttpReply:
        await carry()
        raise Died

    each_call_once(stage, MONEY_CALLS, meddle)
    return False


async def lease_lost(stage: Stage) -> bool:
    """The call is done; while its answer is on the way another worker takes over and finishes the work."""

    async def meddle(call: str, carry: Carry) -> HttpReply:
        reply = await carry()
        stage.house.clock.advance(STALL)
        for _ in range(3):
            await stage.work_due()
            stage.house.clock.advance(timedelta(minutes=4))
        return reply

    each_call_once(stage, ("refund", "his confirm_payment", "query"), meddle)
    return False


async def clock_jumps(stage: Stage) -> bool:
    stage.house.clock.advance(STALL)
    return True


async def deadlock(stage: Stage) -> bool:
    """Somebody locks the lines first and wants the payment then, while we hold the payment and want its lines."""
    with across_institutions("a test"):
        lines = await PaymentLine.filter(his_bill_id__in=stage.bills)
    if not lines:
        return False
    other = stage.superuser
    await other.execute("BEGIN")
    await other.execute("SELECT FROM payment_line WHERE id = $1 FOR NO KEY UPDATE", lines[0].id)

    work = asyncio.create_task(stage.work_due())
    await asyncio.sleep(0.2)
    with suppress(*GONE):
        await other.execute("SELECT FROM payment WHERE id = $1 FOR NO KEY UPDATE", lines[0].payment_id)
    await other.execute("ROLLBACK")
    await work
    return True


# ---------------------------------------------------------------- people


async def taps_twice(stage: Stage) -> bool:
    assert stage.at_hand is not None
    assert stage.started is not None
    payer, patient_id, bills = stage.at_hand
    amount = sum(stage.house.his.bills[bill].to_pay_fen for bill in bills)
    keys = tuple(("", bill) for bill in bills)
    again = await stage.house.start(payer, patient_id, bills[0], bills=keys, shown_fen=amount)
    assert again.order_no == stage.started.order_no or again.pay is None
    return True


async def pays_late(stage: Stage) -> bool:
    if stage.started is None or stage.started.pay is None:
        return False
    stage.house.clock.advance(stage.started.expires_at - stage.house.clock.now() + timedelta(seconds=1))
    assert stage.house.pay_sheet(stage.started) != "paid"
    return True


async def cancels_after_paying(stage: Stage) -> bool:
    if stage.started is None or stage.at_hand is None:
        return False
    with suppress(RequestError):
        await stage.house.services.payments.cancel(
            stage.at_hand[0].id, stage.house.institution_id, stage.started.order_no
        )
    return True


async def relative_pays_too(stage: Stage) -> bool:
    assert stage.at_hand is not None
    bills, mine = stage.at_hand[2], stage.started
    await stage.pay(*bills, payer=stage.relative)
    stage.started = mine
    return True


async def pays_at_window(stage: Stage) -> bool:
    """The HIS says so at once."""
    done = await paid_at_window_after(stage)
    stage.house.clock.advance(timedelta(seconds=5))
    await stage.work_due()
    await stage.work_due()
    return done


async def paid_at_window_after(stage: Stage) -> bool:
    with suppress(Refusal):
        stage.house.his.window_pay(stage.bills[0], force=True)
        return True
    return False


async def doctor_cancels(stage: Stage) -> bool:
    with suppress(Refusal):
        stage.house.his.cancel(stage.bills[0], force=True)
        return True
    return False


async def doctor_changes_amount(stage: Stage) -> bool:
    with suppress(Refusal):
        bill = stage.bills[0]
        stage.house.his.change_amount(bill, stage.house.his.bills[bill].to_pay_fen + 100, force=True)
        return True
    return False


ACTS: Mapping[str, Act] = {
    "wechatpay.timeout": channel_timeout,
    "wechatpay.order_not_found_too_early": not_found_too_early,
    "wechatpay.notice_before_create_answer": notice_before_create_answer,
    "wechatpay.wrong_amount": wrong_amount,
    "wechatpay.notice_for_unknown_order": notice_for_unknown_order,
    "wechatpay.refunded_in_console": refunded_in_console,
    "hospital.slow": hospital_slow,
    "hospital.timeout": hospital_timeout,
    "hospital.maintenance": maintenance,
    "house.database_lost": database_lost,
    "house.redis_emptied": redis_emptied,
    "house.dies_before_call": dies_before_call,
    "house.dies_after_call": dies_after_call,
    "house.lease_lost": lease_lost,
    "house.clock_jumps": clock_jumps,
    "house.deadlock": deadlock,
    "people.taps_twice": taps_twice,
    "people.pays_late": pays_late,
    "people.cancels_after_paying": cancels_after_paying,
    "people.relative_pays_too": relative_pays_too,
    "people.pays_at_window": pays_at_window,
    "people.paid_at_window_after": paid_at_window_after,
    "people.doctor_cancels": doctor_cancels,
    "people.doctor_changes_amount": doctor_changes_amount,
}
"""The catalogue's acts by name."""
