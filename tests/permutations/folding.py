"""The pure fold over random arrivals.

The same end: the end that is proven, what was taken, when, under which number, and whether statements contradict
each other, are those of the same statements in order, each once. Which of several equal proofs is named may differ;
it must be one that has arrived and proves that end. What was dropped changes nothing as long as one statement of
the payment arrives, unless statements contradict each other. Nothing that arrives later takes a payment back.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from core.evidence import Facts, StoredEvidence, fold
from core.states import PaymentStatus
from tests.permutations.statements import CONTRADICTING, Case, a_case, stored

MISTAKES_MAX = 5


@dataclass(kw_only=True, slots=True)
class Figures:
    """What a run has looked at, and where it went wrong."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    mistakes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        found = [f"{self.cases} cases in {self.seconds:.1f} s, {self.cases / max(self.seconds, 0.001):.0f} a second"]
        found += [f"{number:10}  {name}" for name, number in sorted(self.counts.items())]
        return [*found, *(f"WRONG: {mistake}" for mistake in self.mistakes)]


def run(cases: int, seed: int) -> Figures:
    """Random cases; stops early when several have gone wrong."""
    figures = Figures()
    began = time.monotonic()
    draw = random.Random(f"{seed}/folding")
    while figures.cases < cases and len(figures.mistakes) < MISTAKES_MAX:
        case = a_case(draw)
        figures.cases += 1
        if problem := wrong_with(case, draw.randint(0, len(case.arrived)), figures.counts):
            figures.mistakes.append(f"case {figures.cases} of seed {seed}: {problem}")
    figures.seconds = time.monotonic() - began
    return figures


def wrong_with(case: Case, some: int, counts: Counter[str]) -> str:
    """What is not as it must be; empty: nothing. `some`: how much has arrived when somebody looks in between."""
    rows = stored(case.arrived)
    shown = rows[::-1]  # the database promises no order
    facts, in_order = fold(shown), fold(stored(case.arrived_in_order_once))
    if said_by(facts) != said_by(in_order):
        return f"{said_by(facts)} instead of {said_by(in_order)}"
    if problem := _wrong_proof(facts, rows):
        return problem
    between = fold(rows[:some])
    if between.ever_paid and not facts.ever_paid:
        return "what was paid is not paid any more"
    if between.status is not None and facts.status is None:
        return "an end that was proven is open again"
    everything = fold(stored(case.said))
    consistent = not any(piece in CONTRADICTING for piece in case.said)
    if facts.ever_paid and consistent and money(facts) != money(everything):
        return f"{money(facts)} without the statements that were dropped, {money(everything)} with them"
    end = facts.status
    counts[f"ended {end[0] if end else 'open'}"] += 1
    counts["statements"] += len(case.said)
    counts["arrivals"] += len(case.arrived)
    once = len(case.arrived_in_order_once)
    counts["repetitions"] += len(case.arrived) - once
    counts["dropped"] += len(case.said) - once
    counts["cases out of order"] += list(dict.fromkeys(map(id, case.arrived))) != [
        id(piece) for piece in case.arrived_in_order_once
    ]
    counts["cases that contradict themselves"] += facts.contradicting_amounts
    return ""


def said_by(facts: Facts) -> tuple[object, ...]:
    return (
        facts.status[0] if facts.status else None,
        facts.ever_paid,
        facts.paid_fen,
        facts.paid_at,
        facts.channel_trade_no,
        facts.contradicting_amounts,
    )


def money(facts: Facts) -> tuple[object, ...]:
    """The moment of payment is the earliest that was named, so it may be another when that one was dropped."""
    return facts.ever_paid, facts.paid_fen, facts.channel_trade_no


def _wrong_proof(facts: Facts, rows: list[StoredEvidence]) -> str:
    proofs = (
        (facts.paid_proof, PaymentStatus.PAID),
        (facts.closed_proof, PaymentStatus.CLOSED),
        (facts.failed_proof, PaymentStatus.FAILED),
    )
    for proof, status in proofs:
        having = [row.id for row in rows if row.proves == status]
        if proof != min(having, default=None):
            return f"{status} is proven by {proof}, the first that proves it is {min(having, default=None)}"
    return ""
