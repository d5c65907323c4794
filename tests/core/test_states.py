"""Enums, transition tables and the database's triggers say the same."""

from __future__ import annotations

import re
from enum import StrEnum

import psycopg
import pytest

from core.states import (
    HOLDS_BILL,
    OPEN_PAYMENT,
    TRANSITIONS,
    LineStatus,
    PaymentStatus,
    ProofKind,
    Table,
    may_become,
)
from tests.support.postgres import Database

FIRST: dict[str, set[str]] = {
    "payment": {"created"},
    "payment_line": {"waiting"},
    "refund": {"requested", "approved"},
    "confirmation": {"open"},
    "his_lock": {"asking"},
    "message": {"queued"},
    "decision": {"proposed"},
}


@pytest.mark.parametrize("table_name", TRANSITIONS)
def test_every_status_can_be_reached_from_a_first_one(table_name: str) -> None:
    table, states = TRANSITIONS[table_name]
    reached: set[StrEnum] = {states(name) for name in FIRST[table_name]}
    while more := {target for source in reached for target in table[source]} - reached:
        reached |= more
    assert reached == set(states)


@pytest.mark.parametrize("table_name", TRANSITIONS)
def test_a_table_has_an_entry_for_every_status_and_no_step_to_itself(table_name: str) -> None:
    table, states = TRANSITIONS[table_name]
    assert set(table) == set(states)
    for source, targets in table.items():
        assert source not in targets
        assert targets <= set(states)


def test_staying_is_always_allowed_and_everything_else_is_as_the_table_says() -> None:
    for table, states in TRANSITIONS.values():
        for source in states:
            assert may_become(table, source, source)
            assert {target for target in states if may_become(table, source, target)} == {source, *table[source]}


def test_money_that_was_taken_is_never_forgotten() -> None:
    payments: Table = TRANSITIONS["payment"][0]
    assert payments[PaymentStatus.PAID] == frozenset()
    assert all(PaymentStatus.PAID in payments[status] for status in PaymentStatus if status is not PaymentStatus.PAID)
    assert frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING}) == OPEN_PAYMENT


def test_the_database_holds_the_same_transitions_and_first_states(module_database: Database) -> None:
    with psycopg.connect(module_database.owner_dsn) as connection:
        found = connection.execute(
            "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled FROM pg_trigger"
            " WHERE tgfoid = 'check_transition'::regproc AND NOT tgisinternal"
        ).fetchall()
    assert {table for table, _, _ in found} == set(TRANSITIONS)
    assert len(found) == len(TRANSITIONS)
    for table_name, definition, enabled in found:
        assert enabled == "O"
        assert "BEFORE INSERT OR UPDATE OF status" in definition
        match = re.search(r"check_transition\('([^']*)', '([^']*)'\)", definition)
        assert match is not None
        first, steps = (set(text.split()) for text in match.groups())
        table, _ = TRANSITIONS[table_name]
        assert first == FIRST[table_name]
        assert steps == {f"{source}>{target}" for source, targets in table.items() for target in targets}


def test_the_database_lists_the_same_proofs(module_database: Database) -> None:
    with psycopg.connect(module_database.owner_dsn) as connection:
        row = connection.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'payment_event_proof_kind'"
        ).fetchone()
    assert row is not None
    assert set(re.findall(r"'(\w+)'", row[0])) == set(ProofKind)


def test_the_database_lets_a_bill_be_held_by_the_same_states(module_database: Database) -> None:
    with psycopg.connect(module_database.owner_dsn) as connection:
        row = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'payment_line_bill_once'"
        ).fetchone()
    assert row is not None
    assert "UNIQUE" in row[0]
    assert "(institution_id, branch, his_bill_id)" in row[0]
    assert set(re.findall(r"'(\w+)'", row[0])) == HOLDS_BILL == {"confirming", "confirmed", "reversing"}


def test_every_status_fits_its_column() -> None:
    assert all(len(status) <= 20 for _, states in TRANSITIONS.values() for status in states)
    assert LineStatus.VOID not in HOLDS_BILL
