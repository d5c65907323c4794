"""Statements about one order as the channel and we ourselves would make them, and ways in which they may arrive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from core.evidence import (
    Evidence,
    StoredEvidence,
    never_sent_evidence,
    nothing_to_collect_evidence,
    refusal_evidence,
    trade_evidence,
)
from core.money import Fen
from core.ports import Trade
from core.states import ProofKind

ORDER_NO = "P1"
NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
STATEMENTS_MAX = 9
COPIES_MAX = 4


def unpaid(word: str, *, exists: bool = True, closed: bool = False) -> Trade:
    return Trade(order_no=ORDER_NO, exists=exists, ever_paid=False, closed=closed, state_text=word)


def paid(paid_fen: int = 8650, *, trade_no: str = "T1", seconds: int = 0, closed: bool = False) -> Trade:
    return Trade(
        order_no=ORDER_NO,
        exists=True,
        ever_paid=True,
        paid_fen=Fen(paid_fen),
        paid_at=NOON + timedelta(seconds=seconds),
        channel_trade_no=trade_no,
        closed=closed,
        state_text="SUCCESS",
    )


def said(trade: Trade, proof: ProofKind = ProofKind.AUTHENTICATED_QUERY, *, absence: bool = False) -> Evidence:
    return trade_evidence(trade, source="wechatpay", proof=proof, absence_is_proof=absence)


NEUTRAL = (
    said(unpaid("NOTPAY")),
    said(unpaid("USERPAYING")),
    said(unpaid("SETTLING")),
    said(unpaid("ORDER_NOT_EXIST", exists=False)),
)
CLOSED = (
    said(unpaid("CLOSED", closed=True), ProofKind.AUTHENTICATED_CLOSE),
    said(unpaid("CLOSED", closed=True)),
    said(unpaid("ORDER_NOT_EXIST", exists=False), absence=True),
)
FAILED = (
    refusal_evidence(ORDER_NO, source="wechatpay", code="PARAM_ERROR", message=""),
    never_sent_evidence(ORDER_NO, reason="the channel was not reached"),
)
PAID = (
    said(paid(), ProofKind.VERIFIED_NOTICE),
    said(paid()),
    said(paid(closed=True)),
    said(paid(), ProofKind.AUTHENTICATED_CLOSE),
    said(paid(seconds=-1)),
)
CONTRADICTING = (
    said(paid(8600)),
    said(paid(trade_no="T2"), ProofKind.VERIFIED_NOTICE),
    nothing_to_collect_evidence(ORDER_NO, paid_at=NOON),
)
GROUPS = (NEUTRAL, CLOSED, FAILED, PAID, CONTRADICTING)
WEIGHTS = (8, 4, 2, 6, 1)


@dataclass(frozen=True, slots=True)
class Case:
    """What was said, in the order in which it was said, and what of it arrived, in the order of arrival."""

    said: tuple[Evidence, ...]
    arrived: tuple[Evidence, ...]

    @property
    def arrived_in_order_once(self) -> list[Evidence]:
        there = {id(piece) for piece in self.arrived}
        return [piece for piece in self.said if id(piece) in there]


def a_case(draw: random.Random) -> Case:
    """Some statements, some of them dropped, the rest repeated, delayed and reordered."""
    number = draw.randint(1, STATEMENTS_MAX)
    groups = draw.choices(GROUPS, WEIGHTS, k=number)
    chosen = list({id(piece): piece for piece in map(draw.choice, groups)}.values())
    copies = [
        piece for piece in chosen if draw.random() > 0.15 for _ in range(draw.choice((1, 1, 1, 2, 3, COPIES_MAX)))
    ]
    # Delayed by a little: near ones change places. By a lot: the whole is shuffled.
    reach = draw.choice((0, 2, len(copies)))
    order = sorted(range(len(copies)), key=lambda place: place + draw.random() * reach)
    return Case(tuple(chosen), tuple(copies[place] for place in order))


def stored(pieces: Sequence[Evidence]) -> list[StoredEvidence]:
    """As rows whose numbers grow with their arrival."""
    return [
        StoredEvidence(
            id=UUID(int=number),
            proves=piece.proves,
            proof_kind=piece.proof_kind,
            facts=piece.facts,
        )
        for number, piece in enumerate(pieces, start=1)
    ]
