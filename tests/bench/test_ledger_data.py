"""A filled database is as the product would have left it: chains, seals and identities hold, nothing is due."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from bench.ledger_data import END, fill
from core.invariants import check_invariants
from core.keyring import Keyring
from core.ledger import ledger_key
from core.verifying import verify_ledger
from runtime.database import credentials_of
from scheduler.loops import loops, next_due_at
from tests.support.house import House
from tests.support.postgres import Database

pytestmark = pytest.mark.timeout(400)

PAYMENTS = 4_000


async def test_a_filled_database_holds_and_one_changed_byte_is_found(tortoise: object, database: Database) -> None:
    house = await House.build()
    key = ledger_key(house.services.outside.keyring)
    filled = fill(database.superuser_dsn, PAYMENTS, key=key)
    assert (filled.payments, filled.transfers) == (PAYMENTS, 2 * PAYMENTS)
    connection = await asyncpg.connect(**credentials_of(database.app_dsn))
    forger = await asyncpg.connect(**database.superuser_credentials)
    try:
        report = await verify_ledger(connection, key)
        assert (report.wrong, report.transfers, report.seals, report.unsealed) == (0, 2 * PAYMENTS, filled.seals, 0)
        assert [outcome for outcome in await check_invariants(connection) if not outcome.ok] == []
        statuses = await connection.fetch("SELECT status, count(*) FROM payment GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in statuses] == [("closed", PAYMENTS // 20), ("paid", PAYMENTS * 19 // 20)]
        assert [await next_due_at(loop) for loop in loops(house.services) if loop.table != "hospital_site"] == [
            None
        ] * 7
        await forger.execute("SET session_replication_role = replica")
        order_no = await forger.fetchval(
            "UPDATE transfer t SET cause = overlay(cause PLACING 'x' FROM 36) FROM payment p WHERE t.id = ("
            " SELECT id FROM transfer WHERE seq = 2 ORDER BY at OFFSET 2345 LIMIT 1) AND p.id = t.payment_id"
            " RETURNING p.order_no"
        )
        (finding,) = (await verify_ledger(connection, key)).findings
        assert (finding.place, finding.seq) == (order_no, 2)
    finally:
        await connection.close()
        await forger.close()


async def test_an_institution_that_is_set_up_goes_on_from_where_it_was_filled(
    tortoise: object, database: Database
) -> None:
    house = await House.build()
    key = ledger_key(house.services.outside.keyring)
    filled = fill(database.superuser_dsn, 200, key=key, institution_id=house.institution_id)
    assert filled.institution_id == house.institution_id
    assert house.clock.now() > END
    payer = await house.payer()
    started = await house.start(payer, await house.bound(payer), house.bill())
    house.pay_sheet(started)
    await house.settle()
    house.clock.advance(timedelta(minutes=5))
    (head,) = await house.services.seals.seal_due()
    assert (head.institution, head.number) == ("renhe", filled.seals + 1)
    connection = await asyncpg.connect(**credentials_of(database.app_dsn))
    try:
        report = await verify_ledger(connection, key, heads=[head])
        assert (report.wrong, report.transfers) == (0, 402)
        assert [outcome for outcome in await check_invariants(connection) if not outcome.ok] == []
    finally:
        await connection.close()


def test_the_keys_functions_in_sql_are_those_of_the_product() -> None:
    """What the filler writes is verified above with this key; another one has another purpose."""
    keyring = Keyring(current="k1", keys={"k1": b"1" * 32}, lookup_key=b"2" * 32)
    assert ledger_key(keyring) == keyring.derived("ledger") != keyring.derived("another")
    assert len(ledger_key(keyring)) == 32
