"""Due rows: claimed by one, held by a lease, given back with every wish kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest

from core.due import (
    BACKOFF_STEPS_SECONDS,
    DueRow,
    backoff,
    begin_send,
    claim,
    give_back,
    send_had_no_effect,
    take,
)
from core.ids import Ids
from core.keyring import Keyring
from core.models import Inbound, Message, Payer
from core.states import MessageStatus
from runtime.database import database
from runtime.setup import Setup
from simulators.clock import ManualClock
from tests.support.postgres import Database

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
LEASE = timedelta(seconds=60)
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))  # counterparties


@dataclass
class Rows:
    """Inbound rows as plain work, a message as work that is sent."""

    ids: Ids
    institution_id: UUID
    payer: Payer

    async def due(self, account_id: UUID = ONE, *, due_at: datetime | None = NOON, **changes: Any) -> UUID:
        row = await Inbound.create(
            id=self.ids.uuid(),
            institution_id=self.institution_id,
            source="wechatpay",
            account_id=account_id,
            digest=self.ids.token(),
            kind="trade",
            content_enc="",
            received_at=NOON,
            due_at=due_at,
            **changes,
        )
        return row.id

    async def message(self, **changes: Any) -> UUID:
        row = await Message.create(
            id=self.ids.uuid(),
            institution_id=self.institution_id,
            payer_id=self.payer.id,
            kind="paid",
            dedup_key=self.ids.token(),
            values_enc="",
            created_at=NOON,
            due_at=NOON,
            **changes,
        )
        return row.id

    async def take(
        self, row_id: UUID, table: str = "inbound", now: datetime = NOON, holder: str = "me"
    ) -> DueRow | None:
        return await take(table, row_id, self.institution_id, now=now, holder=holder, lease=LEASE)

    async def give_back(self, row_id: UUID, holder: str = "me", **options: Any) -> Inbound:
        later = NOON + timedelta(minutes=5)
        await give_back("inbound", row_id, self.institution_id, holder=holder, due_at=later, **options)
        return await Inbound.get(id=row_id)

    async def begin_send(self, row_id: UUID, holder: str = "me", now: datetime = NOON, **options: Any) -> bool:
        options = {"statuses": [MessageStatus.QUEUED]} | options
        return await begin_send("message", row_id, self.institution_id, holder=holder, now=now, **options)


@pytest.fixture
async def rows(module_database: Database) -> AsyncIterator[Rows]:
    async with database(module_database.app_dsn):
        clock = ManualClock(NOON)
        ids = Ids(clock)
        setup = Setup(ids, Keyring(current="k1", keys={"k1": b"1" * 32}, lookup_key=b"2" * 32))
        institution_id = await setup.institution(code=ids.token()[:32], name_zh="仁和医院")
        account = await setup.chat_account(institution_id, platform="wechat_service", app_id="wx1", params={})
        payer = await Payer.create(
            id=ids.uuid(),
            institution_id=institution_id,
            chat_account_id=account.id,
            open_id_enc="",
            open_id_lookup="",
            created_at=NOON,
        )
        yield Rows(ids, institution_id, payer)
    with psycopg.connect(module_database.owner_dsn) as connection:
        connection.execute("DELETE FROM inbound; DELETE FROM message")


async def a_claim(
    *,
    k: int = 100,
    batch: int = 100,
    now: datetime = NOON,
    holder: str = "me",
    table: str = "inbound",
    skip: Sequence[UUID] = (),
) -> list[DueRow]:
    return await claim(
        table,
        now=now,
        holder=holder,
        lease=LEASE,
        batch_max=batch,
        counterparty="account_id",
        per_counterparty_max=k,
        skip=skip,
    )


# ---------------------------------------------------------------- claiming


async def test_a_claim_takes_at_most_k_of_each_counterparty_the_longest_due_first(rows: Rows) -> None:
    late = [await rows.due(ONE, due_at=NOON - timedelta(seconds=n)) for n in range(5)]
    other = [await rows.due(TWO) for _ in range(2)]
    taken = {row.id for row in await a_claim(k=3)}
    assert taken == {*late[2:], *other}


async def test_a_claim_is_bounded(rows: Rows) -> None:
    for account in (ONE, TWO, THREE):
        for _ in range(4):
            await rows.due(account)
    assert len(await a_claim(batch=5)) == 5
    assert len(await a_claim(batch=100)) == 7
    assert await a_claim(batch=100) == []


async def test_a_claim_takes_only_what_is_due_and_free(rows: Rows) -> None:
    due = await rows.due()
    lapsed = await rows.due(lease_until=NOON, holder="gone")
    await rows.due(due_at=NOON + timedelta(microseconds=1))
    await rows.due(due_at=None)
    await rows.due(lease_until=NOON + timedelta(microseconds=1), holder="somebody")
    assert {row.id for row in await a_claim()} == {due, lapsed}


async def test_rows_that_others_hold_do_not_count_against_the_limit(rows: Rows) -> None:
    for _ in range(3):
        await rows.due(due_at=NOON - timedelta(minutes=1), lease_until=NOON + LEASE, holder="somebody")
    free = await rows.due()
    assert [row.id for row in await a_claim(k=1)] == [free]


async def test_a_counterparty_whose_breaker_is_open_is_skipped(rows: Rows) -> None:
    await rows.due(ONE)
    other = await rows.due(TWO)
    assert [row.id for row in await a_claim(skip=[ONE, THREE])] == [other]


async def test_a_claimed_row_is_ours_until_the_lease_ends_and_then_somebody_elses(rows: Rows) -> None:
    row_id = await rows.due(attempts=4)
    (mine,) = await a_claim(holder="me")
    assert (mine.id, mine.institution_id, mine.holder) == (row_id, rows.institution_id, "me")
    assert (mine.attempts, mine.lease_until) == (5, NOON + LEASE)
    stored = await Inbound.get(id=row_id)
    assert (stored.lease_until, stored.due_at, stored.holder, stored.attempts) == (NOON + LEASE, NOON + LEASE, "me", 5)
    assert await a_claim(now=NOON + LEASE - timedelta(microseconds=1), holder="you") == []
    (yours,) = await a_claim(now=NOON + LEASE, holder="you")
    assert (yours.id, yours.holder, yours.attempts) == (row_id, "you", 6)


async def test_two_workers_at_once_never_get_the_same_row(rows: Rows) -> None:
    made = {await rows.due(account) for account in (ONE, TWO, THREE) for _ in range(20)}
    claims = await asyncio.gather(*(a_claim(k=7, batch=9, holder=f"w{n}") for n in range(8)))
    taken = Counter(row.id for found in claims for row in found)
    assert taken
    assert max(taken.values()) == 1
    assert set(taken) <= made
    for found in claims:
        assert len({row.holder for row in found}) <= 1
    while more := await a_claim(k=7, batch=9):
        taken.update(row.id for row in more)
    assert taken == Counter(made)


async def test_a_row_that_another_transaction_works_on_is_passed_over_without_waiting(
    rows: Rows, module_database: Database
) -> None:
    busy, free = await rows.due(), await rows.due()
    other = await asyncpg.connect(**module_database.app_credentials)
    try:
        async with other.transaction():
            await other.execute("SELECT 1 FROM inbound WHERE id = $1 FOR NO KEY UPDATE", busy)
            assert [row.id for row in await asyncio.wait_for(a_claim(), 2)] == [free]
    finally:
        await other.close()


async def test_a_row_that_was_taken_since_we_looked_is_not_taken_again(rows: Rows, module_database: Database) -> None:
    """The slow claimer has ranked the row before the quick one commits, and locks it afterwards."""
    with psycopg.connect(module_database.owner_dsn, autocommit=True) as owner:
        owner.execute("CREATE VIEW slow_inbound AS SELECT * FROM inbound WHERE pg_sleep(0.2) IS NOT NULL")
        owner.execute("GRANT SELECT, UPDATE ON slow_inbound TO zhenfu_app")
        try:
            row_id = await rows.due()
            slow = asyncio.create_task(a_claim(table="slow_inbound", holder="slow"))
            await asyncio.sleep(0.1)
            assert [row.id for row in await a_claim(holder="quick")] == [row_id]
            assert await slow == []
            assert (await Inbound.get(id=row_id)).holder == "quick"
        finally:
            owner.execute("DROP VIEW slow_inbound")


# ---------------------------------------------------------------- taking one


async def test_taking_is_exclusive(rows: Rows) -> None:
    row_id = await rows.due()
    taken = await asyncio.gather(*(rows.take(row_id, holder=f"h{n}") for n in range(8)))
    (winner,) = [row for row in taken if row is not None]
    assert (await Inbound.get(id=row_id)).holder == winner.holder


async def test_a_row_can_be_taken_before_it_is_due_but_not_when_it_is_done(rows: Rows) -> None:
    later, done = await rows.due(due_at=NOON + timedelta(hours=1)), await rows.due(due_at=None)
    taken = await rows.take(later)
    assert taken is not None
    assert (taken.attempts, taken.lease_until) == (1, NOON + LEASE)
    assert await rows.take(done) is None


async def test_a_held_row_is_not_taken_until_its_lease_ends(rows: Rows) -> None:
    row_id = await rows.due()
    assert await rows.take(row_id) is not None
    assert await rows.take(row_id, now=NOON + LEASE - timedelta(microseconds=1), holder="you") is None
    assert await rows.take(row_id, now=NOON + LEASE, holder="you") is not None


async def test_a_row_of_another_institution_is_not_taken(rows: Rows) -> None:
    row_id = await rows.due()
    assert await take("inbound", row_id, UUID(int=9), now=NOON, holder="me", lease=LEASE) is None


# ---------------------------------------------------------------- giving back


async def test_a_row_given_back_is_free_and_due_at_the_named_time(rows: Rows) -> None:
    row_id = await rows.due()
    await rows.take(row_id)
    row = await rows.give_back(row_id)
    assert (row.due_at, row.lease_until, row.holder, row.attempts) == (NOON + timedelta(minutes=5), None, "", 1)


async def test_giving_back_keeps_the_wish_for_an_earlier_time(rows: Rows) -> None:
    row_id = await rows.due()
    await rows.take(row_id)
    await Inbound.filter(id=row_id).update(due_at=NOON + timedelta(seconds=1))  # somebody wants it soon
    row = await rows.give_back(row_id)
    assert (row.due_at, row.lease_until, row.holder) == (NOON + timedelta(seconds=1), None, "")


async def test_giving_back_does_not_wake_what_is_done(rows: Rows) -> None:
    row_id = await rows.due()
    await rows.take(row_id)
    await Inbound.filter(id=row_id).update(due_at=None)
    row = await rows.give_back(row_id)
    assert (row.due_at, row.lease_until, row.holder) == (None, None, "")


async def test_only_the_holder_gives_back(rows: Rows) -> None:
    row_id = await rows.due()
    await rows.take(row_id, holder="first")
    await rows.take(row_id, now=NOON + LEASE, holder="second")
    row = await rows.give_back(row_id, holder="first")
    assert (row.holder, row.lease_until, row.due_at) == ("second", NOON + 2 * LEASE, NOON + 2 * LEASE)


@pytest.mark.parametrize(("before", "after"), [(3, 3), (0, 0)])
async def test_a_try_in_which_nobody_was_asked_does_not_count(rows: Rows, before: int, after: int) -> None:
    row_id = await rows.due(attempts=before)
    await rows.take(row_id)
    assert (await rows.give_back(row_id, counted=False)).attempts == after


# ---------------------------------------------------------------- sending


async def test_a_send_is_recorded_by_the_holder(rows: Rows) -> None:
    row_id = await rows.message()
    await rows.take(row_id, "message")
    assert await rows.begin_send(row_id, stamp="first_sent_at")
    message = await Message.get(id=row_id)
    assert (message.sends_started, message.sends_unreached, message.first_sent_at) == (1, 0, NOON)


async def test_a_lost_lease_cannot_begin_to_send(rows: Rows) -> None:
    row_id = await rows.message()
    await rows.take(row_id, "message")
    assert not await rows.begin_send(row_id, now=NOON + LEASE)  # over
    assert not await rows.begin_send(row_id, holder="you")
    await rows.take(row_id, "message", now=NOON + LEASE, holder="you")
    assert not await rows.begin_send(row_id, now=NOON + LEASE)  # another holds it
    assert await rows.begin_send(row_id, now=NOON + LEASE, holder="you")
    assert (await Message.get(id=row_id)).sends_started == 1


async def test_what_was_never_taken_or_has_moved_on_is_not_sent(rows: Rows) -> None:
    row_id = await rows.message()
    assert not await rows.begin_send(row_id, holder="")
    await rows.take(row_id, "message")
    assert not await rows.begin_send(row_id, statuses=[MessageStatus.SENT])
    await Message.filter(id=row_id).update(status=MessageStatus.SKIPPED)
    assert not await rows.begin_send(row_id)
    assert not await begin_send("message", row_id, UUID(int=9), holder="me", now=NOON, statuses=[MessageStatus.SKIPPED])
    assert (await Message.get(id=row_id)).sends_started == 0


async def test_no_more_sends_are_without_effect_than_were_begun(rows: Rows) -> None:
    row_id = await rows.message()
    await rows.take(row_id, "message")
    await rows.begin_send(row_id)
    for _ in range(3):
        await send_had_no_effect("message", row_id, rows.institution_id)
    message = await Message.get(id=row_id)
    assert (message.sends_started, message.sends_unreached) == (1, 1)


# ---------------------------------------------------------------- patience


def test_questions_become_ever_rarer_within_a_bound() -> None:
    pauses = [backoff(attempts) for attempts in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[0] == timedelta(seconds=2)
    assert pauses[: len(BACKOFF_STEPS_SECONDS)] == [timedelta(seconds=step) for step in BACKOFF_STEPS_SECONDS]
    assert set(pauses[len(BACKOFF_STEPS_SECONDS) :]) == {timedelta(minutes=30)}
    assert backoff(0) == backoff(-1) == backoff(1)
