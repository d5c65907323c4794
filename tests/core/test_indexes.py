"""The cost of a payment does not grow with history: each of its statements finds its rows by an index.

PostgreSQL is asked how it would run each statement, whatever its values, if it could help reading a whole table. What
then still reads one, or an index from end to end, has no index to go by.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from bench.ledger_data import fill
from core.ledger import ledger_key
from runtime.database import database as opened
from scheduler.loops import claim_due, loops
from tests.support.house import House
from tests.support.isolation import Watch, watched_connection
from tests.support.postgres import Database

GENERIC_PLAN_SINCE = 160000
HISTORY = 2000  # payments: enough for the statistics to say which index is worth going by
GROWS = frozenset({
    "payment", "payment_line", "payment_event", "confirmation", "his_lock", "refund", "refund_line", "transfer",
    "message", "inbound", "raw_body", "staff_case", "idempotency_record",
})  # fmt: skip
OPEN_ROWS = ("_due", "_open", "_open_once")
"""Partial indexes that hold nothing but open work."""

READS = ("SELECT", "UPDATE", "DELETE", "WITH")


class Listener(Watch):
    """Keeps the statements themselves."""

    def __init__(self) -> None:
        super().__init__(enforce=False)
        self.statements: dict[str, None] = {}

    def see(self, sql: str, values: tuple[Any, ...]) -> None:
        self.statements[sql] = None


@pytest.fixture
async def listener(database: Database) -> AsyncIterator[Listener]:
    listener = Listener()
    async with opened(database.app_dsn, connection_class=watched_connection(listener)):
        yield listener


async def test_every_statement_of_a_payment_goes_by_an_index(listener: Listener, database: Database) -> None:
    house = await House.build(settings={"merge": True})
    payer = await house.payer()
    patient = await house.bound(payer)
    bills = [house.bill(total_fen=fen) for fen in (8650, 120, 300)]
    cancelled = await house.start(payer, patient, bills[0])
    await house.services.payments.cancel(payer.id, house.institution_id, cancelled.order_no)
    for bill in bills[:2]:
        house.pay_sheet(await house.start(payer, patient, bill))
    await house.settle()
    house.faults.script("hospital.refuses_confirm")
    house.pay_sheet(await house.start(payer, patient, bills[2]))
    await house.settle(within=timedelta(days=2))
    payment = await house.payment(cancelled.order_no)
    await house.services.inbounds.follow_up.of(house.institution_id, payment.id)
    for loop in loops(house.services):
        await claim_due(loop, house.services)
    await house.services.payments.paid_list(payer.id, house.institution_id, [patient])
    key = ledger_key(house.services.outside.keyring)
    fill(database.superuser_dsn, HISTORY, key=key, institution_id=house.institution_id, days=1)
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        if connection.info.server_version < GENERIC_PLAN_SINCE:
            return
        connection.execute("ANALYZE")
        connection.execute("SET enable_seqscan = off")
        reading = [sql for sql in listener.statements if sql.lstrip().startswith(READS)]
        found = {sql: list(_without_index(plan)) for sql in reading for plan in _plans(connection, sql)}
    assert len(reading) > 60
    slow = {sql: tables for sql, tables in found.items() if tables}
    assert slow == {}, "\n".join(f"{tables}: {' '.join(sql.split())}" for sql, tables in slow.items())


def _plans(connection: psycopg.Connection[Any], sql: str) -> Iterator[dict[str, Any]]:
    (row,) = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {sql}".encode()).fetchall()
    for plan in row[0] if isinstance(row[0], list) else json.loads(row[0]):
        yield plan["Plan"]


def _without_index(plan: dict[str, Any]) -> Iterator[str]:
    table, index = plan.get("Relation Name", ""), plan.get("Index Name", "")
    if plan["Node Type"] == "Seq Scan" and table in GROWS:
        yield table
    elif "Index" in plan["Node Type"] and not index.endswith(OPEN_ROWS) and index.startswith(tuple(GROWS)):
        columns = set(re.findall(r"\(?(\w+)\)?(?:::\w+)? (?:=|<|>|<=|>=) ", plan.get("Index Cond", "")))
        if columns <= {"institution_id"}:
            yield f"{table or index} by {', '.join(columns) or 'nothing'} ({index})"
    for part in plan.get("Plans", []):
        yield from _without_index(part)
