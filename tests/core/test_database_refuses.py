"""What code must never do, the database itself refuses: each refusal by the name of its constraint.

Every test works in a transaction of its own that is rolled back, in the role of the programs unless it says
otherwise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.rows import dict_row

from core.states import TRANSITIONS
from tests.support.postgres import Database

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
FILL: dict[str, Any] = {
    "character varying": "",
    "text": "",
    "integer": 1,
    "bigint": 0,
    "boolean": False,
    "jsonb": "{}",
    "bytea": b"",
    "timestamp with time zone": NOON,
}


@dataclass
class Books:
    """Writes rows that are valid but for what a test changes."""

    connection: psycopg.Connection[dict[str, Any]]
    institution: UUID
    other_institution: UUID
    needed: dict[str, dict[str, str]]  # table → columns that need a value → type
    parents: dict[str, UUID]
    positions: Iterator[int] = field(default_factory=itertools.count)

    def insert(self, table: str, **values: Any) -> UUID:
        """A row of this institution; whatever a test does not say is filled with something harmless."""
        row: dict[str, Any] = {"id": uuid4()}
        for column, kind in self.needed[table].items():
            if column in self.parents:
                row[column] = self.parents[column]
            elif kind == "uuid":
                row.setdefault(column, uuid4())
            else:
                row[column] = FILL[kind]
        if table == "hospital_site":
            row |= {"deadline_seconds": 10, "calls_max": 8}
        row |= values
        self.connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(sql.Placeholder() * len(row)),
            ),
            list(row.values()),
        )
        return UUID(str(row["id"]))

    def update(self, table: str, row_id: UUID, **values: Any) -> None:
        changes = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in values)
        self.connection.execute(
            sql.SQL("UPDATE {} SET {} WHERE id = %s").format(sql.Identifier(table), changes),
            [*values.values(), row_id],
        )

    def status(self, table: str, row_id: UUID) -> str:
        query = sql.SQL("SELECT status FROM {} WHERE id = %s").format(sql.Identifier(table))
        row = self.connection.execute(query, [row_id]).fetchone()
        assert row is not None
        return str(row["status"])

    def payment(self, **changes: Any) -> UUID:
        number = uuid4().hex[:26]
        return self.insert(
            "payment", **{"status": "created", "order_no": number, "asked_fen": 8650, "scene": "mobile", **changes}
        )

    def event(self, payment_id: UUID, proves: str | None = None, **changes: Any) -> UUID:
        proof_kind = "authenticated_query" if proves else None
        return self.insert(
            "payment_event",
            **{"payment_id": payment_id, "proves": proves, "proof_kind": proof_kind, "digest": uuid4().hex, **changes},
        )

    def line(self, payment_id: UUID, **changes: Any) -> UUID:
        """By itself a line of a bill of its own."""
        values = {"his_bill_id": uuid4().hex, "position": next(self.positions), "status": "waiting", "amount_fen": 8650}
        return self.insert("payment_line", payment_id=payment_id, **{**values, **changes})

    def confirmation(self, payment_id: UUID, **changes: Any) -> UUID:
        number = uuid4().hex[:26]
        return self.insert(
            "confirmation", **{"payment_id": payment_id, "status": "open", "confirm_no": number, **changes}
        )

    def refund(self, payment_id: UUID, **changes: Any) -> UUID:
        number = uuid4().hex[:26]
        return self.insert(
            "refund",
            **{
                "payment_id": payment_id,
                "origin": "automatic",
                "status": "approved",
                "refund_no": number,
                "amount_fen": 8650,
                **changes,
            },
        )

    def dies(self, payment_id: UUID, refund_id: UUID) -> None:
        """A refund that is being sent turns out never to arrive."""
        self.update("refund", refund_id, status="dead", proof_id=self.event(payment_id, "dead", refund_id=refund_id))

    def paid(self, **changes: Any) -> UUID:
        """A payment that has been paid, with its proof."""
        payment_id = self.payment(**changes)
        self.update("payment", payment_id, status="paid", paid_fen=8650, proof_id=self.event(payment_id, "paid"))
        return payment_id

    def transfer(self, payment_id: UUID, **changes: Any) -> UUID:
        values = {
            "cause": str(payment_id),
            "kind": "paid",
            "seq": 1 if changes.get("kind", "paid") == "paid" else 2,
            "debit": "channel_receivable",
            "credit": "awaiting_his",
            "amount_fen": 8650,
        }
        return self.insert("transfer", payment_id=payment_id, **{**values, **changes})

    def seal(self, number: int, **changes: Any) -> UUID:
        """Of ten places, the number-th of all."""
        values = {
            "number": number,
            "after_place": 10 * (number - 1),
            "last_place": 10 * number,
            "previous_mac": f"mac {number - 1}",
            "mac": f"mac {number}",
        }
        return self.insert("seal", **{**values, **changes})

    @contextmanager
    def refused(self, error: type[psycopg.Error], constraint: str) -> Iterator[None]:
        """What happens inside fails for this reason, and leaves nothing behind."""
        with pytest.raises(error) as caught, self.connection.transaction():
            yield
        assert caught.value.diag.constraint_name == constraint


@dataclass(frozen=True)
class Furniture:
    """What every payment stands on, written once."""

    institution: UUID
    other_institution: UUID
    needed: dict[str, dict[str, str]]
    parents: dict[str, UUID]


@pytest.fixture(scope="module")
def furniture(module_database: Database) -> Furniture:
    with psycopg.connect(module_database.app_dsn, row_factory=dict_row) as connection:
        needed: dict[str, dict[str, str]] = {}
        for column in connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
            " AND is_nullable = 'NO' AND column_default IS NULL AND is_generated = 'NEVER' AND column_name <> 'id'"
        ):
            needed.setdefault(column["table_name"], {})[column["column_name"]] = column["data_type"]
        books = Books(connection, uuid4(), uuid4(), needed, {})
        institution = books.insert("institution", code="renhe")
        other = books.insert("institution", code="anhe")
        books.parents["institution_id"] = institution
        parents = {
            "institution_id": institution,
            "site_id": books.insert("hospital_site", event_token="a"),
            "merchant_account_id": books.insert("merchant_account", notify_token="a"),
            "chat_account_id": books.insert("chat_account", callback_token="a"),
        }
        books.parents.update(parents)
        parents["payer_id"] = books.insert("payer")
        parents["patient_id"] = books.insert("patient")
        return Furniture(institution, other, needed, parents)


def _books(dsn: str, furniture: Furniture) -> Iterator[Books]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        yield Books(connection, furniture.institution, furniture.other_institution, furniture.needed, furniture.parents)
        connection.rollback()


@pytest.fixture
def books(module_database: Database, furniture: Furniture) -> Iterator[Books]:
    yield from _books(module_database.app_dsn, furniture)


@pytest.fixture
def owners_books(module_database: Database, furniture: Furniture) -> Iterator[Books]:
    yield from _books(module_database.owner_dsn, furniture)


# ---------------------------------------------------------------- no end without proof


@pytest.mark.parametrize("status", ["paid", "closed", "failed"])
def test_a_payment_does_not_end_without_proof(books: Books, status: str) -> None:
    payment_id = books.payment()
    with books.refused(errors.CheckViolation, "payment_end_needs_proof"):
        books.update("payment", payment_id, status=status)
    assert books.status("payment", payment_id) == "created"


@pytest.mark.parametrize("status", ["paid", "closed", "failed"])
def test_a_payment_ends_with_a_proof_of_exactly_this_end_of_this_payment(books: Books, status: str) -> None:
    payment_id, other = books.payment(), books.payment()
    wrong = [books.event(payment_id, proves) for proves in {"paid", "closed", "failed"} - {status}]
    for proof_id in [*wrong, books.event(other, status), books.event(payment_id), uuid4()]:
        with books.refused(errors.ForeignKeyViolation, "payment_proof"):
            books.update("payment", payment_id, status=status, proof_id=proof_id)
    assert books.status("payment", payment_id) == "created"
    books.update("payment", payment_id, status=status, proof_id=books.event(payment_id, status))
    assert books.status("payment", payment_id) == status


@pytest.mark.parametrize("status", ["confirmed", "rejected"])
def test_a_confirmation_ends_with_its_own_proof_only(books: Books, status: str) -> None:
    payment_id = books.paid()
    mine, other = books.confirmation(payment_id), books.confirmation(payment_id)
    opposite = "rejected" if status == "confirmed" else "confirmed"
    with books.refused(errors.CheckViolation, "confirmation_end_needs_proof"):
        books.update("confirmation", mine, status=status)
    for proof_id in (
        books.event(payment_id, opposite, confirmation_id=mine),
        books.event(payment_id, status, confirmation_id=other),
        books.event(payment_id, None, confirmation_id=mine),
    ):
        with books.refused(errors.ForeignKeyViolation, "confirmation_proof"):
            books.update("confirmation", mine, status=status, proof_id=proof_id)
    assert books.status("confirmation", mine) == "open"
    books.update("confirmation", mine, status=status, proof_id=books.event(payment_id, status, confirmation_id=mine))


@pytest.mark.parametrize("status", ["confirmed", "rejected"])
def test_a_line_ends_with_the_proof_of_its_confirmation_only(books: Books, status: str) -> None:
    payment_id = books.paid()
    mine, other = books.confirmation(payment_id), books.confirmation(payment_id)
    line_id = books.line(payment_id, claims_bill=False)
    books.update("payment_line", line_id, status="confirming", confirmation_id=mine)
    proof_id = books.event(payment_id, status, confirmation_id=mine)
    with books.refused(errors.CheckViolation, "payment_line_end_needs_proof"):
        books.update("payment_line", line_id, status=status)
    with books.refused(errors.CheckViolation, "payment_line_end_needs_proof"):
        books.update("payment_line", line_id, status=status, proof_id=proof_id, confirmation_id=None)
    opposite = books.event(payment_id, {"confirmed": "rejected", "rejected": "confirmed"}[status], confirmation_id=mine)
    for wrong in (opposite, books.event(payment_id, status, confirmation_id=other)):
        with books.refused(errors.ForeignKeyViolation, "payment_line_proof"):
            books.update("payment_line", line_id, status=status, proof_id=wrong)
    assert books.status("payment_line", line_id) == "confirming"
    books.update("payment_line", line_id, status=status, proof_id=proof_id)


@pytest.mark.parametrize("status", ["refunded", "dead"])
def test_a_refund_ends_with_its_own_proof_only(books: Books, status: str) -> None:
    payment_id = books.paid()
    mine, other = books.refund(payment_id), books.refund(payment_id)
    books.update("refund", mine, status="sending")
    with books.refused(errors.CheckViolation, "refund_end_needs_proof"):
        books.update("refund", mine, status=status)
    opposite = books.event(payment_id, {"refunded": "dead", "dead": "refunded"}[status], refund_id=mine)
    for wrong in (opposite, books.event(payment_id, status, refund_id=other)):
        with books.refused(errors.ForeignKeyViolation, "refund_proof"):
            books.update("refund", mine, status=status, proof_id=wrong)
    assert books.status("refund", mine) == "sending"
    books.update("refund", mine, status=status, proof_id=books.event(payment_id, status, refund_id=mine))


@pytest.mark.parametrize("origin", ["staff", "hospital"])
def test_no_money_of_a_booked_bill_leaves_before_the_his_has_taken_it_back(books: Books, origin: str) -> None:
    payment_id = books.paid()
    mine, other = books.refund(payment_id, origin=origin), books.refund(payment_id, origin=origin)
    with books.refused(errors.CheckViolation, "refund_his_first"):
        books.update("refund", mine, status="sending")
    kept = books.event(payment_id, "kept", refund_id=mine)
    for wrong in (kept, books.event(payment_id, "reversed", refund_id=other)):
        with books.refused(errors.ForeignKeyViolation, "refund_his_proof"):
            books.update("refund", mine, status="sending", his_proof_id=wrong)
    proof = books.event(payment_id, "reversed", refund_id=mine)
    books.update("refund", mine, status="sending", his_proof_id=proof)
    with books.refused(errors.CheckViolation, "refund_replaces_dead"):
        books.refund(payment_id, origin=origin, replaces_id=mine)
    books.dies(payment_id, mine)
    for changes in ({"origin": "automatic"}, {"amount_fen": 8651}):
        with books.refused(errors.CheckViolation, "refund_replaces_dead"):
            books.refund(payment_id, **{"origin": origin, "replaces_id": mine, **changes})
    books.update("refund", books.refund(payment_id, origin=origin, replaces_id=mine), status="sending")


def test_what_waits_for_somebody_is_not_approved_by_nobody(books: Books) -> None:
    refund_id = books.refund(books.paid(), origin="staff", status="requested")
    with books.refused(errors.CheckViolation, "refund_decided"):
        books.update("refund", refund_id, status="approved")
    books.update("refund", refund_id, status="approved", decided_by=books.insert("staff", code=uuid4().hex))


def test_a_red_receipt_and_a_click_are_one_refund_each(books: Books) -> None:
    payment_id, clerk = books.paid(), books.insert("staff", code=uuid4().hex)
    books.refund(payment_id, red_receipt_no="H1")
    with books.refused(errors.UniqueViolation, "refund_red_receipt_once"):
        books.refund(payment_id, red_receipt_no="H1")
    books.refund(payment_id, requested_by=clerk, request_key="k")
    with books.refused(errors.UniqueViolation, "refund_requested_once"):
        books.refund(books.paid(), requested_by=clerk, request_key="k")


@pytest.mark.parametrize(
    "values",
    [
        {"proves": "paid", "proof_kind": None},
        {"proves": None, "proof_kind": "authenticated_query"},
        {"proves": "paid", "proof_kind": "somebody_said_so"},
    ],
)
def test_a_proof_is_of_a_listed_kind(books: Books, values: dict[str, Any]) -> None:
    payment_id = books.payment()
    with books.refused(errors.CheckViolation, "payment_event_proof_kind"):
        books.event(payment_id, **values)


def test_a_proof_proves_something_about_what_it_is_about(books: Books) -> None:
    payment_id = books.paid()
    confirmation_id, refund_id = books.confirmation(payment_id), books.refund(payment_id)
    cases: list[tuple[str, dict[str, UUID]]] = [
        ("pending", {}),
        ("confirmed", {}),
        ("refunded", {}),
        ("paid", {"refund_id": refund_id}),
        ("paid", {"confirmation_id": confirmation_id}),
        ("refunded", {"confirmation_id": confirmation_id}),
        ("confirmed", {"refund_id": refund_id}),
    ]
    for proves, about in cases:
        with books.refused(errors.CheckViolation, "payment_event_proves"):
            books.event(payment_id, proves, **about)


@pytest.mark.parametrize("about", ["confirmation_id", "refund_id"])
def test_evidence_is_about_a_part_of_its_own_payment(books: Books, about: str) -> None:
    payment_id, other = books.paid(), books.paid()
    part = books.confirmation(other) if about == "confirmation_id" else books.refund(other)
    with pytest.raises(errors.ForeignKeyViolation), books.connection.transaction():
        books.event(payment_id, None, **{about: part})


def test_a_line_and_what_is_returned_of_it_belong_to_one_payment(books: Books) -> None:
    payment_id, other = books.paid(), books.paid()
    with pytest.raises(errors.ForeignKeyViolation), books.connection.transaction():
        books.line(payment_id, confirmation_id=books.confirmation(other))
    with pytest.raises(errors.ForeignKeyViolation), books.connection.transaction():
        books.insert(
            "refund_line", payment_id=payment_id, refund_id=books.refund(payment_id), line_id=books.line(other)
        )


def test_evidence_that_was_used_stays_where_it_is_even_for_the_owner(owners_books: Books) -> None:
    payment_id = owners_books.paid()
    with owners_books.refused(errors.CheckViolation, "payment_event_only_grows"):
        owners_books.connection.execute("DELETE FROM payment_event WHERE payment_id = %s", [payment_id])
    assert owners_books.status("payment", payment_id) == "paid"


# ---------------------------------------------------------------- evidence and ledger only grow


CHANGES = [
    ("payment_event", "UPDATE payment_event SET source = 'x'"),
    ("payment_event", "UPDATE payment_event SET source = source"),
    ("payment_event", "DELETE FROM payment_event"),
    ("payment_event", "TRUNCATE payment_event CASCADE"),
    ("transfer", "UPDATE transfer SET amount_fen = 1"),
    ("transfer", "DELETE FROM transfer"),
    ("transfer", "TRUNCATE transfer"),
    ("seal", "UPDATE seal SET mac = mac"),
    ("seal", "DELETE FROM seal"),
    ("seal", "TRUNCATE seal"),
]


@pytest.mark.parametrize(("table", "statement"), CHANGES)
def test_evidence_and_transfers_only_grow_even_for_the_owner(owners_books: Books, table: str, statement: str) -> None:
    owners_books.transfer(owners_books.paid())
    owners_books.seal(1)
    with owners_books.refused(errors.CheckViolation, f"{table}_only_grows"):
        owners_books.connection.execute(statement.encode())
    rows = owners_books.connection.execute("SELECT amount_fen FROM transfer").fetchall()
    assert rows == [{"amount_fen": 8650}]


@pytest.mark.parametrize(("table", "statement"), CHANGES)
def test_the_programs_have_no_right_to_change_evidence_or_transfers(books: Books, table: str, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match=table), books.connection.transaction():
        books.connection.execute(statement.encode())


def test_the_same_evidence_is_kept_once(books: Books) -> None:
    payment_id, other = books.payment(), books.payment()
    books.event(payment_id, "paid", digest="d")
    with books.refused(errors.UniqueViolation, "payment_event_once"):
        books.event(payment_id, "paid", digest="d")
    books.event(other, "paid", digest="d")


def test_a_transfer_of_a_cause_and_kind_is_written_once(books: Books) -> None:
    payment_id = books.paid()
    books.transfer(payment_id)
    with books.refused(errors.UniqueViolation, "transfer_once"):
        books.transfer(payment_id, amount_fen=1)
    books.transfer(payment_id, kind="confirmed", debit="awaiting_his", credit="his_confirmed")


@pytest.mark.parametrize("changes", [{"amount_fen": 0}, {"amount_fen": -1}, {"credit": "channel_receivable"}])
def test_a_transfer_moves_money_from_one_account_to_another(books: Books, changes: dict[str, Any]) -> None:
    payment_id = books.paid()
    with books.refused(errors.CheckViolation, "transfer_moves_money"):
        books.transfer(payment_id, **changes)


def test_a_payments_transfers_are_numbered_without_a_gap_and_begin_with_the_money_taken(books: Books) -> None:
    payment_id = books.paid()
    confirmed = {"kind": "confirmed", "debit": "awaiting_his", "credit": "his_confirmed"}
    with books.refused(errors.ForeignKeyViolation, "transfer_follows"):
        books.transfer(payment_id, **confirmed)
    with books.refused(errors.CheckViolation, "transfer_begins"):
        books.transfer(payment_id, **confirmed, seq=1)
    with books.refused(errors.CheckViolation, "transfer_begins"):
        books.transfer(payment_id, seq=0)
    books.transfer(payment_id)
    books.transfer(payment_id, **confirmed)
    with books.refused(errors.UniqueViolation, "transfer_in_turn"):
        books.transfer(payment_id, **confirmed, cause="another")
    with books.refused(errors.ForeignKeyViolation, "transfer_follows"):
        books.transfer(payment_id, **confirmed, cause="another", seq=4)
    books.transfer(payment_id, **confirmed, cause="another", seq=3)


def test_seals_join(books: Books) -> None:
    with books.refused(errors.CheckViolation, "seal_window"):
        books.seal(1, after_place=1)
    books.seal(1)
    with books.refused(errors.UniqueViolation, "seal_in_turn"):
        books.seal(1, mac="another")
    unfitting: list[dict[str, Any]] = [{"after_place": 9}, {"previous_mac": "another"}]
    for changes in unfitting:
        with books.refused(errors.ForeignKeyViolation, "seal_follows"):
            books.seal(2, **changes)
    with books.refused(errors.ForeignKeyViolation, "seal_follows"):
        books.seal(3)
    for nothing in ({"transfers": 0}, {"last_place": 10}):
        with books.refused(errors.CheckViolation, "seal_window"):
            books.seal(2, **nothing)
    books.seal(2)


# ---------------------------------------------------------------- money


def test_no_more_is_reserved_for_refunds_than_was_paid(books: Books) -> None:
    payment_id, unpaid = books.paid(), books.payment()
    books.update("payment", payment_id, refund_reserved_fen=8650)
    for wrong_id, reserved in ((payment_id, 8651), (unpaid, 1)):
        with books.refused(errors.CheckViolation, "payment_refunds_within_paid"):
            books.update("payment", wrong_id, refund_reserved_fen=reserved)
    with books.refused(errors.CheckViolation, "payment_refunds_within_paid"):
        books.update("payment", payment_id, paid_fen=8649)


def test_nothing_has_gone_back_that_was_not_reserved(books: Books) -> None:
    payment_id = books.paid()
    books.update("payment", payment_id, refund_reserved_fen=3000, refunded_fen=3000)
    for changes in ({"refunded_fen": 3001}, {"refund_reserved_fen": 2999}, {"refund_reserved_fen": -1}):
        with books.refused(errors.CheckViolation, "payment_refunded_within_reserved"):
            books.update("payment", payment_id, **changes)


def test_a_payment_that_is_not_paid_has_taken_nothing(books: Books) -> None:
    payment_id = books.payment()
    with books.refused(errors.CheckViolation, "payment_paid_or_nothing"):
        books.update("payment", payment_id, paid_fen=1)


def test_numbers_and_amounts_are_written_once(books: Books) -> None:
    payment_id = books.paid()
    line_id, refund_id = books.line(payment_id), books.refund(payment_id)
    part_id = books.insert("refund_line", payment_id=payment_id, refund_id=refund_id, line_id=line_id, amount_fen=1)
    written: dict[str, tuple[UUID, dict[str, Any]]] = {
        "payment": (payment_id, {"order_no": "P2", "asked_fen": 1}),
        "payment_line": (line_id, {"his_bill_id": "CF2", "confirm_no": "C2", "amount_fen": 1}),
        "confirmation": (books.confirmation(payment_id), {"confirm_no": "C2"}),
        "refund": (refund_id, {"refund_no": "R2", "amount_fen": 1, "origin": "staff", "replaces_id": refund_id}),
        "refund_line": (part_id, {"amount_fen": 2}),
    }
    for table, (row_id, changes) in written.items():
        for column, value in changes.items():
            with books.refused(errors.CheckViolation, f"{table}_fixed"):
                books.update(table, row_id, **{column: value})
    books.update("payment", payment_id, asked_fen=8650, refund_reserved_fen=1)


@pytest.mark.parametrize("column", ["asked_fen", "paid_fen", "refunded_fen"])
def test_no_amount_of_a_payment_is_negative(books: Books, column: str) -> None:
    with books.refused(errors.CheckViolation, "payment_amounts"):
        books.payment(**{column: -1})


def test_a_refund_gives_something_back_and_is_replaced_once(books: Books) -> None:
    payment_id = books.paid()
    for amount in (0, -1):
        with books.refused(errors.CheckViolation, "refund_amount"):
            books.refund(payment_id, amount_fen=amount)
    dead = books.refund(payment_id)
    books.update("refund", dead, status="sending")
    books.dies(payment_id, dead)
    books.refund(payment_id, replaces_id=dead)
    with books.refused(errors.UniqueViolation, "refund_replaced_once"):
        books.refund(payment_id, replaces_id=dead)


def test_a_refund_returns_a_line_once(books: Books) -> None:
    payment_id = books.paid()
    line_id, refund_id = books.line(payment_id), books.refund(payment_id)
    books.insert("refund_line", payment_id=payment_id, refund_id=refund_id, line_id=line_id, amount_fen=1)
    with books.refused(errors.UniqueViolation, "refund_line_once"):
        books.insert("refund_line", payment_id=payment_id, refund_id=refund_id, line_id=line_id, amount_fen=1)
    with books.refused(errors.CheckViolation, "refund_line_amount"):
        second = books.refund(payment_id)
        books.insert("refund_line", payment_id=payment_id, refund_id=second, line_id=line_id, amount_fen=-1)


# ---------------------------------------------------------------- one bill, one confirmation, one claim


@pytest.mark.parametrize("holding", ["confirming", "confirmed", "reversing"])
def test_a_bill_is_confirmed_at_most_once(books: Books, holding: str) -> None:
    first, second = books.paid(), books.paid()
    confirmation_id = books.confirmation(first)
    line_id = books.line(first, his_bill_id="B1", claims_bill=False)
    books.update("payment_line", line_id, status="confirming", confirmation_id=confirmation_id)
    if holding != "confirming":
        proof_id = books.event(first, "confirmed", confirmation_id=confirmation_id)
        books.update("payment_line", line_id, status="confirmed", proof_id=proof_id)
    if holding == "reversing":
        books.update("payment_line", line_id, status="reversing")
    waiting = books.line(second, his_bill_id="B1", claims_bill=False)
    elsewhere = books.line(second, his_bill_id="B1", branch="east", claims_bill=False)
    with books.refused(errors.UniqueViolation, "payment_line_bill_once"):
        books.update("payment_line", waiting, status="confirming", confirmation_id=books.confirmation(second))
    assert books.status("payment_line", waiting) == "waiting"
    books.update("payment_line", elsewhere, status="confirming", confirmation_id=books.confirmation(second))


def test_a_bill_is_claimed_by_one_open_attempt(books: Books) -> None:
    first, second = books.payment(), books.payment()
    line_id = books.line(first, his_bill_id="B1", claims_bill=True)
    with books.refused(errors.UniqueViolation, "payment_line_claim"):
        books.line(second, his_bill_id="B1", claims_bill=True)
    books.line(second, his_bill_id="B1", claims_bill=False)  # a late success is recorded all the same
    books.update("payment_line", line_id, claims_bill=False)
    books.line(second, his_bill_id="B1", claims_bill=True)


@pytest.mark.parametrize(
    ("table", "constraint", "values"),
    [
        ("staff_case", "staff_case_open_once", {"kind": "wrong_amount", "subject": "P1", "status": "open"}),
        ("message", "message_once", {"dedup_key": "paid:C1", "status": "queued"}),
        ("idempotency_record", "idempotency_record_once", {"actor": "a", "route": "r", "key": "k"}),
        ("inbound", "inbound_once", {"source": "wechatpay", "account_id": UUID(int=1), "digest": "d"}),
        ("unverified_inbound", "unverified_inbound_slot", {"source": "w", "account_id": UUID(int=1)}),
        ("raw_body", "raw_body_once", {"digest": "d"}),
        ("binding", "binding_once", {}),
        ("payer", "payer_once", {"open_id_lookup": "x"}),
        ("patient_identifier", "patient_identifier_once", {"type": "id_card", "lookup": "x"}),
        ("his_patient", "his_patient_once", {"his_patient_id": "P10001"}),
        ("payment_method", "payment_method_once", {"code": "wechatpay/miniprogram/wechat"}),
        ("merchant_account", "merchant_account_once", {"channel": "alipay", "merchant_no": "1"}),
        ("chat_account", "chat_account_once", {"platform": "wechat_service", "app_id": "wx1"}),
        ("hospital_site", "hospital_site_once", {"branch": "east"}),
    ],
)
def test_there_is_no_second_one(books: Books, table: str, constraint: str, values: dict[str, Any]) -> None:
    tokens = {
        "merchant_account": "notify_token",
        "hospital_site": "event_token",
        "chat_account": "callback_token",
    }
    token = {tokens[table]: "b"} if table in tokens else {}
    books.insert(table, **values, **token)
    token = {tokens[table]: "c"} if table in tokens else {}
    with books.refused(errors.UniqueViolation, constraint):
        books.insert(table, **values, **token)


def test_a_closed_case_and_a_removed_binding_leave_room_for_a_new_one(books: Books) -> None:
    case_id = books.insert("staff_case", kind="k", subject="s", status="open")
    books.update("staff_case", case_id, status="closed")
    books.insert("staff_case", kind="k", subject="s", status="open")
    binding_id = books.insert("binding")
    books.update("binding", binding_id, removed_at=NOON)
    books.insert("binding")


@pytest.mark.parametrize(
    ("table", "column"), [("payment", "order_no"), ("refund", "refund_no"), ("confirmation", "confirm_no")]
)
def test_a_number_of_ours_is_used_once(books: Books, table: str, column: str) -> None:
    payment_id = books.payment(order_no="P1")
    values = {} if table == "payment" else {"payment_id": payment_id}
    make = getattr(books, table)
    if table != "payment":
        make(**values, **{column: "P1"})
    with pytest.raises(errors.UniqueViolation), books.connection.transaction():
        make(**values, **{column: "P1"})


# ---------------------------------------------------------------- institutions


def test_a_child_belongs_to_the_institution_of_its_parent(books: Books) -> None:
    payment_id = books.paid()
    confirmation_id, refund_id, line_id = (
        books.confirmation(payment_id),
        books.refund(payment_id),
        books.line(payment_id),
    )
    other = books.other_institution
    for constraint, insert in [
        ("payment_line_payment", lambda: books.line(payment_id, institution_id=other)),
        ("payment_event_payment", lambda: books.event(payment_id, institution_id=other)),
        ("confirmation_payment", lambda: books.confirmation(payment_id, institution_id=other)),
        ("refund_payment", lambda: books.refund(payment_id, institution_id=other)),
        ("transfer_payment", lambda: books.transfer(payment_id, institution_id=other)),
        ("payment_merchant_account", lambda: books.payment(institution_id=other)),
        (
            "refund_line_refund",
            lambda: books.insert(
                "refund_line", institution_id=other, payment_id=payment_id, refund_id=refund_id, line_id=line_id
            ),
        ),
        ("binding_payer", lambda: books.insert("binding", institution_id=other)),
    ]:
        with books.refused(errors.ForeignKeyViolation, constraint):
            insert()
    with books.refused(errors.ForeignKeyViolation, "payment_event_confirmation"):
        foreign = books.insert("institution", code="third")
        books.parents = books.parents | {"institution_id": foreign}
        books.parents |= {
            "site_id": books.insert("hospital_site", event_token="t"),
            "merchant_account_id": books.insert("merchant_account", notify_token="t"),
            "chat_account_id": books.insert("chat_account", callback_token="t"),
        }
        books.parents |= {"payer_id": books.insert("payer"), "patient_id": books.insert("patient")}
        books.event(books.payment(), None, confirmation_id=confirmation_id)


def test_every_reference_between_tenants_tables_carries_the_institution(books: Books) -> None:
    """Also of tables and columns that are made tomorrow."""
    tenants = {
        row["table_name"]
        for row in books.connection.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = 'institution_id'"
        )
    }
    assert len(tenants) > 20
    keys = books.connection.execute(
        "SELECT conname, conrelid::regclass::text AS child, confrelid::regclass::text AS parent,"
        " (SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute"
        "  WHERE attrelid = conrelid AND attnum = ANY (conkey)) AS columns"
        " FROM pg_constraint WHERE contype = 'f'"
    ).fetchall()
    to_institution = {key["child"] for key in keys if key["parent"] == "institution"}
    assert to_institution == tenants
    proofs = {"payment_proof", "confirmation_proof", "refund_proof", "refund_his_proof", "payment_line_proof"}
    assert proofs <= {key["conname"] for key in keys}
    for key in keys:
        if key["conname"] not in proofs:
            assert "institution_id" in key["columns"], key["conname"]
    referenced = {(key["child"], column) for key in keys for column in key["columns"]}
    pointing = books.connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND data_type = 'uuid' AND column_name LIKE '%\\_id'"
    ).fetchall()
    loose = {(row["table_name"], row["column_name"]) for row in pointing} - referenced
    # An account of a channel or a HIS: which table it is in depends on the message's source.
    assert loose == {("inbound", "account_id"), ("unverified_inbound", "account_id")}


# ---------------------------------------------------------------- accounts


@pytest.mark.parametrize("changes", [{"merchant_no": "2"}, {"channel": "wechatpay"}])
def test_a_merchant_number_is_never_changed(books: Books, changes: dict[str, str]) -> None:
    account_id = books.insert("merchant_account", channel="alipay", merchant_no="1", notify_token="b")
    with books.refused(errors.CheckViolation, "merchant_account_number_fixed"):
        books.update("merchant_account", account_id, **changes)
    books.update("merchant_account", account_id, enabled=True, merchant_no="1")


@pytest.mark.parametrize("changes", [{"deadline_seconds": 0}, {"deadline_seconds": 61}, {"calls_max": 0}])
def test_a_hospital_has_sensible_limits(books: Books, changes: dict[str, int]) -> None:
    with books.refused(errors.CheckViolation, "hospital_site_limits"):
        books.insert("hospital_site", **{"branch": "east", "event_token": "b", **changes})


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("table_name", TRANSITIONS)
def test_the_trigger_lets_through_exactly_the_tables_steps(owners_books: Books, table_name: str) -> None:
    """Every pair of states, on a scratch table with the trigger of the real one."""
    table, states = TRANSITIONS[table_name]
    connection = owners_books.connection
    row = connection.execute(
        "SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE tgname = %s", [f"{table_name}_states"]
    ).fetchone()
    assert row is not None
    arguments = re.search(r"check_transition\((.*)\)$", row["definition"])
    assert arguments is not None
    connection.execute("CREATE TEMP TABLE scratch (status text)")
    connection.execute(
        "CREATE TRIGGER scratch_states BEFORE INSERT OR UPDATE OF status ON scratch FOR EACH ROW"
        f" EXECUTE FUNCTION check_transition({arguments[1]})".encode()
    )
    allowed = set()
    for source, target in itertools.product(states, states):
        connection.execute("DELETE FROM scratch")
        connection.execute("ALTER TABLE scratch DISABLE TRIGGER scratch_states")
        connection.execute("INSERT INTO scratch VALUES (%s)", [source.value])
        connection.execute("ALTER TABLE scratch ENABLE TRIGGER scratch_states")
        with suppress(errors.CheckViolation), connection.transaction():
            connection.execute("UPDATE scratch SET status = %s", [target.value])
            allowed.add((source, target))
    expected = {(source, target) for source, targets in table.items() for target in targets}
    assert allowed == expected | {(state, state) for state in states}


def test_real_rows_are_born_in_a_first_state_and_keep_to_the_steps(books: Books) -> None:
    payment_id = books.paid()
    lock_id = books.insert("his_lock", payment_id=payment_id, confirm_no="C9", status="asking")
    message_id = books.insert("message", dedup_key="m", status="queued")
    books.update("message", message_id, status="skipped")
    for table, row_id, target in [
        ("payment", payment_id, "closed"),
        ("payment", payment_id, "pending"),
        ("payment_line", books.line(payment_id), "confirmed"),
        ("refund", books.refund(payment_id), "refunded"),
        ("confirmation", books.confirmation(payment_id), "nonsense"),
        ("his_lock", lock_id, "nonsense"),
        ("message", message_id, "sent"),
    ]:
        with books.refused(errors.CheckViolation, f"{table}_states"):
            books.update(table, row_id, status=target)
    proof_id = uuid4()
    births: list[tuple[str, dict[str, Any]]] = [
        ("payment", {"status": "paid", "proof_id": proof_id}),
        ("payment", {"status": "pending"}),
        ("payment_line", {"payment_id": payment_id, "status": "confirming"}),
        ("refund", {"payment_id": payment_id, "status": "sending"}),
        ("confirmation", {"payment_id": payment_id, "status": "confirmed"}),
        ("his_lock", {"payment_id": payment_id, "status": "held"}),
        ("message", {"status": "sent"}),
    ]
    for table, values in births:
        with books.refused(errors.CheckViolation, f"{table}_states"):
            books.insert(table, **values)


# ---------------------------------------------------------------- the role of the programs


def _tables(books: Books) -> set[str]:
    found = books.connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in found}


def test_what_the_programs_may_do_with_each_table(books: Books) -> None:
    tables = _tables(books)
    for table in tables:
        held = {
            row["privilege_type"]
            for row in books.connection.execute(
                "SELECT privilege_type FROM information_schema.role_table_grants"
                " WHERE grantee = 'zhenfu_app' AND table_schema = 'public' AND table_name = %s",
                [table],
            )
        }
        assert held <= {"SELECT", "INSERT", "UPDATE", "DELETE"}, table
        if table in {"payment_event", "transfer", "seal"}:
            assert held == {"SELECT", "INSERT"}
        elif table == "deployment":
            assert held == {"SELECT"}
    keep = {"payment", "payment_line", "confirmation", "his_lock", "refund", "refund_line", "inbound", "staff_case"}
    for table in keep:
        with pytest.raises(errors.InsufficientPrivilege), books.connection.transaction():
            books.connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "DROP TABLE transfer",
        "ALTER TABLE payment DROP CONSTRAINT payment_proof",
        "ALTER TABLE payment_event DISABLE TRIGGER ALL",
        "DROP TRIGGER payment_event_only_grows ON payment_event",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "DROP INDEX payment_line_bill_once",
        "TRUNCATE payment CASCADE",
        "SET session_replication_role = replica",
        "SET ROLE zhenfu_owner",
        "UPDATE deployment SET deployment_id = 'other'",
        "INSERT INTO deployment VALUES ('other', 'x', '')",
        "CREATE SCHEMA mine",
    ],
)
def test_the_programs_change_no_rule(books: Books, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege), books.connection.transaction():
        books.connection.execute(statement.encode())


def test_the_programs_own_nothing(books: Books) -> None:
    owners = books.connection.execute(
        "SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert owners == [{"owner": "zhenfu_owner"}]
    row = books.connection.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles"
        " WHERE rolname = current_user"
    ).fetchone()
    assert row is not None
    assert not any(row.values())
