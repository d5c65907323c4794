"""Years of payments in minutes: fills a database with payments that have ended, as the product would have left them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from core.seals import Contents, SealedTransfer, member_of, seal_mac

BATCH = 50_000
"""So many payments are written in one transaction."""

PAYMENTS_PER_PERSON = 20
DAYS = 40
END = datetime(2026, 5, 1, tzinfo=UTC)
BLOCK_BYTES = 64  # of SHA-256, for HMAC

FILL = {
    "character varying": "''",
    "text": "''",
    "integer": "0",
    "bigint": "0",
    "boolean": "false",
    "jsonb": "'{}'",
    "bytea": r"'\x'",
    "timestamp with time zone": "at",
}
"""What a column that this module does not know is given."""

BATCH_TABLE = """
CREATE TEMP TABLE batch ON COMMIT DROP AS
SELECT n, at, amount, kind, amount + CASE WHEN kind = 'merged' THEN 500 ELSE 0 END AS asked,
    pg_temp.id7(at, 'payment', n) AS payment_id, pg_temp.id7(at + interval '5 s', 'paid', n) AS paid_event_id,
    pg_temp.id7(at + interval '1 min', 'refund', n) AS refund_id,
    pg_temp.id7(%(end)s, 'person', mod(n, %(people)s)) AS person_id
FROM (
    SELECT n, %(begin)s::timestamptz + n * %(step)s::interval AS at, 1000 + mod(n * 7919, 30000) AS amount,
        CASE mod(n, 20) WHEN 1 THEN 'merged' WHEN 2 THEN 'returned' WHEN 3 THEN 'closed' ELSE 'booked' END AS kind
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
) b
"""

PARTS_TABLE = """
CREATE TEMP TABLE part ON COMMIT DROP AS
SELECT b.*, position, CASE position WHEN 1 THEN amount ELSE 500 END AS line_fen,
    pg_temp.id7(at, 'line', n * 2 + position) AS line_id,
    pg_temp.id7(at + interval '6 s', 'confirmation', n * 2 + position) AS confirmation_id,
    pg_temp.id7(at + interval '8 s', 'booking', n * 2 + position) AS booking_event_id,
    'C' || upper(left(md5('confirm' || (n * 2 + position)), 25)) AS confirm_no
FROM batch b, LATERAL generate_series(1, CASE WHEN kind = 'merged' THEN 2 ELSE 1 END) AS position
"""

MOVES_TABLE = """
CREATE TEMP TABLE moves ON COMMIT DROP AS
SELECT m.*, nextval('transfer_place') AS place FROM (
SELECT payment_id, 1 AS seq, payment_id::text AS cause, 'paid' AS kind, 'channel_receivable' AS debit,
    'awaiting_his' AS credit, asked AS fen, at + interval '5.25 s' AS at FROM batch WHERE kind <> 'closed'
UNION ALL
SELECT payment_id, 1 + position, line_id::text, 'confirmed', 'awaiting_his', 'his_confirmed', line_fen,
    at + interval '8.25 s' FROM part WHERE kind IN ('booked', 'merged')
UNION ALL
SELECT payment_id, 2, line_id::text, 'return_decided', 'awaiting_his', 'refund_payable', line_fen,
    at + interval '9.25 s' FROM part WHERE kind = 'returned'
UNION ALL
SELECT payment_id, 3, refund_id::text, 'refunded', 'refund_payable', 'channel_receivable', asked,
    at + interval '70.25 s' FROM batch WHERE kind = 'returned'
ORDER BY at, payment_id, seq
) m
"""

TRANSFERS = """
INSERT INTO transfer (id, institution_id, payment_id, seq, cause, kind, debit, credit, amount_fen, at, place, mac)
SELECT m.id, %(institution)s, m.payment_id, m.seq, m.cause, m.kind, m.debit, m.credit, m.fen, m.at, m.place,
    pg_temp.mac(format(
    '["transfer","%%s","%%s","%%s","%%s",%%s,"%%s","%%s","%%s","%%s",%%s,"%%s"]', coalesce(p.mac, ''),
    replace(m.id::text, '-', ''), replace(%(institution)s::text, '-', ''), replace(m.payment_id::text, '-', ''), m.seq,
    m.cause, m.kind, m.debit, m.credit, m.fen,
    to_char(m.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00'
))
FROM (SELECT *, pg_temp.id7(at, payment_id::text, seq) AS id FROM moves WHERE seq = %(seq)s) m
LEFT JOIN transfer p ON p.institution_id = %(institution)s AND p.payment_id = m.payment_id AND p.seq = m.seq - 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """What was written."""

    institution_id: UUID
    payments: int
    transfers: int
    seals: int
    seconds: float


def fill(
    dsn: str,
    payments: int,
    *,
    key: bytes,
    institution_id: UUID | None = None,
    end: datetime = END,
    days: int = DAYS,
) -> Filled:
    """Write `payments` payments of the `days` before `end`, each with everything that a payment leaves behind.

    Of twenty, one pays two bills, one is refused by the HIS and returned, one is closed unpaid, the others pay one
    bill. Lines, locks, evidence, confirmations, refunds, messages, notices; transfers in their chains, and a seal
    for every minute. None is open or due: a worker finds nothing to do.

    `dsn`: libpq's, of the superuser of a migrated database: triggers and foreign keys are passed by, which takes
    a tenth of the time; that everything fits together is what `verify_ledger` and `check_invariants` say.
    `key`: the ledger's, core.ledger.ledger_key(keyring). `institution_id`: one that is set up, with a HIS, a
    merchant account and a chat account; without it one of its own is made. Each call takes numbers of its own as
    long as the institutions are different ones.
    """
    begun = time.monotonic()
    with psycopg.connect(dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET TIME ZONE 'UTC'")
        institution = institution_id or _an_institution(connection, end)
        filler = _Filler(connection, institution, _columns(connection))
        filler.prepare(key, payments, end)
        step = timedelta(days=days) / max(payments, 1)
        for first in range(0, payments, BATCH):
            last = min(first + BATCH, payments) - 1
            filler.batch(
                {
                    "first": first,
                    "last": last,
                    "begin": end - timedelta(days=days),
                    "step": step,
                    "end": end,
                    "people": _people(payments),
                }
            )
            connection.commit()
        seals = _seal(connection, key, institution, end)
        (transfers,) = connection.execute(
            "SELECT count(*) FROM transfer WHERE institution_id = %s", [institution]
        ).fetchone() or (0,)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return Filled(
        institution_id=institution,
        payments=payments,
        transfers=transfers,
        seals=seals,
        seconds=time.monotonic() - begun,
    )


def _people(payments: int) -> int:
    return max(payments // PAYMENTS_PER_PERSON, 1)


def _columns(connection: psycopg.Connection[Any]) -> Mapping[str, Mapping[str, str]]:
    """Table → column that must have a value → what it is given when nobody says anything else."""
    found: dict[str, dict[str, str]] = {}
    rows = connection.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
        " AND is_nullable = 'NO' AND column_default IS NULL AND is_generated = 'NEVER' AND data_type <> 'uuid'"
    )
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = FILL.get(kind, "''")
    return found


def _an_institution(connection: psycopg.Connection[Any], at: datetime) -> UUID:
    """A hospital with one HIS, one merchant account and one chat account, of which only the rows are there."""
    institution = uuid4()
    columns = _columns(connection)
    for table in ("institution", "hospital_site", "merchant_account", "chat_account"):
        row: dict[str, Any] = {
            column: sql.SQL(value.replace("at", "now()")) for column, value in columns[table].items()
        }
        row["id"] = sql.Literal(institution if table == "institution" else uuid4())
        if table == "institution":
            row |= {"code": sql.Literal(f"bench-{institution.hex[-8:]}"), "created_at": sql.Literal(at)}
        else:
            row["institution_id"] = sql.Literal(institution)
        row |= {name: sql.Literal(uuid4().hex) for name in row if name.endswith("_token") or name == "merchant_no"}
        if table == "hospital_site":
            row |= {"deadline_seconds": sql.Literal(10), "calls_max": sql.Literal(8)}
        connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(row.values())
            )
        )
    return institution


@dataclass(frozen=True, slots=True)
class _Filler:
    connection: psycopg.Connection[Any]
    institution: UUID
    columns: Mapping[str, Mapping[str, str]]

    def prepare(self, key: bytes, payments: int, end: datetime) -> None:
        """Functions of this session, and the people who pay."""
        padded = key.ljust(BLOCK_BYTES, b"\0")
        inner, outer = (bytes(byte ^ pad for byte in padded) for pad in (0x36, 0x5C))
        salt = self.institution.hex
        self.connection.execute(
            sql.SQL(
                "CREATE FUNCTION pg_temp.mac(text) RETURNS text LANGUAGE sql IMMUTABLE AS $f$ SELECT encode("
                "sha256({}::bytea || sha256({}::bytea || convert_to($1, 'UTF8'))), 'hex') $f$"
            ).format(sql.Literal(f"\\x{outer.hex()}"), sql.Literal(f"\\x{inner.hex()}"))
        )
        self.connection.execute(
            sql.SQL(
                "CREATE FUNCTION pg_temp.id7(timestamptz, text, bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $f$"
                " SELECT (lpad(to_hex((extract(epoch FROM $1) * 1000)::bigint), 12, '0') || '7'"
                " || left(md5({0} || $2 || $3::text), 3) || '8' || right(md5($3::text || $2 || {0}), 15))::uuid $f$"
            ).format(sql.Literal(salt))
        )
        for table in ("patient", "payer"):
            values = {"id": "pg_temp.id7(at, 'person', n)", "created_at": "at"}
            if table == "payer":
                values |= {"chat_account_id": self._first("chat_account"), "open_id_lookup": f"md5('{salt}' || n)"}
            last = _people(payments) - 1
            numbered = f"SELECT n, '{end.isoformat()}'::timestamptz AS at FROM generate_series(0, {last}) n"
            self._insert(table, f"({numbered}) s", values)
        self.connection.commit()

    def batch(self, values: Mapping[str, Any]) -> None:
        """Payments number `first` to `last` and everything of theirs."""
        self.connection.execute(BATCH_TABLE.encode(), values)
        self.connection.execute(PARTS_TABLE)
        self.connection.execute(MOVES_TABLE)
        self._payments()
        self._booking()
        self._returning()
        self._traffic()
        for seq in (1, 2, 3):
            self.connection.execute(TRANSFERS.encode(), {"institution": self.institution, "seq": seq})

    def _payments(self) -> None:
        paid = "kind <> 'closed'"
        self._insert(
            "payment",
            "batch",
            {
                "id": "payment_id",
                "merchant_account_id": self._first("merchant_account"),
                "site_id": self._first("hospital_site"),
                "payer_id": "person_id",
                "patient_id": "person_id",
                "his_patient_id": "'P' || n % 100000",
                "method": "'wechatpay/miniprogram/wechat'",
                "scene": "'mobile'",
                "order_no": f"'P' || upper(left(md5('{self.institution.hex}' || 'order' || n), 25))",
                "asked_fen": "asked",
                "paid_fen": f"CASE WHEN {paid} THEN asked ELSE 0 END",
                "refunded_fen": "CASE WHEN kind = 'returned' THEN asked ELSE 0 END",
                "refund_reserved_fen": "CASE WHEN kind = 'returned' THEN asked ELSE 0 END",
                "status": f"CASE WHEN {paid} THEN 'paid' ELSE 'closed' END",
                "proof_id": "paid_event_id",
                "expires_at": "at + interval '5 min'",
                "sends_started": "1",
                "channel_trade_no": f"CASE WHEN {paid} THEN '4200' || lpad(n::text, 24, '0') ELSE '' END",
                "paid_at": f"CASE WHEN {paid} THEN at + interval '5 s' END",
                "created_at": "at",
            },
        )
        self._event("batch", "paid_event_id", f"CASE WHEN {paid} THEN 'paid' ELSE 'closed' END", "5 s")

    def _booking(self) -> None:
        status = "CASE kind WHEN 'closed' THEN 'void' WHEN 'returned' THEN 'returned' ELSE 'confirmed' END"
        self._insert(
            "payment_line",
            "part",
            {
                "id": "line_id",
                "payment_id": "payment_id",
                "position": "position - 1",
                "his_bill_id": f"'B' || left(md5('{self.institution.hex}' || n || 'bill' || position), 24)",
                "visit_no": "'V' || n",
                "kind": "'western'",
                "amount_fen": "line_fen",
                "status": status,
                "confirm_no": "confirm_no",
                "confirmation_id": "CASE WHEN kind <> 'closed' THEN confirmation_id END",
                "proof_id": "CASE WHEN kind <> 'closed' THEN booking_event_id END",
                "receipt_no": "CASE WHEN kind IN ('booked', 'merged') THEN 'S' || n ELSE '' END",
            },
        )
        booked, ended = (
            "(SELECT * FROM part WHERE kind <> 'closed') part",
            "CASE kind WHEN 'returned' THEN 'rejected' ELSE 'confirmed' END",
        )
        self._insert(
            "confirmation",
            booked,
            {
                "id": "confirmation_id",
                "payment_id": "payment_id",
                "site_id": self._first("hospital_site"),
                "confirm_no": "confirm_no",
                "status": ended,
                "proof_id": "booking_event_id",
                "sends_started": "1",
                "created_at": "at + interval '6 s'",
            },
        )
        self._event(booked, "booking_event_id", ended, "8 s", confirmation_id="confirmation_id")
        self._insert(
            "his_lock",
            "part",
            {
                "id": "pg_temp.id7(at, 'lock', n * 2 + position)",
                "payment_id": "payment_id",
                "site_id": self._first("hospital_site"),
                "confirm_no": "confirm_no",
                "status": "CASE WHEN kind IN ('booked', 'merged') THEN 'consumed' ELSE 'released' END",
                "created_at": "at",
            },
        )

    def _returning(self) -> None:
        returned = "(SELECT * FROM part WHERE kind = 'returned') part"
        event_id = "pg_temp.id7(at + interval '70 s', 'refunded', n)"
        self._insert(
            "refund",
            returned,
            {
                "id": "refund_id",
                "payment_id": "payment_id",
                "refund_no": f"'R' || upper(left(md5('{self.institution.hex}' || 'refund' || n), 25))",
                "cause": "'BILL_CANCELLED'",
                "origin": "'automatic'",
                "status": "'refunded'",
                "proof_id": event_id,
                "amount_fen": "asked",
                "sends_started": "1",
                "refunded_at": "at + interval '70 s'",
                "created_at": "at + interval '9 s'",
            },
        )
        self._insert(
            "refund_line",
            returned,
            {
                "id": "pg_temp.id7(at + interval '1 min', 'refund_line', n)",
                "payment_id": "payment_id",
                "refund_id": "refund_id",
                "line_id": "line_id",
                "amount_fen": "line_fen",
            },
        )
        self._event(returned, event_id, "'refunded'", "70 s", refund_id="refund_id")

    def _traffic(self) -> None:
        """The notice that told us, and the message that we wrote."""
        paid = "(SELECT * FROM batch WHERE kind <> 'closed') batch"
        self._insert(
            "inbound",
            paid,
            {
                "id": "pg_temp.id7(at + interval '5 s', 'inbound', n)",
                "source": "'wechatpay'",
                "account_id": self._first("merchant_account"),
                "digest": f"encode(sha256(convert_to('{self.institution.hex}' || n, 'UTF8')), 'hex')",
                "kind": "'notice'",
                "status": "'worked'",
                "received_at": "at + interval '5 s'",
            },
        )
        self._insert(
            "message",
            paid,
            {
                "id": "pg_temp.id7(at + interval '9 s', 'message', n)",
                "payer_id": "person_id",
                "payment_id": "payment_id",
                "kind": "'paid'",
                "dedup_key": "'paid:' || payment_id",
                "status": "'sent'",
                "sends_started": "1",
                "created_at": "at + interval '9 s'",
            },
        )

    def _event(self, source: str, event_id: str, proves: str, after: str, **of: str) -> None:
        self._insert(
            "payment_event",
            source,
            {
                "id": event_id,
                "payment_id": "payment_id",
                "kind": "'trade'",
                "source": "'wechatpay'",
                "proves": proves,
                "proof_kind": "'authenticated_query'",
                "digest": f"encode(sha256(convert_to({event_id}::text, 'UTF8')), 'hex')",
                "at": f"at + interval '{after}'",
                **of,
            },
        )

    def _insert(self, table: str, source: str, values: Mapping[str, str]) -> None:
        given = {**self.columns[table], "institution_id": f"'{self.institution}'::uuid", **values}
        self.connection.execute(
            f"INSERT INTO {table} ({', '.join(given)}) SELECT {', '.join(given.values())} FROM {source}".encode()
        )

    def _first(self, table: str) -> str:
        return f"(SELECT id FROM {table} WHERE institution_id = '{self.institution}' ORDER BY id LIMIT 1)"


# ---------------------------------------------------------------- seals


def _seal(connection: psycopg.Connection[Any], key: bytes, institution: UUID, at: datetime) -> int:
    """A seal for every minute that has transfers, after the last one that there is, as each minute makes it."""
    row = connection.execute(
        "SELECT number, last_place, mac FROM seal WHERE institution_id = %s ORDER BY number DESC LIMIT 1",
        [institution],
    ).fetchone()
    number, after_place, previous = row or (0, 0, "")
    insert = (
        "COPY seal (id, institution_id, number, after_place, last_place, transfers, balances, members, digest,"
        " previous_mac, at, mac) FROM STDIN"
    )
    sealed: list[tuple[Any, ...]] = []
    for transfers in _minutes(connection, institution, after_place):
        contents, row_id, number, last_place = Contents.of(transfers), uuid4(), number + 1, transfers[-1].place
        mac = seal_mac(
            key,
            contents,
            row_id=row_id,
            institution_id=institution,
            number=number,
            after_place=after_place,
            last_place=last_place,
            previous_mac=previous,
            at=at,
        )
        sealed.append(
            (
                row_id,
                institution,
                number,
                after_place,
                last_place,
                contents.transfers,
                Jsonb(dict(contents.balances)),
                contents.members,
                contents.digest,
                previous,
                at,
                mac,
            )
        )
        after_place, previous = last_place, mac
    with connection.cursor().copy(insert) as copy:
        for values in sealed:
            copy.write_row(values)
    connection.commit()
    return len(sealed)


def _minutes(
    connection: psycopg.Connection[Any], institution: UUID, after_place: int
) -> Iterator[list[SealedTransfer]]:
    """The transfers of each minute, by place."""
    minute: datetime | None = None
    found: list[SealedTransfer] = []
    with connection.cursor(name="transfers") as cursor:
        cursor.itersize = 5_000
        cursor.execute(
            "SELECT payment_id, seq, place, mac, debit, credit, amount_fen, at FROM transfer"
            " WHERE institution_id = %s AND place > %s ORDER BY place",
            [institution, after_place],
        )
        for payment_id, seq, place, mac, debit, credit, amount_fen, at in cursor:
            started = at.replace(second=0, microsecond=0)
            if minute is not None and started > minute:
                yield found
                found = []
            minute = max(started, minute or started)
            found.append(SealedTransfer(member_of(payment_id.hex, seq), place, mac, debit, credit, amount_fen))
    if found:
        yield found
