"""Reads every seal again, and beside it the transfers that lie in its window now."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from core.ledger_report import Finding, Report, code_of
from core.seals import BEGINNING, MEMBER_BYTES, Contents, Head, SealedTransfer, seal_mac
from core.snapshot import ROWS_AT_ONCE

SEALS_AHEAD = 10
"""A seal may hold twenty thousand names of transfers: few are read ahead."""

_SEALS = """
SELECT id, institution_id, number, since, until, transfers, balances, members, digest, previous_mac, at, mac
FROM seal ORDER BY institution_id, number
"""
_IN_TIME = """
SELECT payment_id, seq, debit, credit, amount_fen, mac, at FROM transfer WHERE institution_id = $1 ORDER BY at
"""
_ORDER_NO = "SELECT order_no FROM payment WHERE institution_id = $1 AND id = $2"


@dataclass(kw_only=True, slots=True)
class _Series:
    """One institution's seals, as far as they have been read, and its transfers in time beside them."""

    institution: str
    institution_id: UUID
    transfers: AsyncIterator[Mapping[str, Any]]
    ahead: Mapping[str, Any] | None = None  # read, and later than the window before
    number: int = 0
    until: datetime = BEGINNING
    mac: str = ""

    async def window(self, since: datetime, until: datetime) -> list[SealedTransfer]:
        """The transfers of a window, which must not begin before the one asked for last ended."""
        found: list[SealedTransfer] = []
        while True:
            row, self.ahead = self.ahead, None
            if row is None:
                row = await anext(self.transfers, None)
            if row is None:
                return found
            if row["at"] >= until:
                self.ahead = row
                return found
            if row["at"] >= since:
                found.append(
                    SealedTransfer(
                        payment_id=row["payment_id"],
                        seq=row["seq"],
                        debit=row["debit"],
                        credit=row["credit"],
                        amount_fen=row["amount_fen"],
                        mac=row["mac"],
                    )
                )


@dataclass(frozen=True, slots=True)
class SealCheck:
    """Every seal, in bounded memory, within the caller's snapshot."""

    connection: asyncpg.Connection
    key: bytes
    codes: Mapping[UUID, str]
    report: Report
    heads: Sequence[Head]

    async def read(self) -> None:
        kept = {(head.institution, head.number): head.mac for head in self.heads}
        series: _Series | None = None
        async for row in self.connection.cursor(_SEALS, prefetch=SEALS_AHEAD):
            institution_id = row["institution_id"]
            if series is None or institution_id != series.institution_id:
                cursor = self.connection.cursor(_IN_TIME, institution_id, prefetch=ROWS_AT_ONCE)
                series = _Series(
                    institution=code_of(self.codes, institution_id),
                    institution_id=institution_id,
                    transfers=aiter(cursor),
                )
            await self._seal(series, row)
            outside = kept.pop((series.institution, row["number"]), None)
            if outside is not None and not hmac.compare_digest(outside, row["mac"]):
                self._say(series, row["number"], "is another one than the head that was kept outside")
        for institution, number in kept:
            self.report.add(
                Finding(
                    institution=institution,
                    place=f"seal {number}",
                    problem="is missing, and its mac was kept outside",
                )
            )

    async def _seal(self, series: _Series, row: Mapping[str, Any]) -> None:
        self.report.seals += 1
        number = row["number"]
        stored = Contents(
            transfers=row["transfers"],
            balances=json.loads(row["balances"]),
            members=row["members"],
            digest=row["digest"],
        )
        mac = seal_mac(
            self.key,
            stored,
            row_id=row["id"],
            institution_id=row["institution_id"],
            number=number,
            since=row["since"],
            until=row["until"],
            previous_mac=row["previous_mac"],
            at=row["at"],
        )
        if number != series.number + 1:
            missing = f"{series.number + 1}" if number == series.number + 2 else f"{series.number + 1} to {number - 1}"
            self._say(series, number, f"seal {missing} before it is missing")
        elif row["since"] != series.until or row["previous_mac"] != series.mac:
            self._say(series, number, "does not follow the seal before it")
        if not hmac.compare_digest(mac, row["mac"]):
            self._say(series, number, "is not as it was written")
        else:
            await self._contents(series, number, stored, await series.window(row["since"], row["until"]))
        series.number, series.until, series.mac = number, row["until"], row["mac"]

    async def _contents(
        self, series: _Series, number: int, stored: Contents, transfers: Sequence[SealedTransfer]
    ) -> None:
        """The transfers that lie in the window now against those that were sealed."""
        found = Contents.of(transfers)
        if found == stored:
            return
        sealed, there = _members(stored.members), _members(found.members)
        for member in sorted(sealed - there):
            await self._name(series, member, f"is missing; seal {number} holds it")
        for member in sorted(there - sealed):
            await self._name(series, member, f"came into the window of seal {number} after that was made")
        if sealed == there:
            self._say(series, number, "the transfers in it are not those that were sealed")

    async def _name(self, series: _Series, member: bytes, problem: str) -> None:
        payment_id, seq = UUID(bytes=member[:16]), int.from_bytes(member[16:], "big")
        order_no = await self.connection.fetchval(_ORDER_NO, series.institution_id, payment_id)
        place = order_no or f"payment {payment_id}"
        self.report.add(Finding(institution=series.institution, place=place, seq=seq, problem=problem))

    def _say(self, series: _Series, number: int, problem: str) -> None:
        self.report.add(Finding(institution=series.institution, place=f"seal {number}", problem=problem))


def _members(packed: bytes) -> set[bytes]:
    return {packed[start : start + MEMBER_BYTES] for start in range(0, len(packed), MEMBER_BYTES)}
