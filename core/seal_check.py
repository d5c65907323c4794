"""Reads every seal again, and beside it the transfers that stand at its places now."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from core.ledger_report import FINDINGS_MAX, Finding, Report, code_of
from core.seals import MEMBER_BYTES, Contents, Head, SealedTransfer, member_of, seal_mac
from core.snapshot import each_row

SEALS_AHEAD = 50
"""A seal may hold twenty thousand names of transfers: few are read ahead."""

TRANSFERS_AT_ONCE = 20_000
"""Seals over so many transfers, or one seal, are compared in one go."""

_SEALS = """
SELECT id, institution_id, number, after_place, last_place, transfers, balances, members, digest, previous_mac, at, mac
FROM seal ORDER BY institution_id, number
"""
_IN_PLACE = """
SELECT payment_id, seq, place, mac, debit, credit, amount_fen FROM transfer
WHERE institution_id = $1 AND place > $2 AND place <= $3 ORDER BY place
"""
_ORDER_NO = "SELECT order_no FROM payment WHERE institution_id = $1 AND id = $2"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sealed:
    """A seal that is as it was written, and so says what must stand at its places."""

    number: int
    after_place: int
    last_place: int
    contents: Contents


@dataclass(kw_only=True, slots=True)
class _Series:
    """One institution's seals, as far as they have been read."""

    institution: str
    institution_id: UUID
    number: int = 0
    last_place: int = 0
    mac: str = ""
    waiting: list[_Sealed] = field(default_factory=list)  # to be compared with the transfers
    transfers_waiting: int = 0


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
                await self._compare(series)
                series = _Series(institution=code_of(self.codes, institution_id), institution_id=institution_id)
            self._seal(series, row)
            outside = kept.pop((series.institution, row["number"]), None)
            if outside is not None and not _same(outside, row["mac"]):
                self._say(series, row["number"], "is another one than the head that was kept outside")
            if series.transfers_waiting >= TRANSFERS_AT_ONCE:
                await self._compare(series)
        await self._compare(series)
        for institution, number in kept:
            self.report.add(
                Finding(
                    institution=institution,
                    place=f"seal {number}",
                    problem="is missing, and its mac was kept outside",
                )
            )

    def _seal(self, series: _Series, row: Mapping[str, Any]) -> None:
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
            after_place=row["after_place"],
            last_place=row["last_place"],
            previous_mac=row["previous_mac"],
            at=row["at"],
        )
        if number != series.number + 1:
            missing = f"{series.number + 1}" if number == series.number + 2 else f"{series.number + 1} to {number - 1}"
            self._say(series, number, f"seal {missing} before it is missing")
        elif row["after_place"] != series.last_place or row["previous_mac"] != series.mac:
            self._say(series, number, "does not follow the seal before it")
        if _same(mac, row["mac"]):
            series.waiting.append(
                _Sealed(number=number, after_place=row["after_place"], last_place=row["last_place"], contents=stored)
            )
            series.transfers_waiting += stored.transfers
        else:
            self._say(series, number, "is not as it was written")
        series.number, series.last_place, series.mac = number, row["last_place"], row["mac"]

    async def _compare(self, series: _Series | None) -> None:
        """The seals that wait against the transfers that stand at their places now."""
        if series is None or not series.waiting:
            return
        comparison = _Comparison(series.waiting)
        first, last = series.waiting[0].after_place, series.waiting[-1].last_place
        await each_row(self.connection, _IN_PLACE, comparison.take, series.institution_id, first, last)
        for sealed, found in comparison.ended():
            await self._differs(series, sealed, found)
        series.waiting, series.transfers_waiting = [], 0

    async def _differs(self, series: _Series, sealed: _Sealed, found: Contents) -> None:
        number = sealed.number
        was, there = _members(sealed.contents.members), _members(found.members)
        for member in sorted(was - there):
            await self._name(series, member, f"is missing; seal {number} holds it")
        for member in sorted(there - was):
            await self._name(series, member, f"came to the places of seal {number} after that was made")
        if was == there:
            self._say(series, number, "the transfers in it are not those that were sealed")

    async def _name(self, series: _Series, member: bytes, problem: str) -> None:
        payment_id, seq = UUID(bytes=member[:16]), int.from_bytes(member[16:], "big", signed=True)
        order_no = None
        if self.report.wrong < FINDINGS_MAX:
            order_no = await self.connection.fetchval(_ORDER_NO, series.institution_id, payment_id)
        place = order_no or f"payment {payment_id}"
        self.report.add(Finding(institution=series.institution, place=place, seq=seq, problem=problem))

    def _say(self, series: _Series, number: int, problem: str) -> None:
        self.report.add(Finding(institution=series.institution, place=f"seal {number}", problem=problem))


class _Comparison:
    """Takes the transfers at the places of some seals in the order of their places, one seal's at a time."""

    def __init__(self, seals: Sequence[_Sealed]) -> None:
        self._seals = iter(seals)
        self._current: _Sealed | None = next(self._seals)
        self._transfers: list[SealedTransfer] = []
        self._different: list[tuple[_Sealed, Contents]] = []

    def take(self, row: list[str]) -> None:
        payment_id, seq, place_text, mac, debit, credit, amount = row
        place = int(place_text)
        while self._current is not None and place > self._current.last_place:
            self._next()
        if self._current is not None and place > self._current.after_place:
            member = member_of(payment_id.replace("-", ""), int(seq))
            self._transfers.append(SealedTransfer(member, place, mac, debit, credit, int(amount)))

    def ended(self) -> list[tuple[_Sealed, Contents]]:
        """The seals that are not over what stands at their places, and what does."""
        while self._current is not None:
            self._next()
        return self._different

    def _next(self) -> None:
        assert self._current is not None
        found = Contents.of(self._transfers)
        if found != self._current.contents:
            self._different.append((self._current, found))
        self._transfers = []
        self._current = next(self._seals, None)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _members(packed: bytes) -> set[bytes]:
    return {packed[start : start + MEMBER_BYTES] for start in range(0, len(packed), MEMBER_BYTES)}
