"""Every fen is accounted for while the house works, and each identity sees what it is there for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from core.evidence import Evidence
from core.invariants import IDENTITIES, Outcome, check_invariants
from core.states import ProofKind
from tests.support.ledger_books import Books, opened_books
from tests.support.postgres import Database

pytestmark = pytest.mark.timeout(180)

FOREIGN = "gen_random_uuid()"


@pytest.fixture
async def books(tortoise: object, database: Database) -> AsyncIterator[Books]:
    async with opened_books(database) as books:
        yield books


async def off(books: Books) -> dict[str, Outcome]:
    """The identities that do not hold."""
    return {outcome.identity: outcome for outcome in await check_invariants(books.reader) if not outcome.ok}


async def pending(books: Books) -> str:
    started = await books.house.start(books.payer, books.patient_id, books.house.bill(total_fen=400))
    return started.order_no


async def odd(books: Books) -> str:
    """A payment of which the channel has taken another amount than was asked; all of it is held."""
    order_no = await pending(books)
    facts = {"ever_paid": True, "paid_fen": 650, "paid_at": "2026-05-06T03:00:00+00:00", "channel_trade_no": "T1"}
    await books.house.services.applier.apply(
        Evidence(
            order_no=order_no,
            kind="trade",
            source="wechatpay",
            proves="paid",
            proof_kind=ProofKind.VERIFIED_NOTICE,
            facts=facts,
        )
    )
    return order_no


async def row_id(books: Books, table: str, order_no: str, condition: str = "true") -> Any:
    """The first row of a payment in `table`."""
    of = "x.id" if table == "payment" else "x.payment_id"
    found = await books.forger.fetchval(
        f"SELECT x.id FROM {table} x JOIN payment p ON p.id = {of} WHERE p.order_no = $1 AND {condition} ORDER BY x.id",
        order_no,
    )
    assert found is not None
    return found


async def test_all_identities_hold_at_every_moment_of_a_day(books: Books) -> None:
    house = books.house
    await books.paid(total_fen=0)
    assert await off(books) == {}
    merged_bills = house.bill(), house.bill(total_fen=100), house.bill(total_fen=30)
    merged = await house.start(
        books.payer, books.patient_id, merged_bills[0], bills=tuple(("", bill) for bill in merged_bills), shown_fen=8780
    )
    house.pay_sheet(merged)
    house.faults.script("hospital.refuses_confirm")
    await odd(books)
    closed = await pending(books)
    for _ in range(40):
        if await house.step():
            assert await off(books) == {}
        else:
            due_at = await house.next_due_at()
            assert due_at is not None
            house.clock.advance(max(due_at - house.clock.now(), timedelta(0)))
    await house.settle(within=timedelta(days=5))
    assert (await house.payment(closed)).status == "closed"
    kinds = [transfer.kind for transfer in await books.transfers(merged.order_no)]
    assert sorted(kinds) == ["confirmed", "confirmed", "paid", "refunded", "return_decided"]
    assert await off(books) == {}


async def test_each_identity_sees_its_violation(books: Books) -> None:
    booked, other, returned = await books.paid(), await books.paid(total_fen=100), await books.returned()
    held, waiting = await odd(books), await pending(books)
    assert await off(books) == {}
    await books.forger.execute("DROP INDEX payment_line_bill_once")
    bill = await books.forger.fetchval(
        "SELECT his_bill_id FROM payment_line WHERE id = $1", await row_id(books, "payment_line", booked)
    )
    payment_of: dict[str, tuple[str, str, str, str, int]] = {
        # identity → table, of which payment and row, column, its new value, how many fen are off
        "paid_fen": ("payment", booked, "paid_fen", "paid_fen + 1", 1),
        "paid_status": ("payment", booked, "status", "'closed'", 2 * 8650),
        "refunded_fen": ("payment", returned, "refunded_fen", "refunded_fen - 1", 1),
        "external_fen": ("payment", booked, "external_refunded_fen", "6", 6),
        "paid_out": ("payment_line", booked, "paid_out_fen", "7", 7),
        "refunds_done": ("refund", returned, "status", "'pending'", 8650),
        "reserved": ("payment", returned, "refund_reserved_fen", "refund_reserved_fen - 2", 2),
        "reserved_within_paid": ("payment", booked, "refund_reserved_fen", "paid_fen + 3", 3),
        "lines_add_up": ("payment_line", booked, "amount_fen", "amount_fen + 4", 4),
        "awaiting_his": ("payment_line", booked, "status", "'surplus'", 8650),
        "held": ("payment_line", held, "status", "'returned'", 650),
        "his_confirmed": ("payment_line", booked, "status", "'returned'", 8650),
        "bill_once": ("payment_line", other, "his_bill_id", f"'{bill}'", 100),
        "line_and_booking": ("confirmation", booked, "status", "'rejected'", 8650),
        "claim": ("payment_line", booked, "claims_bill", "true", 8650),
        "payment_proof": ("payment", booked, "proof_id", FOREIGN, 8650),
        "booking_proof": ("confirmation", booked, "proof_id", FOREIGN, 0),
        "refund_proof": ("refund", returned, "proof_id", FOREIGN, 8650),
        "nothing_sleeps": ("payment", waiting, "due_at", "NULL", 400),
    }
    transfer_of: dict[str, tuple[str, int, str, str, int]] = {
        # identity → of which payment, seq, column, its new value, how many fen are off
        "every_fen": (booked, 2, "credit", "'somewhere'", 8650),
        "none_negative": (booked, 2, "amount_fen", "amount_fen + 5", 5),
        "refund_payable": (returned, 3, "debit", "'held'", 8650),
    }
    seen = set()
    for identity, (table, order_no, column, value, fen) in payment_of.items():
        async with books.with_change(table, await row_id(books, table, order_no), column, value):
            found = await off(books)
        assert identity in found, (identity, found)
        assert (found[identity].times, found[identity].off_fen) == (1, fen), found[identity]
        (place,) = found[identity].places
        assert place.institution == "renhe"
        seen.add(identity)
    for identity, (order_no, seq, column, value, fen) in transfer_of.items():
        changed = (await books.transfers(order_no))[seq - 1]
        async with books.with_change("transfer", changed.id, column, value):
            found = await off(books)
        assert identity in found, (identity, found)
        assert (found[identity].times, found[identity].off_fen) == (1, fen), found[identity]
        assert [place.place for place in found[identity].places] == [order_no]
        seen.add(identity)
    assert seen == set(IDENTITIES)
    assert await off(books) == {}


async def test_whatever_sleeps_is_seen_unless_a_case_is_open(books: Books) -> None:
    returned, waiting, held = await books.returned(), await pending(books), await odd(books)
    sleepers = [
        ("payment", waiting, {"due_at": "NULL"}),
        ("refund", returned, {"status": "'sending'"}),
        ("confirmation", returned, {"status": "'open'"}),
        ("his_lock", waiting, {"status": "'asking'"}),
        ("message", returned, {"status": "'queued'"}),
    ]
    for table, order_no, changes in sleepers:
        row = await row_id(books, table, order_no)
        async with AsyncExitStack() as stack:
            for column, value in changes.items():
                await stack.enter_async_context(books.with_change(table, row, column, value))
            found = await off(books)
        assert found["nothing_sleeps"].times == 1, (table, found)
        assert table in found["nothing_sleeps"].places[0].place
    line = await row_id(books, "payment_line", held)
    async with books.with_change("payment_line", line, "due_at", "NULL"):
        assert await off(books) == {}  # its case of a wrong amount is open
        await books.forger.execute("UPDATE staff_case SET status = 'closed'")
        assert (await off(books))["nothing_sleeps"].off_fen == 400
