"""`zhenfu ledger verify`: reads every transfer and every seal again and says what is not as it was written.

In bounded memory, on one snapshot, while the system runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from core.chain_check import ChainCheck
from core.ledger_report import Report
from core.seal_check import SealCheck
from core.seals import Head
from core.snapshot import snapshot

_UNSEALED = """
SELECT count(*) AS transfers, min(t.at) AS oldest
FROM institution i
LEFT JOIN LATERAL (SELECT last_place FROM seal WHERE institution_id = i.id ORDER BY number DESC LIMIT 1) s ON true
JOIN transfer t ON t.institution_id = i.id AND t.place > coalesce(s.last_place, 0)
"""


async def verify_ledger(connection: asyncpg.Connection, key: bytes, *, heads: Sequence[Head] = ()) -> Report:
    """Check every chain and every seal, and the seals against `heads` that were kept outside.

    `connection` is the caller's own; `key` is the ledger's (core.ledger.ledger_key).
    """
    report = Report()
    async with snapshot(connection, "the ledger of all institutions is verified"):
        codes = {row["id"]: str(row["code"]) for row in await connection.fetch("SELECT id, code FROM institution")}
        await ChainCheck(connection, key, codes, report).read()
        await SealCheck(connection, key, codes, report, heads).read()
        row = await connection.fetchrow(_UNSEALED)
        report.unsealed, report.unsealed_since = int(row["transfers"]), row["oldest"]
    return report
