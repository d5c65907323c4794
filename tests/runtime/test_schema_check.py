"""The check of the schema finds what is missing, what is too much and what is not in force."""

from __future__ import annotations

import asyncpg
import pytest

from core.states import TRANSITIONS
from runtime.schema_check import differences
from tests.support.postgres import Database


async def changed(database: Database, *statements: str) -> list[str]:
    """What the check finds after these statements."""
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
    return await differences(database.owner_dsn)


async def test_a_migrated_database_is_as_declared(database: Database) -> None:
    assert await differences(database.owner_dsn) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "ALTER TABLE payment DROP CONSTRAINT payment_refunds_within_paid",
            "constraint payment.payment_refunds_within_paid is declared and missing",
        ),
        (
            "ALTER TABLE payer DROP CONSTRAINT payer_once",
            "constraint payer.payer_once is declared and missing",
        ),
        (
            "ALTER TABLE payment DROP CONSTRAINT payment_order_no_key",
            "constraint payment.payment_order_no_key is declared and missing",
        ),
        ("DROP INDEX payment_line_claim", "index payment_line.payment_line_claim is declared and missing"),
        (
            "DROP INDEX payment_line_claim; CREATE INDEX payment_line_claim ON payment_line (his_bill_id)",
            "index payment_line.payment_line_claim is False, declared as True",
        ),
        (
            "CREATE INDEX surprise ON payment (paid_fen)",
            "index payment.surprise is there and nobody declares it",
        ),
        (
            "ALTER TABLE payment ADD COLUMN surprise text",
            "column payment.surprise is there and nobody declares it",
        ),
        ("ALTER TABLE message DROP COLUMN result_code", "column message.result_code is declared and missing"),
        ("CREATE TABLE surprise (id uuid)", "column surprise.id is there and nobody declares it"),
        (
            "DROP TRIGGER transfer_only_grows ON transfer",
            "trigger transfer.transfer_only_grows is declared and missing",
        ),
        (
            "ALTER TABLE transfer DISABLE TRIGGER transfer_only_grows",
            "trigger transfer.transfer_only_grows is not in force",
        ),
        (
            "ALTER TABLE transfer DROP CONSTRAINT transfer_moves_money,"
            " ADD CONSTRAINT transfer_moves_money CHECK (amount_fen > 0) NOT VALID",
            "constraint transfer.transfer_moves_money is not in force",
        ),
    ],
)
async def test_one_change_behind_our_back_is_found(database: Database, statement: str, found: str) -> None:
    assert await changed(database, statement) == [found]


async def test_a_columns_type_and_nullability_are_compared(database: Database) -> None:
    found = await changed(
        database,
        "ALTER TABLE institution ALTER COLUMN phone TYPE varchar(64)",
        "ALTER TABLE institution ALTER COLUMN name_en DROP NOT NULL",
    )
    assert [line.partition(" is ")[0] for line in found] == ["column institution.name_en", "column institution.phone"]
    assert "character varying(64)" in found[1]
    assert "character varying(32)" in found[1]


@pytest.mark.parametrize("table", sorted(TRANSITIONS))
async def test_a_step_that_only_the_database_knows_is_found(database: Database, table: str) -> None:
    steps = [f"{source}>{target}" for source, targets in TRANSITIONS[table][0].items() for target in targets]
    found = await changed(
        database,
        f"DROP TRIGGER {table}_states ON {table}",
        f"CREATE TRIGGER {table}_states BEFORE INSERT OR UPDATE OF status ON {table}"
        f" FOR EACH ROW EXECUTE FUNCTION check_transition('nowhere', '{' '.join(steps[1:])} a>b')",
    )
    assert f"{table} may go {steps[0]} in core/states.py, not in the database" in found
    assert f"{table} may go a>b in the database, not in core/states.py" in found
    assert any(line.startswith(f"{table} begins as ['nowhere'] in the database") for line in found)
    assert len(found) == 3
