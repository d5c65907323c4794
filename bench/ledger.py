"""`zhenfu ledger verify` and `zhenfu invariants` on years of payments: seconds, memory, and one changed byte found.

`python -m bench.ledger --payments 2000000` fills a database of its own (bench/ledger_data.py), reads it, changes an
amount, a mac and a seal, takes out a transfer, and reads it again: what was done must be named, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import psycopg

from bench.ledger_data import fill
from core.invariants import check_invariants
from core.verifying import verify_ledger
from runtime.database import credentials_of, migrate
from runtime.embedded_postgres import OWNER_ROLE, EmbeddedPostgres

KEY = hashlib.sha256(b"bench").digest()
SECONDS_MAX = 300.0
"""On 2,000,000 payments, each of the two, on a machine that has nothing else to do."""

MEMORY_MAX_MIB = 300

_CHANGED = (
    "{order_no} transfer 2: is not as it was written",
    "seal {seal}: the transfers in it are not those that were",
)
CHANGES: Mapping[str, tuple[str, ...]] = {
    "UPDATE transfer SET amount_fen = amount_fen + 1": _CHANGED,
    "UPDATE transfer SET mac = overlay(mac PLACING CASE left(mac, 1) WHEN '0' THEN '1' ELSE '0' END FROM 1)": _CHANGED,
    "DELETE FROM transfer": ("{order_no} transfer 2: is missing; seal {seal} holds it",),
}
"""What is done to the last transfer of a payment, and what must be said of it."""

LAST_TRANSFER = """
SELECT t.id, i.code, p.order_no, s.number
FROM transfer t
JOIN payment p ON p.institution_id = t.institution_id AND p.id = t.payment_id
JOIN institution i ON i.id = t.institution_id
JOIN seal s ON s.institution_id = t.institution_id AND s.after_place < t.place AND s.last_place >= t.place
WHERE t.place > (SELECT max(place) * %s / %s FROM transfer) AND t.seq = 2 AND t.kind = 'confirmed' AND NOT EXISTS (
    SELECT FROM transfer n WHERE n.institution_id = t.institution_id AND n.payment_id = t.payment_id AND n.seq = 3
)
ORDER BY t.place LIMIT 1
"""
"""A payment's second and last transfer, at so much of the ledger, and the seal that holds it."""


async def read(url: str) -> None:
    """Verify and check what is at `url`, and print what that takes and finds."""
    connection = await asyncpg.connect(**credentials_of(url))
    try:
        before = _peak_mib()
        begun, used = time.monotonic(), time.process_time()
        report = await verify_ledger(connection, KEY)
        verified, used = time.monotonic() - begun, time.process_time() - used
        after_verify = _peak_mib()
        begun = time.monotonic()
        outcomes = await check_invariants(connection)
        checked = time.monotonic() - begun
        backend_mib = _own_mib(await connection.fetchval("SELECT pg_backend_pid()"))
    finally:
        await connection.close()
    print(f"{report.payments} payments, {report.transfers} transfers, {report.seals} seals")
    print(
        f"ledger verify: {verified:.1f} s, of which this process worked {used:.1f} s; peak {after_verify:.0f} MiB,"
        f" {before:.0f} MiB before the first row; {report.wrong} things are wrong"
    )
    for finding in report.findings[:20]:
        print(f"WRONG  {finding}")
    off = [outcome.identity for outcome in outcomes if not outcome.ok]
    print(
        f"invariants: {checked:.1f} s; peak {_peak_mib():.0f} MiB, {backend_mib:.0f} MiB of its own in PostgreSQL's"
        f" process afterwards; off: {', '.join(off) or 'none'}"
    )
    if max(verified, checked) > SECONDS_MAX or _peak_mib() > MEMORY_MAX_MIB:
        print(f"MORE than {SECONDS_MAX:.0f} s or {MEMORY_MAX_MIB} MiB; load {os.getloadavg()[0]:.1f}")


def spoil(dsn: str) -> list[str]:
    """Change the database as its superuser; the beginnings of what must be found."""
    expected = []
    with psycopg.connect(dsn, autocommit=True) as forger:
        forger.execute("SET session_replication_role = replica")
        for number, (statement, problems) in enumerate(CHANGES.items(), 1):
            row = forger.execute(LAST_TRANSFER, [number, len(CHANGES) + 1]).fetchone()
            assert row is not None
            row_id, code, order_no, seal = row
            forger.execute(f"{statement} WHERE id = %s".encode(), [row_id])
            expected += [f"{code} {problem.format(order_no=order_no, seal=seal)}" for problem in problems]
        changed = forger.execute(
            "UPDATE seal s SET digest = reverse(digest) FROM institution i WHERE i.id = s.institution_id"
            " AND number = (SELECT max(number) / 5 + 1 FROM seal) RETURNING i.code, number"
        ).fetchone()
        assert changed is not None
        expected.append(f"{changed[0]} seal {changed[1]}: is not as it was written")
    return expected


def _own_mib(process_id: int) -> float:
    """Memory that a process shares with nobody; 0 where that cannot be read."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return 0.0
    return int(line.split()[1]) / 1024


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _looked_at(url: str) -> str:
    """What `read` prints, in a process of its own, so that its memory is its own."""
    looking = [sys.executable, "-m", "bench.ledger", "--at", url]
    done = subprocess.run(looking, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    return done.stdout


def run(folder: Path, payments: int) -> bool:
    """Fill, read, spoil, read again; whether all that was spoilt was named, and nothing else."""
    postgres = EmbeddedPostgres(folder / "postgres", durable=False)
    try:
        postgres.start(die_with_us=True)
        postgres.create_database("ledger")
        asyncio.run(migrate(postgres.dsn("ledger", OWNER_ROLE)))
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
        filled = fill(postgres.superuser_dsn("ledger"), payments, key=KEY)
        with postgres.superuser("ledger") as connection:
            row = connection.execute("SELECT pg_database_size(current_database()) / 1048576").fetchone()
        print(f"filled: {filled.seconds:.1f} s, {row[0] if row else 0} MiB of tables and indexes", flush=True)
        clean = "0 things are wrong" in _looked_at(postgres.dsn("ledger"))
        expected = spoil(postgres.superuser_dsn("ledger"))
        told = [line[7:] for line in _looked_at(postgres.dsn("ledger")).splitlines() if line.startswith("WRONG")]
    finally:
        postgres.stop()
    found = len(told) == len(expected) and all(any(line.startswith(said) for line in told) for said in expected)
    print("each change is named, and nothing else" if clean and found else f"NOT as expected: {expected}")
    return clean and found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--payments", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where the database is put while this runs: 6 KiB a payment")
    parser.add_argument("--at", help="only read the database of this address, filled before with this module's key")
    chosen = parser.parse_args()
    if chosen.at:
        asyncio.run(read(chosen.at))
        return 0
    with tempfile.TemporaryDirectory(prefix="zhenfu-ledger-", dir=chosen.folder) as folder:
        Path(folder).chmod(0o755)
        return 0 if run(Path(folder), chosen.payments) else 1


if __name__ == "__main__":
    sys.exit(main())
