"""Work that is due: claiming rows, holding them by a lease, giving them back.

A claimed row's `due_at` is moved to the end of its lease, so a holder that dies is followed by another without
anybody's help. Whoever wants the row worked earlier sets `due_at` to now: giving the row back keeps that wish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from core.tenancy import across_institutions
from core.transactions import rows

LEASE_MARGIN = timedelta(seconds=10)
BACKOFF_STEPS_SECONDS = (2, 5, 15, 30, 60, 180, 300, 600, 1800)
"""How long to wait before the next question, by the number of tries so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DueRow:
    """A row that we hold until `lease_until`."""

    id: UUID
    institution_id: UUID
    attempts: int
    lease_until: datetime
    holder: str
    counterparty: UUID | None = None  # who is asked; known for rows that a loop has claimed


async def claim(
    table: str,
    *,
    now: datetime,
    holder: str,
    lease: timedelta,
    batch_max: int,
    counterparty: str,
    per_counterparty_max: int,
    skip: Sequence[UUID] = (),
) -> list[DueRow]:
    """Take up to `batch_max` due rows, at most `per_counterparty_max` for each value of the column `counterparty`."""
    with across_institutions("a worker takes whatever is due"):
        found = await rows(
            f"""
            WITH ranked AS (
                SELECT id, row_number() OVER (PARTITION BY {counterparty} ORDER BY due_at, id) AS place
                FROM {table}
                WHERE due_at <= $1 AND (lease_until IS NULL OR lease_until <= $1)
                    AND NOT ({counterparty} = ANY ($6::uuid[]))
            ), picked AS (
                SELECT t.id FROM {table} t JOIN ranked ON ranked.id = t.id
                WHERE ranked.place <= $3 AND t.due_at <= $1 AND (t.lease_until IS NULL OR t.lease_until <= $1)
                ORDER BY t.due_at, t.id LIMIT $2 FOR NO KEY UPDATE OF t SKIP LOCKED
            )
            UPDATE {table} t SET lease_until = $4, due_at = $4, holder = $5, attempts = t.attempts + 1
            FROM picked WHERE t.id = picked.id
            RETURNING t.id, t.institution_id, t.attempts, t.lease_until, t.holder, t.{counterparty} AS counterparty
            """,
            now,
            batch_max,
            per_counterparty_max,
            now + lease,
            holder,
            list(skip),
        )
    return [DueRow(**row) for row in sorted(found, key=lambda row: str(row["id"]))]


async def take(
    table: str, row_id: UUID, institution_id: UUID, *, now: datetime, holder: str, lease: timedelta
) -> DueRow | None:
    """Take one row, due or not, unless somebody holds it; for work that a request begins itself."""
    found = await rows(
        f"UPDATE {table} SET lease_until = $4, due_at = $4, holder = $5, attempts = attempts + 1"
        " WHERE institution_id = $1 AND id = $2 AND due_at IS NOT NULL"
        " AND (lease_until IS NULL OR lease_until <= $3)"
        " RETURNING id, institution_id, attempts, lease_until, holder",
        institution_id,
        row_id,
        now,
        now + lease,
        holder,
    )
    return DueRow(**found[0]) if found else None


async def give_back(
    table: str, row_id: UUID, institution_id: UUID, *, holder: str, due_at: datetime, counted: bool = True
) -> None:
    """End our lease and name the next due time, unless the row is done or somebody wants it earlier.

    `counted` false: nobody was asked, so this try does not make the next pause longer.
    """
    await rows(
        f"""
        UPDATE {table} SET
            due_at = CASE WHEN due_at IS NULL THEN NULL WHEN due_at < lease_until THEN due_at ELSE $4 END,
            attempts = attempts - CASE WHEN $5 OR attempts = 0 THEN 0 ELSE 1 END, lease_until = NULL, holder = ''
        WHERE institution_id = $1 AND id = $2 AND holder = $3 RETURNING id
        """,
        institution_id,
        row_id,
        holder,
        due_at,
        counted,
    )


async def after_silence(table: str, due: DueRow, *, now: datetime, opens_at: datetime | None) -> None:
    """Ask again later; while the counterparty's breaker is open or it is in maintenance, not before that ends."""
    await give_back(
        table,
        due.id,
        due.institution_id,
        holder=due.holder,
        due_at=max(opens_at or now, now + backoff(due.attempts)),
        counted=opens_at is None,
    )


async def begin_send(
    table: str,
    row_id: UUID,
    institution_id: UUID,
    *,
    holder: str,
    now: datetime,
    statuses: Sequence[str],
    stamp: str | None = None,
    counters: str = "",
) -> bool:
    """Record that a request is about to leave; False when we no longer hold the row or it has moved on.

    `stamp` is the column, if any, that remembers when; `counters` begins the names of the columns that count.
    """
    stamped = f", {stamp} = $4" if stamp else ""
    started = f"{counters}sends_started"
    found = await rows(
        f"UPDATE {table} SET {started} = {started} + 1{stamped} WHERE institution_id = $1 AND id = $2"
        " AND holder = $3 AND lease_until > $4 AND status = ANY ($5::text[]) RETURNING id",
        institution_id,
        row_id,
        holder,
        now,
        list(statuses),
    )
    return bool(found)


async def send_had_no_effect(table: str, row_id: UUID, institution_id: UUID, *, counters: str = "") -> None:
    """Record that a request that had been begun provably did nothing (it never left, or was refused)."""
    await rows(
        f"UPDATE {table} SET {counters}sends_unreached = {counters}sends_unreached + 1 WHERE institution_id = $1"
        f" AND id = $2 AND {counters}sends_unreached < {counters}sends_started RETURNING id",
        institution_id,
        row_id,
    )


def backoff(attempts: int) -> timedelta:
    """How long until the next question after this many."""
    return timedelta(seconds=BACKOFF_STEPS_SECONDS[min(max(attempts, 1), len(BACKOFF_STEPS_SECONDS)) - 1])
