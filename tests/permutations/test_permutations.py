"""Some of the arrivals of `python -m tests.permutations`, and that a fold which minds the order would be seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from core.evidence import Facts, StoredEvidence, fold
from core.money import Fen
from core.states import PaymentStatus
from tests.permutations import applying, folding
from tests.support.postgres import Database

FOLDED = 4000
APPLIED = 60


def test_whatever_arrives_in_whatever_order_folds_into_the_same_facts() -> None:
    figures = folding.run(FOLDED, seed=1)
    assert figures.mistakes == []
    assert figures.cases == FOLDED
    for name in ("ended paid", "ended closed", "ended failed", "ended open", "repetitions", "dropped"):
        assert figures.counts[name] > FOLDED / 100, name


def last_word(evidence: Iterable[StoredEvidence]) -> Facts:
    """A fold that believes whoever spoke last."""
    pieces = list(evidence)
    proving = [piece for piece in pieces if piece.proves]
    newest = max(proving, key=lambda piece: piece.id.int, default=None)
    if newest is None or newest.proves == PaymentStatus.PAID:
        return fold(pieces)
    return fold([newest])


def adding(evidence: Iterable[StoredEvidence]) -> Facts:
    """A fold that adds up what is said again."""
    pieces = list(evidence)
    facts = fold(pieces)
    times = sum(piece.proves == PaymentStatus.PAID for piece in pieces)
    return replace(facts, paid_fen=Fen(facts.paid_fen * max(times, 1)))


@pytest.mark.parametrize("wrong", [last_word, adding])
def test_a_fold_that_minds_order_or_repetition_is_seen(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "fold", wrong)
    assert folding.run(500, seed=1).mistakes


@pytest.mark.timeout(300)
async def test_evidence_in_any_order_by_several_connections_ends_as_in_order_once(
    tortoise: object, database: Database
) -> None:
    async with applying.a_town(database.app_dsn) as town:
        figures = await applying.run(town, APPLIED, seed=1)
    assert figures.mistakes == []
    assert figures.counts["HIS contradicts itself"]
    assert figures.counts["arrivals before their subject"]
