"""What `zhenfu doctor` looks at in the ledger: whether it is sealed. `zhenfu ledger verify` reads all of it."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg

from runtime.doctor_chat import Finding

SEALED_WITHIN = timedelta(minutes=10)
"""Workers seal each minute; a transfer that old without a seal means that none of them does."""

_UNSEALED = """
SELECT i.code, t.at FROM institution i
LEFT JOIN LATERAL (SELECT last_place FROM seal WHERE institution_id = i.id ORDER BY number DESC LIMIT 1) s ON true
CROSS JOIN LATERAL (
    SELECT at FROM transfer WHERE institution_id = i.id AND place > coalesce(s.last_place, 0) ORDER BY place LIMIT 1
) t
WHERE t.at < $1 ORDER BY t.at
"""


async def sealing(connection: asyncpg.Connection, now: datetime) -> Finding:
    """Whether an institution has transfers that wait for a seal for longer than SEALED_WITHIN."""
    late = await connection.fetch(_UNSEALED, now - SEALED_WITHIN)
    if not late:
        return Finding(name="seals", state="ok", detail="every transfer is sealed or new")
    return Finding(
        name="seals",
        state="warn",
        detail="not sealed for more than 10 minutes: "
        + ", ".join(f"{row['code']} since {row['at']:%Y-%m-%d %H:%M} UTC" for row in late),
        what_to_do="is a worker running? look for sealing_failed in its log, and into docs/runbook.md, The ledger",
    )
