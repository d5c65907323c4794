"""Chains and seals: what was written is found as it was written, and every byte that is changed is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from core import seals
from core.ledger import Account, Ledger, TransferKind
from core.models import Payment, Seal, Transfer
from core.money import Fen
from core.outside import Outside
from core.seals import SEALED_EVERY, Head, newest_heads
from core.transactions import transaction
from core.verifying import verify_ledger
from simulators.clock import ManualClock
from tests.support.ledger_books import Books, opened_books
from tests.support.postgres import Database

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def books(tortoise: object, database: Database) -> AsyncIterator[Books]:
    async with opened_books(database) as books:
        yield books


# ---------------------------------------------------------------- chains


async def test_transfers_are_numbered_and_verified(books: Books) -> None:
    booked, returned = await books.paid(), await books.returned()
    assert [(row.seq, row.kind) for row in await books.transfers(booked)] == [(1, "paid"), (2, "confirmed")]
    assert [(row.seq, row.kind) for row in await books.transfers(returned)] == [
        (1, "paid"),
        (2, "return_decided"),
        (3, "refunded"),
    ]
    report = await books.verify()
    assert (report.wrong, report.payments, report.transfers, report.seals, report.unsealed) == (0, 2, 5, 0, 5)


async def test_another_key_verifies_nothing(books: Books) -> None:
    await books.paid()
    report = await verify_ledger(books.reader, b"k" * 32)
    assert [finding.problem for finding in report.findings] == ["is not as it was written"] * 2


CHANGES = {
    "id": "gen_random_uuid()",
    "institution_id": "gen_random_uuid()",
    "payment_id": "gen_random_uuid()",
    "seq": "7",
    "cause": "overlay(cause PLACING 'x' FROM 1)",
    "kind": "'disputed'",
    "debit": "'held'",
    "credit": "'held'",
    "amount_fen": "amount_fen + 1",
    "at": "at + interval '1 microsecond'",
    "place": "place + 100",
    "mac": "overlay(mac PLACING CASE left(mac, 1) WHEN '0' THEN '1' ELSE '0' END FROM 1)",
}


async def test_a_change_of_any_column_of_any_transfer_is_found_and_named(books: Books, database: Database) -> None:
    order_no = await books.returned()
    other = await books.paid()
    await books.seal()
    assert await books.problems() == []
    declared = {row["attname"] for row in await books.forger.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'transfer'::regclass AND attnum > 0 AND attgenerated = ''"
    )}  # fmt: skip
    assert declared == set(CHANGES)
    for transfer in await books.transfers(order_no):
        for column, expression in CHANGES.items():
            async with books.with_change("transfer", transfer.id, column, expression):
                report = await books.verify()
                places = {(finding.place, finding.seq) for finding in report.findings}
                moved = column in {"institution_id", "payment_id", "seq"}
                assert (order_no, None if moved and transfer.seq < 3 else transfer.seq) in places or (
                    moved and any(place == order_no for place, _ in places)
                ), (transfer.seq, column, report.findings)
                assert not any(place == other for place, _ in places), (column, report.findings)
    assert await books.problems() == []


async def test_a_changed_mac_is_one_finding(books: Books) -> None:
    order_no = await books.returned()
    second = (await books.transfers(order_no))[1]
    async with books.with_change("transfer", second.id, "mac", CHANGES["mac"]):
        assert await books.problems() == [f"renhe {order_no} transfer 2: is not as it was written"]


async def test_two_transfers_that_change_places_and_one_that_is_put_in_are_named(books: Books) -> None:
    order_no = await books.returned()
    _, second, third = await books.transfers(order_no)
    async with (
        books.with_change("transfer", third.id, "seq", "9"),
        books.with_change("transfer", second.id, "seq", "3"),
        books.with_change("transfer", third.id, "seq", "2"),
    ):
        assert await books.problems() == [
            f"renhe {order_no} transfer {seq}: is not as it was written" for seq in (2, 3)
        ]
    await books.forger.execute(
        "INSERT INTO transfer (id, institution_id, payment_id, seq, cause, kind, debit, credit, amount_fen, at, mac)"
        " SELECT gen_random_uuid(), institution_id, payment_id, 4, 'put in', kind, debit, credit, 1, at, mac"
        " FROM transfer WHERE id = $1",
        third.id,
    )
    assert await books.problems() == [
        f"renhe {order_no} transfer 4: is not as it was written",
        f"renhe {order_no}: refunded_fen of its row is 8650, its transfers add up to 8651",
    ]


async def test_a_transfer_put_into_another_payment_is_found(books: Books) -> None:
    first, second = await books.paid(), await books.paid(total_fen=100)
    payment, (_, confirmed) = await Payment.get(order_no=second), await books.transfers(first)
    async with (
        books.with_change("transfer", confirmed.id, "seq", "3"),
        books.with_change("transfer", confirmed.id, "payment_id", f"'{payment.id}'"),
    ):
        assert await books.problems() == [f"renhe {second} transfer 3: is not as it was written"]


async def test_missing_transfers_are_named(books: Books) -> None:
    order_no = await books.returned()
    first, second, third = await books.transfers(order_no)
    async with books.without("transfer", "id = $1", second.id):
        assert await books.problems() == [f"renhe {order_no}: transfer 2 is missing"]
    async with books.without("transfer", "id = $1", third.id):
        assert await books.problems() == [
            f"renhe {order_no}: refunded_fen of its row is 8650, its transfers add up to 0"
        ]
    async with books.without("transfer", "payment_id = $1", first.payment_id):
        assert await books.problems() == [
            f"renhe {order_no}: all its transfers are missing: its row says paid 8650, refunded 8650 fen"
        ]
    await books.seal()
    async with books.without("transfer", "id = $1", third.id):
        assert await books.problems() == [
            f"renhe {order_no}: refunded_fen of its row is 8650, its transfers add up to 0",
            f"renhe {order_no} transfer 3: is missing; seal 1 holds it",
        ]


async def test_a_whole_payment_and_a_last_transfer_are_missed_by_the_seals(books: Books) -> None:
    order_no = await books.paid()
    payment, (_, confirmed) = await Payment.get(order_no=order_no), await books.transfers(order_no)
    await books.seal()
    async with books.without("transfer", "id = $1", confirmed.id):
        assert await books.problems() == [f"renhe {order_no} transfer 2: is missing; seal 1 holds it"]
    async with books.without("transfer", "payment_id = $1", payment.id):
        await books.forger.execute("UPDATE payment SET paid_fen = 0 WHERE id = $1", payment.id)
        assert await books.problems() == [
            f"renhe {order_no} transfer {seq}: is missing; seal 1 holds it" for seq in (1, 2)
        ]


async def test_an_amount_that_is_nothing_moves_nothing(books: Books) -> None:
    order_no = await books.paid(total_fen=0)
    assert await books.transfers(order_no) == []
    assert await books.problems() == []
    assert await books.seal() == []


# ---------------------------------------------------------------- seals


async def test_seals_join_and_quiet_minutes_make_none(books: Books) -> None:
    await books.paid()
    (first,) = await books.seal(timedelta(0))
    assert await books.seal() == await books.seal(timedelta(hours=3)) == []
    order_no = await books.paid()
    assert [head.number for head in await books.seal(timedelta(0))] == [2]
    async with transaction():
        await external_refund(books, order_no, books.house.services.outside)
    assert await books.seal(SEALED_EVERY - timedelta(seconds=1)) == []
    (third,) = await books.seal(timedelta(hours=9))
    one, two, three = await Seal.all().order_by("number")
    assert ([one.number, two.number, three.number], one.after_place) == ([1, 2, 3], 0)
    assert (two.after_place, two.previous_mac) == (one.last_place, one.mac)
    assert three.last_place == max(row["place"] for row in await books.forger.fetch("SELECT place FROM transfer"))
    assert (one.transfers, one.balances) == (
        2,
        {"awaiting_his": 0, "channel_receivable": 8650, "his_confirmed": -8650},
    )
    assert [str(head) for head in await newest_heads()] == [f"renhe:3:{three.mac}"]
    assert (first, third) == (
        Head(institution="renhe", number=1, mac=one.mac),
        Head(institution="renhe", number=3, mac=three.mac),
    )
    report = await books.verify(first, third)
    assert (report.wrong, report.seals, report.unsealed) == (0, 3, 0)


async def test_many_sealers_at_once_make_one_seal(books: Books) -> None:
    await books.paid()
    books.house.clock.advance(timedelta(minutes=5))
    made = await asyncio.gather(*(books.house.services.seals.seal_due() for _ in range(8)))
    assert [len(heads) for heads in sorted(made, key=len)] == [0] * 7 + [1]
    assert await Seal.all().count() == 1
    assert await books.problems() == []


async def test_a_seal_stays_of_a_bearable_size(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "TRANSFERS_MAX", 3)
    for _ in range(4):
        await books.paid()
        books.house.clock.advance(timedelta(minutes=2))
    made = await books.seal()
    found = await Seal.all().order_by("number")
    assert len(made) == len(found) > 1
    assert sum(seal.transfers for seal in found) == 8
    assert await books.problems(*made) == []


async def test_each_institution_has_seals_of_its_own(books: Books) -> None:
    await books.paid()
    other = await books.house.setup.institution(code="anhe", name_zh="安和医院")
    (row,) = await Transfer.filter(kind="paid")
    payment = await Payment.get(id=row.payment_id)
    copy = {name: getattr(payment, name) for name in payment._meta.db_fields} | {
        "id": uuid4(),
        "institution_id": other,
        "order_no": "PANHE",
        "status": "created",
        "proof_id": None,
    }
    await books.forger.execute(
        f"INSERT INTO payment ({', '.join(copy)}) VALUES ({', '.join(f'${n}' for n in range(1, len(copy) + 1))})",
        *copy.values(),
    )
    async with transaction():
        await Ledger(books.house.services.outside).move(
            other,
            copy["id"],
            cause=copy["id"],
            kind=TransferKind.PAID,
            debit=Account.CHANNEL_RECEIVABLE,
            credit=Account.AWAITING_HIS,
            amount_fen=Fen(8650),
        )
    assert sorted((head.institution, head.number) for head in await books.seal()) == [("anhe", 1), ("renhe", 1)]
    assert await books.problems() == []


SEAL_CHANGES = {
    "id": "gen_random_uuid()",
    "institution_id": "gen_random_uuid()",
    "number": "number + 7",
    "after_place": "after_place + 1",
    "last_place": "last_place + 1",
    "transfers": "transfers + 1",
    "balances": """'{"held": 1}'""",
    "members": "set_byte(members, 3, 255 - get_byte(members, 3))",
    "digest": "overlay(digest PLACING CASE left(digest, 1) WHEN '0' THEN '1' ELSE '0' END FROM 1)",
    "previous_mac": "repeat('0', 64)",
    "at": "at + interval '1 microsecond'",
    "mac": CHANGES["mac"],
}


async def test_a_change_of_any_column_of_any_seal_is_found(books: Books) -> None:
    made = []
    for _ in range(3):
        await books.paid()
        made += await books.seal()
    declared = {row["attname"] for row in await books.forger.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'seal'::regclass AND attnum > 0 AND attgenerated = ''"
    )}  # fmt: skip
    assert declared == set(SEAL_CHANGES)
    for seal in await Seal.all().order_by("number"):
        for column, expression in SEAL_CHANGES.items():
            async with books.with_change("seal", seal.id, column, expression):
                problems = await books.problems(*made)
                assert any(f"seal {seal.number}" in problem for problem in problems), (seal.number, column, problems)
    assert await books.problems(*made) == []


async def test_missing_seals_are_found_the_last_one_by_a_head_kept_outside(books: Books) -> None:
    made = []
    for _ in range(3):
        await books.paid()
        made += await books.seal()
    async with books.without("seal", "number = 2"):
        assert await books.problems() == ["renhe seal 3: seal 2 before it is missing"]
    async with books.without("seal", "number = 3"):
        assert await books.problems() == []
        assert await books.problems(*made) == ["renhe seal 3: is missing, and its mac was kept outside"]
        remade = await books.house.services.seals.seal_due()
        assert await books.problems() == []
        assert await books.problems(*made) == ["renhe seal 3: is another one than the head that was kept outside"]
        assert await books.problems(*remade) == []
        await books.forger.execute("DELETE FROM seal WHERE number = 3")


async def external_refund(books: Books, order_no: str, outside: Outside) -> None:
    """One fen, in a transaction that is the caller's."""
    payment = await Payment.get(order_no=order_no)
    await Ledger(outside).move(
        payment.institution_id,
        payment.id,
        cause=uuid4(),
        kind=TransferKind.EXTERNAL_REFUND,
        debit=Account.EXTERNAL_REFUND,
        credit=Account.CHANNEL_RECEIVABLE,
        amount_fen=Fen(1),
    )


async def test_a_machine_whose_clock_is_wrong_writes_nothing_that_the_seals_do_not_know(books: Books) -> None:
    order_no = await books.paid()
    await books.seal()
    outside = books.house.services.outside
    for off in (timedelta(days=-1), timedelta(days=1)):
        async with transaction():
            await external_refund(books, order_no, replace(outside, clock=ManualClock(books.house.clock.now() + off)))
    assert await books.problems() == []
    (head,) = await books.seal()
    assert (await Seal.get(number=2)).transfers == 2
    report = await books.verify(head)
    assert (report.wrong, report.unsealed) == (0, 0)


async def test_a_transaction_that_ends_late_is_waited_for(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "WRITERS_ASKED_EVERY_SECONDS", 0.01)
    order_no = await books.paid()
    await books.seal()
    written, released = asyncio.Event(), asyncio.Event()

    async def late() -> None:
        async with transaction():
            await external_refund(books, order_no, books.house.services.outside)
            written.set()
            await released.wait()

    writing = asyncio.create_task(late())
    await written.wait()
    await books.paid()  # at places after it, and committed before it
    assert await books.seal() == []
    monkeypatch.setattr(seals, "WRITERS_ASKED_MAX", 1_000)
    sealing = asyncio.create_task(books.seal())
    await asyncio.sleep(0.05)
    assert not sealing.done()
    released.set()
    await writing
    assert len(await sealing) == 1
    assert (await Seal.get(number=2)).transfers == 3
    report = await books.verify()
    assert (report.wrong, report.unsealed) == (0, 0)


async def test_a_transfer_put_at_a_sealed_place_is_named(books: Books) -> None:
    sealed = await books.paid()
    (head,) = await books.seal()
    other = await books.paid()
    first, second = (await books.transfers(sealed))[0], (await books.transfers(other))[1]
    (place,) = await books.forger.fetchrow("SELECT place FROM transfer WHERE id = $1", first.id)
    async with books.with_change("transfer", second.id, "place", str(place)):
        assert await books.problems(head) == [
            f"renhe {other} transfer 2: came to the places of seal 1 after that was made"
        ]


async def test_what_no_program_writes_is_a_finding_too(books: Books) -> None:
    """Quotes, tabs, letters that are none of ours: found, and nothing breaks at them."""
    order_no = await books.returned()
    await books.seal()
    (_, second, _), (seal,) = await books.transfers(order_no), await Seal.all()
    for odd in ("E'\\t'", "E'\\n'", "E'\\\\'", "'\"'", "'\u00fc'", "''"):
        for column in ("cause", "kind", "mac"):
            async with books.with_change("transfer", second.id, column, odd):
                problems = await books.problems()
                assert f"renhe {order_no} transfer 2: is not as it was written" in problems, (odd, column, problems)
        async with books.with_change("seal", seal.id, "mac", odd):
            assert await books.problems() == ["renhe seal 1: is not as it was written"], odd
    async with books.with_change("transfer", second.id, "seq", "-2147483648"):
        assert f"renhe {order_no} transfer -2147483648: came to the places of seal 1 after that was made" in (
            await books.problems()
        )


async def test_the_ledger_is_verified_while_payments_go_on(books: Books) -> None:
    wrong: list[str] = []
    done = asyncio.Event()

    async def look() -> int:
        looks = 0
        while not done.is_set() or looks == 0:
            wrong.extend(await books.problems())
            looks += 1
        return looks

    looking = asyncio.create_task(look())
    for _ in range(5):
        await books.paid()
        await books.returned()
        await books.seal()
    done.set()
    assert await looking >= 1
    assert wrong == []
    assert (await books.verify()).transfers == 25


def test_a_head_is_read_as_it_is_written() -> None:
    head = Head(institution="ren:he", number=7, mac="ab" * 32)
    assert Head.read(str(head)) == head
    for text in ("", "renhe", "renhe:7", "renhe:seven:ab"):
        with pytest.raises(ValueError, match=r".+"):
            Head.read(text)
