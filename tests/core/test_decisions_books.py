"""Money of another amount, decided by two, from the channel to the HIS and back: every fen accounted for on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from core.actors import Role
from core.decision_kinds import DecisionKind, Proposal
from core.invariants import check_invariants
from core.models import StaffCase
from core.payments import Started
from core.states import LineStatus
from tests.support.ledger_books import Books, opened_books
from tests.support.postgres import Database

pytestmark = pytest.mark.timeout(180)
ASKED_FEN = 8650


@pytest.fixture
async def books(tortoise: object, database: Database) -> AsyncIterator[Books]:
    async with opened_books(database) as books:
        yield books


async def odd_payment(books: Books, taken_fen: int) -> Started:
    """The channel itself takes another amount than it was asked for; the payer pays it and knows nothing."""
    house = books.house
    started = await house.start(books.payer, books.patient_id, house.bill(total_fen=ASKED_FEN))
    (order,) = [order for (_, number), order in house.pay.orders.items() if number == started.order_no]
    order.asked["amount"]["total"] = taken_fen
    house.pay_sheet(started)
    await house.settle(within=timedelta(minutes=1))
    assert {line.status for line in await house.lines(started.order_no)} == {LineStatus.HELD}
    return started


async def all_is_accounted_for(books: Books) -> None:
    assert [outcome for outcome in await check_invariants(books.reader) if not outcome.ok] == []
    assert await books.problems() == []


async def decide(books: Books, kind: DecisionKind, order_no: str) -> None:
    house = books.house
    people = [
        await house.services.staff.authenticate(
            await house.services.staff.add(house.institution_id, code, f"员工{code}", tuple(Role))
        )
        for code in ("1001", "1002")
    ]
    wanted = Proposal(kind=kind, number=order_no, reason="与付款人核对", document="书面说明")
    view = await house.services.decisions.propose(people[0], wanted, key="k")
    await house.services.decisions.approve(people[1], view.decision_id)


@pytest.mark.parametrize(
    ("kind", "taken_fen", "line", "back_fen"),
    [
        (DecisionKind.BOOK_ANYWAY, 9000, LineStatus.CONFIRMED, 350),
        (DecisionKind.RETURN_NOW, 9000, LineStatus.RETURNED, 9000),
        (DecisionKind.RETURN_NOW, 8000, LineStatus.RETURNED, 8000),
    ],
)
async def test_every_fen_of_another_amount_ends_where_two_people_said(
    books: Books, kind: DecisionKind, taken_fen: int, line: LineStatus, back_fen: int
) -> None:
    started = await odd_payment(books, taken_fen)
    await all_is_accounted_for(books)
    await decide(books, kind, started.order_no)
    await all_is_accounted_for(books)
    await books.house.settle(within=timedelta(days=3))
    assert {each.status for each in await books.house.lines(started.order_no)} == {line}
    payment = await books.house.payment(started.order_no)
    assert (payment.paid_fen, payment.refunded_fen) == (taken_fen, back_fen)
    await all_is_accounted_for(books)
    assert await StaffCase.filter(status="open").count() == 0


async def test_what_the_his_refuses_after_all_goes_back_whole(books: Books) -> None:
    started = await odd_payment(books, 9000)
    books.house.faults.script("hospital.refuses_confirm")
    await decide(books, DecisionKind.BOOK_ANYWAY, started.order_no)
    await books.house.settle(within=timedelta(days=3))
    assert {each.status for each in await books.house.lines(started.order_no)} == {LineStatus.RETURNED}
    assert (await books.house.payment(started.order_no)).refunded_fen == 9000
    await all_is_accounted_for(books)
