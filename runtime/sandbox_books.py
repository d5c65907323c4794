"""The product's books as the sandbox page shows them: plain values, read from our own database."""

from __future__ import annotations

from typing import Any

import asyncpg

from core.models import Payment, PaymentLine
from core.states import LineStatus, PaymentStatus
from core.viewing import payment_view

PAYMENTS_MAX = 100
MESSAGES_MAX = 100
CASES_MAX = 100
LINE_COLUMNS = ("his_bill_id", "title", "amount_fen", "status", "receipt_no", "refunded_fen", "paid_out_fen")

_PAYMENTS = "SELECT * FROM payment ORDER BY created_at DESC, id DESC LIMIT $1"
_LINES = "SELECT * FROM payment_line WHERE payment_id = ANY($1) ORDER BY payment_id, position"
_REFUNDS = (
    "SELECT payment_id, refund_no, amount_fen, status, cause FROM refund WHERE payment_id = ANY($1) ORDER BY created_at"
)
_TRANSFERS = (
    "SELECT debit, credit, count(*) AS count, sum(amount_fen)::bigint AS amount_fen FROM transfer"
    " GROUP BY debit, credit ORDER BY debit, credit"
)
_CASES = "SELECT kind, subject, opened_at FROM staff_case WHERE status = 'open' ORDER BY opened_at DESC, id LIMIT $1"
_MESSAGES = "SELECT kind, status, result_code, created_at FROM message ORDER BY created_at DESC, id LIMIT $1"
_DUE = " UNION ALL ".join(
    f"SELECT '{table}' AS kind, count(*) AS count, min(due_at) AS next_due_at FROM {table} WHERE due_at IS NOT NULL"  # noqa: S608
    for table in ("inbound", "payment", "confirmation", "his_lock", "payment_line", "refund", "message")
)


class SandboxBooks:
    """Reads with a connection of its own, in the role that all programs have."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def read(self) -> dict[str, Any]:
        """Everything as JSON values, newest first; one moment's view."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            payments = await connection.fetch(_PAYMENTS, PAYMENTS_MAX)
            ids = [row["id"] for row in payments]
            lines = await connection.fetch(_LINES, ids)
            refunds = await connection.fetch(_REFUNDS, ids)
            return {
                "payments": [
                    _payment(
                        row,
                        [line for line in lines if line["payment_id"] == row["id"]],
                        [refund for refund in refunds if refund["payment_id"] == row["id"]],
                    )
                    for row in payments
                ],
                "transfers": [dict(row) for row in await connection.fetch(_TRANSFERS)],
                "cases": [_plain(row) for row in await connection.fetch(_CASES, CASES_MAX)],
                "messages": [_plain(row) for row in await connection.fetch(_MESSAGES, MESSAGES_MAX)],
                "due": [_plain(row) for row in await connection.fetch(_DUE) if row["count"]],
            }


def _payment(row: asyncpg.Record, lines: list[asyncpg.Record], refunds: list[asyncpg.Record]) -> dict[str, Any]:
    return {
        "order_no": row["order_no"],
        "status": row["status"],
        "view": payment_view(
            Payment(status=PaymentStatus(row["status"])),
            [
                PaymentLine(
                    status=LineStatus(line["status"]),
                    refunded_fen=line["refunded_fen"],
                    paid_out_fen=line["paid_out_fen"],
                )
                for line in lines
            ],
        ),
        "asked_fen": row["asked_fen"],
        "paid_fen": row["paid_fen"],
        "refunded_fen": row["refunded_fen"],
        "created_at": row["created_at"].isoformat(),
        "lines": [{name: line[name] for name in LINE_COLUMNS} for line in lines],
        "refunds": [
            {name: refund[name] for name in ("refund_no", "amount_fen", "status", "cause")} for refund in refunds
        ],
    }


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
