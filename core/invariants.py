"""`zhenfu invariants`: what must be true of every payment at any moment, asked on a system that runs.

A few statements over all rows, each of which returns only what is off, on one snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg

from core.invariants_sql import STATEMENTS
from core.snapshot import ROWS_AT_ONCE, snapshot

PLACES_MAX = 100
"""So many places of one identity are kept; all are counted."""

IDENTITIES: Mapping[str, str] = {
    "every_fen": "taken + disputed = awaiting HIS + confirmed + held + to be returned + returned + paid out",
    "none_negative": "no account of a payment is below nothing",
    "paid_fen": "paid_fen of a payment is what its transfers took",
    "paid_status": "only a paid payment has taken money",
    "refunded_fen": "refunded_fen of a payment is what its transfers gave back",
    "external_fen": "external_refunded_fen of a payment is what others gave back and nothing of ours accounts for",
    "paid_out": "paid_out_fen of the lines is what the transfers say that the hospital gave back itself",
    "refunds_done": "refunded_fen of a payment is the sum of its refunded refunds, and of what others gave of the rest",
    "reserved": "refund_reserved_fen is the sum of refunds not declined or dead, and of what others gave of dead ones",
    "reserved_within_paid": "refund_reserved_fen is not more than paid_fen",
    "lines_add_up": "the lines of a payment add up to what was asked",
    "awaiting_his": "paid lines that HIS has not booked and nobody returns are awaiting_his in the ledger",
    "held": "what was taken in another amount is held exactly while its lines are",
    "his_confirmed": "booked lines, less what goes back of them, are his_confirmed in the ledger",
    "refund_payable": "refunds on their way are refund_payable in the ledger",
    "bill_once": "a bill is being booked or is booked by one line at most",
    "line_and_booking": "a line is as its confirmation is",
    "claim": "a payment that has ended claims no bill",
    "payment_proof": "a payment that has ended has the proof of its end",
    "booking_proof": "a confirmation that has ended has the proof of its end",
    "refund_proof": "a refund that has ended has the proof of its end",
    "nothing_sleeps": "whatever is not at its end is due at some time, or is a case for a person",
}
"""Name → what must be true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an identity is off, and by how many fen (0: it is not about an amount)."""

    institution: str  # its code
    place: str  # an order number, a bill, a row's number
    off_fen: int

    def __str__(self) -> str:
        return f"{self.institution} {self.place}: {self.off_fen} fen"


@dataclass(kw_only=True, slots=True)
class Outcome:
    """One identity over all payments."""

    identity: str
    times: int = 0
    off_fen: int = 0  # sizes added up, whatever their sign
    places: list[Place] = field(default_factory=list)  # the first PLACES_MAX

    @property
    def ok(self) -> bool:
        return self.times == 0


async def check_invariants(connection: asyncpg.Connection) -> list[Outcome]:
    """Every identity in the order of IDENTITIES. `connection` is the caller's own."""
    outcomes = {identity: Outcome(identity=identity) for identity in IDENTITIES}
    async with snapshot(connection, "the books of all institutions are checked"):
        for statement in STATEMENTS:
            async for row in connection.cursor(statement, prefetch=ROWS_AT_ONCE):
                outcome, off_fen = outcomes[row["identity"]], int(row["off_fen"])
                outcome.times += 1
                outcome.off_fen += abs(off_fen)
                if len(outcome.places) < PLACES_MAX:
                    outcome.places.append(Place(institution=row["code"], place=row["place"], off_fen=off_fen))
    return list(outcomes.values())
