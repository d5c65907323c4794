"""Reads the transfers of every payment again, each with the mac that it must carry."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from core.ledger import TransferKind, transfer_mac
from core.ledger_report import Finding, Report, code_of
from core.snapshot import ROWS_AT_ONCE

_CHAINS = """
SELECT t.institution_id, t.payment_id, t.id, t.seq, t.cause, t.kind, t.debit, t.credit, t.amount_fen, t.at, t.mac,
    p.order_no, p.paid_fen, p.refunded_fen
FROM transfer t LEFT JOIN payment p ON p.institution_id = t.institution_id AND p.id = t.payment_id
ORDER BY t.institution_id, t.payment_id, t.seq
"""
_EMPTIED = """
SELECT p.institution_id, p.order_no, p.paid_fen, p.refunded_fen FROM payment p
WHERE (p.paid_fen <> 0 OR p.refunded_fen <> 0) AND NOT EXISTS (
    SELECT FROM transfer t WHERE t.institution_id = p.institution_id AND t.payment_id = p.id
)
"""


@dataclass(kw_only=True, slots=True)
class _Chain:
    """One payment's transfers, as far as they have been read."""

    institution: str
    institution_id: UUID
    payment_id: UUID
    order_no: str | None
    paid_fen: int | None
    refunded_fen: int | None
    seq: int = 0
    macs: tuple[str, ...] = ("",)  # what may stand before the next one; empty: it is not known
    paid_sum: int = 0
    refunded_sum: int = 0

    @property
    def place(self) -> str:
        return self.order_no or f"payment {self.payment_id}"


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """Every transfer, in bounded memory, within the caller's snapshot."""

    connection: asyncpg.Connection
    key: bytes
    codes: Mapping[UUID, str]
    report: Report

    async def read(self) -> None:
        chain: _Chain | None = None
        async for row in self.connection.cursor(_CHAINS, prefetch=ROWS_AT_ONCE):
            payment_id, institution_id = row["payment_id"], row["institution_id"]
            if chain is None or payment_id != chain.payment_id or institution_id != chain.institution_id:
                self._end(chain)
                chain = _Chain(
                    institution=code_of(self.codes, institution_id),
                    institution_id=institution_id,
                    payment_id=payment_id,
                    order_no=row["order_no"],
                    paid_fen=row["paid_fen"],
                    refunded_fen=row["refunded_fen"],
                )
            self._transfer(chain, row)
        self._end(chain)
        async for row in self.connection.cursor(_EMPTIED, prefetch=ROWS_AT_ONCE):
            self.report.payments += 1
            self.report.add(
                Finding(
                    institution=code_of(self.codes, row["institution_id"]),
                    place=row["order_no"],
                    problem=f"all its transfers are missing: its row says paid {row['paid_fen']},"
                    f" refunded {row['refunded_fen']} fen",
                )
            )

    def _transfer(self, chain: _Chain, row: Mapping[str, Any]) -> None:
        self.report.transfers += 1
        seq, kind, stored = row["seq"], row["kind"], row["mac"]
        if seq != chain.seq + 1:
            missing = f"{chain.seq + 1}" if seq == chain.seq + 2 else f"{chain.seq + 1} to {seq - 1}"
            self._say(chain, None, f"transfer {missing} is missing")
            chain.macs = ()
        made = [self._mac(row, previous) for previous in chain.macs]
        if made and not any(hmac.compare_digest(mac, stored) for mac in made):
            self._say(chain, seq, "is not as it was written")
            chain.macs = (stored, *made)  # either its text or its mac was changed: the next one tells
        else:
            chain.macs = (stored,)
        chain.seq = seq
        if kind == TransferKind.PAID:
            chain.paid_sum += row["amount_fen"]
        elif kind == TransferKind.REFUNDED:
            chain.refunded_sum += row["amount_fen"]

    def _mac(self, row: Mapping[str, Any], previous: str) -> str:
        return transfer_mac(
            self.key,
            previous=previous,
            row_id=row["id"],
            institution_id=row["institution_id"],
            payment_id=row["payment_id"],
            seq=row["seq"],
            cause=row["cause"],
            kind=row["kind"],
            debit=row["debit"],
            credit=row["credit"],
            amount_fen=row["amount_fen"],
            at=row["at"],
        )

    def _end(self, chain: _Chain | None) -> None:
        if chain is None:
            return
        self.report.payments += 1
        if chain.order_no is None:
            self._say(chain, None, "these transfers belong to no payment")
            return
        for name, said, found in (
            ("paid_fen", chain.paid_fen, chain.paid_sum),
            ("refunded_fen", chain.refunded_fen, chain.refunded_sum),
        ):
            if said != found:
                self._say(chain, None, f"{name} of its row is {said}, its transfers add up to {found}")

    def _say(self, chain: _Chain, seq: int | None, problem: str) -> None:
        self.report.add(Finding(institution=chain.institution, place=chain.place, seq=seq, problem=problem))
