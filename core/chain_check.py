"""Reads the transfers of every payment again, each with the mac that it must carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from core.ledger import GAVE_BACK, TOOK, mac_of, transfer_text
from core.ledger_report import Finding, Report, code_of
from core.snapshot import ROWS_AT_ONCE, each_row, moment_of

_CHAINS = """
SELECT t.institution_id, t.payment_id, t.id, t.seq, t.cause, t.kind, t.debit, t.credit, t.amount_fen, t.at, t.mac,
    coalesce(p.order_no, ''), coalesce(p.paid_fen, 0), coalesce(p.refunded_fen, 0)
FROM transfer t LEFT JOIN payment p ON p.institution_id = t.institution_id AND p.id = t.payment_id
ORDER BY t.institution_id, t.payment_id, t.seq
"""
_EMPTIED = """
SELECT p.institution_id, p.order_no, p.paid_fen, p.refunded_fen FROM payment p
WHERE (p.paid_fen <> 0 OR p.refunded_fen <> 0) AND NOT EXISTS (
    SELECT FROM transfer t WHERE t.institution_id = p.institution_id AND t.payment_id = p.id
)
"""


@dataclass(slots=True)
class _Chain:
    """One payment's transfers, as far as they have been read."""

    institution_id: str
    payment_id: str
    order_no: str  # "" when there is no such payment
    paid_fen: int
    refunded_fen: int
    seq: int = 0
    macs: tuple[str, ...] = ("",)  # what may stand before the next one; empty: it is not known
    paid_sum: int = 0
    refunded_sum: int = 0

    @property
    def place(self) -> str:
        return self.order_no or f"payment {self.payment_id}"


@dataclass(slots=True)
class ChainCheck:
    """Every transfer, in bounded memory, within the caller's snapshot."""

    connection: asyncpg.Connection
    key: bytes
    codes: Mapping[UUID, str]
    report: Report
    _chain: _Chain | None = field(default=None, init=False)

    async def read(self) -> None:
        await each_row(self.connection, _CHAINS, self._take)
        self._end(self._chain)
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

    def _take(self, row: list[str]) -> None:
        institution_id, payment_id, row_id, seq, cause, kind, debit, credit, amount, at, mac, *payment = row
        chain = self._chain
        if chain is None or payment_id != chain.payment_id or institution_id != chain.institution_id:
            self._end(chain)
            order_no, paid_fen, refunded_fen = payment
            chain = self._chain = _Chain(institution_id, payment_id, order_no, int(paid_fen), int(refunded_fen))
        self.report.transfers += 1
        number = int(seq)
        if number != chain.seq + 1:
            self._say(chain, None, f"transfer {_between(chain.seq, number)} is missing")
            chain.macs = ()
        made = [
            mac_of(
                self.key,
                transfer_text(
                    previous,
                    row_id.replace("-", ""),
                    institution_id.replace("-", ""),
                    payment_id.replace("-", ""),
                    seq,
                    cause,
                    kind,
                    debit,
                    credit,
                    amount,
                    moment_of(at),
                ),
            )
            for previous in chain.macs
        ]
        if made and mac not in made:
            self._say(chain, number, "is not as it was written")
            chain.macs = (mac, *made)  # either its text or its mac was changed: the next one tells
        else:
            chain.macs = (mac,)
        chain.seq = number
        if kind in TOOK:
            chain.paid_sum += int(amount)
        elif kind in GAVE_BACK:
            chain.refunded_sum += int(amount)

    def _end(self, chain: _Chain | None) -> None:
        if chain is None:
            return
        self.report.payments += 1
        if not chain.order_no:
            self._say(chain, None, "these transfers belong to no payment")
            return
        self._sum(chain, "paid_fen", chain.paid_fen, chain.paid_sum)
        self._sum(chain, "refunded_fen", chain.refunded_fen, chain.refunded_sum)

    def _sum(self, chain: _Chain, name: str, said: int, found: int) -> None:
        if said != found:
            self._say(chain, None, f"{name} of its row is {said}, its transfers add up to {found}")

    def _say(self, chain: _Chain, seq: int | None, problem: str) -> None:
        institution = code_of(self.codes, UUID(chain.institution_id))
        self.report.add(Finding(institution=institution, place=chain.place, seq=seq, problem=problem))


def _between(before: int, after: int) -> str:
    return f"{before + 1}" if after == before + 2 else f"{before + 1} to {after - 1}"
