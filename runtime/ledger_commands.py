"""What `zhenfu ledger` and `zhenfu invariants` do once their arguments are read: they look, and change nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from core.errors import ConfigurationError
from core.invariants import IDENTITIES, Outcome, check_invariants
from core.ledger import ledger_key
from core.ledger_report import Report
from core.seals import Head, newest_heads
from core.verifying import verify_ledger
from runtime.commands import check_database
from runtime.database import APPLICATION_NAME, CONNECT_SECONDS, credentials_of, database
from runtime.settings import Settings

PROGRAM = f"{APPLICATION_NAME} check"


@asynccontextmanager
async def _own_connection(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own to a database that is ours. Raises ConfigurationError."""
    await check_database(settings)
    connection = await asyncpg.connect(
        **credentials_of(settings.database_url),
        timeout=CONNECT_SECONDS,
        server_settings={"application_name": PROGRAM, "timezone": "UTC"},
    )
    try:
        yield connection
    finally:
        await connection.close()


def verify(settings: Settings, *, heads: Sequence[str], shown_max: int, as_json: bool) -> tuple[str, bool]:
    """What is not as it was written, as text, and whether all is well."""
    kept = [_head(text) for text in heads]

    async def work() -> Report:
        async with _own_connection(settings) as connection:
            return await verify_ledger(connection, ledger_key(settings.keyring()), heads=kept)

    report = asyncio.run(work())
    return (_json(_verified(report)) if as_json else _told(report, shown_max)), report.wrong == 0


def _head(text: str) -> Head:
    try:
        return Head.read(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is no head: it is institution:number:mac, from `zhenfu ledger head`"
        ) from None


def _verified(report: Report) -> dict[str, Any]:
    return {
        "payments": report.payments,
        "transfers": report.transfers,
        "seals": report.seals,
        "unsealed": report.unsealed,
        "unsealed_since": report.unsealed_since.isoformat() if report.unsealed_since else None,
        "wrong": report.wrong,
        "findings": [
            {
                "institution": finding.institution,
                "place": finding.place,
                "transfer": finding.seq,
                "problem": finding.problem,
            }
            for finding in report.findings
        ],
    }


def _told(report: Report, shown_max: int) -> str:
    lines = [f"WRONG  {finding}" for finding in report.findings[:shown_max]]
    if report.wrong > len(lines):
        lines.append(f"       and {report.wrong - len(lines)} more")
    read = f"{report.payments} payments, {report.transfers} transfers, {report.seals} seals read"
    if report.unsealed_since is not None:
        read += f"; not sealed yet: {report.unsealed} transfers since {report.unsealed_since:%Y-%m-%d %H:%M} UTC"
    lines.append(read)
    lines.append("the ledger is as it was written" if report.wrong == 0 else f"{report.wrong} things are wrong")
    return "\n".join(lines)


def heads(settings: Settings) -> str:
    """The newest seal of every institution, a line each, to be kept where nobody of ours can write."""

    async def work() -> list[Head]:
        await check_database(settings)
        async with database(settings.database_url, pool_max=1):
            return await newest_heads()

    return "\n".join(str(head) for head in asyncio.run(work()))


def invariants(settings: Settings, *, shown_max: int, as_json: bool) -> tuple[str, bool]:
    """Every identity, where it is off and by how many fen, as text, and whether all hold."""

    async def work() -> list[Outcome]:
        async with _own_connection(settings) as connection:
            return await check_invariants(connection)

    outcomes = asyncio.run(work())
    text = _json([_checked(outcome) for outcome in outcomes]) if as_json else _listed(outcomes, shown_max)
    return text, all(outcome.ok for outcome in outcomes)


def _checked(outcome: Outcome) -> dict[str, Any]:
    return {
        "identity": outcome.identity,
        "times": outcome.times,
        "off_fen": outcome.off_fen,
        "places": [
            {"institution": place.institution, "place": place.place, "off_fen": place.off_fen}
            for place in outcome.places
        ],
    }


def _listed(outcomes: Sequence[Outcome], shown_max: int) -> str:
    lines = []
    for outcome in outcomes:
        sentence = IDENTITIES[outcome.identity]
        if outcome.ok:
            lines.append(f"ok     {outcome.identity:<20} {sentence}")
            continue
        lines.append(f"OFF    {outcome.identity:<20} {sentence}: {outcome.times} times, {outcome.off_fen} fen")
        lines += [f"       {place}" for place in outcome.places[:shown_max]]
        if outcome.times > shown_max:
            lines.append(f"       and {outcome.times - shown_max} more")
    return "\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
